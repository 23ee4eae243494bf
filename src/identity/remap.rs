//! Names of snapshots whose files were given to a user namespace's ids.
//!
//! Where a snapshotter cannot map ids itself, containerd copies the image's top snapshot, changes the owners and puts
//! the copy between the image and the container. The copy's name is a function of the image's chain ID and the
//! mapping, so it can be computed from the mapping that the container will really get.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One line of a user namespace's mapping, as in `linux.uidMappings` of the OCI runtime specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    #[serde(rename = "containerID", default)]
    pub container_id: u32,
    /// First id outside.
    #[serde(rename = "hostID", default)]
    pub host_id: u32,
    /// How many.
    #[serde(default)]
    pub size: u32,
}

impl fmt::Display for IdMapping {
    /// The form of snapshot labels and of the mount options `uidmap=` and `gidmap=`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.container_id, self.host_id, self.size)
    }
}

/// The mapping of a container, both halves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

impl Mapping {
    /// Whether the container has a user namespace at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Names that the remapped copy of the snapshot `chain` can have, oldest scheme first; none without a mapping.
    ///
    /// - containerd 1.6 and 1.7: `<chain>-<uid>-<gid>` with the host ids of root;
    /// - containerd 2.0 and newer: the digest of a JSON document of parent and mapping, with ids sorted;
    /// - later releases add a version to that document.
    #[must_use]
    pub fn parents(&self, chain: &Digest) -> Vec<String> {
        let root = |map: &[IdMapping]| {
            map.iter()
                .find(|line| line.container_id == 0 && line.size > 0)
                .map(|line| line.host_id)
        };
        let (Some(uid), Some(gid)) = (root(&self.uids), root(&self.gids)) else {
            return Vec::new();
        };
        let mut names = vec![format!("{chain}-{uid}-{gid}")];
        for version in [None, Some(1)] {
            let document = Document {
                parent: chain,
                id_map: Halves {
                    uids: sorted(&self.uids),
                    gids: sorted(&self.gids),
                },
                version,
            };
            // The document has only numbers and one digest: it always has a JSON form.
            if let Ok(json) = serde_json::to_vec(&document) {
                names.push(Digest::of(&json).to_string());
            }
        }
        names
    }

    /// Whether mount option `option` is this mapping, for snapshotters that map ids themselves.
    #[must_use]
    pub fn is_option(&self, option: &str) -> bool {
        let (half, text) = match (option.strip_prefix("uidmap="), option.strip_prefix("gidmap=")) {
            (Some(text), _) => (&self.uids, text),
            (_, Some(text)) => (&self.gids, text),
            _ => return false,
        };
        let lines: Vec<String> = half.iter().map(IdMapping::to_string).collect();
        !lines.is_empty() && lines.join(",") == text
    }
}

fn sorted(map: &[IdMapping]) -> Vec<IdMapping> {
    let mut map = map.to_vec();
    map.sort_by_key(|line| line.container_id);
    map
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "Parent")]
    parent: &'a Digest,
    #[serde(rename = "IDMap")]
    id_map: Halves,
    #[serde(rename = "Version", skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

#[derive(Serialize)]
struct Halves {
    #[serde(rename = "UidMap")]
    uids: Vec<IdMapping>,
    #[serde(rename = "GidMap")]
    gids: Vec<IdMapping>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping {
            container_id,
            host_id,
            size,
        }
    }

    #[test]
    fn the_document_is_the_one_that_containerd_hashes() {
        let chain = Digest::of(b"chain");
        let mapping = Mapping {
            uids: vec![line(1, 5000, 9), line(0, 1000, 1)],
            gids: vec![line(0, 2000, 10)],
        };
        let json = format!(
            concat!(
                r#"{{"Parent":"{}","IDMap":{{"#,
                r#""UidMap":[{{"containerID":0,"hostID":1000,"size":1}},{{"containerID":1,"hostID":5000,"size":9}}],"#,
                r#""GidMap":[{{"containerID":0,"hostID":2000,"size":10}}]}}}}"#
            ),
            chain
        );
        let versioned = format!("{},\"Version\":1}}", json.strip_suffix('}').unwrap());
        assert_eq!(
            mapping.parents(&chain),
            [
                format!("{chain}-1000-2000"),
                Digest::of(json.as_bytes()).to_string(),
                Digest::of(versioned.as_bytes()).to_string(),
            ]
        );
    }

    #[test]
    fn the_names_are_those_that_containerd_gives() {
        let chain = "sha256:476d587d6bfaebd4794aa81e06f80915d5b9579838043181c2373af0c1f71026";
        let map = vec![line(0, 4000, 1000)];
        let mapping = Mapping {
            uids: map.clone(),
            gids: map,
        };
        let names = mapping.parents(&chain.parse().unwrap());
        // Recorded from `ctr run --uidmap 0:4000:1000 --gidmap 0:4000:1000` of containerd 1.6.20 and 1.7.24, and of 2.1.9.
        assert_eq!(names[0], format!("{chain}-4000-4000"));
        assert_eq!(
            names[1],
            "sha256:061b9f54a9bbc93c29ad2b1155c2359db05cd05ef577d68a078710014e1fc861"
        );
    }

    #[test]
    fn without_a_mapping_of_root_there_is_no_copy() {
        let chain = Digest::of(b"chain");
        assert!(Mapping::default().parents(&chain).is_empty());
        let mapping = Mapping {
            uids: vec![line(1, 1000, 1)],
            gids: vec![line(0, 1000, 1)],
        };
        assert!(mapping.parents(&chain).is_empty());
    }

    #[test]
    fn a_mount_option_must_be_the_same_mapping() {
        let mapping = Mapping {
            uids: vec![line(0, 1000, 1), line(1, 5000, 9)],
            gids: vec![line(0, 2000, 10)],
        };
        assert!(mapping.is_option("uidmap=0:1000:1,1:5000:9"));
        assert!(mapping.is_option("gidmap=0:2000:10"));
        for foreign in ["uidmap=0:0:4294967295", "uidmap=", "gidmap=0:1000:1", "0:2000:10"] {
            assert!(!mapping.is_option(foreign), "{foreign}");
        }
        assert!(!Mapping::default().is_option("uidmap="));
    }
}
