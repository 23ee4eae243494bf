//! Assay's own configuration for the tests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Writes configuration and policy below a containerd's folder and activates them.
pub fn activate(folder: &Path) {
    let home = folder.join("assay");
    for name in ["", "state", "run", "policy.d", "trust.d"] {
        fs::create_dir(home.join(name)).unwrap();
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let dir = home.display();
    fs::write(
        home.join("config.toml"),
        format!("state = '{dir}/state'\nrun = '{dir}/run'\npolicy = '{dir}/policy.d'\ntrust = '{dir}/trust.d'\n"),
    )
    .unwrap();
    fs::write(
        home.join("policy.d/90-audit.toml"),
        "[[rule]]\nname = \"everything\"\nmatch = { image = [\"**\"] }\nmode = \"audit\"\n",
    )
    .unwrap();
    if super::runtime() != super::ASSAY {
        return;
    }
    let applied = Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(["policy", "apply"])
        .env("ASSAY_CONFIG", home.join("config.toml"))
        .output()
        .unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
}
