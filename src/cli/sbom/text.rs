//! The answer of `assay sbom` for people.

use super::report::{Listing, Report};
use crate::cli::{columns, count};
use crate::diagnostic::printable;
use crate::packages::{Ecosystem, Tally, Verdict};

/// Most lines of a list of files; JSON has more.
const MAX_LINES: usize = 20;

pub(super) fn text(report: &Report) -> String {
    let mut parts = vec![head(report), packages(report), coverage(report)];
    for (title, listing) in [
        ("executables that no package owns", &report.unattested_executables),
        (
            "executables of packages that the SBOM lacks or has otherwise",
            &report.attributed_executables,
        ),
        ("files that are not what their package installed", &report.altered),
    ] {
        parts.extend(list(title, listing));
    }
    if let Some(sbom) = &report.sbom {
        parts.extend(list(
            "packages of the SBOM that no database in the image knows",
            &sbom.not_installed,
        ));
    }
    if !report.findings.is_empty() {
        let findings = report.findings.iter().take(MAX_LINES);
        let mut lines: Vec<String> = findings
            .map(|finding| {
                let (path, text) = (printable(&finding.path), printable(&finding.text));
                match finding.path.as_str() {
                    "" => format!("  {}: {text}", finding.code),
                    _ => format!("  {}: {path}: {text}", finding.code),
                }
            })
            .collect();
        let all = report.findings.len() + report.omitted;
        lines.insert(0, format!("{}:", count(all, "finding")));
        parts.push(lines.join("\n"));
    }
    parts.join("\n\n")
}

fn head(report: &Report) -> String {
    let mut lines = vec![printable(&report.name).into_owned()];
    if let Some(manifest) = &report.manifest {
        lines.push(format!("  manifest      {}", printable(manifest)));
    }
    if let Some(distribution) = &report.distribution {
        let shown = format!("{} {}", distribution.id, distribution.version);
        lines.push(format!("  distribution  {}", printable(shown.trim_end())));
    }
    lines.push(format!("  packages      {}", printable(&report.source)));
    if let Some(sbom) = &report.sbom {
        lines.push(format!(
            "  SBOM          {} {}, {}, {}",
            sbom.format,
            printable(sbom.version.trim_start_matches("SPDX-")),
            count(sbom.packages, "package"),
            count(sbom.files, "file"),
        ));
    }
    lines.join("\n")
}

fn packages(report: &Report) -> String {
    let mut table = columns(&["PACKAGE", "VERSION", "KIND", "FILES", "STANDING"]);
    for package in &report.packages {
        let standing = match &package.verdict {
            Verdict::Attested => "attested".to_owned(),
            Verdict::Missing => "not in the SBOM".to_owned(),
            Verdict::Drift(listed) => format!("the SBOM has {}", printable(&listed.join(", "))),
            Verdict::Database => "from the package database".to_owned(),
        };
        table.add_row([
            printable(&package.name).into_owned(),
            printable(&package.version).into_owned(),
            kind(package.ecosystem).to_owned(),
            package.files.len().to_string(),
            standing,
        ]);
    }
    table.trim_fmt()
}

fn kind(ecosystem: Ecosystem) -> &'static str {
    match ecosystem {
        Ecosystem::Dpkg => "deb",
        Ecosystem::Apk => "apk",
        Ecosystem::Rpm => "rpm",
        Ecosystem::Python => "python",
        Ecosystem::Npm => "npm",
        Ecosystem::Gem => "gem",
        Ecosystem::Go => "go",
        Ecosystem::Cargo => "cargo",
        Ecosystem::Java => "java",
    }
}

fn coverage(report: &Report) -> String {
    let mut table = columns(&["", "ALL", "ATTESTED", "ATTRIBUTED", "DATABASE", "UNATTESTED"]);
    for (name, tally) in [
        ("files", report.coverage.files),
        ("executables", report.coverage.executables),
        ("links", report.coverage.links),
    ] {
        let Tally {
            attested,
            attributed,
            database,
            unattested,
        } = tally;
        let mut row = vec![name.to_owned()];
        row.extend([tally.total(), attested, attributed, database, unattested].map(|number| number.to_string()));
        table.add_row(row);
    }
    table.trim_fmt()
}

fn list(title: &str, listing: &Listing) -> Option<String> {
    if listing.count == 0 {
        return None;
    }
    let mut lines = vec![format!("{title}: {}", listing.count)];
    let shown = listing.first.iter().take(MAX_LINES);
    lines.extend(shown.map(|name| format!("  {}", printable(name))));
    if let Some(more) = listing.count.checked_sub(MAX_LINES).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    Some(lines.join("\n"))
}
