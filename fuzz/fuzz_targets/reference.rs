#![no_main]

//! Names of images, and patterns over them.
use assay::oci::Reference;
use assay::policy::{ImageName, ImagePattern};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    if let Ok(reference) = name.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    }
    let name = ImageName::parse(name);
    if let Ok(pattern) = ImagePattern::try_from(pattern.to_owned()) {
        assert!(pattern.covers(&pattern));
        let _ = pattern.matches(name.as_ref());
    }
});
