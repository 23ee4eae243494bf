#![no_main]

//! Image configurations.
use assay::oci::ImageConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(config) = ImageConfig::parse(data) {
        let _ = config.chain_id();
    }
});
