#![no_main]

//! Envelopes of the Notary Project, with a store, a timestamp authority and revocation lists that fit the corpus.
use std::sync::LazyLock;

use assay::verify::notation::{self, StoreKind, TrustStores};
use assay_fuzz::NOW;
use libfuzzer_sys::fuzz_target;

static STORES: LazyLock<TrustStores> = LazyLock::new(|| {
    let mut stores = TrustStores::default();
    stores
        .add_certificates(
            StoreKind::Ca,
            "ca",
            include_bytes!("../../tests/fixtures/notation/ca.pem"),
        )
        .unwrap();
    stores
        .add_certificates(
            StoreKind::Tsa,
            "tsa",
            include_bytes!("../../tests/fixtures/notation/tsa.pem"),
        )
        .unwrap();
    stores
        .add_crl(include_bytes!("../../tests/fixtures/notation/good.crl"))
        .unwrap();
    stores
});

fuzz_target!(|data: &[u8]| {
    let _ = notation::verify(data, notation::JWS, &STORES, NOW);
});
