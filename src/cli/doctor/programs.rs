//! The programs that take part: Assay's own, containerd, the OCI runtime.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use toml::{Table, Value};

use super::{Check, Group};
use crate::cli::configure::handler::{Reading, SHIM};
use crate::cli::configure::node::{Node, Release};
use crate::cli::configure::plan::{OLDEST, check_shim};
use crate::config::Config;
use crate::oci;
use crate::policy::SeccompMode;
use crate::policy::activate::load_active;
use crate::runtime::{self, Base, Runtime};
use crate::store::StateDir;

const PROGRAMS: Group = Group("programs");

/// The type that SELinux policies give to container runtimes; a shim of another type may not enter a container's.
const SELINUX_TYPE: &str = "container_runtime_exec_t";

/// The shim beside this program.
pub(super) fn own() -> Vec<Check> {
    let shim = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join(SHIM)))
        .unwrap_or_else(|| SHIM.into());
    let mut checks = vec![shim_program(&shim)];
    let enforce = std::fs::read_to_string("/sys/fs/selinux/enforce").ok();
    checks.push(selinux(enforce.as_deref(), context(&shim).as_deref(), &shim));
    checks
}

/// Whether a shim may be run as root, and is of this version.
pub(super) fn shim_program(path: &Path) -> Check {
    const CODE: &str = "shim-program";
    if let Err(error) = check_shim(path) {
        return PROGRAMS.fail(CODE, error.to_string(), error.fix());
    }
    let own = env!("CARGO_PKG_VERSION");
    match said(Command::new(path).arg("-v")) {
        Ok(said) if said.split_whitespace().last() == Some(own) => {
            PROGRAMS.pass(CODE, format!("{} is of version {own}, as this program", path.display()))
        }
        Ok(said) => PROGRAMS.fail(
            CODE,
            format!(
                "{} says \"{said}\", and this program is of version {own}",
                path.display()
            ),
            "install both programs of one release",
        ),
        Err(why) => PROGRAMS.fail(
            CODE,
            format!("{} does not run: {why}", path.display()),
            "install it anew",
        ),
    }
}

/// containerd's release.
pub(super) fn release(release: &Release) -> Check {
    if release.number < OLDEST {
        return PROGRAMS.fail(
            "containerd-release",
            format!(
                "containerd {} is older than 1.6.20, the oldest that Assay is tested with",
                release.text
            ),
            "upgrade containerd",
        );
    }
    PROGRAMS.pass("containerd-release", format!("containerd {}", release.text))
}

/// The OCI runtime of Assay's handlers, found as the shim finds it: with containerd's `PATH`.
#[derive(Debug)]
pub(super) struct OciRuntime {
    /// As it is configured.
    name: String,
    /// What is started.
    program: String,
}

