//! Alpine's apk: one file with a paragraph per package, its directories and files in it.
//!
//! <https://wiki.alpinelinux.org/wiki/Apk_spec#Installed_Database_V2>

use std::collections::BTreeSet;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::register::Register;
use super::{Ecosystem, PackageId, Recorded};
use crate::tree::join;

/// Where the database is, by version of apk.
const PLACES: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];
/// Largest database in bytes.
const LIMIT: u64 = 128 << 20;

pub(super) fn read(register: &mut Register<'_>) {
    // The two places are one where /lib is a link.
    let places: BTreeSet<String> = PLACES.iter().filter_map(|place| register.file(place)).collect();
    for place in places {
        if let Some(text) = register.text(&place, LIMIT) {
            database(register, &place, &text);
        }
    }
}

#[derive(Default)]
struct Entry<'t> {
    name: &'t str,
    version: &'t str,
    architecture: Option<&'t str>,
    id: Option<PackageId>,
    directory: &'t str,
    file: Option<String>,
    recorded: Option<Recorded>,
}

fn database(register: &mut Register<'_>, path: &str, text: &str) {
    let mut entry = Entry::default();
    for line in text.lines().chain([""]) {
        let Some((field, value)) = line.split_once(':') else {
            if !flush(register, path, &mut entry) {
                return;
            }
            // What has files and no name is a paragraph that was cut off at its beginning.
            if line.is_empty() {
                if entry.id.is_none() && !entry.name.is_empty() {
                    package(register, path, &mut entry);
                }
                entry = Entry::default();
            }
            continue;
        };
        match field {
            "P" => entry.name = value,
            "V" => entry.version = value,
            "A" => entry.architecture = Some(value),
            "F" | "R" => {
                if !flush(register, path, &mut entry) {
                    return;
                }
                package(register, path, &mut entry);
                if field == "F" {
                    entry.directory = value;
                    entry.file = Some(join("/", value)).filter(|_| !value.is_empty());
                } else if value.is_empty() || value.contains('/') {
                    register.find(
                        "database-invalid",
                        path,
                        "it lists a file whose name has a slash or nothing in it",
                    );
                } else {
                    entry.file = Some(join(&join("/", entry.directory), value));
                }
            }
            "Z" => entry.recorded = checksum(value),
            _ => {}
        }
    }
}

/// Adds the package of a paragraph, once.
fn package(register: &mut Register<'_>, path: &str, entry: &mut Entry<'_>) {
    if entry.id.is_some() {
        return;
    }
    if entry.name.is_empty() || entry.version.is_empty() {
        register.find("database-invalid", path, "a package in it has no name or no version");
        return;
    }
    entry.id = register.add(Ecosystem::Apk, entry.name, entry.version, entry.architecture, path);
}

/// Gives the package the file that was read before.
fn flush(register: &mut Register<'_>, path: &str, entry: &mut Entry<'_>) -> bool {
    let recorded = entry.recorded.take();
    match (entry.id, entry.file.take()) {
        (Some(id), Some(file)) => register.own(id, path, &file, recorded),
        _ => true,
    }
}

/// `Q1` and a SHA-1, or `Q2` and a SHA-256, in base64.
fn checksum(value: &str) -> Option<Recorded> {
    let (kind, encoded) = value.split_at_checked(2)?;
    let bytes = BASE64_STANDARD.decode(encoded).ok()?;
    match kind {
        "Q1" => Some(Recorded::Sha1(bytes.try_into().ok()?)),
        "Q2" => Some(Recorded::Sha256(bytes.try_into().ok()?)),
        _ => None,
    }
}
