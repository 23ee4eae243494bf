//! Which package owns which file of an image, according to the package databases inside the image itself.
//!
//! The databases are read from the verified layers, through a [`crate::tree::Tree`], never from what a container wrote.

use std::collections::HashMap;

/// Whose database says that a package is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
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

/// One installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Whose database lists it.
    pub ecosystem: Ecosystem,
    /// Its name there.
    pub name: String,
    /// Its whole version there, epoch and revision included.
    pub version: String,
    /// Its architecture, where the database has one.
    pub architecture: Option<String>,
    /// Path of the file that lists it.
    pub database: String,
    /// What it owns: paths without links before the last component, each of them in the tree. Directories that several
    /// packages share are in each of their lists.
    pub files: Vec<String>,
}

/// Number of a package in [`Inventory::packages`].
pub type PackageId = usize;

/// Every package of an image and what it owns.
#[derive(Debug, Default)]
pub struct Inventory {
    /// All packages, in the order in which their databases list them.
    pub packages: Vec<Package>,
    owners: HashMap<String, PackageId>,
}

impl Inventory {
    /// An inventory of these packages. A file that several list belongs to the first of them.
    #[must_use]
    pub fn new(packages: Vec<Package>) -> Self {
        let mut owners = HashMap::new();
        for (id, package) in packages.iter().enumerate() {
            for path in &package.files {
                owners.entry(path.clone()).or_insert(id);
            }
        }
        Self { packages, owners }
    }

    /// The package that owns a file or link, `path` without links before its last component; `None` for directories and
    /// for what nobody owns.
    #[must_use]
    pub fn owner(&self, path: &str) -> Option<PackageId> {
        self.owners.get(path).copied()
    }

    /// A package by its number.
    #[must_use]
    pub fn package(&self, id: PackageId) -> Option<&Package> {
        self.packages.get(id)
    }
}
