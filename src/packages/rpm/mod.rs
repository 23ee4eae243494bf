//! RPM: a database of package headers, kept in SQLite or in rpm's own `ndb`.
//!
//! The older Berkeley DB is not read: no supported release of a distribution keeps it. Where one is found, a finding
//! says so.

mod header;
mod ndb;
pub(super) mod sqlite;

use super::register::Register;
use super::{Ecosystem, Recorded};
use crate::tree::join;
use header::Header;

/// Where the database is, by distribution and age.
const DIRECTORIES: [&str; 3] = ["/usr/lib/sysimage/rpm", "/var/lib/rpm", "/usr/share/rpm"];
/// Largest database in bytes.
const LIMIT: u64 = 192 << 20;
/// A file that need not exist.
const GHOST: u32 = 1 << 6;
/// A configuration file.
const CONFIGURATION: u32 = 1;

/// Hands over the header of every package of a database.
type Reader = fn(&[u8], &mut dyn FnMut(&[u8])) -> Result<(), Broken>;

/// Why a database cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {what}")]
pub(in crate::packages) struct Broken {
    at: usize,
    what: &'static str,
}

pub(super) fn read(register: &mut Register<'_>) {
    let mut seen = Vec::new();
    for directory in DIRECTORIES {
        let Some(directory) = register.tree.resolve(directory).map(|resolved| resolved.path) else {
            continue;
        };
        // One of the places is often a link to another.
        if seen.contains(&directory) {
            continue;
        }
        let readers: [(&str, Reader); 2] = [("rpmdb.sqlite", sqlite::blobs), ("Packages.db", ndb::blobs)];
        for (name, reader) in readers {
            if let Some(path) = register.file(&join(&directory, name)) {
                database(register, &path, reader);
            }
        }
        let journal = join(&directory, "rpmdb.sqlite-wal");
        if register
            .tree
            .node(&journal)
            .is_some_and(|node| node.is_file() && node.size > 0)
        {
            register.find(
                "database-unsettled",
                &journal,
                "the database has changes that were not written into it; what they install has no owner here",
            );
        }
        if let Some(path) = register.file(&join(&directory, "Packages")) {
            register.find(
                "database-unsupported",
                &path,
                "an RPM database in the format of Berkeley DB is not read; its packages own nothing here",
            );
        }
        seen.push(directory);
    }
}

fn database(register: &mut Register<'_>, path: &str, reader: Reader) {
    let Some(bytes) = register.bytes(path, LIMIT) else {
        return;
    };
    let mut more = true;
    let result = reader(&bytes, &mut |blob| {
        if more {
            more = match Header::parse(blob) {
                Ok(header) => package(register, path, &header),
                Err(broken) => {
                    register.find("database-invalid", path, format_args!("a package's header, {broken}"));
                    true
                }
            };
        }
    });
    if let Err(broken) = result {
        register.find(
            "database-invalid",
            path,
            format_args!("it is damaged at {broken}; packages behind that own nothing here"),
        );
    }
}

/// Adds the package of a header; false when nothing more can be owned.
fn package(register: &mut Register<'_>, path: &str, header: &Header<'_>) -> bool {
    let (Some(name), Some(version), Some(release)) = (
        header.text(header::NAME),
        header.text(header::VERSION),
        header.text(header::RELEASE),
    ) else {
        register.find(
            "database-invalid",
            path,
            "a package in it has no name, version or release",
        );
        return true;
    };
    let architecture = header.text(header::ARCH);
    // An imported key is no software.
    if name == "gpg-pubkey" && architecture.is_none() {
        return true;
    }
    let epoch = header.numbers(header::EPOCH).get(0).filter(|epoch| *epoch != 0);
    let epoch = epoch.map_or_else(String::new, |epoch| format!("{epoch}:"));
    let version = format!("{epoch}{version}-{release}");
    let Some(id) = register.add(Ecosystem::Rpm, name, &version, architecture, path) else {
        return true;
    };
    let directories: Vec<&str> = header.texts(header::DIRNAMES).collect();
    let mut digests = header.texts(header::FILEDIGESTS);
    let algorithm = header.numbers(header::FILEDIGESTALGO).get(0);
    let (indexes, flags) = (header.numbers(header::DIRINDEXES), header.numbers(header::FILEFLAGS));
    for (at, base) in header.texts(header::BASENAMES).enumerate() {
        let digest = digests.next();
        let directory = indexes
            .get(at)
            .and_then(|index| directories.get(usize::try_from(index).ok()?));
        let Some(directory) = directory else {
            register.find(
                "database-invalid",
                path,
                format_args!("a file of {name} lies in no directory"),
            );
            return true;
        };
        let flags = flags.get(at).unwrap_or_default();
        let recorded = digest
            .filter(|_| flags & (GHOST | CONFIGURATION) == 0)
            .and_then(|digest| recorded(algorithm, digest));
        if !register.own(id, path, &join(directory, base), recorded) {
            return false;
        }
    }
    true
}

/// A digest by its OpenPGP algorithm; MD5 where none is named.
fn recorded(algorithm: Option<u32>, digest: &str) -> Option<Recorded> {
    let bytes = hex::decode(digest).ok()?;
    match algorithm.unwrap_or(1) {
        1 => Some(Recorded::Md5(bytes.try_into().ok()?)),
        2 => Some(Recorded::Sha1(bytes.try_into().ok()?)),
        8 => Some(Recorded::Sha256(bytes.try_into().ok()?)),
        _ => None,
    }
}

/// A big-endian number of a database.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// A little-endian number of a database.
fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    be32(bytes, at).map(u32::swap_bytes)
}
