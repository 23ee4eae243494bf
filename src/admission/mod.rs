//! Identity, policy, evidence and verification put together: a [`Request`] in, a [`Decision`] out.
//!
//! # How the shim asks
//!
//! It starts `assay admit` with nothing but `ASSAY_CONFIG` in its environment, writes the [`Request`] as one JSON
//! document to standard input, closes it, and reads one line from standard output: the [`Decision`], at most
//! [`MAX_DECISION`] bytes. The exit status is 0 whenever a decision was written, refusals included. Anything else (another
//! status, no line, a line about another container, no answer in time) is a refusal that the shim words itself.
//!
//! # How it is decided
//!
//! [`admit`] is the broker. It runs as root, talks to containerd and to Assay's own state, and parses no evidence; a
//! parser in a [`sandbox`] does that, and the broker checks what it says. What the parser found is remembered, the
//! verdict is not.
//!
//! An `audit` or `off` rule lets a container run although it could not be bound to an image; the decision says so.
//! An image that could not be bound cannot be compared with the deny list. What is not known at all (no containerd, no
//! record, no configuration, no active policy, no room for the record) refuses in every mode.

pub mod again;
pub mod analysis;
mod broker;
pub(crate) mod child;
pub mod comparison;
mod desk;
pub mod exec;
pub mod filter;
mod images;
pub mod journal;
mod layers;
pub mod log;
mod memo;
mod minimize;
pub mod needs;
pub mod parser;
pub mod rehearsal;
mod roots;
mod ruling;
pub mod sandbox;
mod survey;
mod timely;
mod trail;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::policy::Kind;
use crate::verify::Fact;
use crate::view::View;

pub use crate::grant::Granted;
pub use crate::identity::{Image, Mount, Pod};
pub use analysis::{Analysis, Route, Step};
pub use broker::{admit, open_exec, pull, reject, verify};
pub use exec::Exec;
pub use filter::Syscalls;
pub use images::{Expected, Looked, Recheck, Subject, Unprepared, image, look, prepare, processes, recheck};
pub use log::LOG;
pub use needs::{Accounted, Counts, Elf, Needs, Unlisted};
pub use survey::{Name, NameKind, Package, Survey};

/// Version of the [`Request`] and [`Decision`] documents. A reader refuses any other.
pub const VERSION: u32 = 1;
/// Largest request in bytes: mounts of some thousand layers.
pub const MAX_REQUEST: u64 = 4 << 20;
/// Largest decision in bytes, its line break included.
pub const MAX_DECISION: u64 = 1 << 20;

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
    /// Name or path of the OCI runtime's program.
    #[serde(default)]
    pub runtime: String,
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
    /// Image name that the container was created with, as the user wrote it; it proves nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The pod that it is of, for containers that containerd's CRI made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
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
    pub evidence: Vec<Fact>,
    /// OCI hooks that run outside the container, as `point path`; the first ones, where there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    /// Devices that are added to the container; the first ones, where there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// True when no evidence had to be read: what it says was remembered from an earlier decision with the same inputs.
    pub repeated: bool,
    /// Time spent by phase in microseconds, in the order in which the phases ran.
    pub phases: Vec<(String, u64)>,
    /// What is taken out of the container's specification before the OCI runtime gets it.
    #[serde(default, skip_serializing_if = "Edits::is_empty")]
    pub edits: Edits,
    /// Which files of its image the container sees, where that is not all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<View>,
    /// What that view shows, or why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// Which system calls it can make, where its rule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscalls: Option<Syscalls>,
    /// Which further processes may be started in it, where its rule says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// The grant that an allow rests on, in place of what its rule asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Granted>,
    /// What it was made from; `None` where not even the active policy was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<Basis>,
}

/// What a container sees of its image, and what that follows from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Files {
    /// Digest of the predicate of the attested SBOM that it is derived from; none where it is derived from the package
    /// databases in the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Digest>,
    /// Image against view.
    pub counts: Counts,
    /// Needed executables that no package owns and no SBOM lists; the first ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unattested: Vec<String>,
    /// What could not be followed, and why: every executable of attested packages stays visible then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unfollowed: Vec<String>,
    /// What is wrong with the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Why the container sees all of its image although its rule wants a view, or why what it uses is not watched.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unavailable: String,
    /// Under audit: what enforce would do to the container, which sees all of its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<FilesAudit>,
}

/// What enforcing the file system would do to a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesAudit {
    /// Name of the rule that says what would be visible.
    pub rule: String,
    /// Digest and name of the list of everything that would be hidden, whose use is watched.
    pub list: Digest,
    /// How many names are in it.
    pub names: u64,
    /// The first executables in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<String>,
    /// Why the container would be refused; empty where it would not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub refuse: String,
}

