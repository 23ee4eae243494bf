//! What rules say about images.

use proptest::prelude::*;

use super::*;
use crate::policy::{
    Attributes, DeniedEntry, Deny, Filesystem, ImageName, ImagePattern, Kind, Match, Mode, NamespacePattern, Parameter,
    Runtime,
};
use crate::verify::{Carrier, Chain, LogEntry, Proof, TimeSource, TrustedTime};

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn fact(key: &str, subject: &str, claim: Claim) -> Fact {
    Fact {
        evidence: digest("evidence"),
        carrier: Carrier::BundleKey,
        chain: None,
        subject: digest(subject),
        claim,
        proof: Proof::by_key(key),
        details: None,
        held: Vec::new(),
    }
}

fn signed(key: &str, subject: &str) -> Fact {
    fact(key, subject, Claim::ImageSignature)
}

fn table(asks: Asks, any: &[&str]) -> Table {
    Table {
        asks,
        any: any.iter().map(|key| SignerPattern::Key((*key).to_owned())).collect(),
        threshold: 1,
        subject: Subject::Either,
        signed: Signed::Itself,
        logs: 0,
        max_age: None,
        condition: None,
    }
}

fn signature(any: &[&str], threshold: usize, subject: Subject) -> Table {
    Table {
        threshold,
        subject,
        ..table(Asks::Signature, any)
    }
}

fn rule(tables: Vec<Table>, digests: &[&str]) -> Rule {
    Rule {
        name: "prod".to_owned(),
        r#match: Match::default(),
        mode: Mode::Enforce,
        tables,
        digest: digests.iter().map(|name| digest(name)).collect(),
        runtime: Runtime::default(),
        filesystem: Filesystem::default(),
        seccomp: crate::policy::Seccomp::default(),
        exec: crate::policy::Exec::default(),
        reevaluate: crate::policy::Reevaluate::default(),
    }
}

/// When everything here is decided.
const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn evaluate(rule: &Rule, facts: Vec<Fact>, findings: Vec<Finding>) -> Outcome {
    evaluate_under(&active(vec![rule.clone()], Deny::default()), rule, facts, findings, NOW)
}

