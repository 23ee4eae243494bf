use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bundle::Bundle;
use super::key::{KeyError, PublicKey};
use super::*;
use crate::oci::{Descriptor, LayoutError};
use crate::store;
use crate::trust::root::{EntryKind, LeftOut};
use crate::trust::{HashAlgorithm, Key, Status};
use crate::verify::sigstore::Refusal;

/// What real tools wrote; see `make.sh` there.
pub(crate) fn fixtures() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/evidence"))
}

/// A digest that the fixtures' script wrote down: `manifest`, `other-manifest` or `index`.
pub(crate) fn recorded(name: &str) -> Digest {
    std::fs::read_to_string(fixtures().join(format!("{name}.digest")))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

/// The recorded key `name`, trusted for everything.
pub(crate) fn key(name: &str) -> Key {
    let pem = std::fs::read_to_string(fixtures().join(format!("keys/{name}.pub"))).unwrap();
    let (_, der) = spki::der::Document::from_pem(&pem).unwrap();
    Key {
        id: name.to_owned(),
        spki: der.as_bytes().to_owned(),
        hash: HashAlgorithm::Sha256,
        r#use: vec![Use::Image, Use::Provenance, Use::Sbom, Use::Vex],
        from: None,
        until: None,
        status: Status::Active,
        digests: Vec::new(),
    }
}

/// All recorded bundles of a layout.
fn bundles(layout: &str) -> Vec<Vec<u8>> {
    std::fs::read_dir(fixtures().join(layout).join("blobs/sha256"))
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .filter(|bytes| bytes.starts_with(br#"{"mediaType":"application/vnd.dev.sigstore.bundle"#))
        .collect()
}

/// The recorded image signature by `key`.
fn signed_by(key: &Key) -> Value {
    let fingerprint = PublicKey::from_spki(&key.spki, key.hash)
        .unwrap()
        .fingerprint()
        .to_owned();
    bundles("oras")
        .iter()
        .map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap())
        .find(|bundle| {
            bundle["verificationMaterial"]["publicKey"]["hint"] == fingerprint.as_str()
                && payload(bundle).contains(&recorded("manifest").hex())
        })
        .unwrap()
}

fn payload(bundle: &Value) -> String {
    let text = bundle["dsseEnvelope"]["payload"].as_str().unwrap();
    String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
}

fn read(bundle: &Value) -> Result<Unverified, Problem> {
    Bundle::parse(serde_json::to_vec(bundle).unwrap())?.unverified()
}

/// Identifier of the key that counts, or the code of the refusal.
fn verdict(bundle: &Value, keys: &[Key]) -> Result<String, &'static str> {
    judged(read(bundle), keys)
}

fn judged(unverified: Result<Unverified, Problem>, keys: &[Key]) -> Result<String, &'static str> {
    let unverified = unverified.map_err(|problem| problem.code())?;
    if unverified.is_witnessed() {
        return Err("must verify under a root");
    }
    let (mut keyring, findings) = Keyring::new(keys);
    assert_eq!(findings, []);
    keyring
        .signer(&unverified)
        .and_then(|key| keyring.standing(key, unverified.claim().needs()?, &[], unverified.subjects()))
        .map(|(key, _)| key.id.clone())
        .map_err(|problem| problem.code())
}

/// A key of our own, for what the real tools would not write.
struct Signer(EcdsaKeyPair);

impl Signer {
    fn new() -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap())
    }

    fn key(&self) -> Key {
        use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        Key {
            id: "ours".to_owned(),
            spki: der.as_ref().to_owned(),
            ..key("p256")
        }
    }

    fn sign(&self, message: &[u8]) -> String {
        BASE64_STANDARD.encode(self.0.sign(&SystemRandom::new(), message).unwrap())
    }

    fn statement(&self, statement: &str) -> Value {
        let message = format!("DSSEv1 28 application/vnd.in-toto+json {} {statement}", statement.len());
        self.envelope(statement, &self.sign(message.as_bytes()))
    }

    fn envelope(&self, payload: &str, signature: &str) -> Value {
        json!({
            "mediaType": bundle::MEDIA_TYPES[0],
            "verificationMaterial": {"publicKey": {"hint": ""}},
            "dsseEnvelope": {
                "payload": BASE64_STANDARD.encode(payload),
                "payloadType": "application/vnd.in-toto+json",
                "signatures": [{"sig": signature}],
            },
        })
    }
}

fn predicate(predicate_type: &str) -> String {
    let hex = recorded("manifest").hex();
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": hex}}],
        "predicateType": predicate_type,
        "predicate": {},
    })
    .to_string()
}

/// Each key type that cosign takes, with the hash that it signs with.
const KEY_TYPES: [(&str, HashAlgorithm); 6] = [
    ("p256", HashAlgorithm::Sha256),
    ("p384", HashAlgorithm::Sha384),
    ("p521", HashAlgorithm::Sha512),
    ("ed25519", HashAlgorithm::Sha256),
    ("rsa2048", HashAlgorithm::Sha256),
    ("rsa4096", HashAlgorithm::Sha256),
];

fn all_keys() -> Vec<Key> {
    KEY_TYPES.map(|(name, hash)| Key { hash, ..key(name) }).to_vec()
}

#[test]
fn what_cosign_signs_with_every_key_type_verifies_with_that_key_alone() {
    let keys = all_keys();
    for signer in &keys {
        let bundle = signed_by(signer);
        assert_eq!(verdict(&bundle, &keys), Ok(signer.id.clone()));
        let unverified = read(&bundle).unwrap();
        assert_eq!(unverified.claim(), &Claim::ImageSignature);
        assert_eq!(unverified.subjects(), [recorded("manifest")]);
        let others: Vec<Key> = keys.iter().filter(|key| key.id != signer.id).cloned().collect();
        assert_eq!(verdict(&bundle, &others), Err("key-unknown"), "{}", signer.id);
    }
}

