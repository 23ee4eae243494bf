//! Seccomp profiles that a publisher made: the system calls of an image, as `linux.seccomp` of the OCI runtime
//! specification.
//!
//! Format: <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>. Of it a profile of names
//! is read: what is not named is refused, what is named is let through whatever its arguments are. Anything else is no
//! such profile, because what stands in for an analysis is widened by nothing that was overlooked.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::details::PredicateError;
use crate::oci::{json, shorten};

/// Predicate types of seccomp profiles.
pub const PROFILE: &str = "https://assay.dev/seccomp-profile";

/// Most names of a profile: no machine has as many system calls.
const MAX_NAMES: usize = 1024;
/// Most architectures.
const MAX_ARCHITECTURES: usize = 16;
/// Longest name of a call or an architecture in bytes.
const MAX_NAME: usize = 64;

/// The system calls that an image makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Machines that they were found for, such as `SCMP_ARCH_X86_64`.
    pub architectures: BTreeSet<String>,
    /// Their names.
    pub calls: BTreeSet<String>,
}

impl Profile {
    /// The predicate type that [`Profile::parse`] reads.
    #[must_use]
    pub fn predicate_type() -> String {
        format!("{PROFILE}/v1")
    }

    /// Reads a predicate of this version of the predicate type.
    ///
    /// # Errors
    /// See [`PredicateError`].
    pub fn parse(version: &str, predicate: &[u8]) -> Result<Self, PredicateError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Raw {
            default_action: String,
            #[serde(rename = "defaultErrnoRet")]
            _errno: Option<u32>,
            #[serde(default)]
            architectures: Vec<String>,
            #[serde(default)]
            syscalls: Vec<Entry>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Entry {
            names: Vec<String>,
            action: String,
        }
        if version != "v1" {
            return Err(PredicateError::Version("those of v1"));
        }
        let raw: Raw = json::parse(predicate)?;
        if !matches!(
            raw.default_action.as_str(),
            "SCMP_ACT_ERRNO" | "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" | "SCMP_ACT_KILL_PROCESS"
        ) {
            let action = shorten(&raw.default_action);
            return Err(PredicateError::Invalid(action, "default action that refuses"));
        }
        if let Some(entry) = raw.syscalls.iter().find(|entry| entry.action != "SCMP_ACT_ALLOW") {
            let action = shorten(&entry.action);
            return Err(PredicateError::Invalid(action, "action that lets its calls through"));
        }
        let profile = Self {
            architectures: raw.architectures.into_iter().collect(),
            calls: raw.syscalls.into_iter().flat_map(|entry| entry.names).collect(),
        };
        if profile.architectures.is_empty() {
            return Err(PredicateError::Missing("architecture"));
        }
        if profile.calls.is_empty() {
            return Err(PredicateError::Missing("system call"));
        }
        for (what, names, limit) in [
            ("architectures", &profile.architectures, MAX_ARCHITECTURES),
            ("system calls", &profile.calls, MAX_NAMES),
        ] {
            if names.len() > limit {
                return Err(PredicateError::TooMany { what, limit });
            }
            if let Some(name) = names.iter().find(|name| !is_name(name)) {
                return Err(PredicateError::Invalid(
                    shorten(name),
                    "name of a call or an architecture",
                ));
            }
        }
        Ok(profile)
    }

    /// Whether it is within the bounds of what [`Profile::parse`] gives, whoever made it.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.architectures.len() <= MAX_ARCHITECTURES
            && self.calls.len() <= MAX_NAMES
            && self.architectures.iter().chain(&self.calls).all(|name| is_name(name))
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(default: &str, entry: &str) -> Result<Profile, String> {
        let predicate = format!(
            r#"{{"defaultAction":"{default}","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],"syscalls":[{{"names":["read"],"action":"SCMP_ACT_ALLOW"}},{entry}]}}"#
        );
        Profile::parse("v1", predicate.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_of_names_is_read_and_nothing_else() {
        let allow = r#"{"names":["write","read"],"action":"SCMP_ACT_ALLOW"}"#;
        let profile = read("SCMP_ACT_ERRNO", allow).unwrap();
        assert_eq!(profile.calls, ["read", "write"].map(str::to_owned).into());
        assert!(profile.is_bounded());
        let refused = |default: &str, entry: &str| read(default, entry).unwrap_err();
        insta::assert_snapshot!(refused("SCMP_ACT_ALLOW", allow), @"it has 'SCMP_ACT_ALLOW', which is no default action that refuses");
        insta::assert_snapshot!(refused("SCMP_ACT_LOG", allow), @"it has 'SCMP_ACT_LOG', which is no default action that refuses");
        insta::assert_snapshot!(refused("SCMP_ACT_ERRNO", r#"{"names":["write"],"action":"SCMP_ACT_ERRNO"}"#), @"it has 'SCMP_ACT_ERRNO', which is no action that lets its calls through");
        insta::assert_snapshot!(refused("SCMP_ACT_ERRNO", r#"{"names":["no call"],"action":"SCMP_ACT_ALLOW"}"#), @"it has 'no call', which is no name of a call or an architecture");
        let conditional = r#"{"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[]}"#;
        assert!(refused("SCMP_ACT_ERRNO", conditional).contains("unknown field `args`"));
        let bare = |text: &str| Profile::parse("v1", text.as_bytes()).unwrap_err().to_string();
        insta::assert_snapshot!(bare(r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#), @"it names no architecture");
        insta::assert_snapshot!(bare(r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"]}"#), @"it names no system call");
        assert!(
            bare(r#"{"defaultAction":"SCMP_ACT_ERRNO","listenerPath":"/x"}"#).contains("unknown field `listenerPath`")
        );
        insta::assert_snapshot!(Profile::parse("v2", b"{}").unwrap_err(), @"its predicate type is of a version that is not read, those of v1 are");
    }
}
