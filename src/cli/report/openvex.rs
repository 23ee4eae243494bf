//! The report as OpenVEX (specification 0.2.0): which vulnerabilities of an image its view puts out of reach.
//!
//! A statement is about a vulnerability that somebody found in the image, so the finder's report is read: the JSON of grype
//! or Trivy. The product is the image *and* the view: a package URL of the image's digest with the view's digest as a
//! qualifier, which the image alone, on another node, does not match.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use packageurl::PackageUrl;
use serde::Deserialize;
use serde_json::json;

use super::Report;
use crate::cli::count;
use crate::digest::Digest;
use crate::store;

/// Largest report of a scanner in bytes.
const MAX_SCAN: u64 = 256 << 20;

/// Why there are no statements.
#[derive(Debug, thiserror::Error)]
pub(super) enum VexError {
    #[error("the scanner's report cannot be read: {0}")]
    Read(#[from] store::Error),
    #[error("{path} is no report of grype or Trivy: {source}; write one with grype -o json or trivy --format json")]
    Form { path: String, source: serde_json::Error },
    #[error(
        "{0} has neither `matches` of grype nor `Results` of Trivy; write one with grype -o json or trivy --format json"
    )]
    Unknown(String),
    #[error("the digests of image and view are not known, so no statement can say what it holds for")]
    NoProduct,
    #[error("no statement can be made: none of the {0} concerns a package that the view hides as a whole")]
    Nothing(String),
}

/// Vulnerabilities by the packages that have them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan(BTreeSet<(String, String)>);

/// As much of a report of grype or Trivy as is needed.
#[derive(Deserialize)]
struct Document {
    matches: Option<Vec<Match>>,
    #[serde(rename = "Results")]
    results: Option<Vec<Target>>,
}

#[derive(Deserialize)]
struct Match {
    vulnerability: Identifier,
    artifact: Artifact,
}

#[derive(Deserialize)]
struct Identifier {
    id: String,
}

