//! The part of a bundle's `config.json` that tells what is run and from where.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::Fault;
use super::remap::{IdMapping, Mapping};
use crate::{oci, store};

/// Largest `config.json` in bytes. Kubernetes limits environment and mounts to far less.
const MAX_SPEC: u64 = 16 << 20;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    annotations: Option<BTreeMap<String, String>>,
    root: Option<Root>,
    mounts: Option<Vec<SpecMount>>,
    process: Option<Process>,
    hooks: Option<BTreeMap<String, Option<Vec<Hook>>>>,
    linux: Option<Linux>,
}

#[derive(Debug, Deserialize)]
struct Root {
    path: String,
    #[serde(default)]
    readonly: bool,
}

/// What is started in a container, and with what, as its specification says at last: a pod may override what its image
/// says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Command line.
    #[serde(deserialize_with = "oci::json::or_default")]
    pub args: Vec<String>,
    /// Environment, as `NAME=value`.
    #[serde(deserialize_with = "oci::json::or_default")]
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// As whom.
    #[serde(deserialize_with = "oci::json::or_default")]
    pub user: User,
    /// Whether it can gain no privileges by starting a program.
    pub no_new_privileges: bool,
    /// What it and its children can ever do.
    #[serde(deserialize_with = "oci::json::or_default")]
    pub capabilities: Capabilities,
}

/// Capabilities of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Those that it can have at most, such as `CAP_CHOWN`.
    #[serde(deserialize_with = "oci::json::or_default")]
    pub bounding: Vec<String>,
}

