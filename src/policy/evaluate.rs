//! Whether the evidence is what a rule asks for.
//!
//! More evidence never turns an allow into a refusal, except for what `[[deny]]` lists.

use super::{Active, Rule, Signature, Subject};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::verify::{Answer, Claim, Fact, Finding};

/// Findings that a refusal repeats; the rest is counted. Kubernetes cuts what it shows at 1024 bytes.
const MAX_FINDINGS: usize = 2;

/// Longest text of a finding that a refusal repeats, in characters.
const MAX_FINDING: usize = 200;

/// Characters of a digest that are enough to find the evidence: `sha256:` and twelve digits.
const SHORT_DIGEST: usize = 19;

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
            .find(|fact| is_by(fact, &self.deny.key) && digests.contains(&fact.subject))?;
        let reason = format!(
            "{} is signed by {}, which is on the deny list",
            fact.subject, fact.proof.signer
        );
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
            let keys = distinct(used.iter().map(signer));
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

/// What mends evidence that is there and does not count; `None` where only other evidence does.
fn mend(code: &str) -> Option<&'static str> {
    Some(match code {
        "key-hash" | "key-use" | "key-unusable" => {
            "an administrator corrects the key's entry in trust.d and runs: assay policy apply"
        }
        "key-unknown" => {
            "have the image signed by a key that the rule names and import that signature; or, if the signer is to be \
             trusted, add its key to trust.d and to the rule and run: assay policy apply"
        }
        "key-retired" | "key-window" | "key-distrusted" => {
            "have the image signed with a current key and import that signature: assay evidence import PATH"
        }
        _ => return None,
    })
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
            .filter(|fact| is_by(fact, &self.any))
            .collect();
        let counted: Vec<_> = by_wanted
            .iter()
            .copied()
            .filter(|fact| self.is_about(image, &fact.subject))
            .collect();
        let keys = distinct(counted.iter().map(|fact| signer(fact)));
        // An empty list of keys, which only a forged document has, must not be met by an empty list of signatures.
        if !keys.is_empty() && keys.len() >= self.threshold {
            return Ok(counted);
        }
        let wanted = self.wanted();
        let shown = image.shown();
        let import = "assay evidence import PATH, with a PATH that holds such a signature".to_owned();
        if !keys.is_empty() {
            let reason = format!(
                "{shown} is signed only by {}, and {wanted} is required",
                keys.join(", ")
            );
            return Err(refuse("signature-too-few", reason, import));
        }
        if let Some(fact) = by_wanted.first() {
            let subject = match self.subject {
                Subject::Platform => "the platform's manifest itself, not an index",
                Subject::Index | Subject::Either => "an index that lists the image, not the manifest alone",
            };
            let reason = format!(
                "{} signed {}, and the rule asks for a signature of {subject}",
                fact.proof.signer, fact.subject
            );
            let fix = "sign that too, or set subject = \"either\" in the rule and run: assay policy apply";
            return Err(refuse("signature-subject", reason, fix.to_owned()));
        }
        let others = distinct(signatures.iter().map(|fact| signer(fact)));
        if !others.is_empty() {
            let reason = format!("{shown} is signed by {}, and {wanted} is required", others.join(", "));
            return Err(refuse("signer-not-wanted", reason, import));
        }
        let missing = format!("{wanted} of {shown} is required");
        if let Some(finding) = answer.findings.first() {
            let reason = format!("{missing}; found instead: {}", tell(&answer.findings));
            return Err(refuse(
                &printable(&finding.code),
                reason,
                mend(&finding.code).map_or(import, str::to_owned),
            ));
        }
        let attested = answer.facts.iter().find(|fact| is_by(fact, &self.any));
        let found = match attested {
            Some(fact) => format!("{} only attested it, which is no image signature", fact.proof.signer),
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

fn is_by(fact: &Fact, keys: &[String]) -> bool {
    fact.proof
        .signer
        .key()
        .is_some_and(|key| keys.iter().any(|id| id == key))
}

fn signer(fact: &Fact) -> &str {
    fact.proof.signer.key().unwrap_or_default()
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
            let place = finding.evidence.map_or_else(String::new, |evidence| {
                let start: String = evidence.to_string().chars().take(SHORT_DIGEST).collect();
                format!(" in {start}")
            });
            format!("{} ({}{place})", printable(&text), printable(&finding.code))
        })
        .collect();
    let rest = findings.len().saturating_sub(MAX_FINDINGS);
    if rest > 0 {
        told.push(format!("and {rest} more"));
    }
    told.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::{Attributes, Deny, ImageName, ImagePattern, Kind, Match, Mode, NamespacePattern, Restart};
    use crate::verify::{Carrier, Proof};

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn fact(key: &str, subject: &str, claim: Claim) -> Fact {
        Fact {
            evidence: digest("evidence"),
            carrier: Carrier::BundleKey,
            subject: digest(subject),
            claim,
            proof: Proof::by_key(key),
        }
    }

    fn signed(key: &str, subject: &str) -> Fact {
        fact(key, subject, Claim::ImageSignature)
    }

    fn signature(any: &[&str], threshold: usize, subject: Subject) -> Signature {
        Signature {
            any: any.iter().map(|key| (*key).to_owned()).collect(),
            threshold,
            subject,
        }
    }

    fn rule(signature: Vec<Signature>, digests: &[&str]) -> Rule {
        Rule {
            name: "prod".to_owned(),
            r#match: Match::default(),
            mode: Mode::Enforce,
            signature,
            digest: digests.iter().map(|name| digest(name)).collect(),
            restart: Restart::Refuse,
        }
    }

    fn evaluate(rule: &Rule, facts: Vec<Fact>, findings: Vec<Finding>) -> Outcome {
        let (manifests, indexes) = ([digest("manifest"), digest("other manifest")], [digest("index")]);
        rule.evaluate(&manifests, &indexes, &digest("config"), &Answer { facts, findings })
    }

    /// What a person reads, with digests by name.
    fn told(outcome: &Outcome) -> String {
        let mut text = format!("{}: {}; {}", outcome.code, outcome.reason, outcome.fix);
        for name in ["manifest", "index", "config", "evidence"] {
            text = text.replace(&digest(name).to_string(), &format!("<{name}>"));
        }
        text
    }

    fn refused(rule: &Rule, facts: Vec<Fact>, findings: Vec<Finding>) -> String {
        let outcome = evaluate(rule, facts, findings);
        assert!(!outcome.allow && outcome.used.is_empty(), "{outcome:?}");
        told(&outcome)
    }

    #[test]
    fn a_wanted_signature_allows() {
        let rule = rule(vec![signature(&["release", "qa"], 1, Subject::Either)], &[]);
        for subject in ["manifest", "other manifest", "index"] {
            let outcome = evaluate(&rule, vec![signed("stranger", subject), signed("qa", subject)], vec![]);
            assert!(outcome.allow, "{subject}");
            assert_eq!(outcome.used, [signed("qa", subject)]);
            assert_eq!(told(&outcome), "signature-verified: signed by qa; ");
        }
    }

    #[test]
    fn refusals_say_what_was_wanted_and_what_was_found() {
        let one = rule(vec![signature(&["release", "qa"], 1, Subject::Either)], &[]);
        let two = rule(vec![signature(&["release", "qa", "legal"], 2, Subject::Either)], &[]);
        let finding = |number: usize| Finding {
            evidence: Some(digest("evidence")),
            code: "key-unknown".to_owned(),
            text: format!("bundle {number} is signed by a key that trust does not hold\n\u{1b}[2J"),
        };
        insta::assert_snapshot!(refused(&one, vec![], vec![]), @"signature-missing: a signature by release or qa of <manifest> is required, and the evidence cache holds no signature of it; assay evidence import PATH, with a PATH that holds such a signature");
        insta::assert_snapshot!(refused(&one, vec![], vec![finding(1)]), @r"key-unknown: a signature by release or qa of <manifest> is required; found instead: bundle 1 is signed by a key that trust does not hold\u{a}\u{1b}[2J (key-unknown in sha256:ee8250fb76e0); have the image signed by a key that the rule names and import that signature; or, if the signer is to be trusted, add its key to trust.d and to the rule and run: assay policy apply");
        insta::assert_snapshot!(refused(&one, vec![], (1..=5).map(finding).collect()), @r"key-unknown: a signature by release or qa of <manifest> is required; found instead: bundle 1 is signed by a key that trust does not hold\u{a}\u{1b}[2J (key-unknown in sha256:ee8250fb76e0), bundle 2 is signed by a key that trust does not hold\u{a}\u{1b}[2J (key-unknown in sha256:ee8250fb76e0), and 3 more; have the image signed by a key that the rule names and import that signature; or, if the signer is to be trusted, add its key to trust.d and to the rule and run: assay policy apply");
        insta::assert_snapshot!(refused(&one, vec![signed("stranger", "manifest")], vec![]), @"signer-not-wanted: <manifest> is signed by stranger, and a signature by release or qa is required; assay evidence import PATH, with a PATH that holds such a signature");
        insta::assert_snapshot!(refused(&one, vec![fact("release", "manifest", Claim::Attestation("https://slsa.dev/provenance/v1".to_owned()))], vec![]), @"signature-missing: a signature by release or qa of <manifest> is required, and release only attested it, which is no image signature; assay evidence import PATH, with a PATH that holds such a signature");
        insta::assert_snapshot!(refused(&two, vec![signed("qa", "index"), signed("qa", "manifest")], vec![]), @"signature-too-few: <manifest> is signed only by qa, and a signature by 2 of release, qa, legal is required; assay evidence import PATH, with a PATH that holds such a signature");
        let platform = rule(vec![signature(&["release"], 1, Subject::Platform)], &[]);
        insta::assert_snapshot!(refused(&platform, vec![signed("release", "index")], vec![]), @r#"signature-subject: release signed <index>, and the rule asks for a signature of the platform's manifest itself, not an index; sign that too, or set subject = "either" in the rule and run: assay policy apply"#);
        let index = rule(vec![signature(&["release"], 1, Subject::Index)], &[]);
        insta::assert_snapshot!(refused(&index, vec![signed("release", "manifest")], vec![]), @r#"signature-subject: release signed <manifest>, and the rule asks for a signature of an index that lists the image, not the manifest alone; sign that too, or set subject = "either" in the rule and run: assay policy apply"#);
        let listed = rule(vec![], &["pause"]);
        insta::assert_snapshot!(refused(&listed, vec![signed("release", "manifest")], vec![]), @"digest-not-listed: <manifest> is none of the digests that the rule lists; run an image that it lists, or add <manifest> to its digest list and run: assay policy apply");
        let nothing = rule(vec![], &[]);
        insta::assert_snapshot!(refused(&nothing, vec![signed("release", "manifest")], vec![]), @"nothing-required: the rule asks for neither a signature nor a digest, which is not enough to allow anything; add [[rule.signature]] or digest to the rule and run: assay policy apply");
    }

    #[test]
    fn a_signature_about_something_else_is_none() {
        let rule = rule(vec![signature(&["release"], 1, Subject::Either)], &[]);
        // The configuration is no subject of an image signature either.
        for subject in ["stranger's manifest", "evidence", "config"] {
            assert!(
                !evaluate(&rule, vec![signed("release", subject)], vec![]).allow,
                "{subject}"
            );
        }
    }

    #[test]
    fn one_key_counts_once() {
        let rule = rule(vec![signature(&["a", "b"], 2, Subject::Either)], &[]);
        assert!(!evaluate(&rule, vec![signed("a", "manifest"), signed("a", "index")], vec![]).allow);
        let outcome = evaluate(&rule, vec![signed("a", "manifest"), signed("b", "index")], vec![]);
        assert_eq!(told(&outcome), "signature-verified: signed by a, b; ");
    }

    #[test]
    fn every_table_must_hold() {
        let both = vec![
            signature(&["a"], 1, Subject::Either),
            signature(&["b"], 1, Subject::Either),
        ];
        let rule = rule(both, &["config"]);
        assert!(!evaluate(&rule, vec![signed("a", "manifest")], vec![]).allow);
        assert!(!evaluate(&rule, vec![signed("b", "manifest")], vec![]).allow);
        assert!(evaluate(&rule, vec![signed("a", "manifest"), signed("b", "manifest")], vec![]).allow);
        let elsewhere = Rule {
            digest: vec![digest("pause")],
            ..rule
        };
        assert!(
            !evaluate(
                &elsewhere,
                vec![signed("a", "manifest"), signed("b", "manifest")],
                vec![]
            )
            .allow
        );
    }

    #[test]
    fn a_listed_digest_may_be_any_of_the_image() {
        for name in ["config", "manifest", "other manifest", "index"] {
            let outcome = evaluate(&rule(vec![], &["pause", name]), vec![], vec![]);
            assert_eq!(
                told(&outcome),
                "digest-listed: <manifest> is listed by the rule; ",
                "{name}"
            );
        }
    }

    #[test]
    fn a_forged_table_without_keys_is_never_met() {
        let rule = rule(vec![signature(&[], 0, Subject::Either)], &[]);
        assert!(!evaluate(&rule, vec![], vec![]).allow);
        assert!(!evaluate(&rule, vec![signed("a", "manifest")], vec![]).allow);
    }

    fn active(rules: Vec<Rule>, deny: Deny) -> Active {
        Active {
            version: crate::policy::activate::VERSION,
            generation: 1,
            time: jiff::Timestamp::UNIX_EPOCH,
            sources: vec![],
            keys: vec![],
            roots: vec![],
            deny,
            rules,
        }
    }

    #[test]
    fn the_revocation_list_knows_digests_and_keys() {
        let active = active(
            vec![],
            Deny {
                digest: vec![digest("index")],
                key: vec!["stolen".to_owned()],
            },
        );
        let (image, other) = (
            [digest("config"), digest("manifest"), digest("index")],
            [digest("other")],
        );
        insta::assert_snapshot!(told(&active.denied(&image, &[]).unwrap()), @"digest-denied: <index> is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
        assert_eq!(active.denied(&other, &[]), None);
        assert_eq!(active.denied(&other, &[signed("release", "other")]), None);
        insta::assert_snapshot!(told(&active.denied(&image[..2], &[signed("release", "manifest"), signed("stolen", "manifest")]).unwrap()), @"key-denied: <manifest> is signed by stolen, which is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
        // An attestation by a stolen key is as bad; one about something else is another image's trouble.
        assert!(
            active
                .denied(&other, &[fact("stolen", "other", Claim::Attestation("x".to_owned()))])
                .is_some()
        );
        assert_eq!(active.denied(&other, &[signed("stolen", "manifest")]), None);
    }

    fn any_key() -> impl Strategy<Value = String> {
        prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned)
    }

    fn any_subject() -> impl Strategy<Value = Subject> {
        prop::sample::select(vec![Subject::Platform, Subject::Index, Subject::Either])
    }

    fn any_signature() -> impl Strategy<Value = Signature> {
        (prop::collection::vec(any_key(), 1..4), 1..4_usize, any_subject()).prop_map(|(any, threshold, subject)| {
            Signature {
                any,
                threshold,
                subject,
            }
        })
    }

    fn any_digest() -> impl Strategy<Value = Digest> {
        prop::sample::select(vec!["manifest", "other manifest", "index", "config", "stranger"]).prop_map(digest)
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        (any_key(), any_digest(), any::<bool>()).prop_map(|(key, subject, attestation)| Fact {
            subject,
            ..fact(
                &key,
                "",
                if attestation {
                    Claim::Attestation("x".to_owned())
                } else {
                    Claim::ImageSignature
                },
            )
        })
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        (
            prop::collection::vec(any_signature(), 0..3),
            prop::collection::vec(any_digest(), 0..2),
            any_match(),
            prop::sample::select(vec![Mode::Enforce, Mode::Audit, Mode::Off]),
            "[a-z]{1,8}",
        )
            .prop_map(|(signature, digest, r#match, mode, name)| Rule {
                name,
                r#match,
                mode,
                signature,
                digest,
                restart: Restart::Refuse,
            })
    }

    fn any_match() -> impl Strategy<Value = Match> {
        let image = prop::sample::select(vec!["**", "nginx", "docker.io/**", "registry.example/*"])
            .prop_map(|text| ImagePattern::try_from(text.to_owned()).unwrap());
        let namespace = || {
            prop::sample::select(vec!["*", "prod", "prod-*"])
                .prop_map(|text| NamespacePattern::try_from(text.to_owned()).unwrap())
        };
        (
            prop::collection::vec(image, 0..2),
            prop::collection::vec(namespace(), 0..2),
            prop::collection::vec(namespace(), 0..2),
            prop::option::of(prop::sample::select(vec![Kind::Sandbox, Kind::Container, Kind::Volume])),
            prop::collection::vec(any_digest(), 0..2),
        )
            .prop_map(|(image, namespace, containerd_namespace, kind, digest)| Match {
                image,
                namespace,
                containerd_namespace,
                kind,
                digest,
            })
    }

    #[derive(Debug)]
    struct Container {
        image: Option<&'static str>,
        namespace: Option<&'static str>,
        kind: Kind,
        digests: Vec<Digest>,
    }

    impl Container {
        fn attributes(&self) -> Attributes<'_> {
            Attributes {
                image: self.image,
                kubernetes_namespace: self.namespace,
                containerd_namespace: "prod-node",
                kind: self.kind,
                digests: &self.digests,
            }
        }
    }

    fn any_container() -> impl Strategy<Value = Container> {
        (
            prop::option::of(prop::sample::select(vec![
                "nginx",
                "nginx:1",
                "registry.example/web",
                "Not A Name",
            ])),
            prop::option::of(prop::sample::select(vec!["prod", "prod-eu", "test"])),
            prop::sample::select(vec![Kind::Sandbox, Kind::Container, Kind::Volume]),
            prop::collection::vec(any_digest(), 0..3),
        )
            .prop_map(|(image, namespace, kind, digests)| Container {
                image,
                namespace,
                kind,
                digests,
            })
    }

    proptest! {
        #[test]
        fn more_evidence_never_turns_an_allow_into_a_refusal(
            rule in any_rule(),
            facts in prop::collection::vec(any_fact(), 0..6),
            more in prop::collection::vec((any_fact(), any::<prop::sample::Index>()), 0..4),
            findings in 0..3_usize,
        ) {
            let before = evaluate(&rule, facts.clone(), vec![]);
            let mut all = facts;
            for (fact, place) in more {
                all.insert(place.index(all.len() + 1), fact);
            }
            let finding = Finding { evidence: None, code: "signature-invalid".to_owned(), text: "x".to_owned() };
            let after = evaluate(&rule, all.clone(), vec![finding; findings]);
            prop_assert!(!before.allow || after.allow);
            // And an allow rests on facts that were given.
            prop_assert!(after.used.iter().all(|fact| all.contains(fact)));
            prop_assert!(!after.allow || !rule.requires_nothing());
            prop_assert!(!after.reason.contains('\n'));
        }

        #[test]
        fn selection_follows_the_order_of_the_rules(
            rules in prop::collection::vec(any_rule(), 0..6),
            container in any_container(),
        ) {
            let active = active(rules, Deny::default());
            let attributes = container.attributes();
            let selection = active.select(&attributes);
            // The definition: all that apply; audits up to the first that is not an audit.
            let image = container.image.and_then(ImageName::parse);
            let applying: Vec<_> =
                active.rules.iter().filter(|rule| rule.r#match.applies(&attributes, image.as_ref())).collect();
            let end = applying.iter().position(|rule| rule.mode != Mode::Audit);
            prop_assert_eq!(&selection.audits, &applying[..end.unwrap_or(applying.len())]);
            prop_assert_eq!(selection.decisive, end.map(|end| applying[end]));
            prop_assert!(selection.audits.iter().all(|rule| rule.mode == Mode::Audit));
        }

        #[test]
        fn a_match_that_covers_applies_at_least_as_often(
            wide in any_match(),
            narrow in any_match(),
            container in any_container(),
        ) {
            let attributes = container.attributes();
            let image = container.image.and_then(ImageName::parse);
            if wide.covers(&narrow) && narrow.applies(&attributes, image.as_ref()) {
                prop_assert!(wide.applies(&attributes, image.as_ref()), "{:?} {:?}", wide, narrow);
            }
        }

        #[test]
        fn the_active_document_reads_back(rules in prop::collection::vec(any_rule(), 0..4)) {
            let active = active(rules, Deny { digest: vec![digest("x")], key: vec!["k".to_owned()] });
            let json = serde_json::to_string(&active).unwrap();
            prop_assert_eq!(serde_json::from_str::<Active>(&json).unwrap(), active);
        }
    }
}
