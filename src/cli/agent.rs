//! `assay agent`: the daemon that judges running containers again.

use std::net::SocketAddr;

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
    /// An address of this machine alone on which figures for Prometheus are served, beside the socket agent.sock
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    listen: Option<SocketAddr>,
    /// Say there which pods were refused too: `assay node events` asks
    #[arg(long, requires = "listen")]
    refusals: bool,
}

/// Figures are nobody's business but this machine's, and whoever it lets in.
fn loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "expected an address and a port, 127.0.0.1:9464")?;
    address
        .ip()
        .is_loopback()
        .then_some(address)
        .ok_or("only addresses of this machine alone are served, 127.0.0.1 or [::1]")
}

/// Runs until it is told to end.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let Err(error) = agent::run(config, &args.address, args.listen, args.refusals) else {
        return Exit::Done;
    };
    complain(printable(&format!("error: {error}")));
    if matches!(error, AgentError::State(_)) && !rustix::process::geteuid().is_root() {
        complain("Assay's state belongs to root: run assay agent as root");
    }
    Exit::Failed
}
