//! The type of `linux.seccomp` in the OCI runtime specification, read strictly and written back.
//!
//! Format: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rules::{Outcome, Rules};
use crate::oci::json;
use crate::syscalls::{self, Machine};

/// Largest document that is read, in bytes; what KEP-6061 lets a runtime accept.
pub const MAX_BYTES: usize = 1 << 20;
/// Most rules that a profile may load: one for each name of each entry. The bound of KEP-6061's library.
pub const MAX_RULES: usize = 16_384;
/// Largest number that the kernel returns as an error.
const MAX_ERRNO: u32 = 4095;
/// Arguments of a system call.
const ARGUMENTS: u32 = 6;
/// The error that a kernel gives for a call that it does not have: a C library then takes another way.
pub(super) const ENOSYS: u32 = 38;

/// What happens to a system call, from the most restrictive to the least: the order of KEP-6061.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// The process is killed.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The thread is killed.
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// The thread gets SIGSYS.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// The call returns an error.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// A listener decides.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
    /// A tracer decides.
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// The call is made and logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// The call is made.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
}

impl Action {
    /// Whether the call is made without anybody being asked.
    #[must_use]
    pub fn lets_through(self) -> bool {
        matches!(self, Self::Allow | Self::Log)
    }

    pub(super) fn returns_a_number(self) -> bool {
        matches!(self, Self::Errno | Self::Trace)
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// It is another value.
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    /// It is less.
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    /// It is at most this.
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    /// It is this value.
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    /// It is at least this.
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    /// It is more.
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// Its bits of the mask `value` are those of `valueTwo`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Argument {
    /// Which argument, from 0 to 5.
    pub index: u32,
    /// What it is compared with; the mask of a masked comparison.
    pub value: u64,
    /// What a masked comparison must give.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// How it is compared.
    pub op: Operator,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// One entry of `syscalls`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Entry {
    /// Names of system calls.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// The number that the call returns; without it 1, `EPERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// Conditions that must all hold; of several on one argument runc takes any.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "json::or_default"
    )]
    pub args: Vec<Argument>,
}

/// An architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is its own name")]
pub enum Architecture {
    #[serde(rename = "SCMP_ARCH_X86")]
    X86,
    #[serde(rename = "SCMP_ARCH_X86_64")]
    X86_64,
    #[serde(rename = "SCMP_ARCH_X32")]
    X32,
    #[serde(rename = "SCMP_ARCH_ARM")]
    Arm,
    #[serde(rename = "SCMP_ARCH_AARCH64")]
    Aarch64,
    #[serde(rename = "SCMP_ARCH_MIPS")]
    Mips,
    #[serde(rename = "SCMP_ARCH_MIPS64")]
    Mips64,
    #[serde(rename = "SCMP_ARCH_MIPS64N32")]
    Mips64N32,
    #[serde(rename = "SCMP_ARCH_MIPSEL")]
    Mipsel,
    #[serde(rename = "SCMP_ARCH_MIPSEL64")]
    Mipsel64,
    #[serde(rename = "SCMP_ARCH_MIPSEL64N32")]
    Mipsel64N32,
    #[serde(rename = "SCMP_ARCH_PPC")]
    Ppc,
    #[serde(rename = "SCMP_ARCH_PPC64")]
    Ppc64,
    #[serde(rename = "SCMP_ARCH_PPC64LE")]
    Ppc64Le,
    #[serde(rename = "SCMP_ARCH_S390")]
    S390,
    #[serde(rename = "SCMP_ARCH_S390X")]
    S390X,
    #[serde(rename = "SCMP_ARCH_PARISC")]
    Parisc,
    #[serde(rename = "SCMP_ARCH_PARISC64")]
    Parisc64,
    #[serde(rename = "SCMP_ARCH_RISCV64")]
    Riscv64,
    #[serde(rename = "SCMP_ARCH_LOONGARCH64")]
    Loongarch64,
    #[serde(rename = "SCMP_ARCH_M68K")]
    M68k,
    #[serde(rename = "SCMP_ARCH_SH")]
    Sh,
    #[serde(rename = "SCMP_ARCH_SHEB")]
    Sheb,
}

impl From<Machine> for Architecture {
    fn from(machine: Machine) -> Self {
        match machine {
            Machine::X86_64 => Self::X86_64,
            Machine::Aarch64 => Self::Aarch64,
        }
    }
}

/// How the kernel loads the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Flag {
    /// On all threads; an OCI runtime does so without being told.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    /// What it refuses is logged.
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    /// Without the mitigation of speculative store bypass.
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    /// A process that waits for a listener can only be killed.
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillableRecv,
}

