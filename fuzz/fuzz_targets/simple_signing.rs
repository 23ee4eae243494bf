#![no_main]

//! Simple signing: the JSON of a layer's descriptor, whose annotations hold the signature, a zero byte, the payload.
use assay::attest::SimpleSigning;
use assay::oci::Descriptor;
use assay::verify::{By, Verify as _, legacy};
use assay_fuzz::{NOW, ROOTS, two_parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (layer, payload) = two_parts(data);
    let _ = SimpleSigning::parse(payload);
    let Ok(layer) = serde_json::from_slice::<Descriptor>(layer) else {
        return;
    };
    let Ok(unverified) = legacy::simple_signing(&layer, payload.to_vec()) else {
        return;
    };
    let Some(&subject) = unverified.subjects().first() else {
        return;
    };
    let _ = ROOTS[0].verify(&unverified, By::Certificate, subject, NOW);
});
