//! Packages of Node.js: a directory in `node_modules` with a `package.json` is one, and owns what lies in it.

use std::collections::HashMap;

use serde::Deserialize;

use super::register::Register;
use super::{Ecosystem, PackageId};

const MODULES: &str = "/node_modules/";
const MANIFEST: &str = "/package.json";
/// Largest `package.json` in bytes.
const LIMIT: u64 = 4 << 20;

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
}

pub(super) fn read(register: &mut Register<'_>) {
    let tree = register.tree;
    let mut packages: HashMap<&str, PackageId> = HashMap::new();
    for (path, node) in tree.nodes() {
        let Some(directory) = path.strip_suffix(MANIFEST) else {
            continue;
        };
        if !node.is_file() || register.is_owned(path) || home(path) != Some(directory) {
            continue;
        }
        let Some(bytes) = register.bytes(path, LIMIT) else {
            continue;
        };
        match serde_json::from_slice::<Manifest>(&bytes) {
            Ok(manifest) => {
                if let Some(id) = register.add(Ecosystem::Npm, &manifest.name, &manifest.version, None, path) {
                    packages.insert(directory, id);
                }
            }
            Err(error) => register.find("database-invalid", path, error),
        }
    }
    if packages.is_empty() {
        return;
    }
    for (path, _) in tree.nodes() {
        // A directory in node_modules that is no package belongs to the package around it.
        let mut end = path;
        let owner = loop {
            let Some(directory) = home(end) else {
                break None;
            };
            match packages.get(directory) {
                Some(id) => break Some(*id),
                None => end = end.rsplit_once(MODULES).map_or("", |(before, _)| before),
            }
        };
        if let Some(id) = owner
            && !register.own_place(id, path.to_owned(), false, None)
        {
            return;
        }
    }
}

/// The innermost directory of a package that a path could lie in: `…/node_modules/NAME` or `…/node_modules/@SCOPE/NAME`.
fn home(path: &str) -> Option<&str> {
    let start = path.rfind(MODULES)? + MODULES.len();
    let rest = path.get(start..)?;
    let mut slashes = rest.match_indices('/').map(|(at, _)| at);
    let end = if rest.starts_with('@') {
        slashes.nth(1).or(Some(rest.len()))
    } else {
        slashes.next()
    };
    path.get(..start + end.unwrap_or(rest.len()))
}