/// `linux.seccomp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// What happens to a call that no entry names.
    pub default_action: Action,
    /// The number that such a call returns; without it 1, `EPERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// Architectures beside the native one. Calls of all others are fatal.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "json::or_default"
    )]
    pub architectures: Vec<Architecture>,
    /// How the filter is loaded.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "json::or_default"
    )]
    pub flags: Vec<Flag>,
    /// Socket to which the OCI runtime hands the listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// What it passes on to the listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    /// The entries.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "json::or_default"
    )]
    pub syscalls: Vec<Entry>,
}

/// Why a profile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(clippy::error_impl_error, reason = "always written with its module: seccomp::Error")]
pub enum Error {
    /// It is no document of this form.
    #[error("not a seccomp profile of the OCI runtime specification: {0}")]
    Form(#[from] json::Error),
    /// It is larger than [`MAX_BYTES`].
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// No OCI runtime loads it as it is written.
    #[error("{0}")]
    Invalid(String),
}

/// Whether a call is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// With no arguments.
    Never,
    /// With some arguments.
    Sometimes,
    /// With any arguments.
    Always,
}

impl Profile {
    /// Reads a profile as it stands in `config.json` or in a file of its own.
    ///
    /// # Errors
    /// Everything that is not exactly of this form: a key that the specification does not have, a key given twice, an
    /// unknown action, operator, architecture or flag; an entry without names, an argument above 5, an error number
    /// above 4095; `SCMP_ACT_NOTIFY` where runc refuses it (as default, for `write`, without a listener); more than
    /// [`MAX_BYTES`] or [`MAX_RULES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::TooLarge);
        }
        let profile: Self = json::parse(bytes)?;
        profile.validate()?;
        Ok(profile)
    }

    fn validate(&self) -> Result<(), Error> {
        let invalid = |message: String| Err(Error::Invalid(message));
        if self.default_action == Action::Notify {
            return invalid("its default action is SCMP_ACT_NOTIFY, which no OCI runtime loads".to_owned());
        }
        errno(self.default_errno_ret, "defaultErrnoRet")?;
        let mut rules = 0_usize;
        for (place, entry) in self.syscalls.iter().enumerate() {
            let at = format!("syscalls[{place}]");
            if entry.names.is_empty() || entry.names.iter().any(String::is_empty) {
                return invalid(format!("{at} has no name"));
            }
            errno(entry.errno_ret, &format!("{at}.errnoRet"))?;
            if let Some(argument) = entry.args.iter().find(|argument| argument.index >= ARGUMENTS) {
                let index = argument.index;
                return invalid(format!(
                    "{at} has a condition on argument {index}, and there are only 0 to 5"
                ));
            }
            if entry.action == Action::Notify {
                if self.listener_path.is_empty() {
                    return invalid(format!("{at} is SCMP_ACT_NOTIFY, and there is no listenerPath"));
                }
                if entry.names.iter().any(|name| name == "write") {
                    return invalid(format!(
                        "{at} is SCMP_ACT_NOTIFY for `write`, which no OCI runtime loads"
                    ));
                }
            }
            rules = rules.saturating_add(entry.names.len().saturating_mul(entry.args.len().max(1)));
        }
        if rules > MAX_RULES {
            return invalid(format!("it has {rules} rules, more than {MAX_RULES}"));
        }
        Ok(())
    }

    /// The document, in a form that does not depend on how it was written.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Every part of a profile has a form in JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// A profile that lets exactly these calls through, with any arguments, on the native architecture; any other
    /// call returns `ENOSYS`, as if the kernel did not have it.
    #[must_use]
    pub fn allow<S: Into<String>>(machine: Machine, names: impl IntoIterator<Item = S>) -> Self {
        let names: BTreeSet<String> = names.into_iter().map(Into::into).collect();
        let entry = Entry {
            names: names.into_iter().collect(),
            action: Action::Allow,
            errno_ret: None,
            args: Vec::new(),
        };
        Self {
            default_action: Action::Errno,
            default_errno_ret: Some(ENOSYS),
            architectures: vec![machine.into()],
            flags: Vec::new(),
            listener_path: String::new(),
            listener_metadata: String::new(),
            syscalls: if entry.names.is_empty() {
                Vec::new()
            } else {
                vec![entry]
            },
        }
    }

    /// What an OCI runtime makes of it, call by call.
    #[must_use]
    pub fn rules(&self) -> Rules {
        Rules::load(self)
    }

    /// What it does with a call of a name and six arguments on an architecture that it lists.
    ///
    /// Where libseccomp's order decides between several conditions, the most restrictive of what it may do.
    #[must_use]
    pub fn verdict(&self, name: &str, arguments: &[u64; 6]) -> Outcome {
        self.rules().verdict(name, arguments)
    }

    /// The calls of a machine that it lets through: how it counts. A name that the machine does not have is no call.
    #[must_use]
    pub fn effective(&self, machine: Machine) -> BTreeMap<&'static str, Permission> {
        let rules = self.rules();
        syscalls::all(machine)
            .map(|(_, name)| (name, rules.permission(name)))
            .filter(|(_, permission)| *permission != Permission::Never)
            .collect()
    }
}

