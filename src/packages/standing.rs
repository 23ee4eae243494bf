//! How packages and files stand against an SBOM.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Ecosystem, Inventory, Package, PackageId, content};
use crate::sbom::{Identity, Sbom};
use crate::tree::{Kind, Tree};

/// Most versions of a package that are named when none of them is the installed one.
const MAX_NAMED: usize = 4;

/// How a package stands against the SBOM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The SBOM lists it in this version, for this architecture.
    Attested,
    /// The SBOM lists no package of this name.
    Missing,
    /// The SBOM lists it, but not as it is installed: as these instead, the first few.
    Drift(Vec<String>),
    /// There is no SBOM to ask: only the package database in the image knows it.
    Database,
}

/// How a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Its package is listed by the SBOM; or no package owns it, and the SBOM lists it with the digest that it has.
    Attested,
    /// A package owns it that the SBOM does not list, or not in this version.
    Attributed,
    /// A package owns it, and there is no SBOM to ask about that.
    Database,
    /// No package owns it.
    Unattested,
}

/// The standing of every package of an image, and of its files.
#[derive(Debug)]
pub struct Standings<'a> {
    inventory: &'a Inventory,
    sbom: Option<&'a Sbom>,
    verdicts: Vec<Verdict>,
}

/// Compares the packages of an image with an SBOM. Without one, everything that is owned stands by the package database.
///
/// Packages are compared by type, name, version and, for packages of a distribution, namespace and architecture. Where
/// the SBOM leaves out namespace or architecture, or the image does not say which distribution it is, that is no
/// contradiction.
#[must_use]
pub fn standing<'a>(inventory: &'a Inventory, sbom: Option<&'a Sbom>) -> Standings<'a> {
    let verdicts = match sbom {
        Some(sbom) => {
            let listed = Listed::new(inventory, sbom);
            inventory
                .packages
                .iter()
                .map(|package| listed.verdict(package))
                .collect()
        }
        None => vec![Verdict::Database; inventory.packages.len()],
    };
    Standings {
        inventory,
        sbom,
        verdicts,
    }
}

/// What an SBOM lists, for looking up.
struct Listed<'a> {
    inventory: &'a Inventory,
    exact: HashSet<&'a Identity>,
    /// The same packages without their namespace: of any distribution, where the image does not say which it is, and
    /// Java's of any group.
    anywhere: HashSet<Identity>,
    /// Packages of languages without their version.
    unversioned: HashSet<Identity>,
    /// The first few by type and name.
    named: HashMap<(&'a str, &'a str), Vec<&'a Identity>>,
}

impl<'a> Listed<'a> {
    fn new(inventory: &'a Inventory, sbom: &'a Sbom) -> Self {
        let mut listed = Self {
            inventory,
            exact: sbom.packages.iter().collect(),
            anywhere: HashSet::new(),
            unversioned: HashSet::new(),
            named: HashMap::new(),
        };
        for identity in &sbom.packages {
            let is_java = identity.kind == Ecosystem::Java.purl_type();
            if is_java || inventory.distribution.is_none() {
                listed.anywhere.insert(identity.without_namespace());
            }
            if !identity.is_of_distribution() {
                listed.unversioned.insert(identity.without_version());
            }
            let few = listed.named.entry((identity.kind.as_str(), identity.name.as_str()));
            let few = few.or_default();
            if few.len() < MAX_NAMED {
                few.push(identity);
            }
        }
        listed
    }

    fn verdict(&self, package: &Package) -> Verdict {
        let identity = package.identity(self.inventory.distribution.as_ref());
        if self.lists(&identity) {
            return Verdict::Attested;
        }
        let few = self.named.get(&(identity.kind.as_str(), identity.name.as_str()));
        // What is another package by its namespace is no other version of this one.
        let same = few.into_iter().flatten().filter(|listed| {
            identity.is_of_distribution() || identity.namespace.is_empty() || listed.namespace == identity.namespace
        });
        let drift: Vec<String> = same.map(ToString::to_string).collect();
        if drift.is_empty() {
            Verdict::Missing
        } else {
            Verdict::Drift(drift)
        }
    }

