//! Changes to the files of trust. Comments and order stay as they are, and nothing is put in force: that is what
//! `assay policy apply` is for.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, Value, value};

use super::{HashAlgorithm, Status, Use, public_key, schema};
use crate::diagnostic::{self, Code, Diagnostic, Diagnostics, printable};
use crate::digest::Digest;
use crate::store;

/// File that takes new keys where trust is a folder.
const KEYS: &str = "keys.toml";
/// Mode of a new folder of trust.
const FOLDER_MODE: u32 = 0o755;
/// Mode of a new file of trust: public keys are no secret.
const FILE_MODE: u32 = 0o644;

/// A key that is to be trusted.
#[derive(Debug)]
pub struct NewKey<'a> {
    /// Name by which policy shall refer to it.
    pub id: &'a str,
    /// PEM file with the public key.
    pub file: &'a Path,
    /// What its signatures shall count for.
    pub uses: &'a [Use],
    /// Hash it signs with.
    pub hash: HashAlgorithm,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// What is there already is wrong, or would be after the change.
    #[error("{0}")]
    Sources(#[from] Diagnostics),
    /// A file cannot be written.
    #[error("{0}")]
    Write(#[from] store::Error),
    /// The folder of trust cannot be made or locked.
    #[error("{} cannot be used: {source}", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An identifier that no key may have.
    #[error("'{0}' cannot be the id of a key: up to 64 of the characters a-z A-Z 0-9 . _ -, and no dot in front")]
    Id(String),
    /// The identifier is taken.
    #[error("trust has a key '{0}' already; choose another id")]
    IdTaken(String),
    /// The key is there under another identifier.
    #[error("it is the same key as '{0}', which trust has already; give that one the use that it lacks")]
    SameKey(String),
    /// The file holds no key that Assay verifies with.
    #[error("{} {fault}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Another file has the name that the key's file would get.
    #[error("{} exists and holds something else; move it away or choose another id", .0.display())]
    FileTaken(PathBuf),
    /// No such key.
    #[error("trust has no key '{id}'; {}", names(.known))]
    Unknown {
        /// What was asked for.
        id: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A distrusted key does not become a retired one.
    #[error("the key '{0}' is distrusted: to trust what it signed before, an administrator edits its entry by hand")]
    Distrusted(String),
    /// It is so already.
    #[error("the key '{0}' is {1} already")]
    Unchanged(String, &'static str),
    /// The file is not what the reader of trust took it for.
    #[error("{} cannot be edited: {fault}; edit it by hand", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        fault: String,
    },
}

fn names(known: &[String]) -> String {
    match known {
        [] => "it has none".to_owned(),
        known => format!("it has {}", known.join(", ")),
    }
}

/// Lists a key in trust and puts its file beside. Answers the file of trust that was changed.
///
/// # Errors
/// See [`EditError`]; nothing is changed then.
pub fn add_key(trust: &Path, new: &NewKey<'_>) -> Result<PathBuf, EditError> {
    if !schema::is_valid_id(new.id) || new.id.is_empty() || new.id.starts_with('.') {
        return Err(EditError::Id(printable(new.id).chars().take(80).collect()));
    }
    let bytes = diagnostic::read_file(new.file, public_key::MAX_BYTES).map_err(|fault| Diagnostics(vec![fault]))?;
    let spki = public_key::from_pem(&bytes, new.hash).map_err(|fault| EditError::Key {
        path: new.file.to_owned(),
        fault: fault.to_string(),
    })?;
    let (folder, file) = places(trust)?;
    let _lock = lock(&folder)?;
    let present = super::load(&[trust.to_owned()]).map_err(Diagnostics)?;
    if present.keys.iter().any(|key| key.id == new.id) {
        return Err(EditError::IdTaken(new.id.to_owned()));
    }
    if let Some(same) = present.keys.iter().find(|key| key.spki == spki) {
        return Err(EditError::SameKey(same.id.clone()));
    }
    let name = format!("{}.pub", new.id);
    let beside = folder.join(&name);
    let copied = match fs::symlink_metadata(&beside) {
        Ok(_) if diagnostic::read_file(&beside, public_key::MAX_BYTES).is_ok_and(|there| there == bytes) => false,
        Ok(_) => return Err(EditError::FileTaken(beside)),
        Err(_) => {
            store::replace(&beside, &bytes, FILE_MODE)?;
            true
        }
    };
    let changed = change(trust, &file, |document| {
        let mut table = Table::new();
        table.insert("id", value(new.id));
        table.insert("file", value(&name));
        table.insert(
            "use",
            value(new.uses.iter().map(|one| one.name()).collect::<toml_edit::Array>()),
        );
        if new.hash != HashAlgorithm::Sha256 {
            table.insert("hash", value(new.hash.name()));
        }
        match document
            .entry("key")
            .or_insert(Item::ArrayOfTables(ArrayOfTables::new()))
        {
            Item::ArrayOfTables(tables) => tables.push(table),
            Item::Value(Value::Array(tables)) => tables.push(table.into_inline_table()),
            _ => return Err("`key` is no list of tables".to_owned()),
        }
        Ok(())
    });
    if changed.is_err() && copied {
        // Nothing refers to it.
        let _ = fs::remove_file(&beside);
    }
    changed.map(|()| file)
}

/// Gives a key another status. For a retired key, `digests` are added to those for which it still counts.
/// Answers the file of trust that was changed, and for how many digests the key counts now.
///
/// # Errors
/// See [`EditError`]; nothing is changed then.
pub fn set_status(
    trust: &Path,
    id: &str,
    status: Status,
    digests: &BTreeSet<Digest>,
) -> Result<(PathBuf, usize), EditError> {
    let (folder, _) = places(trust)?;
    let _lock = lock(&folder)?;
    let present = super::load(&[trust.to_owned()]).map_err(Diagnostics)?;
    let Some(key) = present.keys.iter().find(|key| key.id == id) else {
        return Err(EditError::Unknown {
            id: printable(id).chars().take(80).collect(),
            known: present.keys.into_iter().map(|key| key.id).collect(),
        });
    };
    if key.status == Status::Distrusted && status == Status::Retired {
        return Err(EditError::Distrusted(id.to_owned()));
    }
    let mut all: BTreeSet<Digest> = key.digests.iter().copied().collect();
    all.extend(digests);
    if key.status == status && (status != Status::Retired || all.len() == key.digests.len()) {
        return Err(EditError::Unchanged(id.to_owned(), status.name()));
    }
    for file in diagnostic::toml_files(trust).map_err(|fault| Diagnostics(vec![fault]))? {
        let document = parse(&file)?;
        if find(&document, id).is_none() {
            continue;
        }
        change(trust, &file, |document| {
            let entry = find_mut(document, id).ok_or("its entry is not where it was")?;
            set(entry, "status", status.name().into());
            entry.remove("digests");
            if status == Status::Retired && !all.is_empty() {
                let mut list: toml_edit::Array = all.iter().map(ToString::to_string).collect();
                for item in list.iter_mut() {
                    item.decor_mut().set_prefix("\n    ");
                }
                list.set_trailing("\n");
                list.set_trailing_comma(true);
                set(entry, "digests", Value::Array(list));
            }
            Ok(())
        })?;
        let count = if status == Status::Retired { all.len() } else { 0 };
        return Ok((file, count));
    }
    Err(EditError::Format {
        path: trust.to_owned(),
        fault: format!("the entry of '{id}' was not found"),
    })
}

/// Replaces a value and keeps what stands around it.
fn set(entry: &mut dyn TableLike, key: &str, mut new: Value) {
    match entry.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            entry.insert(key, Item::Value(new));
        }
    }
}

