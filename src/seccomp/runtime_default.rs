//! The profile that containerd gives a pod which asks for `RuntimeDefault`, from `config/seccomp/containerd.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

use super::profile::{Action, Architecture, Entry, Profile};
use crate::syscalls::Machine;

const TEXT: &str = include_str!("../../config/seccomp/containerd.toml");

/// Names by capability, written `CAP_SYS_ADMIN`.
type ByCapability = BTreeMap<String, Vec<String>>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    default_action: Action,
    architectures: Architectures,
    allow: Vec<String>,
    capability: ByCapability,
    rule: Vec<Entry>,
    version: Vec<Version>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Architectures {
    x86_64: Vec<Architecture>,
    aarch64: Vec<Architecture>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Version {
    /// Major and minor number.
    containerd: String,
    /// What was measured, for reviewers.
    measured: String,
    remove: BTreeSet<String>,
    allow: Vec<String>,
    capability: ByCapability,
}

static DATA: LazyLock<Option<Data>> = LazyLock::new(|| toml::from_str(TEXT).ok());

/// What containerd writes as the default profile.
///
/// `containerd` is its version, such as `1.7.24`; without one, or with one that is no number, that of the newest one
/// known. `capabilities` are those of the bounding set, such as `CAP_SYS_ADMIN`: containerd allows what they are
/// good for.
#[must_use]
pub fn runtime_default<'a>(
    containerd: Option<&str>,
    machine: Machine,
    capabilities: impl IntoIterator<Item = &'a str>,
) -> Profile {
    let Some(data) = &*DATA else {
        // A test reads the file; without it nothing is known to be allowed.
        return Profile::allow(machine, std::iter::empty::<String>());
    };
    let none = Version::default();
    let version = data.version(containerd).unwrap_or(&none);
    let mut allowed: BTreeSet<&String> = data.allow.iter().collect();
    let capabilities: Vec<&str> = capabilities.into_iter().collect();
    allowed.extend(by_capability(&data.capability, &capabilities));
    allowed.retain(|name| !version.remove.contains(*name));
    allowed.extend(&version.allow);
    allowed.extend(by_capability(&version.capability, &capabilities));
    let rules = data
        .rule
        .iter()
        .filter(|rule| !rule.names.iter().any(|name| allowed.contains(name)));
    let rules: Vec<Entry> = rules.cloned().collect();
    let mut profile = Profile::allow(machine, allowed.into_iter().cloned());
    profile.default_action = data.default_action;
    profile.default_errno_ret = None;
    profile.architectures.clone_from(match machine {
        Machine::X86_64 => &data.architectures.x86_64,
        Machine::Aarch64 => &data.architectures.aarch64,
    });
    profile.syscalls.extend(rules);
    profile
}

fn by_capability<'a>(table: &'a ByCapability, capabilities: &[&str]) -> impl Iterator<Item = &'a String> {
    capabilities
        .iter()
        .filter_map(|capability| table.get(*capability))
        .flatten()
}

impl Data {
    fn version(&self, containerd: Option<&str>) -> Option<&Version> {
        let wanted = containerd.and_then(number);
        let is_old_enough = |version: &&Version| {
            wanted.is_none_or(|wanted| number(&version.containerd).is_some_and(|known| known <= wanted))
        };
        self.version.iter().rfind(is_old_enough).or(self.version.first())
    }
}

/// Major and minor number of a version, with or without a `v` before it.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix('v').unwrap_or(version).split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(minor.len());
    Some((major, minor.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::profile::Permission;
    use super::*;

    /// What containerd gives a container that asks for none in particular.
    const CAPABILITIES: [&str; 14] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ];

    fn permission(containerd: &str, capabilities: &[&str], name: &str) -> Permission {
        let profile = runtime_default(Some(containerd), Machine::X86_64, capabilities.iter().copied());
        profile.rules().permission(name)
    }

    #[test]
    fn the_file_is_readable_and_its_versions_are_in_order() {
        let data: Data = toml::from_str(TEXT).unwrap();
        let versions: Vec<_> = data
            .version
            .iter()
            .map(|version| number(&version.containerd).unwrap())
            .collect();
        assert!(versions.is_sorted());
        assert!(
            data.version
                .iter()
                .all(|version| version.measured.starts_with(&version.containerd))
        );
        let (known, asked) = (
            data.version(Some("1.5.9")).unwrap(),
            data.version(Some("v3.0.0-rc.1")).unwrap(),
        );
        assert_eq!((known.containerd.as_str(), asked.containerd.as_str()), ("1.6", "2.1"));
    }

    #[test]
    fn a_capability_allows_what_it_is_good_for() {
        for (version, capabilities, name, expected) in [
            ("2.1.9", &[][..], "mount", Permission::Never),
            ("2.1.9", &["CAP_SYS_ADMIN"], "mount", Permission::Always),
            ("2.1.9", &[], "clone", Permission::Sometimes),
            ("2.1.9", &["CAP_SYS_ADMIN"], "clone", Permission::Always),
            ("2.1.9", &[], "clone3", Permission::Never),
            ("2.1.9", &["CAP_SYS_ADMIN"], "clone3", Permission::Always),
            ("1.6.20", &[], "name_to_handle_at", Permission::Never),
            ("1.6.20", &["CAP_SYS_ADMIN"], "name_to_handle_at", Permission::Always),
            ("1.6.20", &[], "io_uring_setup", Permission::Always),
            ("1.7.24", &[], "io_uring_setup", Permission::Always),
            ("2.1.9", &[], "io_uring_setup", Permission::Never),
            ("1.6.20", &[], "socket", Permission::Always),
            ("2.1.9", &[], "socket", Permission::Sometimes),
        ] {
            assert_eq!(
                permission(version, capabilities, name),
                expected,
                "{version} {capabilities:?} {name}"
            );
        }
    }

    #[test]
    fn names_are_counted_by_the_machine_that_has_them() {
        let count = |containerd, machine| {
            runtime_default(Some(containerd), machine, CAPABILITIES)
                .effective(machine)
                .len()
        };
        let counts = [Machine::X86_64, Machine::Aarch64]
            .map(|machine| ["1.6", "1.7", "2.1"].map(|version| count(version, machine)));
        assert_eq!(counts, [[295, 304, 301], [272, 281, 278]]);
    }
}
