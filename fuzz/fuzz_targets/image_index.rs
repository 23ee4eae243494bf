#![no_main]

//! Image indexes.
use assay::oci::{self, Index};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Index::parse(data, oci::INDEX);
});
