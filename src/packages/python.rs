//! Python distributions: `NAME-VERSION.dist-info` with its `RECORD`, and the older `.egg-info`.
//!
//! <https://packaging.python.org/en/latest/specifications/recording-installed-packages/>

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};

use super::register::Register;
use super::{Ecosystem, PackageId, Recorded};
use crate::tree::join;

/// Largest metadata in bytes.
const MAX_METADATA: u64 = 4 << 20;
/// Largest list of files in bytes.
const MAX_RECORD: u64 = 32 << 20;

pub(super) fn read(register: &mut Register<'_>) {
    let tree = register.tree;
    for (path, node) in tree.nodes() {
        if !node.is_file() || register.is_owned(path) {
            continue;
        }
        let Some((directory, file)) = path.rsplit_once('/') else {
            continue;
        };
        let more = match file {
            "METADATA" if directory.ends_with(".dist-info") => wheel(register, path, directory),
            "PKG-INFO" if directory.ends_with(".egg-info") => egg(register, path, directory),
            _ if file.ends_with(".egg-info") => alone(register, path),
            _ => true,
        };
        if !more {
            return;
        }
    }
}

fn add(register: &mut Register<'_>, metadata: &str) -> Option<PackageId> {
    let text = register.text(metadata, MAX_METADATA)?;
    let (mut name, mut version) = ("", "");
    // Like a mail: fields, an empty line, a description.
    for line in text.lines().take_while(|line| !line.is_empty()) {
        match line.split_once(':') {
            Some(("Name", value)) => name = value.trim(),
            Some(("Version", value)) => version = value.trim(),
            _ => {}
        }
    }
    register.add(Ecosystem::Python, name, version, None, metadata)
}

fn wheel(register: &mut Register<'_>, metadata: &str, directory: &str) -> bool {
    let Some(id) = add(register, metadata) else {
        return true;
    };
    let record = join(directory, "RECORD");
    let (Some((site, _)), Some(path)) = (directory.rsplit_once('/'), register.file(&record)) else {
        register.find(
            "file-list-missing",
            metadata,
            "it has no RECORD; only its metadata has an owner here",
        );
        return register.own_below(id, directory);
    };
    let text = register.text(&path, MAX_RECORD).unwrap_or_default();
    for line in text.lines() {
        let Some((file, recorded)) = entry(line) else {
            continue;
        };
        let file = if file.starts_with('/') { file } else { join(site, &file) };
        if !register.own(id, &path, &file, recorded) {
            return false;
        }
    }
    true
}

/// Path and digest of a line of comma-separated values.
fn entry(line: &str) -> Option<(String, Option<Recorded>)> {
    let (path, rest) = match line.strip_prefix('"') {
        Some(quoted) => {
            // A quote inside is doubled.
            let mut end = 0;
            loop {
                end += quoted.get(end..)?.find('"')?;
                if quoted.get(end + 1..)?.starts_with('"') {
                    end += 2;
                } else {
                    break;
                }
            }
            let (path, rest) = quoted.split_at_checked(end)?;
            (path.replace("\"\"", "\""), rest.strip_prefix("\",")?)
        }
        None => {
            let (path, rest) = line.split_once(',')?;
            (path.to_owned(), rest)
        }
    };
    let recorded = rest
        .strip_prefix("sha256=")
        .and_then(|rest| BASE64_URL_SAFE_NO_PAD.decode(rest.split(',').next()?).ok())
        .and_then(|bytes| Some(Recorded::Sha256(bytes.try_into().ok()?)));
    Some((path, recorded))
}

/// A directory that setuptools wrote: a list of files, or at least the names of its modules.
fn egg(register: &mut Register<'_>, metadata: &str, directory: &str) -> bool {
    let Some(id) = add(register, metadata) else {
        return true;
    };
    if !register.own_below(id, directory) {
        return false;
    }
    let Some((site, _)) = directory.rsplit_once('/') else {
        return true;
    };
    if let Some(path) = register.file(&join(directory, "installed-files.txt")) {
        let text = register.text(&path, MAX_RECORD).unwrap_or_default();
        return text
            .lines()
            .filter(|file| !file.is_empty())
            .all(|file| register.own(id, &path, &join(directory, file), None));
    }
    let Some(path) = register.file(&join(directory, "top_level.txt")) else {
        return true;
    };
    let text = register.text(&path, MAX_METADATA).unwrap_or_default();
    text.lines()
        .filter(|module| !matches!(*module, "" | "." | "..") && !module.contains('/'))
        .all(|module| {
            register.own(id, &path, &join(site, &format!("{module}.py")), None)
                && register.own_below(id, &join(site, module))
        })
}

/// A single file that distutils wrote: nothing says what else belongs to it.
fn alone(register: &mut Register<'_>, metadata: &str) -> bool {
    match add(register, metadata) {
        Some(id) => register.own(id, metadata, metadata, None),
        None => true,
    }
}