fn is(entry: &dyn TableLike, id: &str) -> bool {
    entry.get("id").and_then(Item::as_str) == Some(id)
}

fn find<'a>(document: &'a DocumentMut, id: &str) -> Option<&'a dyn TableLike> {
    match document.get("key")? {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table as _).find(|entry| is(*entry, id)),
        Item::Value(Value::Array(tables)) => tables
            .iter()
            .filter_map(|value| value.as_inline_table().map(|table| table as _))
            .find(|entry| is(*entry, id)),
        _ => None,
    }
}

fn find_mut<'a>(document: &'a mut DocumentMut, id: &str) -> Option<&'a mut dyn TableLike> {
    match document.get_mut("key")? {
        Item::ArrayOfTables(tables) => tables
            .iter_mut()
            .map(|table| table as &mut dyn TableLike)
            .find(|entry| is(&**entry, id)),
        Item::Value(Value::Array(tables)) => tables
            .iter_mut()
            .filter_map(|value| value.as_inline_table_mut().map(|table| table as &mut dyn TableLike))
            .find(|entry| is(&**entry, id)),
        _ => None,
    }
}

/// The folder that holds files beside, and the file that takes new keys. A folder that is missing is made.
fn places(trust: &Path) -> Result<(PathBuf, PathBuf), EditError> {
    if trust.is_file() {
        let folder = trust.parent().unwrap_or(Path::new("/")).to_owned();
        return Ok((folder, trust.to_owned()));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(trust)
        .map_err(|source| EditError::Folder {
            path: trust.to_owned(),
            source,
        })?;
    Ok((trust.to_owned(), trust.join(KEYS)))
}

/// Keeps other edits out until the returned file is closed.
fn lock(folder: &Path) -> Result<File, EditError> {
    let fail = |source| EditError::Folder {
        path: folder.to_owned(),
        source,
    };
    let file = File::open(folder).map_err(fail)?;
    rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| fail(error.into()))?;
    Ok(file)
}

