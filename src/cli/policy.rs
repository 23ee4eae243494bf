//! `assay policy apply`, `assay policy check` and `assay policy test`.

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use super::{Exit, Output, Record, complain, count, print, show};
use crate::admission::rehearsal;
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::policy::activate::{ActivateError, activate, refresh_roots};
use crate::store::StateDir;

/// Puts policy and trust in force.
#[must_use]
pub fn apply(config: &Config) -> Exit {
    match activate(config) {
        Ok(activated) => {
            show(&activated.warnings);
            if let Some(reason) = activated.set_aside {
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
            Exit::Done
        }
        Err(error) => {
            match &error {
                ActivateError::Sources(Diagnostics(diagnostics)) => show(diagnostics),
                other => complain(format_args!("error: {other}")),
            }
            complain("nothing was activated; whatever policy was in force before still is");
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
    let mut checked = crate::policy::check(&config.policy, &config.trust);
    if let (Ok(checked), true) = (&mut checked, config.state.exists())
        && let Ok(state) = StateDir::open(&config.state)
    {
        refresh_roots(&state, checked);
    }
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

/// What was found as JSON.
#[must_use]
pub fn report(sound: bool, diagnostics: &[Diagnostic]) -> Exit {
    let diagnostics = diagnostics.iter().map(Record::new).collect();
    match serde_json::to_string_pretty(&Report { sound, diagnostics }) {
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
    let checked = match crate::policy::check(&config.policy, &config.trust) {
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
