//! Profiles in the forms that other software takes, and the union of several.

use serde_json::{Value, json};

use super::profile::{Action, ENOSYS, Entry, Permission, Profile};
use crate::syscalls::{self, Machine};

/// Most bytes, and most entries, that consumers of KEP-6061 take.
const MAX_ARTIFACT: usize = 1 << 20;
const MAX_ENTRIES: usize = 128;

/// A profile as a cluster-wide `SeccompProfile` of the Security Profiles Operator, API version `v1`.
///
/// That form has no number for calls that no entry names. What of `machine` the default refuses is therefore named, with
/// the number of the default, so that a C library still takes an unknown call for one that the kernel does not have.
///
/// # Errors
/// What that form cannot say.
pub fn operator(profile: &Profile, name: &str, machine: Machine) -> Result<Value, String> {
    let is_large = |entry: &Entry| {
        let values = entry
            .args
            .iter()
            .flat_map(|argument| [argument.value, argument.value_two]);
        values.max().is_some_and(|value| i64::try_from(value).is_err())
    };
    if let Some(entry) = profile.syscalls.iter().find(|entry| is_large(entry)) {
        return Err(format!(
            "a condition of {} has a number that is too large for the operator",
            entry.names.join(", ")
        ));
    }
    let mut spec = serde_json::to_value(profile).map_err(|error| error.to_string())?;
    if let Some(number) = spec.as_object_mut().and_then(|spec| spec.remove("defaultErrnoRet")) {
        let named: Vec<&String> = profile.syscalls.iter().flat_map(|entry| &entry.names).collect();
        let rest: Vec<&str> = syscalls::all(machine)
            .map(|(_, name)| name)
            .filter(|name| !named.iter().any(|named| named == name))
            .collect();
        if let Some(entries) = spec
            .as_object_mut()
            .and_then(|spec| spec.entry("syscalls").or_insert_with(|| json!([])).as_array_mut())
            .filter(|_| !rest.is_empty())
        {
            entries.push(json!({ "names": rest, "action": profile.default_action, "errnoRet": number }));
        }
    }
    Ok(json!({
        "apiVersion": "security-profiles-operator.x-k8s.io/v1",
        "kind": "SeccompProfile",
        "metadata": { "name": name },
        "spec": spec,
    }))
}

/// The layer of a profile as an OCI artifact (KEP-6061): the profile itself, within the limits of those who take it.
///
/// # Errors
/// Which limit it does not keep.
pub fn artifact(profile: &Profile) -> Result<Vec<u8>, String> {
    let json = profile.to_json();
    if json.len() > MAX_ARTIFACT {
        return Err(format!("it has {} bytes, and {MAX_ARTIFACT} are taken", json.len()));
    }
    if profile.syscalls.len() > MAX_ENTRIES {
        return Err(format!(
            "it has {} entries, and {MAX_ENTRIES} are taken",
            profile.syscalls.len()
        ));
    }
    let notifies = profile.syscalls.iter().any(|entry| entry.action == Action::Notify);
    if notifies || !profile.listener_path.is_empty() {
        return Err("it has a listener, which no artifact may have".to_owned());
    }
    Ok(json)
}

/// The profile that lets a call of `machine` through where one of `profiles` does. All else is `ENOSYS`.
///
/// # Errors
/// The name of a call that several conditions decide which together cannot be written as a list of what is allowed.
pub fn union(profiles: &[Profile], machine: Machine) -> Result<Profile, String> {
    let rules: Vec<_> = profiles.iter().map(Profile::rules).collect();
    let mut always = Vec::new();
    let mut sometimes: Vec<Entry> = Vec::new();
    for (_, name) in syscalls::all(machine) {
        let permission = rules.iter().map(|rules| rules.permission(name)).max();
        match permission {
            Some(Permission::Always) => always.push(name),
            Some(Permission::Sometimes) => {
                for (profile, rules) in profiles.iter().zip(&rules) {
                    if rules.permission(name) == Permission::Sometimes {
                        sometimes.extend(conditions(profile, name)?);
                    }
                }
            }
            Some(Permission::Never) | None => {}
        }
    }
    let mut union = Profile::allow(machine, always);
    sometimes.sort_by(|one, other| (&one.names, &one.args).cmp(&(&other.names, &other.args)));
    sometimes.dedup();
    union.syscalls.extend(sometimes);
    debug_assert_eq!(union.default_errno_ret, Some(ENOSYS));
    Ok(union)
}

