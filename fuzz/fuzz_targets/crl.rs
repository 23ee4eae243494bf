#![no_main]

//! Certificate revocation lists.
use assay::verify::notation::TrustStores;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = TrustStores::default().add_crl(data);
});
