//! What a private Sigstore signs, right and wrong, verified as Assay does it.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use assay::digest::Digest;
use assay::evidence::{self, Certifier, Question};
use assay::trust::{HashAlgorithm, Key, Root, RootSource, Status, Use};
use assay::verify::bundle::Bundle;
use assay::verify::{Answer, By, Carrier, Claim, Identity, Problem, Proof, Signer, TimeSource, TrustedRoot, Verify};
use jiff::Timestamp;
use pki::{Entry, Fault, IDENTITY, ISSUER, Leaf, Log, Note, SIGNED, Signed, Sigstore, Version, der};
use serde_json::{Value, json};

mod pki;

const SUBJECT: &[u8] = b"a manifest";
const PREDICATE: &str = "https://spdx.dev/Document";

fn statement() -> String {
    pki::statement(&hex::encode(pki::sha256(SUBJECT)), PREDICATE)
}

fn now() -> Timestamp {
    Timestamp::from_second(SIGNED + 3600).unwrap()
}

fn root(sigstore: &Sigstore) -> TrustedRoot {
    root_of(sigstore.trusted_root())
}

fn root_of(json: String) -> TrustedRoot {
    let root = Root::new("ours", RootSource::File("trusted_root.json".to_owned()), json);
    TrustedRoot::new(&root).unwrap().0
}

/// The way of a bundle as in the evidence cache.
fn verify(root: &TrustedRoot, bundle: &[u8], by: By<'_>, now: Timestamp) -> Result<Proof, Problem> {
    let unverified = Bundle::parse(bundle.to_vec())?.unverified()?;
    if unverified.certificate().is_some_and(|leaf| !root.may_have_issued(leaf)) {
        return Err(Problem::RootUnknown);
    }
    let subject = Digest::of(SUBJECT);
    root.verify(&unverified, by, subject, now)
}

fn keyless(sigstore: &Sigstore, signed: &Signed, version: Version) -> Result<Proof, Problem> {
    let bundle = signed.bundle(version).to_string();
    verify(&root(sigstore), bundle.as_bytes(), By::Certificate, now())
}

fn code(verdict: &Result<Proof, Problem>) -> &'static str {
    verdict.as_ref().err().map_or("accepted", Problem::code)
}

fn key(key: &pki::Key) -> Key {
    Key {
        id: "release".to_owned(),
        spki: key.spki(),
        hash: HashAlgorithm::Sha256,
        r#use: vec![Use::Image],
        from: None,
        until: None,
        status: Status::Active,
        digests: Vec::new(),
    }
}

#[test]
fn a_proof_says_who_signed_which_log_holds_it_and_when_it_was() {
    let sigstore = Sigstore::new();
    let proof = keyless(&sigstore, &sigstore.keyless().statement(&statement()), Version::V03).unwrap();
    let Signer::Certificate(certificate) = &proof.signer else {
        panic!("{proof:?}")
    };
    assert_eq!(certificate.root, "ours");
    assert_eq!(certificate.identity, Identity::Uri(IDENTITY.to_owned()));
    assert_eq!(certificate.issuer, ISSUER);
    let claims: Vec<_> = certificate
        .claims
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        claims,
        [
            ("runner-environment", "github-hosted"),
            ("source-repository-identifier", "123456"),
            ("source-repository-owner-identifier", "7890"),
            ("source-repository-ref", "refs/tags/v1.2.3"),
            ("source-repository-uri", "https://github.com/acme/app"),
        ]
    );
    let signed = Timestamp::from_second(SIGNED).unwrap();
    assert_eq!(proof.logs.len(), 1);
    assert_eq!(proof.logs[0].log, hex::encode(sigstore.rekor.id));
    assert!(proof.logs[0].included && proof.logs[0].index > 25_000_000);
    assert_eq!(proof.times.len(), 1);
    assert_eq!((proof.times[0].source, proof.times[0].time), (TimeSource::Log, signed));
    assert_eq!(proof.times[0].authority, proof.logs[0].log);
    assert_eq!((proof.span.from, proof.span.until), (Some(signed), None));

    let second = keyless(
        &sigstore,
        &sigstore.keyless().rekor2().statement(&statement()),
        Version::V03,
    )
    .unwrap();
    assert_eq!(second.logs[0].log, hex::encode(sigstore.rekor2.id));
    assert!(second.logs[0].included);
    assert_eq!(
        (second.times[0].source, second.times[0].authority.as_str()),
        (TimeSource::Timestamp, "https://timestamp.private.example")
    );
}

#[test]
fn every_kind_of_bundle_verifies() {
    let sigstore = Sigstore::new();
    let text = statement();
    let of = |entry| sigstore.keyless().entry(entry).statement(&text);
    let promised = sigstore.keyless().promised().statement(&text);
    for (signed, version, included) in [
        (of(Entry::Dsse001), Version::V01, true),
        (of(Entry::Dsse001), Version::V02, true),
        (of(Entry::Dsse001), Version::V03, true),
        (of(Entry::Intoto002), Version::V03, true),
        (of(Entry::HashedRekord001), Version::V03, true),
        (promised, Version::V01, false),
        (sigstore.keyless().message(SUBJECT), Version::V03, true),
        (sigstore.keyless().rekor2().message(SUBJECT), Version::V03, true),
        (sigstore.keyless().timestamps(1).statement(&text), Version::V03, true),
    ] {
        let proof = keyless(&sigstore, &signed, version).unwrap();
        assert_eq!((proof.logs.len(), proof.logs[0].included), (1, included), "{version:?}");
    }
}

