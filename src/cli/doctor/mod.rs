//! `assay doctor`: whether Assay can do its work on this node, and what goes past it.

mod bypass;
mod cri;
mod handlers;
mod kernel;
mod policy;
mod programs;
mod selftest;
mod state;

use std::fmt::Write as _;

use serde::Serialize;
use toml::Table;

use self::cri::{Cri, Loaded};
use super::configure::handler::{Reading, is_assay};
use super::configure::node::Node;
use super::verify::socket;
use super::{Exit, Output, complain, count, print};
use crate::config::Config;
use crate::diagnostic::{inert, printable};

/// Arguments of `assay doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Check only what must hold before `assay configure`: kernel, containerd, programs
    #[arg(long)]
    pre: bool,
    /// containerd's socket; without it, the only one of containerd, k3s, RKE2, k0s or MicroK8s that answers
    #[arg(long, value_name = "PATH", value_parser = socket)]
    address: Option<String>,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    /// As it should be.
    Pass,
    /// Containers are decided on, but not as was probably meant.
    Warn,
    /// Containers are refused, or start without Assay.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    group: &'static str,
    /// Stable; never renamed or reused.
    code: &'static str,
    standing: Standing,
    /// What was found, in a sentence.
    reason: String,
    /// What to do; empty where nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    fix: String,
}

/// The checks of one group.
#[derive(Debug, Clone, Copy)]
struct Group(&'static str);

impl Group {
    fn pass(self, code: &'static str, reason: impl Into<String>) -> Check {
        self.check(code, Standing::Pass, reason.into(), String::new())
    }

    fn warn(self, code: &'static str, reason: impl Into<String>, fix: impl Into<String>) -> Check {
        self.check(code, Standing::Warn, reason.into(), fix.into())
    }

    fn fail(self, code: &'static str, reason: impl Into<String>, fix: impl Into<String>) -> Check {
        self.check(code, Standing::Fail, reason.into(), fix.into())
    }

    fn check(self, code: &'static str, standing: Standing, reason: String, fix: String) -> Check {
        Check {
            group: self.0,
            code,
            standing,
            reason: printable(&reason).into_owned(),
            fix: printable(&fix).into_owned(),
        }
    }
}

/// What the checks look at.
struct Patient<'a> {
    config: &'a Config,
    node: &'a Node,
    /// What containerd makes of its files as they are now.
    files: Table,
    /// What the running containerd has.
    loaded: Loaded,
    cri: Cri,
}

impl Patient<'_> {
    fn reading(&self) -> Reading<'_> {
        Reading(&self.files)
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Report {
    healthy: bool,
    checks: Vec<Check>,
}

/// Examines this node.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    if !rustix::process::geteuid().is_root() {
        complain("error: what is to be examined is root's; to fix: run this as root");
        return Exit::Failed;
    }
    let checks = examine(args, config);
    let healthy = checks.iter().all(|check| check.standing != Standing::Fail);
    let report = Report { healthy, checks };
    match args.output {
        Output::Text => print(inert(&text(&report))),
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => print(json),
            Err(error) => {
                complain(format_args!("error: the result cannot be written as JSON: {error}"));
                return Exit::Internal;
            }
        },
    }
    if report.healthy { Exit::Done } else { Exit::Failed }
}

/// Whether the containerd that runs has a handler of Assay, and what its files say.
///
/// # Errors
/// Why one of the two is not known.
pub fn is_loaded(node: &Node) -> Result<bool, String> {
    let text = node.text().map_err(|error| error.to_string())?;
    let files = node.reads_as_it_is(text.as_deref().unwrap_or_default());
    let files = files.map_err(|error| error.to_string())?;
    let loaded = Cri::connect(&node.socket)?.loaded()?;
    let checks = handlers::as_configured(Reading(&files), &loaded);
    Ok(checks.iter().all(|check| check.standing == Standing::Pass))
}

/// Whether the containerd that runs has a handler of Assay.
///
/// # Errors
/// Why that is not known.
pub fn has_handler(node: &Node) -> Result<bool, String> {
    let loaded = Cri::connect(&node.socket)?.loaded()?;
    Ok(loaded.handlers.values().any(|(kind, path)| is_assay(kind, path)))
}

