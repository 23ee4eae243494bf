//! `assay verify`: the verdict about an image without starting anything.

use clap::builder::NonEmptyStringValueParser;

use super::{Exit, Output, complain, print, show};
use crate::admission::{self, Decision, Verdict};
use crate::config::Config;
use crate::diagnostic::Diagnostics;

/// Arguments of `assay verify`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Images in containerd's store, by the name that a pod would use
    #[arg(required = true, value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new())]
    images: Vec<String>,
    /// containerd namespace that holds them
    #[arg(long, default_value = "k8s.io", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = socket)]
    address: String,
    /// Kubernetes namespace of the pod whose rules apply
    #[arg(long, value_name = "NAME")]
    kubernetes_namespace: Option<String>,
    /// What the result is written as; JSON is one decision a line
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn socket(path: &str) -> Result<String, &'static str> {
    let absolute = path.strip_prefix("unix://").unwrap_or(path).starts_with('/');
    absolute
        .then(|| path.to_owned())
        .ok_or("expected the absolute path of a socket")
}

/// What a person has to know about every verdict of this command.
const NOTE: &str = "  no container was looked at: its snapshot and mounts are compared with the image when it starts";

/// Judges each image as a container made from it would be judged. Ends with the exit code of the first that is refused.
#[must_use]
pub fn run(args: &Args, config: Result<&Config, &Diagnostics>) -> Exit {
    if let (Err(faults), Output::Text) = (config, args.output) {
        show(&faults.0);
        return Exit::Failed;
    }
    let mut exit = Exit::Done;
    for image in &args.images {
        let kubernetes = args.kubernetes_namespace.as_deref();
        let decision = admission::verify(config, &args.address, &args.namespace, image, kubernetes);
        match args.output {
            Output::Text => print(text(&decision)),
            Output::Json => print(decision.json()),
        }
        if exit == Exit::Done {
            exit = code(&decision);
        }
        // What another user cannot read looks broken to them.
        if exit == Exit::Corrupt && !rustix::process::geteuid().is_root() {
            complain("assay verify reads what only root may read: run it as root");
            exit = Exit::Failed;
        }
    }
    exit
}

fn text(decision: &Decision) -> String {
    let mut lines = vec![decision.line()];
    if let Some(image) = &decision.image {
        let list = |digests: &[crate::digest::Digest]| {
            let digests: Vec<String> = digests.iter().map(ToString::to_string).collect();
            digests.join(" ")
        };
        lines.push(format!("  configuration {}", image.config));
        lines.push(format!("  manifests     {}", list(&image.manifests)));
        if !image.indexes.is_empty() {
            lines.push(format!("  indexes       {}", list(&image.indexes)));
        }
    }
    for fact in &decision.evidence {
        lines.push(format!(
            "  signature     by {} of {} ({}, {})",
            fact.proof.signer, fact.subject, fact.carrier, fact.evidence
        ));
    }
    for audit in &decision.audit {
        let verdict = match audit.verdict {
            Verdict::Allow => "would allow",
            Verdict::Refuse => "would refuse",
        };
        lines.push(format!(
            "  audit rule    \"{}\" {verdict}: {}: {}",
            audit.rule, audit.code, audit.reason
        ));
    }
    lines.push(NOTE.to_owned());
    lines.join("\n")
}

/// Kinds of evidence, as codes name them.
const KINDS: [&str; 5] = ["signature", "provenance", "vsa", "sbom", "vex"];

