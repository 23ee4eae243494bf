//! Image volumes: directories of a container that are an image's files, mounted by containerd's CRI since 2.1.
//!
//! containerd prepares a snapshot of the volume's image, mounts it at a directory of its own and uses the path of
//! that directory as the snapshot's key; the container gets a bind mount of it or of a directory below. So a bind mount
//! is an image volume exactly when the mount that its source lies on is also the key of a snapshot.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::containerd::Containerd;
use super::image::{self, Image};
use super::mounts::Mount;
use super::remap::Mapping;
use super::spec::Spec;
use super::{CriMount, Fault};
use crate::store;

/// Largest mount table in bytes that is read.
const MAX_MOUNTINFO: u64 = 64 << 20;
/// Most image volumes of one container.
const MAX_VOLUMES: usize = 64;

/// An image volume, as far as it is known without proof.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Where the container sees it.
    pub(super) destination: String,
    /// Key of its snapshot, which is where containerd mounted it.
    key: String,
    /// Parent of its snapshot.
    parent: String,
    /// Options of its file system in the mount table.
    mounted: String,
    /// Name of the image as the pod's author wrote it, where CRI noted it.
    pub(super) name: String,
}

/// A line of `/proc/self/mountinfo`.
struct Line {
    point: PathBuf,
    kind: String,
    options: String,
}

/// Finds the image volumes of a container.
pub(super) async fn find(
    containerd: &Containerd,
    snapshotter: &str,
    spec: &Spec,
    noted: &[CriMount],
) -> Result<Vec<Candidate>, Fault> {
    if spec.mounts().iter().all(|mount| !mount.source.starts_with('/')) {
        return Ok(Vec::new());
    }
    let table = store::read_bounded(Path::new("/proc/self/mountinfo"), MAX_MOUNTINFO).map_err(Fault::MountTable)?;
    let table: Vec<Line> = String::from_utf8_lossy(&table).lines().filter_map(line).collect();
    let mut candidates = Vec::new();
    let mut asked = BTreeSet::new();
    for mount in spec.mounts() {
        // The kernel will follow links in the source, so the mount it ends on is the one that counts. What does not
        // exist cannot be an image's.
        let Ok(source) = std::fs::canonicalize(&mount.source) else {
            continue;
        };
        // The last line that fits best is the one on top.
        let on = table
            .iter()
            .filter(|line| source.starts_with(&line.point))
            .max_by_key(|line| line.point.as_os_str().len());
        let Some(on) = on else { continue };
        if on.point == Path::new("/") || is_kernel_made(&on.kind) {
            continue;
        }
        let Some(key) = on.point.to_str() else { continue };
        if !asked.insert((key.to_owned(), mount.destination.clone())) {
            continue;
        }
        let Some(parent) = containerd.parent(snapshotter, key).await? else {
            continue;
        };
        if candidates.len() == MAX_VOLUMES {
            return Err(Fault::VolumeForeign {
                destination: mount.destination.clone(),
                what: format!("there are more than {MAX_VOLUMES} of them"),
            });
        }
        let note = noted.iter().find(|note| note.container_path == mount.destination);
        candidates.push(Candidate {
            destination: mount.destination.clone(),
            key: key.to_owned(),
            parent,
            mounted: on.options.clone(),
            name: note
                .and_then(|note| note.image.as_ref())
                .map_or_else(String::new, |image| image.name().to_owned()),
        });
    }
    Ok(candidates)
}

/// Binds a volume to its image. Only the files of a volume are used, so every image with these layers is it.
pub(super) async fn bind(
    containerd: &Containerd,
    snapshotter: &str,
    volume: &Candidate,
    mapping: &Mapping,
) -> Result<Image, Fault> {
    let foreign = |what: String| Fault::VolumeForeign {
        destination: volume.destination.clone(),
        what,
    };
    let held = containerd
        .mounts(snapshotter, &volume.key)
        .await?
        .ok_or_else(|| foreign("its snapshot is gone".to_owned()))?;
    is_mounted(&held, &volume.mounted).map_err(foreign)?;
    let unknown = || Fault::VolumeUnknown {
        destination: volume.destination.clone(),
        parent: volume.parent.clone(),
    };
    if volume.parent.is_empty() {
        return Err(unknown());
    }
    // A remapped copy stands between the volume and its image.
    let above = containerd
        .parent(snapshotter, &volume.parent)
        .await?
        .unwrap_or_default();
    for base in [&volume.parent, &above] {
        for digest in containerd.configs_of(snapshotter, base).await? {
            let Ok(config) = image::config(containerd, digest).await else {
                continue;
            };
            let chain_id = image::chain(digest, &config)?;
            let is_parent = chain_id.to_string() == volume.parent
                || (chain_id.to_string() == *above && mapping.parents(&chain_id).contains(&volume.parent));
            if !is_parent {
                continue;
            }
            let proposals = image::search(containerd, &[digest], &[]).await?;
            let (manifests, indexes) = image::complete(containerd, digest, Vec::new(), proposals).await?;
            if manifests.is_empty() {
                continue;
            }
            return Ok(Image {
                name: volume.name.clone(),
                config: digest,
                manifests,
                indexes,
                chain_id,
            });
        }
    }
    Err(unknown())
}

