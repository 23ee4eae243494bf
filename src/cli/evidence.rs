//! `assay evidence`: the local cache of signatures and attestations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::{Exit, complain, print};
use crate::config::Config;
use crate::diagnostic::inert;
use crate::evidence::{self, ImportError, Obstacle, Progress, Pull, PullError, Pulled, Report};
use crate::oci::Reference;
use crate::store::{self, StateDir};

/// Folder of the cache below `state`.
const CACHE: &str = "evidence";
/// Folder below `state` for what a pull fetches before it is in the cache.
const DOWNLOADS: &str = "downloads";

/// Arguments of `assay evidence`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Fetch the signatures and attestations of images from their registry
    ///
    /// For the index and every platform: referrers, cosign's tags, BuildKit's attestations, and the signatures of
    /// attestations. Layers are not fetched. Logs in with what 'docker login' left. What is there already is not
    /// fetched again, and a pull that was interrupted goes on where it was.
    Pull {
        /// Images, by tag or digest
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<Reference>,
        /// A second repository to look for the evidence in
        #[arg(long, value_name = "REPOSITORY")]
        referrers_from: Option<Reference>,
        /// Speak HTTP with the registry instead of HTTPS
        #[arg(long)]
        plain_http: bool,
    },
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
        Command::Pull {
            images,
            referrers_from,
            plain_http,
        } => {
            let what = Pull {
                images,
                referrers_from: referrers_from.as_ref(),
                plain_http: *plain_http,
            };
            match pull(&config.state, what) {
                Ok(pulled) => say(&pulled),
                Err(error) => fail(&error),
            }
        }
        Command::Import { paths } => match import(&config.state, paths) {
            Ok(report) => {
                print(inert(&report.to_string()));
                if report.imported.is_empty() && report.present.is_empty() {
                    complain("nothing was found that can be verified: was the image copied with its signatures?");
                    return Exit::EvidenceMissing;
                }
                Exit::Done
            }
            Err(error) => fail(&error),
        },
    }
}

fn fail(error: &dyn std::error::Error) -> Exit {
    complain(inert(&format!("error: {error}")));
    Exit::Failed
}

fn cache(state: &Path) -> Result<StateDir, store::Error> {
    StateDir::open(state)?.subdir(CACHE)
}

fn import(state: &Path, paths: &[PathBuf]) -> Result<Report, ImportError> {
    evidence::import(&cache(state)?, paths)
}

fn pull(state: &Path, what: Pull<'_>) -> Result<Pulled, PullError> {
    let cache = cache(state)?;
    let downloads = StateDir::open(state)?.subdir(DOWNLOADS)?;
    // Draws on a terminal only.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg}  {bar:30} {pos}/{len} requests, {prefix}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    let pulled = evidence::pull(
        &cache,
        &downloads,
        what,
        &mut |image, Progress { done, known, bytes }| {
            bar.set_message(inert(image));
            bar.set_prefix(HumanBytes(bytes).to_string());
            bar.set_length(known as u64);
            bar.set_position(done as u64);
        },
    );
    bar.finish_and_clear();
    pulled
}

/// Says what came of a pull.
fn say(pulled: &Pulled) -> Exit {
    for image in &pulled.images {
        let (one, many) = (
            "1 manifest with evidence",
            format!("{} manifests with evidence", image.evidence),
        );
        let evidence = if image.evidence == 1 { one } else { &many };
        print(inert(&format!(
            "found     {evidence} for {} ({})",
            image.name, image.digest
        )));
    }
    if !pulled.images.is_empty() {
        print(inert(&format!(
            "{}, {} fetched",
            pulled.report,
            HumanBytes(pulled.bytes)
        )));
    }
    let mut exit = Exit::Done;
    for image in pulled.images.iter().filter(|image| image.evidence == 0) {
        complain(inert(&format!(
            "the registry holds no signature and no attestation of {}: is it signed, and are its signatures in \
             another repository (--referrers-from)?",
            image.name
        )));
        exit = Exit::EvidenceMissing;
    }
    for fault in &pulled.faults {
        complain(inert(&format!("error: {}: {}", fault.image, fault.obstacle)));
        exit = match fault.obstacle {
            Obstacle::NoImage if matches!(exit, Exit::Done | Exit::NotFound) => Exit::NotFound,
            _ => Exit::Failed,
        };
    }
    exit
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
