//! Why a container could not be bound to an image.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::{oci, store};

/// Why a container could not be bound to an image. Each has a code of its own and a next step.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Nobody answers on containerd's socket.
    #[error("containerd does not answer on {socket}: {why}")]
    Unreachable {
        /// The socket.
        socket: String,
        /// What the transport said.
        why: String,
    },
    /// A call to containerd failed.
    #[error("containerd's {call} failed: {code}: {message}")]
    Call {
        /// Service and method.
        call: &'static str,
        /// The gRPC code.
        code: &'static str,
        /// What containerd said, shortened.
        message: String,
    },
    /// A namespace that cannot be sent.
    #[error("'{0}' is not a containerd namespace")]
    Namespace(String),
    /// containerd has no record of the container.
    #[error("containerd has no record of container {0}")]
    ContainerUnknown(String),
    /// `config.json` of the bundle cannot be read.
    #[error("the bundle's configuration cannot be read: {0}")]
    SpecUnreadable(#[source] store::Error),
    /// `config.json` of the bundle is not one.
    #[error("{} is not an OCI runtime configuration: {source}", path.display())]
    SpecInvalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: oci::json::Error,
    },
    /// `config.json` has a key that the OCI runtime would read as another one.
    #[error("{} has the key '{key}', which the OCI runtime would take for another", path.display())]
    SpecAmbiguous {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// `config.json` runs another directory than the one that the snapshot is mounted on.
    #[error("the configuration's root is '{0}', which is not where the image is mounted")]
    RootForeign(String),
    /// What CRI noted about the container contradicts its annotations, or cannot be read.
    #[error("the container's CRI record and its annotations disagree: {0}")]
    AnnotationsForeign(String),
    /// The container was made without an image.
    #[error("the container was made without an image: {0}")]
    NoImage(&'static str),
    /// The image that the container names is not in containerd's store.
    #[error("containerd has no image named '{0}'")]
    ImageUnknown(String),
    /// The name that the container was made from now stands for another image.
    #[error("'{name}' now stands for another image than the one whose snapshot {parent} is mounted")]
    ImageRetagged {
        /// The name.
        name: String,
        /// Parent of the snapshot.
        parent: String,
    },
    /// Several configurations of the image have these layers.
    #[error("several configurations of '{name}' have the mounted layers, {first} and {second} among them")]
    ImageAmbiguous {
        /// The name.
        name: String,
        /// One.
        first: Digest,
        /// Another.
        second: Digest,
    },
    /// The image has no manifest for this node.
    #[error("'{name}' has no manifest for {platform} in containerd's store")]
    PlatformMissing {
        /// The name.
        name: String,
        /// The platform of this node.
        platform: String,
    },
    /// containerd has no such snapshot.
    #[error("snapshotter '{snapshotter}' has no snapshot '{key}'")]
    SnapshotMissing {
        /// Name of the snapshotter.
        snapshotter: String,
        /// Key of the snapshot.
        key: String,
    },
    /// The snapshot holds no image.
    #[error("the snapshot '{0}' has no parent, so its files come from no image")]
    SnapshotNoParent(String),
    /// The snapshot is another image's, or no image's.
    #[error("the mounted snapshot's parent is {parent}, not an unpacked copy of the layers of {image}")]
    SnapshotForeign {
        /// Parent of the snapshot.
        parent: String,
        /// Name or digest of the image that it should be.
        image: String,
    },
    /// The request mounts something else than the snapshot.
    #[error("the request does not mount the container's snapshot: {what}")]
    MountsForeign {
        /// The first difference.
        what: String,
    },
    /// The request mounts the snapshot with an option that the snapshot does not have.
    #[error("the request adds the mount option '{option}', whose effect is not known")]
    MountOptionUnknown {
        /// The option.
        option: String,
    },
    /// The writable directory cannot be read.
    #[error("the container's writable directory {path} cannot be read: {source}")]
    UpperUnreadable {
        /// The directory.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A blob is not in containerd's content store.
    #[error("{what} {digest} is not in containerd's content store")]
    ContentMissing {
        /// What the blob is.
        what: Blob,
        /// Its digest.
        digest: Digest,
    },
    /// A blob's bytes are not those of its digest.
    #[error("{what} {digest} was changed in containerd's content store: its bytes have the digest {found}")]
    ContentEdited {
        /// What the blob is.
        what: Blob,
        /// Its digest.
        digest: Digest,
        /// The digest of what was read.
        found: Digest,
    },
    /// A blob is larger than one of its kind may be.
    #[error("{what} {digest} is larger than the {limit} bytes that are accepted")]
    ContentTooLarge {
        /// What the blob is.
        what: Blob,
        /// Its digest.
        digest: Digest,
        /// The limit.
        limit: u64,
    },
    /// A blob is not what it should be.
    #[error("{what} {digest} cannot be read: {source}")]
    ContentInvalid {
        /// What the blob is.
        what: Blob,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        source: oci::Error,
    },
    /// An index lists more, or nests deeper, than is followed.
    #[error("index {0} leads to more manifests than are followed")]
    IndexTooLarge(Digest),
    /// The image volume's directory is not what containerd mounted there.
    #[error("the image volume at '{destination}' is not what containerd mounted: {what}")]
    VolumeForeign {
        /// Where the container sees it.
        destination: String,
        /// The first difference.
        what: String,
    },
    /// No image in the content store has the layers of the volume.
    #[error("the image volume at '{destination}' has the layers {parent}, which no image in containerd's store has")]
    VolumeUnknown {
        /// Where the container sees it.
        destination: String,
        /// Parent of the volume's snapshot.
        parent: String,
    },
    /// The mount table cannot be read.
    #[error("the mount table cannot be read: {0}")]
    MountTable(#[source] store::Error),
    /// Docker made the container.
    #[error("the container was made by dockerd, whose layout is not supported")]
    DockerLayout,
    /// containerd runs without root.
    #[error("containerd runs without root, which is not supported: {what}")]
    RootlessLayout {
        /// How that was seen.
        what: String,
    },
    /// An image whose layers no snapshotter has.
    #[error("the layers of image {0} are not unpacked on this node")]
    NotUnpacked(String),
    /// The task is restored from a checkpoint.
    #[error("the task is restored from a checkpoint, whose memory no signature covers")]
    Checkpoint,
}

/// What a blob of the content store is, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blob {
    /// An image configuration.
    Config,
    /// A manifest or an index.
    Manifest,
}

impl std::fmt::Display for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Config => "image configuration",
            Self::Manifest => "manifest",
        })
    }
}