#[test]
fn the_hash_is_the_keys_and_never_the_messages() {
    for (name, right) in KEY_TYPES.into_iter().filter(|(name, _)| *name != "ed25519") {
        for hash in [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
            let trusted = Key { hash, ..key(name) };
            let expected = if hash == right {
                Ok(name.to_owned())
            } else {
                Err("key-hash")
            };
            assert_eq!(
                verdict(
                    &signed_by(&Key {
                        hash: right,
                        ..key(name)
                    }),
                    &[trusted]
                ),
                expected,
                "{name} {hash:?}"
            );
        }
    }
}

#[test]
fn every_byte_of_payload_and_signature_counts() {
    for key in all_keys() {
        let bundle = signed_by(&key);
        let keys = [key];
        for (pointer, step) in [("/dsseEnvelope/payload", 1), ("/dsseEnvelope/signatures/0/sig", 1)] {
            let bytes = BASE64_STANDARD
                .decode(bundle.pointer(pointer).unwrap().as_str().unwrap())
                .unwrap();
            for position in (0..bytes.len()).step_by(step) {
                let mut changed = bytes.clone();
                changed[position] ^= 1;
                let mut bundle = bundle.clone();
                *bundle.pointer_mut(pointer).unwrap() = BASE64_STANDARD.encode(changed).into();
                assert!(verdict(&bundle, &keys).is_err(), "{} {pointer} {position}", keys[0].id);
            }
            for changed in [&bytes[..bytes.len() - 1], &[&bytes[..], &[0]].concat(), &[]] {
                let mut bundle = bundle.clone();
                *bundle.pointer_mut(pointer).unwrap() = BASE64_STANDARD.encode(changed).into();
                assert!(
                    verdict(&bundle, &keys).is_err(),
                    "{} {pointer} {}",
                    keys[0].id,
                    changed.len()
                );
            }
        }
    }
}

#[test]
fn a_changed_bundle_is_refused_with_its_own_code() {
    let keys = all_keys();
    let good = signed_by(&keys[0]);
    let with = |pointer: &str, value: Value| {
        let mut bundle = good.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        bundle.pointer_mut(parent).unwrap()[name] = value;
        verdict(&bundle, &keys)
    };
    assert_eq!(with("/mediaType", bundle::MEDIA_TYPES[1].into()), Ok("p256".to_owned()));
    for (version, verdict) in [
        ("0.1", Ok("p256".to_owned())),
        ("0.2", Ok("p256".to_owned())),
        ("0.4", Err("bundle-version-unsupported")),
    ] {
        let media_type = format!("application/vnd.dev.sigstore.bundle+json;version={version}");
        assert_eq!(with("/mediaType", media_type.into()), verdict);
    }
    assert_eq!(
        with("/mediaType", "application/vnd.dev.sigstore.bundle.v0.3+JSON".into()),
        Err("bundle-version-unsupported")
    );

    assert_eq!(
        with("/dsseEnvelope/payloadType", "application/vnd.in-toto+JSON".into()),
        Err("payload-type-unsupported")
    );
    assert_eq!(
        with("/dsseEnvelope/payloadType", "application/json".into()),
        Err("payload-type-unsupported")
    );

    let signature = good["dsseEnvelope"]["signatures"][0].clone();
    assert_eq!(with("/dsseEnvelope/signatures", json!([])), Err("signature-count"));
    assert_eq!(
        with("/dsseEnvelope/signatures", json!([signature, signature])),
        Err("signature-count")
    );
    assert_eq!(
        with("/dsseEnvelope/signatures", json!([signature, {"sig": "AAAA"}])),
        Err("signature-count")
    );

    // A key's name is a hint: it neither makes a signature nor breaks one.
    let hint = |key: &Key| Value::from(PublicKey::from_spki(&key.spki, key.hash).unwrap().fingerprint());
    let named = json!({"sig": signature["sig"], "keyid": "p384"});
    assert_eq!(with("/dsseEnvelope/signatures", json!([named])), Ok("p256".to_owned()));
    assert_eq!(
        with("/verificationMaterial/publicKey/hint", hint(&keys[1])),
        Ok("p256".to_owned())
    );
    assert_eq!(
        with("/verificationMaterial/publicKey/hint", "".into()),
        Ok("p256".to_owned())
    );
    assert_eq!(
        with("/verificationMaterial/publicKey", json!({})),
        Ok("p256".to_owned())
    );
    let mut other = good.clone();
    other["verificationMaterial"]["publicKey"]["hint"] = hint(&keys[1]);
    assert_eq!(verdict(&other, &keys[1..]), Err("signature-invalid"));

    assert_eq!(with("/verificationMaterial", json!({})), Err("bundle-malformed"));
    assert_eq!(
        with("/verificationMaterial/certificate", json!({"rawBytes": "AA=="})),
        Err("bundle-malformed")
    );
    assert_eq!(
        with(
            "/verificationMaterial/x509CertificateChain",
            json!({"certificates": []})
        ),
        Err("bundle-malformed")
    );
    assert_eq!(
        with("/verificationMaterial/tlogEntries", json!([])),
        Ok("p256".to_owned())
    );
    assert_eq!(
        with("/verificationMaterial/tlogEntries", json!([{"logIndex": "1"}])),
        Err("must verify under a root")
    );
    assert_eq!(
        with(
            "/verificationMaterial/tlogEntries",
            json!([{"logIndex": "1"}, {"logIndex": "1"}])
        ),
        Err("bundle-malformed")
    );
    let many: Vec<Value> = (0..=bundle::MAX_ENTRIES).map(|n| json!({"logIndex": n})).collect();
    assert_eq!(
        with("/verificationMaterial/tlogEntries", many.into()),
        Err("bundle-malformed")
    );
    assert_eq!(
        with("/verificationMaterial/timestampVerificationData", json!({})),
        Ok("p256".to_owned())
    );
    assert_eq!(
        with(
            "/verificationMaterial/timestampVerificationData",
            json!({"rfc3161Timestamps": [{"signedTimestamp": ""}]})
        ),
        Err("must verify under a root")
    );
    assert_eq!(with("/verificationMaterial/unknown", json!(1)), Err("bundle-malformed"));
    assert_eq!(
        with(
            "/messageSignature",
            json!({"messageDigest": {"algorithm": "SHA2_256", "digest": ""}, "signature": ""})
        ),
        Err("bundle-malformed")
    );
    assert_eq!(with("/dsseEnvelope", Value::Null), Err("bundle-malformed"));
    assert_eq!(with("/extra", json!({})), Err("bundle-malformed"));
}

