//! What Assay needs of the kernel, tried.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use jiff::Timestamp;

use super::{Check, Group};
use crate::admission::parser::{self, ParserFault};
use crate::config::Config;
use crate::policy::{Active, Deny, activate};
use crate::store::StateDir;
use crate::view;

const KERNEL: Group = Group("kernel");

/// What the kernel's system-call filters can do.
const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";

pub(super) fn checks(config: &Config) -> Vec<Check> {
    // Below the folder of the state, since views lie on its file system; where there is none yet, beside it.
    let near = config.state.ancestors().find(|folder| folder.exists());
    let folder = near
        .unwrap_or(Path::new("/"))
        .join(format!(".assay-doctor-{}", std::process::id()));
    let tried = StateDir::open(&folder).map_err(|error| error.to_string());
    let mut checks = Vec::new();
    match &tried {
        Ok(home) => {
            checks.push(views(view::way(home, home).map(view::Way::name)));
            checks.push(cage(shut_in(home)));
        }
        Err(error) => checks.push(KERNEL.fail(
            "kernel-views",
            format!("nothing could be tried: {error}"),
            format!("make {} root's own", near.unwrap_or(Path::new("/")).display()),
        )),
    }
    let _ = fs::remove_dir_all(&folder);
    checks.push(filters(&fs::read_to_string(ACTIONS).unwrap_or_default()));
    checks
}

/// Whether an image can be shown in part.
fn views(tried: Result<&'static str, view::Error>) -> Check {
    match tried {
        Ok(way) => KERNEL.pass("kernel-views", format!("a view of an image can be shown ({way})")),
        Err(error) => KERNEL.fail("kernel-views", error.to_string(), error.fix()),
    }
}

/// Has a parser shut itself in and judge an empty cache.
fn shut_in(home: &StateDir) -> Result<(), ParserFault> {
    let now = Timestamp::now();
    let nothing = Active {
        version: activate::VERSION,
        generation: 0,
        time: now,
        sources: Vec::new(),
        keys: Vec::new(),
        builders: Vec::new(),
        notation: Vec::new(),
        roots: Vec::new(),
        closure: Vec::new(),
        deny: Deny::default(),
        rules: Vec::new(),
        tunings: Vec::new(),
    };
    let deadline = Instant::now() + Config::default().admit_timeout;
    parser::ask(home.as_fd(), &nothing.question(&[], now), deadline).map(drop)
}

fn cage(tried: Result<(), ParserFault>) -> Check {
    match tried {
        Ok(()) => KERNEL.pass("kernel-parser", "a parser of evidence can be shut in"),
        Err(error) => KERNEL.fail("kernel-parser", format!("a parser {error}"), error.fix()),
    }
}

/// Whether the kernel's filters know what profiles ask for.
fn filters(actions: &str) -> Check {
    let has = |action: &str| actions.split_whitespace().any(|known| known == action);
    let missing: Vec<&str> = ["allow", "errno", "user_notif"]
        .into_iter()
        .filter(|action| !has(action))
        .collect();
    if missing.is_empty() {
        KERNEL.pass("kernel-seccomp", "system calls can be filtered, and asked about")
    } else {
        KERNEL.fail(
            "kernel-seccomp",
            format!("{ACTIONS} lacks {}", missing.join(", ")),
            "use Linux 5.5 or newer with CONFIG_SECCOMP_FILTER",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;
    use crate::admission::parser::ParserFault;

    #[test]
    fn filters_that_lack_an_action_are_found() {
        let all = "kill_process kill_thread trap errno user_notif trace log allow\n";
        assert_eq!(filters(all).standing, Standing::Pass);
        for (actions, said) in [("", "allow, errno, user_notif"), ("errno allow", "user_notif")] {
            let check = filters(actions);
            assert_eq!(check.standing, Standing::Fail);
            assert!(check.reason.ends_with(said), "{}", check.reason);
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_said_with_a_next_step() {
        let check = views(Err(view::Error::NoWay("permission denied".to_owned())));
        assert_eq!((check.code, check.standing), ("kernel-views", Standing::Fail));
        assert!(!check.fix.is_empty());
        let check = cage(Err(ParserFault::QuestionTooLarge));
        assert_eq!((check.code, check.standing), ("kernel-parser", Standing::Fail));
        assert!(!check.fix.is_empty());
    }
}
