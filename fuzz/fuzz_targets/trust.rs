#![no_main]

//! Files of trust.
use assay::trust;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assay_fuzz::file("trust/release.pub", include_bytes!("../../src/trust/testdata/p256.pem"));
    assay_fuzz::file(
        "trust/ca.pem",
        include_bytes!("../../src/trust/testdata/notation-ca.pem"),
    );
    let file = assay_fuzz::file("trust/trust.toml", data);
    if let Err(faults) = trust::load(&[file.parent().unwrap().to_owned()]) {
        assert!(faults.iter().all(|fault| !fault.line().is_empty()));
    }
});
