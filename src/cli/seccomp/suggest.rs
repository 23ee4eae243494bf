//! `assay seccomp suggest`: what a container did in complain mode that enforcing would refuse, as a policy fragment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;

use super::super::view::At;
use super::operand;
use crate::cli::{Exit, complain, print};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::seccomp::{Call, MAX_SEEN, Permission, SEEN_DIRECTORY, Seen, SeenError};
use crate::store::{self, StateDir};
use crate::syscalls::{Machine, all};

/// Most programs that are named for one call.
const MAX_PROGRAMS: usize = 4;

/// Arguments of `assay seccomp suggest`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A container by its id, which may have ended; with --recording an image as well
    #[arg(value_name = "CONTAINER", value_parser = NonEmptyStringValueParser::new())]
    container: String,
    /// Instead of what was seen in complain mode, a profile that `assay seccomp record` has written
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    #[command(flatten)]
    at: At,
}

/// Reads the record and suggests.
pub(super) fn run(args: &Args, config: &Config) -> Exit {
    if let Some(file) = &args.recording {
        return from_recording(args, file, config);
    }
    match seen(config, args.at.namespace(), &args.container) {
        Ok(Some(seen)) => {
            print(fragment(&seen));
            Exit::Done
        }
        Ok(None) => {
            complain(format_args!(
                "nothing was recorded about container {}; its rule needs [rule.seccomp] with mode = \"complain\" when it is \
                 created (assay explain CONTAINER says which rule that is, and why nobody listened)",
                printable(&args.container)
            ));
            Exit::NotFound
        }
        Err(error) => {
            complain(printable(&format!(
                "the record of the container cannot be read: {error}"
            )));
            Exit::Failed
        }
    }
}

/// Suggests by a recording: what it lets through and the profile under enforce does not.
fn from_recording(args: &Args, file: &Path, config: &Config) -> Exit {
    let profiles = operand::file(file)
        .map_err(|(why, exit)| {
            complain(printable(&format!("{}: {why}", file.display())));
            exit
        })
        .and_then(|recorded| Ok((recorded, operand::profile_of(&args.container, &args.at, config)?)));
    let (recorded, enforced) = match profiles {
        Ok((recorded, enforced)) => (recorded.rules(), enforced.rules()),
        Err(exit) => return exit,
    };
    let names: Vec<&str> = all(Machine::native())
        .map(|(_, name)| name)
        .filter(|name| recorded.permission(name) != Permission::Never && enforced.permission(name) == Permission::Never)
        .collect();
    print(recorded_fragment(&args.container, file, names));
    Exit::Done
}

fn recorded_fragment(name: &str, file: &Path, mut names: Vec<&str>) -> String {
    let (name, file) = (printable(name), file.display().to_string());
    let file = printable(&file);
    if names.is_empty() {
        return format!("# {name} is allowed all that {file} has.");
    }
    names.sort_unstable();
    let calls: Vec<String> = names.iter().map(|name| format!("  \"{name}\",")).collect();
    format!(
        "# What {file} has and enforce would refuse {name}.\n[rule.seccomp]\nallow = [\n{}\n]",
        calls.join("\n")
    )
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("{0}")]
    Seen(#[from] SeenError),
}

/// What was recorded of a container; `None` where nobody listened to it.
pub(super) fn seen(config: &Config, namespace: &str, container: &str) -> Result<Option<Seen>, RecordError> {
    let records = StateDir::open(&config.state)?
        .subdir(SEEN_DIRECTORY)?
        .subdir(namespace)?;
    let bytes = records.read(&format!("{container}.json"), MAX_SEEN)?;
    Ok(bytes.map(|bytes| Seen::parse(&bytes)).transpose()?)
}