fn evaluate_under(active: &Active, rule: &Rule, facts: Vec<Fact>, findings: Vec<Finding>, now: Timestamp) -> Outcome {
    let (manifests, indexes) = ([digest("manifest"), digest("other manifest")], [digest("index")]);
    let image = Image {
        manifests: &manifests,
        indexes: &indexes,
        config: &digest("config"),
        name: Some("registry.example/mirror/acme/web:1"),
    };
    rule.evaluate(
        active,
        &image,
        &Answer {
            facts,
            findings,
            ..Answer::default()
        },
        now,
    )
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
    insta::assert_snapshot!(refused(&one, vec![], vec![]), @"signature-missing: a signature by release or qa of <manifest> is required, and the evidence cache holds no signature of it; assay evidence pull IMAGE, or: assay evidence import PATH, with a PATH that holds such a signature");
    insta::assert_snapshot!(refused(&one, vec![], vec![finding(1)]), @r"key-unknown: a signature by release or qa of <manifest> is required; found instead: bundle 1 is signed by a key that trust does not hold\u{a}\u{1b}[2J (key-unknown in sha256:ee8250fb76e0); have the image signed by a key that the rule names and import that signature; or, if the signer is to be trusted, add its key to trust.d and to the rule and run: assay policy apply");
    insta::assert_snapshot!(refused(&one, vec![], (1..=5).map(finding).collect()), @r"key-unknown: a signature by release or qa of <manifest> is required; found instead: bundle 1 is signed by a key that trust does not hold\u{a}\u{1b}[2J (key-unknown in sha256:ee8250fb76e0), bundle 2 is signed by a key that trust does not hold\u{a}\u{1b}[2J (key-unknown in sha256:ee8250fb76e0), and 3 more; have the image signed by a key that the rule names and import that signature; or, if the signer is to be trusted, add its key to trust.d and to the rule and run: assay policy apply");
    insta::assert_snapshot!(refused(&one, vec![signed("stranger", "manifest")], vec![]), @"signer-not-wanted: a signature by release or qa of <manifest> is required, and only that by stranger counts as one; have it signed by a signer that the rule names and import that; or, if the one that counts is to be accepted, add it to the rule and run: assay policy apply");
    insta::assert_snapshot!(refused(&one, vec![fact("release", "manifest", Claim::Attestation("https://slsa.dev/provenance/v1".to_owned()))], vec![]), @"signature-missing: a signature by release or qa of <manifest> is required, and release only attested it, which is no image signature; assay evidence pull IMAGE, or: assay evidence import PATH, with a PATH that holds such a signature");
    insta::assert_snapshot!(refused(&two, vec![signed("qa", "index"), signed("qa", "manifest")], vec![]), @"signature-too-few: a signature by 2 of release, qa, legal of <manifest> is required, and it is only by qa; assay evidence pull IMAGE, or: assay evidence import PATH, with a PATH that holds such a signature");
    let platform = rule(vec![signature(&["release"], 1, Subject::Platform)], &[]);
    insta::assert_snapshot!(refused(&platform, vec![signed("release", "index")], vec![]), @r#"signature-subject: a signature by release of <manifest> is required; that by release does not count: it is about <index>, and the rule asks for the platform's manifest itself, not an index; sign that too, or set subject = "either" in the rule and run: assay policy apply"#);
    let index = rule(vec![signature(&["release"], 1, Subject::Index)], &[]);
    insta::assert_snapshot!(refused(&index, vec![signed("release", "manifest")], vec![]), @r#"signature-subject: a signature by release of <manifest> is required; that by release does not count: it is about <manifest>, and the rule asks for an index that lists the image, not the manifest alone; sign that too, or set subject = "either" in the rule and run: assay policy apply"#);
    let listed = rule(vec![], &["pause"]);
    insta::assert_snapshot!(refused(&listed, vec![signed("release", "manifest")], vec![]), @"digest-not-listed: <manifest> is none of the digests that the rule lists; run an image that it lists, or add <manifest> to its digest list and run: assay policy apply");
    let said = |code: &str, text: &str| Finding {
        evidence: None,
        code: code.to_owned(),
        text: text.to_owned(),
    };
    insta::assert_snapshot!(refused(&one, vec![], vec![said("evidence-cache-empty", "the evidence cache is empty")]), @"evidence-cache-empty: a signature by release or qa of <manifest> is required, and the evidence cache is empty; assay evidence pull IMAGE, or: assay evidence import PATH, with a PATH that holds such a signature");
    insta::assert_snapshot!(refused(&one, vec![], vec![said("key-use", "stranger may not")]), @"key-use: a signature by release or qa of <manifest> is required; found instead: stranger may not (key-use); have it signed by a signer that the rule names and import that; or, if this key is to count for it, add that to its use in trust.d, the key to the rule where it is not there, and run: assay policy apply");
    // What the rule names is there too, and has ceased to count.
    insta::assert_snapshot!(refused(&one, vec![signed("stranger", "manifest")], vec![said("key-unknown", "nobody"), said("key-retired", "release is retired")]), @"signer-not-wanted: a signature by release or qa of <manifest> is required, and only that by stranger counts as one; found besides: release is retired (key-retired); have it signed by a signer that the rule names and import that; or, if the one that counts is to be accepted, add it to the rule and run: assay policy apply");
    insta::assert_snapshot!(refused(&one, vec![], vec![said("key-retired", "release is retired")]), @"key-retired: a signature by release or qa of <manifest> is required; found instead: release is retired (key-retired); have the image signed with a current key, name that in the rule and import the signature; or, if this one is to stay valid, run: assay trust retire-key KEY --digest DIGEST, with the digest that was signed, and: assay policy apply");
    let nothing = rule(vec![], &[]);
    insta::assert_snapshot!(refused(&nothing, vec![signed("release", "manifest")], vec![]), @"nothing-required: the rule asks for neither a signature, provenance, a verification summary nor a digest, which is not enough to allow anything; add [[rule.signature]] or digest to the rule and run: assay policy apply");
}

#[test]
fn what_only_a_signed_index_stands_for_counts_where_the_table_says_so() {
    let by_chain = |index: Option<&str>| Fact {
        carrier: Carrier::AttestationManifest,
        chain: Some(Box::new(Chain {
            signature: digest("signature"),
            carrier: Carrier::BundleKey,
            index: index.map(digest),
            statement: digest("statement"),
        })),
        ..fact(
            "release",
            "manifest",
            Claim::Attestation("https://spdx.dev/Document".to_owned()),
        )
    };
    let asks = |signed: Signed| {
        let sbom = Table {
            signed,
            ..table(Asks::Sbom(None), &["release"])
        };
        rule(vec![sbom], &["manifest"])
    };
    for (signed, index) in [
        (Signed::Itself, None),
        (Signed::Index, None),
        (Signed::Index, Some("index")),
    ] {
        let outcome = evaluate(&asks(signed), vec![by_chain(index)], vec![]);
        assert_eq!(
            told(&outcome),
            "attestation-verified: SBOM by release; ",
            "{signed:?} {index:?}"
        );
    }
    insta::assert_snapshot!(refused(&asks(Signed::Itself), vec![by_chain(Some("index"))], vec![]), @r#"attestation-index-only: an SBOM by release of <manifest> is required; that by release does not count: only the index <index>, which lists its attestation manifest, is signed, and the rule asks for a signature of that manifest; have the attestation manifest signed and import that signature, or set signed = "index" in the rule and run: assay policy apply"#);
    // Such a statement is no signature of the image.
    let signature = rule(vec![signature(&["release"], 1, Subject::Either)], &[]);
    assert!(!evaluate(&signature, vec![by_chain(None)], vec![]).allow);
}

#[test]
fn attestations_that_nobody_signed_are_told_of_where_attestations_are_asked_for() {
    let finding = |code: &str, text: &str| Finding {
        evidence: Some(digest("evidence")),
        code: code.to_owned(),
        text: text.to_owned(),
    };
    let findings = || {
        vec![
            finding("key-unknown", "no key in trust.d made its signature"),
            finding("attestation-unsigned", "nobody signed it"),
        ]
    };
    let signature = rule(vec![signature(&["release"], 1, Subject::Either)], &[]);
    let only = || vec![finding("attestation-unsigned", "nobody signed it")];
    assert!(refused(&signature, vec![], only()).starts_with("signature-missing: "));
    assert!(refused(&signature, vec![], findings()).starts_with("key-unknown: "));
    let sbom = rule(vec![table(Asks::Sbom(None), &["release"])], &["manifest"]);
    insta::assert_snapshot!(refused(&sbom, vec![], findings()), @r#"attestation-unsigned: an SBOM by release of <manifest> is required; found instead: nobody signed it (attestation-unsigned in sha256:ee8250fb76e0), no key in trust.d made its signature (key-unknown in sha256:ee8250fb76e0); have its manifest signed and import that signature; or, where the index is signed that lists it, set signed = "index" in the rule and run: assay policy apply"#);
    insta::assert_snapshot!(refused(&sbom, vec![], vec![finding("attestation-size", "it lies")]), @"attestation-size: an SBOM by release of <manifest> is required; found instead: it lies (attestation-size in sha256:ee8250fb76e0); fetch the evidence again (assay evidence pull IMAGE); if it stays, treat it as forged");
    insta::assert_snapshot!(refused(&sbom, vec![], vec![finding("attestation-link-missing", "it is not there")]), @"attestation-link-missing: an SBOM by release of <manifest> is required; found instead: it is not there (attestation-link-missing in sha256:ee8250fb76e0); import the image's own manifests as well: assay evidence pull IMAGE");
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
    for name in ["config", "manifest", "index"] {
        let outcome = evaluate(&rule(vec![], &["pause", name]), vec![], vec![]);
        assert_eq!(
            told(&outcome),
            format!("digest-listed: <{name}> is listed by the rule; ")
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
        closure: Vec::new(),
        tunings: Vec::new(),
        version: crate::policy::activate::VERSION,
        generation: 1,
        time: jiff::Timestamp::UNIX_EPOCH,
        sources: vec![],
        keys: vec![],
        builders: vec![],
        notation: vec![],
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
            ..Deny::default()
        },
    );
    let (image, other) = (
        [digest("config"), digest("manifest"), digest("index")],
        [digest("other")],
    );
    insta::assert_snapshot!(told(&active.denied(&image, &[]).unwrap()), @"digest-denied: <index> is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
    assert_eq!(active.denied(&other, &[]), None);
    assert_eq!(active.denied(&other, &[signed("release", "other")]), None);
    insta::assert_snapshot!(told(&active.denied(&image[..2], &[signed("release", "manifest"), signed("stolen", "manifest")]).unwrap()), @"key-denied: <manifest> is signed by stolen, and this key is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
    // An attestation by a stolen key is as bad; one about something else is another image's trouble.
    assert!(
        active
            .denied(&other, &[fact("stolen", "other", Claim::Attestation("x".to_owned()))])
            .is_some()
    );
    assert_eq!(active.denied(&other, &[signed("stolen", "manifest")]), None);
}

fn provenance(asks: Provenance) -> Table {
    table(Asks::Provenance(Box::new(asks)), &[])
}

const GENERATOR: &str = "https://github.com/generator/x/.github/workflows/slsa.yml";
const ISSUER: &str = "https://token.actions.githubusercontent.com";

fn certificate(identity: &str) -> Certificate {
    Certificate {
        root: "public-good".to_owned(),
        identity: Identity::Uri(identity.to_owned()),
        issuer: ISSUER.to_owned(),
        claims: [("source-repository-identifier", "42"), ("build-trigger", "push")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        fingerprint: digest("certificate"),
    }
}

fn by(signer: Certificate, fact: Fact) -> Fact {
    let proof = Proof {
        signer: Signer::Certificate(Box::new(signer)),
        ..fact.proof.clone()
    };
    Fact { proof, ..fact }
}

/// Provenance by the generator at a release.
fn built() -> (Fact, attest::Provenance) {
    let id = format!("{GENERATOR}@refs/tags/v1.2.3");
    let says = attest::Provenance {
        version: attest::Version::V02,
        builder: id.clone(),
        build_type: "container@v1".to_owned(),
        sources: vec![attest::Origin {
            uri: "https://github.com/acme/app@refs/tags/v1".to_owned(),
            digest: Default::default(),
        }],
        parameters: [("channel".to_owned(), Some("stable".to_owned()))].into(),
    };
    let claim = Claim::Attestation("https://slsa.dev/provenance/v0.2".to_owned());
    (by(certificate(&id), fact("", "manifest", claim)), says)
}

fn saying(fact: Fact, says: attest::Provenance) -> Fact {
    Fact {
        details: Some(Box::new(Details::Provenance(says))),
        ..fact
    }
}

/// A policy with a generator of level 3, and what it asks of provenance by it.
fn generator() -> (Active, Provenance) {
    let mut active = active(vec![], Deny::default());
    active.builders = vec![Builder {
        name: "generator".to_owned(),
        id: GENERATOR.to_owned(),
        reference: Some("refs/tags/v<semver>".to_owned().try_into().unwrap()),
        signer: BuilderSigner::Certificate {
            issuer: ISSUER.to_owned(),
            root: "public-good".to_owned(),
            identity: None,
        },
        level: 3,
        build_types: vec!["container@v1".to_owned()],
    }];
    let asks = Provenance {
        builder: vec!["generator".to_owned()],
        level: Some(3),
        source: vec![TextPattern::owned("https://github.com/acme/app@refs/tags/*").unwrap()],
        ..Provenance::default()
    };
    (active, asks)
}

#[test]
fn provenance_counts_by_its_builder_source_and_parameters() {
    let (active, asks) = generator();
    let (good, says) = built();
    let judge = |asks: &Provenance, fact: Fact| {
        told(&evaluate_under(
            &active,
            &rule(vec![provenance(asks.clone())], &[]),
            vec![fact],
            vec![],
            NOW,
        ))
    };
    insta::assert_snapshot!(judge(&asks, saying(good.clone(), says.clone())), @"attestation-verified: provenance by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good);");
    let with = |change: &dyn Fn(&mut attest::Provenance)| {
        let mut says = says.clone();
        change(&mut says);
        judge(&asks, saying(good.clone(), says))
    };
    insta::assert_snapshot!(with(&|says| says.builder = "https://builder.example".to_owned()), @"builder-not-wanted: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it names the builder https://builder.example; have the image built by a builder that the rule names; or add this one to trust.d and to the rule and run: assay policy apply");
    insta::assert_snapshot!(with(&|says| says.builder = format!("{GENERATOR}@refs/heads/main")), @"builder-ref: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it names the builder https://github.com/generator/x/.github/workflows/slsa.yml@refs/heads/main, whose reference trust.d does not accept; have the image built by a builder that the rule names; or add this one to trust.d and to the rule and run: assay policy apply");
    insta::assert_snapshot!(with(&|says| says.builder = format!("{GENERATOR}@refs/tags/v9.9.9")), @"builder-not-signer: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it names the builder https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v9.9.9, which did not sign it; use an image whose provenance its own builder signed; treat this one as forged");
    insta::assert_snapshot!(with(&|says| says.build_type = "generic@v1".to_owned()), @"build-type-not-wanted: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: its build type is generic@v1; have the image built in a way that the rule allows, or add the build type to the rule and to the builder's build_types and run: assay policy apply");
    insta::assert_snapshot!(with(&|says| says.sources[0].uri = "https://github.com/acme/app@refs/heads/x".to_owned()), @"source-not-wanted: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it was built from https://github.com/acme/app@refs/heads/x; use an image built from a source that the rule lists, or add the source to the rule and run: assay policy apply");
    insta::assert_snapshot!(with(&|says| says.sources.clear()), @"source-missing: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it names no source; use an image built from a source that the rule lists, or add the source to the rule and run: assay policy apply");
    insta::assert_snapshot!(with(&|says| says.sources.push(attest::Origin { uri: "https://github.com/evil/x@refs/tags/v1".to_owned(), digest: Default::default() })), @"source-not-wanted: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it was built from https://github.com/evil/x@refs/tags/v1; use an image built from a source that the rule lists, or add the source to the rule and run: assay policy apply");
    insta::assert_snapshot!(judge(&asks, good.clone()), @"predicate-unread: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: its predicate was not read; report it; the evidence was not read as a whole");
    let stranger = by(
        certificate("https://github.com/evil/x/.github/workflows/slsa.yml@refs/tags/v1.2.3"),
        good.clone(),
    );
    insta::assert_snapshot!(judge(&asks, saying(stranger, says.clone())), @"builder-not-signer: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/evil/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it names the builder https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3, which did not sign it; use an image whose provenance its own builder signed; treat this one as forged");
    for forged in [
        Certificate {
            issuer: "https://issuer.example".to_owned(),
            ..certificate(&says.builder)
        },
        Certificate {
            root: "private".to_owned(),
            ..certificate(&says.builder)
        },
        Certificate {
            identity: Identity::Email(says.builder.clone()),
            ..certificate(&says.builder)
        },
    ] {
        let told = judge(&asks, saying(by(forged, good.clone()), says.clone()));
        assert!(told.starts_with("builder-not-signer"), "{told}");
    }
    let higher = Provenance {
        level: Some(4),
        ..asks.clone()
    };
    insta::assert_snapshot!(judge(&higher, saying(good.clone(), says.clone())), @"builder-level: provenance from builder generator at level 4 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: trust.d gives its builder generator only level 3; have the image built by a builder of that level, or lower level in the rule and run: assay policy apply");
    let parameters = |list: &[(&str, Option<&str>)]| Provenance {
        parameters: Some(
            list.iter()
                .map(|(name, value)| Parameter {
                    name: (*name).to_owned(),
                    value: value.map(str::to_owned),
                })
                .collect(),
        ),
        ..asks.clone()
    };
    insta::assert_snapshot!(judge(&parameters(&[]), saying(good.clone(), says.clone())), @"parameter-not-allowed: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it was built with the parameter channel; have the image built without it, or add it to parameters in the rule and run: assay policy apply");
    insta::assert_snapshot!(judge(&parameters(&[("channel", Some("beta"))]), saying(good.clone(), says.clone())), @"parameter-value: provenance from builder generator at level 3 of <manifest> is required; that by https://github.com/generator/x/.github/workflows/slsa.yml@refs/tags/v1.2.3 (issuer https://token.actions.githubusercontent.com, root public-good) does not count: it was built with the parameter channel=stable; have the image built without it, or add it to parameters in the rule and run: assay policy apply");
    for list in [
        &[("channel", None)][..],
        &[("channel", Some("beta")), ("channel", Some("stable"))],
    ] {
        assert!(judge(&parameters(list), saying(good.clone(), says.clone())).starts_with("attestation-verified"));
    }
    // What started the build is a claim of the builder's certificate, which the table's signers can ask for.
    let mut started = provenance(asks.clone());
    started.any = vec![SignerPattern::Certificate(Box::new(CertificatePattern {
        identity: IdentityPattern::Uri(TextPattern::owned(&format!("{GENERATOR}@refs/tags/*")).unwrap()),
        issuer: ISSUER.to_owned(),
        root: "public-good".to_owned(),
        claims: [("build-trigger".to_owned(), TextPattern::exact("push").unwrap())].into(),
    }))];
    let started = rule(vec![started], &[]);
    for (trigger, code) in [
        ("push", "attestation-verified"),
        ("pull_request", "signer-not-wanted"),
        ("pull_request_target", "signer-not-wanted"),
    ] {
        let mut holder = certificate(&says.builder);
        holder.claims.insert("build-trigger".to_owned(), trigger.to_owned());
        let fact = saying(by(holder, good.clone()), says.clone());
        let outcome = evaluate_under(&active, &started, vec![fact], vec![], NOW);
        assert_eq!(outcome.code, code, "{}", outcome.reason);
    }
    // A pattern without a reference is for all of them.
    let any_reference = Provenance {
        source: vec![TextPattern::owned("https://github.com/acme/*").unwrap()],
        ..asks.clone()
    };
    assert!(judge(&any_reference, saying(good, says)).starts_with("attestation-verified"));
}

fn summary() -> Summary {
    Summary {
        verifier: "https://verifier.example".to_owned(),
        time: NOW - SignedDuration::from_hours(48),
        resource: "docker.io/acme/web".to_owned(),
        policy: "https://verifier.example/policy".to_owned(),
        passed: true,
        levels: vec!["SLSA_BUILD_LEVEL_3".to_owned()],
    }
}

#[test]
fn a_summary_counts_when_all_of_it_is_as_expected() {
    let asks = Vsa {
        verifier: vec!["https://verifier.example".to_owned()],
        levels: vec!["SLSA_BUILD_LEVEL_2".to_owned()],
        resource: vec![],
        mirror: vec![mirror::Mirror::new("registry.example/mirror/**", "docker.io/**").unwrap()],
        policy: vec![],
    };
    let judge = |asks: &Vsa, says: Summary, key: &str| {
        let claim = Claim::Attestation("https://slsa.dev/verification_summary/v1".to_owned());
        let fact = Fact {
            details: Some(Box::new(Details::Summary(says))),
            ..fact(key, "manifest", claim)
        };
        let rule = rule(vec![table(Asks::Vsa(Box::new(asks.clone())), &["verifier"])], &[]);
        told(&evaluate(&rule, vec![fact], vec![]))
    };
    insta::assert_snapshot!(judge(&asks, summary(), "verifier"), @"attestation-verified: verification summary by verifier;");
    insta::assert_snapshot!(judge(&asks, summary(), "stranger"), @"signer-not-wanted: a verification summary by verifier of <manifest> is required, and only that by stranger counts as one; have it signed by a signer that the rule names and import that; or, if the one that counts is to be accepted, add it to the rule and run: assay policy apply");
    insta::assert_snapshot!(judge(&asks, Summary { verifier: "https://evil.example".to_owned(), ..summary() }, "verifier"), @"vsa-verifier: a verification summary by verifier of <manifest> is required; that by verifier does not count: its verifier is https://evil.example; import a summary that the rule is about, or correct the rule's [[rule.vsa]] and run: assay policy apply");
    insta::assert_snapshot!(judge(&asks, Summary { resource: "docker.io/acme/other".to_owned(), ..summary() }, "verifier"), @"vsa-resource: a verification summary by verifier of <manifest> is required; that by verifier does not count: it is about docker.io/acme/other; import a summary that the rule is about, or correct the rule's [[rule.vsa]] and run: assay policy apply");
    insta::assert_snapshot!(judge(&asks, Summary { passed: false, ..summary() }, "verifier"), @"vsa-failed: a verification summary by verifier of <manifest> is required; that by verifier does not count: the verification did not pass; use an image that passed the verification at that level");
    insta::assert_snapshot!(judge(&asks, Summary { levels: vec!["SLSA_BUILD_LEVEL_1".to_owned()], ..summary() }, "verifier"), @"vsa-level: a verification summary by verifier of <manifest> is required; that by verifier does not count: SLSA_BUILD_LEVEL_2 is asked for, and it reached only SLSA_BUILD_LEVEL_1; use an image that passed the verification at that level");
    insta::assert_snapshot!(judge(&asks, Summary { time: NOW + SignedDuration::from_hours(1), ..summary() }, "verifier"), @"time-in-future: a verification summary by verifier of <manifest> is required; that by verifier does not count: it is of 2027-01-15T09:00:00Z, which has not come yet; check this node's clock");
    // However fresh its signature is: the time that counts is also its own.
    let aged = |hours: i64| {
        let young = Table {
            max_age: Some(24 * 3600),
            ..table(Asks::Vsa(Box::new(asks.clone())), &["verifier"])
        };
        let time = NOW - SignedDuration::from_hours(hours);
        let claim = Claim::Attestation("https://slsa.dev/verification_summary/v1".to_owned());
        let fact = Fact {
            details: Some(Box::new(Details::Summary(Summary { time, ..summary() }))),
            ..stamped(fact("verifier", "manifest", claim), NOW - SignedDuration::from_hours(1))
        };
        evaluate(&rule(vec![young], &[]), vec![fact], vec![])
    };
    assert_eq!(aged(25).code, "evidence-too-old");
    let young = aged(23);
    assert!(young.allow, "{young:?}");
    assert_eq!(young.span.until, Some(NOW + SignedDuration::from_hours(1)));
    let strict = Vsa {
        policy: vec!["https://verifier.example/strict".to_owned()],
        ..asks.clone()
    };
    insta::assert_snapshot!(judge(&strict, summary(), "verifier"), @"vsa-policy: a verification summary by verifier of <manifest> is required; that by verifier does not count: it was verified by the policy https://verifier.example/policy; import a summary that the rule is about, or correct the rule's [[rule.vsa]] and run: assay policy apply");
    let unmapped = Vsa {
        mirror: vec![],
        ..asks.clone()
    };
    assert!(judge(&unmapped, summary(), "verifier").starts_with("vsa-resource"));
    let listed = Vsa {
        mirror: vec![],
        resource: vec![TextPattern::owned("docker.io/acme/*").unwrap()],
        ..asks
    };
    assert!(judge(&listed, summary(), "verifier").starts_with("attestation-verified"));
}

fn stamped(fact: Fact, time: Timestamp) -> Fact {
    let mut fact = fact;
    fact.proof.times.push(TrustedTime {
        source: TimeSource::Log,
        authority: "log".to_owned(),
        time,
    });
    fact
}

fn logged(fact: Fact, log: &str, included: bool) -> Fact {
    let mut fact = fact;
    fact.proof.logs.push(LogEntry {
        log: log.to_owned(),
        index: 7,
        included,
        unnumbered: false,
    });
    fact
}

#[test]
fn age_counts_by_the_first_trusted_time_and_logs_by_inclusion() {
    let old = Table {
        max_age: Some(24 * 3600),
        ..signature(&["release"], 1, Subject::Either)
    };
    let day = rule(vec![old], &[]);
    let at = |hours: i64| NOW - SignedDuration::from_hours(hours);
    insta::assert_snapshot!(refused(&day, vec![signed("release", "manifest")], vec![]), @"time-missing: a signature by release of <manifest> is required; that by release does not count: nobody that is trusted says when it was signed, so that its age is not known; have it signed with a transparency log or a timestamp authority and import that, or remove max_age from the rule and run: assay policy apply");
    insta::assert_snapshot!(refused(&day, vec![stamped(stamped(signed("release", "manifest"), at(1)), at(25))], vec![]), @"evidence-too-old: a signature by release of <manifest> is required; that by release does not count: it is of 2027-01-14T07:00:00Z, and the rule accepts nothing older than 24h; build and sign the image anew, and import its evidence: assay evidence import PATH");
    insta::assert_snapshot!(refused(&day, vec![stamped(signed("release", "manifest"), at(-1))], vec![]), @"time-in-future: a signature by release of <manifest> is required; that by release does not count: it is of 2027-01-15T09:00:00Z, which has not come yet; check this node's clock");
    let young = evaluate(&day, vec![stamped(signed("release", "manifest"), at(23))], vec![]);
    assert!(young.allow);
    assert_eq!(young.span.until, Some(NOW + SignedDuration::from_hours(1)));
    let logs = |logs: usize| {
        rule(
            vec![Table {
                logs,
                ..signature(&["release"], 1, Subject::Either)
            }],
            &[],
        )
    };
    insta::assert_snapshot!(refused(&logs(1), vec![signed("release", "manifest")], vec![]), @r#"log-missing: a signature by release of <manifest> is required; that by release does not count: it has no entry in a transparency log; have it signed with a transparency log and import that, or set log = "optional" in the rule and run: assay policy apply"#);
    insta::assert_snapshot!(refused(&logs(1), vec![logged(signed("release", "manifest"), "a", false)], vec![]), @r#"log-promise-only: a signature by release of <manifest> is required; that by release does not count: a transparency log only promised to include it, and inclusion is not proved; have it signed with a transparency log and import that, or set log = "optional" in the rule and run: assay policy apply"#);
    let twice = logged(logged(signed("release", "manifest"), "a", true), "a", true);
    insta::assert_snapshot!(refused(&logs(2), vec![twice.clone()], vec![]), @r#"log-too-few: a signature by release of <manifest> is required; that by release does not count: 1 of the 2 different transparency logs that the rule asks for include it; have it signed with a transparency log and import that, or set log = "optional" in the rule and run: assay policy apply"#);
    assert!(evaluate(&logs(1), vec![twice.clone()], vec![]).allow);
    assert!(evaluate(&logs(2), vec![logged(twice, "b", true)], vec![]).allow);
    let mut later = signed("release", "manifest");
    later.proof.span.from = Some(NOW + SignedDuration::from_hours(1));
    insta::assert_snapshot!(refused(&rule(vec![signature(&["release"], 1, Subject::Either)], &[]), vec![later], vec![]), @"evidence-not-in-force: a signature by release of <manifest> is required; that by release does not count: it holds only from 2027-01-15T09:00:00Z on; check this node's clock, or import evidence that holds now: assay evidence import PATH");
}

#[test]
fn a_certificate_counts_with_its_identity_issuer_root_and_claims() {
    let pattern = |change: &dyn Fn(&mut CertificatePattern)| {
        let mut pattern = CertificatePattern {
            identity: IdentityPattern::Uri(
                TextPattern::owned("https://github.com/acme/app/.github/workflows/release.yml@refs/tags/*").unwrap(),
            ),
            issuer: ISSUER.to_owned(),
            root: "public-good".to_owned(),
            claims: Default::default(),
        };
        change(&mut pattern);
        let any = vec![SignerPattern::Certificate(Box::new(pattern))];
        rule(
            vec![Table {
                any,
                ..signature(&[], 1, Subject::Either)
            }],
            &[],
        )
    };
    let identity = "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1";
    let signed_by = |signer: Certificate| by(signer, signed("", "manifest"));
    let plain = pattern(&|_| {});
    assert!(evaluate(&plain, vec![signed_by(certificate(identity))], vec![]).allow);
    for other in [
        certificate("https://github.com/acme/app/.github/workflows/release.yml@refs/heads/main"),
        certificate("https://github.com/Acme/app/.github/workflows/release.yml@refs/tags/v1"),
        Certificate {
            identity: Identity::Email(identity.to_owned()),
            ..certificate(identity)
        },
        Certificate {
            issuer: format!("{ISSUER}/"),
            ..certificate(identity)
        },
        Certificate {
            root: "private".to_owned(),
            ..certificate(identity)
        },
    ] {
        let outcome = evaluate(&plain, vec![signed_by(other)], vec![]);
        assert_eq!(
            (outcome.allow, outcome.code.as_str()),
            (false, "signer-not-wanted"),
            "{}",
            outcome.reason
        );
    }
    let claim = |name: &str, value: &str| {
        let value = TextPattern::exact(value).unwrap();
        pattern(&|pattern| drop(pattern.claims.insert(name.to_owned(), value.clone())))
    };
    let facts = || vec![signed_by(certificate(identity))];
    assert!(evaluate(&claim("source-repository-identifier", "42"), facts(), vec![]).allow);
    assert!(!evaluate(&claim("source-repository-identifier", "43"), facts(), vec![]).allow);
    assert!(!evaluate(&claim("runner-environment", "github-hosted"), facts(), vec![]).allow);
    assert!(evaluate(&claim("build-trigger", "push"), facts(), vec![]).allow);
    // A pull request runs the same workflow, on what anyone wrote.
    let mut proposed = certificate(identity);
    proposed
        .claims
        .insert("build-trigger".to_owned(), "pull_request".to_owned());
    let outcome = evaluate(&claim("build-trigger", "push"), vec![signed_by(proposed)], vec![]);
    assert_eq!((outcome.allow, outcome.code.as_str()), (false, "signer-not-wanted"));
    // An address is no URI, nor the reverse, even where the text is the same.
    let address = "release@acme.example";
    let person = pattern(&|pattern| pattern.identity = IdentityPattern::Email(address.to_owned()));
    for (found, code) in [
        (Identity::Email(address.to_owned()), "signature-verified"),
        (Identity::Uri(address.to_owned()), "signer-not-wanted"),
        (Identity::Uri(format!("mailto:{address}")), "signer-not-wanted"),
        (Identity::Email("Release@acme.example".to_owned()), "signer-not-wanted"),
    ] {
        let holder = Certificate {
            identity: found,
            ..certificate(identity)
        };
        assert_eq!(evaluate(&person, vec![signed_by(holder)], vec![]).code, code);
    }
    // One identity is one signer, however many roots know it.
    let both = Table {
        any: vec![
            SignerPattern::Certificate(Box::new(CertificatePattern {
                root: "private".to_owned(),
                ..match &plain.tables[0].any[0] {
                    SignerPattern::Certificate(pattern) => (**pattern).clone(),
                    _ => unreachable!(),
                }
            })),
            plain.tables[0].any[0].clone(),
        ],
        threshold: 2,
        ..plain.tables[0].clone()
    };
    let twice = vec![
        signed_by(certificate(identity)),
        signed_by(Certificate {
            root: "private".to_owned(),
            ..certificate(identity)
        }),
    ];
    assert_eq!(
        evaluate(&rule(vec![both], &[]), twice, vec![]).code,
        "signature-too-few"
    );
}

#[test]
fn a_condition_counts_only_where_the_parser_said_that_it_holds() {
    let cel = "predicate.bomFormat == 'CycloneDX'";
    let sbom = Table {
        condition: Some(cel.to_owned()),
        ..table(Asks::Sbom(Some(SbomFormat::CycloneDx)), &["release"])
    };
    let rule = rule(vec![sbom, signature(&["release"], 1, Subject::Either)], &[]);
    let policy = active(vec![rule.clone()], Deny::default());
    let about = |predicate: &str, held: Vec<usize>| Fact {
        held,
        ..fact("release", "manifest", Claim::Attestation(predicate.to_owned()))
    };
    let judge = |sbom: Fact, findings: Vec<Finding>| {
        told(&evaluate_under(
            &policy,
            &rule,
            vec![signed("release", "manifest"), sbom],
            findings,
            NOW,
        ))
    };
    insta::assert_snapshot!(judge(about("https://cyclonedx.org/bom", vec![0]), vec![]), @"signature-verified: SBOM by release; signed by release;");
    insta::assert_snapshot!(judge(about("https://cyclonedx.org/bom", vec![]), vec![]), @"where-false: an SBOM by release of <manifest> is required; that by release does not count: where = predicate.bomFormat == 'CycloneDX' does not hold for it; use an image for which the condition holds, or correct it and run: assay policy apply");
    insta::assert_snapshot!(judge(about("https://cyclonedx.org/bom", vec![1]), vec![Finding { evidence: Some(digest("evidence")), code: "where-error".to_owned(), text: format!("where = {cel} has no answer for its predicate: the field bomFormat is missing") }]), @"where-error: an SBOM by release of <manifest> is required; that by release does not count: where = predicate.bomFormat == 'CycloneDX' has no answer for its predicate: the field bomFormat is missing (where-error in sha256:ee8250fb76e0); use an image for which the condition holds, or correct it and run: assay policy apply");
    insta::assert_snapshot!(judge(about("https://spdx.dev/Document", vec![0]), vec![]), @"sbom-format: an SBOM by release of <manifest> is required; that by release does not count: it is of type https://spdx.dev/Document, and the rule asks for CycloneDX; have an SBOM of that format attested, or change format in the rule and run: assay policy apply");
    insta::assert_snapshot!(judge(about("https://openvex.dev/ns", vec![0]), vec![]), @"sbom-missing: an SBOM by release of <manifest> is required, and what release signed is something else; assay evidence pull IMAGE, or: assay evidence import PATH, with a PATH that holds such an SBOM");
}

#[test]
fn a_vex_document_counts_by_its_signer_and_subject_and_lifts_nothing() {
    let vex = |key: &str, subject: &str| {
        let claim = Claim::Attestation("https://openvex.dev/ns/v0.2.0".to_owned());
        fact(key, subject, claim)
    };
    let signed_image = || signature(&["release"], 1, Subject::Either);
    let wants = |condition: Option<&str>| {
        let document = Table {
            condition: condition.map(str::to_owned),
            ..table(Asks::Vex, &["security"])
        };
        rule(vec![signed_image(), document], &[])
    };
    let judge = |rule: &Rule, vex: Fact| evaluate(rule, vec![signed("release", "manifest"), vex], vec![]).code;
    assert_eq!(judge(&wants(None), vex("security", "manifest")), "signature-verified");
    assert_eq!(judge(&wants(None), vex("stranger", "manifest")), "signer-not-wanted");
    assert_eq!(judge(&wants(None), vex("security", "other image")), "vex-missing");
    // Rightly signed and about this image, but its statements are of another product.
    let product = "predicate.statements.all(s, s.products.exists(p, p['@id'] == 'pkg:oci/web'))";
    assert_eq!(judge(&wants(Some(product)), vex("security", "manifest")), "where-false");
    let about = Fact {
        held: vec![0],
        ..vex("security", "manifest")
    };
    assert_eq!(judge(&wants(Some(product)), about), "signature-verified");
    // No document, whoever signed it, stands in for what a rule asks for.
    for (rule, code) in [
        (rule(vec![signed_image()], &[]), "signature-missing"),
        (
            rule(vec![table(Asks::Sbom(None), &["security"])], &["manifest"]),
            "sbom-missing",
        ),
        (rule(vec![], &["pause"]), "digest-not-listed"),
        (rule(vec![table(Asks::Vex, &["security"])], &[]), "nothing-required"),
    ] {
        let outcome = evaluate(&rule, vec![vex("security", "manifest")], vec![]);
        assert_eq!((outcome.allow, outcome.code.as_str()), (false, code));
    }
}

#[test]
fn a_notation_signer_counts_by_its_subject_store_and_revocation() {
    let pattern = |revocation: Revocation| {
        let any = vec![SignerPattern::Notation(Box::new(NotationPattern {
            subject: "C=US, ST=WA, O=acme".to_owned().try_into().unwrap(),
            store: "acme".to_owned(),
            revocation,
        }))];
        rule(
            vec![Table {
                any,
                ..signature(&[], 1, Subject::Either)
            }],
            &[],
        )
    };
    let signer = |store: &str, subject: &str, unknown: &str| {
        let mut fact = signed("", "manifest");
        fact.proof.signer = Signer::Notation(Box::new(NotationSigner {
            store: store.to_owned(),
            subject: subject.to_owned(),
            fingerprint: digest("certificate"),
            revocation_unknown: unknown.to_owned(),
        }));
        vec![fact]
    };
    let required = pattern(Revocation::Required);
    assert!(evaluate(&required, signer("acme", "CN=release,O=acme,ST=WA,C=US", ""), vec![]).allow);
    insta::assert_snapshot!(refused(&required, signer("acme", "CN=release,O=acme,ST=WA,C=US", "only OCSP is offered"), vec![]), @"revocation-unknown: a signature by C=US, ST=WA, O=acme (trust store acme) of <manifest> is required; that by CN=release,O=acme,ST=WA,C=US (trust store acme) does not count: it is not known whether its certificates were revoked: only OCSP is offered; put current revocation lists into crl of the trust store in trust.d and run: assay policy apply");
    assert!(
        evaluate(
            &pattern(Revocation::Optional),
            signer("acme", "O=acme,ST=WA,C=US", "only OCSP is offered"),
            vec![]
        )
        .allow
    );
    insta::assert_snapshot!(refused(&required, signer("other", "O=acme,ST=WA,C=US", ""), vec![]), @"signer-not-wanted: a signature by C=US, ST=WA, O=acme (trust store acme) of <manifest> is required, and only that by O=acme,ST=WA,C=US (trust store other) counts as one; have it signed by a signer that the rule names and import that; or, if the one that counts is to be accepted, add it to the rule and run: assay policy apply");
    assert!(!evaluate(&required, signer("acme", "O=evil,ST=WA,C=US", ""), vec![]).allow);
}

#[test]
fn the_revocation_list_knows_identities_and_log_entries() {
    let image = [digest("manifest")];
    let listed = active(
        vec![],
        Deny {
            identity: vec![TextPattern::owned("https://github.com/evil/*").unwrap()],
            email: vec!["mallory@example.com".to_owned()],
            log: vec![DeniedEntry {
                log: "a".to_owned(),
                index: 7,
            }],
            ..Deny::default()
        },
    );
    let denied = |fact: Fact| {
        listed
            .denied(&image, &[signed("release", "manifest"), fact])
            .map(|outcome| told(&outcome))
    };
    insta::assert_snapshot!(denied(by(certificate("https://github.com/evil/x"), signed("", "manifest"))).unwrap(), @"identity-denied: <manifest> is signed by https://github.com/evil/x (issuer https://token.actions.githubusercontent.com, root public-good), and this identity is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
    let mallory = Certificate {
        identity: Identity::Email("mallory@example.com".to_owned()),
        ..certificate("")
    };
    insta::assert_snapshot!(denied(by(mallory, signed("", "manifest"))).unwrap(), @"identity-denied: <manifest> is signed by mallory@example.com (issuer https://token.actions.githubusercontent.com, root public-good), and this identity is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
    insta::assert_snapshot!(denied(logged(signed("release", "manifest"), "a", false)).unwrap(), @"log-entry-denied: <manifest> is signed by release, and the log entry a:7 is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
    assert_eq!(denied(logged(signed("release", "manifest"), "b", true)), None);
    let unnumbered = |log: &str| {
        let mut fact = logged(signed("release", "manifest"), log, true);
        (fact.proof.logs[0].index, fact.proof.logs[0].unnumbered) = (8, true);
        fact
    };
    assert_eq!(denied(unnumbered("b")), None);
    insta::assert_snapshot!(denied(unnumbered("a")).unwrap(), @"log-entry-denied: <manifest> is signed by release, and an entry of the log a, which this may be, is on the deny list; use another image; an administrator lifts it by removing the [[deny]] entry and running: assay policy apply");
    assert_eq!(
        denied(by(certificate("https://github.com/acme/x"), signed("", "manifest"))),
        None
    );
    assert_eq!(
        denied(by(certificate("https://github.com/evil/x"), signed("", "other"))),
        None
    );
}

fn any_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned)
}

fn any_subject() -> impl Strategy<Value = Subject> {
    prop::sample::select(vec![Subject::Platform, Subject::Index, Subject::Either])
}

fn any_signature() -> impl Strategy<Value = Table> {
    (prop::collection::vec(any_key(), 1..4), 1..4_usize, any_subject()).prop_map(|(any, threshold, subject)| {
        let any: Vec<&str> = any.iter().map(String::as_str).collect();
        signature(&any, threshold, subject)
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

fn any_timed_fact() -> impl Strategy<Value = Fact> {
    let seconds = || prop::option::of(-100_000..100_000_i64);
    (any_fact(), seconds(), seconds(), seconds(), 0..3_usize).prop_map(|(fact, from, until, time, logs)| {
        let at = |seconds: i64| NOW + SignedDuration::from_secs(seconds);
        let mut fact = match time {
            Some(seconds) => stamped(fact, at(seconds)),
            None => fact,
        };
        fact.proof.span = Span {
            from: from.map(at),
            until: until.map(at),
        };
        for log in 0..logs {
            fact = logged(fact, &format!("log {log}"), true);
        }
        fact
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
        .prop_map(|(tables, digest, r#match, mode, name)| Rule {
            name,
            r#match,
            mode,
            tables,
            digest,
            runtime: Runtime::default(),
            filesystem: Filesystem::default(),
            seccomp: crate::policy::Seccomp::default(),
            exec: crate::policy::Exec::default(),
            reevaluate: crate::policy::Reevaluate::default(),
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
    fn no_evidence_lifts_a_denial(
        facts in prop::collection::vec(any_fact(), 0..6),
        more in prop::collection::vec(any_fact(), 0..6),
        key in any_key(),
        denied in any_digest(),
    ) {
        let active = active(vec![], Deny { digest: vec![denied], key: vec![key], ..Deny::default() });
        let digests = [digest("manifest"), digest("index")];
        if active.denied(&digests, &facts).is_some() {
            let all: Vec<Fact> = more.iter().chain(&facts).chain(&more).cloned().collect();
            prop_assert!(active.denied(&digests, &all).is_some());
        }
    }

    #[test]
    fn a_stricter_rule_never_allows_more(
        rule in any_rule(),
        table in any_signature(),
        facts in prop::collection::vec(any_timed_fact(), 0..6),
        stricter in 0..5_u8,
    ) {
        let mut strict = rule.clone();
        match (stricter, strict.tables.first_mut()) {
            (0, Some(first)) => first.threshold += 1,
            (1, Some(first)) => first.logs += 1,
            (2, Some(first)) => first.max_age = Some(3600),
            (3, Some(first)) => first.condition = Some("false".to_owned()),
            _ => strict.tables.push(table),
        }
        if evaluate(&strict, facts.clone(), vec![]).allow {
            prop_assert!(evaluate(&rule, facts, vec![]).allow || rule.requires_nothing());
        }
    }

    #[test]
    fn an_allow_outlives_no_fact_that_it_rests_on(
        rule in any_rule(),
        facts in prop::collection::vec(any_timed_fact(), 0..6),
        max_age in prop::option::of(1..200_000_i64),
    ) {
        let mut rule = rule;
        for table in &mut rule.tables {
            table.max_age = max_age;
        }
        let outcome = evaluate(&rule, facts, vec![]);
        if outcome.allow {
            prop_assert!(outcome.span.contains(NOW));
            for fact in &outcome.used {
                prop_assert_eq!(outcome.span.and(fact.proof.span), outcome.span);
            }
            // At the end of its span at the latest, the facts that it rests on are not enough any more or still are
            // when asked again; before it, they always are.
            if let Some(until) = outcome.span.until {
                let before = until - SignedDuration::from_secs(1);
                if before >= NOW {
                    let policy = active(vec![rule.clone()], Deny::default());
                    prop_assert!(evaluate_under(&policy, &rule, outcome.used, vec![], before).allow);
                }
            }
        }
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
    fn whatever_becomes_of_a_container_is_possible_for_its_image(
        rules in prop::collection::vec(any_rule(), 0..6),
        container in any_container(),
        are_all_known in any::<bool>(),
    ) {
        let active = active(rules, Deny::default());
        let attributes = container.attributes();
        let selection = active.select(&attributes);
        let digests = if are_all_known { attributes.digests } else { &[] };
        let possible = active.possible(attributes.image, digests, are_all_known);
        // What nothing applies to does not run.
        if selection.decisive.is_some() || !selection.audits.is_empty() {
            let is_there = possible.iter().any(|other| {
                other.decisive == selection.decisive && (other.decisive.is_some() || !other.audits.is_empty())
            });
            prop_assert!(is_there, "{:?} {:?}", selection, possible);
        }
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
        let active = active(rules, Deny { digest: vec![digest("x")], key: vec!["k".to_owned()], ..Deny::default() });
        let json = serde_json::to_string(&active).unwrap();
        prop_assert_eq!(serde_json::from_str::<Active>(&json).unwrap(), active);
    }
}