#[test]
fn a_bundle_is_read_in_one_way_only() {
    let keys = [key("p256")];
    let good = serde_json::to_string(&signed_by(&keys[0])).unwrap();
    let code = |text: &str| judged(Bundle::parse(text.into()).and_then(Bundle::unverified), &keys);
    assert_eq!(code(&good), Ok("p256".to_owned()));
    assert_eq!(code(&format!("{good}\n ")), Ok("p256".to_owned()));
    assert_eq!(code(&format!("{good}{{}}")), Err("bundle-malformed"));
    assert_eq!(code(&format!("{good}\0")), Err("bundle-malformed"));
    for name in ["mediaType", "dsseEnvelope", "payload", "sig"] {
        let duplicate = good.replacen(&format!("\"{name}\":"), &format!("\"{name}\":null,\"{name}\":"), 1);
        assert_eq!(code(&duplicate), Err("bundle-malformed"), "{name}");
    }
    assert_eq!(code(&good.replacen("\"sig\":", "\"Sig\":", 1)), Err("bundle-malformed"));
    assert_eq!(code(&good[..good.len() - 1]), Err("bundle-malformed"));
    assert_eq!(code(&"[".repeat(100_000)), Err("bundle-malformed"));
}

#[test]
fn base64_has_one_form() {
    let keys = [key("p256")];
    let good = signed_by(&keys[0]);
    for pointer in ["/dsseEnvelope/payload", "/dsseEnvelope/signatures/0/sig"] {
        let text = good.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let bytes = BASE64_STANDARD.decode(&text).unwrap();
        let mut forms = vec![
            format!("{text}\n"),
            format!(" {text}"),
            format!("{}\n{}", &text[..8], &text[8..]),
            format!("{text}===="),
        ];
        forms.extend(
            [BASE64_URL_SAFE.encode(&bytes), BASE64_STANDARD_NO_PAD.encode(&bytes)]
                .into_iter()
                .filter(|form| *form != text),
        );
        if let Some(start) = text.strip_suffix('=') {
            // Bits that decode to nothing.
            let (start, padding) = start.strip_suffix('=').map_or((start, "="), |start| (start, "=="));
            let last = start.chars().last().unwrap();
            let next = char::from_u32(u32::from(last) + 1).unwrap();
            forms.push(format!("{}{next}{padding}", &start[..start.len() - 1]));
        }
        for form in forms {
            let mut bundle = good.clone();
            *bundle.pointer_mut(pointer).unwrap() = form.clone().into();
            let code = verdict(&bundle, &keys);
            assert!(
                matches!(code, Err("base64-invalid" | "signature-invalid")),
                "{pointer} {form:?} {code:?}"
            );
        }
    }
}

#[test]
fn the_payload_type_is_part_of_what_is_signed() {
    let signer = Signer::new();
    let keys = [signer.key()];
    let statement = predicate("https://sigstore.dev/cosign/sign/v1");
    assert_eq!(verdict(&signer.statement(&statement), &keys), Ok("ours".to_owned()));
    for message in [
        statement.clone(),
        format!("DSSEv1 16 application/json {} {statement}", statement.len()),
        format!(
            "DSSEv1 28 application/vnd.in-toto+json {} {statement}",
            statement.len() + 1
        ),
        format!("DSSEv2 28 application/vnd.in-toto+json {} {statement}", statement.len()),
        BASE64_STANDARD.encode(&statement),
    ] {
        let bundle = signer.envelope(&statement, &signer.sign(message.as_bytes()));
        assert_eq!(verdict(&bundle, &keys), Err("key-unknown"), "{message}");
    }
}

#[test]
fn a_signed_payload_that_is_no_statement_is_refused() {
    let signer = Signer::new();
    let keys = [signer.key()];
    let good = predicate("https://sigstore.dev/cosign/sign/v1");
    for statement in [
        "{}".to_owned(),
        good.replace("Statement/v1", "Statement/v2"),
        good.replace("sha256", "sha512"),
        good.replace(&recorded("manifest").hex(), &recorded("manifest").hex().to_uppercase()),
        good.replace("\"subject\"", "\"subject\":[],\"subject\""),
        format!("{good}{good}"),
    ] {
        assert_eq!(
            verdict(&signer.statement(&statement), &keys),
            Err("payload-malformed"),
            "{statement}"
        );
    }
}

