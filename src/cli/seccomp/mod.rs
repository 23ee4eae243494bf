//! `assay seccomp`: which system calls containers can make, and why.

mod base;
pub(in crate::cli) mod cves;
mod diff;
mod explain;
mod lint;
mod merge;
mod operand;
mod page;
mod record;
mod show;
mod suggest;

use super::view::At;
use super::{Exit, complain};
use crate::admission::filter::Shown;
use crate::admission::{self, Decision, Needs, Subject};
use crate::config::Config;

/// Arguments of `assay seccomp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say which system calls a container can make, and what that follows from
    Show(show::Args),
    /// Say why a container can make a system call, from the program to the instruction, or why it cannot
    Explain(explain::Args),
    /// Note which system calls a program or a running container makes, and add them to a profile
    Record(record::Args),
    /// Turn what a container did in complain mode that enforcing would refuse into a policy fragment, with the evidence
    Suggest(suggest::Args),
    /// Say which system calls one profile lets through and another does not
    Diff(diff::Args),
    /// Write one profile that lets through what any of several does
    Merge(merge::Args),
    /// Say what is probably wrong with a profile, or with the tunings of this node
    Lint(lint::Args),
    /// Measure which system calls an OCI runtime makes itself under a container's filter, and compare with what is known
    Base(base::Args),
}

/// Does what was asked for.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    match &args.command {
        Command::Show(args) => show::run(args, config),
        Command::Explain(args) => explain::run(args, config),
        Command::Record(args) => record::run(args),
        Command::Suggest(args) => suggest::run(args, config),
        Command::Diff(args) => diff::run(args, config),
        Command::Merge(args) => merge::run(args, config),
        Command::Lint(args) => lint::run(args, config),
        Command::Base(args) => base::run(args, config),
    }
}

/// What there is to say about a container.
#[derive(Debug)]
struct Found {
    decision: Decision,
    needs: Needs,
    calls: Shown,
}

/// Finds out what the files of a container call.
fn look(at: &At, name: &str, config: &Config) -> Result<Found, Exit> {
    let subject = Subject {
        calls: true,
        ..at.subject(name)
    };
    let looked = admission::look(config, subject).map_err(|(reason, fix)| {
        complain(format!("{reason}; to fix: {fix}"));
        Exit::Failed
    })?;
    let Some(calls) = looked.calls else {
        complain("nothing was found out about its system calls");
        return Err(Exit::Internal);
    };
    Ok(Found {
        decision: looked.decision,
        needs: looked.needs,
        calls,
    })
}
