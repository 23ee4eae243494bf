//! `make demo` does what the README says, and leaves nothing behind; the script itself fails otherwise.
#![allow(clippy::tests_outside_test_module, missing_docs)]

use std::path::Path;
use std::process::Command;

#[test]
fn the_demo_runs_to_its_end() {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/demo/run"))
        .arg(Path::new(env!("CARGO_BIN_EXE_assay")).parent().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("Nothing is left behind"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