fn examine(args: &Args, config: &Config) -> Vec<Check> {
    const CONTAINERD: Group = Group("containerd");
    let mut checks = kernel::checks(config);
    checks.extend(programs::own());
    let node = match Node::find(args.address.as_deref()) {
        Ok(node) => node,
        Err(error) => {
            checks.push(CONTAINERD.fail("containerd-running", error.to_string(), error.fix()));
            if !args.pre {
                checks.extend(state::checks(config));
                checks.extend(policy::sources(config));
            }
            return checks;
        }
    };
    checks.push(CONTAINERD.pass(
        "containerd-running",
        format!(
            "process {} serves {} and reads {}",
            node.pid,
            node.socket,
            node.config.display()
        ),
    ));
    checks.push(programs::release(&node.release));
    let files = node
        .text()
        .and_then(|text| node.reads_as_it_is(text.as_deref().unwrap_or_default()));
    let files = match files {
        Ok(files) => files,
        Err(error) => {
            checks.push(CONTAINERD.fail("containerd-files", error.to_string(), error.fix()));
            return checks;
        }
    };
    checks.push(CONTAINERD.pass("containerd-files", "containerd can read its configuration"));
    let runtime = programs::OciRuntime::find(config, &node, Reading(&files));
    let version = runtime.version();
    let runs = version.standing == Standing::Pass;
    checks.push(version);
    if args.pre {
        return checks;
    }
    if runs {
        checks.extend(runtime.calls(config));
    }
    let connected = Cri::connect(&node.socket).and_then(|cri| Ok((cri.loaded()?, cri)));
    let (loaded, cri) = match connected {
        Ok(connected) => connected,
        Err(why) => {
            checks.push(CONTAINERD.fail(
                "containerd-cri",
                format!("containerd does not serve Kubernetes (CRI): {why}"),
                "take `cri` out of disabled_plugins, and see containerd's log",
            ));
            checks.extend(state::checks(config));
            checks.extend(policy::sources(config));
            return checks;
        }
    };
    checks.push(CONTAINERD.pass("containerd-cri", "containerd serves Kubernetes (CRI)"));
    let patient = Patient {
        config,
        node: &node,
        files,
        loaded,
        cri,
    };
    checks.extend(handlers::checks(&patient));
    checks.extend(state::checks(config));
    checks.extend(policy::sources(config));
    checks.extend(policy::images(&patient));
    checks.extend(bypass::checks(&patient));
    checks.extend(selftest::checks(&patient));
    checks
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut group = "";
    for check in &report.checks {
        if check.group != group {
            group = check.group;
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{group}");
        }
        let word = match check.standing {
            Standing::Pass => "ok  ",
            Standing::Warn => "warn",
            Standing::Fail => "FAIL",
        };
        let _ = writeln!(text, "  {word}  {}: {}", check.code, check.reason);
        if !check.fix.is_empty() {
            let _ = writeln!(text, "        to fix: {}", check.fix);
        }
    }
    let of = |standing| report.checks.iter().filter(|check| check.standing == standing).count();
    let _ = write!(
        text,
        "{}: {} failed, {}",
        count(report.checks.len(), "check"),
        of(Standing::Fail),
        count(of(Standing::Warn), "warning")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_grouped_and_says_what_to_do() {
        const A: Group = Group("kernel");
        const B: Group = Group("policy");
        let report = Report {
            healthy: false,
            checks: vec![
                A.pass("kernel-parser", "a parser can be shut in"),
                B.warn("trust-fresh", "the root is old", "assay trust update"),
                B.fail(
                    "policy-active",
                    "no policy is active on this node",
                    "assay policy apply",
                ),
            ],
        };
        insta::assert_snapshot!(text(&report), @r"
        kernel
          ok    kernel-parser: a parser can be shut in
        policy
          warn  trust-fresh: the root is old
                to fix: assay trust update
          FAIL  policy-active: no policy is active on this node
                to fix: assay policy apply
        3 checks: 1 failed, 1 warning
        ");
    }
}