/// The fragment. Paths and names of processes are the container's own words: no more than text, whatever they say.
fn fragment(seen: &Seen) -> String {
    let mut lines = vec![
        format!(
            "# What container {} called that enforce would refuse, from {} until {}.",
            printable(&seen.container),
            printable(&seen.since),
            printable(&seen.until),
        ),
        "# Each line was called by what ran then: keep what the container is meant to do, and leave out the rest."
            .to_owned(),
    ];
    if seen.further > 0 {
        lines.push(format!(
            "# {} calls came after the record was full and are not listed.",
            seen.further
        ));
    }
    let mut calls: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    let mut foreign = Vec::new();
    for call in &seen.calls {
        let is_native = crate::seccomp::machine_of(call.architecture) == Some(Machine::native());
        match call.call().filter(|_| is_native) {
            Some(name) => calls.entry(name).or_default().push(call),
            None => foreign.push(call),
        }
    }
    for call in foreign {
        lines.push(format!(
            "# No policy can name call {} of architecture {:#x}: {}",
            call.number,
            call.architecture,
            evidence(&[call])
        ));
    }
    if calls.is_empty() {
        lines.push("# Nothing that a policy could allow.".to_owned());
        return lines.join("\n");
    }
    lines.push("[rule.seccomp]".to_owned());
    lines.push("allow = [".to_owned());
    for (name, by) in &calls {
        lines.push(format!("  \"{name}\", # {}", evidence(by)));
    }
    lines.push("]".to_owned());
    lines.join("\n")
}

/// Who made a call, how often and since when.
fn evidence(calls: &[&Call]) -> String {
    let mut words: Vec<String> = calls
        .iter()
        .take(MAX_PROGRAMS)
        .map(|call| {
            let program = match printable(&call.program) {
                path if path.is_empty() => "a program that is not known".to_owned(),
                path => path.into_owned(),
            };
            format!(
                "{} by {program}, first as '{}' (process {}) at {}",
                times(call.count),
                printable(&call.name),
                call.process,
                printable(&call.first)
            )
        })
        .collect();
    if let Some(more) = calls.len().checked_sub(MAX_PROGRAMS).filter(|more| *more > 0) {
        words.push(format!("and by {more} more programs"));
    }
    words.join("; ")
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        more => format!("{more} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::SEEN_VERSION;

    #[test]
    fn what_was_called_becomes_a_fragment_of_policy_with_its_evidence() {
        let call = |number: u32, program: &str, count: u64| Call {
            architecture: 0xc000_003e,
            number,
            program: program.to_owned(),
            process: 41,
            name: "x\n]".to_owned(),
            count,
            first: "2026-01-02T03:04:05Z".to_owned(),
            last: "2026-01-02T03:04:06Z".to_owned(),
        };
        let mut seen = Seen {
            version: SEEN_VERSION,
            namespace: "k8s.io".to_owned(),
            container: "c1".to_owned(),
            since: "2026-01-02T03:00:00Z".to_owned(),
            until: "2026-01-02T04:00:00Z".to_owned(),
            calls: vec![
                call(101, "/bin/strace", 7),
                call(165, "/bin/mount\n\"]", 1),
                call(101, "", 1),
                Call {
                    architecture: 0x4000_0003,
                    ..call(26, "/bin/old", 2)
                },
            ],
            further: 3,
        };
        if Machine::native() == Machine::X86_64 {
            let fragment = fragment(&seen);
            insta::assert_snapshot!(fragment);
            let table: toml::Table = toml::from_str(&fragment.replace("[rule.seccomp]", "")).unwrap();
            let allow: Vec<_> = table["allow"]
                .as_array()
                .unwrap()
                .iter()
                .map(|call| call.as_str())
                .collect();
            assert_eq!(allow, [Some("mount"), Some("ptrace")]);
        }
        seen.calls.clear();
        assert!(!fragment(&seen).contains("[rule"));
    }

    #[test]
    fn what_was_recorded_becomes_a_fragment_of_policy() {
        let file = Path::new("./seen.json");
        insta::assert_snapshot!(recorded_fragment("registry.example/app", file, vec!["ptrace", "bpf"]), @r#"
        # What ./seen.json has and enforce would refuse registry.example/app.
        [rule.seccomp]
        allow = [
          "bpf",
          "ptrace",
        ]
        "#);
        assert!(!recorded_fragment("app", file, Vec::new()).contains("[rule"));
    }
}