/// What is taken out of a container's specification: a closed set, each of which can only narrow what was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edits {
    /// The root file system becomes read-only.
    pub read_only_root: bool,
    /// Nothing on a mount can be executed.
    pub noexec_mounts: bool,
    /// No process gains privileges by starting a program, those of a later exec included.
    pub no_new_privileges: bool,
    /// The seccomp profile becomes the one that is kept under this digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Digest>,
}

impl Edits {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a decision was made from, beside the image and the evidence: enough to make it again without the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Basis {
    /// Generation of the active policy.
    pub generation: u64,
    /// Digest of the active policy's document, which holds rules, keys and trusted roots.
    pub policy: Digest,
    /// Digests of the trusted roots, by their identifiers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roots: BTreeMap<String, Digest>,
    /// What kind of container it is.
    pub kind: Kind,
    /// Kubernetes namespace of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_namespace: Option<String>,
    /// Directory that takes what the container writes, above the layers of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<String>,
    /// Image volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// Blobs of the evidence cache that an allow rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Digest>,
}

/// An image volume of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Where the container sees it.
    pub destination: String,
    /// The image that it was proved to be, under the name that the pod's author wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Image>,
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

impl Request {
    /// Reads a request: one JSON document of the current version, with absolute paths.
    ///
    /// # Errors
    /// What makes it unusable.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidRequest> {
        let request: Self = serde_json::from_slice(bytes)?;
        if request.version != VERSION {
            return Err(InvalidRequest::Version(request.version));
        }
        for (field, path) in [("bundle", &request.bundle), ("containerd", &request.containerd)] {
            if !path.strip_prefix("unix://").unwrap_or(path).starts_with('/') {
                return Err(InvalidRequest::Path(field));
            }
        }
        for (field, text) in [("namespace", &request.namespace), ("container", &request.container)] {
            if text.is_empty() || text.chars().any(char::is_control) {
                return Err(InvalidRequest::Name(field));
            }
        }
        Ok(request)
    }
}

/// Why a request cannot be decided about.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// Not a request.
    #[error("the request is not one: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("the request has version {0}, this assay reads version {VERSION}: install shim and assay of one version")]
    Version(u32),
    /// A relative path.
    #[error("the request's {0} is not an absolute path")]
    Path(&'static str),
    /// A name that is empty or has control characters.
    #[error("the request's {0} is empty or not printable")]
    Name(&'static str),
    /// Larger than [`MAX_REQUEST`].
    #[error("the request has more than {MAX_REQUEST} bytes")]
    TooLarge,
    /// It could not be read.
    #[error("the request cannot be read: {0}")]
    Read(#[source] std::io::Error),
}

impl Decision {
    /// The decision as one line of JSON, without the line break.
    #[must_use]
    pub fn json(&self) -> String {
        // Strings, numbers and lists only: there is always a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The one line that a pod author reads: container, image, digest, rule, reason and fix.
    #[must_use]
    pub fn line(&self) -> String {
        let image = match &self.image {
            Some(image) => {
                let digest = image.manifests.first().unwrap_or(&image.config);
                format!(" image {} ({digest})", image.name)
            }
            None if self.name.is_empty() => String::new(),
            None => format!(" image {}", self.name),
        };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> serde_json::Value {
        serde_json::json!({
            "version": VERSION, "containerd": "/run/containerd/containerd.sock", "namespace": "k8s.io",
            "container": "c", "bundle": "/run/b", "checkpoint": false,
            "rootfs": [{ "type": "overlay", "source": "overlay", "target": "", "options": ["index=off"] }],
        })
    }

    #[test]
    fn a_request_is_read_strictly() {
        assert!(Request::parse(request().to_string().as_bytes()).is_ok());
        for (field, value) in [
            ("version", serde_json::json!(2)),
            ("containerd", serde_json::json!("containerd.sock")),
            ("namespace", serde_json::json!("")),
            ("container", serde_json::json!("a\nb")),
            ("bundle", serde_json::json!("run/b")),
            ("checkpoint", serde_json::json!("no")),
            ("rootfs", serde_json::json!([{ "type": "overlay" }])),
            ("unknown", serde_json::json!(1)),
        ] {
            let mut request = request();
            request[field] = value;
            assert!(Request::parse(request.to_string().as_bytes()).is_err(), "{field}");
        }
        let twice = request().to_string().replacen('{', "{\"bundle\":\"/other\",", 1);
        assert!(Request::parse(twice.as_bytes()).is_err());
        assert!(Request::parse(b"").is_err());
    }

    #[test]
    fn an_unreadable_request_is_refused_in_words() {
        let decision = reject(&Request::parse(b"{").unwrap_err());
        insta::assert_snapshot!(decision.line(), @"assay refused: request-invalid: the request is not one: EOF while parsing an object at line 1 column 1; to fix: install containerd-shim-assay-v1 and assay of the same version");
    }
}