    fn lists(&self, identity: &Identity) -> bool {
        if self.exact.contains(identity) {
            return true;
        }
        if identity.is_of_distribution() {
            let any_architecture = identity.without_architecture();
            let elsewhere = [identity.without_namespace(), any_architecture.without_namespace()];
            return self.exact.contains(&any_architecture)
                || elsewhere
                    .iter()
                    .any(|identity| self.exact.contains(identity) || self.anywhere.contains(identity));
        }
        // A manifest in an archive names no group, and what was built from no released version names none.
        (identity.namespace.is_empty() && self.anywhere.contains(identity))
            || (identity.version.is_empty() && self.unversioned.contains(identity))
    }
}

impl Standings<'_> {
    /// The verdict about a package.
    #[must_use]
    pub fn package(&self, id: PackageId) -> Option<&Verdict> {
        self.verdicts.get(id)
    }

    /// How a file or link stands, `path` as in [`Tree::node`]; `None` for directories and for what is not there.
    ///
    /// What a package owns stands as its package does, whatever else the SBOM says about the file. What none owns stands
    /// by the digest of its content, which is read only when the SBOM lists its path; a link that none owns, as what it
    /// leads to.
    #[must_use]
    pub fn file(&self, tree: &Tree, path: &str) -> Option<Standing> {
        let node = tree.node(path).filter(|node| !node.is_directory())?;
        if let Some(owner) = self.inventory.owner(path) {
            return Some(match self.verdicts.get(owner)? {
                Verdict::Attested => Standing::Attested,
                Verdict::Missing | Verdict::Drift(_) => Standing::Attributed,
                Verdict::Database => Standing::Database,
            });
        }
        let is_listed = match (self.sbom, &node.kind) {
            (Some(sbom), Kind::File) => self.lists(sbom, tree, path),
            (Some(sbom), Kind::Symlink(_)) => {
                let target = tree.resolve(path).map(|resolved| resolved.path);
                target.is_some_and(|target| {
                    tree.node(&target).is_some_and(|node| node.is_file()) && self.lists(sbom, tree, &target)
                })
            }
            _ => false,
        };
        Some(if is_listed {
            Standing::Attested
        } else {
            Standing::Unattested
        })
    }

    fn lists(&self, sbom: &Sbom, tree: &Tree, path: &str) -> bool {
        self.inventory.owner(path).is_none()
            && sbom.has_path(path)
            && content::digest(tree, path).is_ok_and(|digest| sbom.has_file(path, &digest))
    }

    /// Counts all files and executables of an image by their standing.
    #[must_use]
    pub fn coverage(&self, tree: &Tree) -> Coverage {
        let mut coverage = Coverage::default();
        for (path, node) in tree.nodes() {
            let Some(standing) = self.file(tree, path) else {
                continue;
            };
            match node.kind {
                Kind::File => {
                    coverage.files.count(standing);
                    if node.is_executable() {
                        coverage.executables.count(standing);
                    }
                }
                Kind::Symlink(_) => coverage.links.count(standing),
                Kind::Directory | Kind::Special => {}
            }
        }
        coverage
    }
}

/// How many there are of each standing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// [`Standing::Attested`].
    pub attested: u64,
    /// [`Standing::Attributed`].
    pub attributed: u64,
    /// [`Standing::Database`].
    pub database: u64,
    /// [`Standing::Unattested`].
    pub unattested: u64,
}

impl Tally {
    fn count(&mut self, standing: Standing) {
        match standing {
            Standing::Attested => self.attested += 1,
            Standing::Attributed => self.attributed += 1,
            Standing::Database => self.database += 1,
            Standing::Unattested => self.unattested += 1,
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.attested + self.attributed + self.database + self.unattested
    }
}

/// What share of an image's files is known, and to whom.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coverage {
    /// Regular files.
    pub files: Tally,
    /// Regular files that somebody may execute.
    pub executables: Tally,
    /// Symbolic links.
    pub links: Tally,
}
