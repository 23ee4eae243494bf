//! What was written, so that it can be taken back to the byte.
//!
//! A file that still says what was written gets back what it said before. One that someone has changed since keeps the
//! change: only the handler is taken out of it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::DocumentMut;

use super::handler;
use super::plan::{Change, without_block};
use crate::store::{self, StateDir};

const VERSION: u32 = 1;
const MAX_RECORD: u64 = 16 << 20;
/// Mode of a new file: no secret, as containerd's own.
const MODE: u32 = 0o644;

/// What was written for one handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// The files, in the order in which they were written.
    files: Vec<Written>,
    /// Folders that were made for them, outermost first.
    folders: Vec<PathBuf>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// Where.
    pub path: PathBuf,
    /// What it said before; `None` when there was none.
    pub before: Option<String>,
    /// What was written.
    pub after: String,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undone {
    /// It says what it said before, or is gone.
    Restored,
    /// Someone had changed it; only the handler was taken out.
    Edited,
    /// Someone had changed it, and it was left alone.
    Left,
}

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A file or folder.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// A file or folder.
    #[error("{path} cannot be {verb}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What was to be done with it.
        verb: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A record of another version.
    #[error("{path} is no record of this version of Assay: {why}", path = path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Record {
    fn file(name: &str) -> String {
        format!("configure-{name}.json")
    }

    /// The record of a handler; `None` when there is none.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn load(state: &Path, name: &str) -> Result<Option<Self>, WriteError> {
        if !state.exists() {
            return Ok(None);
        }
        let state = StateDir::open(state)?;
        let file = Self::file(name);
        let Some(bytes) = state.read(&file, MAX_RECORD)? else {
            return Ok(None);
        };
        let wrong = |why: String| WriteError::Record {
            path: state.path().join(&file),
            why,
        };
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if record.version != VERSION {
            return Err(wrong(format!("version {}", record.version)));
        }
        Ok(Some(record))
    }

    /// The files that were written.
    #[must_use]
    pub fn files(&self) -> &[Written] {
        &self.files
    }

    /// What was written to a file.
    #[must_use]
    pub fn of(&self, path: &Path) -> Option<&Written> {
        self.files.iter().find(|written| written.path == path)
    }

    /// Writes the changes, recorded first, so that a crash on the way can be undone.
    ///
    /// # Errors
    /// The first file that cannot be written; those before it are taken back.
    pub fn write(state: &Path, name: &str, changes: &[Change], earlier: Option<&Self>) -> Result<Self, WriteError> {
        let mut folders = earlier.map_or_else(Vec::new, |record| record.folders.clone());
        let mut missing: Vec<PathBuf> = changes
            .iter()
            .filter_map(|change| change.path.parent())
            .chain([state])
            .flat_map(Path::ancestors)
            .filter(|folder| !folder.exists())
            .map(Path::to_owned)
            .collect();
        missing.sort();
        missing.dedup();
        folders.extend(missing);
        let mut files: Vec<Written> = changes
            .iter()
            .map(|change| Written {
                path: change.path.clone(),
                before: change.before.clone(),
                after: change.after.clone(),
            })
            .collect();
        // What an earlier run wrote and this one does not is still ours to take back.
        if let Some(earlier) = earlier {
            let old = earlier.files.iter();
            files.extend(
                old.filter(|old| !changes.iter().any(|change| change.path == old.path))
                    .cloned(),
            );
        }
        let record = Self {
            version: VERSION,
            files,
            folders,
        };
        let json = serde_json::to_vec(&record).unwrap_or_default();
        StateDir::open(state)?.write(&Self::file(name), &json)?;
        for change in changes {
            if let Err(error) = put(&change.path, &change.after) {
                let _ = record.undo(state, name);
                return Err(error);
            }
        }
        Ok(record)
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// The first file that cannot be written; the others are taken back all the same, and the record stays.
    pub fn undo(&self, state: &Path, name: &str) -> Result<Vec<(PathBuf, Undone)>, WriteError> {
        let mut done = Vec::new();
        let mut failed = None;
        for written in self.files.iter().rev() {
            match written.undo(name) {
                Ok(undone) => done.push((written.path.clone(), undone)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if state.exists() {
            StateDir::open(state)?.remove(&Self::file(name))?;
        }
        for folder in self.folders.iter().rev() {
            // One in which something else lies by now stays.
            let _ = fs::remove_dir(folder);
        }
        Ok(done)
    }
}

impl Written {
    fn undo(&self, name: &str) -> Result<Undone, WriteError> {
        let now = match fs::read_to_string(&self.path) {
            Ok(now) => Some(now),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(source) => {
                return Err(WriteError::Io {
                    path: self.path.clone(),
                    verb: "read",
                    source,
                });
            }
        };
        let Some(now) = now else {
            // Gone is as good as taken back, unless it was there before.
            return match &self.before {
                Some(_) => Ok(Undone::Left),
                None => Ok(Undone::Restored),
            };
        };
        if now == self.after {
            match &self.before {
                Some(before) => put(&self.path, before)?,
                None => remove(&self.path)?,
            }
            return Ok(Undone::Restored);
        }
        if Some(&now) == self.before.as_ref() {
            return Ok(Undone::Restored);
        }
        let kept = without(&now, name, self.before.as_deref());
        if kept == now {
            return Ok(Undone::Left);
        }
        put(&self.path, &kept)?;
        Ok(Undone::Edited)
    }
}

/// A file of any kind without the handler `name`.
fn without(text: &str, name: &str, before: Option<&str>) -> String {
    let text = without_block(text, name);
    let Ok(mut document) = text.parse::<DocumentMut>() else {
        return text;
    };
    let default = before.and_then(handler::default_of);
    if handler::remove(&mut document, name, default.as_deref()) {
        document.to_string()
    } else {
        text
    }
}

fn put(path: &Path, text: &str) -> Result<(), WriteError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|source| WriteError::Io {
            path: folder.to_owned(),
            verb: "made",
            source,
        })?;
    }
    Ok(store::replace(path, text.as_bytes(), MODE)?)
}

