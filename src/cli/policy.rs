//! `assay policy apply`, `pull`, `pack`, `check`, `test` and `diff`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::verify::socket;
use super::{Exit, Output, Record, columns, complain, count, print, show};
use crate::admission::comparison::{self, Change, Comparison, Word};
use crate::admission::{Verdict, rehearsal};
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity, inert, printable};
use crate::fleet::{self, FleetError, PackError, Place, Taken};
use crate::policy::activate::{ActivateError, Activated, LoadError, activate, load_active, refresh_roots};
use crate::policy::{Active, Checked, Sources};
use crate::store::{self, StateDir};

/// How `diff` is told to take the policy that is in force.
pub(super) const ACTIVE: &str = "active";

/// Arguments of `assay policy diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// A folder or file of policy, or the word active for the policy that is in force
    old: String,
    /// The other one, likewise
    new: String,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = socket)]
    address: String,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// Arguments of `assay policy pack`.
#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// Folder with policy.d and, where there are any, trust.d, closure.d and seccomp.d
    folder: PathBuf,
    /// A number that is higher each time: nodes take no lower one
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    version: u64,
    /// When nodes begin to warn that there is no newer one, such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires: Timestamp,
    /// Where to
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Puts policy and trust in force.
#[must_use]
pub fn apply(config: &Config) -> Exit {
    match activate(config) {
        Ok(activated) => {
            say(&activated);
            Exit::Done
        }
        Err(error) => {
            complain_of(&error);
            complain("nothing was activated; whatever policy was in force before still is");
            Exit::Failed
        }
    }
}

fn say(activated: &Activated) {
    show(&activated.warnings);
    if let Some(reason) = &activated.set_aside {
        complain(format_args!("set aside the policy that was active before: {reason}"));
    }
    let state = if activated.changed {
        "active"
    } else {
        "active already, nothing changed"
    };
    let (rules, keys) = (count(activated.rules, "rule"), count(activated.keys, "key"));
    print(format_args!(
        "policy generation {} with {rules} and {keys} is {state}",
        activated.generation
    ));
}

fn complain_of(error: &ActivateError) {
    match error {
        ActivateError::Sources(Diagnostics(diagnostics)) => show(diagnostics),
        other => complain(format_args!("error: {other}")),
    }
}

/// Fetches the fleet's policy and puts it in force.
#[must_use]
pub fn pull(config: &Config, plain_http: bool) -> Exit {
    match &config.policy_from {
        Some(reference) => take(config, Place::Registry(reference, plain_http)),
        None => {
            complain(
                "config.toml does not say where the fleet's policy is; add: policy_from = \"registry.example/ops/policy:prod\"",
            );
            Exit::Usage
        }
    }
}

/// Takes the fleet's policy and puts it in force.
#[must_use]
pub fn take(config: &Config, place: Place<'_>) -> Exit {
    let taken = match fleet::take(config, place) {
        Ok(taken) => taken,
        Err(error) => {
            match &error {
                FleetError::Faulty(Diagnostics(faults)) | FleetError::Kept(Diagnostics(faults)) => show(faults),
                FleetError::Activate(error) => complain_of(error),
                _ => {}
            }
            let what = match &error {
                FleetError::Faulty(_) => "it is not sound together with what this node has".to_owned(),
                FleetError::Kept(_) => "what this node has cannot be used".to_owned(),
                FleetError::Activate(_) => "it cannot be put in force".to_owned(),
                error => error.to_string(),
            };
            complain(printable(&format!(
                "error[{}]: the fleet's policy was not taken: {what}",
                error.code()
            )));
            complain("whatever policy was in force before still is");
            return match error {
                FleetError::Unsigned { .. } => Exit::SignatureInvalid,
                FleetError::Rollback { .. } | FleetError::Replaced { .. } | FleetError::Expired(_) => Exit::Denied,
                FleetError::Kept(_) => Exit::Corrupt,
                _ => Exit::Failed,
            };
        }
    };
    let Taken {
        kept,
        is_new,
        is_expired,
        activated,
    } = taken;
    print(printable(&format!(
        "the fleet's policy is version {} ({}){}, signed by {}, until {}",
        kept.version,
        kept.digest,
        if is_new { "" } else { " as before" },
        kept.signer,
        kept.expires
    )));
    say(&activated);
    if is_expired {
        complain("warning: it has expired, and stays in force until there is a newer one");
    }
    Exit::Done
}