#[test]
fn a_claim_needs_a_key_for_that_use() {
    let signer = Signer::new();
    let uses = [
        Use::Image,
        Use::Provenance,
        Use::Sbom,
        Use::Vex,
        Use::Policy,
        Use::Grant,
        Use::Profile,
    ];
    for (claim, needed) in [
        ("https://sigstore.dev/cosign/sign/v1", Some(Use::Image)),
        ("https://slsa.dev/provenance/v0.2", Some(Use::Provenance)),
        ("https://slsa.dev/provenance/v1", Some(Use::Provenance)),
        ("https://spdx.dev/Document", Some(Use::Sbom)),
        ("https://spdx.dev/Document/v2.3", Some(Use::Sbom)),
        ("https://cyclonedx.org/bom", Some(Use::Sbom)),
        ("https://cyclonedx.org/bom/v1.6", Some(Use::Sbom)),
        ("https://openvex.dev/ns", Some(Use::Vex)),
        ("https://openvex.dev/ns/v0.2.0", Some(Use::Vex)),
        ("https://openvex.dev/nsfoo", None),
        ("https://slsa.dev/provenances", None),
        ("https://slsa.dev/verification_summary/v1", Some(Use::Provenance)),
        ("https://slsa.dev/verification_summaryx/v1", None),
        ("https://sigstore.dev/cosign/sign/v1 ", None),
        ("https://sigstore.dev/cosign/sign/v2", None),
    ] {
        let bundle = signer.statement(&predicate(claim));
        for r#use in uses {
            let keys = [Key {
                r#use: vec![r#use],
                ..signer.key()
            }];
            let expected = match needed {
                Some(needed) if needed == r#use => Ok("ours".to_owned()),
                Some(_) => Err("key-use"),
                None => Err("predicate-unsupported"),
            };
            assert_eq!(verdict(&bundle, &keys), expected, "{claim} {:?}", r#use);
        }
    }
}

#[test]
fn only_active_keys_without_a_window_count() {
    let bundle = signed_by(&key("p256"));
    let good = key("p256");
    let when = Some("2020-01-01T00:00:00Z".parse().unwrap());
    for (changed, code) in [
        (
            Key {
                status: Status::Distrusted,
                ..good.clone()
            },
            "key-distrusted",
        ),
        (
            Key {
                status: Status::Retired,
                ..good.clone()
            },
            "key-retired",
        ),
        (
            Key {
                from: when,
                ..good.clone()
            },
            "key-window",
        ),
        (
            Key {
                until: when,
                ..good.clone()
            },
            "key-window",
        ),
        (
            Key {
                r#use: vec![Use::Sbom],
                ..good.clone()
            },
            "key-use",
        ),
        (
            Key {
                r#use: vec![],
                ..good.clone()
            },
            "key-use",
        ),
    ] {
        assert_eq!(verdict(&bundle, std::slice::from_ref(&changed)), Err(code));
        // The same key twice: a sound entry helps, except where the key is distrusted.
        let twice = [
            changed,
            Key {
                id: "again".to_owned(),
                ..good.clone()
            },
        ];
        let expected = if code == "key-distrusted" {
            Err(code)
        } else {
            Ok("again".to_owned())
        };
        assert_eq!(verdict(&bundle, &twice), expected);
        assert_eq!(verdict(&bundle, &[twice[1].clone(), twice[0].clone()]), expected);
    }
    assert_eq!(verdict(&bundle, &[]), Err("key-unknown"));
}

#[test]
fn a_message_signature_is_over_the_manifest_with_that_digest() {
    let signer = Signer::new();
    let manifest = b"{\"schemaVersion\":2}";
    let bundle = |digest: &str, algorithm: &str| {
        json!({
            "mediaType": bundle::MEDIA_TYPES[0],
            "verificationMaterial": {"publicKey": {"hint": "x"}},
            "messageSignature": {
                "messageDigest": {"algorithm": algorithm, "digest": digest},
                "signature": signer.sign(manifest),
            },
        })
    };
    let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(hex::decode(Digest::of(bytes).hex()).unwrap());
    let good = bundle(&base64(manifest), "SHA2_256");
    assert_eq!(verdict(&good, &[signer.key()]), Ok("ours".to_owned()));
    assert_eq!(read(&good).unwrap().subjects(), [Digest::of(manifest)]);
    assert_eq!(
        verdict(&bundle(&base64(b"other"), "SHA2_256"), &[signer.key()]),
        Err("key-unknown")
    );
    assert_eq!(
        verdict(&bundle(&base64(manifest), "SHA2_512"), &[signer.key()]),
        Err("message-digest-unsupported")
    );
    assert_eq!(
        verdict(&bundle("AAAA", "SHA2_256"), &[signer.key()]),
        Err("base64-invalid")
    );
    // Keys that do not sign SHA-256 digests cannot say anything about it.
    let sha512 = Key {
        hash: HashAlgorithm::Sha512,
        ..signer.key()
    };
    assert_eq!(verdict(&good, &[sha512, key("ed25519")]), Err("key-unknown"));
    let mut named = good;
    let ed25519 = key("ed25519");
    named["verificationMaterial"]["publicKey"]["hint"] = PublicKey::from_spki(&ed25519.spki, ed25519.hash)
        .unwrap()
        .fingerprint()
        .into();
    assert_eq!(verdict(&named, &[ed25519]), Err("message-needed"));
}

fn simple_signing_layers() -> Vec<(Descriptor, Vec<u8>)> {
    let folder = fixtures().join("cosign-save-legacy");
    let layout = std::fs::File::open(&folder).unwrap();
    let layout = crate::oci::Layout::new(std::os::fd::AsFd::as_fd(&layout));
    let layers: Vec<_> = layout
        .index()
        .unwrap()
        .iter()
        .flat_map(|entry| layout.manifest(entry).unwrap().layers)
        .filter(|layer| layer.media_type == legacy::SIMPLE_SIGNING)
        .map(|layer| {
            let bytes = layout.blob(&layer, legacy::MAX_SIMPLE_SIGNING).unwrap();
            (layer, bytes)
        })
        .collect();
    assert_eq!(layers.len(), 2);
    layers
}

