#![no_main]

//! Certificates of signers, and the root certificates of a Notary trust store.
use assay::verify::certificate::Leaf;
use assay::verify::notation::{StoreKind, TrustStores};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Leaf::parse(data);
    let _ = TrustStores::default().add_certificates(StoreKind::Ca, "ca", data);
});
