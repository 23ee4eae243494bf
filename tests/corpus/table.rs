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
        "calls allowed",
        "traced",
        "missed",
        "F1",
        "ready stock ms",
        "ready assay ms",
    ]);
    for row in rows {
        table.add_row(cells(row));
    }
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
    let traced = row.traced.as_ref();
    cells.push(count(allowed.map(BTreeSet::len)));
    cells.push(count(traced.map(BTreeSet::len)));
    match (allowed, traced) {
        (Some(allowed), Some(traced)) => {
            let missed: Vec<_> = traced.difference(allowed).map(String::as_str).collect();
            cells.push(if missed.is_empty() {
                "0".to_owned()
            } else {
                missed.join(" ")
            });
            cells.push(f1(allowed, traced));
        }
        _ => cells.extend(["-".to_owned(), "-".to_owned()]),
    }
    for ran in [&row.stock, &row.assay] {
        cells.push(count(ran.as_ref().map(|ran| ran.ready.as_millis())));
    }
    cells
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

/// Harmonic mean of precision and recall, in hundredths.
fn f1(allowed: &BTreeSet<String>, traced: &BTreeSet<String>) -> String {
    let both = allowed.intersection(traced).count();
    let all = allowed.len() + traced.len();
    let hundredths = (200 * both).checked_div(all).unwrap_or(0);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}
