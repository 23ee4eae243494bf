//! The report as one page for a browser: it loads nothing and runs nothing.

use super::Report;
use super::figures::{self, Figure, Unit};
use super::text::{amount, source, standing};
use crate::cli::page::{self, escaped, put};
use crate::digest::Digest;

/// Most entries of one list; JSON has all.
const MAX_ENTRIES: usize = 5000;
/// Figures at the top of the page.
const HEADLINES: &[&str] = &["executables", "set-uid and set-gid", "shells", "bytes"];
/// Layout of the chart, in its own units: height of a row, where its bar begins, how long a whole one is.
const ROW: usize = 34;
const BAR: usize = 190;
const LENGTH: u64 = 500;

pub(super) fn page(report: &Report) -> String {
    let name = escaped(&report.name);
    let mut page = page::begin(&format!("{}: image against view", report.name), None);
    head(&mut page, report, &name);
    chart(&mut page, &report.figures);
    page.push_str("<h2>What is behind the numbers</h2>\n");
    for figure in report.figures.iter().filter(|figure| figure.unit == Unit::Count) {
        entries(
            &mut page,
            &format!("{}, visible", figure.name),
            &figure.meaning,
            &figure.shown,
        );
        entries(
            &mut page,
            &format!("{}, hidden", figure.name),
            &figure.meaning,
            &figure.hidden,
        );
    }
    let unreachable: Vec<String> = report.unreachable.iter().map(figures::title).collect();
    page.push_str("<h2>Packages that can no longer be reached</h2>\n");
    entries(
        &mut page,
        "packages",
        &format!("{}, no file of which is visible", source(report)),
        &unreachable,
    );
    if let Some(calls) = &report.calls {
        page.push_str("<h2>System calls</h2>\n");
        put(&mut page, format_args!("<p>{}</p>\n", escaped(&calls.sentence())));
        let meaning = "containerd's default profile allows them, its own does not";
        entries(&mut page, "refused", meaning, &calls.refused);
        entries(
            &mut page,
            "sensitive",
            "what attacks are made of, allowed",
            &calls.sensitive,
        );
        let cves: Vec<String> = calls.cves.iter().map(|cve| cve.line()).collect();
        let meaning = format!(
            "it refuses every call that leads there and containerd's default profile does not, as known on {}",
            calls.cves_as_of
        );
        entries(&mut page, "kernel vulnerabilities out of reach", &meaning, &cves);
    }
    let remarks = [
        (
            "unattested",
            "needed executables that no package owns",
            &report.unattested,
        ),
        (
            "not followed",
            "what it needs is not known, so every program of attested packages stays",
            &report.unfollowed,
        ),
        ("findings", "what is wrong with the image", &report.findings),
    ];
    if remarks.iter().any(|(.., list)| !list.is_empty()) {
        page.push_str("<h2>Remarks</h2>\n");
    }
    for (title, meaning, list) in remarks {
        entries(&mut page, title, meaning, list);
    }
    page.push_str("</body>\n</html>");
    page
}

fn head(page: &mut String, report: &Report, name: &str) {
    put(
        page,
        format_args!(
            "<h1>{name}</h1>\n<p class=\"soft\">{}</p>\n<dl>",
            escaped(&standing(report))
        ),
    );
    let digests = [
        ("manifest", report.manifest),
        ("configuration", report.config),
        ("view", report.view),
        ("SBOM", report.sbom),
    ];
    let fields = digests
        .into_iter()
        .filter_map(|(field, digest): (_, Option<Digest>)| Some((field, digest?.to_string())));
    for (field, value) in fields.chain([("time", report.time.clone())]) {
        put(page, format_args!("<dt>{field}</dt><dd>{}</dd>", escaped(&value)));
    }
    page.push_str("</dl>\n<div class=\"cards\">");
    for figure in report
        .figures
        .iter()
        .filter(|figure| HEADLINES.contains(&figure.name.as_str()))
    {
        let share = figure
            .percent()
            .map_or_else(|| "none".to_owned(), |percent| format!("{percent} %"));
        put(
            page,
            format_args!(
                "<div class=\"card\"><b>{share}</b>{} hidden<br><span class=\"soft\">{} of {} visible</span></div>",
                escaped(&figure.name),
                amount(figure, figure.visible),
                amount(figure, figure.image),
            ),
        );
    }
    page.push_str("</div>\n");
}

