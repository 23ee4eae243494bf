//! Which files of an image a container needs: the closure of its roots.
//!
//! Roots are the final arguments, the environment, the policy's programs, and what is mounted over the image. From each
//! file that is kept, rules lead to further ones: `elf` and `loader` know programs and libraries, `shell` and `scripts`
//! know scripts, `configuration` knows files of configuration, `texts` what texts of unknown languages start, `rules` holds what is known by convention
//! (`config/closure/*.toml`), `trace` follows all of it until nothing is added, `data` adds what belongs to what was
//! reached. `space` is the image with its mounts, `budget` bounds the work that hostile texts cause.
//!
//! Executables (ELF files and scripts) are kept one by one; data by the package. What cannot be followed is said, and
//! then every executable of eligible packages stays.

mod budget;
mod classes;
mod configuration;
mod data;
mod elf;
mod loader;
mod processes;
mod rules;
mod scripts;
mod shell;
mod space;
mod texts;
mod trace;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::diagnostic::printable;
use crate::packages::{Inventory, PackageId};
use crate::policy::glob as pattern;
use crate::tree::Tree;

pub use crate::policy::Level;
pub use processes::{Linked, Order};
pub use rules::Rules;

/// What a mount shows when the container is created.
#[derive(Debug)]
pub enum Content {
    /// A directory.
    Tree(Tree),
    /// A file with its bytes and permission bits.
    File(Vec<u8>, u32),
    /// It could not be read, or is no file: a socket, `/proc`, a tmpfs.
    Unknown,
}

/// Something that is mounted over the image.
#[derive(Debug)]
pub struct Mounted {
    /// Absolute path in the container.
    pub destination: String,
    /// What is there when the container is created.
    pub content: Content,
    /// The container, or somebody else, can change it later.
    pub writable: bool,
    /// Programs can be there: not `/proc`, `/sys`, `/dev` and the like, which never hold any.
    pub programs: bool,
}

/// Where a closure starts.
#[derive(Debug, Default)]
pub struct Roots {
    /// The final arguments of the container's process.
    pub args: Vec<String>,
    /// Its environment, `NAME=value`.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// Further programs: the policy's `exec` and annotations; a path, or a name to be found in `PATH`.
    pub exec: Vec<String>,
    /// Further files: patterns of the policy's `keep`.
    pub keep: Vec<String>,
    /// Directories that the image declares as volumes.
    pub volumes: Vec<String>,
    /// What is mounted, in the order of mounting.
    pub mounts: Vec<Mounted>,
}

/// Where a reason leads back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Something that the container was given, or a convention.
    Root(String),
    /// Another kept file.
    Path(String),
}

/// Why a path is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The rule, in words.
    pub rule: String,
    /// What led to it.
    pub origin: Origin,
    /// It lies in a mount, not in the image.
    pub is_mounted: bool,
}

/// How an ELF file gets into a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// It is started.
    Program,
    /// It loads a program.
    Interpreter,
    /// A program or library is linked with it.
    Needed,
    /// The environment or the loader's configuration puts it into every process.
    Preload,
    /// A text in a program names it.
    Dlopen,
    /// It lies where programs look for modules.
    Plugin,
}

/// An ELF file that is kept: what the analysis of system calls must read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// How it was reached first.
    pub how: How,
    /// It lies in a mount, not in the image.
    pub is_mounted: bool,
}

/// Something whose needs are not known.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unfollowed {
    /// A path, or a root.
    pub what: String,
    /// Why it could not be followed, as a sentence's end.
    pub why: String,
}

/// Why a path is hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hidden {
    /// A program or script that nothing starts.
    Unreached,
    /// A shared object that nothing loads.
    Unloaded,
    /// A set-uid or set-gid program that no root names.
    SetId,
    /// Data of a package of which nothing is reached.
    Package(PackageId),
    /// Data that a rule leaves out; its number in [`Closure::left_out`].
    LeftOut(usize),
    /// Data that no rule leads to, at a level that keeps no other.
    Data,
    /// A link to something that is hidden, or that does not exist.
    Link,
    /// A mount lies over it.
    Shadowed,
    /// A directory in which nothing is kept.
    Directory,
}

/// What kind of file something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An ELF program.
    Program,
    /// A shared object, or some other ELF file that is not started.
    Library,
    /// An executable text.
    Script,
    /// Everything else.
    Data,
}

/// Most files of one closure's mounts and image that are looked at is bounded by [`crate::tree::MAX_NODES`]; this is
/// the most that is said about what went wrong.
const MAX_NOTES: usize = 1000;

/// What a container needs, with a reason for everything.
#[derive(Debug, Default)]
pub struct Closure {
    /// Every kept path, those in mounts included.
    pub kept: BTreeMap<String, Kept>,
    /// Every hidden path of the image.
    pub hidden: BTreeMap<String, Hidden>,
    /// ELF files that are kept.
    pub objects: BTreeMap<String, Object>,
    /// Which of them meet in a process.
    pub linked: Linked,
    /// Those of them that lie in a mount: its number, and the path there.
    places: BTreeMap<String, (usize, String)>,
    /// What could not be followed. When there is any, every executable of eligible packages is kept.
    pub unfollowed: Vec<Unfollowed>,
    /// Why the system calls of kept ELF files are not all that the container makes.
    pub foreign: Vec<String>,
    /// What is wrong in the image: damaged files, libraries that are missing.
    pub findings: Vec<String>,
    /// What kind of file each regular file of the image is, data left out.
    pub classes: BTreeMap<String, Class>,
    /// Name and reason of each rule that leaves data out.
    pub left_out: Vec<(String, String)>,
}

