//! Assay comes to a node, and goes again to the byte.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::host::{self, FOLDER};
use super::{Fault, host::done};
use crate::cli::configure::handler::SHIM;
use crate::cli::configure::node::{self, Node};
use crate::cli::configure::plan::Change;
use crate::cli::configure::undo::{Record, Undone};
use crate::cli::{doctor, print};
use crate::config::Config;
use crate::store;

/// Where the image has the programs: where the packages have them.
const IMAGE: &str = "/usr/bin";
/// What is written beside the programs, as the packages do, unless the node has policy of its own.
const DEFAULTS: [&str; 2] = ["/etc/assay/config.toml", "/etc/assay/policy.d/90-audit.toml"];
/// The record of what was written. No handler can have this name.
const RECORD: &str = "(installer)";
/// The handler that RuntimeClasses name.
const HANDLER: &str = "assay";

const PROGRAM_MODE: u32 = 0o755;

/// A file of the image.
struct Piece {
    path: PathBuf,
    bytes: Vec<u8>,
}

fn programs() -> [PathBuf; 2] {
    ["assay", SHIM].map(|name| Path::new(FOLDER).join(name))
}

/// Puts the image's programs on the node, adds the handler, and examines the node. What is there already is left alone,
/// so that this can be done at every start of the pod.
pub(super) fn install(is_default: bool) -> Result<(), Fault> {
    let read = |path: PathBuf| match fs::read(&path) {
        Ok(bytes) => Ok(Piece { path, bytes }),
        Err(source) => Err(Fault::File {
            path,
            verb: "read",
            source,
        }),
    };
    let image = ["assay", SHIM].map(|name| read(Path::new(IMAGE).join(name)));
    let defaults: Vec<Piece> = DEFAULTS
        .iter()
        .map(|path| read(path.into()))
        .collect::<Result<_, _>>()?;
    host::enter()?;

    let config = Config::load()?;
    let record = Record::load(&config.state, RECORD)?;
    if record.is_none() {
        let packaged = Path::new(IMAGE).join("assay");
        if let Some(path) = programs().into_iter().chain([packaged]).find(|path| path.exists()) {
            return Err(Fault::Foreign(path));
        }
    }
    let changes = changes(defaults, record.as_ref(), &config)?;
    Record::write(&config.state, RECORD, &changes, record.as_ref())?;
    for (piece, path) in image.into_iter().zip(programs()) {
        let piece = piece?;
        let is_there = fs::read(&path).is_ok_and(|bytes| bytes == piece.bytes);
        if !is_there {
            store::replace(&path, &piece.bytes, PROGRAM_MODE)?;
        }
        let verb = if is_there { "unchanged" } else { "wrote" };
        print(format_args!("{verb} {}", path.display()));
    }

    let before = Record::load(&config.state, HANDLER)?;
    let mut configure = host::assay(&["configure"]);
    if is_default {
        configure.arg("--set-as-default");
    }
    done(configure)?;
    let was_configured = Record::load(&config.state, HANDLER)? == before;
    if !was_configured || !config.state.join("active").join("policy.json").exists() {
        done(host::assay(&["policy", "apply"]))?;
    }
    let node = Node::find(None)?;
    if !was_configured || !doctor::is_loaded(&node).map_err(Fault::Cri)? {
        host::restart(&node)?;
    }
    done(host::assay(&["doctor"]))
}

/// What becomes of the files that packages bring: they are written once, renewed where nobody has edited them, and never
/// where an administrator wrote or deleted any.
fn changes(defaults: Vec<Piece>, record: Option<&Record>, config: &Config) -> Result<Vec<Change>, Fault> {
    let mut changes = Vec::new();
    let has_policy = fs::read_dir(&config.policy).is_ok_and(|mut entries| entries.next().is_some());
    for Piece { path, bytes } in defaults {
        let now = node::read_text(&path)?;
        let written = record.and_then(|record| record.of(&path));
        let is_ours = match (&now, written) {
            (None, None) => record.is_none() && !(has_policy && path.starts_with(&config.policy)),
            (Some(now), Some(written)) => *now == written.after,
            _ => false,
        };
        if is_ours {
            changes.push(Change {
                before: written.and_then(|written| written.before.clone()),
                after: String::from_utf8_lossy(&bytes).into_owned(),
                what: String::new(),
                path,
            });
        }
    }
    Ok(changes)
}

