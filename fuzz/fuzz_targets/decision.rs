#![no_main]

//! Lines of the decision log.
use std::sync::LazyLock;

use assay::admission::{LOG, log};
use assay::store::StateDir;
use libfuzzer_sys::fuzz_target;

static STATE: LazyLock<StateDir> = LazyLock::new(|| assay_fuzz::state("state"));

fuzz_target!(|data: &[u8]| {
    STATE.write_volatile(LOG, data).unwrap();
    log::read(&STATE, |entry| {
        assert!(!entry.decision.line().is_empty());
        let again: assay::admission::Decision = serde_json::from_str(&entry.decision.json()).unwrap();
        assert_eq!(again, entry.decision);
    })
    .unwrap();
    log::evidence_by_container(&STATE).unwrap();
});
