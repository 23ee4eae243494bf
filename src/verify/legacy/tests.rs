use std::collections::BTreeMap;

use super::super::pki::{self, Entry, Fault, IDENTITY, ISSUER, Layer, SIGNED, Signing, Sigstore};
use super::super::sigstore::{By, TrustedRoot, Verify as _};
use super::super::{Claim, Identity, Keyring, LogEntry, Proof, Signer, TimeSource, TrustedTime};
use super::*;
use crate::trust::{self, Root, RootSource};

const PROVENANCE: &str = "https://slsa.dev/provenance/v1";
/// Later than everything here is signed, and earlier than the time that one fault claims.
const NOW: i64 = SIGNED + 86_400;

fn subject() -> Digest {
    Digest::of(b"an image's manifest")
}

fn descriptor(layer: &Layer) -> Descriptor {
    Descriptor {
        media_type: layer.media_type.to_owned(),
        digest: Digest::of(&layer.blob),
        size: layer.blob.len() as u64,
        annotations: layer.annotations.clone(),
        artifact_type: None,
        platform: None,
    }
}

fn read(layer: &Layer) -> Result<Unverified, Problem> {
    match layer.media_type {
        SIMPLE_SIGNING => simple_signing(&descriptor(layer), layer.blob.clone()),
        ENVELOPE => envelope(&descriptor(layer), &layer.blob),
        other => panic!("{other}"),
    }
}

fn root(sigstore: &Sigstore) -> TrustedRoot {
    let source = RootSource::File("private.json".to_owned());
    let (root, left_out) = TrustedRoot::new(&Root::new("private", source, sigstore.trusted_root())).unwrap();
    assert_eq!(left_out, []);
    root
}

fn trusted(key: &pki::Key) -> trust::Key {
    trust::Key {
        id: "ours".to_owned(),
        spki: key.spki(),
        ..super::super::tests::key("p256")
    }
}

/// What the layer proves under the private root, or the code of the refusal.
fn verify(sigstore: &Sigstore, layer: &Layer, key: Option<&pki::Key>) -> Result<Proof, &'static str> {
    let now = Timestamp::from_second(NOW).unwrap();
    let judge = || {
        let unverified = read(layer)?;
        assert_eq!(unverified.subjects(), [subject()]);
        let root = root(sigstore);
        let Some(key) = key.map(trusted) else {
            return root.verify(&unverified, By::Certificate, subject(), now);
        };
        // As the caller does: first whose signature it is, then what vouches for it.
        let keys = [key];
        let (mut keyring, _) = Keyring::new(&keys);
        let signer = keyring.unnamed_signer(&unverified)?;
        root.verify(&unverified, By::Key(signer), subject(), now)
    };
    judge().map_err(|problem: Problem| problem.code())
}

/// Every kind of layer that has a log entry.
const KINDS: [Entry; 4] = [
    Entry::HashedRekord001,
    Entry::Dsse001,
    Entry::Intoto001,
    Entry::Intoto002,
];

fn layer(signing: &Signing<'_>, entry: Entry) -> Layer {
    let signing = signing.clone().entry(entry);
    let hex = subject().hex();
    match entry {
        Entry::HashedRekord001 => signing.message(&pki::simple_signing(&hex)).layer(),
        _ => signing.statement(&pki::statement(&hex, PROVENANCE)).layer(),
    }
}

fn logged(sigstore: &Sigstore) -> (Vec<LogEntry>, Vec<TrustedTime>) {
    let log = hex::encode(sigstore.rekor.id);
    (
        vec![LogEntry {
            log: log.clone(),
            index: 25_000_005,
            included: false,
            unnumbered: false,
        }],
        vec![TrustedTime {
            source: TimeSource::Log,
            authority: log,
            time: Timestamp::from_second(SIGNED).unwrap(),
        }],
    )
}

