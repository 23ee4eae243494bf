//! `assay view suggest`: what an audited container used of the files that enforce would hide, as a policy fragment.

use std::collections::BTreeMap;

use clap::builder::NonEmptyStringValueParser;

use crate::cli::{Exit, complain, print};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::policy::glob;
use crate::store::{self, StateDir};
use crate::view::watch::{Count, RECORDS, Record, Use, VERSION, record_name};

/// Largest record in bytes.
const MAX_RECORD: u64 = 16 << 20;
/// Most paths of a fragment.
const MAX_PATHS: usize = 200;
/// Most processes that are named for one path.
const MAX_PROCESSES: usize = 4;

/// Arguments of `assay view suggest`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A container by its id; it may have ended
    #[arg(value_name = "CONTAINER", value_parser = NonEmptyStringValueParser::new())]
    container: String,
    /// containerd namespace that holds it
    #[arg(long, default_value = "k8s.io", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
}

/// Reads the record and suggests.
pub(super) fn run(args: &Args, config: &Config) -> Exit {
    match read(args, config) {
        Ok(Some(record)) => {
            print(fragment(&record));
            Exit::Done
        }
        Ok(None) => {
            complain(format_args!(
                "nothing was recorded about container {}; its rule needs [rule.filesystem] with mode = \"audit\" when it is created \
                 (assay explain CONTAINER says which rule that is)",
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

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    #[error("it has version {0}, this assay reads {VERSION}")]
    Version(u32),
}

fn read(args: &Args, config: &Config) -> Result<Option<Record>, RecordError> {
    let records = StateDir::open(&config.state)?.subdir(RECORDS)?;
    let Some(bytes) = records.read(&record_name(&args.namespace, &args.container), MAX_RECORD)? else {
        return Ok(None);
    };
    let record: Record = serde_json::from_slice(&bytes)?;
    if record.version != VERSION {
        return Err(RecordError::Version(record.version));
    }
    Ok(Some(record))
}

/// The fragment. Paths and names of processes are the container's own words: no more than text, whatever they say.
fn fragment(record: &Record) -> String {
    let until = match record.until {
        Some(until) => format!("until {until}"),
        None => "on; no end is recorded yet".to_owned(),
    };
    let mut lines = vec![
        format!(
            "# What container {} used of the files that enforce would hide, from {} {until}.",
            printable(&record.container),
            record.since,
        ),
        "# Each line was used by what ran then: keep what the container is meant to do, and leave out the rest."
            .to_owned(),
    ];
    if record.seen.overflow {
        lines.push("# The kernel dropped events: there were more uses than are listed here.".to_owned());
    }
    if record.seen.more > 0 {
        lines.push(format!(
            "# {} uses came after the record was full and are not listed.",
            record.seen.more
        ));
    }
    if record.seen.uses.is_empty() {
        lines.push("# Nothing: enforce would have hidden nothing that it opened, executed or listed.".to_owned());
        return lines.join("\n");
    }
    lines.push(format!("# For rule \"{}\":", printable(&record.rule)));
    let mut uses: BTreeMap<&str, Vec<&Count>> = BTreeMap::new();
    for count in &record.seen.uses {
        uses.entry(&count.path).or_default().push(count);
    }
    let more = uses.len().saturating_sub(MAX_PATHS);
    let (programs, files): (Vec<_>, Vec<_>) = uses
        .into_iter()
        .take(MAX_PATHS)
        .partition(|(_, counts)| counts.iter().any(|count| count.r#use == Use::Exec));
    lines.push("[rule.filesystem]".to_owned());
    list(&mut lines, "exec", &programs, |path| path.to_owned());
    list(&mut lines, "keep", &files, glob::escape);
    if more > 0 {
        lines.push(format!(
            "# {more} further paths are left out: add these, apply, and look again."
        ));
    }
    lines.join("\n")
}

fn list(lines: &mut Vec<String>, key: &str, paths: &[(&str, Vec<&Count>)], pattern: impl Fn(&str) -> String) {
    if paths.is_empty() {
        return;
    }
    lines.push(format!("{key} = ["));
    for (path, counts) in paths {
        let evidence = evidence(counts);
        if printable(path) == *path {
            let quoted = pattern(path).replace('\\', "\\\\").replace('"', "\\\"");
            lines.push(format!("  \"{quoted}\", # {evidence}"));
        } else {
            lines.push(format!("  # no policy can name {}: {evidence}", printable(path)));
        }
    }
    lines.push("]".to_owned());
}

/// Who used a path, how, how often and since when.
fn evidence(counts: &[&Count]) -> String {
    let mut words: Vec<String> = counts
        .iter()
        .take(MAX_PROCESSES)
        .map(|count| {
            let how = match count.r#use {
                Use::Open => "opened",
                Use::Exec => "executed",
                Use::Directory => "opened as a directory",
            };
            let process = match printable(&count.process) {
                name if name.is_empty() => "a process that had ended".to_owned(),
                name => format!("'{name}'"),
            };
            format!("{how} {} times by {process}, first at {:.0}", count.count, count.first)
        })
        .collect();
    if let Some(more) = counts.len().checked_sub(MAX_PROCESSES).filter(|more| *more > 0) {
        words.push(format!("and in {more} other ways"));
    }
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::view::watch::Report;

    fn record(uses: &[(&str, Use, &str, u64)]) -> Record {
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).unwrap();
        Record {
            version: VERSION,
            namespace: "k8s.io".to_owned(),
            container: "c1".to_owned(),
            rule: "web".to_owned(),
            since: at(0),
            until: Some(at(60)),
            seen: Report {
                uses: uses
                    .iter()
                    .map(|(path, r#use, process, count)| Count {
                        path: (*path).to_owned(),
                        r#use: *r#use,
                        process: (*process).to_owned(),
                        count: *count,
                        first: at(5),
                    })
                    .collect(),
                more: 3,
                overflow: true,
            },
        }
    }

    #[test]
    fn what_was_used_becomes_a_fragment_of_policy_with_its_evidence() {
        let record = record(&[
            ("/usr/bin/find", Use::Exec, "sh", 2),
            ("/usr/bin/find", Use::Open, "cp", 1),
            ("/usr/share/doc/[a]*", Use::Open, "", 1),
            ("/usr/share/doc/quote\"back\\slash", Use::Open, "cat", 1),
            ("/usr/share/evil\n]\nmode = \"off\"", Use::Directory, "x\u{1b}[2J", 1),
        ]);
        let fragment = fragment(&record);
        insta::assert_snapshot!(fragment);
        // It is what it says to a reader of policy, and matches just that file.
        let table: toml::Table = toml::from_str(&fragment.replace("[rule.filesystem]", "")).unwrap();
        assert_eq!(table["exec"].as_array().unwrap()[0].as_str(), Some("/usr/bin/find"));
        let keep = table["keep"].as_array().unwrap();
        assert_eq!((table.len(), keep.len()), (2, 2));
        let pattern = keep[0].as_str().unwrap();
        assert!(glob::path(pattern, "/usr/share/doc/[a]*") && !glob::path(pattern, "/usr/share/doc/abc"));
    }

    #[test]
    fn a_fragment_has_an_end() {
        let paths: Vec<String> = (0..MAX_PATHS + 5).map(|n| format!("/f{n:04}")).collect();
        let uses: Vec<_> = paths.iter().map(|path| (path.as_str(), Use::Open, "p", 1)).collect();
        let fragment = fragment(&record(&uses));
        assert!(
            fragment.ends_with("# 5 further paths are left out: add these, apply, and look again."),
            "{fragment}"
        );
        let mut none = record(&[]);
        none.seen = Report::default();
        assert!(!super::fragment(&none).contains("[rule"));
    }
}