#[test]
fn what_cosign_signs_in_its_older_layout_verifies() {
    let keys = [key("p256"), key("rsa2048")];
    for ((layer, bytes), signer) in simple_signing_layers().into_iter().zip(["p256", "rsa2048"]) {
        let unverified = legacy::simple_signing(&layer, bytes.clone()).unwrap();
        assert_eq!(unverified.subjects(), [recorded("manifest")]);
        assert_eq!(unverified.claim(), &Claim::ImageSignature);
        assert_eq!(judged(Ok(unverified), &keys), Ok(signer.to_owned()));

        for position in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[position] ^= 1;
            assert!(
                judged(legacy::simple_signing(&layer, changed), &keys).is_err(),
                "{position}"
            );
        }
        let mut spaced = bytes.clone();
        spaced.push(b' ');
        assert_eq!(
            judged(legacy::simple_signing(&layer, spaced), &keys),
            Err("key-unknown")
        );
        let with = |name: &str, value: &str| {
            let mut layer = layer.clone();
            layer.annotations.insert(name.to_owned(), value.to_owned());
            judged(legacy::simple_signing(&layer, bytes.clone()), &keys)
        };
        assert_eq!(with("dev.cosignproject.cosign/signature", ""), Err("signature-count"));
        assert_eq!(with("dev.cosignproject.cosign/signature", "AAAA"), Err("key-unknown"));
        assert_eq!(
            with("dev.cosignproject.cosign/signature", "AAAA\n"),
            Err("base64-invalid")
        );
        assert_eq!(
            with("dev.sigstore.cosign/certificate", "-----BEGIN"),
            Err("certificate-unacceptable")
        );
        // Nobody needs a chain: what an authority certifies, the root lists.
        assert_eq!(with("dev.sigstore.cosign/chain", "-----BEGIN"), Ok(signer.to_owned()));
        assert_eq!(with("dev.sigstore.cosign/bundle", "{}"), Err("annotation-malformed"));
        assert_eq!(
            with("dev.sigstore.cosign/rfc3161timestamp", "{}"),
            Err("annotation-malformed")
        );
        assert_eq!(with("dev.sigstore.cosign/bundle", ""), Ok(signer.to_owned()));
        let bare = Descriptor {
            annotations: BTreeMap::new(),
            ..layer.clone()
        };
        assert_eq!(
            judged(legacy::simple_signing(&bare, bytes.clone()), &keys),
            Err("signature-count")
        );
    }
}

#[test]
fn an_rsa_key_signs_with_either_padding_and_with_its_own_hash_only() {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature as lc;

    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let sign = |encoding: &'static dyn lc::RsaEncoding| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), b"message", &mut signature)
            .unwrap();
        signature
    };
    let all: [(HashAlgorithm, [&'static dyn lc::RsaEncoding; 2]); 3] = [
        (HashAlgorithm::Sha256, [&lc::RSA_PKCS1_SHA256, &lc::RSA_PSS_SHA256]),
        (HashAlgorithm::Sha384, [&lc::RSA_PKCS1_SHA384, &lc::RSA_PSS_SHA384]),
        (HashAlgorithm::Sha512, [&lc::RSA_PKCS1_SHA512, &lc::RSA_PSS_SHA512]),
    ];
    for (hash, _) in all {
        let key = PublicKey::from_spki(der.as_ref(), hash).unwrap();
        for (signed_with, encodings) in all {
            for signature in encodings.map(sign) {
                let message = Message::Bytes(b"message".to_vec());
                assert_eq!(key.verifies(&message, &signature), hash == signed_with);
                let digest = Message::Sha256(Digest::of(b"message"));
                assert_eq!(
                    key.can_verify(&digest) && key.verifies(&digest, &signature),
                    hash == HashAlgorithm::Sha256 && hash == signed_with
                );
                assert!(!key.verifies(&Message::Bytes(b"other".to_vec()), &signature));
            }
        }
    }
}

#[test]
fn an_rsassa_pss_key_signs_with_pss_only() {
    use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature as lc;

    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    // The same bytes under the other algorithm, whose parameters are left out.
    let rsa = spki::SubjectPublicKeyInfoRef::try_from(der.as_ref()).unwrap();
    let der = pki::der::sequence([
        pki::der::sequence([pki::der::oid("1.2.840.113549.1.1.10")]),
        pki::der::bits(rsa.subject_public_key.raw_bytes()),
    ]);
    let sign = |encoding: &'static dyn lc::RsaEncoding| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), b"message", &mut signature)
            .unwrap();
        signature
    };
    let message = Message::Bytes(b"message".to_vec());
    let key = PublicKey::from_spki(&der, HashAlgorithm::Sha256).unwrap();
    assert!(key.verifies(&message, &sign(&lc::RSA_PSS_SHA256)));
    assert!(key.verifies(&Message::Sha256(Digest::of(b"message")), &sign(&lc::RSA_PSS_SHA256)));
    for other in [
        &lc::RSA_PKCS1_SHA256 as &'static dyn lc::RsaEncoding,
        &lc::RSA_PSS_SHA384,
    ] {
        assert!(!key.verifies(&message, &sign(other)));
    }
    // As openssl makes key and signature.
    let pem = include_str!("../trust/testdata/rsa-pss-sha384.pem");
    let (_, der) = spki::der::Document::from_pem(pem).unwrap();
    let key = PublicKey::from_spki(der.as_bytes(), HashAlgorithm::Sha384).unwrap();
    let signature = include_bytes!("../trust/testdata/rsa-pss-sha384.sig");
    assert!(key.verifies(&message, signature));
    assert!(!key.verifies(&Message::Bytes(b"other".to_vec()), signature));
    let other = PublicKey::from_spki(der.as_bytes(), HashAlgorithm::Sha256).unwrap_err();
    assert_eq!(other, KeyError::PssHash("sha384"));
}

