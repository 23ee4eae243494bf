//! `assay configure`: containerd gets a handler of Assay, and loses it again.

pub mod handler;
pub mod node;
pub mod pause;
pub mod plan;
pub mod undo;

use std::path::{Path, PathBuf};

use similar::TextDiff;

use self::handler::Reading;
use self::node::{Keeper, Node};
use self::plan::{Change, PlanError, Wish};
use self::undo::{Record, Undone};
use super::verify::socket;
use super::{Exit, complain, print};
use crate::config::{self, Config};
use crate::diagnostic::{inert, printable};

/// Arguments of `assay configure`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the handler, which a RuntimeClass names
    #[arg(long, default_value = "assay")]
    name: String,
    /// Give the handler to every pod that names none
    #[arg(long, conflicts_with = "uninstall")]
    set_as_default: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Show every change line by line
    #[arg(long)]
    diff: bool,
    /// Take everything back that this command wrote for the handler
    #[arg(long)]
    uninstall: bool,
    /// containerd's socket; without it, the only one of containerd, k3s, RKE2, k0s or MicroK8s that answers
    #[arg(long, value_name = "PATH", value_parser = socket)]
    address: Option<String>,
}

/// Writes what containerd needs to know, or takes it back.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    if !rustix::process::geteuid().is_root() {
        complain("error: containerd's configuration is root's; to fix: run this as root");
        return Exit::Failed;
    }
    if args.uninstall {
        return uninstall(args, config);
    }
    match install(args, config) {
        Ok(()) => Exit::Done,
        Err(error) => {
            let exit = match &error {
                PlanError::Name(_) => Exit::Usage,
                PlanError::TooOld(_) | PlanError::Node(_) => Exit::Unsupported,
                _ => Exit::Failed,
            };
            complain(printable(&format!("error: {error}; to fix: {}", error.fix())));
            complain("nothing was written");
            exit
        }
    }
}

fn install(args: &Args, config: &Config) -> Result<(), PlanError> {
    let record = Record::load(&config.state, &args.name).map_err(failed)?;
    let node = Node::find(args.address.as_deref())?;
    let shim = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join(handler::SHIM)))
        .unwrap_or_else(|| handler::SHIM.into());
    let assay_config = std::env::var_os(config::ENVIRONMENT).map_or_else(|| config::DEFAULT_PATH.into(), PathBuf::from);
    let wish = Wish {
        name: &args.name,
        is_default: args.set_as_default,
        shim: &shim,
        assay_config: &assay_config,
    };
    let sources = plan::sources(&node, &args.name, record.as_ref())?;
    let mut plan = plan::plan(&node, wish, &sources, record.as_ref())?;
    match Reading(&sources.before).sandbox_image() {
        Some(image) => {
            let found = pause::digests(&node, image).and_then(|digests| pause::change(&config.policy, image, &digests));
            match found {
                Ok(change) => plan.changes.push(change),
                Err(why) => plan.notes.push(format!(
                    "no rule for the sandbox image was written: {why}. Pull it, or start a pod on this node, and run this again"
                )),
            }
        }
        None => plan.notes.push("containerd names no sandbox image".to_owned()),
    }
    print(inert(&format!(
        "containerd {} (process {}) reads {}",
        node.release.text,
        node.pid,
        node.config.display()
    )));
    let (mut is_new, mut is_for_containerd) = (false, false);
    for change in &plan.changes {
        let now = node::read_text(&change.path)?;
        let verb = match &now {
            Some(now) if *now == change.after => "unchanged",
            _ if args.dry_run => "would write",
            _ => "wrote",
        };
        if verb != "unchanged" {
            is_new = true;
            is_for_containerd |= !change.path.starts_with(&config.policy);
        }
        print(inert(&format!("{verb} {}: {}", change.path.display(), change.what)));
        if args.diff && verb != "unchanged" {
            print(inert(&diff(&change.path, now.as_deref(), Some(&change.after))));
        }
    }
    for note in &plan.notes {
        complain(printable(&format!("note: {note}")));
    }
    if args.dry_run {
        return Ok(());
    }
    write(&plan.changes, args, config, record.as_ref())?;
    // The others write containerd's file anew at their next start; until then it does not show what was written.
    if node.keeper == Keeper::Administrator {
        confirm(&node, args, config)?;
    }
    if is_for_containerd {
        print(next(node.keeper));
    } else if is_new {
        print("next: assay policy apply");
    }
    Ok(())
}

