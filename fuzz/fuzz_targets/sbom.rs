#![no_main]

//! SBOMs in every format.
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(sbom) = assay::sbom::read(data) {
        let _files = sbom.file_count();
        let _has = sbom.has_path("/usr/bin/env");
    }
});
