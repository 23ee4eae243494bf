//! `assay evidence`: the local cache of signatures and attestations.

use std::path::{Path, PathBuf};

use super::{Exit, complain, print};
use crate::config::Config;
use crate::diagnostic::inert;
use crate::evidence::{self, ImportError, Report};
use crate::store::StateDir;

/// Arguments of `assay evidence`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Copy signatures and attestations into the cache of this node
    ///
    /// Takes OCI image layouts, as folders or tars: what 'oras copy --recursive --to-oci-layout' and 'cosign
    /// save --dir' write. Image layers are not copied. Importing the cache's own folder indexes what other
    /// tools put there.
    Import {
        /// Folder or tar with an OCI image layout
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    match &args.command {
        Command::Import { paths } => match import(&config.state, paths) {
            Ok(report) => {
                print(inert(&report.to_string()));
                if report.imported.is_empty() && report.present.is_empty() {
                    complain("nothing was found that can be verified: was the image copied with its signatures?");
                    return Exit::EvidenceMissing;
                }
                Exit::Done
            }
            Err(error) => {
                complain(inert(&format!("error: {error}")));
                Exit::Failed
            }
        },
    }
}

fn import(state: &Path, paths: &[PathBuf]) -> Result<Report, ImportError> {
    let cache = StateDir::open(state)?.subdir("evidence")?;
    evidence::import(&cache, paths)
}
