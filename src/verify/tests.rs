use std::collections::BTreeMap;
use std::path::PathBuf;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::bundle_key::Bundle;
use super::key::{KeyError, PublicKey};
use super::*;
use crate::oci::Descriptor;
use crate::trust::{HashAlgorithm, Key, Status};

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

#[test]
fn explore() {
    for name in ["p256", "p384", "p521", "ed25519", "rsa2048", "rsa4096"] {
        for hash in [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512] {
            let k = Key { hash, ..key(name) };
            for b in bundles("oras") {
                let u = Bundle::parse(&b).unwrap().unverified().unwrap();
                let r = Keyring::new(std::slice::from_ref(&k))
                    .0
                    .signer(&u)
                    .map(|k| k.id.clone())
                    .map_err(|e| e.to_string());
                if r.is_ok() || r.as_ref().unwrap_err().contains("but its") {
                    println!("{name} {hash:?} {r:?}");
                }
            }
        }
    }
}
