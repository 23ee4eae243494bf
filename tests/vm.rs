//! What this machine's kernel cannot show: control group version 2 alone, crun, and Debian 12's kernel 6.1, in a
//! virtual machine. `tests/vm/boot` boots it once for all tests; `tests/vm/guest` is what runs inside.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    missing_docs,
    reason = "all of this program is tests"
)]

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// What the guest said of each check: nothing when it passed, what it saw when it failed.
static REPORT: LazyLock<HashMap<String, Option<String>>> = LazyLock::new(|| {
    // The emulator itself dies now and then before the guest gets through; the guest's own word is never repeated.
    let first = boot();
    let console = if through(&first) { first } else { boot() };
    assert!(
        through(&console),
        "the virtual machine did not get through its checks, twice:\n{console}"
    );
    console.lines().filter_map(check).collect()
});

fn boot() -> String {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(env!("CARGO_BIN_EXE_assay")).parent().unwrap();
    let output = Command::new(here.join("tests/vm/boot")).arg(programs).output().unwrap();
    format!(
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn through(console: &str) -> bool {
    console.lines().any(|line| line.trim_end() == "checks done")
}

fn check(line: &str) -> Option<(String, Option<String>)> {
    let said = line.trim_end().strip_prefix("check ")?;
    if let Some(name) = said.strip_prefix("PASS ") {
        return Some((name.to_owned(), None));
    }
    let (name, seen) = said.strip_prefix("FAIL ")?.split_once(": ")?;
    Some((name.to_owned(), Some(seen.to_owned())))
}

fn passed(name: &str) {
    match REPORT.get(name) {
        Some(None) => {}
        Some(Some(seen)) => panic!("{name}: {seen}"),
        None => panic!("the guest said nothing of {name}; it said {:?}", REPORT.keys()),
    }
}

macro_rules! checks {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                passed(stringify!($name));
            }
        )*
    };
}

checks! {
    kernel_6_1_with_cgroup_2_only
    containerd_starts
    assay_is_set_up
    life_cycle
    stats
    exec
    pause_resume
    kill
    oom_before_exit
    crun_by_configuration
    crun_by_runtime_option
    crun_stats_and_pause
    unsigned_is_refused
    nothing_left_behind
}
