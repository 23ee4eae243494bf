//! `assay seccomp lint`: what is probably wrong with a profile; without one, with the tunings of this node.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::json;

use super::super::view::At;
use super::super::{Exit, Output, complain, print};
use super::operand;
use crate::admission::log;
use crate::config::Config;
use crate::policy::Tuning;
use crate::policy::activate::load_active;
use crate::runtime;
use crate::seccomp::{self, Permission, Profile};
use crate::store::StateDir;
use crate::syscalls::{Machine, number};

/// Arguments of `assay seccomp lint`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Profiles in files (their paths begin with / or .), images in containerd's store, or containers by their ids; without
    /// one, the tunings that are active on this node
    #[arg(value_name = operand::NAME)]
    operands: Vec<String>,
    #[command(flatten)]
    at: At,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let mut found: Vec<(String, String)> = Vec::new();
    if args.operands.is_empty() {
        match tunings(config) {
            Ok(faults) => found.extend(faults),
            Err(error) => {
                complain(error);
                return Exit::Failed;
            }
        }
    }
    let base = runtime::base(&config.oci_runtime, true, &[]);
    for operand in &args.operands {
        match operand::profile(operand, &args.at, config) {
            Ok(profile) => {
                let faults = faults(&profile, &base, Machine::native());
                found.extend(faults.into_iter().map(|fault| (operand.clone(), fault)));
            }
            Err(exit) => return exit,
        }
    }
    match args.output {
        Output::Text if found.is_empty() => print("nothing to say"),
        Output::Text => {
            for (what, fault) in &found {
                print(format!("{what}: {fault}"));
            }
        }
        Output::Json => {
            let found: Vec<_> = found
                .iter()
                .map(|(what, fault)| json!({ "of": what, "fault": fault }))
                .collect();
            print(json!({ "found": found }));
        }
    }
    if found.is_empty() { Exit::Done } else { Exit::Failed }
}

/// What is probably wrong with a profile; `base` is what the OCI runtime calls under it.
fn faults(profile: &Profile, base: &BTreeSet<String>, machine: Machine) -> Vec<String> {
    let mut faults = Vec::new();
    if profile.default_action.lets_through() {
        faults.push("lets through what it does not name".to_owned());
    }
    let rules = profile.rules();
    let machines = [Machine::X86_64, Machine::Aarch64];
    let mut seen = BTreeSet::new();
    for name in profile.syscalls.iter().flat_map(|entry| &entry.names) {
        if seen.insert(name) && !machines.iter().any(|machine| number(*machine, name).is_some()) {
            faults.push(format!("names {name}, which no supported machine has"));
        }
    }
    for name in rules.unclear() {
        faults.push(format!("has conditions on {name} whose order decides"));
    }
    let refused = |names: &mut dyn Iterator<Item = &str>| -> Vec<String> {
        let refused = names.filter(|name| rules.permission(name) == Permission::Never);
        refused.map(str::to_owned).collect()
    };
    let missing = refused(&mut base.iter().map(String::as_str));
    if !missing.is_empty() {
        faults.push(format!(
            "refuses what the OCI runtime calls before the program starts: {}",
            missing.join(" ")
        ));
    }
    if !profile.default_action.lets_through() {
        let allowed: BTreeSet<String> = profile.effective(machine).into_keys().map(str::to_owned).collect();
        for (name, sibling) in seccomp::siblings(&allowed, machine) {
            if rules.permission(name) == Permission::Never {
                faults.push(format!(
                    "lets {} through and not {name}, which belong together",
                    sibling.of
                ));
            }
        }
    }
    faults
}

/// Tunings that do not count any more, and those that no container of the decision log was tuned by.
fn tunings(config: &Config) -> Result<Vec<(String, String)>, String> {
    let state = StateDir::open(&config.state).map_err(|error| error.to_string())?;
    let (active, _) = load_active(&state).map_err(|error| format!("{error}; to fix: {}", error.fix()))?;
    let mut used: BTreeSet<String> = BTreeSet::new();
    log::read(&state, |entry| {
        used.extend(
            entry
                .decision
                .syscalls
                .into_iter()
                .flat_map(|syscalls| syscalls.tunings),
        );
    })
    .map_err(|error| error.to_string())?;
    Ok(of_tunings(&active.tunings, &used, Timestamp::now()))
}

fn of_tunings(tunings: &[Tuning], used: &BTreeSet<String>, now: Timestamp) -> Vec<(String, String)> {
    let fault = |tuning: &Tuning| {
        if !tuning.counts(now) {
            Some(format!("the tuning of {} expired at {}", tuning.owner, tuning.expires))
        } else if !used.contains(&tuning.source) {
            Some(format!(
                "the tuning of {} was used by no container of the decision log",
                tuning.owner
            ))
        } else {
            None
        }
    };
    tunings
        .iter()
        .filter_map(|tuning| fault(tuning).map(|fault| (tuning.source.clone(), fault)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_probably_wrong_is_said() {
        let base: BTreeSet<String> = ["execve", "read"].map(str::to_owned).into();
        let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read","opennat","openat"],"action":"SCMP_ACT_ALLOW"}]}"#;
        let said = faults(&Profile::parse(text).unwrap(), &base, Machine::X86_64).join("\n");
        for part in [
            "names opennat, which",
            "before the program starts: execve",
            "lets openat through and not openat2",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let open = Profile::parse(br#"{"defaultAction":"SCMP_ACT_LOG"}"#).unwrap();
        assert_eq!(
            faults(&open, &base, Machine::X86_64),
            ["lets through what it does not name"]
        );
    }

    #[test]
    fn tunings_that_do_nothing_are_said() {
        let tuning = |source: &str, expires: &str| Tuning {
            source: source.to_owned(),
            image: Vec::new(),
            digest: Vec::new(),
            allow: vec!["ptrace".to_owned()],
            deny: Vec::new(),
            reason: "r".to_owned(),
            owner: "team".to_owned(),
            expires: expires.parse().unwrap(),
        };
        let tunings = [
            tuning("a.toml:1", "2026-01-01T00:00:00Z"),
            tuning("a.toml:9", "2027-01-01T00:00:00Z"),
            tuning("b.toml:1", "2027-01-01T00:00:00Z"),
        ];
        let used = ["b.toml:1".to_owned()].into();
        let said = of_tunings(&tunings, &used, "2026-06-01T00:00:00Z".parse().unwrap());
        let sources: Vec<&str> = said.iter().map(|(source, _)| source.as_str()).collect();
        assert_eq!(sources, ["a.toml:1", "a.toml:9"]);
        assert!(said[0].1.contains("expired") && said[1].1.contains("no container"));
    }
}
