//! The report for a terminal.

use super::Report;
use super::figures::{self, Figure, Unit};
use crate::cli::columns;
use crate::diagnostic::printable;

/// Most lines of one list; JSON and HTML have more.
const MAX_LINES: usize = 12;
/// Figures whose lists are too long for a terminal.
const LONG: &[&str] = &["files", "bytes", "packages", "executables"];

pub(super) fn text(report: &Report) -> String {
    let mut parts = vec![head(report), numbers(report)];
    for figure in report
        .figures
        .iter()
        .filter(|figure| !LONG.contains(&figure.name.as_str()))
    {
        parts.extend(lists(figure));
    }
    let unreachable = report.unreachable.iter().map(figures::title).collect::<Vec<_>>();
    let packages = format!("packages {} of which no file is visible", source(report));
    parts.extend(list(&packages, &unreachable));
    if let Some(calls) = &report.calls {
        parts.push(calls.sentence());
        parts.extend(list(
            "system calls that the default allows and it does not",
            &calls.refused,
        ));
        parts.extend(list(
            "security-sensitive system calls that it can make",
            &calls.sensitive,
        ));
        let cves: Vec<String> = calls.cves.iter().map(|cve| cve.line()).collect();
        let title = format!(
            "kernel vulnerabilities that the default leaves in reach and it does not, as known on {}",
            calls.cves_as_of
        );
        parts.extend(list(&title, &cves));
    }
    parts.extend(list("needed executables that no package owns", &report.unattested));
    parts.extend(list("could not be followed", &report.unfollowed));
    parts.extend(list("findings", &report.findings));
    parts.join("\n\n")
}

/// Where the packages are from.
pub(super) fn source(report: &Report) -> &'static str {
    match report.sbom {
        Some(_) => "of the attested SBOM",
        None => "of the package databases in the image",
    }
}

/// Under which rule, in a sentence.
pub(super) fn standing(report: &Report) -> String {
    let verdict = if report.allowed { "allowed" } else { "refused" };
    let rule = report
        .rule
        .as_ref()
        .map_or_else(String::new, |rule| format!(" by rule \"{rule}\""));
    let view = if report.enforced {
        "through this view"
    } else {
        "without a view: the numbers say what one would show"
    };
    match report.allowed {
        true => format!("a container of it would be {verdict}{rule} ({}), {view}", report.code),
        false => format!("a container of it would be {verdict}{rule} ({})", report.code),
    }
}

fn head(report: &Report) -> String {
    let mut lines = vec![printable(&report.name).into_owned()];
    let mut field = |name: &str, digest: &Option<crate::digest::Digest>| {
        if let Some(digest) = digest {
            lines.push(format!("  {name:<14} {digest}"));
        }
    };
    field("manifest", &report.manifest);
    field("configuration", &report.config);
    field("view", &report.view);
    field("SBOM", &report.sbom);
    lines.push(format!("  {}", printable(&standing(report))));
    lines.join("\n")
}

fn numbers(report: &Report) -> String {
    let mut table = columns(&["", "IMAGE", "VISIBLE", "HIDDEN"]);
    for figure in &report.figures {
        let share = figure
            .percent()
            .map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"));
        table.add_row([
            figure.name.clone(),
            amount(figure, figure.image),
            amount(figure, figure.visible),
            share,
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    table.trim_fmt()
}

/// A number with its unit.
pub(super) fn amount(figure: &Figure, number: u64) -> String {
    match figure.unit {
        Unit::Count => number.to_string(),
        Unit::Bytes if number < 10 << 20 => format!("{} KiB", number >> 10),
        Unit::Bytes => format!("{} MiB", number >> 20),
    }
}

fn lists(figure: &Figure) -> Option<String> {
    let hidden = list(&format!("{}, hidden", figure.name), &figure.hidden);
    let shown = list(&format!("{}, visible", figure.name), &figure.shown);
    match (shown, hidden) {
        (Some(shown), Some(hidden)) => Some(format!("{shown}\n{hidden}")),
        (shown, hidden) => shown.or(hidden),
    }
}

fn list(title: &str, entries: &[String]) -> Option<String> {
    if entries.is_empty() {
        return None;
    }
    let mut lines = vec![format!("{title}: {}", entries.len())];
    lines.extend(
        entries
            .iter()
            .take(MAX_LINES)
            .map(|entry| format!("  {}", printable(entry))),
    );
    if let Some(more) = entries.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
        lines.push(format!("  and {more} more"));
    }
    Some(lines.join("\n"))
}