#[test]
fn what_is_signed_with_a_certificate_verifies() {
    let sigstore = Sigstore::new();
    for entry in KINDS {
        let layer = layer(&sigstore.keyless(), entry);
        let unverified = read(&layer).unwrap();
        let (carrier, claim) = match entry {
            Entry::HashedRekord001 => (Carrier::SimpleSigning, Claim::ImageSignature),
            _ => (Carrier::Envelope, Claim::Attestation(PROVENANCE.to_owned())),
        };
        assert_eq!((unverified.carrier(), unverified.claim()), (carrier, &claim));
        let proof = verify(&sigstore, &layer, None).unwrap_or_else(|code| panic!("{entry:?}: {code}"));
        let Signer::Certificate(certificate) = &proof.signer else {
            panic!("{proof:?}");
        };
        assert_eq!(certificate.root, "private");
        assert_eq!(certificate.identity, Identity::Uri(IDENTITY.to_owned()));
        assert_eq!(certificate.issuer, ISSUER);
        assert_eq!(certificate.claims["source-repository-owner-identifier"], "7890");
        assert_eq!((proof.logs, proof.times), logged(&sigstore), "{entry:?}");
    }
}

#[test]
fn what_is_signed_with_a_key_verifies() {
    let sigstore = Sigstore::new();
    let key = pki::Key::new();
    for entry in KINDS {
        let proof = verify(&sigstore, &layer(&sigstore.by_key(&key), entry), Some(&key)).unwrap();
        assert_eq!(proof.signer, Signer::Key("ours".to_owned()));
        assert_eq!((proof.logs, proof.times), logged(&sigstore), "{entry:?}");
    }
    // Without log entry and timestamp there is nothing for a root to verify.
    let statement = pki::statement(&subject().hex(), PROVENANCE);
    for layer in [
        sigstore.by_key(&key).unlogged().statement(&statement).layer(),
        sigstore
            .by_key(&key)
            .unlogged()
            .message(&pki::simple_signing(&subject().hex()))
            .layer(),
    ] {
        let unverified = read(&layer).unwrap();
        assert!(!unverified.is_witnessed());
        let keys = [trusted(&key)];
        let (mut keyring, _) = Keyring::new(&keys);
        assert_eq!(keyring.unnamed_signer(&unverified).unwrap().id, "ours");
        let others = [trusted(&pki::Key::new())];
        let (mut keyring, _) = Keyring::new(&others);
        assert_eq!(keyring.unnamed_signer(&unverified).unwrap_err().code(), "key-unknown");
    }
}

