//! Assay's own configuration for the tests: what is enforced is told by the image's name, all else is audited.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use super::daemon::{APPLICATION, DEBIAN, DENIED, debian, set_up};

/// Writes configuration, keys and policy below a containerd's folder, activates them and fills the evidence cache.
pub fn activate(folder: &Path) {
    let home = folder.join("assay");
    for name in ["", "state", "run", "policy.d", "trust.d", "seccomp.d"] {
        fs::create_dir(home.join(name)).unwrap();
        fs::set_permissions(home.join(name), fs::Permissions::from_mode(0o700)).unwrap();
    }
    let dir = home.display();
    fs::write(
        home.join("config.toml"),
        format!(
            "state = '{dir}/state'\nrun = '{dir}/run'\npolicy = '{dir}/policy.d'\ntrust = '{dir}/trust.d'\n\
             seccomp = '{dir}/seccomp.d'\n"
        ),
    )
    .unwrap();
    fs::write(
        home.join("seccomp.d/50.toml"),
        "[[tune]]\nimage = ['assay.test/known/**']\nallow = ['keyctl']\ndeny = ['sync']\nreason = 'keys are tested'\n\
         owner = 'platform'\nexpires = '2099-01-01T00:00:00Z'\n\n\
         [[tune]]\nimage = ['assay.test/nowhere/**']\nallow = ['ptrace']\nreason = 'forgotten'\n\
         owner = 'nobody'\nexpires = '2099-01-01T00:00:00Z'\n",
    )
    .unwrap();
    if super::runtime() != super::ASSAY {
        return;
    }
    let signed = set_up("images/signed");
    fs::copy(signed.join("release.pub"), home.join("trust.d/release.pub")).unwrap();
    let stranger = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/evidence/keys/p256.pub");
    fs::copy(stranger, home.join("trust.d/stranger.pub")).unwrap();
    fs::write(
        home.join("trust.d/keys.toml"),
        "[[key]]\nid = 'release'\nfile = 'release.pub'\nuse = ['image']\n
[[key]]\nid = 'stranger'\nfile = 'stranger.pub'\nuse = ['image']\n",
    )
    .unwrap();
    let denied = DENIED.manifest;
    let application = APPLICATION.manifest;
    let debian_digest = &debian().digest;
    let debian = DEBIAN;
    fs::write(
        home.join("policy.d/50-tests.toml"),
        format!(
            "[[deny]]
digest = ['{denied}']

[[rule]]
name = 'release images'
match = {{ image = ['assay.test/enforced/**'] }}
mode = 'enforce'
[[rule.signature]]
any = [{{ key = 'release' }}]

[[rule]]
name = 'the images of others'
match = {{ image = ['assay.test/strangers/**'] }}
mode = 'enforce'
[[rule.signature]]
any = [{{ key = 'stranger' }}]

[[rule]]
name = 'narrowed'
match = {{ image = ['assay.test/narrowed/**'] }}
mode = 'enforce'
[[rule.signature]]
any = [{{ key = 'release' }}]
[rule.runtime]
user = 'non-root'
read_only_root = true
noexec_mounts = true
no_new_privileges = true

[[rule]]
name = 'minimized'
match = {{ image = ['assay.test/minimized/**'] }}
mode = 'enforce'
[[rule.signature]]
any = [{{ key = 'release' }}]
[rule.filesystem]
mode = 'enforce'
exec = ['/bin/sleep']

[[rule]]
name = 'filtered'
match = {{ image = ['assay.test/filtered/**'] }}
mode = 'enforce'
[[rule.signature]]
any = [{{ key = 'release' }}]
[rule.filesystem]
mode = 'enforce'
exec = ['/bin/sleep']
[rule.seccomp]
mode = 'enforce'
privileged = 'unconfined'
allow = ['keyctl']
deny = ['sethostname', 'setpriority']

[[rule]]
name = 'filtered and known'
match = {{ image = ['assay.test/known/**'] }}
mode = 'enforce'
[[rule.signature]]
any = [{{ key = 'release' }}]
[rule.filesystem]
mode = 'enforce'
[rule.seccomp]
mode = 'enforce'
incomplete = 'refuse'

[[rule]]
name = 'complaining'
match = {{ image = ['assay.test/complaining/**'] }}
mode = 'enforce'
[[rule.signature]]
any = [{{ key = 'release' }}]
[rule.filesystem]
mode = 'enforce'
exec = ['/bin/sleep']
[rule.seccomp]
mode = 'complain'
incomplete = 'refuse'
deny = ['sethostname']

[[rule]]
name = 'audited'
match = {{ image = ['{debian}'] }}
mode = 'enforce'
digest = ['{debian_digest}']
[rule.filesystem]
mode = 'audit'

[[rule]]
name = 'to be minimized'
match = {{ image = ['assay.test/rehearsed/**'] }}
mode = 'audit'
[[rule.signature]]
any = [{{ key = 'release' }}]
[rule.filesystem]
mode = 'enforce'
[rule.seccomp]
mode = 'enforce'

[[rule]]
name = 'applications'
match = {{ image = ['assay.test/applications/**'] }}
mode = 'enforce'
digest = ['{application}']
[rule.filesystem]
mode = 'enforce'
exec = ['/bin/test', '/bin/sleep']

[[rule]]
name = 'data of applications'
match = {{ image = ['assay.test/applications/**'], kind = 'volume' }}
mode = 'enforce'
digest = ['{application}']

[[rule]]
name = 'everything else'
match = {{ image = ['**'] }}
mode = 'audit'
"
        ),
    )
    .unwrap();
    let evidence = signed.join("busybox");
    for arguments in [
        &["policy", "apply"][..],
        &["evidence", "import", evidence.to_str().unwrap()],
    ] {
        let output = assay(folder, arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Runs `assay` with the configuration below a containerd's folder.
pub fn assay(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assay"))
        .args(arguments)
        .env("ASSAY_CONFIG", folder.join("assay/config.toml"))
        .output()
        .unwrap()
}
