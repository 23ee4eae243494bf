#![no_main]

//! Envelopes in cosign's older layout: the JSON of a layer's descriptor, whose annotations hold what vouches for it, a
//! zero byte, and the envelope.
use assay::oci::Descriptor;
use assay::verify::{By, Verify as _, legacy};
use assay_fuzz::{NOW, ROOTS, two_parts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (layer, blob) = two_parts(data);
    let Ok(layer) = serde_json::from_slice::<Descriptor>(layer) else {
        return;
    };
    let Ok(unverified) = legacy::envelope(&layer, blob) else {
        return;
    };
    let Some(&subject) = unverified.subjects().first() else {
        return;
    };
    let _ = ROOTS[0].verify(&unverified, By::Certificate, subject, NOW);
});
