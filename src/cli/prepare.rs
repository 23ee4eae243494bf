//! `assay prepare`: does for one image what its first container would have to wait for. The agent starts it.

use super::verify::socket;
use super::{Exit, complain};
use crate::admission::{self, Expected, Unprepared};
use crate::config::Config;

/// By how much containers come before it when there is little processor time.
const NICE: i32 = 10;

/// Arguments of `assay prepare`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = socket)]
    address: String,
    /// containerd namespace
    #[arg(long, default_value = "k8s.io")]
    namespace: String,
    /// Kubernetes namespaces whose rules may apply to its containers
    #[arg(long = "kubernetes-namespace", value_name = "NAME")]
    kubernetes: Vec<String>,
    /// A container that has what every container has mounted
    #[arg(long, value_name = "CONTAINER")]
    like: Option<String>,
    /// Name of the image
    image: String,
}

/// Prepares the image. Exit codes: 0 done, 3 its containers would be refused, 7 it is not unpacked yet, 1 anything else.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    // It is only slower where that is not granted.
    let _ = rustix::process::nice(NICE);
    let mut kubernetes = vec![None];
    kubernetes.extend(args.kubernetes.iter().cloned().map(Some));
    let expected = Expected {
        containerd: &args.address,
        namespace: &args.namespace,
        name: &args.image,
        kubernetes: &kubernetes,
        like: args.like.as_deref(),
    };
    let Err(why) = admission::prepare(config, &expected) else {
        return Exit::Done;
    };
    complain(&why);
    match why {
        Unprepared::Early(_) => Exit::NotFound,
        Unprepared::Refused(_) => Exit::Denied,
        Unprepared::Obstacle(_) => Exit::Failed,
    }
}
