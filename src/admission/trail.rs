//! The questions that led to an image before, so that the next container of the same layers asks them all at once.
//!
//! Nothing is believed because of a trail (see [`Trail`]): containerd answers every question anew.

use super::Request;
use super::memo::{MAX_MEMOS, make_room};
use crate::digest::Digest;
use crate::identity::Trail;
use crate::store::{self, StateDir};

/// Folder below `run`.
const DIRECTORY: &str = "trails";
/// Largest trail in bytes.
const MAX_TRAIL: u64 = 1 << 20;

/// Name of the trail of containers with the layers of `request`, on the same containerd. `None` without layers.
pub(super) fn name(request: &Request) -> Option<String> {
    let layers = request.rootfs.iter().find_map(|mount| mount.option("lowerdir"))?;
    let json = serde_json::to_vec(&(&request.containerd, &request.namespace, layers)).ok()?;
    Some(format!("{}.json", Digest::of(&json).hex()))
}

/// The trail of that name; an empty one where none is kept or it cannot be read.
pub(super) fn recall(run: &StateDir, name: &str) -> Trail {
    let bytes = run.subdir(DIRECTORY).and_then(|folder| folder.read(name, MAX_TRAIL));
    bytes
        .ok()
        .flatten()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

/// Keeps a trail.
pub(super) fn keep(run: &StateDir, name: &str, trail: &Trail) -> Result<(), store::Error> {
    let Ok(bytes) = serde_json::to_vec(trail) else {
        return Ok(());
    };
    let directory = run.subdir(DIRECTORY)?;
    make_room(&directory, MAX_MEMOS)?;
    directory.write_volatile(name, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Mount;

    fn request(options: &[&str]) -> Request {
        Request {
            containerd: "/run/containerd/containerd.sock".to_owned(),
            namespace: "default".to_owned(),
            container: "c".to_owned(),
            bundle: "/bundle".to_owned(),
            rootfs: vec![Mount {
                r#type: "overlay".to_owned(),
                source: "overlay".to_owned(),
                target: String::new(),
                options: options.iter().map(ToString::to_string).collect(),
            }],
            checkpoint: false,
            runtime: "runc".to_owned(),
            version: crate::admission::VERSION,
        }
    }

    #[test]
    fn containers_of_the_same_layers_share_a_trail() {
        let one = name(&request(&["upperdir=/s/2/fs", "lowerdir=/s/1/fs"]));
        assert!(one.is_some());
        assert_eq!(one, name(&request(&["upperdir=/s/3/fs", "lowerdir=/s/1/fs"])));
        assert_ne!(one, name(&request(&["upperdir=/s/2/fs", "lowerdir=/s/4/fs"])));
        let mut elsewhere = request(&["lowerdir=/s/1/fs"]);
        elsewhere.namespace = "k8s.io".to_owned();
        assert_ne!(one, name(&elsewhere));
        assert_eq!(name(&request(&["ro"])), None);
    }

    #[test]
    fn a_trail_that_cannot_be_read_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let run = StateDir::open(&folder.path().join("run")).unwrap();
        let digest = Digest::of(b"manifest");
        let json = format!(
            r#"{{"images":["app"],"snapshotters":["overlayfs"],"blobs":[["manifest","{digest}"]],"searches":[{{"indexes":["{digest}"]}}]}}"#
        );
        let trail: Trail = serde_json::from_str(&json).unwrap();
        assert_ne!(trail, Trail::default());
        assert_eq!(recall(&run, "a.json"), Trail::default());
        keep(&run, "a.json", &trail).unwrap();
        assert_eq!(recall(&run, "a.json"), trail);
        std::fs::write(run.path().join(DIRECTORY).join("a.json"), &json[..json.len() / 2]).unwrap();
        assert_eq!(recall(&run, "a.json"), Trail::default());
    }
}
