//! Where the readers of the databases write down what they found.

use std::collections::HashMap;
use std::fmt::Display;

use super::{Ecosystem, Finding, Inventory, MAX_FINDINGS, MAX_OWNED, MAX_PACKAGES, Owned, Package, PackageId};
use super::{Recorded, distro};
use crate::diagnostic::printable;
use crate::tree::{Kind, Tree, join};

/// Most bytes of databases that are read of one image.
const MAX_READ: u64 = 512 << 20;
/// Most directories whose place is remembered.
const MAX_REMEMBERED: usize = 1 << 16;
/// Longest name and longest version of a package in bytes.
const MAX_NAME: usize = 512;
/// Longest path in a list of files, as in Linux.
const MAX_PATH: usize = 4096;
/// Longest text of a finding in characters.
const MAX_TEXT: usize = 256;

/// The packages found so far.
pub(super) struct Register<'t> {
    pub(super) tree: &'t Tree,
    inventory: Inventory,
    /// Directories as databases write them, and where they are.
    directories: HashMap<String, Option<String>>,
    /// How much all databases list.
    listed: usize,
    read: u64,
}

impl<'t> Register<'t> {
    pub(super) fn new(tree: &'t Tree) -> Self {
        let mut register = Self {
            tree,
            inventory: Inventory::default(),
            directories: HashMap::new(),
            listed: 0,
            read: 0,
        };
        register.inventory.distribution = distro::read(&mut register);
        register
    }

    /// Where a file is that has this path in the image, links followed; `None` where there is none. What has a
    /// database's name and is none is a finding.
    pub(super) fn file(&mut self, path: &str) -> Option<String> {
        let Some(resolved) = self.tree.resolve(path).map(|resolved| resolved.path) else {
            if self.tree.node(path).is_some() {
                self.find("database-unreadable", path, "it is a link that leads to no file");
            }
            return None;
        };
        if self.tree.node(&resolved)?.is_file() {
            return Some(resolved);
        }
        self.find("database-unreadable", path, "it is no file");
        None
    }

    /// Reads a file of a database; a finding says why it cannot be read.
    pub(super) fn bytes(&mut self, path: &str, limit: u64) -> Option<Vec<u8>> {
        if self.read >= MAX_READ {
            self.find(
                "database-too-large",
                path,
                format_args!("more than {MAX_READ} bytes of package databases"),
            );
            return None;
        }
        match self.tree.bytes(path, limit) {
            Ok(bytes) => {
                self.read += bytes.len() as u64;
                Some(bytes)
            }
            Err(error) => {
                self.find("database-unreadable", path, error);
                None
            }
        }
    }