/// Compares what the mount table says with the snapshot's mounts. containerd shortens long lists of directories to
/// ones relative to their common parent, so the end of each is what has to agree.
fn is_mounted(held: &[Mount], mounted: &str) -> Result<(), String> {
    let [held] = held else {
        return Err(format!("its snapshot has {} mounts", held.len()));
    };
    if held.r#type != "overlay" {
        return Err(format!(
            "snapshots of type {} are not supported for volumes",
            held.r#type
        ));
    }
    for key in ["lowerdir", "upperdir"] {
        let held: Vec<&str> = held
            .option(key)
            .map(|list| list.split(':').collect())
            .unwrap_or_default();
        let mounted: Vec<String> = mounted
            .split(',')
            .find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
            .map(|list| unescape(list).split(':').map(str::to_owned).collect())
            .unwrap_or_default();
        let same = held.len() == mounted.len()
            && held.iter().zip(&mounted).all(|(held, mounted)| {
                held == mounted || (!mounted.starts_with('/') && held.ends_with(&format!("/{mounted}")))
            });
        if !same {
            return Err(format!(
                "{key} is '{}' instead of '{}'",
                mounted.join(":"),
                held.join(":")
            ));
        }
    }
    Ok(())
}

fn is_kernel_made(kind: &str) -> bool {
    matches!(
        kind,
        "tmpfs" | "proc" | "sysfs" | "devtmpfs" | "devpts" | "mqueue" | "cgroup" | "cgroup2" | "securityfs" | "bpf"
    )
}

fn line(line: &str) -> Option<Line> {
    let (front, back) = line.split_once(" - ")?;
    let mut back = back.split(' ');
    Some(Line {
        point: PathBuf::from(unescape(front.split(' ').nth(4)?)),
        kind: back.next()?.to_owned(),
        options: back.nth(1)?.to_owned(),
    })
}

/// The kernel writes blanks, line breaks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = |digit: u8| char::from(digit).to_digit(8);
        if let (b'\\', [a, b, c, after @ ..]) = (first, tail)
            && let (Some(a), Some(b), Some(c)) = (octal(*a), octal(*b), octal(*c))
            && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
        {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(options: &[&str]) -> Vec<Mount> {
        vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
        }]
    }

    #[test]
    fn the_mount_table_is_read() {
        let text =
            r"36 35 98:0 /mnt1 /mnt\040two rw,noatime master:1 - overlay overlay rw,lowerdir=/a\072b:/c,upperdir=/u";
        let line = line(text).unwrap();
        assert_eq!(line.point, Path::new("/mnt two"));
        assert_eq!(line.kind, "overlay");
        assert_eq!(line.options, r"rw,lowerdir=/a\072b:/c,upperdir=/u");
        assert_eq!(unescape(r"a\134b\04\9x\777"), r"a\b\04\9x\777");
        assert!(super::line("36 35").is_none());
    }

    #[test]
    fn a_volume_is_what_its_snapshot_mounts() {
        let snapshot = held(&["lowerdir=/s/2/fs:/s/1/fs", "upperdir=/s/3/fs", "workdir=/s/3/work"]);
        for same in [
            "rw,lowerdir=/s/2/fs:/s/1/fs,upperdir=/s/3/fs,workdir=/s/3/work,volatile",
            "rw,lowerdir=2/fs:1/fs,upperdir=/s/3/fs",
        ] {
            assert_eq!(is_mounted(&snapshot, same), Ok(()), "{same}");
        }
        for other in [
            "rw,lowerdir=/s/1/fs:/s/2/fs,upperdir=/s/3/fs",
            "rw,lowerdir=/evil/2/fs:/s/1/fs,upperdir=/s/3/fs",
            "rw,lowerdir=/s/2/fs,upperdir=/s/3/fs",
            "rw,lowerdir=fs:fs,upperdir=/s/4/fs",
            "rw",
        ] {
            assert!(is_mounted(&snapshot, other).is_err(), "{other}");
        }
        let mut native = held(&[]);
        native[0].r#type = "bind".to_owned();
        assert!(is_mounted(&native, "rw").is_err());
        assert!(is_mounted(&[], "rw").is_err());
    }
}
