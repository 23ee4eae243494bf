//! The part of a bundle's `config.json` that tells what is run and from where.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

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
    hooks: Option<BTreeMap<String, Option<Vec<Hook>>>>,
    linux: Option<Linux>,
}

#[derive(Debug, Deserialize)]
struct Root {
    path: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct SpecMount {
    pub(super) destination: String,
    #[serde(default)]
    pub(super) source: String,
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
        let spec: Self = oci::json::parse(&bytes).map_err(|source| Fault::SpecInvalid { path, source })?;
        Ok(spec)
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
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
