//! Programs that say themselves what they were built from: Go's build information, and the dependency list that
//! `cargo auditable` puts into Rust programs.
//!
//! <https://pkg.go.dev/debug/buildinfo>, <https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>

use std::fs::File;
use std::io::Read as _;

use flate2::read::ZlibDecoder;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ReadCache};
use serde::Deserialize;

use super::Ecosystem;
use super::register::Register;

const ELF: &[u8] = b"\x7fELF\x02";
/// Largest build information, packed and unpacked, in bytes.
const LIMIT: u64 = 8 << 20;
const GO_SECTION: &str = ".go.buildinfo";
const GO_MAGIC: &[u8] = b"\xff Go buildinf:";
/// Bytes before the two texts.
const GO_HEADER: usize = 32;
/// Bytes that stand before and after the list of modules.
const GO_SENTINEL: usize = 16;
const RUST_SECTION: &str = ".dep-v0";

pub(super) fn read(register: &mut Register<'_>) {
    let tree = register.tree;
    for (path, node) in tree.nodes() {
        if !node.is_executable() || node.size < 64 || register.is_owned(path) {
            continue;
        }
        if !tree.head(path, ELF.len() as u64).is_ok_and(|head| head == ELF) {
            continue;
        }
        let Ok(file) = tree.file(path) else {
            continue;
        };
        let sections = sections(file);
        let mut more = true;
        if let Some(bytes) = sections.go {
            more = go(register, path, &bytes);
        }
        if let Some(bytes) = sections.rust {
            more = more && rust(register, path, &bytes);
        }
        if !more {
            return;
        }
    }
}

#[derive(Default)]
struct Sections {
    go: Option<Vec<u8>>,
    rust: Option<Vec<u8>>,
}

/// The two sections, where the file has them; of a file that is broken otherwise, nothing.
fn sections(file: File) -> Sections {
    let cache = ReadCache::new(file);
    let Ok(elf) = ElfFile64::<Endianness, _>::parse(&cache) else {
        return Sections::default();
    };
    let mut sections = Sections::default();
    for section in elf.sections() {
        let slot = match section.name() {
            Ok(GO_SECTION) => &mut sections.go,
            Ok(RUST_SECTION) => &mut sections.rust,
            _ => continue,
        };
        if section.size() <= LIMIT
            && let Ok(bytes) = section.data()
        {
            *slot = Some(bytes.to_vec());
        }
    }
    sections
}

fn go(register: &mut Register<'_>, path: &str, section: &[u8]) -> bool {
    let Some(header) = section.get(..GO_HEADER).filter(|header| header.starts_with(GO_MAGIC)) else {
        return true;
    };
    // Before Go 1.18 it only pointed to where the texts are.
    if header.get(15).is_none_or(|flags| flags & 2 == 0) {
        register.find(
            "database-unsupported",
            path,
            "it was built by a Go before 1.18, whose build information is not read",
        );
        return true;
    }
    let Some(modules) = section.get(GO_HEADER..).and_then(text).and_then(|(_, rest)| text(rest)) else {
        register.find("database-invalid", path, "its Go build information ends too early");
        return true;
    };
    let modules = modules
        .0
        .get(GO_SENTINEL..)
        .and_then(|rest| rest.get(..rest.len().checked_sub(GO_SENTINEL)?));
    let modules = String::from_utf8_lossy(modules.unwrap_or_default());
    let mut main = None;
    let mut dependencies: Vec<(&str, &str)> = Vec::new();
    for line in modules.lines() {
        let mut fields = line.split('\t');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("mod"), Some(name), version) => main = Some((name, version.unwrap_or_default())),
            (Some("dep"), Some(name), version) => dependencies.push((name, version.unwrap_or_default())),
            // What was built instead of the module before.
            (Some("=>"), Some(name), version) => {
                if let Some(last) = dependencies.last_mut() {
                    *last = (name, version.unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    let mut more = true;
    if let Some((name, version)) = main {
        let version = if version == "(devel)" { "" } else { version };
        if let Some(id) = register.add(Ecosystem::Go, name, version, None, path) {
            more = register.own(id, path, path, None);
        }
    }
    for (name, version) in dependencies {
        register.add(Ecosystem::Go, name, version, None, path);
    }
    more
}

/// A text with its length before it, and what follows.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes.get(at + 1..)?.split_at_checked(length);
        }
    }
    None
}

#[derive(Deserialize)]
struct Audit {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    root: bool,
}

fn rust(register: &mut Register<'_>, path: &str, section: &[u8]) -> bool {
    let mut json = Vec::new();
    let unpacked = ZlibDecoder::new(section).take(LIMIT + 1).read_to_end(&mut json);
    if unpacked.is_err() || json.len() as u64 > LIMIT {
        register.find("database-invalid", path, "its list of Rust crates cannot be unpacked");
        return true;
    }
    let audit: Audit = match serde_json::from_slice(&json) {
        Ok(audit) => audit,
        Err(error) => {
            register.find("database-invalid", path, error);
            return true;
        }
    };
    let mut more = true;
    // What only ran while it was built is not in it.
    let inside = audit
        .packages
        .into_iter()
        .filter(|found| found.kind.as_deref() != Some("build"));
    for found in inside {
        let id = register.add(Ecosystem::Cargo, &found.name, &found.version, None, path);
        if let Some(id) = id.filter(|_| found.root) {
            more = more && register.own(id, path, path, None);
        }
    }
    more
}
