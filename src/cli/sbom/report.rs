//! What `assay sbom` found: made by the parser in its cage, shown by the command.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::packages::{self, Altered, Coverage, Distro, Ecosystem, Finding, Inventory, Standing, Standings, Verdict};
use crate::sbom::{self, Format, Sbom};
use crate::tree::Tree;

/// Most files of one kind that are listed by themselves.
const MAX_LISTED: usize = 1000;
/// Most bytes that are hashed to find files that are not what their package installed.
const MAX_HASHED: u64 = 1 << 30;

/// The whole answer, also its JSON form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Report {
    /// What was looked at: an image's name, or a directory.
    pub(super) name: String,
    /// Digest of the image's manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<String>,
    /// Where the SBOM comes from, or why there is none.
    pub(super) source: String,
    pub(super) distribution: Option<Distro>,
    pub(super) sbom: Option<Summary>,
    pub(super) packages: Vec<Package>,
    pub(super) coverage: Coverage,
    /// Executables that no package owns, nor the SBOM lists.
    pub(super) unattested_executables: Listing,
    /// Executables of packages that the SBOM lacks, or has in another version.
    pub(super) attributed_executables: Listing,
    /// Files that are not what their package installed.
    pub(super) altered: Listing,
    pub(super) findings: Vec<Finding>,
    /// Findings that are not listed.
    pub(super) omitted: usize,
}

/// The SBOM that was compared with.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Summary {
    pub(super) format: Format,
    pub(super) version: String,
    /// Packages that it lists by package URL.
    pub(super) packages: usize,
    /// Packages that it lists without one.
    pub(super) unnamed: usize,
    /// Files that it lists by SHA-256.
    pub(super) files: usize,
    /// Packages of it that no database in the image knows.
    pub(super) not_installed: Listing,
}

/// Some names of many.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    pub(super) count: usize,
    /// The first of them.
    pub(super) first: Vec<String>,
}

impl Listing {
    fn add(&mut self, name: &str) {
        self.count += 1;
        if self.first.len() < MAX_LISTED {
            self.first.push(name.to_owned());
        }
    }
}

/// A package of the image.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Package {
    pub(super) ecosystem: Ecosystem,
    pub(super) name: String,
    pub(super) version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) architecture: Option<String>,
    pub(super) purl: String,
    pub(super) verdict: Verdict,
    pub(super) database: String,
    pub(super) files: Vec<String>,
}

impl Report {
    pub(super) fn json(&self) -> String {
        // Strings, numbers and lists only: there is always a JSON form.
        crate::diagnostic::json(self).unwrap_or_default()
    }

    /// Looks at all files of an image, and compares them with an SBOM if there is one. An SBOM that cannot be used is a
    /// finding.
    pub(super) fn of(tree: &Tree, document: Option<&[u8]>) -> Self {
        let inventory = packages::scan(tree);
        let read = document.map(sbom::read);
        let mut unusable = Vec::new();
        let sbom = match read {
            Some(Ok(sbom)) => Some(sbom),
            Some(Err(error)) => {
                unusable.push(finding("sbom-unusable", "", &error));
                None
            }
            None => None,
        };
        let standings = packages::standing(&inventory, sbom.as_ref());
        let mut report = Self {
            name: String::new(),
            manifest: None,
            source: String::new(),
            distribution: inventory.distribution.clone(),
            sbom: sbom.as_ref().map(|sbom| Summary::of(sbom, &inventory)),
            packages: list(&inventory, &standings),
            coverage: standings.coverage(tree),
            unattested_executables: Listing::default(),
            attributed_executables: Listing::default(),
            altered: Listing::default(),
            findings: unusable,
            omitted: inventory.omitted,
        };
        report.findings.extend(inventory.findings.iter().cloned());
        report.files(tree, &inventory, &standings);
        if tree.unnamed() > 0 {
            let text = format!("{} names in the image are not UTF-8 and were left out", tree.unnamed());
            report.findings.push(finding("name-not-utf8", "/", &text));
        }
        report
    }

    fn files(&mut self, tree: &Tree, inventory: &Inventory, standings: &Standings<'_>) {
        let mut left = MAX_HASHED;
        let mut unchecked = 0u64;
        for (path, node) in tree.nodes().filter(|(_, node)| node.is_file()) {
            if node.is_executable() {
                match standings.file(tree, path) {
                    Some(Standing::Unattested) => self.unattested_executables.add(path),
                    Some(Standing::Attributed) => self.attributed_executables.add(path),
                    Some(Standing::Attested | Standing::Database) | None => {}
                }
            }
            match left.checked_sub(node.size) {
                Some(rest) => match packages::altered(tree, inventory, path) {
                    Ok(Altered::Yes) => {
                        left = rest;
                        self.altered.add(path);
                    }
                    Ok(Altered::No) => left = rest,
                    Ok(Altered::Unknown) => {}
                    Err(error) => self.findings.push(finding("file-unreadable", path, &error)),
                },
                None => unchecked += 1,
            }
            if self.findings.len() > 2 * packages::MAX_FINDINGS {
                return;
            }
        }
        if unchecked > 0 {
            let text =
                format!("{unchecked} files were too many bytes to be compared with what their packages installed");
            self.findings.push(finding("files-unchecked", "/", &text));
        }
    }
}

fn list(inventory: &Inventory, standings: &Standings<'_>) -> Vec<Package> {
    let packages = inventory.packages.iter().enumerate();
    packages
        .map(|(id, package)| Package {
            ecosystem: package.ecosystem,
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
            purl: package.identity(inventory.distribution.as_ref()).to_string(),
            verdict: standings.package(id).cloned().unwrap_or(Verdict::Database),
            database: package.database.clone(),
            files: package.files.clone(),
        })
        .collect()
}

impl Summary {
    fn of(sbom: &Sbom, inventory: &Inventory) -> Self {
        let known: HashSet<(String, String)> = inventory
            .packages
            .iter()
            .map(|package| package.identity(inventory.distribution.as_ref()))
            .map(|identity| (identity.kind, identity.name))
            .collect();
        let mut not_installed = Listing::default();
        for identity in &sbom.packages {
            if !known.contains(&(identity.kind.clone(), identity.name.clone())) {
                not_installed.add(&identity.to_string());
            }
        }
        Self {
            format: sbom.format,
            version: sbom.version.clone(),
            packages: sbom.packages.len(),
            unnamed: sbom.unnamed,
            files: sbom.file_count(),
            not_installed,
        }
    }
}

fn finding(code: &str, path: &str, text: &dyn std::fmt::Display) -> Finding {
    Finding {
        code: code.to_owned(),
        path: path.to_owned(),
        text: text.to_string(),
    }
}
