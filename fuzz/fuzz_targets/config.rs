#![no_main]

//! `/etc/assay/config.toml`.
use assay::config::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Err(faults) = Config::read(&assay_fuzz::file("config.toml", data)) {
        assert!(faults.0.iter().all(|fault| !fault.line().is_empty()));
    }
});
