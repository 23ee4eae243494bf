//! What a container sees: the image with everything that is mounted over it.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::budget::{Budget, STEP};
use super::pattern;
use super::{Content, Mounted};
use crate::tree::{Kind, Resolved, Tree, join};

/// Most links that a path may pass, as in Linux.
const MAX_LINKS: usize = 40;
/// Longest path that is looked up.
const MAX_PATH: usize = 4096;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What<'a> {
    File {
        mode: u32,
        size: u64,
    },
    Directory,
    Link(&'a str),
    Special,
    /// Something is mounted there, and what is in it is not known.
    Unknown,
}

/// The image and the mounts.
#[derive(Debug)]
pub(super) struct Space<'a> {
    pub(super) tree: &'a Tree,
    /// Destinations without links.
    mounts: Vec<(String, &'a Mounted)>,
    /// Names in the image: what it costs to look at all of them.
    pub(super) size: u64,
}

/// A file to be read at any offset.
#[derive(Debug)]
pub(super) enum Reader<'a> {
    File(File, u64),
    Bytes(&'a [u8]),
}

impl Reader<'_> {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::File(_, size) => *size,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Exactly `length` bytes from `offset`; `None` where the file ends before.
    pub(super) fn read(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let end = offset.checked_add(length as u64)?;
        if end > self.len() {
            return None;
        }
        match self {
            Self::File(file, _) => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset).ok()?;
                Some(bytes)
            }
            Self::Bytes(bytes) => {
                let start = usize::try_from(offset).ok()?;
                Some(bytes.get(start..start.checked_add(length)?)?.to_vec())
            }
        }
    }
}

impl<'a> Space<'a> {
    pub(super) fn new(tree: &'a Tree, mounted: &'a [Mounted]) -> Self {
        let mut space = Self {
            tree,
            mounts: Vec::new(),
            size: tree.nodes().count() as u64,
        };
        // In order: a later mount may lie inside of an earlier one, and over it.
        for mount in mounted {
            let at = space.destination(&mount.destination);
            space.mounts.push((at, mount));
        }
        space
    }

    /// A destination without links, whether or not it exists.
    fn destination(&self, path: &str) -> String {
        if let Some(found) = self.resolve(path) {
            return found.path;
        }
        let path = path.trim_end_matches('/');
        match path.rsplit_once('/') {
            Some((parent, name)) if !parent.is_empty() && self.resolve(parent).is_some() => join(
                &self
                    .resolve(parent)
                    .map_or_else(|| parent.to_owned(), |found| found.path),
                name,
            ),
            _ if path.is_empty() => "/".to_owned(),
            _ => path.to_owned(),
        }
    }

    /// Destinations of the mounts, without links.
    pub(super) fn mount_points(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().map(|(at, _)| at.as_str())
    }

    /// The mount that a path without links lies in, and the path inside of it.
    pub(super) fn mount(&self, path: &str) -> Option<(&'a Mounted, String)> {
        self.mounts.iter().rev().find_map(|(at, mount)| {
            let rest = path.strip_prefix(at.as_str())?;
            (rest.is_empty() || rest.starts_with('/') || at == "/")
                .then(|| (*mount, join("/", rest.trim_start_matches('/'))))
        })
    }

    /// The number of the mount that a path without links lies in, and the path inside of it.
    pub(super) fn place(&self, path: &str) -> Option<(usize, String)> {
        let (mount, below) = self.mount(path)?;
        let number = self.mounts.iter().position(|(_, known)| std::ptr::eq(*known, mount))?;
        Some((number, below))
    }