impl OciRuntime {
    pub(super) fn find(config: &Config, node: &Node, reading: Reading<'_>) -> Self {
        let binary = |handler: &Table| {
            let name = handler.get("options")?.get("BinaryName")?.as_str()?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        let assay = super::handlers::assay(reading).find_map(|(_, handler)| binary(handler));
        let default = || reading.default().and_then(|name| binary(reading.handler(name)?));
        let name = assay.or_else(default).unwrap_or_else(|| config.oci_runtime.clone());
        let path = node.environment.get(std::ffi::OsStr::new("PATH"));
        let program = found(&name, path.map(|path| std::env::split_paths(path).collect()));
        Self { name, program }
    }

    /// Whether it runs.
    pub(super) fn version(&self) -> Check {
        runtime_version(&self.name, said(&mut Runtime::version(&self.program)))
    }

    /// Whether the system calls that it makes itself under a container's filter are known, by starting containers: many,
    /// and traced, so only where the policy in force makes some container depend on it.
    pub(super) fn calls(&self, config: &Config) -> Option<Check> {
        let state = config.state.exists().then(|| StateDir::open(&config.state))?;
        let (active, _) = load_active(state.as_ref().ok()?).ok()?;
        let mut modes = active.rules.iter().map(|rule| rule.seccomp.mode);
        modes.find(|mode| *mode == SeccompMode::Enforce)?;
        let path = Path::new(&self.program);
        let before = state.and_then(|state| runtime::measured(&state));
        let unknown = runtime::measure(path)
            .map(|measured| Base::of(path, measured).unknown(&before.unwrap_or_default()).concat())
            .map_err(|error| error.to_string());
        Some(runtime_calls(&self.name, &self.program, unknown))
    }
}

fn runtime_calls(name: &str, program: &str, unknown: Result<Vec<String>, String>) -> Check {
    const CODE: &str = "oci-runtime-calls";
    match unknown {
        Ok(unknown) if unknown.is_empty() => PROGRAMS.pass(
            CODE,
            format!("{name} makes no system call of its own that is not known"),
        ),
        Ok(unknown) => {
            let unknown: BTreeSet<String> = unknown.into_iter().collect();
            let unknown: Vec<String> = unknown.into_iter().collect();
            PROGRAMS.warn(
                CODE,
                format!(
                    "{name} makes system calls of its own that are not known: {}; a container whose rule narrows system \
                     calls may not start",
                    unknown.join(", ")
                ),
                format!("assay seccomp base --keep --runtime {program}"),
            )
        }
        Err(why) => PROGRAMS.warn(
            CODE,
            format!("the system calls that {name} makes itself cannot be measured: {why}"),
            "start no container by a rule that narrows system calls before this can be measured",
        ),
    }
}

fn found(program: &str, path: Option<Vec<PathBuf>>) -> String {
    let folders = path.into_iter().flatten();
    let mut candidates = folders.map(|folder| folder.join(program)).filter(|path| path.is_file());
    match candidates.next() {
        Some(path) if !program.contains('/') => path.display().to_string(),
        _ => program.to_owned(),
    }
}

fn runtime_version(program: &str, said: Result<String, String>) -> Check {
    match said {
        Ok(said) => PROGRAMS.pass("oci-runtime", format!("{program}: {said}")),
        Err(why) => PROGRAMS.fail(
            "oci-runtime",
            format!("the OCI runtime {program} does not run: {why}"),
            "install runc or crun where containerd's PATH has it, or name another in oci_runtime of config.toml",
        ),
    }
}

/// First line that a program says of its version.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!(
            "{}: {}",
            output.status,
            oci::shorten(&String::from_utf8_lossy(&output.stderr))
        ));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(oci::shorten(text.lines().next().unwrap_or_default()))
}

fn context(path: &Path) -> Option<String> {
    let mut bytes = [0_u8; 256];
    let length = rustix::fs::getxattr(path, "security.selinux", &mut bytes[..]).ok()?;
    let text = String::from_utf8_lossy(bytes.get(..length)?).into_owned();
    Some(text.trim_end_matches('\0').to_owned())
}

/// Whether SELinux lets the shim do what a container runtime does. `enforce` is what the kernel says about it.
fn selinux(enforce: Option<&str>, context: Option<&str>, shim: &Path) -> Check {
    const CODE: &str = "selinux-context";
    let Some(enforce) = enforce else {
        return PROGRAMS.pass(CODE, "SELinux is not in use");
    };
    let kind = context.and_then(|context| context.split(':').nth(2)).unwrap_or("none");
    if kind == SELINUX_TYPE {
        return PROGRAMS.pass(CODE, format!("{} has the type {SELINUX_TYPE}", shim.display()));
    }
    let reason = format!("{} has the type {kind}, not {SELINUX_TYPE}", shim.display());
    let fix = format!(
        "semanage fcontext -a -t {SELINUX_TYPE} {path}; restorecon {path}",
        path = shim.display()
    );
    if enforce.trim() == "1" {
        PROGRAMS.fail(CODE, reason, fix)
    } else {
        PROGRAMS.warn(CODE, format!("{reason}; SELinux is permissive"), fix)
    }
}

