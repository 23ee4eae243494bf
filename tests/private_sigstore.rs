//! The private Sigstore of the tests against the Sigstore project's own verifier: what is right is accepted, what is
//! wrong is not, and where the verifier leaves a check to its user it is written down here.

#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

use pki::{Entry, Fault, IDENTITY, ISSUER, Key, Signed, Sigstore, Version};
use serde_json::Value;
use sigstore_verify::trust_root::TrustedRoot;
use sigstore_verify::types::{Bundle, DerPublicKey, Sha256Hash};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, Verifier};

mod pki;

const SUBJECT: &[u8] = b"an artifact";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// Faults that the verifier does not see: whoever uses it has to look for them.
const LEFT_TO_US: [Fault; 7] = [
    Fault::LeafWithoutKeyUsage,
    Fault::LeafWithoutDigitalSignature,
    Fault::LeafWithTwoNames,
    Fault::LeafIssuersDisagree,
    // Every certificate of the trusted root is an anchor to it, and of an anchor neither the path length nor the
    // validity counts.
    Fault::LeafByLeaf,
    Fault::IntermediateExpired,
    // By the key of the log: only its operator can do this.
    Fault::CheckpointOfOtherOrigin,
];

fn statement() -> String {
    pki::statement(&hex::encode(pki::sha256(SUBJECT)), PREDICATE)
}

fn verify(sigstore: &Sigstore, bundle: &Value, key: Option<&Key>) -> Result<(), String> {
    let root = TrustedRoot::from_json(&sigstore.trusted_root()).unwrap();
    let bundle = Bundle::from_json(&bundle.to_string()).map_err(|error| error.to_string())?;
    let digest = Sha256Hash::try_from(&pki::sha256(SUBJECT)[..]).unwrap();
    let verifier = Verifier::new(&root).unwrap();
    match key {
        None => verifier.verify(digest, &bundle, &VerificationPolicy::new(IDENTITY, ISSUER)),
        Some(key) => {
            let policy = PublicKeyVerificationPolicy::new(DerPublicKey::new(key.spki()));
            verifier.verify(digest, &bundle, &policy)
        }
    }
    .map(|_| ())
    .map_err(|error| error.to_string())
}

/// Every shape of bundle that holds what a fault can break, with the version that it is written in.
fn shapes(sigstore: &Sigstore, fault: Option<Fault>) -> Vec<(&'static str, Signed, Version)> {
    let has = |list: &[Fault]| fault.is_none_or(|fault| list.contains(&fault));
    let any = has(&Fault::OF_CERTIFICATE) || has(&Fault::OF_ENTRY);
    let envelope = has(&Fault::OF_ENVELOPE);
    let (promise, proof, timestamp) = (
        has(&Fault::OF_PROMISE),
        has(&Fault::OF_PROOF),
        has(&Fault::OF_TIMESTAMP),
    );
    let mut shapes = Vec::new();
    let mut add = |wanted: bool, name, signed: &dyn Fn() -> Signed, version| {
        if wanted {
            shapes.push((name, signed(), version));
        }
    };
    let text = statement();
    let one = |entry| sigstore.keyless().entry(entry).statement(&text);
    add(
        any || envelope || promise,
        "promised",
        &|| sigstore.keyless().promised().statement(&text),
        Version::V01,
    );
    add(
        any || envelope || promise || proof,
        "dsse",
        &|| one(Entry::Dsse001),
        Version::V03,
    );
    add(any || proof, "dsse in 0.2", &|| one(Entry::Dsse001), Version::V02);
    add(any || promise, "intoto", &|| one(Entry::Intoto002), Version::V03);
    add(
        any || promise || proof,
        "message",
        &|| sigstore.keyless().message(SUBJECT),
        Version::V03,
    );
    let v2 = has(&Fault::OF_ENTRY) || timestamp || envelope || proof;
    add(
        v2,
        "rekor 2",
        &|| sigstore.keyless().rekor2().statement(&text),
        Version::V03,
    );
    add(
        v2 && !envelope,
        "rekor 2 message",
        &|| sigstore.keyless().rekor2().message(SUBJECT),
        Version::V03,
    );
    add(
        timestamp,
        "stamped",
        &|| sigstore.keyless().timestamps(1).statement(&text),
        Version::V03,
    );
    shapes
}

#[test]
fn what_is_right_verifies() {
    let sigstore = Sigstore::new();
    for (name, signed, version) in shapes(&sigstore, None) {
        assert_eq!(verify(&sigstore, &signed.bundle(version), None), Ok(()), "{name}");
    }
    let key = Key::new();
    let logged = sigstore.by_key(&key);
    for signed in [
        logged.statement(&statement()),
        logged.message(SUBJECT),
        logged.clone().rekor2().statement(&statement()),
        logged.clone().entry(Entry::Intoto002).statement(&statement()),
        logged.clone().timestamps(1).message(SUBJECT),
    ] {
        assert_eq!(verify(&sigstore, &signed.bundle(Version::V03), Some(&key)), Ok(()));
    }
}

#[test]
fn what_is_wrong_does_not() {
    let good = Sigstore::new();
    let all = [
        &Fault::OF_CERTIFICATE[..],
        &Fault::OF_PROMISE,
        &Fault::OF_PROOF,
        &Fault::OF_ENTRY,
        &Fault::OF_TIMESTAMP,
        &Fault::OF_ENVELOPE,
    ]
    .concat();
    for fault in all {
        let sigstore = good.breaking(fault);
        let verdicts: Vec<_> = shapes(&sigstore, Some(fault))
            .into_iter()
            .map(|(name, signed, version)| (name, verify(&sigstore, &signed.bundle(version), None)))
            .collect();
        assert!(!verdicts.is_empty(), "{fault:?} shows nowhere");
        assert_eq!(
            verdicts.iter().any(|(_, verdict)| verdict.is_ok()),
            LEFT_TO_US.contains(&fault),
            "{fault:?}: {verdicts:#?}"
        );
    }
}

#[test]
fn what_is_missing_or_too_much() {
    let good = Sigstore::new();
    let text = statement();
    for (fault, rekor2, version, accepted) in [
        (Fault::PromiseMissing, false, Version::V01, false),
        (Fault::PromiseMissing, false, Version::V03, false),
        (Fault::ProofMissing, false, Version::V01, true),
        (Fault::ProofMissing, false, Version::V02, false),
        (Fault::ProofMissing, false, Version::V03, false),
        (Fault::ProofMissing, true, Version::V03, false),
        (Fault::TimestampMissing, true, Version::V03, false),
        // Counting is left to whoever uses the verifier.
        (Fault::EntryTwice, false, Version::V03, true),
        (Fault::TimestampTwice, true, Version::V03, true),
        (Fault::TimestampsTooMany, true, Version::V03, true),
    ] {
        let sigstore = good.breaking(fault);
        let signing = sigstore.keyless();
        let signing = if rekor2 { signing.rekor2() } else { signing };
        let verdict = verify(&sigstore, &signing.statement(&text).bundle(version), None);
        assert_eq!(verdict.is_ok(), accepted, "{fault:?} in {version:?}: {verdict:?}");
    }
}

#[test]
fn a_log_entry_of_another_kind() {
    let sigstore = Sigstore::new();
    for entry in [Entry::HashedRekord001, Entry::Intoto001, Entry::Dsse002] {
        let signed = sigstore.keyless().timestamps(1).entry(entry).statement(&statement());
        assert!(
            verify(&sigstore, &signed.bundle(Version::V03), None).is_err(),
            "{entry:?}"
        );
    }
}