/// Takes everything off the node: handler, programs, state, and the files of the packages that nobody has edited.
pub(super) fn remove() -> Result<(), Fault> {
    host::enter()?;
    let config = Config::load()?;
    let Some(record) = Record::load(&config.state, RECORD)? else {
        print("nothing of an installer's is on this node");
        return Ok(());
    };
    // A containerd that is restarted without their shim would know them no more.
    let running = running();
    if !running.is_empty() {
        return Err(Fault::InUse(running));
    }
    if Record::load(&config.state, HANDLER)?.is_some() {
        done(host::assay(&["configure", "--uninstall"]))?;
    }
    // A containerd that was restarted since has no handler of Assay any more, nor do its files.
    let node = Node::find(None)?;
    if doctor::has_handler(&node).map_err(Fault::Cri)? {
        host::restart(&node)?;
    }
    let state = &config.state;
    for place in fs::read_to_string(state.join("views/places"))
        .unwrap_or_default()
        .lines()
    {
        // Beside snapshots that are on another file system than the state.
        if place.ends_with("/assay-views") {
            clear(Path::new(place))?;
        }
    }
    clear(&config.run)?;
    let kept = format!("configure-{RECORD}.json");
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        if entry.file_name().to_str() != Some(&kept) {
            clear(&entry.path())?;
        }
    }
    for path in programs() {
        clear(&path)?;
    }
    for (path, what) in record.undo(state, RECORD)? {
        if what == Undone::Left {
            print(format_args!("left {}, which was changed since", path.display()));
        }
    }
    print("Assay is off this node");
    Ok(())
}

/// Removes a file or a folder with all that is in it; one that is not there is removed.
fn clear(path: &Path) -> Result<(), Fault> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Fault::File {
            path: path.to_owned(),
            verb: "removed",
            source: error,
        }),
        _ => Ok(()),
    }
}

/// The shims of Assay that run, as the ids of the pods that they serve.
fn running() -> Vec<String> {
    let mut pods = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let program = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        // The kernel adds a word where the file was replaced since.
        let is_shim = program
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(SHIM));
        if is_shim {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut words = line.split('\0').skip_while(|word| *word != "-id");
            pods.push(words.nth(1).unwrap_or_default().to_owned());
        }
    }
    pods.sort();
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(path: &Path, text: &str) -> Piece {
        Piece {
            path: path.to_owned(),
            bytes: text.as_bytes().to_vec(),
        }
    }

    /// A node with these folders of its own.
    fn node(folder: &Path) -> Config {
        Config {
            state: folder.join("state"),
            policy: folder.join("policy.d"),
            ..Config::default()
        }
    }

    fn bring(config: &Config, path: &Path, text: &str) {
        let record = Record::load(&config.state, RECORD).unwrap();
        let changes = changes(vec![piece(path, text)], record.as_ref(), config).unwrap();
        Record::write(&config.state, RECORD, &changes, record.as_ref()).unwrap();
    }

    #[test]
    fn a_default_is_renewed_until_somebody_edits_or_deletes_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = node(folder.path());
        let path = config.policy.join("90-audit.toml");
        bring(&config, &path, "first");
        bring(&config, &path, "second");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        fs::write(&path, "mine").unwrap();
        bring(&config, &path, "third");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        bring(&config, &path, "fourth");
        assert!(!path.exists());
    }

    #[test]
    fn a_node_with_policy_of_its_own_gets_none() {
        let folder = tempfile::tempdir().unwrap();
        let config = node(folder.path());
        fs::create_dir(&config.policy).unwrap();
        fs::write(config.policy.join("50-prod.toml"), "").unwrap();
        let path = config.policy.join("90-audit.toml");
        bring(&config, &path, "everything runs");
        assert!(!path.exists());
    }
}
