//! Complain mode: the profile under which every call that enforcing would refuse is asked about, and what was seen.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::profile::{Action, Entry, Permission, Profile};
use crate::digest::Digest;
use crate::syscalls::{self, Machine};

/// The call that no OCI runtime lets a listener decide about: it tells through it where the listener is.
const NEVER_ASKED: &str = "write";
/// Directory of the listeners' sockets, below the one for what dies with the boot.
const SOCKETS: &str = "complain";

/// Where a container's OCI runtime finds its listener; `run` is the directory for what dies with the boot.
#[must_use]
pub fn listener(run: &Path, namespace: &str, container: &str) -> PathBuf {
    let name = Digest::of(format!("{namespace}\0{container}").as_bytes()).hex();
    // Half of it still tells any two containers apart, and the path must be short.
    run.join(SOCKETS).join(name.get(..32).unwrap_or(&name))
}

/// The profile of a container in complain mode: as `own`, but calls that `own` lets through and `enforced` refuses
/// altogether are told to a listener at the socket `listener`, which lets them go on.
///
/// Its default is that of `own` and it has the same architectures, so nothing is refused that was not, and nothing let
/// through that was not. A container without a profile gets one that lets everything else through. `None` where `own`
/// has a listener already: it cannot have two.
///
/// Calls of the machine alone are listed where `own` lets through what it does not name. Calls that either profile
/// decides by their arguments stay as they are.
#[must_use]
pub fn complain(own: Option<&Profile>, enforced: &Profile, machine: Machine, listener: &str) -> Option<Profile> {
    let mut profile = own.cloned().unwrap_or_else(|| unconfined(machine));
    if !profile.listener_path.is_empty() {
        return None;
    }
    if profile.default_action == Action::Allow {
        // They do what the default does, so runtimes leave them out; as questions they would undo other rules.
        profile.syscalls.retain(|entry| entry.action != Action::Allow);
    }
    let (rules, enforced) = (profile.rules(), enforced.rules());
    let named: BTreeSet<String> = profile.syscalls.iter().flat_map(|entry| entry.names.clone()).collect();
    let asked = |name: &str| {
        name != NEVER_ASKED
            && rules.permission(name) != Permission::Never
            && enforced.permission(name) == Permission::Never
    };
    let mut entries = Vec::new();
    for entry in profile.syscalls {
        let (asked, other): (Vec<String>, Vec<String>) = match entry.action {
            Action::Allow => entry.names.into_iter().partition(|name| asked(name)),
            _ => (Vec::new(), entry.names),
        };
        for (names, action) in [(other, entry.action), (asked, Action::Notify)] {
            if !names.is_empty() {
                entries.push(Entry {
                    names,
                    action,
                    errno_ret: entry.errno_ret,
                    args: entry.args.clone(),
                });
            }
        }
    }
    if profile.default_action == Action::Allow {
        let others = syscalls::all(machine).map(|(_, name)| name);
        let names: Vec<String> = others
            .filter(|name| !named.contains(*name) && asked(name))
            .map(str::to_owned)
            .collect();
        if !names.is_empty() {
            entries.push(Entry {
                names,
                action: Action::Notify,
                errno_ret: None,
                args: Vec::new(),
            });
        }
    }
    if entries.iter().any(|entry| entry.action == Action::Notify) {
        listener.clone_into(&mut profile.listener_path);
    }
    profile.syscalls = entries;
    Some(profile)
}

/// What has no profile, written as one.
fn unconfined(machine: Machine) -> Profile {
    let mut profile = super::runtime_default(None, machine, []);
    profile.default_action = Action::Allow;
    profile.syscalls.clear();
    profile
}

/// Version of the [`Seen`] document.
pub const SEEN_VERSION: u32 = 1;
/// Directory of Assay's state in which these documents are, one below it for each containerd namespace.
pub const SEEN_DIRECTORY: &str = "complaints";
/// Largest document that is read.
pub const MAX_SEEN: u64 = 1 << 20;

/// What a container did in complain mode: a document of Assay's state, written by its shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    /// [`SEEN_VERSION`].
    pub version: u32,
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// Since when it was listened to, RFC 3339, UTC.
    pub since: String,
    /// When this was written.
    pub until: String,
    /// Calls that enforcing would have refused.
    pub calls: Vec<Call>,
    /// Calls that are in no line because there were too many kinds of them.
    #[serde(default)]
    pub further: u64,
}