/// The closure of `roots` in an image. `eligible` are the packages whose executables stay where something cannot be
/// followed.
#[must_use]
pub fn close(
    tree: &Tree,
    inventory: &Inventory,
    rules: &Rules,
    roots: &Roots,
    level: Level,
    eligible: &dyn Fn(PackageId) -> bool,
) -> Closure {
    let mut trace = trace::Trace::new(tree, inventory, rules, roots, level);
    trace.roots();
    trace.settle();
    trace
        .closure
        .unfollowed
        .retain(|unfollowed| !rules.know(&unfollowed.what));
    if !trace.closure.unfollowed.is_empty() {
        // What stays for safety says nothing new.
        let unfollowed = trace.closure.unfollowed.clone();
        trace.keep_everything(eligible);
        return Closure {
            unfollowed,
            ..trace.finish()
        };
    }
    trace.finish()
}

/// The ELF files of an image of which everything stays visible: all that there are, also in what is mounted, and how
/// they meet in processes.
#[must_use]
pub fn everything(tree: &Tree, inventory: &Inventory, rules: &Rules, roots: &Roots) -> Closure {
    let mut trace = trace::Trace::new(tree, inventory, rules, roots, Level::default());
    trace.roots();
    trace.settle();
    trace.take_everything();
    trace.link();
    trace.placed()
}

impl Closure {
    /// The kept paths of the image, in byte order, `/` first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.kept
            .iter()
            .filter(|(_, kept)| !kept.is_mounted)
            .map(|(path, _)| path.as_str())
    }

    /// What kind of file a path of the image is.
    #[must_use]
    pub fn class(&self, path: &str) -> Class {
        self.classes.get(path).copied().unwrap_or(Class::Data)
    }

    /// Why a path is kept, from its root to itself, or why it is hidden; one line each. `None` where the image has no
    /// such path. `path` has no links before its last component.
    #[must_use]
    pub fn explain(&self, path: &str, inventory: &Inventory) -> Option<Vec<String>> {
        if self.kept.contains_key(path) {
            return Some(self.chain(path));
        }
        let hidden = self.hidden.get(path)?;
        let package = |id: PackageId| {
            inventory
                .package(id)
                .map_or("a package", |package| package.name.as_str())
        };
        let shown = printable(path);
        Some(vec![match hidden {
            Hidden::Unreached => format!("{shown} is hidden: nothing that the container runs starts it"),
            Hidden::Unloaded => format!("{shown} is hidden: nothing that the container runs loads it"),
            Hidden::SetId => format!("{shown} is hidden: it changes the user or group, and no root names it"),
            Hidden::Package(id) => format!(
                "{shown} is hidden: it is data of {}, of which nothing is reached",
                printable(package(*id))
            ),
            Hidden::LeftOut(number) => {
                let (name, reason) = self
                    .left_out
                    .get(*number)
                    .map_or(("", ""), |(name, reason)| (name, reason));
                format!("{shown} is hidden: {name}: {reason}")
            }
            Hidden::Data => format!("{shown} is hidden: nothing names it, and the level keeps no other data"),
            Hidden::Link => format!("{shown} is hidden: it is a link to something that is hidden or does not exist"),
            Hidden::Shadowed => format!("{shown} is hidden: something is mounted over it"),
            Hidden::Directory => format!("{shown} is hidden: nothing in it is kept"),
        }])
    }

    /// The way from a root to a kept path.
    fn chain(&self, path: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let mut at = path;
        // Whatever leads somewhere was kept before, so there is no circle; the bound is for a mistake.
        for _ in 0..=self.kept.len() {
            let Some(kept) = self.kept.get(at) else { break };
            lines.push(format!("{}: {}", printable(at), printable(&kept.rule)));
            match &kept.origin {
                Origin::Root(root) => {
                    lines.push(printable(root).into_owned());
                    break;
                }
                Origin::Path(path) => at = path,
            }
        }
        lines.reverse();
        lines
    }

    fn note(&mut self, finding: String) {
        if self.findings.len() < MAX_NOTES && !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn cannot_see(&mut self, why: String) {
        if self.foreign.len() < MAX_NOTES && !self.foreign.contains(&why) {
            self.foreign.push(why);
        }
    }

    fn cannot_follow(&mut self, what: &str, why: &str) {
        let unfollowed = Unfollowed {
            what: what.to_owned(),
            why: why.to_owned(),
        };
        if self.unfollowed.len() < MAX_NOTES && !self.unfollowed.contains(&unfollowed) {
            self.unfollowed.push(unfollowed);
        }
    }
}
