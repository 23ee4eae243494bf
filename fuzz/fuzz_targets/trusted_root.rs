#![no_main]

//! Trusted roots.
use assay::trust::{Root, RootSource, root};
use assay::verify::TrustedRoot;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if root::parse(data).is_ok() {
        let Ok(json) = String::from_utf8(data.to_vec()) else {
            return;
        };
        let _ = TrustedRoot::new(&Root::new("fuzz", RootSource::File("fuzz".to_owned()), json));
    }
});
