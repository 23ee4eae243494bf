//! Every name of an image and every package in it, each with whether a view shows it: what a report counts and lists, and
//! what an audit watches. Made by the parser in its cage.

use std::collections::{BTreeSet, HashSet};
use std::os::fd::AsFd as _;

use serde::{Deserialize, Serialize};

use super::needs::text;
use crate::closure::{Class, Closure};
use crate::packages::{Inventory, Standings, Verdict};
use crate::tree::{Kind, Node, Tree};

/// Extended attribute of file capabilities.
const CAPABILITY: &str = "security.capability";

/// An image, name by name and package by package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Survey {
    /// Every name but `/`, in byte order.
    pub names: Vec<Name>,
    /// Every package that the databases in the image know.
    pub packages: Vec<Package>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, fifo or socket.
    Special,
}

/// One name of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// Path, without links before its last component.
    pub path: String,
    /// What it stands for.
    pub kind: NameKind,
    /// Length of a regular file.
    pub bytes: u64,
    /// Whether the view shows it.
    pub visible: bool,
    /// A program, library or script, or a link that leads to one.
    pub executable: bool,
    /// A set-uid or set-gid executable.
    pub set_id: bool,
    /// It has file capabilities.
    pub capability: bool,
}

/// One package of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its package URL.
    pub purl: String,
    /// Whether the attested SBOM lists it; none where no SBOM was asked for.
    pub listed: Option<bool>,
    /// How many of its files and links are in the image, and how many of them the view shows.
    pub files: (u64, u64),
}

impl Package {
    /// What of it is shown to people.
    pub(super) fn texts(&self) -> [&String; 3] {
        [&self.name, &self.version, &self.purl]
    }

    /// Whether it had something to show, and shows nothing.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.files.0 > 0 && self.files.1 == 0
    }
}

/// Lists an image. `keep` are the paths that its view shows.
pub(super) fn of(
    tree: &Tree,
    inventory: &Inventory,
    standings: &Standings<'_>,
    closure: &Closure,
    keep: &BTreeSet<String>,
) -> Survey {
    let is_program = |path: &str| closure.class(path) != Class::Data;
    let names = tree.nodes().filter(|(path, _)| *path != "/").map(|(path, node)| {
        let executable = match node.kind {
            Kind::File => is_program(path),
            Kind::Symlink(_) => tree.resolve(path).is_some_and(|end| is_program(&end.path)),
            Kind::Directory | Kind::Special => false,
        };
        Name {
            path: path.to_owned(),
            kind: match node.kind {
                Kind::File => NameKind::File,
                Kind::Directory => NameKind::Directory,
                Kind::Symlink(_) => NameKind::Link,
                Kind::Special => NameKind::Special,
            },
            bytes: if node.is_file() { node.size } else { 0 },
            visible: keep.contains(path),
            executable,
            set_id: node.is_executable() && node.mode & 0o6000 != 0,
            capability: node.is_executable() && has_capability(tree, path),
        }
    });
    let packages = inventory.packages.iter().enumerate().map(|(id, package)| {
        // A package may list one file twice, by way of a link.
        let files: HashSet<&str> = package.files.iter().map(String::as_str).collect();
        let there = |path: &&&str| tree.node(path).is_some_and(|node: &Node| !node.is_directory());
        let files: Vec<&str> = files.iter().filter(there).copied().collect();
        let visible = files.iter().filter(|path| keep.contains(**path)).count();
        Package {
            name: text(&package.name),
            version: text(&package.version),
            purl: text(&package.identity(inventory.distribution.as_ref()).to_string()),
            listed: match standings.package(id) {
                None | Some(Verdict::Database) => None,
                Some(Verdict::Attested) => Some(true),
                Some(Verdict::Missing | Verdict::Drift(_)) => Some(false),
            },
            files: (files.len() as u64, visible as u64),
        }
    });
    Survey {
        names: names.collect(),
        packages: packages.collect(),
    }
}

fn has_capability(tree: &Tree, path: &str) -> bool {
    // What cannot be opened cannot be asked; such a file has none that could be told.
    tree.file(path).is_ok_and(|file| {
        rustix::fs::fgetxattr(file.as_fd(), CAPABILITY, &mut [0u8; 64]).is_ok_and(|length| length > 0)
    })
}
