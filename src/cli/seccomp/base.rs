//! `assay seccomp base`: what an OCI runtime calls itself.

use std::path::{Path, PathBuf};

use super::super::{Exit, Output, complain, print};
use crate::config::Config;
use crate::runtime::{self, Base};
use crate::store::StateDir;

/// Arguments of `assay seccomp base`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The OCI runtime, a name or a path; without one, that of the configuration
    #[arg(long, value_name = "PROGRAM")]
    runtime: Option<String>,
    /// Keep the result for the decisions of this node
    #[arg(long)]
    keep: bool,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let program = args.runtime.as_deref().unwrap_or(&config.oci_runtime);
    let Some(path) = find(program) else {
        complain(format!(
            "no program {program} is in PATH; to fix: name the OCI runtime by its path: --runtime /usr/sbin/runc"
        ));
        return Exit::NotFound;
    };
    let found = match runtime::measure(&path) {
        Ok(measured) => Base::of(&path, measured),
        Err(error) => {
            complain(format!(
                "{program} could not be measured: {error}; to fix: run it as root, where containers can be started"
            ));
            return Exit::Failed;
        }
    };
    let state = match StateDir::open(&config.state) {
        Ok(state) => state,
        Err(error) => {
            complain(error);
            return Exit::Failed;
        }
    };
    let before = runtime::measured(&state).unwrap_or_default();
    let new = found.unknown(&before);
    match args.output {
        Output::Json => print(crate::diagnostic::json(&found).unwrap_or_default()),
        Output::Text => print(text(&found, &new)),
    }
    if args.keep
        && let Err(error) = runtime::keep(&state, &found)
    {
        complain(error);
        return Exit::Failed;
    }
    if new.iter().all(Vec::is_empty) || args.keep {
        Exit::Done
    } else {
        complain("to have decisions of this node allow them: assay seccomp base --keep");
        Exit::Failed
    }
}

fn text(found: &Base, new: &[Vec<String>; 2]) -> String {
    let mut lines = vec![found.version.clone()];
    let ways = [
        ("with no_new_privileges", &found.no_new_privileges),
        ("without", &found.privileges),
    ];
    for ((what, calls), new) in ways.into_iter().zip(new) {
        let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
        lines.push(format!("{what}: {} calls", calls.len()));
        lines.push(format!("  {}", calls.join(" ")));
        if !new.is_empty() {
            lines.push(format!("  not known before: {}", new.join(" ")));
        }
    }
    lines.join("\n")
}

fn find(program: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| path.is_file());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(Path::new(program)))
        .find(|path| path.is_file())
}