/// The exit code that scripts see.
fn code(decision: &Decision) -> Exit {
    if decision.verdict == Verdict::Allow {
        return Exit::Done;
    }
    match decision.code.as_str() {
        "evidence-cache-empty"
        | "evidence-missing"
        | "evidence-too-old"
        | "log-missing"
        | "time-missing"
        | "attestation-unsigned"
        | "attestation-link-missing" => Exit::EvidenceMissing,
        code if code.ends_with("-missing") && KINDS.contains(&code.trim_end_matches("-missing")) => {
            Exit::EvidenceMissing
        }
        code if code.ends_with("-too-few") && KINDS.contains(&code.trim_end_matches("-too-few")) => {
            Exit::EvidenceMissing
        }
        "image-unknown" | "platform-missing" | "content-missing" => Exit::NotFound,
        "containerd-unreachable" | "parser-sandbox" | "rootless-layout" | "docker-layout" => Exit::Unsupported,
        "policy-corrupt"
        | "policy-unreadable"
        | "policy-version"
        | "state-unusable"
        | "state-full"
        | "evidence-cache-unusable"
        | "config-edited"
        | "manifest-edited" => Exit::Corrupt,
        "internal-panic" | "parser-crashed" | "parser-garbage" | "parser-oversize" => Exit::Internal,
        "no-rule" | "digest-denied" | "key-denied" | "digest-not-listed" | "nothing-required" | "policy-missing" => {
            Exit::Denied
        }
        // The signature may be sound; whom this node trusts, and for what, decides.
        "key-unknown" | "key-use" | "key-retired" | "key-distrusted" | "key-window" | "key-hash" | "key-unusable"
        | "signer-not-wanted" => Exit::Denied,
        "identity-denied"
        | "email-denied"
        | "log-entry-denied"
        | "attestation-index-only"
        | "signer-unlisted"
        | "builder-not-wanted"
        | "builder-level"
        | "builder-ref"
        | "build-type-not-wanted"
        | "source-not-wanted"
        | "source-missing"
        | "parameter-not-allowed"
        | "parameter-value"
        | "where-false"
        | "where-error"
        | "sbom-format"
        | "vsa-verifier"
        | "vsa-resource"
        | "vsa-policy"
        | "vsa-failed"
        | "vsa-level"
        | "revocation-unknown"
        | "builder-not-signer"
        | "log-promise-only"
        | "log-too-few" => Exit::Denied,
        code if code.ends_with("-subject") && KINDS.contains(&code.trim_end_matches("-subject")) => Exit::Denied,
        "clock-unreadable" => Exit::Corrupt,
        "containerd-failed" | "identity-timeout" | "parser-timeout" | "parser-start" | "config-invalid" => Exit::Failed,
        // What is left is said about a signature that is there.
        _ if decision.policy => Exit::SignatureInvalid,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Edits, Image};
    use crate::digest::Digest;
    use crate::verify::{Carrier, Claim, Fact, Proof};

    fn decision(code: &str, policy: bool) -> Decision {
        let digest = Digest::of(b"");
        Decision {
            version: admission::VERSION,
            time: "2026-01-01T00:00:00Z".to_owned(),
            namespace: "k8s.io".to_owned(),
            container: String::new(),
            verdict: if code == "signature-verified" {
                Verdict::Allow
            } else {
                Verdict::Refuse
            },
            code: code.to_owned(),
            reason: "signed by release".to_owned(),
            fix: String::new(),
            policy,
            name: "example.com/app:1".to_owned(),
            pod: None,
            image: Some(Image {
                name: "example.com/app:1".to_owned(),
                config: digest,
                manifests: vec![digest],
                indexes: Vec::new(),
                chain_id: digest,
            }),
            rule: Some("release images".to_owned()),
            audit: Vec::new(),
            evidence: vec![Fact {
                evidence: digest,
                carrier: Carrier::BundleKey,
                chain: None,
                subject: digest,
                claim: Claim::ImageSignature,
                proof: Proof::by_key("release"),
                details: None,
                held: Vec::new(),
            }],
            hooks: Vec::new(),
            devices: Vec::new(),
            repeated: false,
            phases: Vec::new(),
            edits: Edits::default(),
            view: None,
            files: None,
            syscalls: None,
            exec: None,
            grant: None,
            basis: None,
        }
    }

    #[test]
    fn scripts_can_tell_refusals_apart() {
        for (refusal, policy, exit) in [
            ("signature-verified", false, Exit::Done),
            ("signature-missing", true, Exit::EvidenceMissing),
            ("signature-invalid", true, Exit::SignatureInvalid),
            ("key-unknown", true, Exit::Denied),
            ("key-window", true, Exit::Denied),
            ("signature-subject", true, Exit::Denied),
            ("sbom-subject", true, Exit::Denied),
            ("log-too-few", true, Exit::Denied),
            ("subject-mismatch", true, Exit::SignatureInvalid),
            ("clock-behind", false, Exit::Failed),
            ("no-rule", true, Exit::Denied),
            ("image-unknown", false, Exit::NotFound),
            ("containerd-unreachable", false, Exit::Unsupported),
            ("config-edited", false, Exit::Corrupt),
            ("internal-panic", false, Exit::Internal),
            ("identity-timeout", false, Exit::Failed),
            ("image-ambiguous", false, Exit::Failed),
        ] {
            assert_eq!(code(&decision(refusal, policy)), exit, "{refusal}");
        }
    }

    #[test]
    fn the_result_shows_what_it_rests_on_and_what_it_cannot_say() {
        insta::assert_snapshot!(text(&decision("signature-verified", false)), @r#"
        assay allowed image example.com/app:1 (sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855) by rule "release images": signature-verified: signed by release
          configuration sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
          manifests     sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
          signature     by release of sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 (bundle-key, sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855)
          no container was looked at: its snapshot and mounts are compared with the image when it starts
        "#);
    }
}