/// The bundle with another checkpoint over the same tree, made from the log's own text and signature.
fn with_checkpoint(bundle: &Value, change: impl FnOnce(Note) -> Note) -> Value {
    let mut bundle = bundle.clone();
    let checkpoint = &mut bundle["verificationMaterial"]["tlogEntries"][0]["inclusionProof"]["checkpoint"]["envelope"];
    let (text, signatures) = checkpoint.as_str().unwrap().split_once("\n\n").unwrap();
    let note = Note {
        text: format!("{text}\n"),
        signatures: signatures.split_inclusive('\n').map(str::to_owned).collect(),
    };
    *checkpoint = change(note).envelope().into();
    bundle
}

#[test]
fn a_checkpoint_counts_by_its_logs_signature_whoever_else_signed_it() {
    let sigstore = Sigstore::new();
    let bundle = sigstore.keyless().rekor2().statement(&statement()).bundle(Version::V03);
    let log = &sigstore.rekor2;
    let by = |note: Note, name: &str| {
        let key = pki::Key::ed25519();
        note.signed(name, &Log::v2(&key, name).id, &key)
    };
    let first = |mut note: Note| {
        note.signatures.rotate_right(1);
        note
    };
    for (what, other) in [
        (
            "two witnesses",
            with_checkpoint(&bundle, |note| by(by(note, "witness.example"), "second.example")),
        ),
        (
            "a witness before the log",
            with_checkpoint(&bundle, |note| first(by(note, "witness.example"))),
        ),
        (
            "another key under the log's name",
            with_checkpoint(&bundle, |note| by(note, &log.origin)),
        ),
        (
            "another key under the log's name, before the log, and a witness",
            with_checkpoint(&bundle, |note| by(first(by(note, &log.origin)), "witness.example")),
        ),
    ] {
        let verdict = verify(&root(&sigstore), other.to_string().as_bytes(), By::Certificate, now());
        assert_eq!(code(&verdict), "accepted", "{what}: {verdict:?}");
    }
}

#[test]
fn what_a_certificate_log_adds_to_its_promise_is_under_its_signature() {
    let sigstore = Sigstore::new();
    let leaf = Leaf {
        sct_extensions: vec![0, 0, 5, 0, 0, 0, 0, 7],
        ..Leaf::default()
    };
    let signed = sigstore.keyless_as(leaf).statement(&statement());
    let verdict = keyless(&sigstore, &signed, Version::V03);
    assert_eq!(code(&verdict), "accepted", "{verdict:?}");
}

#[test]
fn authorities_may_have_ended_since() {
    let sigstore = Sigstore::new();
    let signed = sigstore.keyless().rekor2().statement(&statement());
    let bundle = signed.bundle(Version::V03).to_string();
    let later = Timestamp::from_second(SIGNED + 3600 * 24 * 365 * 20).unwrap();
    let verdict = verify(&root(&sigstore), bundle.as_bytes(), By::Certificate, later);
    assert_eq!(code(&verdict), "accepted", "{verdict:?}");
}

#[test]
fn a_window_ends_with_its_last_second_and_has_a_start() {
    let sigstore = Sigstore::new();
    let text = statement();
    let logged = sigstore.keyless().statement(&text).bundle(Version::V03).to_string();
    let stamped = sigstore
        .keyless()
        .rekor2()
        .statement(&text)
        .bundle(Version::V03)
        .to_string();
    let start = Timestamp::from_second(SIGNED - 3600).unwrap().to_string();
    let end = |seconds: i64| Timestamp::from_second(SIGNED + seconds).unwrap().to_string();
    for (bundle, what) in [
        (&logged, "/tlogs/0/publicKey/validFor"),
        (&stamped, "/timestampAuthorities/0/validFor"),
    ] {
        let verdict = |window: Value| {
            let mut json: Value = serde_json::from_str(&sigstore.trusted_root()).unwrap();
            *json.pointer_mut(what).unwrap() = window;
            verify(&root_of(json.to_string()), bundle.as_bytes(), By::Certificate, now())
        };
        let last = verdict(json!({"start": start, "end": end(0)}));
        assert_eq!(code(&last), "accepted", "{what}: {last:?}");
        let after = verdict(json!({"start": start, "end": end(-1)}));
        assert_ne!(code(&after), "accepted", "{what}: {after:?}");
        let without = verdict(json!({"end": end(3600)}));
        assert_ne!(code(&without), "accepted", "{what} without a start: {without:?}");
    }
}

#[test]
fn a_statement_counts_for_its_own_subjects_however_it_was_logged() {
    let sigstore = Sigstore::new();
    let about_another = pki::statement(&hex::encode(pki::sha256(b"another artifact")), PREDICATE);
    for entry in [Entry::Dsse001, Entry::Intoto002, Entry::HashedRekord001] {
        let signed = sigstore.keyless().entry(entry).statement(&about_another);
        assert_eq!(
            code(&keyless(&sigstore, &signed, Version::V03)),
            "subject-mismatch",
            "{entry:?}"
        );
    }
}