/// Packs policy and trust for a fleet.
#[must_use]
pub fn pack(config: &Config, args: &PackArgs) -> Exit {
    let packed = fleet::pack(&args.folder, &config.trust, args.version, args.expires).map_err(|error| match error {
        PackError::Sources(Diagnostics(faults)) => {
            show(&faults);
            "the policy is not sound".to_owned()
        }
        error => error.to_string(),
    });
    let written = packed.and_then(|packed| {
        let path = std::path::absolute(&args.output).map_err(|error| error.to_string())?;
        let written = store::replace(&path, &packed.tar, 0o644);
        written.map(|()| packed).map_err(|error| error.to_string())
    });
    match written {
        Ok(packed) => {
            show(&packed.warnings);
            print(format_args!(
                "version {} with {} is {}; sign that digest after the push",
                args.version,
                count(packed.files, "file"),
                packed.digest
            ));
            Exit::Done
        }
        Err(why) => {
            complain(printable(&format!("error: nothing was packed: {why}")));
            Exit::Failed
        }
    }
}

/// What `check` found, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    sound: bool,
    diagnostics: Vec<Record<'a>>,
}

/// Checks policy and trust without putting them in force.
#[must_use]
pub fn check(config: &Config, output: Output) -> Exit {
    let checked = sources(config, &config.policy);
    let (sound, diagnostics): (bool, &[Diagnostic]) = match &checked {
        Ok(checked) => (true, &checked.warnings),
        Err(diagnostics) => (false, diagnostics),
    };
    if let Output::Json = output {
        return report(sound, diagnostics);
    }
    show(diagnostics);
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    let warnings = count(diagnostics.len() - errors, "warning");
    match &checked {
        Ok(checked) => {
            let (rules, keys) = (count(checked.rules.len(), "rule"), count(checked.keys.len(), "key"));
            print(format_args!("{rules} and {keys} are sound, {warnings}"));
        }
        Err(_) => print(format_args!("{} and {warnings}", count(errors, "error"))),
    }
    if sound { Exit::Done } else { Exit::Failed }
}

/// Reads and checks what would be in force with policy at `policy` in the place of this node's own; roots are as they
/// were refreshed last.
pub(super) fn sources(config: &Config, policy: &Path) -> Result<Checked, Vec<Diagnostic>> {
    let config = &Config {
        policy: policy.to_owned(),
        ..config.clone()
    };
    let sources = Sources::of(config).map_err(|fault| vec![fault])?;
    let mut checked = crate::policy::check(&sources)?;
    // On a machine that is no node yet nothing is made for that.
    if config.state.exists()
        && let Ok(state) = StateDir::open(&config.state)
    {
        refresh_roots(&state, &mut checked);
    }
    Ok(checked)
}

/// What was found as JSON.
#[must_use]
pub fn report(sound: bool, diagnostics: &[Diagnostic]) -> Exit {
    let diagnostics = diagnostics.iter().map(Record::new).collect();
    match crate::diagnostic::json(&Report { sound, diagnostics }) {
        Ok(json) => print(json),
        Err(error) => {
            complain(format_args!("error: the report cannot be written as JSON: {error}"));
            return Exit::Internal;
        }
    }
    if sound { Exit::Done } else { Exit::Failed }
}

/// Judges the images of a table of tests by the sources, not by what is active.
#[must_use]
pub fn test(config: &Config, file: &Path) -> Exit {
    let checked = match sources(config, &config.policy) {
        Ok(checked) => checked,
        Err(diagnostics) => {
            show(&diagnostics);
            return Exit::Failed;
        }
    };
    let active = checked.into_active(0, Timestamp::now());
    let tests = match rehearsal::load(file) {
        Ok(tests) => tests,
        Err(diagnostics) => {
            show(&diagnostics);
            return Exit::Failed;
        }
    };
    let mut failed = 0;
    for test in &tests {
        match test.run(&active, Timestamp::now()) {
            Ok(said) if said.is_expected => {
                print(format_args!("ok      {}: {} {}", test.name, said.verdict, said.code))
            }
            Ok(said) => {
                failed += 1;
                print(format_args!(
                    "FAILED  {}: {} {}, expected {}\n        {}",
                    test.name,
                    said.verdict,
                    said.code,
                    test.expected(),
                    said.reason
                ));
            }
            Err(error) => {
                failed += 1;
                print(format_args!("FAILED  {}: {error}", test.name));
            }
        }
    }
    print(format_args!("{}, {failed} failed", count(tests.len(), "test")));
    if failed == 0 { Exit::Done } else { Exit::Failed }
}

