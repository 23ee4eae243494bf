//! Assay's own directories, and the clock.

use std::path::Path;

use super::{Check, Group};
use crate::config::Config;
use crate::store::{self, StateDir};
use crate::trust::clock::Clock;

const STATE: Group = Group("state");

/// Below this much free space the next decisions can no longer be written.
const LEAST_FREE: u64 = 64 << 20;

pub(super) fn checks(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    for (code, path) in [("state-directory", &config.state), ("run-directory", &config.run)] {
        checks.push(directory(code, path));
    }
    // Where there is nothing yet there is nothing to measure, and nothing is made for that.
    if config.state.exists()
        && let Ok(state) = StateDir::open(&config.state)
    {
        checks.push(space(&config.state, free(&config.state)));
        checks.push(clock(&Clock::read(&state)));
    }
    checks
}

/// Whether a directory is Assay's alone. One that does not exist yet is made when it is needed.
fn directory(code: &'static str, path: &Path) -> Check {
    let near = path
        .ancestors()
        .find(|folder| folder.exists())
        .unwrap_or(Path::new("/"));
    if near != path {
        return STATE.pass(code, format!("{} will be made when it is needed", path.display()));
    }
    match StateDir::open(path) {
        Ok(_) => STATE.pass(code, format!("{} is root's alone", path.display())),
        Err(error) => STATE.fail(
            code,
            error.to_string(),
            match error {
                store::Error::Io { .. } => format!("see what is wrong with {}", path.display()),
                _ => format!(
                    "find out who has changed what is in it, then: chown root {path}; chmod 0700 {path}",
                    path = path.display()
                ),
            },
        ),
    }
}

fn free(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

fn space(path: &Path, free: Option<u64>) -> Check {
    let mib = free.map_or(0, |free| free >> 20);
    if free.is_some_and(|free| free < LEAST_FREE) {
        return STATE.fail(
            "state-space",
            format!(
                "the file system of {} has {mib} MiB left; without space every container is refused",
                path.display()
            ),
            "free space there, with assay evidence gc for example",
        );
    }
    STATE.pass(
        "state-space",
        format!("the file system of {} has {mib} MiB left", path.display()),
    )
}

fn clock(clock: &Clock) -> Check {
    const CODE: &str = "clock";
    if clock.mark.is_none() {
        return STATE.fail(
            CODE,
            "the record of the latest known time is damaged, so no time can be judged",
            "assay trust clock --reset",
        );
    }
    if clock.is_behind() {
        return STATE.fail(
            CODE,
            format!(
                "this node's clock says {}, and {} has passed already",
                clock.now,
                clock.latest()
            ),
            "set this node's clock",
        );
    }
    STATE.pass(
        CODE,
        "this node's clock is not behind a time that someone trusted vouched for",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use jiff::{SignedDuration, Timestamp};

    use super::super::Standing;
    use super::*;

    #[test]
    fn a_directory_that_others_can_enter_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(directory("state-directory", &path).standing, Standing::Pass);
        assert!(!path.exists(), "looking made it");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let check = directory("state-directory", &path);
        assert_eq!(check.standing, Standing::Fail, "{check:?}");
        assert!(check.fix.contains("chmod 0700"), "{check:?}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(directory("state-directory", &path).standing, Standing::Pass);
    }

    #[test]
    fn a_full_file_system_is_found() {
        let path = Path::new("/var/lib/assay");
        assert_eq!(space(path, Some(LEAST_FREE)).standing, Standing::Pass);
        assert_eq!(space(path, Some(LEAST_FREE - 1)).standing, Standing::Fail);
        assert!(free(Path::new("/")).is_some());
    }

    #[test]
    fn a_clock_that_is_behind_is_found() {
        let now = Timestamp::now();
        let of = |mark| clock(&Clock { now, mark }).standing;
        assert_eq!(of(Some(now)), Standing::Pass);
        assert_eq!(of(Some(now + SignedDuration::from_hours(1))), Standing::Fail);
        assert_eq!(of(None), Standing::Fail);
    }
}
