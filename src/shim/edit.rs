//! The specification that the OCI runtime gets: what containerd wrote, with what the decision takes out of it.
//!
//! Every edit of [`Edits`] can only narrow what was asked for: it sets what forbids and adds options that restrict.
//! Nothing else of the document changes; values are copied as they are written.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::bundle::{self, SPEC_LIMIT};
use super::error::Error;
use crate::admission::{Edits, filter};
use crate::digest::Digest;
use crate::seccomp::{self, Profile};
use crate::syscalls::Machine;

/// Types of mounts that are the kernel's own, or on which a program could only be put by the container's own processes
/// that may run it from memory as well.
const KERNEL_MADE: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "mqueue",
    "devpts",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
];

type Object = BTreeMap<String, Box<RawValue>>;

/// Rewrites `config.json` of a bundle. Seccomp profiles are below `state`; `listener` is the socket on which this shim can
/// listen for this container. Whether the profile wants that.
///
/// # Errors
/// When it cannot be read, is no specification, or cannot be replaced; when the profile is not there, is another one, or
/// does not narrow the one that the specification has.
pub fn apply(bundle: &Path, edits: &Edits, state: &Path, listener: &Path) -> Result<bool, Error> {
    if edits.is_empty() {
        return Ok(false);
    }
    let path = bundle.join("config.json");
    let bytes = bundle::read(&path, SPEC_LIMIT).map_err(Error::file(&path))?;
    let profile = match &edits.seccomp {
        Some(digest) => Some(profile(digest, state)?),
        None => None,
    };
    let edited = spec(&bytes, edits, profile.as_ref(), listener).map_err(|reason| Error::Malformed {
        path: path.clone(),
        reason,
    })?;
    let temporary = bundle.join(".config.json");
    fs::write(&temporary, edited)
        .and_then(|()| fs::rename(&temporary, &path))
        .map_err(Error::file(&path))?;
    Ok(profile.is_some_and(|profile| Path::new(&profile.listener_path) == listener))
}

/// The profile that is kept under a digest.
fn profile(digest: &Digest, state: &Path) -> Result<Profile, Error> {
    let path = state.join(filter::DIRECTORY).join(format!("{}.json", digest.hex()));
    let bytes = bundle::read(&path, seccomp::MAX_BYTES as u64).map_err(Error::file(&path))?;
    let malformed = |reason: String| Error::Malformed {
        path: path.clone(),
        reason,
    };
    if Digest::of(&bytes) != *digest {
        return Err(malformed("it is not the profile that was decided on".to_owned()));
    }
    Profile::parse(&bytes).map_err(|error| malformed(error.to_string()))
}

fn spec(bytes: &[u8], edits: &Edits, profile: Option<&Profile>, listener: &Path) -> Result<Vec<u8>, String> {
    let mut spec: Object = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if let Some(profile) = profile {
        let linux: Object = field(&spec, "linux")
            .map_err(|error| error.to_string())?
            .unwrap_or_default();
        let own = linux.get("seccomp").filter(|own| own.get() != "null");
        let own = own
            .map(|own| Profile::parse(own.get().as_bytes()))
            .transpose()
            .map_err(|error| format!("its seccomp profile: {error}"))?;
        if own.as_ref().is_some_and(|own| !narrows(profile, own)) {
            return Err("the seccomp profile that was decided on allows what its own does not".to_owned());
        }
        let asked = Path::new(&profile.listener_path);
        let is_own = own.is_some_and(|own| own.listener_path == profile.listener_path);
        if !(is_own || profile.listener_path.is_empty() || asked == listener) {
            return Err("the seccomp profile that was decided on has a listener of somebody else".to_owned());
        }
        set(&mut spec, "linux", "seccomp", profile).map_err(|error| error.to_string())?;
    }
    edited(spec, edits).map_err(|error| error.to_string())
}

/// Whether a profile lets nothing through that `own` does not.
fn narrows(profile: &Profile, own: &Profile) -> bool {
    let native = [Machine::native().into()];
    seccomp::is_within(profile, own)
        && profile
            .architectures
            .iter()
            .all(|architecture| own.architectures.contains(architecture) || native.contains(architecture))
        && profile.flags.iter().all(|flag| own.flags.contains(flag))
}