#[test]
fn one_carriers_signature_does_not_serve_another() {
    let (layer, bytes) = simple_signing_layers().remove(0);
    let signature = layer.annotations["dev.cosignproject.cosign/signature"].clone();
    let text = String::from_utf8(bytes).unwrap();
    let bundle = Signer::new().envelope(&text, &signature);
    assert_eq!(verdict(&bundle, &[key("p256")]), Err("payload-malformed"));
}

#[test]
fn weak_and_unknown_keys_are_refused_by_name() {
    let refused = |pem: &str| {
        let (_, der) = spki::der::Document::from_pem(pem.trim()).unwrap();
        PublicKey::from_spki(der.as_bytes(), HashAlgorithm::Sha256)
            .unwrap_err()
            .to_string()
    };
    insta::assert_snapshot!(refused(include_str!("../trust/testdata/rsa1024.pem")), @"RSA keys of 1024 bits are not supported: use one with 2048 to 8192");
    insta::assert_snapshot!(refused(include_str!("../trust/testdata/secp256k1.pem")), @"keys of secp256k1 are not supported: use ECDSA P-256, P-384, P-521, Ed25519 or RSA with 2048 to 8192 bits");
    insta::assert_snapshot!(refused(include_str!("../trust/testdata/ed448.pem")), @"keys of Ed448 are not supported: use ECDSA P-256, P-384, P-521, Ed25519 or RSA with 2048 to 8192 bits");
    insta::assert_snapshot!(refused(include_str!("../trust/testdata/rsa-pss-sha1.pem")), @"keys of RSASSA-PSS with these parameters are not supported: use ECDSA P-256, P-384, P-521, Ed25519 or RSA with 2048 to 8192 bits");
    insta::assert_snapshot!(refused(include_str!("../trust/testdata/rsa-pss-sha384.pem")), @"an RSASSA-PSS key that is for sha384 alone");
    insta::assert_snapshot!(refused(include_str!("../trust/testdata/explicit-curve.pem")), @"keys of an elliptic curve without a name are not supported: use ECDSA P-256, P-384, P-521, Ed25519 or RSA with 2048 to 8192 bits");
    let good = key("p256").spki;
    for bad in [&good[..good.len() - 1], &[&good[..], &[0]].concat(), b"", b"\x30\x00"] {
        assert!(matches!(
            PublicKey::from_spki(bad, HashAlgorithm::Sha256),
            Err(KeyError::Der(_))
        ));
    }
    let mut off_curve = good.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    assert_eq!(
        PublicKey::from_spki(&off_curve, HashAlgorithm::Sha256).unwrap_err(),
        KeyError::Invalid("ECDSA P-256")
    );
    assert_eq!(
        PublicKey::from_spki(&[0; key::MAX_SPKI + 1], HashAlgorithm::Sha256).unwrap_err(),
        KeyError::TooLarge(2049)
    );
    let unusable = [Key {
        spki: off_curve,
        ..key("p256")
    }];
    let (_, findings) = Keyring::new(&unusable);
    assert_eq!(findings.len(), 1);
    insta::assert_snapshot!(findings[0].text, @"the key 'p256' in trust.d cannot be used: not a valid ECDSA P-256 key");
}

#[test]
fn a_window_and_retirement_need_a_time_that_someone_vouches_for() {
    let at = |text: &str| TrustedTime {
        source: TimeSource::Timestamp,
        authority: "https://timestamp.example".to_owned(),
        time: text.parse().unwrap(),
    };
    let (before, inside, after) = (
        at("2025-12-31T23:59:59Z"),
        at("2026-06-01T00:00:00Z"),
        at("2027-01-01T00:00:00Z"),
    );
    let windowed = Key {
        from: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        until: Some("2027-01-01T00:00:00Z".parse().unwrap()),
        ..key("p256")
    };
    let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
    let standing = |key: &Key, times: &[TrustedTime]| {
        let keys = [key.clone()];
        let (keyring, _) = Keyring::new(&keys);
        keyring
            .standing(&keys[0], Use::Image, times, &[image, other])
            .map(|(_, subjects)| subjects)
            .map_err(|problem| problem.code())
    };
    let both = Ok(vec![image, other]);
    assert_eq!(standing(&key("p256"), &[]), both);
    let retired = Key {
        status: Status::Retired,
        ..windowed.clone()
    };
    for (key, refusal) in [(&windowed, "key-window"), (&retired, "key-retired")] {
        assert_eq!(standing(key, std::slice::from_ref(&inside)), both);
        for times in [
            vec![],
            vec![before.clone()],
            vec![after.clone()],
            vec![inside.clone(), after.clone()],
            vec![before.clone(), inside.clone()],
        ] {
            assert_eq!(standing(key, &times), Err(refusal), "{times:?}");
        }
    }
    // When it was retired is not known: no time helps.
    let endless = Key {
        until: None,
        ..retired.clone()
    };
    assert_eq!(standing(&endless, std::slice::from_ref(&inside)), Err("key-retired"));
    let recorded = Key {
        digests: vec![image],
        ..endless
    };
    assert_eq!(standing(&recorded, &[]), Ok(vec![image]));
    let distrusted = Key {
        status: Status::Distrusted,
        ..recorded
    };
    assert_eq!(standing(&distrusted, &[inside]), Err("key-distrusted"));
}

