#![no_main]

//! Files of policy, and names that their patterns are compared with.
use std::path::Path;

use assay::policy::{Attributes, Kind, check};
use assay_fuzz::NOW;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = assay_fuzz::file("policy.toml", data);
    match check(&path, Path::new("/nonexistent")) {
        Ok(checked) => {
            let active = checked.into_active(1, NOW);
            for name in ["registry.example/prod/app:1", "busybox", ""] {
                let _ = active.select(&Attributes {
                    image: Some(name),
                    kubernetes_namespace: Some("prod-1"),
                    containerd_namespace: "k8s.io",
                    kind: Kind::Container,
                    digests: &[],
                });
            }
        }
        Err(faults) => assert!(faults.iter().all(|fault| !fault.line().is_empty())),
    }
});