fn edited(mut spec: Object, edits: &Edits) -> serde_json::Result<Vec<u8>> {
    if edits.read_only_root {
        set(&mut spec, "root", "readonly", true)?;
    }
    if edits.no_new_privileges {
        set(&mut spec, "process", "noNewPrivileges", true)?;
    }
    if edits.noexec_mounts {
        let mut mounts: Vec<Object> = field(&spec, "mounts")?.unwrap_or_default();
        for mount in &mut mounts {
            without_programs(mount)?;
        }
        spec.insert("mounts".to_owned(), to_raw_value(&mounts)?);
    }
    serde_json::to_vec(&spec)
}

/// The specification of a further process in a container whose own was edited.
///
/// # Errors
/// When it is no process.
pub fn exec(process: Vec<u8>, edits: &Edits) -> serde_json::Result<Vec<u8>> {
    if !edits.no_new_privileges {
        return Ok(process);
    }
    let mut process: Object = serde_json::from_slice(&process)?;
    process.insert("noNewPrivileges".to_owned(), to_raw_value(&true)?);
    serde_json::to_vec(&process)
}

fn set(spec: &mut Object, object: &str, key: &str, value: impl Serialize) -> serde_json::Result<()> {
    let mut inner: Object = field(spec, object)?.unwrap_or_default();
    inner.insert(key.to_owned(), to_raw_value(&value)?);
    spec.insert(object.to_owned(), to_raw_value(&inner)?);
    Ok(())
}

fn field<T: serde::de::DeserializeOwned>(object: &Object, key: &str) -> serde_json::Result<Option<T>> {
    object
        .get(key)
        .map_or(Ok(None), |value| serde_json::from_str(value.get()))
}

