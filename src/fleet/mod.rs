//! Policy and trust of a fleet of nodes: one artifact with a version, an expiry and a signature, from a registry or a file.
//!
//! The artifact is an OCI manifest of type [`ARTIFACT`] with one layer, a tar of `policy.d` and, where there are any,
//! `trust.d`, `closure.d` and `seccomp.d`. Version and expiry are annotations of the manifest. It is signed as an image is,
//! by a key with `use = ["policy"]`; what is signed is the digest of the manifest, which all the rest hangs on.

mod pack;
mod take;

use jiff::Timestamp;

use crate::digest::Digest;
use crate::oci::{Descriptor, Manifest, shorten};
use crate::policy::FOLDERS;

pub use pack::{PackError, Packed, pack};
pub use take::{FleetError, Place, Taken, take};

/// `artifactType` of the manifest.
pub const ARTIFACT: &str = "application/vnd.assay.policy.v1";
/// Media type of its layer.
const LAYER: &str = "application/vnd.assay.policy.v1.tar";
const VERSION: &str = "dev.assay.policy.version";
const EXPIRES: &str = "dev.assay.policy.expires";
/// Largest layer in bytes, as large as a policy in force can be.
const MAX_LAYER: u64 = 16 << 20;
/// Most files in it.
const MAX_FILES: usize = 4096;
/// Longest name of a file.
const MAX_NAME: usize = 255;

/// What a manifest says. Whether it is signed is another question.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    version: u64,
    expires: Timestamp,
    layer: Descriptor,
}

impl Offer {
    /// Reads a manifest; the error says what is wrong with it.
    fn of(manifest: &Manifest) -> Result<Self, String> {
        match manifest.artifact_type.as_deref() {
            Some(ARTIFACT) => {}
            Some(other) => return Err(format!("its type is '{}', not {ARTIFACT}", shorten(other))),
            None => return Err(format!("it has no type; that of a policy is {ARTIFACT}")),
        }
        let annotation = |name: &str| {
            let value = manifest.annotations.get(name);
            value.ok_or_else(|| format!("it has no annotation {name}"))
        };
        let version = annotation(VERSION)?;
        let expires = annotation(EXPIRES)?;
        let [layer] = manifest.layers.as_slice() else {
            return Err(format!("it has {} layers, not one", manifest.layers.len()));
        };
        if layer.media_type != LAYER {
            return Err(format!(
                "its layer is of type '{}', not {LAYER}",
                shorten(&layer.media_type)
            ));
        }
        if layer.size > MAX_LAYER {
            return Err(format!(
                "its layer has {} bytes, more than the {MAX_LAYER} that are accepted",
                layer.size
            ));
        }
        Ok(Self {
            version: version
                .parse()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("its version '{}' is no number from 1 on", shorten(version)))?,
            expires: expires
                .parse()
                .map_err(|_| format!("its expiry '{}' is no time", shorten(expires)))?,
            layer: layer.clone(),
        })
    }
}

/// A file of a fleet's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    /// One of [`FOLDERS`].
    folder: &'static str,
    name: String,
    bytes: Vec<u8>,
}

impl File {
    /// The file at a path such as `policy.d/50.toml`; `None` for any other path.
    fn at(path: &str, bytes: Vec<u8>) -> Option<Self> {
        let (folder, name) = path.split_once('/')?;
        let folder = FOLDERS.into_iter().find(|known| *known == folder)?;
        let is_plain =
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']) && name.len() <= MAX_NAME;
        is_plain.then(|| Self {
            folder,
            name: name.to_owned(),
            bytes,
        })
    }
}

/// The name under which the files of a policy are kept.
fn folder(manifest: Digest) -> String {
    manifest.hex()
}