impl Fault {
    /// Stable code of the decision.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "containerd-unreachable",
            Self::Call { .. } => "containerd-failed",
            Self::Namespace(_) => "namespace-invalid",
            Self::ContainerUnknown(_) => "container-unknown",
            Self::SpecUnreadable(_) => "spec-unreadable",
            Self::SpecInvalid { .. } => "spec-invalid",
            Self::SpecAmbiguous { .. } => "spec-ambiguous",
            Self::RootForeign(_) => "root-foreign",
            Self::AnnotationsForeign(_) => "annotations-foreign",
            Self::NoImage(_) => "no-image",
            Self::ImageUnknown(_) => "image-unknown",
            Self::ImageRetagged { .. } => "image-retagged",
            Self::ImageAmbiguous { .. } => "image-ambiguous",
            Self::PlatformMissing { .. } => "platform-missing",
            Self::SnapshotMissing { .. } => "snapshot-missing",
            Self::SnapshotNoParent(_) => "snapshot-no-parent",
            Self::SnapshotForeign { .. } => "snapshot-foreign",
            Self::MountsForeign { .. } => "mounts-foreign",
            Self::MountOptionUnknown { .. } => "mount-option-unknown",
            Self::UpperUnreadable { .. } => "upper-unreadable",
            Self::ContentMissing { .. } => "content-missing",
            Self::ContentEdited { what: Blob::Config, .. } => "config-edited",
            Self::ContentEdited { .. } => "manifest-edited",
            Self::ContentTooLarge { .. } => "content-too-large",
            Self::ContentInvalid { .. } => "content-invalid",
            Self::IndexTooLarge(_) => "index-too-large",
            Self::VolumeForeign { .. } => "volume-foreign",
            Self::VolumeUnknown { .. } => "volume-unknown",
            Self::MountTable(_) => "mount-table-unreadable",
            Self::DockerLayout => "docker-layout",
            Self::RootlessLayout { .. } => "rootless-layout",
            Self::NotUnpacked(_) => "image-not-unpacked",
            Self::Checkpoint => "checkpoint-restore",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => {
                "check that containerd runs (systemctl status containerd) and that this is its socket (commands take \
                 another with --address); then try again"
            }
            Self::Call { .. } | Self::MountTable(_) => {
                "check that containerd runs (systemctl status containerd) and start the container again"
            }
            Self::Namespace(_) | Self::ContainerUnknown(_) | Self::SnapshotMissing { .. } => {
                "delete the container and create it again through containerd"
            }
            Self::SpecUnreadable(_)
            | Self::SpecInvalid { .. }
            | Self::SpecAmbiguous { .. }
            | Self::AnnotationsForeign(_) => "delete the container and create it again",
            Self::RootForeign(_) | Self::MountsForeign { .. } | Self::MountOptionUnknown { .. } => {
                "create the container from its image, without changing its root or mounts"
            }
            Self::NoImage(_) | Self::SnapshotNoParent(_) => {
                "create the container from an image instead of a directory or an empty snapshot"
            }
            Self::ImageUnknown(_) | Self::PlatformMissing { .. } => {
                "pull the image into this containerd namespace (assay verify looks in k8s.io unless --namespace says \
                 otherwise)"
            }
            Self::ImageRetagged { .. } | Self::SnapshotForeign { .. } => {
                "delete the container and create it again from the image that should run"
            }
            Self::ImageAmbiguous { .. } => "create the container from the manifest's own digest",
            Self::UpperUnreadable { .. } => "delete the container and create it again",
            Self::ContentMissing { .. } => "pull the image again: ctr --namespace NS images pull NAME",
            Self::ContentEdited { .. } => {
                "find out who changed the node's content store; then remove the image and pull it again"
            }
            Self::ContentTooLarge { .. } | Self::ContentInvalid { .. } | Self::IndexTooLarge(_) => {
                "have the image rebuilt: its own description is broken"
            }
            Self::VolumeForeign { .. } | Self::VolumeUnknown { .. } => {
                "delete the pod and create it again, after pulling the volume's image"
            }
            Self::DockerLayout => "run this container with Docker's default runtime, or through containerd itself",
            Self::RootlessLayout { .. } => "run this container through a containerd that runs as root",
            Self::NotUnpacked(_) => "unpack them by pulling the image again: ctr --namespace NS images pull NAME",
            Self::Checkpoint => "start the container from its image instead of a checkpoint",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_was_wrong_and_where() {
        let digest = Digest::of(b"");
        for (fault, sentence) in [
            (
                Fault::ImageRetagged {
                    name: "example.com/app:1".to_owned(),
                    parent: "sha256:00".to_owned(),
                },
                "'example.com/app:1' now stands for another image than the one whose snapshot sha256:00 is mounted",
            ),
            (
                Fault::ContentEdited {
                    what: Blob::Config,
                    digest,
                    found: Digest::of(b"x"),
                },
                "image configuration sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 was changed in \
                 containerd's content store: its bytes have the digest \
                 sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
            ),
            (
                Fault::MountsForeign {
                    what: "source '/etc' instead of 'overlay'".to_owned(),
                },
                "the request does not mount the container's snapshot: source '/etc' instead of 'overlay'",
            ),
            (
                Fault::RootForeign("/".to_owned()),
                "the configuration's root is '/', which is not where the image is mounted",
            ),
        ] {
            assert_eq!(fault.to_string(), sentence);
            assert!(
                !fault.fix().is_empty()
                    && fault
                        .code()
                        .bytes()
                        .all(|byte| byte == b'-' || byte.is_ascii_lowercase())
            );
        }
    }
}
