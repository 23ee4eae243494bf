//! `[[tune]]` of `seccomp.d`.

use std::sync::Arc;

use jiff::Timestamp;
use toml::Spanned;

use super::super::{Tuning, diags};
use super::confine::calls;
use super::{parse_digests, parse_patterns};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Diagnostic, Place, Source, printable};
use crate::trust::diags::invalid_time;

const TOP_KEYS: &[&str] = &["tune"];
const TUNE_KEYS: &[&str] = &["image", "digest", "allow", "deny", "reason", "owner", "expires"];

/// Longest reason and longest owner, in characters.
const MAX_TEXT: usize = 500;

/// Reads a file: each tuning with the place of its `expires`. What it says is incomplete where a diagnostic is an error.
pub(in crate::policy) fn parse(source: &Arc<Source>) -> (Vec<(Tuning, Place)>, Vec<Diagnostic>) {
    let (mut reader, mut top) = match Reader::new(source, "a file of tunings") {
        Ok(read) => read,
        Err(faults) => return (Vec::new(), faults),
    };
    let mut tunings = Vec::new();
    for mut table in reader.tables(&mut top, "tune", "[[tune]]") {
        if table.is_empty() {
            diags::empty_table(
                &mut reader,
                &table,
                "[[tune]]",
                "write the tuning, or remove its header",
            );
            continue;
        }
        tunings.extend(tuning(&mut reader, &mut table, source));
        reader.finish(&table, TUNE_KEYS, &[]);
    }
    reader.finish(&top, TOP_KEYS, &[]);
    (tunings, reader.into_faults())
}

fn tuning(reader: &mut Reader<'_>, table: &mut Table<'_>, source: &Source) -> Option<(Tuning, Place)> {
    if !table.has("image") && !table.has("digest") {
        diags::tunes_nothing(reader, table, "image or digest");
    }
    if !table.has("allow") && !table.has("deny") {
        diags::tunes_nothing(reader, table, "allow or deny");
    }
    let file = source.path.file_name().unwrap_or_default().to_string_lossy();
    let (line, _) = reader.at(table.span()).line_column();
    let at = format!("{}:{line}", printable(&file));
    let image = parse_patterns(reader, table, "image");
    let digest = parse_digests(reader, table, "digest");
    let allow = calls(reader, table, "allow", &[]);
    let deny = calls(reader, table, "deny", &allow);
    let reason = words(reader, table, "reason");
    let owner = words(reader, table, "owner");
    let expires = reader.required_text(table, "expires")?;
    let Ok(time) = expires.get_ref().parse::<Timestamp>() else {
        invalid_time(reader, "expires", &expires);
        return None;
    };
    let tuning = Tuning {
        source: at,
        image,
        digest,
        allow,
        deny,
        reason: reason?,
        owner: owner?,
        expires: time,
    };
    Some((tuning, reader.at(expires.span())))
}

/// Words that are shown to people.
fn words(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Option<String> {
    let text = reader.required_text(table, key)?;
    let is_sound = text.get_ref().chars().count() <= MAX_TEXT && printable(text.get_ref()) == text.get_ref().as_str();
    if !is_sound {
        diags::invalid_words(reader, key, &text, MAX_TEXT);
    }
    is_sound.then(|| Spanned::into_inner(text))
}
