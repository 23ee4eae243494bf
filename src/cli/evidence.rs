//! `assay evidence`: the local cache of signatures and attestations.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::evidence::{self, ImportError};
use crate::store::{self, StateDir};

/// Exit code when nothing that can be verified was found.
pub const NOTHING_FOUND: u8 = 4;

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

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The import failed.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The report could not be written.
    #[error("cannot write the report: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs the command on the state directory `state` and writes what it did to `out`. Returns the exit code.
///
/// # Errors
/// See [`Error`].
pub fn run(args: &Args, state: &Path, out: &mut impl Write) -> Result<u8, Error> {
    match &args.command {
        Command::Import { paths } => {
            let cache = StateDir::open(state)?.subdir("evidence")?;
            let report = evidence::import(&cache, paths)?;
            writeln!(out, "{report}")?;
            if report.imported.is_empty() && report.present.is_empty() {
                writeln!(
                    out,
                    "nothing was found that can be verified: was the image copied with its signatures?"
                )?;
                return Ok(NOTHING_FOUND);
            }
            Ok(0)
        }
    }
}
