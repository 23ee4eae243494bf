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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn run_with(state: &Path, words: &[&str]) -> Exit {
        let line = Line::try_parse_from([&["assay"], words].concat()).unwrap();
        run(
            &line.args,
            &Config {
                state: state.to_owned(),
                ..Config::default()
            },
        )
    }

    #[test]
    fn the_exit_code_says_what_came_of_an_import() {
        let keep = tempfile::tempdir().unwrap();
        let state = keep.path().canonicalize().unwrap().join("state");
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/evidence/oras");
        assert_eq!(run_with(&state, &["import", fixture]), Exit::Done);
        assert!(state.join("evidence/index.json").exists());
        assert_eq!(run_with(&state, &["import", fixture]), Exit::Done);
        assert_eq!(run_with(&state, &["import", "/nonexistent"]), Exit::Failed);
        let empty = keep.path().join("empty");
        std::fs::create_dir_all(empty.join("blobs/sha256")).unwrap();
        std::fs::write(empty.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        assert_eq!(
            run_with(&state, &["import", empty.to_str().unwrap()]),
            Exit::EvidenceMissing
        );
        assert!(Line::try_parse_from(["assay", "import"]).is_err());
    }

    #[test]
    fn a_state_directory_that_others_can_write_to_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let keep = tempfile::tempdir().unwrap();
        let state = keep.path().canonicalize().unwrap().join("state");
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o770)).unwrap();
        let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/evidence/oras");
        assert_eq!(run_with(&state, &["import", fixture]), Exit::Failed);
        assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
    }
}