fn remove(path: &Path) -> Result<(), WriteError> {
    fs::remove_file(path).map_err(|source| WriteError::Io {
        path: path.to_owned(),
        verb: "removed",
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const HANDLER: &str = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.assay]\nruntime_type = \
                           'io.containerd.assay.v1'\n";

    fn change(path: PathBuf, before: Option<&str>, after: &str) -> Change {
        Change {
            path,
            before: before.map(str::to_owned),
            after: after.to_owned(),
            what: String::new(),
        }
    }

    #[test]
    fn everything_is_taken_back_to_the_byte() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("var/state");
        let main = folder.path().join("config.toml");
        fs::write(&main, "version = 3 # odd  \r\n\n\n").unwrap();
        fs::set_permissions(&main, fs::Permissions::from_mode(0o600)).unwrap();
        let new = folder.path().join("etc/conf.d/50.toml");
        let changes = [
            change(main.clone(), Some("version = 3 # odd  \r\n\n\n"), "version = 3\n[x]\n"),
            change(new.clone(), None, "version = 3\n"),
        ];
        let record = Record::write(&state, "assay", &changes, None).unwrap();
        assert_eq!(fs::read_to_string(&new).unwrap(), "version = 3\n");
        assert_eq!(Record::load(&state, "assay").unwrap(), Some(record.clone()));
        let undone = record.undo(&state, "assay").unwrap();
        assert_eq!(undone, [(new, Undone::Restored), (main.clone(), Undone::Restored)]);
        assert_eq!(fs::read_to_string(&main).unwrap(), "version = 3 # odd  \r\n\n\n");
        assert_eq!(fs::metadata(&main).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["config.toml"]);
    }

    #[test]
    fn what_someone_changed_since_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let path = folder.path().join("config.toml");
        let changes = [change(
            path.clone(),
            Some("version = 3\n"),
            &format!("version = 3\n{HANDLER}"),
        )];
        let record = Record::write(&state, "assay", &changes, None).unwrap();
        fs::write(&path, format!("version = 3\noom_score = -999 # mine\n{HANDLER}")).unwrap();
        assert_eq!(record.undo(&state, "assay").unwrap(), [(path.clone(), Undone::Edited)]);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "version = 3\noom_score = -999 # mine\n"
        );
        // A policy that an administrator made their own is not ours any more.
        let rule = [change(path.clone(), None, "[[rule]]\n")];
        let record = Record::write(&state, "assay", &rule, None).unwrap();
        fs::write(&path, "[[rule]]\nmine = 1\n").unwrap();
        assert_eq!(record.undo(&state, "assay").unwrap(), [(path.clone(), Undone::Left)]);
        assert!(path.exists());
    }

    #[test]
    fn a_change_that_cannot_be_written_leaves_none_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let first = folder.path().join("a.toml");
        fs::write(folder.path().join("file"), "").unwrap();
        let changes = [
            change(first.clone(), None, "a"),
            change(folder.path().join("file/b.toml"), None, "b"),
        ];
        let error = Record::write(&state, "assay", &changes, None).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
        assert!(!first.exists());
        assert_eq!(Record::load(&state, "assay").unwrap(), None);
    }
}
