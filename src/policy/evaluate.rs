//! Whether the evidence is what a rule asks for.
//!
//! More evidence never turns an allow into a refusal, except for what `[[deny]]` lists.

use super::{Active, Rule, Signature, Subject};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::verify::{Answer, Claim, Fact, Finding};

/// Findings that a refusal repeats; the rest is counted.
const MAX_FINDINGS: usize = 3;

/// Longest text of a finding that a refusal repeats, in characters.
const MAX_FINDING: usize = 200;

/// A rule's word about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it allows the image.
    pub allow: bool,
    /// Stable kebab-case code: one of this module's, or that of the finding that stood in the way.
    pub code: String,
    /// One sentence without line breaks.
    pub reason: String,
    /// What to do next; empty for an allow.
    pub fix: String,
    /// The facts that it rests on.
    pub used: Vec<Fact>,
}

/// What is asked about: the image by its digests.
#[derive(Clone, Copy)]
struct Image<'a> {
    manifests: &'a [Digest],
    indexes: &'a [Digest],
    config: &'a Digest,
}

impl Image<'_> {
    fn has(&self, digest: &Digest) -> bool {
        digest == self.config || self.manifests.contains(digest) || self.indexes.contains(digest)
    }

    /// The digest that people know the image by.
    fn shown(&self) -> &Digest {
        self.manifests.first().unwrap_or(self.config)
    }
}

fn refuse(code: &str, reason: String, fix: String) -> Outcome {
    Outcome {
        allow: false,
        code: code.to_owned(),
        reason,
        fix,
        used: Vec::new(),
    }
}

impl Active {
    /// The refusal of an image that the revocation list names, by one of its digests or by the key of a signature
    /// or attestation about one of them.
    #[must_use]
    pub fn denied(&self, digests: &[Digest], facts: &[Fact]) -> Option<Outcome> {
        let fix = "use another image; an administrator lifts it by removing the [[deny]] entry and running: assay \
                   policy apply";
        if let Some(digest) = digests.iter().find(|digest| self.deny.digest.contains(digest)) {
            let reason = format!("{digest} is on the deny list");
            return Some(refuse("digest-denied", reason, fix.to_owned()));
        }
        let fact = facts
            .iter()
            .find(|fact| self.deny.key.contains(&fact.key) && digests.contains(&fact.subject))?;
        let reason = format!("{} is signed by {}, which is on the deny list", fact.subject, fact.key);
        Some(refuse("key-denied", reason, fix.to_owned()))
    }
}

impl Rule {
    /// The rule's word about an image with these manifests, indexes that list them, and configuration. The mode
    /// plays no part in it: an audit rule says what it would say under `enforce`.
    #[must_use]
    pub fn evaluate(&self, manifests: &[Digest], indexes: &[Digest], config: &Digest, answer: &Answer) -> Outcome {
        let image = Image {
            manifests,
            indexes,
            config,
        };
        if self.requires_nothing() {
            return refuse(
                "nothing-required",
                "the rule asks for neither a signature nor a digest, which is not enough to allow anything".to_owned(),
                "add [[rule.signature]] or digest to the rule and run: assay policy apply".to_owned(),
            );
        }
        if !self.digest.is_empty() && !self.digest.iter().any(|digest| image.has(digest)) {
            let shown = image.shown();
            return refuse(
                "digest-not-listed",
                format!("{shown} is none of the digests that the rule lists"),
                format!("run an image that it lists, or add {shown} to its digest list and run: assay policy apply"),
            );
        }
        let mut used: Vec<Fact> = Vec::new();
        for signature in &self.signature {
            match signature.evaluate(&image, answer) {
                Ok(facts) => {
                    let new: Vec<_> = facts.into_iter().filter(|fact| !used.contains(fact)).cloned().collect();
                    used.extend(new);
                }
                Err(outcome) => return outcome,
            }
        }
        let (code, reason) = if used.is_empty() {
            ("digest-listed", format!("{} is listed by the rule", image.shown()))
        } else {
            let keys = distinct(used.iter().map(|fact| fact.key.as_str()));
            ("signature-verified", format!("signed by {}", keys.join(", ")))
        };
        Outcome {
            allow: true,
            code: code.to_owned(),
            reason,
            fix: String::new(),
            used,
        }
    }
}