/// A text of a table, empty where it has none.
pub(super) fn text<'a>(table: &'a Table, key: &str) -> &'a str {
    table.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Standing;
    use super::*;

    #[test]
    fn calls_that_no_measurement_knows_are_named_once() {
        let unknown = vec!["futex_wait".to_owned(), "futex_wait".to_owned()];
        let check = runtime_calls("runc", "/usr/sbin/runc", Ok(unknown));
        assert_eq!(check.standing, Standing::Warn);
        assert!(check.reason.contains("not known: futex_wait;"), "{}", check.reason);
        assert_eq!(check.fix, "assay seccomp base --keep --runtime /usr/sbin/runc");
        assert_eq!(runtime_calls("runc", "runc", Ok(Vec::new())).standing, Standing::Pass);
        assert_eq!(
            runtime_calls("runc", "runc", Err("no ptrace".to_owned())).standing,
            Standing::Warn
        );
    }

    #[test]
    fn the_runtimes_calls_are_measured_only_where_a_filter_is_enforced() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            state: folder.path().join("state"),
            run: folder.path().join("run"),
            policy: folder.path().join("policy.d"),
            trust: folder.path().join("trust.d"),
            closure: folder.path().join("closure.d"),
            ..Config::default()
        };
        fs::create_dir(&config.policy).unwrap();
        fs::create_dir(&config.trust).unwrap();
        let runtime = OciRuntime {
            name: "runc".to_owned(),
            program: "/nonexistent/runc".to_owned(),
        };
        assert!(runtime.calls(&config).is_none(), "no policy");
        for (mode, measured) in [("complain", None), ("enforce", Some(Standing::Warn))] {
            let rule = format!(
                "[[rule]]\nname = 'x'\nmatch = {{ image = ['**'] }}\ndigest = ['{}']\n[rule.seccomp]\nmode = '{mode}'\n",
                crate::digest::Digest::of(b"")
            );
            fs::write(config.policy.join("50.toml"), rule).unwrap();
            crate::policy::activate::activate(&config).unwrap();
            assert_eq!(runtime.calls(&config).map(|check| check.standing), measured, "{mode}");
        }
    }

    #[test]
    fn an_old_containerd_is_found() {
        let of = |number| {
            release(&Release {
                number,
                text: String::new(),
            })
        };
        assert_eq!(of((1, 6, 20)).standing, Standing::Pass);
        assert_eq!(of((2, 3, 0)).standing, Standing::Pass);
        let check = of((1, 6, 19));
        assert_eq!((check.code, check.standing), ("containerd-release", Standing::Fail));
    }

    #[test]
    fn a_shim_of_another_release_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join(SHIM);
        assert_eq!(shim_program(&shim).standing, Standing::Fail);
        for (says, standing) in [(env!("CARGO_PKG_VERSION"), Standing::Pass), ("9.9.9", Standing::Fail)] {
            // Written under another name: a file that is open for writing cannot be run.
            let new = folder.path().join("new");
            fs::write(&new, format!("#!/bin/sh\necho {SHIM} {says}\n")).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(&new, &shim).unwrap();
            assert_eq!(shim_program(&shim).standing, standing, "{says}");
        }
    }

    #[test]
    fn an_oci_runtime_that_does_not_run_is_found() {
        let check = runtime_version("runc", said(&mut Command::new("/nonexistent/runc")));
        assert_eq!((check.code, check.standing), ("oci-runtime", Standing::Fail));
        assert_eq!(
            runtime_version("runc", Ok("runc version 1.1".to_owned())).standing,
            Standing::Pass
        );
        assert_eq!(found("sh", Some(vec!["/nonexistent".into(), "/bin".into()])), "/bin/sh");
        assert_eq!(found("/x/runc", Some(vec!["/bin".into()])), "/x/runc");
    }

    #[test]
    fn a_shim_without_its_label_is_found() {
        let shim = Path::new("/usr/bin/containerd-shim-assay-v1");
        let of = |enforce, context| selinux(enforce, context, shim).standing;
        assert_eq!(of(None, None), Standing::Pass);
        let right = Some("system_u:object_r:container_runtime_exec_t:s0");
        assert_eq!(of(Some("1"), right), Standing::Pass);
        let wrong = Some("system_u:object_r:bin_t:s0");
        assert_eq!(of(Some("1\n"), wrong), Standing::Fail);
        assert_eq!(of(Some("0"), wrong), Standing::Warn);
        assert_eq!(of(Some("1"), None), Standing::Fail);
    }
}
