//! The system calls that OCI runtimes make themselves under a container's filter, as they were measured; see
//! [`measure`](super::measure()).

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::measure::Measured;
use crate::diagnostic::printable;
use crate::store::{self, StateDir};

/// What was measured before this program was built.
const TEXT: &str = include_str!("../../config/seccomp/base.toml");
/// What was measured on this node, below the state.
const FILE: &str = "base.json";
/// Largest file of it in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Most runtimes that a node has.
const MAX_RUNTIMES: usize = 32;

/// One version of an OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Base {
    /// Name of the program, without its directory.
    pub name: String,
    /// First line of what it says about its version.
    pub version: String,
    /// Names of its calls where no new privileges are possible: the filter is loaded last.
    pub no_new_privileges: BTreeSet<String>,
    /// Names of its calls otherwise.
    pub privileges: BTreeSet<String>,
}

/// What a measurement does not say about calls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remark {
    /// Programs that it is about; none: all.
    #[serde(default)]
    runtimes: Vec<String>,
    calls: BTreeSet<String>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for reviewers"))]
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// Calls that a runtime may make at any time, although a measurement need not show them.
    anytime: Vec<Remark>,
    /// Calls that a runtime makes, and goes on without where they are refused.
    spared: Vec<Remark>,
    runtime: Vec<Base>,
}

static KNOWN: LazyLock<Known> = LazyLock::new(|| toml::from_str(TEXT).unwrap_or_default());

impl Remark {
    fn is_about(&self, name: &str) -> bool {
        self.runtimes.is_empty() || self.runtimes.iter().any(|runtime| runtime == name)
    }
}

impl Base {
    /// A measurement of a program.
    #[must_use]
    pub fn of(program: &Path, measured: Measured) -> Self {
        Self {
            name: name(&program.display().to_string()),
            version: printable(&measured.version).into_owned(),
            no_new_privileges: measured.no_new_privileges,
            privileges: measured.privileges,
        }
    }

    /// Calls of this measurement that [`base`] does not know by the list and by `measured`: with `noNewPrivileges`, and
    /// without.
    #[must_use]
    pub fn unknown(&self, measured: &[Self]) -> [Vec<String>; 2] {
        [true, false].map(|no_new_privileges| {
            let known = base(&self.name, no_new_privileges, measured);
            let calls = self.calls(no_new_privileges).difference(&known);
            calls.filter(|call| !is_spared(&self.name, call)).cloned().collect()
        })
    }

    fn calls(&self, no_new_privileges: bool) -> &BTreeSet<String> {
        if no_new_privileges {
            &self.no_new_privileges
        } else {
            &self.privileges
        }
    }
}

fn is_spared(name: &str, call: &str) -> bool {
    let spared = |remark: &Remark| remark.is_about(name) && remark.calls.contains(call);
    KNOWN.spared.iter().any(spared)
}

fn name(program: &str) -> String {
    program.rsplit('/').next().unwrap_or(program).to_owned()
}

/// What is known of the runtimes of this program's list.
#[must_use]
pub fn known() -> &'static [Base] {
    &KNOWN.runtime
}

/// What was measured on this node, newest last.
///
/// # Errors
/// When the state cannot be read.
pub fn measured(state: &StateDir) -> Result<Vec<Base>, store::Error> {
    let bytes = state.read(FILE, MAX_BYTES)?.unwrap_or_default();
    // A damaged file says nothing; measuring again replaces it.
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// Keeps a measurement for the decisions of this node, in place of one of the same version.
///
/// # Errors
/// When the state cannot be written.
pub fn keep(state: &StateDir, base: &Base) -> Result<(), store::Error> {
    let mut all = measured(state)?;
    all.retain(|other| (&other.name, &other.version) != (&base.name, &base.version));
    all.push(base.clone());
    let surplus = all.len().saturating_sub(MAX_RUNTIMES);
    all.drain(..surplus);
    state.write(FILE, &serde_json::to_vec(&all).unwrap_or_default())
}

/// The calls that a runtime may make itself: of every version of it that is known, since a node updates its runtime
/// without asking, or of every runtime where none of this name is known.
#[must_use]
pub fn base(program: &str, no_new_privileges: bool, measured: &[Base]) -> BTreeSet<String> {
    let name = name(program);
    let all = || KNOWN.runtime.iter().chain(measured);
    let is_known = all().any(|base| base.name == name);
    let mut calls: BTreeSet<String> = all()
        .filter(|base| !is_known || base.name == name)
        .flat_map(|base| base.calls(no_new_privileges).iter().cloned())
        .collect();
    for anytime in &KNOWN.anytime {
        if !is_known || anytime.is_about(&name) {
            calls.extend(anytime.calls.iter().cloned());
        }
    }
    calls.retain(|call| !is_spared(&name, call));
    calls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::{Machine, number};

    #[test]
    fn the_list_is_readable_and_names_calls() {
        let known: Known = toml::from_str(TEXT).unwrap();
        let remarks = || known.anytime.iter().chain(&known.spared);
        assert!(remarks().all(|remark| remark.reason.len() > 20));
        let names = known
            .runtime
            .iter()
            .flat_map(|base| base.no_new_privileges.iter().chain(&base.privileges))
            .chain(remarks().flat_map(|remark| &remark.calls));
        for name in names {
            assert!(number(Machine::X86_64, name).is_some(), "{name}");
        }
    }

    #[test]
    fn an_unknown_runtime_gets_what_any_needs_and_a_known_one_its_own() {
        let runc = base("/usr/sbin/runc", true, &[]);
        assert!(runc.contains("execve") && !runc.contains("setuid"), "{runc:?}");
        assert!(base("runc", false, &[]).contains("setuid"));
        assert!(base("youki", true, &[]).is_superset(&base("crun", true, &[])));
        let newer = Base {
            name: "runc".to_owned(),
            version: "runc version 9".to_owned(),
            no_new_privileges: BTreeSet::from(["getrandom".to_owned()]),
            privileges: BTreeSet::new(),
        };
        assert!(base("runc", true, &[newer]).contains("getrandom"));
    }

    #[test]
    fn what_a_runtime_goes_on_without_is_neither_allowed_nor_missed() {
        for no_new_privileges in [true, false] {
            let calls = base("runc", no_new_privileges, known());
            assert!(!calls.contains("fsopen") && calls.contains("statx"), "{calls:?}");
        }
        for base in known() {
            assert_eq!(
                base.unknown(&[]),
                [Vec::<String>::new(), Vec::new()],
                "{}",
                base.version
            );
        }
    }

    #[test]
    fn what_was_measured_is_kept_once_for_each_version() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let base = known().first().unwrap();
        for _ in 0..2 {
            keep(&state, base).unwrap();
        }
        assert_eq!(measured(&state).unwrap(), std::slice::from_ref(base));
    }
}
