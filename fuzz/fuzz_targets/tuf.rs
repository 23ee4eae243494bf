#![no_main]

//! Tars with a copy of a TUF repository.
use assay::trust::update::{self, Place};
use assay::trust::{Builtin, Root};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let state = assay_fuzz::state("state");
    let root = Root::builtin("public-good", Builtin::Sigstore);
    assay_fuzz::in_memory(data, |path| {
        let _ = update::update(&state, &root, &Place::Mirror(path));
    });
});