/// One system call by one program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// `AUDIT_ARCH_…` of the caller, which says what the number means.
    pub architecture: u32,
    /// Number of the call.
    pub number: u32,
    /// Path of the program in the container; empty where there were too many.
    pub program: String,
    /// The process that made it first, as the node numbers it, and the name of that process.
    pub process: u32,
    /// Name of that process.
    pub name: String,
    /// How often it was made.
    pub count: u64,
    /// When it was made first, RFC 3339, UTC.
    pub first: String,
    /// When it was made last.
    pub last: String,
}

/// Why a record of complain mode cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// Not a record.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// Of another version.
    #[error("it has version {0}, this assay reads {SEEN_VERSION}")]
    Version(u32),
}

impl Seen {
    /// Reads a record.
    ///
    /// # Errors
    /// What is none, or has another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, SeenError> {
        let seen: Self = serde_json::from_slice(bytes)?;
        if seen.version != SEEN_VERSION {
            return Err(SeenError::Version(seen.version));
        }
        Ok(seen)
    }
}

impl Call {
    /// Name of the call, if the caller's architecture is one that is understood.
    #[must_use]
    pub fn call(&self) -> Option<&'static str> {
        super::machine_of(self.architecture).and_then(|machine| syscalls::name(machine, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine::X86_64;

    fn actions(profile: &Profile, names: &[&str]) -> Vec<Action> {
        let rules = profile.rules();
        names.iter().map(|name| rules.verdict(name, &[0; 6]).action).collect()
    }

    #[test]
    fn what_enforcing_would_refuse_is_asked_about_and_nothing_else_changes() {
        let own = super::super::runtime_default(Some("2.1"), MACHINE, []);
        let derived = ["read", "write", "clone", "personality"].map(str::to_owned);
        let enforced = super::super::narrow(Some(&own), derived, &BTreeSet::new(), MACHINE);
        let profile = complain(Some(&own), &enforced, MACHINE, "/run/l").unwrap();
        assert_eq!(
            actions(
                &profile,
                &["read", "write", "ptrace", "mount", "clone", "clone3", "unknown"]
            ),
            [
                Action::Allow,
                Action::Allow,
                Action::Notify,
                Action::Errno,
                Action::Allow,
                Action::Errno,
                Action::Errno
            ]
        );
        assert_eq!(
            (
                profile.default_action,
                &profile.architectures,
                profile.listener_path.as_str()
            ),
            (own.default_action, &own.architectures, "/run/l")
        );
        // A condition stays one.
        assert_eq!(profile.verdict("socket", &[2, 0, 0, 0, 0, 0]).action, Action::Notify);
        assert_eq!(profile.verdict("socket", &[40, 0, 0, 0, 0, 0]).action, Action::Errno);
        assert_eq!(Profile::parse(&profile.to_json()).unwrap(), profile);
        assert_eq!(complain(Some(&profile), &enforced, MACHINE, "/run/l"), None);
    }

    #[test]
    fn a_container_without_a_profile_is_asked_about_everything_it_does_not_need() {
        let enforced = Profile::allow(MACHINE, ["read"]);
        let profile = complain(None, &enforced, MACHINE, "/run/l").unwrap();
        assert_eq!(
            actions(&profile, &["read", "write", "mount", "unknown"]),
            [Action::Allow, Action::Allow, Action::Notify, Action::Allow]
        );
        let open = Profile::parse(
            br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mount"],"action":"SCMP_ACT_ERRNO"}]}"#,
        );
        let profile = complain(Some(&open.unwrap()), &enforced, MACHINE, "/run/l").unwrap();
        assert_eq!(actions(&profile, &["mount", "ptrace"]), [Action::Errno, Action::Notify]);
    }

    #[test]
    fn sockets_have_short_paths_of_their_own() {
        let run = Path::new("/run/assay");
        let id = "a".repeat(64);
        let path = super::listener(run, "k8s.io", &id);
        assert!(path.as_os_str().len() < 100);
        assert_ne!(path, super::listener(run, "moby", &id));
    }

    #[test]
    fn without_anything_to_ask_there_is_no_listener() {
        let own = Profile::allow(MACHINE, ["read"]);
        assert_eq!(complain(Some(&own), &own, MACHINE, "/run/l"), Some(own));
    }
}