impl Signature {
    fn evaluate<'a>(&self, image: &Image<'_>, answer: &'a Answer) -> Result<Vec<&'a Fact>, Outcome> {
        let signatures: Vec<_> = answer
            .facts
            .iter()
            .filter(|fact| fact.claim == Claim::ImageSignature && image.has(&fact.subject))
            .collect();
        let by_wanted: Vec<_> = signatures
            .iter()
            .copied()
            .filter(|fact| self.any.contains(&fact.key))
            .collect();
        let counted: Vec<_> = by_wanted
            .iter()
            .copied()
            .filter(|fact| self.is_about(image, &fact.subject))
            .collect();
        let keys = distinct(counted.iter().map(|fact| fact.key.as_str()));
        // An empty list of keys, which only a forged document has, must not be met by an empty list of signatures.
        if !keys.is_empty() && keys.len() >= self.threshold {
            return Ok(counted);
        }
        let wanted = self.wanted();
        let shown = image.shown();
        let import = format!("assay evidence import PATH, with a PATH that holds {wanted} of {shown}");
        if !keys.is_empty() {
            let reason = format!("{shown} is signed by {} alone, {wanted} is required", keys.join(", "));
            return Err(refuse("signature-too-few", reason, import));
        }
        if let Some(fact) = by_wanted.first() {
            let subject = match self.subject {
                Subject::Platform => "the platform's manifest itself, not an index",
                Subject::Index | Subject::Either => "an index that lists the image, not the manifest alone",
            };
            let reason = format!(
                "{} signed {}, and the rule asks for a signature of {subject}",
                fact.key, fact.subject
            );
            let fix = "sign that too, or set subject = \"either\" in the rule and run: assay policy apply";
            return Err(refuse("signature-subject", reason, fix.to_owned()));
        }
        let others = distinct(signatures.iter().map(|fact| fact.key.as_str()));
        if !others.is_empty() {
            let reason = format!("{shown} is signed by {}, and {wanted} is required", others.join(", "));
            return Err(refuse("signer-not-wanted", reason, import));
        }
        let missing = format!("{wanted} of {shown} is required");
        if let Some(finding) = answer.findings.first() {
            let reason = format!("{missing}; found instead: {}", tell(&answer.findings));
            return Err(refuse(&printable(&finding.code), reason, import));
        }
        let attested = answer.facts.iter().find(|fact| self.any.contains(&fact.key));
        let found = match attested {
            Some(fact) => format!("{} only attested it, which is no image signature", fact.key),
            None => "the evidence cache holds no signature of it".to_owned(),
        };
        Err(refuse("signature-missing", format!("{missing}, and {found}"), import))
    }

    fn is_about(&self, image: &Image<'_>, subject: &Digest) -> bool {
        let platform = self.subject != Subject::Index && image.manifests.contains(subject);
        let index = self.subject != Subject::Platform && image.indexes.contains(subject);
        platform || index
    }

    fn wanted(&self) -> String {
        if self.threshold > 1 {
            format!("a signature by {} of {}", self.threshold, self.any.join(", "))
        } else {
            format!("a signature by {}", self.any.join(" or "))
        }
    }
}

fn distinct<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for key in keys {
        if !distinct.contains(&key) {
            distinct.push(key);
        }
    }
    distinct
}

fn tell(findings: &[Finding]) -> String {
    let mut told: Vec<String> = findings
        .iter()
        .take(MAX_FINDINGS)
        .map(|finding| {
            let text: String = finding.text.chars().take(MAX_FINDING).collect();
            format!("{} ({})", printable(&text), printable(&finding.code))
        })
        .collect();
    let rest = findings.len().saturating_sub(MAX_FINDINGS);
    if rest > 0 {
        told.push(format!("and {rest} more"));
    }
    told.join(", ")
}
