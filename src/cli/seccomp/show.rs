//! `assay seccomp show`: which system calls a container can make, and what that follows from.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::view::Of;
use super::super::{Exit, Output, complain, print};
use super::look;
use crate::admission::Decision;
use crate::admission::filter::{Origin, Reason, Shown};
use crate::config::Config;

/// Arguments of `assay seccomp show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    of: Of,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Write the profile alone, as it stands in config.json
    #[arg(long)]
    profile: bool,
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let found = match look(&args.of, config) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let (decision, shown) = (&found.decision, &found.calls);
    let profile: Value = shown
        .profile
        .as_ref()
        .and_then(|profile| serde_json::to_value(profile).ok())
        .unwrap_or_default();
    if args.profile {
        if profile.is_null() {
            complain("it keeps the profile that it has");
        }
        print(profile);
        return Exit::Done;
    }
    match args.output {
        Output::Text => print(text(decision, shown)),
        Output::Json => {
            let allowed: serde_json::Map<String, Value> = shown
                .reasons
                .iter()
                .filter(|(_, reason)| reason.allows())
                .map(|(name, reason)| (name.clone(), json!(reason)))
                .collect();
            print(json!({
                "image": decision.name,
                "rule": decision.rule,
                "from": shown.syscalls.from,
                "counts": shown.syscalls.counts,
                "files": shown.analysis.objects,
                "unknown": shown.syscalls.unknown,
                "digest": shown.syscalls.profile,
                "allowed": allowed,
                "profile": profile,
            }));
        }
    }
    Exit::Done
}

fn text(decision: &Decision, shown: &Shown) -> String {
    let counts = &shown.syscalls.counts;
    let from = match shown.syscalls.from {
        Origin::Files => "derived from its files",
        Origin::Own => "its own profile, since the calls of its files are not all known",
        Origin::Default => "containerd's default profile, since the calls of its files are not all known",
        Origin::Nothing => "it is privileged, and its rule leaves it so",
    };
    let mut text = format!("{}: {from}", decision.name);
    let _ = write!(
        text,
        "\n  {} ELF files; calls: {} derived, {} of the OCI runtime, {} of policy, {} siblings; {} allowed",
        shown.analysis.objects, counts.derived, counts.base, counts.policy, counts.siblings, counts.result
    );
    for why in &shown.syscalls.unknown {
        let _ = write!(text, "\n  not known: {why}");
    }
    type Is = fn(&Reason) -> bool;
    let kinds: [(&str, Is); 6] = [
        ("derived", |reason| matches!(reason, Reason::Files)),
        ("runtime", |reason| matches!(reason, Reason::Runtime)),
        ("policy", |reason| matches!(reason, Reason::Policy)),
        ("siblings", |reason| matches!(reason, Reason::Sibling { .. })),
        ("fallback", |reason| matches!(reason, Reason::Fallback)),
        ("denied", |reason| matches!(reason, Reason::Denied)),
    ];
    for (what, is) in kinds {
        let names: Vec<&str> = shown
            .reasons
            .iter()
            .filter(|(_, reason)| is(reason))
            .map(|(name, _)| name.as_str())
            .collect();
        if !names.is_empty() {
            let _ = write!(text, "\n  {what}: {}", names.join(" "));
        }
    }
    text
}