#[test]
fn checks_with_keys_that_are_not_named_have_a_budget() {
    let keys = [key("p256")];
    let mut stranger = Signer::new().statement(&predicate("https://sigstore.dev/cosign/sign/v1"));
    stranger["verificationMaterial"]["publicKey"]["hint"] = "stranger".into();
    let stranger = read(&stranger).unwrap();
    let (mut keyring, _) = Keyring::new(&keys);
    for _ in 0..1024 {
        assert_eq!(keyring.signer(&stranger).unwrap_err().code(), "key-unknown");
    }
    assert_eq!(keyring.signer(&stranger).unwrap_err().code(), "work-limit");
    // A signature that names its key is still checked.
    assert_eq!(keyring.signer(&read(&signed_by(&keys[0])).unwrap()).unwrap().id, "p256");
}

#[test]
fn what_a_person_reads() {
    let digest = Digest::of(b"");
    let missing = || {
        LayoutError::Store(store::Error::Io {
            action: "open",
            path: "blobs/sha256/00".into(),
            source: rustix::io::Errno::NOENT,
        })
    };
    let json = || json::parse::<Value>(b"{").unwrap_err();
    let key = || "release".to_owned();
    let problems = [
        Problem::Cache(LayoutError::Index(crate::oci::Error::SchemaVersion(3))),
        Problem::CacheEmpty,
        Problem::Evidence(missing()),
        Problem::Evidence(LayoutError::Corrupt {
            expected: digest,
            found: Digest::of(b"x"),
        }),
        Problem::Evidence(LayoutError::Size {
            digest,
            expected: 1,
            found: 2,
        }),
        Problem::Evidence(LayoutError::TooLarge {
            digest,
            size: 2,
            limit: 1,
        }),
        Problem::Evidence(LayoutError::Document {
            digest,
            source: crate::oci::Error::Ambiguous,
        }),
        Problem::CarrierUnsupported("application/jose+json".to_owned()),
        Problem::Bundle(json()),
        Problem::BundleVersion("application/vnd.dev.sigstore.bundle+json;version=0.1".to_owned()),
        Problem::BundleContent,
        Problem::BundleTooMany {
            what: "timestamps",
            count: 33,
            most: 32,
        },
        Problem::BundleRepeats("timestamps"),
        Problem::BundleSigners,
        Problem::NoKey,
        Problem::Certificate("it names no identity".to_owned()),
        Problem::CertificateTooLarge(40_000),
        Problem::Sigstore {
            root: "public-good".to_owned(),
            refusal: Refusal::UnknownLog("unknown transparency log AAAA".to_owned()),
        },
        Problem::RootUnknown,
        Problem::RootMissing,
        Problem::SignerUnlisted {
            identity: "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1".to_owned(),
            issuer: "https://token.actions.githubusercontent.com".to_owned(),
        },
        Problem::RootUnusable {
            root: "ours".to_owned(),
            reason: "none of its entries can be used".to_owned(),
        },
        Problem::RootTooOld {
            root: "ours".to_owned(),
            until: "2026-01-01T00:00:00Z".parse().unwrap(),
        },
        Problem::RootEntry {
            root: "ours".to_owned(),
            left_out: LeftOut {
                kind: EntryKind::Log,
                index: 0,
                name: "https://rekor.example".to_owned(),
                reason: "its key is of ECDSA P-521".to_owned(),
            },
        },
        Problem::Envelope(json()),
        Problem::Annotation(json()),
        Problem::LogBody(json()),
        Problem::LogEntryKind("rekord 0.0.1".to_owned()),
        Problem::Base64("payload"),
        Problem::PayloadType("application/json".to_owned()),
        Problem::SignatureCount(2),
        Problem::MessageDigest("SHA2_512".to_owned()),
        Problem::Payload(attest::Error::NoSha256),
        Problem::SubjectMismatch {
            attached: digest,
            signed: Digest::of(b"x"),
        },
        Problem::PredicateUnsupported("https://example.com/x".to_owned()),
        Problem::KeyUnknown(None),
        Problem::KeyUnknown(Some("ziPp=".to_owned())),
        Problem::SignatureInvalid(key()),
        Problem::KeyHash {
            key: key(),
            hash: "sha384",
        },
        Problem::MessageNeeded(key()),
        Problem::KeyUse {
            key: key(),
            needed: "image",
        },
        Problem::KeyDistrusted(key()),
        Problem::KeyRetired {
            key: key(),
            ends: false,
            signed: Digest::of(b""),
        },
        Problem::KeyRetired {
            key: key(),
            ends: true,
            signed: Digest::of(b""),
        },
        Problem::KeyWindow(key()),
        Problem::KeyUnusable {
            key: key(),
            reason: KeyError::Invalid("ECDSA P-256"),
        },
        Problem::WorkLimit("manifests"),
        Problem::Omitted(3),
    ];
    let mut lines = String::new();
    let mut codes = HashMap::new();
    for problem in &problems {
        let finding = problem.finding(Some(digest));
        assert!(
            !finding.text.contains('\n')
                && finding
                    .code
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
        lines.push_str(&format!("{}: {}\n", finding.code, finding.text));
        codes
            .entry(finding.code)
            .or_insert_with(Vec::new)
            .push(std::mem::discriminant(problem));
    }
    insta::assert_snapshot!(lines, @r#"
    evidence-cache-unusable: the evidence cache cannot be used: index.json of the layout: schemaVersion is 3, expected 2; an import (assay evidence import PATH) rebuilds it
    evidence-cache-empty: the evidence cache is empty
    evidence-missing: it cannot be used: cannot open blobs/sha256/00: No such file or directory (os error 2)
    evidence-corrupt: it cannot be used: the blob sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is corrupt: its bytes have the digest sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
    evidence-corrupt: it cannot be used: the blob sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 has 2 bytes where its descriptor says 1
    evidence-too-large: it cannot be used: the blob sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 announces 2 bytes, more than the 1 that are accepted
    evidence-malformed: it cannot be used: the blob sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855: the document has both 'manifests' and 'layers' or 'config': it could be read as two different things
    carrier-unsupported: its layers are of type 'application/jose+json', which this version does not verify
    bundle-malformed: its Sigstore bundle is malformed: not acceptable JSON: EOF while parsing an object at line 1 column 1
    bundle-version-unsupported: its Sigstore bundle is of type 'application/vnd.dev.sigstore.bundle+json;version=0.1', of which versions 0.1, 0.2 and 0.3 are verified
    bundle-malformed: its Sigstore bundle must hold either an envelope or a message signature
    bundle-malformed: its Sigstore bundle has 33 timestamps, more than the 32 that are accepted
    bundle-malformed: its Sigstore bundle has the same twice among its timestamps
    bundle-malformed: its Sigstore bundle says in more than one way who signed
    bundle-malformed: its Sigstore bundle holds neither a certificate nor the name of a public key
    certificate-unacceptable: its signing certificate is not acceptable: it names no identity
    certificate-unacceptable: it has a certificate of 40000 bytes, more than any has
    log-unknown: under the root 'public-good': its log entry is of a log that the root does not list: unknown transparency log AAAA
    root-unknown: no root in trust.d has an authority that could have issued its certificate
    root-missing: it holds a log entry or a timestamp, and trust.d has no root to verify them under
    signer-unlisted: it claims to be signed by https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1 (issuer https://token.actions.githubusercontent.com), whom no rule names; that was not verified
    root-unusable: the root 'ours' in trust.d cannot be used: none of its entries can be used
    root-too-old: the root 'ours' in trust.d was last known to be current longer ago than its max_age allows: it counted until 2026-01-01T00:00:00Z
    root-entry: the root 'ours' in trust.d: its transparency log 1 (https://rekor.example) is left out: its key is of ECDSA P-521
    envelope-malformed: its envelope is malformed: not acceptable JSON: EOF while parsing an object at line 1 column 1
    annotation-malformed: the log entry or the timestamp in its annotations is malformed: not acceptable JSON: EOF while parsing an object at line 1 column 1
    log-entry-malformed: the body of its log entry is malformed: not acceptable JSON: EOF while parsing an object at line 1 column 1
    log-entry-unsupported: it has a log entry of the kind 'rekord 0.0.1', which this version does not verify
    base64-invalid: its payload is not canonical base64 of the right length
    payload-type-unsupported: its envelope holds 'application/json', expected application/vnd.in-toto+json
    signature-count: it has 2 signatures, expected exactly one
    message-digest-unsupported: its message digest is 'SHA2_512', expected SHA2_256
    payload-malformed: its signed payload is not acceptable: no subject has a sha256 digest
    subject-mismatch: it is attached to sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, but what it signs is sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881
    predicate-unsupported: it is an attestation of type 'https://example.com/x', which no key use covers
    key-unknown: no key in trust.d made its signature
    key-unknown: no key in trust.d made its signature (it names the key with fingerprint ziPp=)
    signature-invalid: it names the key 'release', but its signature is not by that key over this payload
    key-hash: it is signed by the key 'release' with sha384: write hash = "sha384" for this key in trust.d
    message-needed: it names the key 'release', which cannot verify a signature whose message is given by its SHA-256 only
    key-use: it is signed by the key 'release', which trust.d does not list for 'image'
    key-distrusted: it is signed by the key 'release', which is distrusted
    key-retired: the retired key 'release' signed sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, which is not recorded as one that stays valid
    key-retired: the retired key 'release' signed sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855, which is not recorded as one that stays valid, at no trusted time in its window
    key-window: it is signed by the key 'release', and no trusted time says that it was signed within the key's window
    key-unusable: the key 'release' in trust.d cannot be used: not a valid ECDSA P-256 key
    work-limit: there is more evidence than may be looked at for one image (manifests); remove what is not needed
    findings-omitted: 3 more findings are not listed
    "#);
    // A code means one thing; only the ways in which a bundle or certificate is malformed share theirs.
    for (code, kinds) in codes {
        assert!(
            matches!(code.as_str(), "bundle-malformed" | "certificate-unacceptable")
                || kinds.iter().all(|kind| *kind == kinds[0]),
            "{code}"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Bundle::parse(bytes.clone()).is_err());
        let _ = PublicKey::from_spki(&bytes, HashAlgorithm::Sha256);
        let layer = simple_signing_layer();
        prop_assert!(legacy::simple_signing(&layer, bytes).is_err());
    }

    /// Whatever is changed in a bundle: it is refused, or what was signed and the signature are as they were.
    #[test]
    fn a_changed_byte_changes_nothing_that_counts(position in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let keys = [key("p256")];
        let good = serde_json::to_vec(&signed_by(&keys[0])).unwrap();
        let before = Bundle::parse(good.clone()).unwrap().unverified().unwrap();
        let mut changed = good;
        let position = position.index(changed.len());
        changed[position] = byte;
        if let Ok(after) = Bundle::parse(changed).and_then(Bundle::unverified) {
            let (mut keyring, _) = Keyring::new(&keys);
            if keyring.signer(&after).is_ok() {
                prop_assert_eq!(after.message, before.message);
                prop_assert_eq!(after.signature, before.signature);
                prop_assert_eq!(after.claim, before.claim);
                prop_assert_eq!(after.subjects, before.subjects);
            }
        }
    }
}

fn simple_signing_layer() -> Descriptor {
    Descriptor {
        media_type: legacy::SIMPLE_SIGNING.to_owned(),
        digest: Digest::of(b""),
        size: 0,
        annotations: BTreeMap::from([("dev.cosignproject.cosign/signature".to_owned(), "AAAA".to_owned())]),
        artifact_type: None,
        platform: None,
    }
}