#[test]
fn a_timestamp_counts_beside_a_log_entry_and_alone() {
    let sigstore = Sigstore::new();
    let stamped = |entry| layer(&sigstore.keyless().timestamps(1), entry);
    let time = TrustedTime {
        source: TimeSource::Timestamp,
        authority: "https://timestamp.private.example".to_owned(),
        time: Timestamp::from_second(SIGNED).unwrap(),
    };
    for entry in KINDS {
        let proof = verify(&sigstore, &stamped(entry), None).unwrap();
        assert_eq!(proof.times.len(), 2, "{entry:?}");
        assert!(proof.times.contains(&time));
        let mut alone = stamped(entry);
        alone.annotations.remove(LOG_ENTRY);
        let proof = verify(&sigstore, &alone, None).unwrap();
        assert_eq!((proof.logs, proof.times), (Vec::new(), vec![time.clone()]));
        // Neither: nobody says when it was signed, and the certificate was valid for minutes.
        alone.annotations.remove(TIMESTAMP);
        assert!(verify(&sigstore, &alone, None).is_err());
    }
    let mut codes = BTreeMap::new();
    for fault in Fault::OF_TIMESTAMP {
        let sigstore = sigstore.breaking(fault);
        for entry in KINDS {
            let stamped = layer(&sigstore.keyless().timestamps(1), entry);
            codes.insert(format!("{fault:?}"), verify(&sigstore, &stamped, None).unwrap_err());
        }
    }
    let codes: Vec<String> = codes
        .into_iter()
        .map(|(fault, code)| format!("{fault}: {code}"))
        .collect();
    insta::assert_snapshot!(codes.join("\n"), @r"
    TimestampByUnknownAuthority: timestamp-invalid
    TimestampByUnknownAuthorityEmbedded: timestamp-invalid
    TimestampByUselessAuthority: timestamp-invalid
    TimestampOutsideAuthority: timestamp-invalid
    TimestampOutsideLeaf: certificate-untrusted
    TimestampOutsideWindow: timestamp-invalid
    TimestampOverPayload: timestamp-invalid
    TimestampRefused: timestamp-invalid
    ");
}

/// The code of the refusal, the same for every kind of layer.
fn refused(fault: Fault, kinds: &[Entry], key: Option<&pki::Key>) -> String {
    let sigstore = Sigstore::new().breaking(fault);
    let signing = key.map_or_else(|| sigstore.keyless(), |key| sigstore.by_key(key));
    let mut codes: Vec<&str> = kinds
        .iter()
        .map(|entry| match verify(&sigstore, &layer(&signing, *entry), key) {
            Ok(proof) => panic!("{fault:?} is accepted with {entry:?}: {proof:?}"),
            Err(code) => code,
        })
        .collect();
    codes.dedup();
    format!("{fault:?}: {}", codes.join(", "))
}

#[test]
fn a_certificate_with_anything_wrong_is_refused() {
    let codes: Vec<String> = Fault::OF_CERTIFICATE
        .into_iter()
        .map(|fault| refused(fault, &KINDS, None))
        .collect();
    insta::assert_snapshot!(codes.join("\n"), @r"
    SctMissing: certificate-unlogged
    SctByUnknownLog: certificate-unlogged
    SctOfOtherCertificate: certificate-unlogged
    SctOutsideKeyWindow: certificate-unlogged
    LeafIsAuthority: certificate-unacceptable
    LeafWithoutKeyUsage: certificate-unacceptable
    LeafWithoutDigitalSignature: certificate-unacceptable
    LeafWithoutCodeSigning: certificate-untrusted
    LeafWithoutName: certificate-unacceptable
    LeafWithTwoNames: certificate-unacceptable
    LeafIssuersDisagree: certificate-unacceptable
    LeafWithoutIssuer: certificate-unacceptable
    LeafSelfSigned: certificate-untrusted
    LeafByUnknownAuthority: certificate-untrusted
    LeafByLeaf: certificate-untrusted
    LeafOutsideNameConstraints: certificate-untrusted
    LeafExpired: certificate-untrusted
    LeafNotYetValid: certificate-untrusted
    IntermediateExpired: certificate-expired
    AuthorityOutsideWindow: certificate-expired
    ");
}

#[test]
fn a_log_entry_with_anything_wrong_is_refused() {
    let key = pki::Key::new();
    let faults = Fault::OF_PROMISE
        .into_iter()
        .chain(Fault::OF_ENTRY)
        .chain([Fault::PromiseMissing]);
    let codes: Vec<String> = faults
        .map(|fault| {
            let by_key = refused(fault, &KINDS, Some(&key));
            let by_certificate = refused(fault, &KINDS, None);
            if by_key == by_certificate {
                by_key
            } else {
                format!("{by_certificate}; by key {by_key}")
            }
        })
        .collect();
    insta::assert_snapshot!(codes.join("\n"), @r"
    PromiseByOtherKey: log-unproved
    PromiseOfOtherBody: log-unproved
    TimeAltered: log-unproved
    TimeInFuture: log-time
    IndexAltered: log-unproved
    IndexNegative: annotation-malformed
    LogUnknown: log-unproved, log-unknown, log-unproved
    LogKeyOutsideWindow: log-unproved, log-time, log-unproved
    EntryOfOtherPayload: subject-mismatch, log-mismatch
    EntryOfOtherSignature: log-mismatch
    EntryOfOtherSigner: log-mismatch
    PromiseMissing: log-unproved
    ");
}

#[test]
fn a_signature_with_anything_wrong_is_refused() {
    let codes: Vec<String> = Fault::OF_ENVELOPE
        .into_iter()
        .map(|fault| refused(fault, &KINDS[1..], None))
        .chain(
            [
                Fault::SignatureAltered,
                Fault::SignatureByOtherKey,
                Fault::PayloadAltered,
            ]
            .into_iter()
            .map(|fault| refused(fault, &KINDS[..1], None)),
        )
        .collect();
    insta::assert_snapshot!(codes.join("\n"), @r"
    SignatureAltered: signature-invalid, log-mismatch, signature-invalid
    SignatureByOtherKey: signature-invalid
    SignatureWithoutEncoding: signature-invalid
    SignaturesTwo: signature-count
    PayloadAltered: signature-invalid, log-mismatch, signature-invalid
    PayloadTypeAltered: payload-type-unsupported
    SignatureAltered: signature-invalid
    SignatureByOtherKey: signature-invalid
    PayloadAltered: signature-invalid
    ");
}

#[test]
fn the_entry_of_another_signature_by_the_same_signer_is_refused() {
    let sigstore = Sigstore::new();
    let key = pki::Key::new();
    for entry in KINDS {
        // Each is right for itself. What the log holds is about a signature of something else.
        let mut ours = layer(&sigstore.by_key(&key), entry);
        let theirs = match entry {
            Entry::HashedRekord001 => sigstore
                .by_key(&key)
                .message(&pki::simple_signing(&Digest::of(b"other").hex()))
                .layer(),
            _ => sigstore
                .by_key(&key)
                .entry(entry)
                .statement(&pki::statement(&Digest::of(b"other").hex(), PROVENANCE))
                .layer(),
        };
        ours.annotations
            .insert(LOG_ENTRY.to_owned(), theirs.annotations[LOG_ENTRY].clone());
        let code = verify(&sigstore, &ours, Some(&key)).unwrap_err();
        assert!(matches!(code, "log-mismatch" | "subject-mismatch"), "{entry:?}: {code}");
    }
}

#[test]
fn an_intoto_entry_is_about_every_byte_of_the_envelope() {
    let sigstore = Sigstore::new();
    let mut respelled = layer(&sigstore.keyless(), Entry::Intoto001);
    verify(&sigstore, &respelled, None).unwrap();
    // The payload and its signature stay what they are, but it is not what the log saw.
    respelled.blob.push(b'\n');
    assert_eq!(verify(&sigstore, &respelled, None), Err("log-mismatch"));
}

#[test]
fn a_restated_entry_is_believed_by_nobody_else() {
    let sigstore = Sigstore::new();
    let unverified = read(&layer(&sigstore.keyless(), Entry::Intoto001)).unwrap();
    let listed: sigstore_verify::trust_root::TrustedRoot = serde_json::from_str(&sigstore.trusted_root()).unwrap();
    let mut bundle = types::Bundle::from_json(unverified.bundle.as_deref().unwrap()).unwrap();
    let intoto = unverified.intoto.as_ref().unwrap();
    let restated = intoto
        .restate(&mut bundle, &listed, &listed.rekor_keys().unwrap())
        .unwrap();
    let digest = Sha256Hash::from_hex(&subject().hex()).unwrap();
    let policy = sigstore_verify::VerificationPolicy::any_identity();
    restated.verify(digest, &bundle, &policy).unwrap();
    let ordinary = Verifier::new(&listed).unwrap();
    assert!(ordinary.verify(digest, &bundle, &policy).is_err());
    // Nor by the one for another entry.
    let mut other = types::Bundle::from_json(unverified.bundle.as_deref().unwrap()).unwrap();
    let another = intoto
        .restate(&mut other, &listed, &listed.rekor_keys().unwrap())
        .unwrap();
    assert!(another.verify(digest, &bundle, &policy).is_err());
}

/// Signatures differ in length from run to run, and with them the places in a text and the sizes.
fn without_place(problem: &Problem) -> String {
    match problem {
        Problem::CertificateTooLarge(_) => "it has a certificate of more bytes than any has".to_owned(),
        problem => {
            let text = problem.to_string();
            text.split(" at line ").next().unwrap().to_owned()
        }
    }
}

#[test]
fn annotations_are_read_strictly() {
    let sigstore = Sigstore::new();
    let good = layer(&sigstore.keyless(), Entry::Dsse001);
    let with = |name: &str, change: &dyn Fn(&str) -> String| {
        let mut layer = good.clone();
        let value = change(&layer.annotations[name]);
        layer.annotations.insert(name.to_owned(), value);
        without_place(&read(&layer).unwrap_err())
    };
    let entry = |change: &dyn Fn(&str) -> String| with(LOG_ENTRY, change);
    let certificate = |change: &dyn Fn(&str) -> String| with(CERTIFICATE, change);
    let refusals = [
        entry(&|_| "{}".to_owned()),
        entry(&|text| format!("{text}{text}")),
        entry(&|text| text.replacen("{\"Payload\"", "{\"Payload\":{},\"Payload\"", 1)),
        entry(&|text| text.replacen("{\"Payload\"", "{\"More\":1,\"Payload\"", 1)),
        entry(&|text| text.replacen("\"logIndex\":", "\"logIndex\":-", 1)),
        entry(&|text| text.replacen("\"logID\":\"", "\"logID\":\"00", 1)),
        entry(&|text| text.replacen("\"body\":\"", "\"body\":\" ", 1)),
        certificate(&|_| "no certificate".to_owned()),
        certificate(&|pem| pem.replace("CERTIFICATE", "PUBLIC KEY")),
        certificate(&|pem| format!("{pem}{pem}")),
        certificate(&|pem| pem.repeat(200)),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    the log entry or the timestamp in its annotations is malformed: not acceptable JSON: missing field `SignedEntryTimestamp`
    the log entry or the timestamp in its annotations is malformed: not acceptable JSON: trailing characters
    the log entry or the timestamp in its annotations is malformed: not acceptable JSON: the key "Payload" appears twice
    the log entry or the timestamp in its annotations is malformed: not acceptable JSON: unknown field `More`, expected `SignedEntryTimestamp` or `Payload`
    the log entry or the timestamp in its annotations is malformed: not acceptable JSON: invalid value: integer `-25000005`, expected u64
    the log entry or the timestamp in its annotations is malformed: not acceptable JSON: not 64 lower-case hexadecimal digits
    its log entry is not canonical base64 of the right length
    its signing certificate is not acceptable: it is no certificate in PEM: PEM error: PEM preamble contains invalid data (NUL byte)
    its signing certificate is not acceptable: it is no certificate in PEM: it is labelled 'PUBLIC KEY'
    its signing certificate is not acceptable: it is no certificate in PEM: PEM error: PEM Base64 error: invalid Base64 encoding
    it has a certificate of more bytes than any has
    "#);
}

#[test]
fn a_log_entry_of_a_kind_that_cannot_be_about_it_is_refused() {
    let sigstore = Sigstore::new();
    let statement = pki::statement(&subject().hex(), PROVENANCE);
    for entry in [Entry::HashedRekord001, Entry::HashedRekord002, Entry::Dsse002] {
        let layer = sigstore.keyless().entry(entry).statement(&statement).layer();
        assert_eq!(read(&layer).unwrap_err().code(), "log-entry-unsupported", "{entry:?}");
    }
    for entry in [
        Entry::Dsse001,
        Entry::Intoto001,
        Entry::Intoto002,
        Entry::HashedRekord002,
    ] {
        let layer = sigstore
            .keyless()
            .entry(entry)
            .message(&pki::simple_signing(&subject().hex()))
            .layer();
        assert_eq!(read(&layer).unwrap_err().code(), "log-entry-unsupported", "{entry:?}");
    }
}

#[test]
fn an_envelope_is_read_strictly() {
    let sigstore = Sigstore::new();
    let good = layer(&sigstore.keyless(), Entry::Dsse001);
    let with = |change: &dyn Fn(String) -> String| {
        let mut layer = good.clone();
        layer.blob = change(String::from_utf8(layer.blob).unwrap()).into_bytes();
        without_place(&read(&layer).unwrap_err())
    };
    let refusals = [
        with(&|_| String::new()),
        with(&|_| "[]".to_owned()),
        with(&|text| format!("{text},\"x\":1")),
        // What would put more into the bundle than the envelope.
        with(&|text| format!("{text}}},\"messageSignature\":{{\"signature\":\"\"}}")),
        with(&|text| text.replacen('{', "{\"more\":1,", 1)),
        with(&|text| text.replacen('{', "{\"payload\":\"\",", 1)),
        with(&|text| text.replacen("\"payload\":\"", "\"payload\":\" ", 1)),
    ];
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    its envelope is malformed: not acceptable JSON: EOF while parsing a value
    its envelope is malformed: not acceptable JSON: invalid length 0, expected struct Envelope with 3 elements
    its envelope is malformed: not acceptable JSON: trailing characters
    its envelope is malformed: not acceptable JSON: trailing characters
    its envelope is malformed: not acceptable JSON: unknown field `more`, expected one of `payload`, `payloadType`, `signatures`
    its envelope is malformed: not acceptable JSON: the key "payload" appears twice
    its payload is not canonical base64 of the right length
    "#);
}
