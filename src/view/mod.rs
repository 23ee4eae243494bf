//! The view: a container sees the files that its software needs, and nothing else of its image.
//!
//! A view is one directory, the *layer*, that is built once from the layers of a snapshot and a keep set, and is then
//! mounted together with them. Its three parts are used by three processes:
//!
//! - admission's broker (root, no threads needed) asks [`Snapshot::of`] what the layers are, [`Cache::open`] for the
//!   place of views, [`Cache::way`] what this kernel can do, [`Cache::find`] whether the view is there, and
//!   [`Cache::build`] to make it. What it gets, a [`View`], becomes part of the decision.
//! - the shim mounts: [`mount::Rootfs`], through `shim::mount`, with the [`View`] of the decision. Unmounting the root
//!   file system is all that is needed afterwards.
//! - the command line and the agent remove what is not used: [`Cache::all`], [`Cache::collect`]. `build` does that by
//!   itself when there are too many.
//!
//! ```no_run
//! # use std::collections::BTreeSet;
//! # use assay::{digest::Digest, identity::Mount, store::StateDir, view::{Cache, Error, Snapshot, View}};
//! # fn broker(
//! #     state: &StateDir, run: &StateDir, mounts: &[Mount], read_only_root: bool,
//! #     key: Digest, keep: impl FnOnce() -> BTreeSet<String>,
//! # ) -> Result<View, Error> {
//! let snapshot = Snapshot::of(mounts, read_only_root)?;
//! let cache = Cache::open(state, run, &snapshot)?;
//! let way = cache.way()?;
//! match cache.find(&key, way)? {
//!     Some(view) => Ok(view),
//!     None => cache.build(&key, way, &snapshot, &keep()),
//! }
//! # }
//! ```
//!
//! The *keep set* has paths of the image without links in them (what [`crate::tree::Tree::resolve_parent`] gives): files,
//! links, nodes and directories. What is above a path is kept with it; what is in a kept directory is not. A path that
//! no layer has is an error, never left out. Mount points of the container belong into the keep set where the image has
//! them: the OCI runtime makes those that it does not see, in the upper directory.
//!
//! The *key* is computed by the caller from what the view is made of: the image's configuration (its layers) and the
//! keep set or what it follows from. [`View::digest`] is of what the view shows, and does not depend on where.
//!
//! What each way guarantees: content that is not kept is reachable by no path below the mount, after a copy-up, a
//! rename or a re-creation of its name included, since no layer that the mount can look names up in has it. Metadata
//! (owner, mode, times, size, all extended attributes but `security.evm`, hard links among kept names) is as in the
//! image. Names that are not UTF-8 are never kept.

mod build;
mod cache;
mod keep;
mod merge;
pub mod mount;
mod probe;
mod record;
pub mod snapshot;
pub mod watch;

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::store;
use crate::tree::MAX_NODES;

pub use cache::{Cache, Collected, GRACE, Limits, MAX_NAMES, MAX_VIEWS};
pub use probe::way;
pub use snapshot::{Snapshot, Unsuitable};

/// Deepest nesting of directories in a view.
const MAX_DEPTH: usize = 128;

/// How a view is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// One overlay: metadata over data-only layers. Kernels of about 6.16 and newer.
    One,
    /// A read-only overlay with `metacopy=on` below one with the container's own options. From 6.5.
    Two,
    /// Whiteouts over the snapshot's layers. Every kernel.
    Whiteouts,
}

impl Way {
    /// The word for it in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Whiteouts => "whiteouts",
        }
    }

    /// What its layer holds.
    #[must_use]
    pub fn form(self) -> Form {
        match self {
            Self::One | Self::Two => Form::Metadata,
            Self::Whiteouts => Form::Whiteouts,
        }
    }
}

/// What the layer of a view holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// The names that are kept, as overlayfs metadata without content.
    Metadata,
    /// A whiteout for each name that is not kept.
    Whiteouts,
}

impl Form {
    /// The word for it in names of directories.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Whiteouts => "whiteouts",
        }
    }
}

