#![no_main]

//! Sigstore bundles, read and then verified under the roots that are built in.
use assay::verify::bundle::Bundle;
use assay::verify::{By, Verify as _};
use assay_fuzz::{NOW, ROOTS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(bundle) = Bundle::parse(data) else { return };
    let _ = bundle.subjects();
    let Ok(unverified) = bundle.unverified() else { return };
    let Some(&subject) = unverified.subjects().first() else {
        return;
    };
    for root in ROOTS.iter() {
        if let Ok(proof) = root.verify(&unverified, By::Certificate, subject, NOW) {
            assert!(proof.times.iter().all(|time| time.time <= NOW));
        }
    }
});