/// Every shape of bundle that holds what a fault can break.
fn shapes(sigstore: &Sigstore, fault: Fault) -> Vec<(Signed, Version)> {
    let text = statement();
    let of = |entry| sigstore.keyless().entry(entry).statement(&text);
    let mut shapes = Vec::new();
    let everywhere = Fault::OF_CERTIFICATE.contains(&fault) || Fault::OF_ENTRY.contains(&fault);
    let envelope = Fault::OF_ENVELOPE.contains(&fault);
    let (promise, proof) = (Fault::OF_PROMISE.contains(&fault), Fault::OF_PROOF.contains(&fault));
    if everywhere || envelope || promise {
        shapes.push((sigstore.keyless().promised().statement(&text), Version::V01));
        shapes.push((of(Entry::Intoto002), Version::V03));
        shapes.push((of(Entry::HashedRekord001), Version::V03));
    }
    if everywhere || envelope || promise || proof {
        shapes.push((of(Entry::Dsse001), Version::V02));
        shapes.push((of(Entry::Dsse001), Version::V03));
    }
    if everywhere || promise || proof {
        shapes.push((sigstore.keyless().message(SUBJECT), Version::V03));
    }
    if !promise {
        shapes.push((sigstore.keyless().rekor2().statement(&text), Version::V03));
    }
    if Fault::OF_TIMESTAMP.contains(&fault) {
        shapes.push((sigstore.keyless().timestamps(1).statement(&text), Version::V03));
        shapes.push((
            sigstore.keyless().unlogged().timestamps(1).statement(&text),
            Version::V03,
        ));
    }
    shapes
}

