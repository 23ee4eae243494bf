//! The operator's command line: one file per command. A command does its work in another room and says here what
//! came of it; results go to standard output, everything else to standard error.

pub mod admit;
pub mod agent;
pub mod configure;
pub mod decisions;
pub mod doctor;
pub mod evidence;
pub mod explain;
pub mod generate;
pub mod grant;
pub mod image_verifier;
pub mod node;
mod page;
pub mod policy;
pub mod prepare;
pub mod report;
pub mod rollout;
pub mod sbom;
pub mod seccomp;
pub mod trust;
pub mod verify;
pub mod verify_bundle;
pub mod view;
pub mod watch;

use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::process::{ExitCode, Termination};

use clap::ValueEnum;
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;

use crate::diagnostic::{Diagnostic, Severity, inert};

/// How a command ended. The numbers are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// The command found what it looks for, or could not do what was asked.
    Failed = 1,
    /// The arguments are wrong.
    Usage = 2,
    /// Policy refuses the image.
    Denied = 3,
    /// Policy asks for evidence that is not there.
    EvidenceMissing = 4,
    /// A signature is there and does not hold.
    SignatureInvalid = 5,
    /// This machine or its containerd is not supported.
    Unsupported = 6,
    /// What the command was to look at does not exist.
    NotFound = 7,
    /// Files of Assay's own state are damaged.
    Corrupt = 8,
    /// A fault in Assay.
    Internal = 70,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}

/// What results are written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON document.
    Json,
}

/// Writes a result. A reader that went away (`assay … | head`) is no fault.
pub fn print(text: impl fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes a message for the person at the terminal.
pub fn complain(text: impl fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// `1 rule`, `2 rules`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A table without lines, whose cells are as wide as they need to be.
fn columns(header: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(comfy_table::ContentArrangement::Disabled)
        .set_header(header);
    table
}

/// Writes diagnostics: drawn on a terminal, as plain text elsewhere.
pub fn show(diagnostics: &[Diagnostic]) {
    let terminal = std::io::stderr().is_terminal();
    let color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    for diagnostic in diagnostics {
        if terminal {
            complain(draw(diagnostic, color));
        } else {
            complain(format_args!("{diagnostic}\n"));
        }
    }
}

/// A diagnostic as miette draws it.
#[derive(Debug)]
struct Drawing<'a> {
    diagnostic: &'a Diagnostic,
    source: Option<NamedSource<String>>,
}

impl fmt::Display for Drawing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Drawing<'_> {}

impl miette::Diagnostic for Drawing<'_> {
    fn code(&self) -> Option<Box<dyn fmt::Display + '_>> {
        Some(Box::new(self.diagnostic.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        (!self.diagnostic.help.is_empty()).then(|| Box::new(&self.diagnostic.help) as _)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.diagnostic.place.as_ref()?;
        let label = (!self.diagnostic.label.is_empty()).then(|| self.diagnostic.label.clone());
        let length = place.span.end.saturating_sub(place.span.start);
        let label = LabeledSpan::new(label, place.span.start, length);
        Some(Box::new(std::iter::once(label)))
    }
}

fn draw(diagnostic: &Diagnostic, color: bool) -> String {
    let source = diagnostic.place.as_ref().map(|place| {
        let path = place.source.path.display().to_string();
        NamedSource::new(crate::diagnostic::printable(&path), inert(&place.source.text))
    });
    let theme = if color {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(100)
        .with_links(false);
    let mut drawn = String::new();
    match handler.render_report(&mut drawn, &Drawing { diagnostic, source }) {
        Ok(()) => drawn,
        Err(fmt::Error) => diagnostic.to_string(),
    }
}

/// A diagnostic for programs.
#[derive(Debug, Serialize)]
struct Record<'a> {
    code: &'a str,
    severity: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    label: &'a str,
    help: &'a str,
}

impl<'a> Record<'a> {
    fn new(diagnostic: &'a Diagnostic) -> Self {
        let place = diagnostic.place.as_ref();
        let position = place.map(crate::diagnostic::Place::line_column);
        Self {
            code: diagnostic.code.as_str(),
            severity: match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            message: &diagnostic.message,
            file: place.map(|place| place.source.path.display().to_string()),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            label: &diagnostic.label,
            help: &diagnostic.help,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::{Code, Source};

    fn sample(text: &str) -> Diagnostic {
        let source = Arc::new(Source {
            path: "/etc/assay/policy.d/50-prod.toml".into(),
            text: text.to_owned(),
        });
        let start = text.find("imgae").unwrap();
        Diagnostic::error(
            Code::UnknownKey,
            source.at(start..start + 5),
            "`match` has no key `imgae`".to_owned(),
            "not a key of it",
            "its keys are `image` and `namespace`",
        )
    }

    #[test]
    fn terminals_get_a_drawing() {
        let diagnostic = sample("[[rule]]\nname = \"x\"\nmatch = { imgae = [\"**\"] }\nmode = \"off\"\n");
        insta::assert_snapshot!(draw(&diagnostic, false), @r#"
        unknown-key

          × `match` has no key `imgae`
           ╭─[/etc/assay/policy.d/50-prod.toml:3:11]
         2 │ name = "x"
         3 │ match = { imgae = ["**"] }
           ·           ──┬──
           ·             ╰── not a key of it
         4 │ mode = "off"
           ╰────
          help: its keys are `image` and `namespace`
        "#);
        assert!(draw(&diagnostic, true).contains('\u{1b}'));
        let folder = Diagnostic::without_place(
            Code::NoRules,
            "/etc/assay/policy.d holds no rule".to_owned(),
            "write one",
        );
        insta::assert_snapshot!(draw(&folder, false), @"
        no-rules

          × /etc/assay/policy.d holds no rule
          help: write one
        ");
    }

    #[test]
    fn no_source_text_can_command_a_terminal() {
        let diagnostic = sample("# \u{1b}]0;owned\u{7} \u{202e}\u{9b}2J\nmatch = { imgae = [\"**\"] }\n");
        let drawn = draw(&diagnostic, false);
        assert!(!drawn.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}']), "{drawn:?}");
        assert!(drawn.contains("50-prod.toml:2:11"), "{drawn}");
    }

    #[test]
    fn exit_codes_are_what_scripts_rely_on() {
        let codes = [
            Exit::Done,
            Exit::Failed,
            Exit::Usage,
            Exit::Denied,
            Exit::EvidenceMissing,
            Exit::SignatureInvalid,
            Exit::Unsupported,
            Exit::NotFound,
            Exit::Corrupt,
            Exit::Internal,
        ];
        assert_eq!(codes.map(|exit| exit as u8), [0, 1, 2, 3, 4, 5, 6, 7, 8, 70]);
    }
}