/// As whom a process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User {
    /// User id, inside the container's user namespace.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// A mount of the specification.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SpecMount {
    /// Where the container sees it.
    pub destination: String,
    /// What is mounted; a path for bind mounts.
    #[serde(default)]
    pub source: String,
    /// Type of file system; empty for some bind mounts.
    #[serde(default, rename = "type")]
    pub fs_type: String,
    /// Options.
    #[serde(default, deserialize_with = "oci::json::or_default")]
    pub options: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Hook {
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Linux {
    mount_label: Option<String>,
    uid_mappings: Option<Vec<IdMapping>>,
    gid_mappings: Option<Vec<IdMapping>>,
    devices: Option<Vec<Device>>,
    seccomp: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Device {
    path: String,
}

impl Spec {
    /// Reads `config.json` of `bundle`.
    pub(super) fn read(bundle: &Path) -> Result<Self, Fault> {
        let path = bundle.join("config.json");
        let bytes = store::read_bounded(&path, MAX_SPEC).map_err(Fault::SpecUnreadable)?;
        Self::parse(&bytes, &path)
    }

    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Self, Fault> {
        let spec = oci::json::parse(bytes).map_err(|source| Fault::SpecInvalid {
            path: path.to_owned(),
            source,
        })?;
        match ambiguous(bytes) {
            Some(key) => Err(Fault::SpecAmbiguous {
                path: path.to_owned(),
                key: oci::shorten(&key),
            }),
            None => Ok(spec),
        }
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// What is started; nothing for a specification without process.
    pub(super) fn process(&self) -> Process {
        self.process.clone().unwrap_or_default()
    }

    pub(super) fn read_only_root(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.readonly)
    }

    pub(super) fn mounts(&self) -> &[SpecMount] {
        self.mounts.as_deref().unwrap_or_default()
    }

    pub(super) fn mount_label(&self) -> &str {
        self.linux
            .as_ref()
            .and_then(|linux| linux.mount_label.as_deref())
            .unwrap_or_default()
    }

    /// The seccomp profile, as JSON.
    pub(super) fn seccomp(&self) -> Option<String> {
        let profile = self.linux.as_ref()?.seccomp.as_ref()?;
        Some(profile.to_string())
    }

    pub(super) fn mapping(&self) -> Mapping {
        let linux = self.linux.as_ref();
        let half = |map: Option<&Option<Vec<IdMapping>>>| map.and_then(Clone::clone).unwrap_or_default();
        Mapping {
            uids: half(linux.map(|linux| &linux.uid_mappings)),
            gids: half(linux.map(|linux| &linux.gid_mappings)),
        }
    }

    /// The OCI runtime runs what `root.path` names, so it has to be the directory on which the shim mounts the
    /// snapshot, and no mount of the container may cover all of it.
    pub(super) fn check_root(&self, bundle: &Path) -> Result<(), Fault> {
        let path = self.root.as_ref().map(|root| root.path.as_str()).unwrap_or_default();
        if path != "rootfs" && Path::new(path) != bundle.join("rootfs") {
            return Err(Fault::RootForeign(path.to_owned()));
        }
        let covers_root = |mount: &&SpecMount| {
            let mut names = Vec::new();
            for name in mount.destination.split('/') {
                match name {
                    "" | "." => {}
                    ".." => drop(names.pop()),
                    name => names.push(name),
                }
            }
            names.is_empty()
        };
        match self.mounts().iter().find(covers_root) {
            Some(mount) => Err(Fault::RootForeign(format!(
                "{}', covered by a mount of '{}",
                mount.destination, mount.source
            ))),
            None => Ok(()),
        }
    }

    /// OCI hooks as `point path`.
    pub(super) fn hooks(&self) -> Vec<String> {
        let points = self.hooks.iter().flatten();
        points
            .flat_map(|(point, hooks)| hooks.iter().flatten().map(move |hook| format!("{point} {}", hook.path)))
            .collect()
    }

    /// Paths of devices that are added to the container.
    pub(super) fn devices(&self) -> Vec<String> {
        let devices = self.linux.as_ref().and_then(|linux| linux.devices.as_deref());
        devices
            .unwrap_or_default()
            .iter()
            .map(|device| device.path.clone())
            .collect()
    }
}

/// A key that the OCI runtime, which is written in Go, would read as one of those that are read here, although it is
/// written differently: Go compares names without regard to case, also beyond ASCII.
fn ambiguous(bytes: &[u8]) -> Option<String> {
    const TOP: &[&str] = &["annotations", "root", "mounts", "hooks", "linux", "process"];
    const ROOT: &[&str] = &["path", "readonly"];
    const PROCESS: &[&str] = &["args", "env", "cwd", "user", "noNewPrivileges", "capabilities"];
    const MOUNT: &[&str] = &["destination", "source", "type", "options"];
    const LINUX: &[&str] = &["mountLabel", "uidMappings", "gidMappings", "devices", "seccomp"];
    fn odd<'a>(mut keys: impl Iterator<Item = &'a String>, known: &[&str]) -> Option<String> {
        keys.find(|key| {
            !key.is_ascii()
                || known
                    .iter()
                    .any(|known| key.eq_ignore_ascii_case(known) && key != known)
        })
        .cloned()
    }
    // What is null or of another type has been accepted or refused before.
    let top: BTreeMap<String, &RawValue> = serde_json::from_slice(bytes).unwrap_or_default();
    let object = |key: &str| -> BTreeMap<String, IgnoredAny> {
        let text = top.get(key).map_or("null", |value| value.get());
        serde_json::from_str(text).unwrap_or_default()
    };
    let mounts = top.get("mounts").map_or("null", |value| value.get());
    let mounts: Vec<BTreeMap<String, IgnoredAny>> = serde_json::from_str(mounts).unwrap_or_default();
    odd(top.keys(), TOP)
        .or_else(|| odd(object("root").keys(), ROOT))
        .or_else(|| odd(object("process").keys(), PROCESS))
        .or_else(|| odd(object("linux").keys(), LINUX))
        .or_else(|| odd(mounts.iter().flat_map(BTreeMap::keys), MOUNT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> Spec {
        oci::json::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn null_and_missing_are_the_same() {
        for json in [
            "{}",
            r#"{"annotations":null,"mounts":null,"hooks":null,"linux":null}"#,
            r#"{"hooks":{"prestart":null},"linux":{"mountLabel":null,"uidMappings":null,"devices":null}}"#,
        ] {
            let spec = spec(json);
            assert!(spec.mounts().is_empty() && spec.hooks().is_empty() && spec.devices().is_empty());
            assert!(spec.mapping().is_empty());
            assert_eq!(spec.mount_label(), "");
        }
    }

    #[test]
    fn the_root_must_be_the_bundle_s() {
        let bundle = Path::new("/run/b/c1");
        let root = |path: &str, destination: &str| {
            spec(&format!(
                r#"{{"root":{{"path":"{path}"}},"mounts":[{{"destination":"{destination}","source":"/x"}}]}}"#
            ))
            .check_root(bundle)
            .map_err(|fault| fault.code())
        };
        assert_eq!(root("rootfs", "/proc"), Ok(()));
        assert_eq!(root("/run/b/c1/rootfs", "/proc"), Ok(()));
        for path in ["", "/", "/run/b/c2/rootfs", "rootfs/..", "../c2/rootfs", "/run/b/c1"] {
            assert_eq!(root(path, "/proc"), Err("root-foreign"), "{path}");
        }
        for destination in ["/", "", "//", "/.", "/proc/..", "/../."] {
            assert_eq!(root("rootfs", destination), Err("root-foreign"), "{destination}");
        }
        assert_eq!(spec("{}").check_root(bundle).unwrap_err().code(), "root-foreign");
    }

    #[test]
    fn what_the_oci_runtime_would_read_otherwise_is_refused() {
        let code = |json: &str| {
            Spec::parse(json.as_bytes(), Path::new("config.json"))
                .err()
                .map_or("read", |fault| fault.code())
        };
        let good = r#"{"ociVersion":"1","root":{"path":"rootfs","readonly":true},"mounts":[{"destination":"/a","type":"bind"}],
            "annotations":{"Path":"x","ünïcode":"y"},"linux":{"mountLabel":"l","seccomp":null}}"#;
        assert_eq!(code(good), "read");
        for (own, other) in [
            (r#""ociVersion""#, r#""Root":{"path":"/"},"ociVersion""#),
            (r#""mounts""#, r#""Mounts""#),
            (r#""mounts""#, "\"mount\u{17f}\""),
            (r#""readonly""#, r#""PATH":"/","readonly""#),
            (r#""type""#, r#""Destination":"/","type""#),
            (r#""seccomp""#, r#""MountLabel":"other","seccomp""#),
            (r#""linux""#, r#""LINUX""#),
        ] {
            assert_eq!(code(&good.replace(own, other)), "spec-ambiguous", "{other}");
        }
        assert_eq!(
            code(&good.replace(r#""readonly""#, r#""path":"/","readonly""#)),
            "spec-invalid"
        );
    }

    #[test]
    fn hooks_and_devices_are_listed() {
        let spec = spec(
            r#"{"hooks":{"prestart":[{"path":"/usr/bin/nvidia","args":["x"]}],"createRuntime":[{"path":"/a"},{"path":"/b"}]},
                "linux":{"devices":[{"path":"/dev/fuse","type":"c"}]}}"#,
        );
        assert_eq!(
            spec.hooks(),
            ["createRuntime /a", "createRuntime /b", "prestart /usr/bin/nvidia"]
        );
        assert_eq!(spec.devices(), ["/dev/fuse"]);
    }
}