fn write(changes: &[Change], args: &Args, config: &Config, record: Option<&Record>) -> Result<(), PlanError> {
    Record::write(&config.state, &args.name, changes, record)
        .map(drop)
        .map_err(failed)
}

fn failed(error: undo::WriteError) -> PlanError {
    match error {
        undo::WriteError::Store(error) => PlanError::State(error),
        undo::WriteError::Io { path, verb, source } => PlanError::Edit {
            path,
            why: format!("it cannot be {verb}: {source}"),
        },
        undo::WriteError::Record { path, why } => PlanError::Edit { path, why },
    }
}

/// Asks containerd what it makes of the files as they are now; if it cannot read them, they are taken back.
fn confirm(node: &Node, args: &Args, config: &Config) -> Result<(), PlanError> {
    let reads = node
        .text()
        .and_then(|text| node.reads_as_it_is(text.as_deref().unwrap_or_default()));
    let why = match reads {
        Ok(table) if Reading(&table).handler(&args.name).is_some() => return Ok(()),
        Ok(_) => PlanError::NoWay(vec!["containerd does not read what was written".to_owned()]),
        Err(error) => error.into(),
    };
    if let Ok(Some(record)) = Record::load(&config.state, &args.name) {
        record.undo(&config.state, &args.name).map_err(failed)?;
    }
    Err(why)
}

fn next(keeper: Keeper) -> &'static str {
    match keeper {
        Keeper::Administrator => {
            "next: assay policy apply, then: systemctl restart containerd (containers keep running), then: assay doctor"
        }
        Keeper::Rancher => "next: assay policy apply, then restart k3s or RKE2 on this node, then: assay doctor",
        Keeper::K0s => "next: assay policy apply, then: k0s stop && k0s start, then: assay doctor",
        Keeper::MicroK8s => {
            "next: assay policy apply, then: snap restart microk8s.daemon-containerd, then: assay doctor"
        }
    }
}

fn uninstall(args: &Args, config: &Config) -> Exit {
    let fail = |error: &dyn std::fmt::Display| {
        complain(printable(&format!("error: {error}")));
        Exit::Failed
    };
    let record = match Record::load(&config.state, &args.name) {
        Ok(Some(record)) => record,
        Ok(None) => {
            complain(printable(&format!(
                "error: {} has no record of a handler {}; to fix: name the handler with --name as it was configured, or \
                 see what containerd has with: containerd config dump",
                config.state.display(),
                args.name
            )));
            return Exit::NotFound;
        }
        Err(error) => return fail(&error),
    };
    if args.dry_run || args.diff {
        for written in record.files() {
            print(inert(&format!("would take back {}", written.path.display())));
            if args.diff {
                let now = node::read_text(&written.path).ok().flatten();
                print(inert(&diff(&written.path, now.as_deref(), written.before.as_deref())));
            }
        }
        if args.dry_run {
            return Exit::Done;
        }
    }
    match record.undo(&config.state, &args.name) {
        Ok(undone) => {
            for (path, what) in undone {
                let path = path.display();
                print(inert(&match what {
                    Undone::Restored => format!("restored {path}"),
                    Undone::Edited => format!("took the handler out of {path}; what was changed since is kept"),
                    Undone::Left => format!("left {path}, which was changed since"),
                }));
            }
            print(
                "next: restart containerd. Pods that run keep running; those whose RuntimeClass names the handler do \
                 not start again",
            );
            Exit::Done
        }
        Err(error) => fail(&error),
    }
}

/// A change, line by line.
fn diff(path: &Path, before: Option<&str>, after: Option<&str>) -> String {
    let name = |text: Option<&str>| match text {
        Some(_) => path.display().to_string(),
        None => "/dev/null".to_owned(),
    };
    let lines = TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default());
    lines
        .unified_diff()
        .context_radius(2)
        .header(&name(before), &name(after))
        .to_string()
        .trim_end()
        .to_owned()
}