/// Says which images and containers another policy would decide differently about.
#[must_use]
pub fn diff(config: &Config, args: &DiffArgs) -> Exit {
    let policies = (
        policy(config, &args.old, args.output),
        policy(config, &args.new, args.output),
    );
    let (old, new) = match policies {
        (Ok(old), Ok(new)) => (old, new),
        (Err(exit), _) | (_, Err(exit)) => return exit,
    };
    let comparison = match comparison::compare(config, &old, &new, &args.address) {
        Ok(comparison) => comparison,
        Err(error) => {
            complain(printable(&format!("error: {error}")));
            return Exit::Failed;
        }
    };
    match args.output {
        Output::Text => {
            for missing in &comparison.not_compared {
                complain(format_args!("note: {missing}"));
            }
            print(inert(&text(&comparison)));
        }
        Output::Json => match crate::diagnostic::json(&comparison) {
            Ok(json) => print(json),
            Err(error) => {
                complain(format_args!("error: the comparison cannot be written as JSON: {error}"));
                return Exit::Internal;
            }
        },
    }
    if comparison.changes.iter().any(Change::is_refused_anew) {
        Exit::Denied
    } else if comparison.changes.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    }
}

/// The policy that an argument of `diff` stands for.
pub(super) fn policy(config: &Config, named: &str, output: Output) -> Result<Active, Exit> {
    if named != ACTIVE {
        return match sources(config, Path::new(named)) {
            Ok(checked) => Ok(checked.into_active(0, Timestamp::now())),
            Err(diagnostics) if output == Output::Json => Err(report(false, &diagnostics)),
            Err(diagnostics) => {
                show(&diagnostics);
                Err(Exit::Failed)
            }
        };
    }
    let loaded = if config.state.exists() {
        StateDir::open(&config.state)
            .map_err(LoadError::State)
            .and_then(|state| load_active(&state))
    } else {
        Err(LoadError::Missing)
    };
    loaded.map(|(active, _)| active).map_err(|error| {
        complain(printable(&format!(
            "error[{}]: {error}; to fix: {}",
            error.code(),
            error.fix()
        )));
        match error {
            LoadError::Missing => Exit::NotFound,
            _ => Exit::Corrupt,
        }
    })
}

/// A comparison as a table, and in numbers.
fn text(comparison: &Comparison) -> String {
    let mut table = columns(&["WHAT", "NAMESPACE", "IMAGE", "OLD", "NEW"]);
    for change in &comparison.changes {
        let what = change
            .container
            .as_ref()
            .map_or_else(|| "image".to_owned(), |id| format!("container {id}"));
        let namespace = match &change.kubernetes_namespace {
            Some(kubernetes) => format!("{} ({kubernetes})", change.namespace),
            None => change.namespace.clone(),
        };
        table.add_row([
            what,
            namespace,
            change.image.clone(),
            word(&change.old),
            word(&change.new),
        ]);
    }
    let of = |is_container: bool| {
        let changes = comparison.changes.iter();
        changes.filter(move |change| change.container.is_some() == is_container)
    };
    let images: std::collections::BTreeSet<_> = of(false).map(|change| (&change.image, change.digest)).collect();
    let refused = comparison
        .changes
        .iter()
        .filter(|change| change.is_refused_anew())
        .count();
    let numbers = format!(
        "{} of {} and {} of {} would be decided on differently{}",
        of(true).count(),
        count(comparison.containers, "container"),
        images.len(),
        count(comparison.images, "image"),
        match refused {
            0 => String::new(),
            refused => format!("; {refused} of these may run now and would be refused"),
        }
    );
    if comparison.changes.is_empty() {
        numbers
    } else {
        format!("{}\n{numbers}", table.trim_fmt())
    }
}

/// A policy's word in a few words.
fn word(word: &Word) -> String {
    let verdict = |verdict| match verdict {
        Verdict::Allow => "allow",
        Verdict::Refuse => "refuse",
    };
    let mut text = format!("{} {}", verdict(word.verdict), word.code);
    if let Some(rule) = &word.rule {
        text.push_str(&format!(" by \"{rule}\""));
    }
    for audit in &word.audit {
        text.push_str(&format!(
            ", audit \"{}\" would {} {}",
            audit.rule,
            verdict(audit.verdict),
            audit.code
        ));
    }
    text
}