/// Makes programs on a mount unusable, and those on mounts below its source, where the mount brings them along.
fn without_programs(mount: &mut Object) -> serde_json::Result<()> {
    let fs_type: String = field(mount, "type")?.unwrap_or_default();
    let mut options: Vec<String> = field(mount, "options")?.unwrap_or_default();
    // With such an option an OCI runtime binds the source, whatever the type says.
    let is_bind = options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
    if !is_bind && KERNEL_MADE.contains(&fs_type.as_str()) {
        return Ok(());
    }
    options.retain(|option| !matches!(option.as_str(), "exec" | "rexec"));
    // An OCI runtime that does not know the recursive form leaves it out, so the plain one stands beside it.
    let recursive = options.iter().any(|option| option == "rbind");
    for option in [Some("noexec"), recursive.then_some("rnoexec")].into_iter().flatten() {
        if !options.iter().any(|present| present == option) {
            options.push(option.to_owned());
        }
    }
    mount.insert("options".to_owned(), to_raw_value(&options)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn edited(before: &Value, edits: &Edits) -> Value {
        let bytes = spec(before.to_string().as_bytes(), edits, None, Path::new("/run/l")).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    fn sample() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "process": { "args": ["/bin/app"], "noNewPrivileges": false, "rlimits": [{ "hard": 18_446_744_073_709_551_615_u64 }] },
            "root": { "path": "rootfs", "readonly": false },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"] },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] },
                { "destination": "/data", "type": "bind", "source": "/x", "options": ["rbind", "exec", "rw"] },
                { "destination": "/one", "type": "bind", "source": "/x", "options": ["bind", "noexec"] },
                { "destination": "/none", "type": "tmpfs", "source": "tmpfs" },
                { "destination": "/named", "type": "proc", "source": "/x", "options": ["rbind"] },
            ],
            "linux": { "unknown": [1.5, null] },
        })
    }

    #[test]
    fn nothing_changes_but_what_is_edited() {
        let mut expected = sample();
        expected["process"]["noNewPrivileges"] = true.into();
        expected["root"]["readonly"] = true.into();
        let edits = Edits {
            read_only_root: true,
            no_new_privileges: true,
            ..Edits::default()
        };
        assert_eq!(edited(&sample(), &edits), expected);
        assert_eq!(edited(&json!({}), &edits)["root"]["readonly"], true);
    }

    #[test]
    fn programs_on_mounts_cannot_be_started() {
        let edits = Edits {
            noexec_mounts: true,
            ..Edits::default()
        };
        let after = edited(&sample(), &edits);
        let options = |index: usize| after["mounts"][index]["options"].clone();
        assert_eq!(options(0), json!(["nosuid"]));
        assert_eq!(options(1), json!(["nosuid", "noexec"]));
        assert_eq!(options(2), json!(["rbind", "rw", "noexec", "rnoexec"]));
        assert_eq!(options(3), json!(["bind", "noexec"]));
        assert_eq!(options(4), json!(["noexec"]));
        assert_eq!(
            options(5),
            json!(["rbind", "noexec", "rnoexec"]),
            "bound, whatever its type says"
        );
    }

    #[test]
    fn an_exec_gains_no_more_privileges_than_the_container() {
        let edits = Edits {
            no_new_privileges: true,
            ..Edits::default()
        };
        let process = exec(br#"{"args":["sh"],"noNewPrivileges":false}"#.to_vec(), &edits).unwrap();
        let process: Value = serde_json::from_slice(&process).unwrap();
        assert_eq!(process, json!({ "args": ["sh"], "noNewPrivileges": true }));
    }

    #[test]
    fn a_specification_that_is_none_is_an_error() {
        let edits = Edits {
            noexec_mounts: true,
            ..Edits::default()
        };
        for text in ["", "[]", r#"{"mounts":{}}"#, r#"{"mounts":[{"options":"ro"}]}"#] {
            assert!(
                spec(text.as_bytes(), &edits, None, Path::new("/run/l")).is_err(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_profile_takes_the_place_of_a_wider_one_only() {
        let machine = Machine::native();
        let default = seccomp::runtime_default(None, machine, []);
        let denied = ["ptrace".to_owned()].into();
        let narrowed = seccomp::narrow(
            Some(&default),
            ["read", "socket", "clone", "mount"].map(str::to_owned),
            &denied,
            machine,
        );
        let lessened = seccomp::without(&default, &denied);
        let wider = Profile::allow(machine, ["read", "mount"]);
        let own = |own: Value| json!({ "linux": { "seccomp": own, "other": 1 } }).to_string();
        let with_default = own(serde_json::to_value(&default).unwrap());
        let put = |own: &str, profile: &Profile| {
            let after = spec(own.as_bytes(), &Edits::default(), Some(profile), Path::new("/run/l"))?;
            let after: Value = serde_json::from_slice(&after).unwrap();
            assert_eq!(after["linux"]["other"], 1);
            let written = after["linux"]["seccomp"].to_string();
            Ok::<_, String>(Profile::parse(written.as_bytes()).unwrap())
        };
        for profile in [&narrowed, &lessened] {
            assert_eq!(put(&with_default, profile).as_ref(), Ok(profile));
        }
        assert!(
            put(&with_default, &wider)
                .unwrap_err()
                .contains("allows what its own does not")
        );
        assert_eq!(put(&own(Value::Null), &wider).as_ref(), Ok(&wider));
        for (own, of) in [(&with_default, Some(&default)), (&own(Value::Null), None)] {
            let complaining = |listener| seccomp::complain(of, &narrowed, machine, listener).unwrap();
            let ours = complaining("/run/l");
            assert_eq!(put(own, &ours).as_ref(), Ok(&ours));
            assert!(
                put(own, &complaining("/run/other"))
                    .unwrap_err()
                    .contains("listener of somebody else")
            );
        }
        let killing = own(json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS" }));
        assert!(put(&killing, &narrowed).is_err());
        assert!(put(&own(json!({ "defaultAction": "?" })), &narrowed).is_err());
    }

    #[test]
    fn a_profile_is_the_one_that_was_decided_on() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(filter::DIRECTORY);
        fs::create_dir(&folder).unwrap();
        let json = Profile::allow(Machine::native(), ["read"]).to_json();
        let digest = Digest::of(&json);
        let file = folder.join(format!("{}.json", digest.hex()));
        assert!(profile(&digest, state.path()).is_err());
        fs::write(&file, &json).unwrap();
        assert_eq!(profile(&digest, state.path()).unwrap().to_json(), json);
        fs::write(&file, json.as_slice().to_ascii_uppercase()).unwrap();
        assert!(profile(&digest, state.path()).is_err());
    }
}
