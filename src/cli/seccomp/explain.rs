//! `assay seccomp explain`: why a container can make a system call, from the program to the instruction, or why not.

use serde_json::{Value, json};

use super::super::view::Of;
use super::super::{Exit, print};
use super::{Found, look, page};
use crate::admission::filter::{By, Origin, Reason};
use crate::admission::{Accounted, Elf};
use crate::config::Config;
use crate::syscalls::{Machine, number};

/// Arguments of `assay seccomp explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    of: Of,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
    /// Names of system calls; without one, every call that is allowed
    #[arg(value_name = "CALL", value_parser = call)]
    calls: Vec<String>,
}

/// What is explained is written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
    /// One page for a browser, by package, that loads nothing and can be searched
    Html,
}

fn call(name: &str) -> Result<String, &'static str> {
    number(Machine::native(), name)
        .map(|_| name.to_owned())
        .ok_or("no system call of this machine has this name")
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let found = match look(&args.of.at, &args.of.name, config) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let names: Vec<&String> = if args.calls.is_empty() {
        let reasons = found.calls.reasons.iter();
        reasons
            .filter(|(_, reason)| reason.allows())
            .map(|(name, _)| name)
            .collect()
    } else {
        args.calls.iter().collect()
    };
    match args.output {
        Form::Text => {
            let explained: Vec<String> = names.iter().map(|name| text(&found, name)).collect();
            print(explained.join("\n"));
        }
        Form::Json => {
            let explained: Vec<Value> = names.iter().map(|name| document(&found, name)).collect();
            print(json!({ "image": found.decision.name, "calls": explained }));
        }
        Form::Html => print(page::page(&found, &names)),
    }
    Exit::Done
}

fn text(found: &Found, name: &str) -> String {
    let reason = found.calls.reasons.get(name).unwrap_or(&Reason::Unneeded);
    let mut lines = vec![format!("{name}: {}", sentence(found, reason))];
    let shown = match reason {
        Reason::Files | Reason::Attestation => Some(name),
        Reason::Sibling { of, .. } => {
            let calls = &found.calls;
            let is_of_files = calls.attested.as_ref().unwrap_or(&calls.analysis.calls).contains(of);
            lines.extend((!is_of_files).then(|| format!("  {of} is allowed for the OCI runtime or by the rule")));
            is_of_files.then_some(of.as_str())
        }
        _ => None,
    };
    lines.extend(shown.into_iter().flat_map(|name| way(found, name)));
    lines.join("\n")
}

/// How a call comes about, in lines; none where its files do not make it.
pub(super) fn way(found: &Found, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(route) = found.calls.analysis.routes.get(name) else {
        return lines;
    };
    let mut last = None;
    for step in &route.steps {
        let elf = found.needs.objects.get(step.object);
        if last != Some(step.object) {
            lines.extend(elf.map(|elf| format!("  {}", file(elf))));
            last = Some(step.object);
        }
        lines.push(format!("    {}", step.function));
    }
    lines.push(if route.fact.is_empty() {
        format!("    system call at {:#x}", route.site)
    } else {
        format!("  known, not found in code: {}", one_line(&route.fact))
    });
    lines
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why a call is allowed, or why it is not.
pub(super) fn sentence(found: &Found, reason: &Reason) -> String {
    let rule = found.decision.rule.as_deref().unwrap_or("none");
    match reason {
        Reason::Files => "allowed, since a file of the container makes it".to_owned(),
        Reason::Attestation => "allowed, since the signed profile of the image lists it".to_owned(),
        Reason::Runtime => {
            "allowed, since the OCI runtime makes it between loading the filter and starting the program".to_owned()
        }
        Reason::Policy => format!("allowed by the rule \"{rule}\""),
        Reason::Tuning(by) => format!("allowed by {}", tuning(by)),
        Reason::TunedOut(by) => format!("not allowed: denied by {}", tuning(by)),
        Reason::Sibling { of, reason } => format!("allowed, since {of} is: {}", one_line(reason)),
        Reason::Fallback if found.calls.syscalls.from == Origin::Nothing => {
            "allowed: the container is privileged, and its rule leaves it so".to_owned()
        }
        Reason::Fallback => format!(
            "allowed by the profile that stands in while not all calls are known: {}",
            found.calls.syscalls.unknown.first().map_or("", String::as_str)
        ),
        Reason::Denied => format!("not allowed: the rule \"{rule}\" denies it"),
        Reason::Own => "not allowed by the profile that the container has".to_owned(),
        Reason::Unneeded => "not allowed: nothing that the container can run makes it".to_owned(),
    }
}

fn tuning(by: &By) -> String {
    format!(
        "the tuning {} of {} until {}: {}",
        by.source, by.owner, by.expires, by.why
    )
}

/// A file, and what accounts for it.
pub(super) fn file(elf: &Elf) -> String {
    let standing = match elf.standing {
        Accounted::Sbom => "in the SBOM",
        Accounted::Database => "in the image's package database",
        Accounted::Nobody => "in no package and no SBOM",
    };
    if elf.package.is_empty() {
        format!("{} ({standing})", elf.path)
    } else {
        format!("{} ({}, {standing})", elf.path, elf.package)
    }
}

fn document(found: &Found, name: &str) -> Value {
    let reason = found.calls.reasons.get(name).unwrap_or(&Reason::Unneeded);
    let origin = match reason {
        Reason::Sibling { of, .. } => of.as_str(),
        _ => name,
    };
    let route = found.calls.analysis.routes.get(origin).filter(|_| reason.allows());
    let steps: Vec<Value> = route
        .map(|route| route.steps.as_slice())
        .unwrap_or_default()
        .iter()
        .map(|step| {
            let elf = found.needs.objects.get(step.object);
            json!({
                "file": elf.map(|elf| &elf.path),
                "package": elf.map(|elf| &elf.package),
                "accounted": elf.map(|elf| elf.standing),
                "function": step.function,
            })
        })
        .collect();
    json!({
        "call": name,
        "allowed": reason.allows(),
        "reason": reason,
        "sentence": sentence(found, reason),
        "path": steps,
        "site": route.map(|route| route.site).filter(|site| *site != 0),
        "fact": route.map(|route| one_line(&route.fact)).filter(|fact| !fact.is_empty()),
    })
}