/// A bar for each figure: what is visible, of the whole.
fn chart(page: &mut String, figures: &[Figure]) {
    page.push_str(
        "<h2>Image against view</h2>\n<p class=\"soft\"><svg class=\"key\" viewBox=\"0 0 1 1\"><rect class=\"seen\" width=\"1\" height=\"1\"/></svg>visible \
         <svg class=\"key\" viewBox=\"0 0 1 1\"><rect class=\"gone\" width=\"1\" height=\"1\"/></svg>hidden</p>\n",
    );
    let height = figures.len() * ROW;
    put(
        page,
        format_args!(
            "<svg viewBox=\"0 0 920 {height}\" role=\"img\" aria-label=\"visible and hidden parts of the image\">"
        ),
    );
    for (number, figure) in figures.iter().enumerate() {
        let top = number * ROW;
        let text = top + 20;
        put(
            page,
            format_args!("<text x=\"0\" y=\"{text}\">{}</text>", escaped(&figure.name)),
        );
        if let Some(seen) = (figure.visible * LENGTH).checked_div(figure.image) {
            // What is there is seen, however small its part.
            let seen = if figure.visible > 0 { seen.max(2) } else { 0 };
            let bar = top + 6;
            put(
                page,
                format_args!(
                    "<rect class=\"gone\" x=\"{BAR}\" y=\"{bar}\" width=\"{LENGTH}\" height=\"20\" rx=\"3\"/>\
                     <rect class=\"seen\" x=\"{BAR}\" y=\"{bar}\" width=\"{seen}\" height=\"20\" rx=\"3\"/>"
                ),
            );
        }
        let label = BAR as u64 + LENGTH + 12;
        let numbers = match figure.image {
            0 => "none in the image".to_owned(),
            _ => format!(
                "{} of {} visible",
                amount(figure, figure.visible),
                amount(figure, figure.image)
            ),
        };
        put(
            page,
            format_args!("<text class=\"soft\" x=\"{label}\" y=\"{text}\">{numbers}</text>"),
        );
    }
    page.push_str("</svg>\n");
}

fn entries(page: &mut String, title: &str, meaning: &str, list: &[String]) {
    if list.is_empty() {
        return;
    }
    put(
        page,
        format_args!(
            "<details><summary><b>{}</b>: {} <span class=\"soft\">{}</span></summary><ul>",
            escaped(title),
            list.len(),
            escaped(meaning)
        ),
    );
    for entry in list.iter().take(MAX_ENTRIES) {
        put(page, format_args!("<li>{}</li>", escaped(entry)));
    }
    page.push_str("</ul>");
    if let Some(more) = list.len().checked_sub(MAX_ENTRIES).filter(|more| *more > 0) {
        put(
            page,
            format_args!("<p class=\"soft\">and {more} more: assay report --output json lists them</p>"),
        );
    }
    page.push_str("</details>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_in_an_image_is_more_than_text() {
        assert_eq!(
            escaped("/<img src=x onerror='a()'>&\"\u{202e}\n"),
            "/&lt;img src=x onerror=&#39;a()&#39;&gt;&amp;&quot;\\u{202e}\\u{a}"
        );
        let hostile = "</li></ul><script>alert(1)</script>".to_owned();
        let figure = Figure {
            name: "shells".to_owned(),
            meaning: String::new(),
            unit: Unit::Count,
            image: 1,
            visible: 0,
            shown: Vec::new(),
            hidden: vec![hostile.clone()],
        };
        let report = Report {
            name: hostile.clone(),
            time: String::new(),
            manifest: None,
            config: None,
            view: None,
            code: hostile.clone(),
            allowed: false,
            rule: Some(hostile.clone()),
            enforced: false,
            sbom: None,
            figures: vec![figure],
            unreachable: Vec::new(),
            unattested: vec![hostile.clone()],
            unfollowed: vec![hostile.clone()],
            findings: vec![hostile],
            calls: None,
        };
        let page = page(&report);
        assert!(
            !page.contains("<script") && page.matches("&lt;script&gt;").count() >= 6,
            "{page}"
        );
        // Nothing is loaded from anywhere.
        assert!(
            !page.contains("http:") && !page.contains("https:") && !page.contains("url("),
            "{page}"
        );
    }
}
