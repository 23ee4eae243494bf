//! `assay report`: what a container can reach of its image, in numbers, with the list behind each.

mod calls;
mod figures;
mod html;
mod openvex;
mod text;

use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;

use super::view::Of;
use super::{Exit, complain, print};
use crate::admission::{self, Looked, Package, Subject, Survey, Verdict};
use crate::config::Config;
use crate::digest::Digest;
use crate::policy::Mode;
use calls::Calls;
use figures::Figure;

/// Arguments of `assay report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    of: Of,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Format,
    /// Write OpenVEX statements instead, about those vulnerabilities of a scanner's report whose packages have no visible file
    ///
    /// The report is the JSON of grype or Trivy about the same image. What is stated holds only where the image runs
    /// through this very view: elsewhere it does contain the code.
    #[arg(long, value_name = "SCAN", conflicts_with = "output")]
    openvex: Option<PathBuf>,
}

/// What a report is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal
    #[default]
    Text,
    /// For programs, with every list whole
    Json,
    /// One page for a browser, with charts, that loads nothing
    Html,
}

/// The report.
#[derive(Debug, Serialize)]
struct Report {
    /// Name that was asked for.
    name: String,
    /// When it was made, RFC 3339.
    time: String,
    /// Digest of the image's manifest.
    manifest: Option<Digest>,
    /// Digest of the image's configuration.
    config: Option<Digest>,
    /// Digest of what the view shows.
    view: Option<Digest>,
    /// How a container of it would be judged now, as a code.
    code: String,
    /// Whether it would be allowed.
    allowed: bool,
    /// Rule that decides.
    rule: Option<String>,
    /// Whether that rule enforces a view: otherwise the numbers say what one would show.
    enforced: bool,
    /// Digest of the attested SBOM that the view follows from; without one, of the package databases in the image.
    sbom: Option<Digest>,
    /// Image against view.
    figures: Vec<Figure>,
    /// Packages of the SBOM, or of the package databases, of which no file is visible.
    unreachable: Vec<Package>,
    /// Needed executables that no package owns.
    unattested: Vec<String>,
    /// What could not be followed, and why.
    unfollowed: Vec<String>,
    /// What is wrong with the image.
    findings: Vec<String>,
    /// Its system calls; none where they could not be worked out.
    calls: Option<Calls>,
}

impl Report {
    fn new(looked: Looked, calls: Option<Calls>) -> Self {
        let Looked {
            decision, needs, mode, ..
        } = looked;
        let survey = needs.survey.unwrap_or_default();
        let image = decision.image;
        let files = decision.files.unwrap_or_default();
        Self {
            name: decision.name,
            time: decision.time,
            manifest: image.as_ref().and_then(|image| image.manifests.first().copied()),
            config: image.map(|image| image.config),
            view: decision.view.map(|view| view.digest),
            code: decision.code,
            allowed: decision.verdict == Verdict::Allow,
            rule: decision.rule,
            enforced: mode == Mode::Enforce,
            sbom: files.sbom,
            figures: figures::figures(&survey),
            unreachable: unreachable(survey),
            unattested: needs.unattested,
            unfollowed: needs.unfollowed,
            findings: needs.findings,
            calls,
        }
    }
}

/// What was attested and can no longer be reached.
fn unreachable(survey: Survey) -> Vec<Package> {
    let attested = |package: &Package| package.listed != Some(false) && package.is_hidden();
    survey.packages.into_iter().filter(attested).collect()
}

/// The system calls, of all that the rule lets the container see: another question than what a view would show.
fn calls(args: &Args, config: &Config) -> Option<Calls> {
    let subject = Subject {
        calls: true,
        ..args.of.subject()
    };
    match admission::look(config, subject) {
        Ok(looked) => looked.calls.as_ref().map(Calls::new),
        Err((reason, fix)) => {
            complain(format!("nothing about its system calls: {reason}; to fix: {fix}"));
            None
        }
    }
}

/// Looks and reports.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let scan = match args.openvex.as_deref().map(openvex::Scan::read).transpose() {
        Ok(scan) => scan,
        Err(error) => {
            complain(error);
            return Exit::Failed;
        }
    };
    let subject = Subject {
        survey: true,
        ..args.of.subject()
    };
    let report = match admission::look(config, subject) {
        Ok(looked) => Report::new(looked, scan.is_none().then(|| calls(args, config)).flatten()),
        Err((reason, fix)) => {
            complain(format!("{reason}; to fix: {fix}"));
            return Exit::Failed;
        }
    };
    match (scan, args.output) {
        (Some(scan), _) => match openvex::document(&report, &scan) {
            Ok((document, left_out)) => {
                print(document);
                complain(left_out);
            }
            Err(error) => {
                complain(error);
                return Exit::NotFound;
            }
        },
        (None, Format::Text) => print(text::text(&report)),
        // Strings, numbers and lists only: there is always a JSON form.
        (None, Format::Json) => print(crate::diagnostic::json(&report).unwrap_or_default()),
        (None, Format::Html) => print(html::page(&report)),
    }
    Exit::Done
}