/// The conditions under which a profile lets a call through that it refuses otherwise.
fn conditions(profile: &Profile, name: &str) -> Result<Vec<Entry>, String> {
    let of_call: Vec<&Entry> = profile
        .syscalls
        .iter()
        .filter(|entry| entry.names.iter().any(|named| named == name))
        .collect();
    let is_list = !profile.default_action.lets_through()
        && of_call
            .iter()
            .all(|entry| entry.action == Action::Allow && !entry.args.is_empty());
    if !is_list {
        return Err(format!(
            "{name} is refused under conditions in one of the profiles, and a union can only list what is allowed"
        ));
    }
    let alone = |entry: &Entry| Entry {
        names: vec![name.to_owned()],
        ..entry.clone()
    };
    Ok(of_call.into_iter().map(alone).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::seccomp::{narrow, runtime_default};

    const MACHINE: Machine = Machine::X86_64;

    #[test]
    fn a_union_lets_through_what_either_does_and_nothing_else() {
        let default = runtime_default(None, MACHINE, []);
        let ours = narrow(
            Some(&default),
            ["read", "socket", "personality"].map(str::to_owned),
            &BTreeSet::new(),
            MACHINE,
        );
        let other = Profile::allow(MACHINE, ["write", "personality"]);
        let both = union(&[ours.clone(), other.clone()], MACHINE).unwrap();
        let names: Vec<&str> = both.effective(MACHINE).into_keys().collect();
        assert_eq!(names, ["personality", "read", "socket", "write"]);
        for (name, argument) in [
            ("socket", 2),
            ("socket", 40),
            ("personality", 7),
            ("personality", 0),
            ("mount", 0),
        ] {
            let arguments = [argument, 0, 0, 0, 0, 0];
            let lets = |profile: &Profile| profile.verdict(name, &arguments).action.lets_through();
            assert_eq!(lets(&both), lets(&ours) || lets(&other), "{name} {argument}");
        }
        assert_eq!(Profile::parse(&both.to_json()).unwrap(), both);
        assert_eq!(union(std::slice::from_ref(&other), MACHINE).unwrap(), other);
        let open = br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO","args":[{"index":0,"value":40,"op":"SCMP_CMP_EQ"}]}]}"#;
        let open = Profile::parse(open).unwrap();
        assert!(union(&[open, other], MACHINE).unwrap_err().contains("socket"));
    }

    #[test]
    fn the_operator_gets_the_same_answers() {
        let profile = Profile::allow(MACHINE, ["read", "write"]);
        let exported = operator(&profile, "web", MACHINE).unwrap();
        assert_eq!(
            (&exported["kind"], &exported["metadata"]["name"]),
            (&json!("SeccompProfile"), &json!("web"))
        );
        assert!(exported["spec"].get("defaultErrnoRet").is_none());
        let again = Profile::parse(exported["spec"].to_string().as_bytes()).unwrap();
        assert_eq!(again.effective(MACHINE), profile.effective(MACHINE));
        for name in ["read", "clone3", "mount"] {
            assert_eq!(again.verdict(name, &[0; 6]), profile.verdict(name, &[0; 6]), "{name}");
        }
    }

    #[test]
    fn an_artifact_keeps_the_limits() {
        let profile = Profile::allow(MACHINE, ["read"]);
        assert_eq!(artifact(&profile), Ok(profile.to_json()));
        let entry = profile.syscalls[0].clone();
        let many = Profile {
            syscalls: vec![entry; 129],
            ..profile.clone()
        };
        assert!(artifact(&many).unwrap_err().contains("129 entries"));
        let heard = Profile {
            listener_path: "/run/l".to_owned(),
            ..profile
        };
        assert!(artifact(&heard).unwrap_err().contains("listener"));
    }
}
