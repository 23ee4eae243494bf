//! `assay evidence`: the local cache of signatures and attestations.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, IsTerminal as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use jiff::{Span, SpanRelativeTo};
use serde::Serialize;

use super::{Exit, Output, columns, complain, count, print};
use crate::admission::log;
use crate::config::Config;
use crate::diagnostic::inert;
use crate::digest::Digest;
use crate::evidence::{
    self, Cleared, ExportError, Exported, GcError, ImportError, Inventory, KnownImage, Obstacle, Piece, Progress, Pull,
    PullError, Pulled, Report, Unneeded, Wanted,
};
use crate::identity::{self, Fault};
use crate::oci::{LayoutError, Reference};
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
    /// Write evidence into one tar, for 'assay evidence import' on a node without network
    Export {
        /// Where to; without it, to standard output
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Images or pieces of evidence, by name or digest; without any, all that there is
        #[arg(value_name = "IMAGE|DIGEST")]
        wanted: Vec<Wanted>,
    },
    /// List what the cache holds; nothing of it is verified here
    Ls {
        /// What the list is written as
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Show what there is about an image; nothing of it is verified here
    Show {
        /// An image or a piece of evidence, by name or digest
        #[arg(value_name = "IMAGE|DIGEST")]
        wanted: Wanted,
        /// What it is written as
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Clear the cache of what is not needed
    ///
    /// Evidence goes when all conditions that are given hold. What a container that exists was decided on stays
    /// in any case. Without a condition, only blobs go that nothing leads to.
    Gc {
        /// Only what has been in the cache for longer, such as 90d
        #[arg(long, value_name = "TIME", value_parser = age)]
        older_than: Option<Duration>,
        /// Only what is about images that containerd does not have, in any namespace
        #[arg(long)]
        not_on_node: bool,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        /// containerd's socket
        #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH")]
        address: String,
    },
}

/// Why the cache was not cleared.
#[derive(Debug, thiserror::Error)]
enum ClearError {
    #[error("{0}; without it nobody knows what containers still need, so nothing was removed")]
    Containerd(#[from] Fault),
    #[error("{0}")]
    State(#[from] store::Error),
    #[error("{0}")]
    Gc(#[from] GcError),
}

/// Why the cache was not listed or written out.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{0}")]
    State(#[from] store::Error),
    #[error("{0}")]
    Layout(#[from] LayoutError),
    #[error("{0}")]
    Export(#[from] ExportError),
    #[error("a tar is nothing for a terminal; add: -o FILE")]
    Terminal,
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
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
                Ok(pulled) => say(&pulled, referrers_from.as_ref()),
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
        Command::Export { output, wanted } => match export(&config.state, output.as_deref(), wanted) {
            Ok(Exported { evidence: 0, .. }) => {
                complain("the cache holds no evidence: assay evidence pull IMAGE, or: assay evidence import PATH");
                Exit::NotFound
            }
            Ok(Exported { evidence, blobs }) => {
                complain(format_args!(
                    "exported  {}, {}",
                    count(evidence, "manifest"),
                    count(blobs, "blob")
                ));
                Exit::Done
            }
            Err(error @ ReadError::Export(ExportError::Absent(_))) => {
                fail(&error);
                Exit::NotFound
            }
            Err(error) => fail(&error),
        },
        Command::Ls { output } => match list(&config.state) {
            Ok(inventory) => {
                match output {
                    Output::Text => print(inert(&table(&inventory, now()))),
                    Output::Json => return json(&inventory),
                }
                Exit::Done
            }
            Err(error) => fail(&error),
        },
        Command::Show { wanted, output } => match list(&config.state) {
            Ok(inventory) => show(&inventory, wanted, *output),
            Err(error) => fail(&error),
        },
        Command::Gc {
            older_than,
            not_on_node,
            dry_run,
            address,
        } => match clear(&config.state, *older_than, *not_on_node, *dry_run, address) {
            Ok(cleared) => {
                print(said(&cleared, *dry_run));
                Exit::Done
            }
            Err(error @ ClearError::Containerd(_)) => {
                fail(&error);
                Exit::Unsupported
            }
            Err(error) => fail(&error),
        },
    }
}

fn now() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// A time span in words such as `90d` or `12h`.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a time such as 90d, 2w or 12h");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| wrong())?;
    duration.try_into().map_err(|_| wrong())
}

fn list(state: &Path) -> Result<Inventory, ReadError> {
    Ok(evidence::inventory(&cache(state)?)?)
}

fn export(state: &Path, output: Option<&Path>, wanted: &[Wanted]) -> Result<Exported, ReadError> {
    let cache = cache(state)?;
    let Some(path) = output else {
        let stdout = std::io::stdout();
        if stdout.is_terminal() {
            return Err(ReadError::Terminal);
        }
        return Ok(evidence::export(&cache, wanted, BufWriter::new(stdout.lock()))?);
    };
    // Under its own name there is a whole tar or none.
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let failed = |source| ReadError::Write {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&part)
        .map_err(failed)?;
    let written = write(&cache, wanted, &file).and_then(|exported| {
        if exported.evidence > 0 {
            std::fs::rename(&part, path).map_err(failed)?;
        }
        Ok(exported)
    });
    if !matches!(written, Ok(Exported { evidence: 1.., .. })) {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn write(cache: &StateDir, wanted: &[Wanted], file: &File) -> Result<Exported, ReadError> {
    let exported = evidence::export(cache, wanted, BufWriter::new(file))?;
    file.sync_all().map_err(ExportError::Write)?;
    Ok(exported)
}

fn json(value: &impl Serialize) -> Exit {
    match crate::diagnostic::json(value) {
        Ok(text) => {
            print(text);
            Exit::Done
        }
        Err(error) => {
            complain(format_args!("error: the list cannot be written as JSON: {error}"));
            Exit::Internal
        }
    }
}

/// One line per digest that a piece of evidence is about.
fn table(inventory: &Inventory, now: Duration) -> String {
    let mut rows: Vec<[String; 6]> = Vec::new();
    for piece in &inventory.pieces {
        let about = piece.about.iter().map(ToString::to_string);
        let unknown = piece.about.is_empty().then(|| "unknown".to_owned());
        let (carrier, claim) = kind(piece);
        for subject in about.chain(unknown) {
            rows.push([
                subject,
                claim.clone(),
                carrier.clone(),
                since(piece, now),
                HumanBytes(piece.size).to_string(),
                piece.manifest.to_string(),
            ]);
        }
    }
    rows.sort();
    let mut table = columns(&["SUBJECT", "CLAIM", "CARRIER", "AGE", "SIZE", "MANIFEST"]);
    table.add_rows(rows);
    table.trim_fmt()
}

/// How a piece is carried and what it claims.
fn kind(piece: &Piece) -> (String, String) {
    let carriers: BTreeSet<String> = piece
        .contents
        .iter()
        .map(|content| {
            let signed = if content.signed { "" } else { " (unsigned)" };
            format!("{}{signed}", content.carrier)
        })
        .collect();
    let claims: BTreeSet<&str> = piece.contents.iter().map(|content| content.claim.as_str()).collect();
    if piece.problem.is_empty() {
        let list = |words: Vec<String>| words.join(", ");
        (
            list(carriers.into_iter().collect()),
            list(claims.into_iter().map(str::to_owned).collect()),
        )
    } else {
        ("damaged".to_owned(), "unreadable".to_owned())
    }
}

fn since(piece: &Piece, now: Duration) -> String {
    let seconds = now.as_secs().saturating_sub(piece.since);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// What there is about one image, for programs.
#[derive(Debug, Serialize)]
struct About<'a> {
    digests: &'a BTreeSet<Digest>,
    images: Vec<&'a KnownImage>,
    pieces: Vec<&'a Piece>,
}

fn show(inventory: &Inventory, wanted: &Wanted, output: Output) -> Exit {
    let digests = inventory.digests(wanted);
    let pieces = inventory.about(&digests);
    let images: Vec<&KnownImage> = inventory
        .images
        .iter()
        .filter(|image| digests.contains(&image.digest))
        .collect();
    if pieces.is_empty() && images.is_empty() {
        complain(match wanted {
            Wanted::Name(name) => inert(&format!(
                "nothing was pulled under the name {name}; give the digest of the image, which assay verify {name} tells, \
                 or run: assay evidence pull {name}"
            )),
            Wanted::Digest(_) | Wanted::Start(_) => {
                format!("the cache holds nothing about {wanted}; what there is: assay evidence ls")
            }
        });
        return Exit::NotFound;
    }
    if let Output::Json = output {
        return json(&About {
            digests: &digests,
            images,
            pieces,
        });
    }
    let mut lines = Vec::new();
    for image in images {
        lines.push(
            format!("image     {} {}", image.digest, image.names.join(" "))
                .trim_end()
                .to_owned(),
        );
        lines.extend(image.manifests.iter().map(|manifest| format!("  lists   {manifest}")));
    }
    for piece in &pieces {
        let about: Vec<String> = piece.about.iter().map(ToString::to_string).collect();
        lines.push(format!("evidence  {}", piece.manifest));
        lines.push(format!("  about   {}", about.join(" ")));
        for content in &piece.contents {
            let signer = match (content.signed, content.signer_hint.as_str()) {
                (false, _) => "unsigned; counts under a signature of this manifest only".to_owned(),
                (true, "") => "signed, it does not say by whom".to_owned(),
                (true, hint) => format!("signed, it says by {hint}"),
            };
            lines.push(format!("  holds   {} ({}): {signer}", content.claim, content.carrier));
        }
        if !piece.problem.is_empty() {
            lines.push(format!("  damaged {}", piece.problem));
        }
    }
    lines.push("nothing of this is verified here; what counts, and for whom, says: assay verify IMAGE".to_owned());
    print(inert(&lines.join("\n")));
    Exit::Done
}

fn clear(
    state: &Path,
    older_than: Option<Duration>,
    not_on_node: bool,
    dry_run: bool,
    address: &str,
) -> Result<Cleared, ClearError> {
    let mut unneeded = Unneeded {
        older_than,
        ..Unneeded::default()
    };
    if older_than.is_some() || not_on_node {
        let census = identity::census(address)?;
        let decided = log::evidence_by_container(&StateDir::open(state)?)?;
        for container in census.containers {
            match decided.get(&(container.namespace, container.id)) {
                Some(evidence) => unneeded.used.extend(evidence),
                None => unneeded.in_use.extend(container.image),
            }
        }
        if not_on_node {
            unneeded.not_about = Some(census.images);
        }
    }
    Ok(evidence::gc(&cache(state)?, &unneeded, dry_run)?)
}

/// Says what was cleared.
fn said(cleared: &Cleared, dry_run: bool) -> String {
    let (word, did) = if dry_run {
        ("would go", "would be removed")
    } else {
        ("removed ", "removed")
    };
    let mut lines = Vec::new();
    for piece in &cleared.pieces {
        let about: Vec<String> = piece.about.iter().map(ToString::to_string).collect();
        lines.push(format!("{word}  {} about {}", piece.manifest, about.join(", ")));
    }
    lines.push(format!(
        "{} with {} and {} {did}",
        count(cleared.pieces.len(), "manifest"),
        count(cleared.blobs, "blob"),
        HumanBytes(cleared.bytes)
    ));
    lines.join("\n")
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
fn say(pulled: &Pulled, referrers_from: Option<&Reference>) -> Exit {
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
        let elsewhere = match referrers_from {
            Some(other) => format!(
                ", nor in {}: is it signed, and does that repository exist?",
                other.name()
            ),
            None => ": is it signed, and are its signatures in another repository (--referrers-from)?".to_owned(),
        };
        complain(inert(&format!(
            "the registry holds no signature and no attestation of {}{elsewhere}",
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
    fn an_export_is_of_everything_that_was_named_or_it_is_none() {
        let keep = tempfile::tempdir().unwrap();
        let state = keep.path().canonicalize().unwrap().join("state");
        let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/evidence"));
        let oras = fixtures.join("oras");
        assert_eq!(run_with(&state, &["import", oras.to_str().unwrap()]), Exit::Done);
        let manifest = std::fs::read_to_string(fixtures.join("manifest.digest")).unwrap();
        let manifest = manifest.trim();
        let tar = keep.path().join("some.tar");
        let export = |wanted: &[&str]| run_with(&state, &[&["export", "-o", tar.to_str().unwrap()], wanted].concat());
        assert_eq!(
            (export(&[manifest, "app:never"]), tar.exists()),
            (Exit::NotFound, false)
        );
        assert_eq!((export(&[manifest]), tar.exists()), (Exit::Done, true));
        // The digests of refusals are short.
        assert_eq!(export(&[&manifest[..19]]), Exit::Done);
        assert_eq!(run_with(&state, &["show", &manifest[..19]]), Exit::Done);
        assert_eq!(run_with(&state, &["show", "sha256:000000000000"]), Exit::NotFound);
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
