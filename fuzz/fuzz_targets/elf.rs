#![no_main]

//! ELF files down to the system calls that they make: tables, unwinding entries, Go's functions, machine code.
use assay::syscalls::{Object, Role, Summary, close, summarise};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(summary) = summarise(data) else { return };
    let kept = summary.encode().expect("a summary is written");
    let summary = Summary::decode(&kept).expect("what was written is read");
    for role in [Role::Program, Role::Plugin] {
        let _calls = close(&[Object { path: "file", summary: &summary, role }]);
    }
});
