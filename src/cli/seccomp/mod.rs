//! `assay seccomp`: which system calls containers can make, and why.

mod base;

use super::Exit;
use crate::config::Config;

/// Arguments of `assay seccomp`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Measure which system calls an OCI runtime makes itself under a container's filter, and compare with what is known
    Base(base::Args),
}

/// Does what was asked for.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    match &args.command {
        Command::Base(args) => base::run(args, config),
    }
}
