//! Java archives: what Maven or the manifest inside says that they are.

use std::io::{Cursor, Read, Seek};

use zip::ZipArchive;

use super::Ecosystem;
use super::register::Register;

const SUFFIXES: [&str; 5] = [".jar", ".war", ".ear", ".jpi", ".hpi"];
/// Largest archive in bytes.
const MAX_ARCHIVE: u64 = 1 << 30;
/// Largest text in an archive in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// Largest archive in an archive in bytes, unpacked.
const MAX_NESTED: u64 = 64 << 20;
/// Most bytes that are unpacked of one archive, archives in it included.
const MAX_UNPACKED: u64 = 256 << 20;
/// Most entries of an archive.
const MAX_ENTRIES: usize = 200_000;

/// A package that an archive names.
#[derive(Debug, PartialEq, Eq)]
struct Artifact {
    group: String,
    name: String,
    version: String,
}

pub(super) fn read(register: &mut Register<'_>) {
    let tree = register.tree;
    for (path, node) in tree.nodes() {
        let Some(stem) = SUFFIXES.iter().find_map(|suffix| path.strip_suffix(suffix)) else {
            continue;
        };
        if !node.is_file() || register.is_owned(path) {
            continue;
        }
        if node.size > MAX_ARCHIVE {
            register.find("database-too-large", path, "it is too large to be looked into");
            continue;
        }
        let Ok(file) = tree.file(path) else {
            continue;
        };
        let stem = stem.rsplit('/').next().unwrap_or(stem);
        let mut left = MAX_UNPACKED;
        let (own, inside) = match archive(file, stem, true, &mut left) {
            Ok(found) => found,
            Err(fault) => {
                register.find("database-invalid", path, fault);
                continue;
            }
        };
        let mut add = |artifact: &Artifact| {
            let name = format!("{}:{}", artifact.group, artifact.name);
            register.add(Ecosystem::Java, &name, &artifact.version, None, path)
        };
        let id = own.as_ref().and_then(&mut add);
        for artifact in &inside {
            add(artifact);
        }
        if let Some(id) = id
            && !register.own(id, path, path, None)
        {
            return;
        }
    }
}

/// The package that an archive is, and those that it contains.
fn archive(
    file: impl Read + Seek,
    stem: &str,
    nested: bool,
    left: &mut u64,
) -> Result<(Option<Artifact>, Vec<Artifact>), String> {
    let mut archive = ZipArchive::new(file).map_err(|error| error.to_string())?;
    if archive.len() > MAX_ENTRIES {
        return Err(format!("it has more than {MAX_ENTRIES} entries"));
    }
    let (mut poms, mut jars, mut manifest) = (Vec::new(), Vec::new(), None);
    for at in 0..archive.len() {
        let Some(Ok(name)) = archive.name_for_index(at) else {
            continue;
        };
        if name == "META-INF/MANIFEST.MF" {
            manifest = Some(at);
        } else if name.starts_with("META-INF/maven/") && name.ends_with("/pom.properties") {
            poms.push(at);
        } else if nested && SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            jars.push((at, name.into_owned()));
        }
    }
    let mut artifacts = Vec::new();
    for at in poms {
        let text = unpack(&mut archive, at, MAX_TEXT, left)?;
        artifacts.extend(properties(&String::from_utf8_lossy(&text)));
    }
    // Several are in an archive that others were merged into; its name says which one it is.
    let own = artifacts.iter().position(|artifact| {
        let rest = stem.strip_prefix(artifact.name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    });
    let own = own
        .or((artifacts.len() == 1).then_some(0))
        .map(|at| artifacts.swap_remove(at));
    let own = match (own, manifest) {
        (None, Some(at)) => described(
            &String::from_utf8_lossy(&unpack(&mut archive, at, MAX_TEXT, left)?),
            stem,
        ),
        (own, _) => own,
    };
    for (at, name) in jars {
        // What is in one that cannot be read is not known; that says nothing about the archive around it.
        let Ok(bytes) = unpack(&mut archive, at, MAX_NESTED, left) else {
            continue;
        };
        let stem = name.rsplit('/').next().unwrap_or(&name);
        let stem = SUFFIXES
            .iter()
            .find_map(|suffix| stem.strip_suffix(suffix))
            .unwrap_or(stem);
        if let Ok((own, inside)) = self::archive(Cursor::new(bytes), stem, false, left) {
            artifacts.extend(own);
            artifacts.extend(inside);
        }
    }
    Ok((own, artifacts))
}

fn unpack<R: Read + Seek>(
    archive: &mut ZipArchive<R>,
    at: usize,
    limit: u64,
    left: &mut u64,
) -> Result<Vec<u8>, String> {
    let entry = archive.by_index(at).map_err(|error| error.to_string())?;
    let limit = limit.min(*left);
    let mut bytes = Vec::new();
    entry
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    // What was too much has still been unpacked.
    *left = left.saturating_sub(bytes.len() as u64);
    if bytes.len() as u64 > limit {
        return Err("something in it unpacks to more than is read".to_owned());
    }
    Ok(bytes)
}

/// `pom.properties`: lines of keys and values.
fn properties(text: &str) -> Option<Artifact> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once('='));
        lines
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim().to_owned())
    };
    Some(Artifact {
        group: value("groupId")?,
        name: value("artifactId")?,
        version: value("version")?,
    })
}

/// A manifest: the version by the first header that names one. Its group nobody knows, and its name is the file's.
fn described(text: &str, stem: &str) -> Option<Artifact> {
    let header = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim().to_owned())
    };
    let version = ["Implementation-Version", "Bundle-Version", "Specification-Version"]
        .into_iter()
        .find_map(header)
        .filter(|version| !version.is_empty())?;
    let name = stem
        .strip_suffix(version.as_str())
        .map_or(stem, |name| name.trim_end_matches('-'));
    Some(Artifact {
        group: String::new(),
        name: name.to_owned(),
        version,
    })
}