/// A view that is there to be mounted: part of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// What it was made for; the name of its layer.
    pub key: Digest,
    /// How it is mounted.
    pub way: Way,
    /// Directory of its layer.
    pub layer: PathBuf,
    /// What it shows, as a digest over every name with owner, mode, times and attributes.
    pub digest: Digest,
}

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(clippy::error_impl_error, reason = "always written with its module: view::Error")]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what: a path in the image, or of a directory of Assay's own.
        path: PathBuf,
        /// What the kernel said.
        source: Errno,
    },
    /// The file system has no room, or the quota is used up.
    #[error("cannot {action} {path:?}: no space left; free some on the snapshotter's file system and try again")]
    Full {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// A directory of Assay's own cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The snapshot has no layers that a view can be made of.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    /// A path of the keep set that no path can be.
    #[error("'{}' is not an absolute path without '.', '..' and doubled slashes", .0.escape_debug())]
    Path(String),
    /// A path of the keep set that the layers do not have.
    #[error("{0:?} is to be kept and is in no layer")]
    Missing(PathBuf),
    /// Something is to be kept below what is no directory.
    #[error("{0:?} is no directory, and something below it is to be kept")]
    NotDirectory(PathBuf),
    /// Deeper than [`Way`]s are tested with.
    #[error("{0:?} lies deeper than {MAX_DEPTH} directories")]
    TooDeep(PathBuf),
    /// More names than an image may have.
    #[error("the view has more than {MAX_NODES} names")]
    TooManyNames,
    /// More extended attributes than any image needs.
    #[error("the files of the view have too many extended attributes")]
    TooManyAttributes,
    /// More layers than overlayfs takes.
    #[error("the snapshot has {0} layers, one more than overlayfs takes beside a view")]
    TooManyLayers(usize),
    /// A layer that shows something else than the files in it.
    #[error(
        "{path:?} has the extended attribute trusted.overlay.{attribute} in a layer, which makes it something else than \
         the file that it is; no image needs that"
    )]
    Foreign {
        /// Path in the image.
        path: PathBuf,
        /// The attribute's name without its prefix.
        attribute: String,
    },
    /// No way to show a view works here.
    #[error("this kernel cannot show a view on the snapshotter's file system: {0}")]
    NoWay(String),
}

impl Error {
    /// The code that a refusal has for it.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } | Self::Store(store::Error::Full { .. }) => "state-full",
            Self::Store(_) => "state-unusable",
            Self::Unsuitable(_) => "view-unsuitable",
            Self::Foreign { .. } => "view-layer-foreign",
            Self::TooDeep(_) | Self::TooManyNames | Self::TooManyAttributes | Self::TooManyLayers(_) => {
                "view-too-large"
            }
            Self::Path(_) | Self::Missing(_) | Self::NotDirectory(_) => "view-keep-set",
            Self::NoWay(_) => "view-impossible",
            Self::Io { .. } => "view-failed",
        }
    }

    /// What to do about it, for the end of a refusal's line.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Full { .. } | Self::Store(store::Error::Full { .. }) => {
                "free space on the file system of the snapshotter and on that of Assay's state"
            }
            Self::Store(_) => "an administrator makes the state directory root's own, mode 0700, and writable",
            Self::Unsuitable(_) => {
                "use the overlayfs snapshotter, set readOnlyRootFilesystem, or set filesystem.mode to audit or off"
            }
            Self::Foreign { .. } => "rebuild the image without extended attributes of overlayfs in its layers",
            Self::TooDeep(_) | Self::TooManyNames | Self::TooManyAttributes | Self::TooManyLayers(_) => {
                "use an image with fewer files or layers, or set filesystem.mode to off in the rule"
            }
            Self::Path(_) | Self::Missing(_) | Self::NotDirectory(_) => {
                "report it: the keep set does not fit the image"
            }
            Self::NoWay(_) => {
                "set filesystem.mode to audit or off in the rule, or use another file system for containerd"
            }
            Self::Io { .. } => "look at the file system that the path is on, then start the container again",
        }
    }

    fn at(action: &'static str, path: &Path, source: Errno) -> Self {
        let path = path.to_owned();
        match source {
            Errno::NOSPC | Errno::DQUOT => Self::Full { action, path },
            source => Self::Io { action, path, source },
        }
    }
}
