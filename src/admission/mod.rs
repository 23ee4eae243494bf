//! Identity, policy, evidence and verification put together: a [`Request`] in, a [`Decision`] out.

pub mod parser;
pub mod sandbox;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

pub use crate::identity::{Image, Mount};

/// Version of the [`Request`] and [`Decision`] documents. A reader refuses any other.
pub const VERSION: u32 = 1;

/// What the shim asks `assay admit` on standard input, as one JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// Path of containerd's gRPC socket.
    pub containerd: String,
    /// containerd namespace.
    pub namespace: String,
    /// Container id, the same as the task id.
    pub container: String,
    /// Absolute path of the bundle; its `config.json` is what the OCI runtime will get.
    pub bundle: String,
    /// The mounts of the create request, as they came.
    pub rootfs: Vec<Mount>,
    /// True when the task is restored from a checkpoint.
    pub checkpoint: bool,
}

/// Whether the container may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Refuse,
}

/// The answer of `assay admit` on standard output, one line of JSON, also the line of the decision log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// [`VERSION`].
    pub version: u32,
    /// When it was decided, RFC 3339, UTC.
    pub time: String,
    /// containerd namespace.
    pub namespace: String,
    /// Container id; empty when an image was judged without a container.
    pub container: String,
    /// Whether the container may start.
    pub verdict: Verdict,
    /// Stable kebab-case code of the reason, `signature-verified` or `signature-missing`, for example.
    pub code: String,
    /// One sentence: what was decided and why. No line breaks.
    pub reason: String,
    /// What to do next; the command, where there is one. Empty for an allow.
    pub fix: String,
    /// Whether the refusal is the policy's word (PERMISSION_DENIED) or a condition that must be mended first
    /// (FAILED_PRECONDITION). Meaningless for an allow.
    pub policy: bool,
    /// The image that the container was proved to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
    /// Name of the rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What each audit rule that matched would have done, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<Audit>,
    /// Evidence that the verdict rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// True when the verdict was taken from the memo of an earlier one with the same inputs.
    pub repeated: bool,
    /// Time spent by phase in microseconds, in the order in which the phases ran.
    pub phases: Vec<(String, u64)>,
}

/// The word of an audit rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Name of the rule.
    pub rule: String,
    /// What it would have said under `enforce`.
    pub verdict: Verdict,
    /// The code it would have had.
    pub code: String,
    /// The sentence it would have said.
    pub reason: String,
}

/// A piece of evidence that counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// Digest of the manifest in the evidence cache that carries it.
    pub manifest: Digest,
    /// How it was carried: `bundle-key`, `simple-signing`.
    pub carrier: String,
    /// Digest that the signature is about.
    pub subject: Digest,
    /// Identifier of the key that signed, from `trust.d`.
    pub key: String,
}

impl Decision {
    /// The one line that a pod author reads: container, image, digest, rule, reason and fix.
    #[must_use]
    pub fn line(&self) -> String {
        let image = self.image.as_ref().map_or_else(String::new, |image| {
            let digest = image.manifests.first().unwrap_or(&image.config);
            format!(" image {} ({digest})", image.name)
        });
        let rule = self
            .rule
            .as_ref()
            .map_or_else(String::new, |rule| format!(" by rule \"{rule}\""));
        let verdict = match self.verdict {
            Verdict::Allow => "allowed",
            Verdict::Refuse => "refused",
        };
        let mut line = format!("assay {verdict}{image}{rule}: {}: {}", self.code, self.reason);
        if !self.fix.is_empty() {
            line.push_str("; to fix: ");
            line.push_str(&self.fix);
        }
        line
    }
}
