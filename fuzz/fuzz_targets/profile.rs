#![no_main]

//! Seccomp profiles, alone and narrowed by containerd's default.
use assay::seccomp::{Profile, intersect, runtime_default};
use assay::syscalls::Machine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(profile) = Profile::parse(data) else { return };
    assert_eq!(Profile::parse(&profile.to_json()).as_ref(), Ok(&profile));
    let default = runtime_default(None, Machine::X86_64, []);
    let both = intersect(&profile, &default, Machine::X86_64);
    let (before, default, after) = (profile.rules(), default.rules(), both.rules());
    for name in ["read", "clone", "socket", "personality", "mount"] {
        for first in [0, 2, 8, 40, u64::MAX] {
            let arguments = [first; 6];
            let action = after.verdict(name, &arguments).action;
            assert!(action <= before.verdict(name, &arguments).action);
            assert!(action <= default.verdict(name, &arguments).action);
        }
    }
});