fn errno(number: Option<u32>, at: &str) -> Result<(), Error> {
    match number {
        Some(number) if number > MAX_ERRNO => Err(Error::Invalid(format!(
            "{at} is {number}, and no error is above {MAX_ERRNO}"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_written_as_it_was_read() {
        let text = concat!(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X32"],"#,
            r#""flags":["SECCOMP_FILTER_FLAG_LOG"],"listenerPath":"/run/listener.sock","listenerMetadata":"m","syscalls":["#,
            r#"{"names":["read","clone"],"action":"SCMP_ACT_ALLOW"},"#,
            r#"{"names":["socket"],"action":"SCMP_ACT_NOTIFY","args":[{"index":0,"value":18446744073709551615,"op":"SCMP_CMP_NE"},"#,
            r#"{"index":5,"value":7,"valueTwo":3,"op":"SCMP_CMP_MASKED_EQ"}]},"#,
            r#"{"names":["ptrace"],"action":"SCMP_ACT_TRACE","errnoRet":5}]}"#
        );
        let profile = Profile::parse(text.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(profile.to_json()).unwrap(), text);
    }

    #[test]
    fn nothing_is_overlooked_when_a_profile_is_read() {
        let entry = |entry: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{entry}]}}"#);
        let cases = [
            (String::new(), "not a seccomp profile"),
            ("{}".to_owned(), "missing field `defaultAction`"),
            (
                r#"{"defaultAction":"SCMP_ACT_MAYBE"}"#.to_owned(),
                "unknown variant `SCMP_ACT_MAYBE`",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","comment":""}"#.to_owned(),
                "unknown field `comment`",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultAction":"SCMP_ACT_ALLOW"}"#.to_owned(),
                "twice",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.to_owned(),
                "default action is SCMP_ACT_NOTIFY",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":4096}"#.to_owned(),
                "defaultErrnoRet is 4096",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_VAX"]}"#.to_owned(),
                "SCMP_ARCH_VAX",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","flags":["SECCOMP_FILTER_FLAG_X"]}"#.to_owned(),
                "FLAG_X",
            ),
            (
                entry(r#"{"names":[],"action":"SCMP_ACT_ALLOW"}"#),
                "syscalls[0] has no name",
            ),
            (
                entry(r#"{"names":[""],"action":"SCMP_ACT_ALLOW"}"#),
                "syscalls[0] has no name",
            ),
            (
                entry(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#),
                "no listenerPath",
            ),
            (
                entry(r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","includes":{}}"#),
                "unknown field `includes`",
            ),
            (
                entry(
                    r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#,
                ),
                "argument 6",
            ),
            (
                entry(
                    r#"{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":-1,"op":"SCMP_CMP_EQ"}]}"#,
                ),
                "invalid value",
            ),
        ];
        for (text, expected) in cases {
            let message = Profile::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let many = vec!["read"; MAX_RULES + 1].join("\",\"");
        let many = entry(&format!(r#"{{"names":["{many}"],"action":"SCMP_ACT_ALLOW"}}"#));
        assert!(matches!(Profile::parse(many.as_bytes()), Err(Error::Invalid(_))));
        assert_eq!(Profile::parse(&vec![b' '; MAX_BYTES + 1]), Err(Error::TooLarge));
    }

    #[test]
    fn a_generated_profile_is_one_entry_for_one_architecture() {
        let profile = Profile::allow(Machine::X86_64, ["write", "read", "write"]);
        assert_eq!(
            String::from_utf8(profile.to_json()).unwrap(),
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"}]}"#
        );
        let nothing = Profile::allow(Machine::Aarch64, [""; 0]);
        assert_eq!(nothing.syscalls, []);
        assert_eq!(Profile::parse(&nothing.to_json()).unwrap(), nothing);
    }

    #[test]
    fn effective_are_the_calls_that_the_machine_has() {
        let profile = Profile::allow(Machine::Aarch64, ["open", "openat", "mmap2"]);
        let names = |machine| profile.effective(machine).into_keys().collect::<Vec<_>>();
        assert_eq!(names(Machine::Aarch64), ["openat"]);
        assert_eq!(names(Machine::X86_64), ["open", "openat"]);
    }
}
