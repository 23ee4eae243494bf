//! What a rule takes away from a container that it allows: files, system calls, parts of its specification; and what
//! becomes of one that it allows no more.

use serde::{Deserialize, Serialize};

use super::{Mode, Restart};

/// `[rule.runtime]`: conditions on the container's specification, and what is taken out of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// What happens to a container that comes back.
    #[serde(default)]
    pub restart: Restart,
    /// Refuses a process that starts as user 0.
    #[serde(default, skip_serializing_if = "is_false")]
    pub non_root: bool,
    /// Makes the root file system read-only.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only_root: bool,
    /// Nothing on a mount that the container can write to is executable.
    #[serde(default, skip_serializing_if = "is_false")]
    pub noexec_mounts: bool,
    /// Forbids every way to gain privileges by starting a program.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_new_privileges: bool,
}

/// `[rule.filesystem]`: which files of the image the container sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// Whether what is not needed is hidden, reported when it is used, or left alone.
    pub mode: Mode,
    /// How closely files follow from what is needed.
    pub level: Level,
    /// Patterns of paths that stay visible whatever reaches them; `*` stops at `/`, `**` does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<String>,
    /// Programs that are started besides the container's own: probes, lifecycle hooks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<String>,
    /// Whether the pod's annotation `assay.dev/exec` may name further programs of attested packages.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exec_annotation: bool,
    /// What becomes of an executable that is needed and that no attested package owns.
    pub unattested: Unattested,
    /// What becomes of the container where no view of its image can be made.
    pub unavailable: Unavailable,
}

/// How closely the visible files follow from what is needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// All of a package of which anything is needed.
    Packages,
    /// Executables one by one, data by the package.
    #[default]
    Balanced,
    /// Every file one by one.
    Files,
}

/// What becomes of a needed executable that no attested package owns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unattested {
    /// It stays and is reported.
    #[default]
    Report,
    /// The container is refused.
    Deny,
}

/// What becomes of a container of whose image no view can be made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unavailable {
    /// It is refused.
    #[default]
    Refuse,
    /// It sees all of its image, and the decision says so.
    Full,
}

/// `[rule.seccomp]`: which system calls the container can make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seccomp {
    /// Whether other calls than those that its software can make fail, are reported, or are left alone.
    pub mode: SeccompMode,
    /// What becomes of a container whose calls are not all known.
    #[serde(default)]
    pub incomplete: Incomplete,
    /// What becomes of a container that is privileged and has no profile of its own.
    #[serde(default)]
    pub privileged: Privileged,
    /// Names of calls that are allowed although nothing was found that makes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Names of calls that are never allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

/// `[rule.exec]`: which further processes may be started in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Which.
    pub mode: ExecMode,
    /// Where the rule says so, as `file:line`; empty where it does not.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
}

/// Which further processes may be started in a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecMode {
    /// Any.
    #[default]
    Allow,
    /// Programs of its image that its view shows.
    Closure,
    /// None but those that `[rule.filesystem]` names.
    Deny,
}

/// `[rule.reevaluate]`: what the agent does with a running container that would not be started any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reevaluate {
    /// What it does.
    pub action: Action,
    /// How long after it was announced, in seconds.
    pub grace: i64,
}

/// What the agent does with a container that would not be started any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It says so.
    #[default]
    Report,
    /// It lets no further process be started in it.
    DenyExec,
    /// It pauses all of its processes.
    Freeze,
    /// It ends it.
    Stop,
}

impl Action {
    /// As policy and records call it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::DenyExec => "deny-exec",
            Self::Freeze => "freeze",
            Self::Stop => "stop",
        }
    }
}

impl Default for Reevaluate {
    fn default() -> Self {
        Self {
            action: Action::default(),
            grace: 30,
        }
    }
}

/// What `[rule.seccomp]` does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompMode {
    /// Calls that are not allowed fail.
    Enforce,
    /// They are reported and succeed.
    Complain,
    /// The container keeps the profile that it has, or none.
    #[default]
    Off,
}

/// What becomes of a container whose system calls are not all known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Incomplete {
    /// It gets its own profile, or the runtime's default one, without what is denied.
    #[default]
    Fallback,
    /// It is refused.
    Refuse,
}

/// What becomes of a privileged container without a profile of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privileged {
    /// It gets the derived profile, as every other one.
    #[default]
    Derived,
    /// It stays without a profile, except that denied calls fail.
    Unconfined,
}

impl Default for Filesystem {
    fn default() -> Self {
        Self {
            mode: Mode::Off,
            level: Level::default(),
            keep: Vec::new(),
            exec: Vec::new(),
            exec_annotation: false,
            unattested: Unattested::default(),
            unavailable: Unavailable::default(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