    /// What stands at a path that has no link before its last component.
    pub(super) fn what(&self, path: &str) -> Option<What<'a>> {
        if !self.mounts.is_empty()
            && let Some((mount, below)) = self.mount(path)
        {
            return match &mount.content {
                Content::Tree(tree) => tree.node(&below).map(what),
                Content::File(bytes, mode) => (below == "/").then_some(What::File {
                    mode: *mode,
                    size: bytes.len() as u64,
                }),
                Content::Unknown => Some(What::Unknown),
            };
        }
        if let Some(node) = self.tree.node(path) {
            return Some(what(node));
        }
        let prefix = join(path, "");
        self.mounts
            .iter()
            .any(|(at, _)| at.starts_with(&prefix))
            .then_some(What::Directory)
    }

    /// A path without links, and the links that were passed; see [`Tree::resolve`].
    pub(super) fn resolve(&self, path: &str) -> Option<Resolved> {
        if path.len() > MAX_PATH {
            return None;
        }
        if self.mounts.is_empty() {
            return self.tree.resolve(path);
        }
        let mut done = "/".to_owned();
        let mut links = Vec::new();
        let mut rest: Vec<String> = components(path);
        while let Some(component) = rest.pop() {
            if component == ".." {
                done.truncate(done.rfind('/').unwrap_or(0).max(1));
                continue;
            }
            let next = join(&done, &component);
            match self.what(&next)? {
                What::Link(target) => {
                    if links.len() == MAX_LINKS {
                        return None;
                    }
                    links.push(next);
                    if target.starts_with('/') {
                        done.truncate(1);
                    }
                    rest.extend(components(target));
                }
                What::Directory | What::Unknown => done = next,
                _ if rest.is_empty() => done = next,
                _ => return None,
            }
        }
        Some(Resolved { path: done, links })
    }

    pub(super) fn open(&self, path: &str) -> Option<Reader<'a>> {
        let (tree, inner) = match self.mount(path) {
            Some((mount, below)) => match &mount.content {
                Content::Tree(tree) => (tree, below),
                Content::File(bytes, _) if below == "/" => return Some(Reader::Bytes(bytes)),
                Content::File(..) | Content::Unknown => return None,
            },
            None => (self.tree, path.to_owned()),
        };
        let file = tree.file(&inner).ok()?;
        let size = file.metadata().ok()?.len();
        Some(Reader::File(file, size))
    }

    /// At most the first `count` bytes of a file.
    pub(super) fn head(&self, path: &str, count: usize) -> Option<Vec<u8>> {
        let reader = self.open(path)?;
        let length = usize::try_from(reader.len()).unwrap_or(usize::MAX).min(count);
        reader.read(0, length)
    }

    /// All bytes of a file; `None` where it cannot be read or has more than `limit`.
    pub(super) fn bytes(&self, path: &str, limit: u64) -> Option<Vec<u8>> {
        let reader = self.open(path)?;
        if reader.len() > limit {
            return None;
        }
        reader.read(0, usize::try_from(reader.len()).ok()?)
    }

    /// Paths in a directory (no links before the last component), in byte order.
    pub(super) fn children(&self, directory: &str) -> Vec<String> {
        let mut names = BTreeSet::new();
        match self.mount(directory) {
            Some((mount, below)) => {
                if let Content::Tree(tree) = &mount.content {
                    names.extend(
                        tree.children(&below)
                            .map(|(path, _)| join(directory, path.rsplit('/').next().unwrap_or(path))),
                    );
                }
            }
            None => names.extend(self.tree.children(directory).map(|(path, _)| path.to_owned())),
        }
        let prefix = join(directory, "");
        for (at, _) in &self.mounts {
            if let Some(rest) = at.strip_prefix(&prefix) {
                let name = rest.split('/').next().unwrap_or(rest);
                if !name.is_empty() {
                    names.insert(join(directory, name));
                }
            }
        }
        names.into_iter().collect()
    }

    /// Everything below a directory, at any depth.
    pub(super) fn below(&self, directory: &str) -> Vec<String> {
        let prefix = join(directory, "");
        let mounted = self.mount(directory).is_some() || self.mounts.iter().any(|(at, _)| at.starts_with(&prefix));
        if !mounted {
            return self.tree.below(directory).map(|(path, _)| path.to_owned()).collect();
        }
        let mut found = Vec::new();
        let mut waiting = vec![directory.to_owned()];
        while let Some(next) = waiting.pop() {
            for child in self.children(&next) {
                if self.what(&child) == Some(What::Directory) {
                    waiting.push(child.clone());
                }
                found.push(child);
            }
        }
        found.sort_unstable();
        found
    }

    /// Every path of the image and of what is mounted whose last component is `name`.
    pub(super) fn named(&self, name: &str) -> Vec<String> {
        let is_named = |path: &str| path.rsplit('/').next() == Some(name);
        let own = self.tree.nodes().map(|(path, _)| path);
        let mut found: Vec<String> = own
            .filter(|path| is_named(path) && self.mount(path).is_none())
            .map(str::to_owned)
            .collect();
        for (at, mount) in &self.mounts {
            match &mount.content {
                Content::Tree(tree) => {
                    let below = tree.nodes().map(|(path, _)| join(at, path.trim_start_matches('/')));
                    found.extend(below.filter(|path| is_named(path)));
                }
                Content::File(..) if is_named(at) => found.push(at.clone()),
                _ => {}
            }
        }
        found
    }

    /// The paths that a pattern stands for. Links on the way to a match are followed, and their target is what is
    /// returned before the last component; a link in the last place is returned as itself.
    pub(super) fn expand(&self, text: &str) -> Vec<String> {
        self.expand_within(text, &Budget::endless())
    }

    /// As [`Self::expand`], for a pattern that the image says; incomplete where the budget is spent.
    pub(super) fn expand_within(&self, text: &str, budget: &Budget) -> Vec<String> {
        let mut places = vec!["/".to_owned()];
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty()).collect();
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            if *part == "**" {
                let rest = parts.get(i + 1..).unwrap_or_default().join("/");
                let wanted = if rest.is_empty() {
                    "**".to_owned()
                } else {
                    format!("**/{rest}")
                };
                let mut found = Vec::new();
                for place in &places {
                    if budget.is_spent() {
                        break;
                    }
                    let skipped = join(place, "").len();
                    found.extend(self.below(place).into_iter().filter(|path| {
                        budget.spend(cost(&wanted, path))
                            && rest_matches(&wanted, path.get(skipped..).unwrap_or(""))
                            && budget.spend(STEP)
                    }));
                }
                return found;
            }
            let mut next = Vec::new();
            for place in &places {
                if budget.is_spent() {
                    break;
                }
                if pattern::is_pattern(part) {
                    let hidden = part.starts_with('.');
                    next.extend(self.children(place).into_iter().filter(|path| {
                        let name = path.rsplit('/').next().unwrap_or(path);
                        budget.spend(cost(part, name))
                            && (hidden || !name.starts_with('.'))
                            && pattern::component(part, name)
                            && budget.spend(STEP)
                    }));
                } else {
                    let path = join(place, part);
                    if *part == ".." || *part == "." {
                        next.extend(self.resolve(&path).map(|found| found.path));
                    } else if self.what(&path).is_some() {
                        next.push(path);
                    }
                }
            }
            if !last {
                next = next
                    .iter()
                    .filter_map(|path| self.resolve(path))
                    .map(|found| found.path)
                    .filter(|path| matches!(self.what(path), Some(What::Directory | What::Unknown)))
                    .collect();
                next.sort_unstable();
                next.dedup();
            }
            places = next;
        }
        places
    }
}

/// Work of a comparison: finding the name, and at worst the product of both lengths.
fn cost(pattern: &str, name: &str) -> u64 {
    8 + name.len() as u64 / 8 + (pattern.len() as u64 * name.len() as u64) / 64
}

fn rest_matches(wanted: &str, path: &str) -> bool {
    pattern::path(&join("/", wanted), &join("/", path))
}

fn what(node: &crate::tree::Node) -> What<'_> {
    match &node.kind {
        Kind::File => What::File {
            mode: node.mode,
            size: node.size,
        },
        Kind::Directory => What::Directory,
        Kind::Symlink(target) => What::Link(target),
        Kind::Special => What::Special,
    }
}

fn components(path: &str) -> Vec<String> {
    path.split('/')
        .rev()
        .filter(|component| !component.is_empty() && *component != ".")
        .map(str::to_owned)
        .collect()
}
