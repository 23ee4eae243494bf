//! `assay seccomp show`: which system calls a container can make, and what that follows from.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::view::Of;
use super::super::{Exit, complain, print};
use super::{cves, look};
use crate::admission::Decision;
use crate::admission::filter::{Origin, Reason, Shown};
use crate::config::Config;
use crate::seccomp::{self, Profile};
use crate::syscalls::Machine;

/// Arguments of `assay seccomp show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    of: Of,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
}

/// What is shown, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// The calls and what they follow from, for people
    #[default]
    Text,
    /// The same for programs
    Json,
    /// The profile alone, as it stands in config.json
    Oci,
    /// The profile as a file below /var/lib/kubelet/seccomp, for a pod's localhostProfile
    Kubernetes,
    /// The profile as a SeccompProfile of the Security Profiles Operator
    Spo,
    /// The profile as the layer of an OCI artifact (KEP-6061)
    #[value(name = "kep-6061")]
    Kep6061,
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let found = match look(&args.of.at, &args.of.name, config) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let (decision, shown) = (&found.decision, &found.calls);
    match args.output {
        Form::Text => print(text(decision, shown)),
        Form::Json => {
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
                "cves": { "as_of": cves::as_of(), "out_of_reach": cves::out_of_reach(shown) },
                "digest": shown.syscalls.profile,
                "allowed": allowed,
                "profile": shown.profile,
            }));
        }
        form => return export(form, decision, shown.profile.as_ref()),
    }
    Exit::Done
}

/// Writes the profile alone.
fn export(form: Form, decision: &Decision, profile: Option<&Profile>) -> Exit {
    let Some(profile) = profile else {
        complain("it keeps the profile that it has");
        return Exit::Failed;
    };
    let lines = |value: Value| serde_json::to_string_pretty(&value).map_err(|error| error.to_string());
    let exported = match form {
        Form::Kubernetes => serde_json::to_value(profile)
            .map_err(|error| error.to_string())
            .and_then(lines),
        Form::Spo => seccomp::operator(profile, &object_name(&decision.name), Machine::native()).and_then(lines),
        Form::Kep6061 => seccomp::artifact(profile).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        Form::Text | Form::Json | Form::Oci => Ok(String::from_utf8_lossy(&profile.to_json()).into_owned()),
    };
    match exported {
        Ok(exported) => {
            print(exported);
            Exit::Done
        }
        Err(why) => {
            complain(format!("its profile cannot be written like this: {why}"));
            Exit::Failed
        }
    }
}

/// A name that Kubernetes takes for an object, from that of an image.
fn object_name(image: &str) -> String {
    let plain = |character: char| match character.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '-',
    };
    let name: String = image.chars().map(plain).take(200).collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "assay".to_owned()
    } else {
        name.to_owned()
    }
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
        "\n  {} ELF files; calls: {} derived, {} of the OCI runtime, {} of policy, {} of tunings, {} siblings; {} allowed",
        shown.analysis.objects,
        counts.derived,
        counts.base,
        counts.policy,
        counts.tuning,
        counts.siblings,
        counts.result
    );
    for why in &shown.syscalls.unknown {
        let _ = write!(text, "\n  not known: {why}");
    }
    type Is = fn(&Reason) -> bool;
    let kinds: [(&str, Is); 8] = [
        ("derived", |reason| matches!(reason, Reason::Files)),
        ("runtime", |reason| matches!(reason, Reason::Runtime)),
        ("policy", |reason| matches!(reason, Reason::Policy)),
        ("tunings", |reason| matches!(reason, Reason::Tuning(_))),
        ("siblings", |reason| matches!(reason, Reason::Sibling { .. })),
        ("fallback", |reason| matches!(reason, Reason::Fallback)),
        ("denied", |reason| matches!(reason, Reason::Denied)),
        ("denied by tunings", |reason| matches!(reason, Reason::TunedOut(_))),
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
    let cves = cves::out_of_reach(shown);
    if !cves.is_empty() {
        let _ = write!(
            text,
            "\n  kernel vulnerabilities that containerd's default profile leaves in reach and this does not, as known on {}:",
            cves::as_of()
        );
        for cve in cves {
            let _ = write!(text, "\n    {}", cve.line());
        }
    }
    text
}
