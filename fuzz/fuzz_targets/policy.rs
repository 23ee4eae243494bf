#![no_main]

//! Files of policy, and names that their patterns are compared with.
use assay::policy::{Attributes, Kind, Sources, check};
use assay_fuzz::NOW;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = assay_fuzz::file("policy.toml", data);
    let sources = Sources {
        policy: vec![path],
        trust: Vec::new(),
        closure: Vec::new(),
        seccomp: Vec::new(),
    };
    match check(&sources) {
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
