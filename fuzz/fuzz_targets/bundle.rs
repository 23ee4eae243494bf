#![no_main]

//! Sigstore bundles, read and then verified under the roots that are built in.
use assay::verify::bundle::Bundle;
use assay::verify::{By, Verify as _};
use assay_fuzz::{NOW, ROOTS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let read = || Bundle::parse(data.to_vec());
    let _ = read().and_then(Bundle::subjects);
    let Ok(unverified) = read().and_then(Bundle::unverified) else {
        return;
    };
    let Some(&subject) = unverified.subjects().first() else {
        return;
    };
    for root in ROOTS.iter() {
        if let Ok(proof) = root.verify(&unverified, By::Certificate, subject, NOW) {
            assert!(proof.times.iter().all(|time| time.time <= NOW));
        }
    }
});
