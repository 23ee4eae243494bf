//! `assay agent`: the daemon that judges running containers again.

use super::verify::socket;
use super::{Exit, complain};
use crate::agent::{self, AgentError};
use crate::config::Config;
use crate::diagnostic::printable;

/// Arguments of `assay agent`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = socket)]
    address: String,
}

/// Runs until it is told to end.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let Err(error) = agent::run(config, &args.address) else {
        return Exit::Done;
    };
    complain(printable(&format!("error: {error}")));
    if matches!(error, AgentError::State(_)) && !rustix::process::geteuid().is_root() {
        complain("Assay's state belongs to root: run assay agent as root");
    }
    Exit::Failed
}
