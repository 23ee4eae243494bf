//! Vulnerabilities of the kernel that a profile puts out of reach and containerd's default profile does not.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::admission::filter::Shown;
use crate::seccomp::runtime_default;
use crate::syscalls::{Machine, number};

/// The vulnerabilities of `config/syscalls/cves.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// The day when they were last looked through.
    as_of: String,
    cve: Vec<Cve>,
}

/// A vulnerability of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::cli) struct Cve {
    /// CVE identifier.
    pub(in crate::cli) id: String,
    /// The calls by one of which it is reached.
    pub(in crate::cli) calls: Vec<String>,
    /// What it is, in a line.
    pub(in crate::cli) what: String,
    /// Where that can be read.
    pub(in crate::cli) source: String,
}

impl Cve {
    /// Identifier, calls and what it is, in a line.
    pub(in crate::cli) fn line(&self) -> String {
        format!("{} ({}): {}", self.id, self.calls.join(", "), self.what)
    }
}

static KNOWN: LazyLock<Known> =
    LazyLock::new(|| toml::from_str(include_str!("../../../config/syscalls/cves.toml")).unwrap_or_default());

/// The day of the data.
pub(in crate::cli) fn as_of() -> &'static str {
    &KNOWN.as_of
}

/// Those of which every way in is refused to a container, and one is not by containerd's default profile.
pub(in crate::cli) fn out_of_reach(shown: &Shown) -> Vec<&'static Cve> {
    let machine = Machine::native();
    let default = runtime_default(None, machine, []).effective(machine);
    let allows = |name: &str| shown.reasons.get(name).is_some_and(|reason| reason.allows());
    beyond(machine, |name| default.contains_key(name), allows)
}

fn beyond(machine: Machine, default: impl Fn(&str) -> bool, allows: impl Fn(&str) -> bool) -> Vec<&'static Cve> {
    let is_beyond = |cve: &&Cve| {
        let calls = || cve.calls.iter().filter(|name| number(machine, name).is_some());
        calls().any(|name| default(name)) && !calls().any(|name| allows(name))
    };
    KNOWN.cve.iter().filter(is_beyond).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_calls_that_exist_a_line_and_a_source() {
        let known: Known = toml::from_str(include_str!("../../../config/syscalls/cves.toml")).unwrap();
        assert!(known.as_of.parse::<jiff::civil::Date>().is_ok());
        let mut ids: Vec<&str> = known.cve.iter().map(|cve| cve.id.as_str()).collect();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "{ids:?}");
        for cve in &known.cve {
            assert!(
                cve.id.starts_with("CVE-") && cve.source.starts_with("https://"),
                "{cve:?}"
            );
            assert!(
                !cve.what.is_empty() && !cve.what.contains('\n') && !cve.calls.is_empty(),
                "{cve:?}"
            );
            for call in &cve.calls {
                assert!(number(Machine::X86_64, call).is_some(), "{}: {call}", cve.id);
            }
        }
    }

    #[test]
    fn what_the_default_refuses_too_or_one_way_leads_to_is_not_counted() {
        let machine = Machine::X86_64;
        let ids = |default: &[&str], allowed: &[&str]| -> Vec<&str> {
            let found = beyond(machine, |name| default.contains(&name), |name| allowed.contains(&name));
            found.iter().map(|cve| cve.id.as_str()).collect()
        };
        assert_eq!(ids(&["waitid", "read"], &["read"]), ["CVE-2017-5123", "CVE-2017-14954"]);
        assert_eq!(ids(&["waitid"], &["waitid"]), [""; 0]);
        assert_eq!(ids(&["read"], &[]), [""; 0]);
        assert_eq!(ids(&["shmget", "msgget"], &[]), ["CVE-2015-7613"]);
        assert_eq!(ids(&["shmget", "msgget"], &["semget"]), [""; 0]);
    }
}
