#![no_main]

//! What the shim asks.
use assay::admission::{Request, reject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(invalid) = Request::parse(data) {
        let decision = reject(&invalid);
        assert!(!decision.line().contains('\n'));
    }
});
