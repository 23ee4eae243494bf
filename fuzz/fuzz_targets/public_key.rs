#![no_main]

//! Public keys in PEM and in DER.
use std::path::Path;

use assay::trust::{self, HashAlgorithm};
use assay::verify::key::PublicKey;
use libfuzzer_sys::fuzz_target;

const LISTED: &[u8] = b"[[key]]\nid = \"k\"\nfile = \"k.pub\"\nuse = [\"image\"]\n";

fuzz_target!(|data: &[u8]| {
    let _ = PublicKey::from_spki(data, HashAlgorithm::Sha256);
    let file = assay_fuzz::file("keys/k.pub", data);
    let folder: &Path = file.parent().unwrap();
    assay_fuzz::file("keys/keys.toml", LISTED);
    if let Ok(trust) = trust::load(&[folder.to_owned()]) {
        assert_eq!(trust.keys.len(), 1);
        // What is accepted as a key can be used as one.
        PublicKey::from_spki(&trust.keys[0].spki, trust.keys[0].hash).unwrap();
    }
});
