//! The system calls of a container, against containerd's default profile.

use serde::Serialize;

use crate::admission::filter::{Origin, Shown};
use crate::cli::seccomp::cves::{self, Cve};
use crate::seccomp::runtime_default;
use crate::syscalls::{Machine, all};

/// Calls that attacks are made of: the seventeen that Ghavamnia and others count (Temporal System Call Specialization for
/// Attack Surface Reduction, USENIX Security 2020).
const SENSITIVE: &[&str] = &[
    "accept", "accept4", "bind", "chmod", "clone", "connect", "execve", "execveat", "fork", "listen", "mprotect",
    "ptrace", "recvfrom", "setgid", "setreuid", "setuid", "socket",
];

/// How many calls a container can make, of those that this machine has.
#[derive(Debug, Serialize)]
pub(super) struct Calls {
    /// What its profile is made from.
    pub(super) from: Origin,
    /// All that this machine has.
    pub(super) all: usize,
    /// Those that its profile under enforce lets through.
    pub(super) allowed: usize,
    /// Those that containerd's default profile lets through, for a container without capabilities.
    pub(super) default: usize,
    /// Those that the default lets through and its profile does not.
    pub(super) refused: Vec<String>,
    /// Those that attacks are made of and that its profile lets through.
    pub(super) sensitive: Vec<String>,
    /// Vulnerabilities of the kernel that the default leaves in reach and its profile does not.
    pub(super) cves: Vec<&'static Cve>,
    /// The day of what is known of these.
    pub(super) cves_as_of: &'static str,
}

impl Calls {
    pub(super) fn new(shown: &Shown) -> Self {
        let machine = Machine::native();
        let default = runtime_default(None, machine, []).effective(machine);
        let allows = |name: &str| shown.reasons.get(name).is_some_and(|reason| reason.allows());
        let refused = default.keys().filter(|name| !allows(name));
        let sensitive = SENSITIVE.iter().filter(|name| allows(name));
        Self {
            from: shown.syscalls.from,
            all: all(machine).count(),
            allowed: shown.reasons.values().filter(|reason| reason.allows()).count(),
            default: default.len(),
            refused: refused.map(ToString::to_string).collect(),
            sensitive: sensitive.map(ToString::to_string).collect(),
            cves: cves::out_of_reach(shown),
            cves_as_of: cves::as_of(),
        }
    }

    /// The numbers in a sentence.
    pub(super) fn sentence(&self) -> String {
        let from = match self.from {
            Origin::Files => "",
            Origin::Attestation => " (by the signed profile of its image)",
            Origin::Own | Origin::Default | Origin::Nothing => " (not derived from its files: see assay seccomp show)",
        };
        format!(
            "{} of the {} system calls of this machine are allowed{from}; containerd's default profile allows {}",
            self.allowed, self.all, self.default
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::number;

    #[test]
    fn a_call_that_is_counted_exists_on_some_machine() {
        for name in SENSITIVE {
            assert!(number(Machine::X86_64, name).is_some(), "{name}");
        }
    }
}
