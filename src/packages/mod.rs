//! Which package owns which file of an image, according to the package databases inside the image itself.
//!
//! The databases are read from the verified layers, through a [`crate::tree::Tree`], never from what a container wrote.
//! One file per database: it says how that one is found and read. Databases of a distribution come first, and what they
//! own no other package can own: a Python distribution or a program that a distribution's package installed is that
//! package's, and is not listed a second time.
//!
//! What a database says is an image author's text. Nothing in it is followed outside the image, everything is bounded, and
//! what cannot be read or believed is a [`Finding`]; the rest of the image still has its owners.

mod apk;
mod content;
mod distro;
mod dpkg;
mod gem;
mod jar;
mod npm;
mod program;
mod python;
mod register;
mod rpm;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub use content::{Altered, altered};
pub use distro::Distro;
pub use standing::{Coverage, Standing, Standings, Tally, Verdict, standing};

use crate::sbom::Identity;
use crate::tree::Tree;
use register::Register;

/// Most packages of an image.
pub const MAX_PACKAGES: usize = 100_000;
/// Most files that all databases of an image list together; files that several packages own count several times.
pub const MAX_OWNED: usize = 1_500_000;
/// Most findings that are listed.
pub const MAX_FINDINGS: usize = 256;

/// Whose database says that a package is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ecosystem {
    /// Debian's dpkg, distroless `status.d` included.
    Dpkg,
    /// Alpine's apk.
    Apk,
    /// RPM.
    Rpm,
    /// A Python distribution.
    Python,
    /// A package of Node.js.
    Npm,
    /// A Ruby gem.
    Gem,
    /// A Go module inside a program.
    Go,
    /// A Rust crate inside a program.
    Cargo,
    /// A Java archive.
    Java,
}

impl Ecosystem {
    /// Whether a distribution's package manager keeps the database.
    #[must_use]
    pub fn is_of_distribution(self) -> bool {
        matches!(self, Self::Dpkg | Self::Apk | Self::Rpm)
    }

    /// Type of its package URLs.
    #[must_use]
    pub fn purl_type(self) -> &'static str {
        match self {
            Self::Dpkg => "deb",
            Self::Apk => "apk",
            Self::Rpm => "rpm",
            Self::Python => "pypi",
            Self::Npm => "npm",
            Self::Gem => "gem",
            Self::Go => "golang",
            Self::Cargo => "cargo",
            Self::Java => "maven",
        }
    }
}

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Whose database lists it.
    pub ecosystem: Ecosystem,
    /// Its name there; of a Java archive, `group:artifact`.
    pub name: String,
    /// Its whole version there, epoch and revision included. Empty where the database knows none.
    pub version: String,
    /// Its architecture, where the database has one.
    pub architecture: Option<String>,
    /// Path of the file that lists it.
    pub database: String,
    /// What it owns: paths without links before the last component, each of them in the tree, sorted. Directories that
    /// several packages share are in each of their lists. Empty for what is built into another package's program or
    /// archive.
    pub files: Vec<String>,
}

impl Package {
    /// What it is compared by with the packages of an SBOM; `distribution` is that of the image.
    #[must_use]
    pub fn identity(&self, distribution: Option<&Distro>) -> Identity {
        let (namespace, name) = match self.ecosystem {
            Ecosystem::Dpkg | Ecosystem::Apk | Ecosystem::Rpm => {
                (distribution.map_or("", |distro| distro.id.as_str()), self.name.as_str())
            }
            Ecosystem::Java => self.name.split_once(':').unwrap_or(("", &self.name)),
            Ecosystem::Npm | Ecosystem::Go => self.name.rsplit_once('/').unwrap_or(("", &self.name)),
            Ecosystem::Python | Ecosystem::Gem | Ecosystem::Cargo => ("", self.name.as_str()),
        };
        let architecture = self.architecture.as_deref().unwrap_or_default();
        Identity::new(self.ecosystem.purl_type(), namespace, name, &self.version, architecture)
    }
}

/// Something about a package database that keeps it from being read or believed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Stable kebab-case code: `database-unsupported`, for example.
    pub code: String,
    /// Path in the image.
    pub path: String,
    /// What is wrong, and what that means for the image's owners.
    pub text: String,
}

/// Number of a package in [`Inventory::packages`].
pub type PackageId = usize;

/// A digest that a database has for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recorded {
    Md5([u8; 16]),
    Sha1([u8; 20]),
    Sha256([u8; 32]),
}

/// Who owns a file.
#[derive(Debug, Clone, Copy)]
struct Owned {
    package: PackageId,
    /// Whether the database names the file by another path, through a link of the image.
    aliased: bool,
    recorded: Option<Recorded>,
}

/// Every package of an image and what it owns.
#[derive(Debug, Default)]
pub struct Inventory {
    /// All packages, in the order in which their databases list them.
    pub packages: Vec<Package>,
    /// What could not be read or believed.
    pub findings: Vec<Finding>,
    /// Findings beyond [`MAX_FINDINGS`].
    pub omitted: usize,
    /// The distribution that the image says it is.
    pub distribution: Option<Distro>,
    owners: HashMap<String, Owned>,
}

impl Inventory {
    /// An inventory of these packages. A file that several list belongs to the first of them.
    #[must_use]
    pub fn new(packages: Vec<Package>) -> Self {
        let mut owners = HashMap::new();
        for (package, listed) in packages.iter().enumerate() {
            for path in &listed.files {
                owners.entry(path.clone()).or_insert(Owned {
                    package,
                    aliased: false,
                    recorded: None,
                });
            }
        }
        Self {
            packages,
            owners,
            ..Self::default()
        }
    }

    /// The package that owns a file or link, `path` without links before its last component; `None` for directories and
    /// for what nobody owns. A link that no database lists belongs to the package of the file that it leads to.
    #[must_use]
    pub fn owner(&self, path: &str) -> Option<PackageId> {
        self.owners.get(path).map(|owned| owned.package)
    }

    /// A package by its number.
    #[must_use]
    pub fn package(&self, id: PackageId) -> Option<&Package> {
        self.packages.get(id)
    }
}

/// Reads every package database of an image.
///
/// Work is bounded by the size of the tree, [`MAX_PACKAGES`], [`MAX_OWNED`] and the limits of each database; running
/// into one is a finding.
#[must_use]
pub fn scan(tree: &Tree) -> Inventory {
    let mut register = Register::new(tree);
    dpkg::read(&mut register);
    apk::read(&mut register);
    rpm::read(&mut register);
    register.links();
    python::read(&mut register);
    npm::read(&mut register);
    gem::read(&mut register);
    program::read(&mut register);
    jar::read(&mut register);
    register.links();
    register.finish()
}
