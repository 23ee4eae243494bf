//! System calls that are kept together, from `config/seccomp/siblings.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use crate::syscalls::{self, Machine};

const TEXT: &str = include_str!("../../config/seccomp/siblings.toml");

/// Calls of which a library may take any in place of another.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Their names, on all machines.
    pub calls: Vec<String>,
    /// Why they are kept together.
    pub reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Groups {
    group: Vec<Group>,
}

static GROUPS: LazyLock<Groups> = LazyLock::new(|| toml::from_str(TEXT).unwrap_or_default());

/// Why a call was added: the call that is there, and the group that both are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sibling<'a> {
    /// The call beside which it is allowed.
    pub of: &'a str,
    /// The group.
    pub group: &'static Group,
}

/// The calls of a machine that are to be allowed beside `calls`, each with its reason; none of `calls` itself.
#[must_use]
pub fn siblings<'a>(calls: &'a BTreeSet<String>, machine: Machine) -> BTreeMap<&'static str, Sibling<'a>> {
    let mut added: BTreeMap<&'static str, Sibling<'a>> = BTreeMap::new();
    for group in &GROUPS.group {
        let Some(of) = group.calls.iter().find_map(|call| calls.get(call)) else {
            continue;
        };
        for call in &group.calls {
            if !calls.contains(call) && syscalls::number(machine, call).is_some() {
                added.entry(call).or_insert(Sibling { of, group });
            }
        }
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(calls: &[&str]) -> BTreeSet<String> {
        calls.iter().map(|call| (*call).to_owned()).collect()
    }

    #[test]
    fn every_group_has_its_reason_and_names_calls_that_exist() {
        let groups: Groups = toml::from_str(TEXT).unwrap();
        assert!(groups.group.len() > 20);
        for group in &groups.group {
            assert!(group.reason.len() > 20 && group.calls.len() > 1, "{group:?}");
            for call in &group.calls {
                assert!(syscalls::number(Machine::X86_64, call).is_some(), "{call}");
            }
        }
    }

    #[test]
    fn all_of_a_group_is_added_beside_any_of_it_on_the_machines_that_have_it() {
        let calls = set(&["openat", "ptrace"]);
        let added = siblings(&calls, Machine::X86_64);
        let names: Vec<&str> = added.keys().copied().collect();
        assert_eq!(names, ["creat", "open", "openat2"]);
        assert_eq!(added["open"].of, "openat");
        assert_eq!(
            siblings(&calls, Machine::Aarch64).into_keys().collect::<Vec<_>>(),
            ["openat2"]
        );
        assert!(siblings(&set(&["ptrace", "socket"]), Machine::X86_64).is_empty());
    }
}