#[test]
fn what_is_wrong_is_refused_with_its_own_code() {
    let good = Sigstore::new();
    let expected = |fault: Fault| -> &[&str] {
        match fault {
            Fault::SctMissing | Fault::SctByUnknownLog | Fault::SctOfOtherCertificate | Fault::SctOutsideKeyWindow => {
                &["certificate-unlogged"]
            }
            Fault::LeafIsAuthority
            | Fault::LeafWithoutKeyUsage
            | Fault::LeafWithoutDigitalSignature
            | Fault::LeafWithoutName
            | Fault::LeafWithTwoNames
            | Fault::LeafIssuersDisagree
            | Fault::LeafWithoutIssuer => &["certificate-unacceptable"],
            Fault::LeafWithoutCodeSigning | Fault::LeafByUnknownAuthority | Fault::LeafOutsideNameConstraints => {
                &["certificate-untrusted"]
            }
            Fault::LeafSelfSigned | Fault::LeafByLeaf => &["root-unknown"],
            Fault::LeafExpired | Fault::LeafNotYetValid => &["certificate-expired", "certificate-untrusted"],
            Fault::IntermediateExpired | Fault::AuthorityOutsideWindow => &["certificate-expired"],
            Fault::PromiseByOtherKey
            | Fault::PromiseOfOtherBody
            | Fault::TimeAltered
            | Fault::IndexAltered
            | Fault::LogUnknown
            | Fault::LogKeyOutsideWindow => &["log-unproved", "log-unknown"],
            Fault::TimeInFuture => &["log-time"],
            Fault::IndexNegative => &["bundle-malformed"],
            Fault::ProofHashAltered | Fault::ProofIndexAltered | Fault::ProofCutShort => &["log-unproved"],
            Fault::CheckpointByOtherKey
            | Fault::CheckpointWithOtherHint
            | Fault::CheckpointByWitnessOnly
            | Fault::CheckpointOfOtherOrigin => &["log-unproved"],
            Fault::CheckpointOfOtherTree => &["log-unproved", "bundle-malformed"],
            Fault::CheckpointWithoutRoot | Fault::CheckpointWithoutSize | Fault::CheckpointWithoutOrigin => {
                &["log-unproved", "bundle-malformed"]
            }
            Fault::EntryOfOtherPayload => &["log-mismatch", "subject-mismatch"],
            Fault::EntryOfOtherSignature | Fault::EntryOfOtherSigner => &["log-mismatch"],
            Fault::TimestampOutsideLeaf => &["certificate-expired", "certificate-untrusted"],
            Fault::TimestampOverPayload
            | Fault::TimestampByUnknownAuthority
            | Fault::TimestampByUnknownAuthorityEmbedded
            | Fault::TimestampByUselessAuthority
            | Fault::TimestampOutsideAuthority
            | Fault::TimestampOutsideWindow
            | Fault::TimestampRefused => &["timestamp-invalid"],
            Fault::SignatureAltered
            | Fault::SignatureByOtherKey
            | Fault::SignatureWithoutEncoding
            | Fault::PayloadAltered => &[
                "signature-invalid",
                "log-mismatch",
                "timestamp-invalid",
                "payload-malformed",
            ],
            Fault::SignaturesTwo => &["signature-count"],
            Fault::PayloadTypeAltered => &["payload-type-unsupported"],
            other => panic!("{other:?} has no code yet"),
        }
    };
    let all = [
        &Fault::OF_CERTIFICATE[..],
        &Fault::OF_PROMISE,
        &Fault::OF_PROOF,
        &Fault::OF_ENTRY,
        &Fault::OF_TIMESTAMP,
        &Fault::OF_ENVELOPE,
    ]
    .concat();
    let mut wrong = Vec::new();
    for fault in all {
        let sigstore = good.breaking(fault);
        let mut shapes = shapes(&sigstore, fault);
        if fault == Fault::CheckpointOfOtherOrigin {
            // Only the second version's logs are named by their origin. The other's operator alone could sign for another.
            shapes = vec![(sigstore.keyless().rekor2().statement(&statement()), Version::V03)];
        }
        for (number, (signed, version)) in shapes.iter().enumerate() {
            let verdict = keyless(&sigstore, signed, *version);
            if !expected(fault).contains(&code(&verdict)) {
                wrong.push(format!(
                    "{fault:?} {number} {version:?}: {} {verdict:?}",
                    code(&verdict)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_counted_twice_and_nothing_is_without_a_limit() {
    let good = Sigstore::new();
    for fault in [Fault::EntryTwice, Fault::TimestampTwice, Fault::TimestampsTooMany] {
        let sigstore = good.breaking(fault);
        let signed = sigstore.keyless().rekor2().statement(&statement());
        assert_eq!(
            code(&keyless(&sigstore, &signed, Version::V03)),
            "bundle-malformed",
            "{fault:?}"
        );
    }
    // An entry of the one log that says to be of the other.
    let mut bundle = good.keyless().rekor2().statement(&statement()).bundle(Version::V03);
    let entries = bundle["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap();
    let mut again = entries[0].clone();
    again["logId"]["keyId"] = pki::base64(&good.rekor.id).into();
    entries.push(again);
    let verdict = verify(&root(&good), bundle.to_string().as_bytes(), By::Certificate, now());
    assert_eq!(code(&verdict), "log-unproved", "{verdict:?}");
}

#[test]
fn every_entry_of_a_log_is_told_of() {
    use base64::Engine as _;
    let sigstore = Sigstore::new();
    let mut bundle = sigstore
        .keyless()
        .promised()
        .statement(&statement())
        .bundle(Version::V01);
    let entries = bundle["verificationMaterial"]["tlogEntries"].as_array_mut().unwrap();
    // The log took it up a second time.
    let mut again = entries[0].clone();
    let body = again["canonicalizedBody"].as_str().unwrap();
    let body = base64::prelude::BASE64_STANDARD.decode(body).unwrap();
    let first: i64 = again["logIndex"].as_str().unwrap().parse().unwrap();
    again["logIndex"] = (first + 1).to_string().into();
    let promise = sigstore.rekor.promise(&body, SIGNED, first + 1);
    again["inclusionPromise"]["signedEntryTimestamp"] = pki::base64(&promise).into();
    entries.push(again);
    let proof = verify(&root(&sigstore), bundle.to_string().as_bytes(), By::Certificate, now()).unwrap();
    let indexes: Vec<u64> = proof.logs.iter().map(|entry| entry.index).collect();
    let first = u64::try_from(first).unwrap();
    assert_eq!(indexes, [first, first + 1]);
}

#[test]
fn the_number_of_an_entry_is_known_by_what_vouches_for_it() {
    let sigstore = Sigstore::new();
    let unnumbered = |signed: &Signed| keyless(&sigstore, signed, Version::V03).unwrap().logs[0].unnumbered;
    assert!(!unnumbered(&sigstore.keyless().statement(&statement())));
    assert!(!unnumbered(&sigstore.keyless().rekor2().statement(&statement())));
    // Whoever takes the promise away can write any number.
    let mut bundle = sigstore
        .keyless()
        .timestamps(1)
        .statement(&statement())
        .bundle(Version::V03);
    let entry = &mut bundle["verificationMaterial"]["tlogEntries"][0];
    entry.as_object_mut().unwrap().remove("inclusionPromise");
    entry["logIndex"] = "1".into();
    let proof = verify(&root(&sigstore), bundle.to_string().as_bytes(), By::Certificate, now()).unwrap();
    assert_eq!((proof.logs[0].index, proof.logs[0].unnumbered), (1, true));
}

#[test]
fn without_a_log_entry_a_timestamp_gives_the_time_and_the_proof_names_no_log() {
    let sigstore = Sigstore::new();
    let signed = sigstore.keyless().unlogged().timestamps(1).statement(&statement());
    let proof = keyless(&sigstore, &signed, Version::V03).unwrap();
    assert_eq!((proof.logs.len(), proof.times.len()), (0, 1));
    let bare = sigstore.keyless().unlogged().statement(&statement());
    assert_eq!(code(&keyless(&sigstore, &bare, Version::V03)), "time-missing");
}

#[test]
fn an_entry_of_the_second_version_has_no_time_of_its_own() {
    let sigstore = Sigstore::new().breaking(Fault::TimestampMissing);
    for signed in [
        sigstore.keyless().rekor2().statement(&statement()),
        sigstore.keyless().rekor2().message(SUBJECT),
    ] {
        assert_eq!(code(&keyless(&sigstore, &signed, Version::V03)), "time-missing");
    }
}

#[test]
fn a_checkpoint_that_is_no_signed_note_proves_nothing() {
    let sigstore = Sigstore::new();
    for signed in [
        sigstore.keyless().statement(&statement()),
        sigstore.keyless().rekor2().statement(&statement()),
    ] {
        let bundle = signed.bundle(Version::V03);
        let place = "/verificationMaterial/tlogEntries/0/inclusionProof/checkpoint/envelope";
        let good = bundle.pointer(place).unwrap().as_str().unwrap().to_owned();
        let (text, signatures) = good.split_once("\n\n").unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for note in [
            String::new(),
            "\n".repeat(3),
            text.to_owned(),
            format!("{text}\n{signatures}"),
            format!("{text}\n\n"),
            format!("{text}\n\n{}", signatures.replace('\u{2014}', "-")),
            format!("{text}\n\n{}", &signatures[..signatures.len() / 2]),
            format!("{}\n-1\n{}\n\n{signatures}", lines[0], lines[2]),
            format!("{}\n99999999999999999999\n{}\n\n{signatures}", lines[0], lines[2]),
            format!("{}\n{}\n!\n\n{signatures}", lines[0], lines[1]),
            format!("\n{}\n{}\n\n{signatures}", lines[1], lines[2]),
            good.replace('\n', "\r\n"),
        ] {
            let mut changed = bundle.clone();
            *changed.pointer_mut(place).unwrap() = note.clone().into();
            let verdict = verify(&root(&sigstore), changed.to_string().as_bytes(), By::Certificate, now());
            assert!(
                matches!(code(&verdict), "log-unproved" | "bundle-malformed"),
                "{note:?}: {verdict:?}"
            );
        }
    }
}

#[test]
fn a_root_of_trust_that_comes_with_a_signature_is_none() {
    let sigstore = Sigstore::new();
    let mut signed = sigstore.keyless().statement(&statement());
    signed.chain.push(sigstore.root().to_vec());
    assert_eq!(
        code(&keyless(&sigstore, &signed, Version::V02)),
        "certificate-unacceptable"
    );
    // Another's, with the same names: nobody is certified by what the signer brings along.
    let theirs = Sigstore::new();
    let mut signed = theirs.keyless().statement(&statement());
    assert_eq!(code(&keyless(&sigstore, &signed, Version::V02)), "log-unproved");
    let unlogged = theirs.keyless().unlogged().timestamps(1).statement(&statement());
    assert!(keyless(&sigstore, &unlogged, Version::V02).is_err());
    signed.chain.push(theirs.root().to_vec());
    assert_eq!(
        code(&keyless(&sigstore, &signed, Version::V02)),
        "certificate-unacceptable"
    );
}

#[test]
fn certificates_for_keys_that_are_weak_or_unknown_are_refused_by_name() {
    let sigstore = Sigstore::new();
    let spki = |pem: &str| {
        let (_, der) = spki::der::pem::decode_vec(pem.trim().as_bytes()).unwrap();
        der
    };
    let refused = |key: Vec<u8>| {
        let leaf = pki::Leaf {
            foreign_key: Some(key),
            ..pki::Leaf::default()
        };
        let signed = sigstore.keyless_as(leaf).statement(&statement());
        let problem = keyless(&sigstore, &signed, Version::V03).unwrap_err();
        assert_eq!(problem.code(), "certificate-unacceptable", "{problem}");
        problem.to_string()
    };
    insta::assert_snapshot!(refused(spki(include_str!("../src/trust/testdata/p521.pem"))), @"its signing certificate is not acceptable: its key is of ECDSA P-521, which is verified for the keys of trust.d only");
    insta::assert_snapshot!(refused(spki(include_str!("../src/trust/testdata/secp256k1.pem"))), @"its signing certificate is not acceptable: it holds a key of secp256k1, which Assay does not verify");
    insta::assert_snapshot!(refused(spki(include_str!("../src/trust/testdata/rsa1024.pem"))), @"its signing certificate is not acceptable: it holds an RSA key of 1024 bits; 2048 to 8192 are accepted");
    insta::assert_snapshot!(refused(spki(include_str!("../src/trust/testdata/ed448.pem"))), @"its signing certificate is not acceptable: it holds a key of Ed448, which Assay does not verify");
    insta::assert_snapshot!(refused(spki(include_str!("../src/trust/testdata/rsa-pss.pem"))), @"its signing certificate is not acceptable: its key is of RSASSA-PSS, which is verified for the keys of trust.d only");
    // One that would only make verification slow: a modulus of 16384 bits.
    let modulus = [&[0_u8, 0x80][..], &[1; 2047]].concat();
    let key = der::sequence([der::tlv(0x02, &modulus), der::tlv(0x02, &[1, 0, 1])]);
    let rsa = der::sequence([der::oid("1.2.840.113549.1.1.1"), der::tlv(0x05, &[])]);
    let started = Instant::now();
    insta::assert_snapshot!(refused(der::sequence([rsa, der::bits(&key)])), @"its signing certificate is not acceptable: it holds an RSA key of 16384 bits; 2048 to 8192 are accepted");
    assert!(started.elapsed().as_millis() < 1000);
}

#[test]
fn a_chain_that_is_made_to_take_long_is_not_walked() {
    let sigstore = Sigstore::new();
    for (count, code_of) in [(4, "bundle-malformed"), (4000, "bundle-malformed")] {
        let mut signed = sigstore.keyless().statement(&statement());
        signed.chain = vec![sigstore.intermediate().to_vec(); count];
        let bundle = signed.bundle(Version::V02).to_string();
        let root = root(&sigstore);
        let started = Instant::now();
        let verdict = verify(&root, bundle.as_bytes(), By::Certificate, now());
        assert_eq!(code(&verdict), code_of, "{count}");
        assert!(started.elapsed().as_millis() < 1000, "{count}: {:?}", started.elapsed());
    }
    // Three more than the signer's own are accepted, and none of them is used.
    let mut signed = sigstore.keyless().statement(&statement());
    signed.chain = vec![sigstore.intermediate().to_vec(); 3];
    assert_eq!(code(&keyless(&sigstore, &signed, Version::V02)), "accepted");
}

#[test]
fn a_root_without_certificate_logs_asks_for_none_but_one_that_lists_them_does() {
    let good = Sigstore::new();
    let unlogged = good.breaking(Fault::SctMissing);
    let bundle = unlogged
        .keyless()
        .unlogged()
        .timestamps(1)
        .statement(&statement())
        .bundle(Version::V03)
        .to_string();
    let change = |change: fn(&mut serde_json::Value)| {
        let mut root: serde_json::Value = serde_json::from_str(&good.trusted_root()).unwrap();
        change(&mut root);
        code(&verify(
            &root_of(root.to_string()),
            bundle.as_bytes(),
            By::Certificate,
            now(),
        ))
    };
    assert_eq!(change(|_| {}), "certificate-unlogged");
    assert_eq!(change(|root| root["ctlogs"] = serde_json::json!([])), "accepted");
    // One that is listed and not supported is still listed.
    let broken = change(|root| root["ctlogs"][0]["publicKey"]["rawBytes"] = "AAAA".into());
    assert_eq!(broken, "certificate-unlogged");
}

#[test]
fn a_time_that_the_node_s_clock_has_not_reached_does_not_count() {
    let sigstore = Sigstore::new();
    let bundle = sigstore
        .keyless()
        .statement(&statement())
        .bundle(Version::V03)
        .to_string();
    let at = |seconds| {
        let now = Timestamp::from_second(SIGNED + seconds).unwrap();
        code(&verify(&root(&sigstore), bundle.as_bytes(), By::Certificate, now))
    };
    assert_eq!((at(-1), at(0), at(1)), ("time-future", "accepted", "accepted"));
}

#[test]
fn a_key_s_log_entries_and_timestamps_must_verify_and_give_its_times() {
    let sigstore = Sigstore::new();
    let pair = pki::Key::new();
    let trusted = key(&pair);
    let text = statement();
    let verify_key = |sigstore: &Sigstore, signed: &Signed, key: &Key| {
        let bundle = signed.bundle(Version::V03).to_string();
        verify(&root(sigstore), bundle.as_bytes(), By::Key(key), now())
    };
    let logged = verify_key(&sigstore, &sigstore.by_key(&pair).statement(&text), &trusted).unwrap();
    assert_eq!(logged.signer, Signer::Key("release".to_owned()));
    assert_eq!((logged.logs.len(), logged.times.len()), (1, 1));
    let second = verify_key(&sigstore, &sigstore.by_key(&pair).rekor2().message(SUBJECT), &trusted).unwrap();
    assert_eq!((second.logs.len(), second.times.len()), (1, 1));
    let stamped = sigstore.by_key(&pair).unlogged().timestamps(1).statement(&text);
    let stamped = verify_key(&sigstore, &stamped, &trusted).unwrap();
    assert_eq!((stamped.logs.len(), stamped.times.len()), (0, 1));

    for fault in [
        Fault::PromiseByOtherKey,
        Fault::TimeAltered,
        Fault::ProofHashAltered,
        Fault::CheckpointByOtherKey,
        Fault::EntryOfOtherPayload,
        Fault::EntryOfOtherSignature,
        Fault::EntryOfOtherSigner,
    ] {
        let broken = sigstore.breaking(fault);
        let verdict = verify_key(&broken, &broken.by_key(&pair).statement(&text), &trusted);
        assert!(verdict.is_err(), "{fault:?}");
    }
    let broken = sigstore.breaking(Fault::TimestampByUnknownAuthority);
    let verdict = verify_key(&broken, &broken.by_key(&pair).rekor2().statement(&text), &trusted);
    assert_eq!(code(&verdict), "timestamp-invalid");

    let other = key(&pki::Key::new());
    let verdict = verify_key(&sigstore, &sigstore.by_key(&pair).statement(&text), &other);
    assert!(verdict.is_err());
    let by_certificate = sigstore.keyless().statement(&text);
    assert!(verify_key(&sigstore, &by_certificate, &trusted).is_err());
    let sha384 = Key {
        hash: HashAlgorithm::Sha384,
        ..trusted
    };
    let verdict = verify_key(&sigstore, &sigstore.by_key(&pair).statement(&text), &sha384);
    assert_eq!(code(&verdict), "key-log-unsupported");
}

#[test]
fn a_bundle_counts_under_its_own_root_only() {
    let (ours, theirs) = (Sigstore::new(), Sigstore::new());
    let signed = theirs.keyless().statement(&statement());
    // The authorities have the same names. What is seen first is that the log's promise is by another key.
    assert_eq!(code(&keyless(&ours, &signed, Version::V03)), "log-unproved");
}

/// An image layout in which each of these bundles is attached to the subject.
fn layout(folder: &Path, bundles: impl Iterator<Item = String>) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let config = put(b"{}", "application/vnd.oci.empty.v1+json");
    let bundle_type = "application/vnd.dev.sigstore.bundle.v0.3+json";
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let entries: Vec<Value> = bundles
        .map(|bundle| {
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": manifest_type,
                "artifactType": bundle_type,
                "config": config,
                "layers": [put(bundle.as_bytes(), bundle_type)],
                "subject": {
                    "mediaType": manifest_type,
                    "digest": Digest::of(SUBJECT).to_string(),
                    "size": SUBJECT.len(),
                },
            });
            put(manifest.to_string().as_bytes(), manifest_type)
        })
        .collect();
    let index = json!({"schemaVersion": 2, "manifests": entries});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

fn question(sigstore: &Sigstore, keys: Vec<Key>, issuer: &str) -> Question {
    let source = RootSource::File("trusted_root.json".to_owned());
    Question {
        subjects: vec![Digest::of(SUBJECT)],
        keys,
        roots: vec![Root::new("ours", source, sigstore.trusted_root())],
        certifiers: vec![Certifier {
            root: "ours".to_owned(),
            issuer: issuer.to_owned(),
        }],
        now: now(),
        ..Question::default()
    }
}

fn codes(answer: &Answer) -> Vec<&str> {
    answer.findings.iter().map(|finding| finding.code.as_str()).collect()
}

#[test]
fn evidence_is_judged_under_the_roots_of_the_question() {
    let sigstore = Sigstore::new();
    let folder = tempfile::tempdir().unwrap();
    let pair = pki::Key::new();
    let sign = pki::statement(
        &hex::encode(pki::sha256(SUBJECT)),
        "https://sigstore.dev/cosign/sign/v1",
    );
    let bundles = [
        sigstore.keyless().statement(&statement()).bundle(Version::V03),
        sigstore.by_key(&pair).statement(&sign).bundle(Version::V03),
    ];
    layout(folder.path(), bundles.iter().map(Value::to_string));
    let folder = File::open(folder.path()).unwrap();

    let windowed = Key {
        from: Timestamp::from_second(SIGNED - 10).ok(),
        until: Timestamp::from_second(SIGNED + 10).ok(),
        ..key(&pair)
    };
    let all = question(&sigstore, vec![windowed.clone()], ISSUER);
    let answer = evidence::judge(folder.as_fd(), &all);
    assert_eq!(codes(&answer), [""; 0]);
    let said: Vec<_> = answer
        .facts
        .iter()
        .map(|fact| (fact.carrier, fact.claim.clone(), fact.proof.logs.len()))
        .collect();
    assert_eq!(
        said,
        [
            (Carrier::BundleCertificate, Claim::Attestation(PREDICATE.to_owned()), 1),
            (Carrier::BundleKeyLogged, Claim::ImageSignature, 1),
        ]
    );

    let late = Key {
        until: Timestamp::from_second(SIGNED).ok(),
        ..windowed
    };
    let other_issuer = question(&sigstore, vec![late], "https://accounts.example.com");
    let answer = evidence::judge(folder.as_fd(), &other_issuer);
    assert_eq!(
        (answer.facts.len(), codes(&answer)),
        (0, vec!["signer-unlisted", "key-window"])
    );

    let mut rootless = question(&sigstore, vec![key(&pair)], ISSUER);
    rootless.roots.clear();
    let answer = evidence::judge(folder.as_fd(), &rootless);
    assert_eq!(
        (answer.facts.len(), codes(&answer)),
        (0, vec!["root-unknown", "root-missing"])
    );
}

#[test]
fn a_right_sha512_does_not_help_beside_a_wrong_sha256() {
    use sha2::Digest as _;
    let sigstore = Sigstore::new();
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {
            "sha256": hex::encode(pki::sha256(b"another manifest")),
            "sha512": hex::encode(sha2::Sha512::digest(SUBJECT)),
        }}],
        "predicateType": PREDICATE,
        "predicate": {},
    });
    let signed = sigstore.keyless().statement(&statement.to_string());
    assert_eq!(code(&keyless(&sigstore, &signed, Version::V03)), "subject-mismatch");
    let folder = tempfile::tempdir().unwrap();
    layout(folder.path(), std::iter::once(signed.bundle(Version::V03).to_string()));
    let folder = File::open(folder.path()).unwrap();
    let answer = evidence::judge(folder.as_fd(), &question(&sigstore, Vec::new(), ISSUER));
    assert_eq!((answer.facts.len(), codes(&answer)), (0, vec!["subject-mismatch"]));
}

#[test]
fn a_root_counts_no_longer_than_its_entry_says() {
    const DAY: i64 = 24 * 3600;
    let sigstore = Sigstore::new();
    let pair = pki::Key::new();
    let at = |seconds| Timestamp::from_second(seconds).unwrap();
    let (as_of, until) = (at(SIGNED - 29 * DAY), at(SIGNED + DAY));
    let aging = |max_age, as_of| {
        let source = RootSource::File("trusted_root.json".to_owned());
        Root::new("ours", source, sigstore.trusted_root()).aging(max_age, as_of)
    };
    let bundle = sigstore
        .keyless()
        .statement(&statement())
        .bundle(Version::V03)
        .to_string();
    let judge = |root: &Root, now| {
        let root = TrustedRoot::new(root).unwrap().0;
        verify(&root, bundle.as_bytes(), By::Certificate, now)
    };
    let thirty = aging(Some(30 * DAY), Some(as_of));
    // What is remembered of it ends with the root.
    let proof = judge(&thirty, now()).unwrap();
    assert_eq!(proof.span.until, Some(until));
    assert!(proof.span.contains(at(SIGNED + DAY - 1)) && !proof.span.contains(until));
    for (now, expected) in [(at(SIGNED + DAY - 1), "accepted"), (until, "root-too-old")] {
        assert_eq!(code(&judge(&thirty, now)), expected, "{now}");
    }
    // Nobody knows when it was current.
    assert_eq!(code(&judge(&aging(Some(30 * DAY), None), now())), "root-too-old");
    // Without max_age, age alone refuses nothing.
    let ageless = judge(&aging(None, Some(as_of)), at(SIGNED + 3000 * DAY)).unwrap();
    assert_eq!(ageless.span.until, None);

    // As the evidence cache has it, with a certificate and with a key that has a log entry.
    let folder = tempfile::tempdir().unwrap();
    let bundles = [
        bundle,
        sigstore
            .by_key(&pair)
            .statement(&statement())
            .bundle(Version::V03)
            .to_string(),
    ];
    layout(folder.path(), bundles.into_iter());
    let folder = File::open(folder.path()).unwrap();
    let mut question = question(
        &sigstore,
        vec![Key {
            r#use: vec![Use::Sbom],
            ..key(&pair)
        }],
        ISSUER,
    );
    question.roots = vec![thirty];
    assert_eq!(evidence::judge(folder.as_fd(), &question).facts.len(), 2);
    question.now = until;
    let answer = evidence::judge(folder.as_fd(), &question);
    assert_eq!((answer.facts.len(), codes(&answer)), (0, vec!["root-too-old"; 2]));
}

#[test]
fn ten_thousand_forged_bundles_are_bounded_work() {
    const FORGED: usize = 10_000;
    let sigstore = Sigstore::new();
    let genuine = sigstore.keyless().statement(&statement()).bundle(Version::V03);
    let forged = |number: usize| {
        let mut bundle = genuine.clone();
        // As far as it can be told without a check of a signature, it is genuine.
        bundle["dsseEnvelope"]["signatures"][0]["keyid"] = number.to_string().into();
        bundle["verificationMaterial"]["tlogEntries"][0]["logIndex"] = number.to_string().into();
        bundle.to_string()
    };
    // By a key, which costs none of the work that the forged ones use up: it is found wherever it is.
    let pair = pki::Key::new();
    let sign = pki::statement(
        &hex::encode(pki::sha256(SUBJECT)),
        "https://sigstore.dev/cosign/sign/v1",
    );
    let by_key = sigstore.by_key(&pair).unlogged().statement(&sign).bundle(Version::V03);
    let folder = tempfile::tempdir().unwrap();
    let first = std::iter::once(genuine.to_string());
    let last = std::iter::once(by_key.to_string());
    layout(folder.path(), first.chain((0..FORGED).map(forged)).chain(last));
    let folder = File::open(folder.path()).unwrap();
    let question = question(&sigstore, vec![key(&pair)], ISSUER);
    let started = Instant::now();
    let answer = evidence::judge(folder.as_fd(), &question);
    println!("{FORGED} forged bundles were judged in {:?}", started.elapsed());
    let carriers: Vec<Carrier> = answer.facts.iter().map(|fact| fact.carrier).collect();
    assert_eq!(carriers, [Carrier::BundleCertificate, Carrier::BundleKey]);
    assert_eq!(codes(&answer).last(), Some(&"work-limit"));
    assert!(answer.is_cut_short());
}

/// Whatever byte of a bundle is changed: it is refused, or it proves what it proved before.
#[test]
fn a_changed_byte_changes_nothing_that_counts() {
    let sigstore = Sigstore::new();
    let root = root(&sigstore);
    for signed in [
        sigstore.keyless().timestamps(1).statement(&statement()),
        sigstore.keyless().rekor2().message(SUBJECT),
    ] {
        let bundle = signed.bundle(Version::V03).to_string().into_bytes();
        let before = verify(&root, &bundle, By::Certificate, now()).unwrap();
        let mut refused = 0;
        for position in (0..bundle.len()).step_by(13) {
            let mut changed = bundle.clone();
            changed[position] = if changed[position] == b'A' { b'B' } else { b'A' };
            match verify(&root, &changed, By::Certificate, now()) {
                Ok(after) => assert_eq!(after, before, "{position}"),
                Err(_) => refused += 1,
            }
        }
        // What may change is what nobody signs and nobody uses: the name of a key, a log's hints.
        assert!(
            refused * 13 > bundle.len() * 8 / 10,
            "{refused} of {}",
            bundle.len() / 13
        );
    }
}
