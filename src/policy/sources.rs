//! Where policy and trust are read from: this node's own folders, and what it keeps of its fleet's.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::diagnostic::{Code, Diagnostic};
use crate::digest::Digest;
use crate::store::{self, StateDir};

/// Folders of a fleet's policy, as they are called on a node and in what is distributed.
pub const FOLDERS: [&str; 4] = ["policy.d", "trust.d", "closure.d", "seccomp.d"];

/// Folder below `state`: [`KEPT`], and beside it the files of the policy that it names.
pub const FLEET: &str = "fleet";
const KEPT: &str = "kept.json";
/// Version of [`KEPT`].
const VERSION: u32 = 1;
const MAX_BYTES: u64 = 64 << 10;

/// Folders or files; those of one kind are read together, in the order of the names of their files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Rules and the deny list.
    pub policy: Vec<PathBuf>,
    /// Keys, roots, builders and trust stores; what does not exist holds none.
    pub trust: Vec<PathBuf>,
    /// Further rules of the closure; likewise.
    pub closure: Vec<PathBuf>,
    /// Tunings of seccomp profiles; likewise.
    pub seccomp: Vec<PathBuf>,
}

/// The policy of a fleet that a node keeps: it was signed by a key that may sign policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    format: u32,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its version; a lower one is never taken.
    pub version: u64,
    /// When it should have been replaced by a newer one.
    pub expires: Timestamp,
    /// Identifier of the key that signed it.
    pub signer: String,
    /// Where it came from.
    pub from: String,
    /// When it came.
    pub time: Timestamp,
}

impl Sources {
    /// This node's own.
    #[must_use]
    pub fn own(config: &Config) -> Self {
        Self {
            policy: vec![config.policy.clone()],
            trust: vec![config.trust.clone()],
            closure: vec![config.closure.clone()],
            seccomp: vec![config.seccomp.clone()],
        }
    }

    /// This node's own, and those of its fleet where it keeps any.
    ///
    /// # Errors
    /// What it keeps cannot be read: leaving it out could allow what the fleet denies.
    pub fn of(config: &Config) -> Result<Self, Diagnostic> {
        let own = Self::own(config);
        Ok(match Kept::read(&config.state)? {
            Some(kept) => own.and(&config.state.join(FLEET).join(kept.digest.hex())),
            None => own,
        })
    }

    /// With those in the folders of a fleet's policy below `folder`.
    #[must_use]
    pub fn and(mut self, folder: &Path) -> Self {
        let lists = [&mut self.policy, &mut self.trust, &mut self.closure, &mut self.seccomp];
        for (list, name) in lists.into_iter().zip(FOLDERS) {
            list.push(folder.join(name));
        }
        self
    }
}

impl Kept {
    pub(crate) fn new(digest: Digest, version: u64, expires: Timestamp, signer: String, from: String) -> Self {
        Self {
            format: VERSION,
            digest,
            version,
            expires,
            signer,
            from,
            time: Timestamp::now(),
        }
    }

    /// What the node with this state keeps; `None` where there is nothing, or nothing that this user may see.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written.
    pub fn read(state: &Path) -> Result<Option<Self>, Diagnostic> {
        let path = state.join(FLEET).join(KEPT);
        match path.try_exists() {
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            Ok(true) | Err(_) => {}
        }
        let unusable = |why: String| {
            Diagnostic::without_place(
                Code::Unreadable,
                format!(
                    "the fleet's policy that this node keeps cannot be used: {}: {why}",
                    path.display()
                ),
                "remove that file and fetch the policy again, of whatever version: assay policy pull, or assay policy \
                 apply --from FILE",
            )
        };
        let read = || StateDir::open(state)?.subdir(FLEET)?.read(KEPT, MAX_BYTES);
        let Some(bytes) = read().map_err(|error: store::Error| unusable(error.to_string()))? else {
            return Ok(None);
        };
        let kept: Self = serde_json::from_slice(&bytes).map_err(|error| unusable(error.to_string()))?;
        if kept.format != VERSION {
            return Err(unusable(format!(
                "it has format {}, and this version reads {VERSION}",
                kept.format
            )));
        }
        Ok(Some(kept))
    }

    /// Writes it into the folder of the fleet's policy.
    pub(crate) fn write(&self, fleet: &StateDir) -> Result<(), store::Error> {
        // Numbers, times and strings: there is always a JSON form.
        fleet.write(KEPT, &serde_json::to_vec(self).unwrap_or_default())
    }
}
