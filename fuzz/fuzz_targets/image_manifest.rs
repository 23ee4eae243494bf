#![no_main]

//! Image manifests.
use assay::oci::{self, Manifest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Manifest::parse(data, oci::MANIFEST);
});
