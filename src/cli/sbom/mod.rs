//! `assay sbom`: what is in an image, who owns it, and how it stands against the SBOM that somebody attested.

mod child;
mod report;
mod source;
mod text;

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;

use super::{Exit, Output, complain, print};
use crate::config::Config;
use crate::identity::Fault;

pub use child::{EXTRACT, INSPECT, main};

/// Arguments of `assay sbom`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image in containerd's store, by the name that a pod would use
    #[arg(value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new(), required_unless_present = "rootfs")]
    image: Option<String>,
    /// Look at the files in a directory instead of an image's
    #[arg(long, value_name = "DIRECTORY", conflicts_with_all = ["image", "namespace", "address", "kubernetes_namespace"])]
    rootfs: Option<PathBuf>,
    /// Compare with the SBOM in a file; nobody vouches for it
    #[arg(long, value_name = "FILE", requires = "rootfs")]
    file: Option<PathBuf>,
    /// containerd namespace that holds the image
    #[arg(long, default_value = "k8s.io", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = super::verify::socket)]
    address: String,
    /// Kubernetes namespace of the pod whose rules say which SBOM counts
    #[arg(long, value_name = "NAME")]
    kubernetes_namespace: Option<String>,
    /// What the result is written as; JSON has every file of every package
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum SbomError {
    #[error("{0}; {fix}", fix = .0.fix())]
    Containerd(#[from] Fault),
    #[error("{0}")]
    Source(#[from] source::SourceError),
    #[error("{0}")]
    Child(#[from] child::ChildError),
}

impl SbomError {
    fn exit(&self) -> Exit {
        match self {
            Self::Containerd(Fault::ImageUnknown(_) | Fault::PlatformMissing { .. } | Fault::ContentMissing { .. }) => {
                Exit::NotFound
            }
            Self::Containerd(Fault::Unreachable { .. }) | Self::Child(child::ChildError::Sandbox(_)) => {
                Exit::Unsupported
            }
            Self::Containerd(_) | Self::Source(_) | Self::Child(_) => Exit::Failed,
        }
    }
}

/// Shows the packages of an image or directory.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    match source::look(args, config) {
        Ok(report) => {
            match args.output {
                Output::Text => print(text::text(&report)),
                Output::Json => print(report.json()),
            }
            Exit::Done
        }
        Err(error) => {
            complain(&error);
            if !rustix::process::geteuid().is_root() {
                complain("assay sbom mounts the image and shuts its parser in: run it as root");
            }
            error.exit()
        }
    }
}