fn parse(file: &Path) -> Result<DocumentMut, EditError> {
    let text = match file.try_exists() {
        Ok(false) => String::new(),
        _ => diagnostic::Source::read(file)
            .map_err(|fault| Diagnostics(vec![fault]))?
            .text
            .clone(),
    };
    text.parse().map_err(|error: toml_edit::TomlError| EditError::Format {
        path: file.to_owned(),
        fault: error.message().to_owned(),
    })
}

/// Edits one file of trust and reads all of trust again; what is not sound then is undone.
fn change(
    trust: &Path,
    file: &Path,
    edit: impl FnOnce(&mut DocumentMut) -> Result<(), String>,
) -> Result<(), EditError> {
    let mut document = parse(file)?;
    let before = document.to_string();
    edit(&mut document).map_err(|fault| EditError::Format {
        path: file.to_owned(),
        fault,
    })?;
    let after = document.to_string();
    if after.len() as u64 > diagnostic::MAX_SOURCE_BYTES {
        return Err(Diagnostics(vec![Diagnostic::without_place(
            Code::TooLarge,
            format!("{} would be larger than a file of trust may be", file.display()),
            "give fewer digests, or split the file",
        )])
        .into());
    }
    store::replace(file, after.as_bytes(), FILE_MODE)?;
    if let Err(faults) = super::load(&[trust.to_owned()]) {
        if before.is_empty() {
            let _ = fs::remove_file(file);
        } else {
            store::replace(file, before.as_bytes(), FILE_MODE)?;
        }
        return Err(Diagnostics(faults).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = include_str!("testdata/p256.pem");
    const ED25519: &str = include_str!("testdata/ed25519.pem");

    fn folder(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let trust = folder.path().join("trust.d");
        fs::create_dir(&trust).unwrap();
        fs::write(folder.path().join("new.pub"), ED25519).unwrap();
        fs::write(trust.join("release.pub"), P256).unwrap();
        fs::write(trust.join("keys.toml"), text).unwrap();
        (folder, trust)
    }

    fn add(trust: &Path, id: &str, file: &Path) -> Result<PathBuf, EditError> {
        add_key(
            trust,
            &NewKey {
                id,
                file,
                uses: &[Use::Image, Use::Sbom],
                hash: HashAlgorithm::Sha512,
            },
        )
    }

    const TEXT: &str = "# ours\n[[key]]\nid = \"release\"   # since 2020\nfile = \"release.pub\"\nuse = [\"image\"]\n\n\
                        # theirs\n[[root]]\nid = \"public-good\"\nbuiltin = \"sigstore\"\n";

    #[test]
    fn a_key_is_added_and_comments_stay() {
        let (folder, trust) = folder(TEXT);
        let file = add(&trust, "new", &folder.path().join("new.pub")).unwrap();
        insta::assert_snapshot!(fs::read_to_string(file).unwrap(), @r#"
        # ours
        [[key]]
        id = "release"   # since 2020
        file = "release.pub"
        use = ["image"]

        [[key]]
        id = "new"
        file = "new.pub"
        use = ["image", "sbom"]
        hash = "sha512"

        # theirs
        [[root]]
        id = "public-good"
        builtin = "sigstore"
        "#);
        assert_eq!(fs::read_to_string(trust.join("new.pub")).unwrap(), ED25519);
        let keys = super::super::load(std::slice::from_ref(&trust)).unwrap().keys;
        assert_eq!(keys[1].r#use, [Use::Image, Use::Sbom]);
        assert_eq!((keys[1].hash, keys[1].status), (HashAlgorithm::Sha512, Status::Active));
    }

    #[test]
    fn the_first_key_makes_the_folder_and_a_file_takes_keys_too() {
        let (folder, trust) = folder(TEXT);
        let new = folder.path().join("new.pub");
        let fresh = folder.path().join("fresh/trust.d");
        assert_eq!(add(&fresh, "new", &new).unwrap(), fresh.join("keys.toml"));
        assert_eq!(super::super::load(std::slice::from_ref(&fresh)).unwrap().keys.len(), 1);
        let file = trust.join("keys.toml");
        assert_eq!(add(&file, "new", &new).unwrap(), file);
        assert_eq!(super::super::load(std::slice::from_ref(&file)).unwrap().keys.len(), 2);
        fs::write(
            &file,
            "key = [{ id = 'release', file = 'release.pub', use = ['image'] }]",
        )
        .unwrap();
        add(&file, "newer", &new).unwrap();
        set_status(&file, "release", Status::Distrusted, &BTreeSet::new()).unwrap();
        let keys = super::super::load(std::slice::from_ref(&file)).unwrap().keys;
        assert_eq!((keys.len(), keys[0].status), (2, Status::Distrusted));
    }

    #[test]
    fn what_cannot_be_added_changes_nothing() {
        let (folder, trust) = folder(TEXT);
        let new = folder.path().join("new.pub");
        fs::write(folder.path().join("same.pub"), P256).unwrap();
        fs::write(folder.path().join("no.pub"), "nothing").unwrap();
        fs::write(trust.join("taken.pub"), "something").unwrap();
        for (id, file, said) in [
            ("release", new.clone(), "choose another id"),
            ("other", folder.path().join("same.pub"), "the same key as 'release'"),
            ("other", folder.path().join("no.pub"), "is not a PEM file"),
            ("other", folder.path().join("none"), "cannot be read"),
            ("taken", new.clone(), "holds something else"),
            ("../other", new.clone(), "cannot be the id"),
            (".other", new.clone(), "cannot be the id"),
            ("", new.clone(), "cannot be the id"),
            ("a\u{1b}b", new.clone(), "cannot be the id"),
        ] {
            let error = add(&trust, id, &file).unwrap_err().to_string();
            assert!(error.contains(said), "{id}: {error}");
            assert!(!error.contains('\u{1b}'));
        }
        fs::write(trust.join("broken.toml"), "[[key]]\n").unwrap();
        assert!(matches!(add(&trust, "other", &new), Err(EditError::Sources(_))));
        assert_eq!(fs::read_to_string(trust.join("keys.toml")).unwrap(), TEXT);
        assert!(!trust.join("other.pub").exists());
    }

    #[test]
    fn a_retired_key_keeps_what_it_is_given_and_a_distrusted_one_nothing() {
        let (_folder, trust) = folder(TEXT);
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let retire =
            |digests: &[Digest]| set_status(&trust, "release", Status::Retired, &digests.iter().copied().collect());
        assert_eq!(retire(&[one]).unwrap().1, 1);
        assert_eq!(retire(&[two]).unwrap().1, 2);
        insta::assert_snapshot!(fs::read_to_string(trust.join("keys.toml")).unwrap(), @r#"
        # ours
        [[key]]
        id = "release"   # since 2020
        file = "release.pub"
        use = ["image"]
        status = "retired"
        digests = [
            "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
            "sha256:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35",
        ]

        # theirs
        [[root]]
        id = "public-good"
        builtin = "sigstore"
        "#);
        let key = super::super::load(std::slice::from_ref(&trust)).unwrap().keys.remove(0);
        assert_eq!((key.status, key.digests.len()), (Status::Retired, 2));
        assert!(matches!(retire(&[one]), Err(EditError::Unchanged(..))));
        set_status(&trust, "release", Status::Distrusted, &BTreeSet::new()).unwrap();
        let key = super::super::load(std::slice::from_ref(&trust)).unwrap().keys.remove(0);
        assert_eq!((key.status, key.digests.len()), (Status::Distrusted, 0));
        assert!(matches!(retire(&[one]), Err(EditError::Distrusted(_))));
        let error = set_status(&trust, "relase", Status::Retired, &BTreeSet::new()).unwrap_err();
        assert_eq!(error.to_string(), "trust has no key 'relase'; it has release");
    }
}
