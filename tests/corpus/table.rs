//! What was found, an image a line.

use std::collections::BTreeSet;

use comfy_table::{Table, presets};

use crate::run::Ran;
use crate::surface::Surface;

/// What was found about one image.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub stock: Option<Ran>,
    pub assay: Option<Ran>,
    /// System calls seen under the stock runtime.
    pub traced: Option<BTreeSet<String>>,
    /// The first thing that went wrong.
    pub failure: Option<String>,
}

impl Row {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            stock: None,
            assay: None,
            traced: None,
            failure: None,
        }
    }

    /// Notes what went wrong and shows it at once.
    pub fn fails(&mut self, step: &str, reason: &str) {
        println!(" FAILED ({step})\n{reason}");
        self.failure.get_or_insert_with(|| {
            let first = reason.lines().next().unwrap_or_default();
            format!("{step}: {first}")
        });
    }

    pub fn failed(&self) -> bool {
        self.failure.is_some()
    }
}

/// The table, in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "image",
        "stock",
        "assay",
        "files",
        "hidden",
        "MB",
        "hidden",
        "executables",
        "hidden",
        "set-uid",
        "hidden",
        "derived",
        "runtime",
        "siblings",
        "allowed",
        "traced",
        "missed",
        "precision",
        "F1",
        "decided ms",
        "analysed ms",
        "ready stock ms",
        "ready assay ms",
    ]);
    let rows: Vec<_> = rows.iter().map(cells).collect();
    let medians = rows
        .first()
        .map(|first| (0..first.len()).map(|column| median(&rows, column)));
    let medians: Vec<_> = medians.into_iter().flatten().collect();
    table.add_rows(rows).add_row(medians);
    table.to_string()
}

fn cells(row: &Row) -> Vec<String> {
    let mut cells = vec![row.name.clone(), word(row.stock.as_ref()), word(row.assay.as_ref())];
    let whole = row.stock.as_ref().map(|ran| ran.surface);
    let left = row.assay.as_ref().map(|ran| ran.surface);
    let measures: [fn(&Surface) -> u64; 4] = [|s| s.files, |s| s.bytes, |s| s.executables, |s| s.set_user];
    for (place, measure) in measures.into_iter().enumerate() {
        let whole = whole.as_ref().map(measure);
        cells.push(match whole {
            Some(bytes) if place == 1 => bytes.div_ceil(1_000_000).to_string(),
            Some(count) => count.to_string(),
            None => "-".to_owned(),
        });
        cells.push(match (whole, left.as_ref().map(measure)) {
            (Some(whole), Some(left)) if whole > 0 => percent(whole.saturating_sub(left), whole),
            _ => "-".to_owned(),
        });
    }
    let allowed = row.assay.as_ref().and_then(|ran| ran.allowed.as_ref());
    let told = row.assay.as_ref().and_then(|ran| ran.told.as_ref());
    let calls = told.and_then(|told| told.calls.as_ref());
    for place in 0..3 {
        cells.push(count(calls.map(|calls| calls[place].len())));
    }
    let traced = row.traced.as_ref();
    cells.push(count(allowed.map(BTreeSet::len)));
    cells.push(count(traced.map(BTreeSet::len)));
    cells.push(match (allowed, traced) {
        (Some(allowed), Some(traced)) if traced.is_subset(allowed) => "0".to_owned(),
        (Some(allowed), Some(traced)) => {
            let missed: Vec<_> = traced.difference(allowed).map(String::as_str).collect();
            missed.join(" ")
        }
        _ => "-".to_owned(),
    });
    match (calls, traced) {
        (Some([derived, ..]), Some(traced)) => {
            let both = derived.intersection(traced).count();
            cells.push(hundredths(both, derived.len()));
            cells.push(hundredths(2 * both, derived.len() + traced.len()));
        }
        _ => cells.extend(["-".to_owned(), "-".to_owned()]),
    }
    cells.push(count(told.map(|told| told.decided)));
    cells.push(count(told.map(|told| told.analysed)));
    for ran in [&row.stock, &row.assay] {
        cells.push(count(ran.as_ref().map(|ran| ran.ready.as_millis())));
    }
    cells
}

/// The middle one of a column of ratios; the first column says so, and others have none.
fn median(rows: &[Vec<String>], column: usize) -> String {
    if column == 0 {
        return "median".to_owned();
    }
    let cells = rows.iter().map(|row| row[column].as_str());
    let is_ratio = cells.clone().any(|cell| cell.contains('.'));
    let mut ratios: Vec<(f64, &str)> = cells
        .filter_map(|cell| Some((cell.trim_end_matches(" %").parse().ok()?, cell)))
        .collect();
    ratios.sort_by(|one, other| one.0.total_cmp(&other.0));
    match ratios.get(ratios.len() / 2) {
        Some((_, cell)) if is_ratio => (*cell).to_owned(),
        _ => String::new(),
    }
}

fn word(ran: Option<&Ran>) -> String {
    if ran.is_some() { "ok" } else { "-" }.to_owned()
}

fn count<N: ToString>(count: Option<N>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Tenths of a percent, rounded down: a hundred means all.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = part.saturating_mul(1000) / whole;
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// A ratio with two digits behind the point, rounded down.
fn hundredths(part: usize, whole: usize) -> String {
    let hundredths = (100 * part).checked_div(whole).unwrap_or(0);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
