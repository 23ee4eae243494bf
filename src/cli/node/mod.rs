//! `assay node`: what the installer's image does on the node that its pod is on.
//!
//! `install`, `remove` and `agent` have the node's rights and no credentials of the cluster; `label`, `unlabel` and
//! `events` have credentials that can label this node and make Events, and no rights on it.

mod api;
mod events;
mod host;
mod install;
mod label;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::configure::node::NodeError;
use super::configure::undo::WriteError;
use super::{Exit, complain};
use crate::diagnostic::{Diagnostics, printable};
use crate::store;

/// Arguments of `assay node`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, clap::Subcommand)]
enum Step {
    /// Put Assay on the node, tell its containerd, and examine it; does only what is not done
    Install {
        /// Give the handler to every pod that names none
        #[arg(long)]
        set_as_default: bool,
    },
    /// Take everything off the node that `install` brought, when no container runs through Assay any more
    Remove,
    /// Run the agent that `install` put on the node
    Agent {
        /// An address of the pod alone on which figures for Prometheus are served
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: String,
    },
    /// Make Events of the pods that the agent says were refused, until told to end
    Events {
        /// Where the agent listens
        #[arg(long, value_name = "ADDRESS:PORT")]
        agent: SocketAddr,
    },
    /// Label the node as ready for pods of Assay, and take the label away when told to end
    Label,
    /// Take the label away
    Unlabel {
        /// Wait to be told to end: a DaemonSet's pod must not end by itself
        #[arg(long)]
        stay: bool,
    },
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("process 1 has the same files as this one: this is no pod with the processes of a node")]
    NoPod,
    #[error("the files of process 1 cannot be entered: {0}")]
    Enter(#[source] io::Error),
    #[error("{path} cannot be {verb}: {source}", path = path.display())]
    File {
        path: PathBuf,
        verb: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("{} is there, and no installer put it there", .0.display())]
    Foreign(PathBuf),
    #[error("{0}")]
    Store(#[from] store::Error),
    #[error("{0}")]
    Record(#[from] WriteError),
    #[error("{0}")]
    Node(#[from] NodeError),
    #[error("{0}")]
    Cri(String),
    #[error("{0}")]
    Config(#[from] Diagnostics),
    #[error("{0} failed")]
    Command(String),
    #[error("containerd (process {0}) does not come back")]
    Away(i32),
    #[error("containers run through Assay: {}", .0.join(", "))]
    InUse(Vec<String>),
    #[error("signals cannot be waited for: {0}")]
    Signals(#[source] io::Error),
    #[error("{0} is not in the environment, or not what a pod has there")]
    Environment(&'static str),
    #[error("the API server cannot be asked: {0}")]
    Unreachable(String),
    #[error("the API server refused to label node {node}: {status} {said}")]
    Refused { node: String, status: u16, said: String },
    #[error("the API server takes no Event: {status} {said}")]
    Event { status: u16, said: String },
    #[error("the agent on {agent} does not say what was refused: {why}")]
    Agent { agent: SocketAddr, why: String },
}

impl Fault {
    /// What to do next.
    fn fix(&self) -> &'static str {
        match self {
            Self::NoPod => "give the pod hostPID: true, or use: assay configure",
            Self::Enter(_) => "give the container securityContext.privileged: true",
            Self::File { .. } | Self::Store(_) | Self::Record(_) => {
                "see that the node's root file system can be written to"
            }
            Self::Foreign(_) => {
                "a package installed it: take the package off the node, or this node out of the DaemonSet's nodeSelector"
            }
            Self::Signals(_) => "see that the container may have the descriptors that it needs",
            Self::Config(_) => "mend /etc/assay/config.toml on the node",
            Self::Node(_) | Self::Cri(_) => "see containerd's log on the node",
            Self::Command(_) => "do what it says",
            Self::Away(_) => "start containerd on the node",
            Self::InUse(_) => {
                "delete the pods that these are of: kubectl drain, or kubectl delete pod; then this is tried again"
            }
            Self::Environment(_) | Self::Unreachable(_) => {
                "see the DaemonSet of packaging/kubernetes: it sets and mounts all of it"
            }
            Self::Agent { .. } => "see the log of the container `agent` of this pod",
            Self::Refused { .. } | Self::Event { .. } => {
                "apply the ClusterRole and the binding of packaging/kubernetes"
            }
        }
    }
}

/// Does one step.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let done = match &args.step {
        Step::Install { set_as_default } => install::install(*set_as_default),
        Step::Remove => install::remove(),
        Step::Agent { listen } => host::agent(listen),
        Step::Events { agent } => events::tell(*agent),
        Step::Label => label::hold(),
        Step::Unlabel { stay } => label::drop(*stay),
    };
    let Err(error) = done else { return Exit::Done };
    complain(printable(&format!("error: {error}; to fix: {}", error.fix())));
    Exit::Failed
}
