//! Pages for a browser, whole in one file: they load nothing, and run nothing but what is named here.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::diagnostic::printable;
use crate::digest::Digest;

const STYLE: &str = include_str!("page.css");

/// The beginning of a page, up to its body. `script` is the only one that can run in it.
pub(super) fn begin(title: &str, script: Option<&str>) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    // Nothing that a path in an image says can make the page load or run anything.
    let allowed = script.map_or_else(String::new, |script| {
        let digest = hex::decode(Digest::of(script.as_bytes()).hex()).unwrap_or_default();
        format!("; script-src 'sha256-{}'", STANDARD.encode(digest))
    });
    put(
        &mut page,
        format_args!(
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'{allowed}\">\n"
        ),
    );
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    let title = escaped(title);
    put(
        &mut page,
        format_args!("<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"),
    );
    page
}

/// Appends to a page.
pub(super) fn put(page: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = page.write_fmt(text);
}

/// A text from an image, as text.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
