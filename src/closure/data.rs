//! What stays beside what was reached: data of packages, what no package owns, directories. And a reason for all that
//! does not.

use std::collections::{BTreeMap, BTreeSet};

use super::space::What;
use super::trace::{By, SHARED, Trace};
use super::{Class, Closure, Hidden, Level, Origin, pattern};
use crate::packages::PackageId;
use crate::tree::Kind;

/// Directories whose own files say nothing about who uses what lies below them.
const COMMON: &[&str] = &[
    "/",
    "/usr",
    "/usr/lib",
    "/usr/share",
    "/usr/bin",
    "/usr/sbin",
    "/usr/libexec",
    "/etc",
    "/var",
    "/var/lib",
    "/lib",
    "/usr/lib64",
];

impl Trace<'_> {
    /// Adds the data and gives every other path its reason.
    pub(super) fn finish(mut self) -> Closure {
        let tree = self.space.tree;
        let paths: Vec<&str> = tree.nodes().map(|(path, _)| path).collect();
        let users = self.users();
        for path in &paths {
            if !self.closure.kept.contains_key(*path) {
                self.data(path, &users);
            }
        }
        self.settle();
        self.directories(&paths);
        for path in &paths {
            if !self.closure.kept.contains_key(*path) {
                let why = self.why_hidden(path);
                self.hide(path, why);
            }
        }
        self.note_missing_of_modules();
        self.closure.unfollowed.sort();
        self.closure.findings.sort();
        self.link();
        self.placed()
    }

    /// Packages that own a file directly in a directory.
    fn users(&self) -> BTreeMap<String, BTreeSet<PackageId>> {
        let mut users: BTreeMap<String, BTreeSet<PackageId>> = BTreeMap::new();
        for (id, package) in self.inventory.packages.iter().enumerate() {
            for path in &package.files {
                if let (Some((directory, _)), Some(owner)) = (path.rsplit_once('/'), self.inventory.owner(path))
                    && owner == id
                {
                    users.entry(directory.to_owned()).or_default().insert(id);
                }
            }
        }
        users
    }

    fn is_left_out(&self, path: &str) -> Option<usize> {
        let rules = self.rules;
        rules.hide.iter().position(|hide| {
            (hide.packages_too || self.level != Level::Packages)
                && hide.paths.iter().any(|wanted| pattern::path(wanted, path))
        })
    }

    fn data(&mut self, path: &str, users: &BTreeMap<String, BTreeSet<PackageId>>) {
        match self.space.tree.node(path).map(|node| &node.kind) {
            Some(Kind::File | Kind::Symlink(_) | Kind::Special) => {}
            _ => return,
        }
        if self.space.mount(path).is_some() || self.is_left_out(path).is_some() {
            return;
        }
        let end = self.space.resolve(path);
        if let Some(end) = &end {
            if self.class(&end.path) != Class::Data || self.set_id.contains(&end.path) {
                return;
            }
            // A link to a file is as good as the file; what is hidden itself is not kept through a link that nobody uses.
            if end.path != path
                && self.space.what(&end.path) != Some(What::Directory)
                && self.is_left_out(&end.path).is_some()
            {
                return;
            }
        }
        match self.inventory.owner(path) {
            Some(id) => {
                if self.level != Level::Files
                    && let Some(reached) = self.packages.get(&id).cloned()
                {
                    let origin = Origin::Path(reached);
                    self.keep_data(path, "data of a package that is reached", &origin);
                    self.linked_directory(path, &origin);
                }
            }
            None => {
                let mut directory = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                let user = loop {
                    if COMMON.contains(&directory) || directory.is_empty() {
                        break None;
                    }
                    if let Some(known) = users.get(directory) {
                        break Some(known);
                    }
                    directory = directory.rsplit_once('/').map_or("", |(parent, _)| parent);
                };
                let reached = match user {
                    None => Some(Origin::Root(
                        "convention: what no package owns is the application's".to_owned(),
                    )),
                    Some(known) => known
                        .iter()
                        .find_map(|id| self.packages.get(id))
                        .map(|path| Origin::Path(path.clone())),
                };
                if let Some(origin) = reached {
                    self.keep_data(path, "data that no package owns", &origin);
                }
            }
        }
    }

    fn keep_data(&mut self, path: &str, rule: &str, origin: &Origin) {
        if self.space.resolve(path).is_none() {
            self.insert(path, rule, origin);
            return;
        }
        self.keep(path, rule, origin, By::Convention);
    }

    /// Data that a package has through a link: `profiles -> ../color/profiles`, which is a directory of another package.
    fn linked_directory(&mut self, path: &str, origin: &Origin) {
        let Some(end) = self.space.resolve(path).filter(|end| end.path != path) else {
            return;
        };
        let is_shared = SHARED.iter().any(|shared| pattern::path(shared, &end.path));
        if self.space.what(&end.path) == Some(What::Directory) && !is_shared && self.is_left_out(&end.path).is_none() {
            let rule = "in a directory that a link of a package leads to";
            self.whole_directory(end.path, rule, origin, By::Convention);
        }
    }

    /// Every directory on the way to what is kept, and those in which nothing is hidden: programs expect to find them.
    fn directories(&mut self, paths: &[&str]) {
        let rule = "a directory on the way";
        let kept: Vec<String> = self.closure.kept.keys().cloned().collect();
        for path in kept {
            let mut at = path.as_str();
            while let Some((parent, _)) = at.rsplit_once('/') {
                let parent = if parent.is_empty() { "/" } else { parent };
                let known = !self.insert(parent, rule, &Origin::Path(path.clone()));
                if known || parent == "/" {
                    break;
                }
                at = parent;
            }
        }
        let mut hides: BTreeSet<&str> = BTreeSet::new();
        let mut holds: BTreeSet<&str> = BTreeSet::new();
        for path in paths {
            let is_directory = self.space.tree.node(path).is_some_and(crate::tree::Node::is_directory);
            let mut at = *path;
            while let Some((parent, _)) = at.rsplit_once('/') {
                let set = if is_directory { &mut holds } else { &mut hides };
                if !set.insert(parent) {
                    break;
                }
                at = parent;
            }
        }
        let empty: Vec<&str> = paths
            .iter()
            .copied()
            .filter(|path| self.space.tree.node(path).is_some_and(crate::tree::Node::is_directory))
            .filter(|path| !hides.contains(path) || is_state(path))
            .filter(|path| self.is_left_out(path).is_none() && !self.closure.kept.contains_key(*path))
            .collect();
        for path in empty {
            let mut at = path;
            let origin = Origin::Root("convention: directories that are empty, or hold state".to_owned());
            while self.insert(at, "an empty directory, which a program may expect", &origin) {
                at = match at.rsplit_once('/') {
                    Some((parent, _)) if !parent.is_empty() => parent,
                    _ => break,
                };
            }
        }
    }

    fn why_hidden(&self, path: &str) -> Hidden {
        if self.space.mount(path).is_some() {
            return Hidden::Shadowed;
        }
        let Some(node) = self.space.tree.node(path) else {
            return Hidden::Data;
        };
        match &node.kind {
            Kind::Directory => return Hidden::Directory,
            Kind::Symlink(_) => {
                let followed = self.space.resolve(path);
                if followed.is_none_or(|end| !self.closure.kept.contains_key(&end.path)) {
                    return Hidden::Link;
                }
            }
            Kind::File | Kind::Special => {}
        }
        if self.hidden_set_id(path) {
            return Hidden::SetId;
        }
        let end = self.space.resolve(path).map_or_else(|| path.to_owned(), |end| end.path);
        match self.class(&end) {
            Class::Program | Class::Script => return Hidden::Unreached,
            Class::Library => return Hidden::Unloaded,
            Class::Data => {}
        }
        if let Some(number) = self.is_left_out(path) {
            return Hidden::LeftOut(number);
        }
        match self.inventory.owner(path) {
            Some(id) if !self.packages.contains_key(&id) => Hidden::Package(id),
            _ => Hidden::Data,
        }
    }
}

/// Directories in which services keep what they write.
fn is_state(path: &str) -> bool {
    ["/var", "/run", "/tmp", "/srv", "/mnt", "/media", "/home"]
        .iter()
        .any(|top| path == *top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/')))
}