#[derive(Deserialize)]
struct Artifact {
    #[serde(default)]
    purl: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Target {
    #[serde(default)]
    vulnerabilities: Vec<Finding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Finding {
    #[serde(rename = "VulnerabilityID")]
    id: String,
    #[serde(default)]
    pkg_identifier: PackageIdentifier,
}

#[derive(Default, Deserialize)]
struct PackageIdentifier {
    #[serde(rename = "PURL", default)]
    purl: String,
}

impl Scan {
    /// Reads a scanner's report.
    pub(super) fn read(path: &Path) -> Result<Self, VexError> {
        let bytes = store::read_bounded(path, MAX_SCAN)?;
        Self::parse(&bytes, &path.display().to_string())
    }

    fn parse(bytes: &[u8], path: &str) -> Result<Self, VexError> {
        let document: Document = serde_json::from_slice(bytes).map_err(|source| VexError::Form {
            path: path.to_owned(),
            source,
        })?;
        let found: BTreeSet<(String, String)> = match (document.matches, document.results) {
            (Some(matches), _) => matches
                .into_iter()
                .map(|found| (found.vulnerability.id, found.artifact.purl))
                .collect(),
            (None, Some(results)) => results
                .into_iter()
                .flat_map(|target| target.vulnerabilities)
                .map(|found| (found.id, found.pkg_identifier.purl))
                .collect(),
            (None, None) => return Err(VexError::Unknown(path.to_owned())),
        };
        Ok(Self(found))
    }
}

/// What makes two package URLs one package: type, namespace, name, version. Scanners differ in qualifiers.
fn identity(purl: &str) -> Option<(String, String, String, String)> {
    let purl: PackageUrl<'_> = purl.parse().ok()?;
    let version = purl.version()?;
    // Some write a Debian epoch as a part of the version, some beside it.
    let epoch = purl
        .qualifiers()
        .get("epoch")
        .filter(|epoch| *epoch != "0" && !version.contains(':'));
    Some((
        purl.ty().to_owned(),
        purl.namespace().unwrap_or_default().to_owned(),
        purl.name().to_owned(),
        epoch.map_or_else(|| version.to_owned(), |epoch| format!("{epoch}:{version}")),
    ))
}

/// The package URL of an image as one view shows it.
fn product(report: &Report) -> Option<(String, Digest, Digest)> {
    let (manifest, view) = (report.manifest?, report.view?);
    let name = report.name.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    let repository = match last.split_once(':') {
        Some((_, tag)) => name.get(..name.len() - tag.len() - 1).unwrap_or(name),
        None => name,
    };
    let mut purl = PackageUrl::new(
        "oci",
        repository.rsplit('/').next().unwrap_or(repository).to_lowercase(),
    )
    .ok()?;
    purl.with_version(manifest.to_string()).ok()?;
    purl.add_qualifier("repository_url", repository.to_lowercase()).ok()?;
    purl.add_qualifier("view", view.to_string()).ok()?;
    Some((purl.to_string(), manifest, view))
}

/// The document, and a sentence about what no statement was made about.
pub(super) fn document(report: &Report, scan: &Scan) -> Result<(String, String), VexError> {
    let (product, manifest, view) = product(report).ok_or(VexError::NoProduct)?;
    let hidden: BTreeMap<_, &str> = report
        .unreachable
        .iter()
        .filter_map(|package| Some((identity(&package.purl)?, package.purl.as_str())))
        .collect();
    let mut concerned: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut left_out = 0;
    for (vulnerability, purl) in &scan.0 {
        match identity(purl).and_then(|identity| hidden.get(&identity)) {
            Some(_) => {
                // As the scanner writes it, so that it recognises its own.
                concerned.entry(vulnerability).or_default().insert(purl);
            }
            None => left_out += 1,
        }
    }
    if concerned.is_empty() {
        return Err(VexError::Nothing(count(scan.0.len(), "finding")));
    }
    let impact = format!(
        "No file of this package is visible in a container that Assay runs through view {view} of image {manifest}. \
         The image itself contains the code: elsewhere this statement does not hold."
    );
    let statements: Vec<_> = concerned
        .iter()
        .map(|(vulnerability, packages)| {
            json!({
                "vulnerability": { "name": vulnerability },
                // No hash of the image beside it: that would match the image without the view.
                "products": [{
                    "@id": product,
                    "subcomponents": packages.iter().map(|purl| json!({ "@id": purl })).collect::<Vec<_>>(),
                }],
                "status": "not_affected",
                "justification": "inline_mitigations_already_exist",
                "impact_statement": impact,
            })
        })
        .collect();
    let content = serde_json::to_vec(&(&product, &statements)).unwrap_or_default();
    let document = json!({
        "@context": "https://openvex.dev/ns/v0.2.0",
        // The same statements have the same name.
        "@id": format!("urn:assay:openvex:{}", Digest::of(&content).hex()),
        "author": "Assay",
        "role": "Runtime enforcement",
        "timestamp": report.time,
        "version": 1,
        "tooling": concat!("assay ", env!("CARGO_PKG_VERSION")),
        "statements": statements,
    });
    let left = format!(
        "{} of the scan without a statement: their packages have visible files, or are not known in the image",
        count(left_out, "finding")
    );
    Ok((crate::diagnostic::json(&document).unwrap_or_default(), left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Package;

    const GRYPE: &str = r#"{"matches":[
        {"vulnerability":{"id":"CVE-2024-0001"},"artifact":{"purl":"pkg:deb/debian/perl@5.36.0-7?arch=amd64&distro=debian-12"}},
        {"vulnerability":{"id":"CVE-2024-0002"},"artifact":{"purl":"pkg:deb/debian/libc6@2.36-9?arch=amd64"}}]}"#;
    const TRIVY: &str = r#"{"Results":[{"Target":"x"},{"Vulnerabilities":[
        {"VulnerabilityID":"CVE-2024-0001","PkgIdentifier":{"PURL":"pkg:deb/debian/perl@5.36.0-7?distro=debian-12.5"}}]}]}"#;

    fn report(unreachable: &[&str]) -> Report {
        Report {
            name: "registry.example:5000/team/App:1.2".to_owned(),
            time: "2026-01-02T03:04:05Z".to_owned(),
            manifest: Some(Digest::of(b"manifest")),
            config: None,
            view: Some(Digest::of(b"view")),
            code: String::new(),
            allowed: true,
            rule: None,
            enforced: true,
            sbom: None,
            figures: Vec::new(),
            unreachable: unreachable
                .iter()
                .map(|purl| Package {
                    name: String::new(),
                    version: String::new(),
                    purl: (*purl).to_owned(),
                    listed: Some(true),
                    files: (3, 0),
                })
                .collect(),
            unattested: Vec::new(),
            unfollowed: Vec::new(),
            calls: None,
            findings: Vec::new(),
        }
    }

    #[test]
    fn only_what_is_hidden_whole_gets_a_statement_and_only_for_this_view() {
        let report = report(&["pkg:deb/debian/perl@5.36.0-7?arch=amd64"]);
        let scan = Scan::parse(GRYPE.as_bytes(), "scan").unwrap();
        let (document, left) = document(&report, &scan).unwrap();
        assert!(left.starts_with("1 finding "), "{left}");
        insta::assert_snapshot!(document);
        let scan = Scan::parse(TRIVY.as_bytes(), "scan").unwrap();
        assert!(super::document(&report, &scan).is_ok());
    }

    #[test]
    fn an_epoch_is_the_same_wherever_it_is_written() {
        let within = identity("pkg:deb/debian/libcrypt1@1%3A4.4.33-2?arch=amd64");
        assert_eq!(within, identity("pkg:deb/debian/libcrypt1@4.4.33-2?arch=amd64&epoch=1"));
        assert_ne!(within, identity("pkg:deb/debian/libcrypt1@4.4.33-2?arch=amd64"));
        assert_eq!(identity("pkg:deb/debian/libcrypt1"), None);
    }

    #[test]
    fn without_anything_to_state_there_is_no_document() {
        let scan = Scan::parse(GRYPE.as_bytes(), "scan").unwrap();
        // Another version is another package.
        let other = report(&["pkg:deb/debian/perl@5.36.0-8?arch=amd64"]);
        insta::assert_snapshot!(document(&other, &scan).unwrap_err().to_string(), @"no statement can be made: none of the 2 findings concerns a package that the view hides as a whole");
        assert!(Scan::parse(b"{}", "scan").is_err());
        assert!(Scan::parse(b"[]", "scan").is_err());
        let mut nameless = report(&[]);
        nameless.view = None;
        assert!(matches!(document(&nameless, &scan), Err(VexError::NoProduct)));
    }
}
