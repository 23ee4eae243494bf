//! Whether files still are what their package installed.

use std::io::{self, Read as _};

use md5::Md5;
use sha1::Sha1;
use sha2::Sha256;

use super::{Inventory, Recorded};
use crate::digest::Digest;
use crate::tree::{Error, Tree};

/// Bytes that are read at once.
const PART: usize = 64 << 10;

/// What became of a file since its package was installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Altered {
    /// Its content is what the database says.
    No,
    /// Its content is another.
    Yes,
    /// The database has no digest of it: a configuration file, a link, or a database without digests.
    Unknown,
}

/// Compares a file's content with the digest that the package database has for it. Reads the whole file. MD5, which dpkg
/// records, tells a change that somebody made from none; it is no proof against somebody who wants it not to be seen.
///
/// # Errors
/// A file that cannot be read.
pub fn altered(tree: &Tree, inventory: &Inventory, path: &str) -> Result<Altered, Error> {
    let Some(recorded) = inventory.owners.get(path).and_then(|owned| owned.recorded) else {
        return Ok(Altered::Unknown);
    };
    let is_same = match recorded {
        Recorded::Md5(digest) => hash::<Md5>(tree, path)?.as_slice() == digest,
        Recorded::Sha1(digest) => hash::<Sha1>(tree, path)?.as_slice() == digest,
        Recorded::Sha256(digest) => hash::<Sha256>(tree, path)?.as_slice() == digest,
    };
    Ok(if is_same { Altered::No } else { Altered::Yes })
}

/// The digest of a file's content.
pub(super) fn digest(tree: &Tree, path: &str) -> Result<Digest, Error> {
    hash::<Sha256>(tree, path).map(|digest| Digest::from(<[u8; 32]>::from(digest)))
}

fn hash<D: sha2::Digest>(tree: &Tree, path: &str) -> Result<sha2::digest::Output<D>, Error> {
    let mut file = tree.file(path)?;
    let mut hasher = D::new();
    let mut part = vec![0; PART];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(count) => hasher.update(part.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(Error::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        }
    }
}