    /// Reads a file of a database as text; what is not UTF-8 in it cannot name a file of the tree.
    pub(super) fn text(&mut self, path: &str, limit: u64) -> Option<String> {
        let bytes = self.bytes(path, limit)?;
        Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// Notes what is wrong with a database. The same about the same file is said once in a row, so that one broken file
    /// does not crowd out what is said about others.
    pub(super) fn find(&mut self, code: &str, path: &str, text: impl Display) {
        let findings = &self.inventory.findings;
        let is_said = findings
            .last()
            .is_some_and(|last| last.code == code && last.path == path);
        if is_said || findings.len() == MAX_FINDINGS {
            self.inventory.omitted += 1;
            return;
        }
        let shown = |text: &str| printable(text).chars().take(MAX_TEXT).collect();
        self.inventory.findings.push(Finding {
            code: code.to_owned(),
            path: shown(path),
            text: shown(&text.to_string()),
        });
    }

    /// Adds a package that owns nothing yet; `None` where it cannot be one.
    pub(super) fn add(
        &mut self,
        ecosystem: Ecosystem,
        name: &str,
        version: &str,
        architecture: Option<&str>,
        database: &str,
    ) -> Option<PackageId> {
        let is_name = |text: &str| text.len() <= MAX_NAME && printable(text) == text;
        if name.is_empty()
            || ![name, version, architecture.unwrap_or_default()]
                .into_iter()
                .all(is_name)
        {
            self.find(
                "package-invalid",
                database,
                "a package has no name, or one that cannot be one",
            );
            return None;
        }
        if self.inventory.packages.len() == MAX_PACKAGES {
            self.find(
                "packages-too-many",
                database,
                format_args!("the image has more than {MAX_PACKAGES} packages; those beyond own nothing here"),
            );
            return None;
        }
        self.inventory.packages.push(Package {
            ecosystem,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: architecture.map(str::to_owned),
            database: database.to_owned(),
            files: Vec::new(),
        });
        Some(self.inventory.packages.len() - 1)
    }

    /// Where a file is that a database lists by this path: links before its last component are followed, and it exists.
    /// A path that leads above the image's root is a finding, one that leads nowhere is not.
    pub(super) fn place(&mut self, database: &str, path: &str) -> Option<String> {
        if path.len() > MAX_PATH {
            return None;
        }
        let path = path.trim_end_matches('/');
        // Most paths are already what they should be.
        if path.starts_with('/') && self.tree.node(path).is_some() {
            return Some(path.to_owned());
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if escapes(path) {
            self.find(
                "path-escapes",
                database,
                format_args!("it lists {path:?}, which leads above the root of the image; no package owns that"),
            );
            return None;
        }
        if matches!(name, "" | ".") {
            return None;
        }
        // Not a name but a way up.
        if name == ".." {
            return self.tree.resolve_parent(path).map(|resolved| resolved.path);
        }
        if !self.directories.contains_key(directory) {
            if self.directories.len() == MAX_REMEMBERED {
                self.directories.clear();
            }
            let place = self.tree.resolve(directory).map(|resolved| resolved.path);
            self.directories.insert(directory.to_owned(), place);
        }
        let place = join(self.directories.get(directory)?.as_deref()?, name);
        self.tree.node(&place).is_some().then_some(place)
    }

    /// Makes a package the owner of what its database lists by this path. Returns false when nothing more can be owned.
    pub(super) fn own(&mut self, id: PackageId, database: &str, path: &str, recorded: Option<Recorded>) -> bool {
        match self.place(database, path) {
            Some(place) => {
                let aliased = place != path;
                self.own_place(id, place, aliased, recorded)
            }
            None => self.count(database),
        }
    }

    /// Counts something that a database lists, whether it is there or not.
    fn count(&mut self, database: &str) -> bool {
        if self.listed == MAX_OWNED {
            self.find(
                "files-too-many",
                database,
                format_args!("more than {MAX_OWNED} files are listed; those beyond have no owner here"),
            );
        }
        self.listed = self.listed.saturating_add(1);
        self.listed <= MAX_OWNED
    }

    /// Makes a package the owner of something in the tree.
    pub(super) fn own_place(
        &mut self,
        id: PackageId,
        place: String,
        aliased: bool,
        recorded: Option<Recorded>,
    ) -> bool {
        let Some(node) = self.tree.node(&place) else {
            return true;
        };
        if !self.count(&place) {
            return false;
        }
        if !node.is_directory() && !self.is_owned_by_other(&place, id, aliased) {
            // The same package may list it twice, by two paths.
            let before = self.inventory.owners.get(&place).filter(|owned| owned.package == id);
            let recorded = recorded
                .or(before.and_then(|owned| owned.recorded))
                .filter(|_| node.is_file());
            self.inventory.owners.insert(
                place.clone(),
                Owned {
                    package: id,
                    aliased,
                    recorded,
                },
            );
        }
        if let Some(package) = self.inventory.packages.get_mut(id) {
            package.files.push(place);
        }
        true
    }

    /// Makes a package the owner of everything below a directory.
    pub(super) fn own_below(&mut self, id: PackageId, directory: &str) -> bool {
        let tree = self.tree;
        if tree.node(directory).is_none_or(|node| !node.is_directory()) {
            return true;
        }
        tree.below(directory)
            .all(|(path, _)| self.own_place(id, path.to_owned(), false, None))
    }

    /// Whether what owns a place already is not to be replaced: who came first stays, unless it named the place by
    /// another path.
    fn is_owned_by_other(&self, place: &str, id: PackageId, aliased: bool) -> bool {
        let Some(owned) = self.inventory.owners.get(place) else {
            return false;
        };
        if owned.package == id {
            return false;
        }
        let of_distribution = |id: PackageId| {
            let package = self.inventory.packages.get(id);
            package.is_some_and(|package| package.ecosystem.is_of_distribution())
        };
        !(owned.aliased && !aliased && of_distribution(owned.package) == of_distribution(id))
    }

    /// Whether somebody owns this file already.
    pub(super) fn is_owned(&self, path: &str) -> bool {
        self.inventory.owners.contains_key(path)
    }

    /// Attributes links that no database lists to the package of the file that they lead to: what a trigger or a
    /// maintainer script made (alternatives, libraries by their short names, the applets of busybox), and all links where
    /// a database lists files only.
    pub(super) fn links(&mut self) {
        let tree = self.tree;
        for (path, node) in tree.nodes() {
            if !matches!(node.kind, Kind::Symlink(_)) || self.is_owned(path) {
                continue;
            }
            let owner = tree
                .resolve(path)
                .and_then(|resolved| self.inventory.owner(&resolved.path));
            if let Some(id) = owner
                && !self.own_place(id, path.to_owned(), true, None)
            {
                return;
            }
        }
    }

    pub(super) fn finish(mut self) -> Inventory {
        let Inventory { packages, owners, .. } = &mut self.inventory;
        for (id, package) in packages.iter_mut().enumerate() {
            package.files.sort_unstable();
            package.files.dedup();
            // What another package turned out to own; directories have no owner.
            package
                .files
                .retain(|path| owners.get(path).is_none_or(|owned| owned.package == id));
        }
        self.inventory
    }
}

/// Whether a path climbs above the root.
fn escapes(path: &str) -> bool {
    let mut depth = 0usize;
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => match depth.checked_sub(1) {
                Some(up) => depth = up,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}
