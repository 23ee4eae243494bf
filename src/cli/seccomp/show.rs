//! `assay seccomp show`: which system calls a container can make, and what that follows from.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::view::Of;
use super::super::{Exit, complain, print};
use super::{Found, cves, explain, look};
use crate::admission::Decision;
use crate::admission::filter::{Origin, Reason, Shown};
use crate::attest;
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
    /// Compare the signed profile of the image with what its files make here; the status is 1 where they differ
    #[arg(long, conflicts_with = "output")]
    verify: bool,
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
    /// The calls of its files alone as an in-toto statement about the image, to be signed by its publisher
    InToto,
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let found = match look(&args.of.at, &args.of.name, config) {
        Ok(found) => found,
        Err(exit) => return exit,
    };
    let (decision, shown) = (&found.decision, &found.calls);
    if args.verify {
        return verify(&found);
    }
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
        Form::InToto => return statement(decision, shown),
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
        Form::Text | Form::Json | Form::InToto | Form::Oci => {
            Ok(String::from_utf8_lossy(&profile.to_json()).into_owned())
        }
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

/// Writes what its files make as an unsigned statement: the node that takes it adds what its own OCI runtime makes, and
/// the policy's word.
fn statement(decision: &Decision, shown: &Shown) -> Exit {
    if let Some(first) = shown.analysis.unknown.first() {
        complain(format!("the calls of its files are not all known: {first}"));
        return Exit::Failed;
    }
    let Some(image) = &decision.image else {
        complain("it is not known which image it is");
        return Exit::Failed;
    };
    let subjects: Vec<Value> = image
        .manifests
        .iter()
        .map(|digest| json!({ "name": image.name, "digest": { "sha256": digest.hex() } }))
        .collect();
    let profile = Profile::allow(Machine::native(), shown.analysis.calls.iter().cloned());
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": attest::Profile::predicate_type(),
        "predicate": profile,
    });
    match serde_json::to_string_pretty(&statement) {
        Ok(statement) => {
            print(statement);
            Exit::Done
        }
        Err(error) => {
            complain(format!("it cannot be written: {error}"));
            Exit::Failed
        }
    }
}

/// Compares a signed profile with what the files make here.
fn verify(found: &Found) -> Exit {
    let (shown, analysis) = (&found.calls, &found.calls.analysis);
    let Some(attested) = &shown.attested else {
        complain(format!(
            "no [[rule.profile]] was met by a signed profile of {}; to fix: assay seccomp show {} says what it has instead",
            found.decision.name, found.decision.name
        ));
        return Exit::EvidenceMissing;
    };
    let lacking: Vec<&String> = analysis.calls.difference(attested).collect();
    // Where its files are not all known, nothing can be said to be too much.
    let is_known = analysis.unknown.is_empty();
    let extra: Vec<&String> = attested.difference(&analysis.calls).filter(|_| is_known).collect();
    let mut lines: Vec<String> = Vec::new();
    lines.extend(lacking.iter().map(|name| {
        let way = explain::way(found, name);
        format!(
            "+ {name}: its files make it, and the signed profile does not list it\n{}",
            way.join("\n")
        )
    }));
    lines.extend(
        extra
            .iter()
            .map(|name| format!("- {name}: the signed profile lists it, and no file makes it")),
    );
    lines.extend(analysis.unknown.iter().map(|why| format!("not known: {why}")));
    if lines.is_empty() {
        print(format!(
            "the signed profile lists the {} calls that its files make, and no other",
            attested.len()
        ));
        return Exit::Done;
    }
    print(lines.join("\n"));
    Exit::Failed
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
        Origin::Attestation => "by the signed profile of its image, in place of its files",
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
    let kinds: [(&str, Is); 9] = [
        ("derived", |reason| matches!(reason, Reason::Files)),
        ("signed", |reason| matches!(reason, Reason::Attestation)),
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
