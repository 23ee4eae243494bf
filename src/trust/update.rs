//! Refreshing the built-in trusted roots by TUF (<https://theupdateframework.github.io/specification/latest/>), from
//! Sigstore's repositories or from a mirror of one on this machine.
//!
//! The way starts at the TUF root that is part of this program and is walked anew every time; what was verified before
//! is kept, so that nothing older is accepted later. Until a refresh has gone well to its end, what was there stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sigstore_trust_root::SigstoreInstance;
use sigstore_tuf::transport::FetchFuture;
use sigstore_tuf::{HttpRepository, MetadataStore, Repository, Updater};

use super::clock::Clock;
use super::root::{self, Builtin, Root, RootError, RootSource};
use crate::digest::Digest;
use crate::store::{self, StateDir};

/// Day of the trusted roots that are part of this program, with the version of the crate that brings them.
const EMBEDDED: (&str, Timestamp) = ("0.15.1", Timestamp::constant(1_792_713_600, 0));

/// Age from which a root is worth a warning.
pub const OLD: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Version of the file of a refreshed root.
const VERSION: u32 = 1;
/// Folder below `state`.
const DIRECTORY: &str = "trust";
const LOCK: &str = "lock";
/// Largest file of a refreshed root: the root with all TUF metadata.
const MAX_BYTES: u64 = 32 << 20;
/// Name of the trusted root in a TUF repository.
const TARGET: &str = "trusted_root.json";
/// What a mirror must have.
const TIMESTAMP: &str = "timestamp.json";
/// Most files of a tar, and most bytes of all of them together.
const MAX_FILES: usize = 10_000;
const MAX_TAR: u64 = 64 << 20;
/// Longest name of a file of a mirror.
const MAX_NAME: usize = 512;

/// A refreshed root with everything that proves it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refreshed {
    version: u32,
    /// Which root of trust.d it replaces.
    source: RootSource,
    /// When it was refreshed.
    time: Timestamp,
    /// Digest of `json`.
    digest: Digest,
    /// The trusted root.
    json: String,
    /// TUF metadata that was verified, by name.
    metadata: BTreeMap<String, String>,
}

/// What a refresh did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Updated {
    /// Digest of the trusted root that is there now.
    pub digest: Digest,
    /// Whether it is another one than before.
    pub changed: bool,
    /// Until when the repository vouches for it.
    pub expires: Timestamp,
}

/// Why a root was not refreshed. What was there stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The repository or mirror cannot be read.
    #[error("the TUF repository cannot be read: {0}")]
    Unreachable(String),
    /// It offers something older than what was seen before.
    #[error("the TUF repository offers something older than was seen before: {0}")]
    Rollback(String),
    /// What it offers has expired.
    #[error("what the TUF repository offers is too old: {0}; fetch a newer mirror, and check this node's clock")]
    Expired(String),
    /// Too few signatures, or one that counts twice.
    #[error("the TUF repository is not signed as it must be: {0}")]
    Signature(String),
    /// Its parts do not belong together.
    #[error("the parts of the TUF repository do not belong together: {0}")]
    Mismatch(String),
    /// Something in it is not what it should be.
    #[error("the TUF repository is malformed: {0}")]
    Malformed(String),
    /// The trusted root that it holds cannot be used.
    #[error("the trusted root that the TUF repository holds cannot be used: {0}")]
    Root(#[from] RootError),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] store::Error),
    /// The event loop cannot be started.
    #[error("the event loop cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
}

impl UpdateError {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "tuf-unreachable",
            Self::Rollback(_) => "tuf-rollback",
            Self::Expired(_) => "tuf-expired",
            Self::Signature(_) => "tuf-signature",
            Self::Mismatch(_) => "tuf-mismatch",
            Self::Malformed(_) => "tuf-malformed",
            Self::Root(_) => "tuf-root-unusable",
            Self::State(_) => "state-unusable",
            Self::Runtime(_) => "runtime-start",
        }
    }
}

impl From<sigstore_tuf::Error> for UpdateError {
    fn from(error: sigstore_tuf::Error) -> Self {
        use sigstore_tuf::Error;
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        match error {
            Error::Rollback { .. } | Error::BadRootVersion { .. } => Self::Rollback(text),
            Error::Expired { .. } => Self::Expired(text),
            Error::DuplicateSignature { .. } | Error::ThresholdNotMet { .. } | Error::UnusableKey { .. } => {
                Self::Signature(text)
            }
            Error::IntegrityMismatch(_) => Self::Mismatch(text),
            Error::Transport { .. } | Error::Io { .. } => Self::Unreachable(text),
            _ => Self::Malformed(text),
        }
    }
}

/// Where a TUF repository is.
#[derive(Debug)]
pub enum Place<'a> {
    /// Where its operator serves it.
    Network,
    /// A copy on this machine: a folder, or a tar of one.
    Mirror(&'a Path),
}

/// The instance of Sigstore whose repository refreshes a root; `None` for one from a file.
fn instance(source: &RootSource) -> Option<SigstoreInstance> {
    match source {
        RootSource::Builtin(Builtin::Sigstore) => Some(SigstoreInstance::PublicGood),
        RootSource::Builtin(Builtin::Github) => Some(SigstoreInstance::GitHub),
        RootSource::Builtin(Builtin::Staging) | RootSource::File(_) => None,
    }
}

/// Refreshes a root of trust.d. `None` for one that is not built in: whoever wrote its file refreshes it.
///
/// # Errors
/// See [`UpdateError`]. What was there stays in force.
pub fn update(state: &StateDir, root: &Root, place: &Place<'_>) -> Result<Option<Updated>, UpdateError> {
    let Some(instance) = instance(&root.source) else {
        return Ok(None);
    };
    let repository: Box<dyn Repository> = match place {
        Place::Network => Box::new(HttpRepository::new(instance.tuf_url())?),
        Place::Mirror(path) => Box::new(Mirror::open(path)?),
    };
    refresh(state, root, instance.tuf_root(), repository).map(Some)
}

fn refresh(
    state: &StateDir,
    root: &Root,
    trusted: &[u8],
    repository: Box<dyn Repository>,
) -> Result<Updated, UpdateError> {
    let directory = state.subdir(DIRECTORY)?;
    let _lock = directory.lock(LOCK)?;
    let before = read(&directory, root).ok().flatten();
    let shelf = Arc::new(Shelf(Mutex::new(
        before
            .as_ref()
            .map(|before| before.metadata.clone())
            .unwrap_or_default(),
    )));
    let clock = Clock::read(state);
    // A clock that was turned back makes nothing current again.
    let now = clock.mark.map_or(clock.now, |mark| mark.max(clock.now));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(UpdateError::Runtime)?;
    let (updater, bytes) = runtime.block_on(async {
        let mut updater = Updater::new(repository, trusted)?.with_store(Arc::clone(&shelf));
        updater.refresh(now).await?;
        check_keys(updater.trusted().root())?;
        let bytes = updater.get_target(TARGET, now).await?;
        Ok::<_, UpdateError>((updater, bytes))
    })?;
    root::parse(&bytes)?;
    let json = String::from_utf8(bytes).map_err(|error| UpdateError::Malformed(error.to_string()))?;
    if json.len() as u64 > root::MAX_BYTES {
        return Err(UpdateError::Malformed(format!(
            "its trusted root has {} bytes",
            json.len()
        )));
    }
    let expires = updater.trusted().timestamp().map_or(now, |timestamp| timestamp.expires);
    let refreshed = Refreshed {
        version: VERSION,
        source: root.source.clone(),
        time: clock.now,
        digest: Digest::of(json.as_bytes()),
        json,
        metadata: shelf.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    };
    let bytes = serde_json::to_vec(&refreshed).map_err(|error| UpdateError::Malformed(error.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(UpdateError::Malformed(format!(
            "it has {} bytes of metadata",
            bytes.len()
        )));
    }
    directory.write(&file_name(root), &bytes)?;
    if let Some(signed) = signed_at(updater.trusted().root(), expires) {
        // The root is refreshed; a mark that is not moved now is moved the next time.
        let _ = clock.advance(state, signed, "a TUF repository");
    }
    let known = before.map_or(root.digest, |before| before.digest);
    Ok(Updated {
        digest: refreshed.digest,
        changed: known != refreshed.digest,
        expires,
    })
}

/// When the repository's timestamp was signed, where its root says for how long one is signed.
fn signed_at(root: &sigstore_tuf::Root, expires: Timestamp) -> Option<Timestamp> {
    let days = root
        .roles
        .get("timestamp")?
        .extra
        .get("x-tuf-on-ci-expiry-period")?
        .as_i64()?;
    let period = SignedDuration::from_hours(days.checked_mul(24).filter(|hours| (1..24 * 366).contains(hours))?);
    expires.checked_sub(period).ok()
}

/// Refuses a root in which one key counts under two names to a threshold.
fn check_keys(root: &sigstore_tuf::Root) -> Result<(), UpdateError> {
    for (role, authority) in &root.roles {
        let mut keys = BTreeSet::new();
        for id in &authority.keyids {
            let key = root.keys.get(id);
            let public = key.map(|key| key.keyval.public.split_whitespace().collect::<String>());
            if let Some(public) = public
                && !keys.insert(public)
            {
                return Err(UpdateError::Signature(format!(
                    "role {role} lists one key twice, as {id} too"
                )));
            }
        }
    }
    Ok(())
}

fn file_name(root: &Root) -> String {
    format!("{}.json", root.id)
}

/// Why a refreshed root cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{0}")]
    State(#[from] store::Error),
    /// It is not what was written.
    #[error("it is damaged: {0}")]
    Corrupt(String),
}

fn read(directory: &StateDir, root: &Root) -> Result<Option<Refreshed>, ReadError> {
    let Some(bytes) = directory.read(&file_name(root), MAX_BYTES)? else {
        return Ok(None);
    };
    let refreshed: Refreshed = serde_json::from_slice(&bytes).map_err(|error| ReadError::Corrupt(error.to_string()))?;
    if refreshed.version != VERSION {
        return Err(ReadError::Corrupt(format!("it has format {}", refreshed.version)));
    }
    if refreshed.digest != Digest::of(refreshed.json.as_bytes()) {
        return Err(ReadError::Corrupt(
            "its trusted root has another digest than it had".to_owned(),
        ));
    }
    root::parse(refreshed.json.as_bytes()).map_err(|error| ReadError::Corrupt(error.to_string()))?;
    // The identifier may stand for another root by now.
    Ok((refreshed.source == root.source).then_some(refreshed))
}

/// A root as it was refreshed last, where that is newer than this program; otherwise the root as it is.
/// With it the time at which it was current, where that is known.
///
/// # Errors
/// A refreshed root that is there and cannot be used.
pub fn current(state: &StateDir, root: &Root) -> Result<(Root, Option<Timestamp>), ReadError> {
    let refreshed = match instance(&root.source) {
        Some(_) => read(&state.subdir(DIRECTORY)?, root)?,
        None => None,
    };
    Ok(match refreshed.filter(|refreshed| refreshed.time > EMBEDDED.1) {
        Some(refreshed) => (
            Root::new(&root.id, root.source.clone(), refreshed.json).aging(root.max_age, Some(refreshed.time)),
            Some(refreshed.time),
        ),
        None => (root.clone(), as_of(root)),
    })
}

/// When a root that was never refreshed was current: one of this program when the program got it, another when its
/// file was written.
#[must_use]
pub fn as_of(root: &Root) -> Option<Timestamp> {
    match &root.source {
        RootSource::Builtin(_) => Some(EMBEDDED.1),
        RootSource::File(path) => fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()?
            .try_into()
            .ok(),
    }
}

/// TUF metadata that was verified.
#[derive(Debug)]
struct Shelf(Mutex<BTreeMap<String, String>>);

impl MetadataStore for Shelf {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        let shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(shelf.get(name).map(|text| text.clone().into_bytes()))
    }

    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        // Targets are kept elsewhere, and metadata is JSON.
        if let (false, Ok(text)) = (name.starts_with("targets/"), std::str::from_utf8(bytes)) {
            let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            shelf.insert(name.to_owned(), text.to_owned());
        }
        Ok(())
    }
}

/// A copy of a TUF repository: its metadata in one folder, its targets in `targets` in it or beside it.
#[derive(Debug)]
enum Mirror {
    Folder {
        path: PathBuf,
        fd: OwnedFd,
        metadata: PathBuf,
    },
    Tar {
        files: BTreeMap<PathBuf, Vec<u8>>,
        metadata: PathBuf,
    },
}

impl Mirror {
    fn open(path: &Path) -> Result<Self, UpdateError> {
        let unreadable = |error: std::io::Error| UpdateError::Unreachable(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_dir() {
            let files = unpack(file).map_err(unreadable)?;
            let metadata = files
                .keys()
                .filter(|name| name.ends_with(TIMESTAMP))
                .min_by_key(|name| name.components().count());
            let metadata = metadata.and_then(|name| name.parent()).map(Path::to_owned);
            return match metadata {
                Some(metadata) => Ok(Self::Tar { files, metadata }),
                None => Err(no_mirror(path)),
            };
        }
        let metadata = ["", "metadata"].map(PathBuf::from);
        let metadata = metadata
            .into_iter()
            .find(|folder| path.join(folder).join(TIMESTAMP).is_file());
        Ok(Self::Folder {
            path: path.to_owned(),
            fd: file.into(),
            metadata: metadata.ok_or_else(|| no_mirror(path))?,
        })
    }

    fn read(&self, name: &Path, limit: u64) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || name.as_os_str().len() > MAX_NAME {
            return Err(sigstore_tuf::Error::Malformed(
                "a file name that leads elsewhere".to_owned(),
            ));
        }
        let too_large = || sigstore_tuf::Error::transport(format!("{} has more than {limit} bytes", name.display()));
        match self {
            Self::Folder { path, fd, .. } => match store::read_beneath(fd.as_fd(), path, name, limit) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.is_missing() => Ok(None),
                Err(error) => Err(sigstore_tuf::Error::transport(error.to_string())),
            },
            Self::Tar { files, .. } => match files.get(name) {
                Some(bytes) if bytes.len() as u64 > limit => Err(too_large()),
                found => Ok(found.cloned()),
            },
        }
    }

    fn metadata(&self) -> &Path {
        match self {
            Self::Folder { metadata, .. } | Self::Tar { metadata, .. } => metadata,
        }
    }

    fn target(&self, name: &str, limit: u64) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        let beside = self.metadata().parent().map(|above| above.join("targets"));
        for folder in [Some(self.metadata().join("targets")), beside].into_iter().flatten() {
            if let Some(bytes) = self.read(&folder.join(name), limit)? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

fn no_mirror(path: &Path) -> UpdateError {
    UpdateError::Unreachable(format!(
        "{} holds no {TIMESTAMP}: it is no copy of a TUF repository",
        path.display()
    ))
}

/// The files of a tar, by their paths.
fn unpack(file: File) -> std::io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let invalid = |what: String| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut files = BTreeMap::new();
    let mut left = MAX_TAR;
    for (count, entry) in archive.entries()?.enumerate() {
        let entry = entry?;
        if count >= MAX_FILES {
            return Err(invalid(format!("it holds more than {MAX_FILES} files")));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name: PathBuf = entry
            .path()?
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        let size = entry.size();
        if size > left {
            return Err(invalid(format!("its files have more than {MAX_TAR} bytes")));
        }
        left -= size;
        let mut bytes = Vec::new();
        entry.take(size).read_to_end(&mut bytes)?;
        files.insert(name, bytes);
    }
    Ok(files)
}

impl Repository for Mirror {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        let read = self.read(&self.metadata().join(name), max_length);
        Box::pin(async move { read })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        let read = self.target(path, max_length);
        Box::pin(async move { read })
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsBigEndian as _;
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::{Value, json};

    use super::*;

    /// A TUF repository with one key for everything, and the files as they are served.
    struct Repo {
        keys: Vec<(String, Ed25519KeyPair)>,
        threshold: usize,
        files: BTreeMap<PathBuf, Vec<u8>>,
    }

    const DAY: i64 = 24;

    fn later(hours: i64) -> String {
        format!("{:.0}", Timestamp::now() + SignedDuration::from_hours(hours))
    }

    impl Repo {
        fn new() -> Self {
            let key = Ed25519KeyPair::generate().unwrap();
            let mut repo = Self {
                keys: vec![("key".to_owned(), key)],
                threshold: 1,
                files: BTreeMap::new(),
            };
            repo.root(1);
            repo.publish(1, TRUSTED, 7 * DAY);
            repo
        }

        fn sign(&self, signed: &Value) -> Vec<u8> {
            let text = sigstore_tuf::canonical_json::to_canonical_bytes(signed).unwrap();
            let signatures: Vec<_> = self
                .keys
                .iter()
                .map(|(id, key)| json!({ "keyid": id, "sig": hex::encode(key.sign(&text)) }))
                .collect();
            serde_json::to_vec(&json!({ "signed": signed, "signatures": signatures })).unwrap()
        }

        fn put(&mut self, name: &str, signed: &Value) {
            let bytes = self.sign(signed);
            self.files.insert(name.into(), bytes);
        }

        fn root(&mut self, version: u64) {
            let keys: serde_json::Map<String, Value> = self
                .keys
                .iter()
                .map(|(id, key)| {
                    let public = hex::encode(key.public_key().as_ref());
                    let key = json!({ "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public } });
                    (id.clone(), key)
                })
                .collect();
            let ids: Vec<_> = keys.keys().cloned().collect();
            let role = json!({ "keyids": ids, "threshold": self.threshold });
            let mut timestamp = role.clone();
            timestamp["x-tuf-on-ci-expiry-period"] = json!(7);
            self.put(
                &format!("{version}.root.json"),
                &json!({
                    "_type": "root", "spec_version": "1.0.31", "version": version, "expires": later(365 * DAY),
                    "consistent_snapshot": true, "keys": keys,
                    "roles": { "root": role, "snapshot": role, "targets": role, "timestamp": timestamp },
                }),
            );
        }

        /// Publishes a trusted root under `version` of everything.
        fn publish(&mut self, version: u64, trusted: &str, hours: i64) {
            let hash = Digest::of(trusted.as_bytes()).hex();
            self.files
                .insert(format!("targets/{hash}.{TARGET}").into(), trusted.into());
            let signed = |kind: &str, hours: i64| json!({ "_type": kind, "spec_version": "1.0.31", "version": version, "expires": later(hours) });
            let mut targets = signed("targets", 365 * DAY);
            targets["targets"] = json!({ TARGET: { "length": trusted.len(), "hashes": { "sha256": hash } } });
            self.put(&format!("{version}.targets.json"), &targets);
            let mut snapshot = signed("snapshot", 365 * DAY);
            snapshot["meta"] = json!({ "targets.json": { "version": version } });
            self.put(&format!("{version}.snapshot.json"), &snapshot);
            let pin = self.files.get(Path::new(&format!("{version}.snapshot.json"))).unwrap();
            let pin = json!({ "version": version, "length": pin.len(), "hashes": { "sha256": Digest::of(pin).hex() } });
            let mut timestamp = signed("timestamp", hours);
            timestamp["meta"] = json!({ "snapshot.json": pin });
            self.put(TIMESTAMP, &timestamp);
        }

        fn trusted(&self) -> Vec<u8> {
            self.files.get(Path::new("1.root.json")).unwrap().clone()
        }

        fn mirror(&self) -> Box<dyn Repository> {
            Box::new(Mirror::Tar {
                files: self.files.clone(),
                metadata: PathBuf::new(),
            })
        }
    }

    const TRUSTED: &str = sigstore_verify::trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;
    const OTHER: &str = sigstore_verify::trust_root::SIGSTORE_GITHUB_TRUSTED_ROOT;

    struct Node {
        _folder: tempfile::TempDir,
        state: StateDir,
        root: Root,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let state = StateDir::open(&folder.path().canonicalize().unwrap().join("state")).unwrap();
            Self {
                _folder: folder,
                state,
                root: Root::builtin("public-good", Builtin::Sigstore),
            }
        }

        fn refresh(&self, trusted: &[u8], repo: &Repo) -> Result<Updated, UpdateError> {
            refresh(&self.state, &self.root, trusted, repo.mirror())
        }

        fn current(&self) -> String {
            current(&self.state, &self.root).unwrap().0.json
        }
    }

    #[test]
    fn a_root_is_refreshed_and_kept() {
        let (node, mut repo) = (Node::new(), Repo::new());
        let trusted = repo.trusted();
        assert_eq!(node.current(), node.root.json);
        let first = node.refresh(&trusted, &repo).unwrap();
        assert_eq!((first.digest, first.changed), (Digest::of(TRUSTED.as_bytes()), false));
        repo.publish(2, OTHER, 7 * DAY);
        let second = node.refresh(&trusted, &repo).unwrap();
        assert!(second.changed);
        assert_eq!(node.current(), OTHER);
        assert!(!node.refresh(&trusted, &repo).unwrap().changed);
        // The time at which the repository signed its timestamp has passed.
        let mark = Clock::read(&node.state).mark.unwrap();
        assert!(mark > Timestamp::now() - SignedDuration::from_hours(1), "{mark}");
        // Another root under the same identifier is not this one.
        let github = Root::builtin("public-good", Builtin::Github);
        assert_eq!(current(&node.state, &github).unwrap().0, github);
    }

    #[test]
    fn the_way_to_a_new_root_of_tuf_is_walked() {
        let (node, mut repo) = (Node::new(), Repo::new());
        let trusted = repo.trusted();
        let new = ("new".to_owned(), Ed25519KeyPair::generate().unwrap());
        repo.keys.push(new);
        repo.root(2);
        repo.keys.remove(0);
        repo.publish(2, OTHER, DAY);
        node.refresh(&trusted, &repo).unwrap();
        assert_eq!(node.current(), OTHER);
        repo.keys[0].1 = Ed25519KeyPair::generate().unwrap();
        repo.root(3);
        assert_eq!(node.refresh(&trusted, &repo).unwrap_err().code(), "tuf-signature");
    }

    /// What a repository that was refreshed from once may not do afterwards.
    #[test]
    fn attacks_on_the_repository_are_refused_and_change_nothing() {
        type Attack = fn(&mut Repo);
        let attacks: [(&str, &str, Attack); 13] = [
            ("rollback of everything", "tuf-rollback", |repo| {
                repo.publish(1, TRUSTED, 7 * DAY)
            }),
            ("freeze: an expired timestamp", "tuf-expired", |repo| {
                repo.publish(6, TRUSTED, -1)
            }),
            ("freeze: an expired targets role", "tuf-expired", |repo| {
                repo.publish(6, TRUSTED, DAY);
                expire(repo, "6.targets.json");
            }),
            ("mix and match: an older snapshot", "tuf-mismatch", |repo| {
                let old = repo.files.get(Path::new("5.snapshot.json")).unwrap().clone();
                repo.publish(6, TRUSTED, DAY);
                repo.files.insert("6.snapshot.json".into(), old);
            }),
            ("mix and match: older targets", "tuf-mismatch", |repo| {
                let old = repo.files.get(Path::new("5.targets.json")).unwrap().clone();
                repo.publish(6, TRUSTED, DAY);
                repo.files.insert("6.targets.json".into(), old);
            }),
            ("another target", "tuf-mismatch", |repo| {
                repo.publish(6, TRUSTED, DAY);
                for (name, bytes) in &mut repo.files {
                    if name.starts_with("targets") {
                        *bytes.last_mut().unwrap() ^= 1;
                    }
                }
            }),
            ("a stranger's key", "tuf-signature", |repo| {
                repo.keys[0].1 = Ed25519KeyPair::generate().unwrap();
                repo.publish(6, TRUSTED, DAY);
            }),
            ("one signature twice", "tuf-signature", |repo| {
                repo.publish(6, TRUSTED, DAY);
                let bytes = repo.files.get_mut(Path::new(TIMESTAMP)).unwrap();
                let mut document: Value = serde_json::from_slice(bytes).unwrap();
                let again = document["signatures"][0].clone();
                document["signatures"].as_array_mut().unwrap().push(again);
                *bytes = serde_json::to_vec(&document).unwrap();
            }),
            ("one key under two names", "tuf-signature", |repo| {
                let (_, key) = &repo.keys[0];
                let twin = Ed25519KeyPair::from_seed_unchecked(key.seed().unwrap().as_be_bytes().unwrap().as_ref());
                repo.keys.push(("twin".to_owned(), twin.unwrap()));
                repo.threshold = 2;
                repo.root(2);
                repo.publish(6, TRUSTED, DAY);
            }),
            ("a skipped root", "tuf-rollback", |repo| {
                repo.root(3);
                let bytes = repo.files.remove(Path::new("3.root.json")).unwrap();
                repo.files.insert("2.root.json".into(), bytes);
            }),
            ("nothing", "tuf-unreachable", |repo| repo.files.clear()),
            ("an endless timestamp", "tuf-unreachable", |repo| {
                repo.files.insert(TIMESTAMP.into(), vec![b' '; 1 << 20]);
            }),
            ("a trusted root of nothing", "tuf-root-unusable", |repo| {
                let empty = json!({ "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1" });
                repo.publish(6, &empty.to_string(), DAY);
            }),
        ];
        for (what, code, attack) in attacks {
            let (node, mut repo) = (Node::new(), Repo::new());
            let trusted = repo.trusted();
            repo.publish(5, OTHER, 7 * DAY);
            node.refresh(&trusted, &repo).unwrap();
            let before = node
                .state
                .subdir(DIRECTORY)
                .unwrap()
                .read("public-good.json", MAX_BYTES)
                .unwrap();
            attack(&mut repo);
            let error = node.refresh(&trusted, &repo).unwrap_err();
            assert_eq!(error.code(), code, "{what}: {error}");
            let after = node
                .state
                .subdir(DIRECTORY)
                .unwrap()
                .read("public-good.json", MAX_BYTES)
                .unwrap();
            assert!(before == after, "{what}");
            assert_eq!(node.current(), OTHER, "{what}");
        }
    }

    fn expire(repo: &mut Repo, name: &str) {
        let bytes = repo.files.get(Path::new(name)).unwrap();
        let mut document: Value = serde_json::from_slice(bytes).unwrap();
        document["signed"]["expires"] = json!(later(-1));
        repo.put(name, &document["signed"]);
    }

    #[test]
    fn a_clock_that_was_turned_back_makes_nothing_current() {
        let (node, mut repo) = (Node::new(), Repo::new());
        repo.publish(2, OTHER, 10 * DAY);
        let ahead =
            super::super::clock::Mark::new(Timestamp::now() + SignedDuration::from_hours(20 * DAY), String::new());
        node.state.write("clock", &serde_json::to_vec(&ahead).unwrap()).unwrap();
        assert_eq!(node.refresh(&repo.trusted(), &repo).unwrap_err().code(), "tuf-expired");
    }

    #[test]
    fn a_damaged_root_is_said_and_replaced_by_the_next_refresh() {
        let (node, repo) = (Node::new(), Repo::new());
        node.refresh(&repo.trusted(), &repo).unwrap();
        let directory = node.state.subdir(DIRECTORY).unwrap();
        let whole = directory.read("public-good.json", MAX_BYTES).unwrap().unwrap();
        let edited = String::from_utf8(whole.clone())
            .unwrap()
            .replace("rekor.sigstore.dev", "rekor.sigstore.bad");
        for bytes in [&whole[..whole.len() / 2], b"", b"{}", edited.as_bytes()] {
            directory.write("public-good.json", bytes).unwrap();
            assert!(matches!(current(&node.state, &node.root), Err(ReadError::Corrupt(_))));
            node.refresh(&repo.trusted(), &repo).unwrap();
            assert!(current(&node.state, &node.root).is_ok());
        }
    }

    #[test]
    fn the_roots_of_this_program_can_start_and_are_of_the_day_that_is_said() {
        for instance in [SigstoreInstance::PublicGood, SigstoreInstance::GitHub] {
            let updater = Updater::new(
                Mirror::Tar {
                    files: BTreeMap::new(),
                    metadata: PathBuf::new(),
                },
                instance.tuf_root(),
            )
            .unwrap();
            check_keys(updater.trusted().root()).unwrap();
        }
        let manifest = include_str!("../../Cargo.toml");
        let pinned = format!("sigstore-trust-root = {{ version = \"={}\"", EMBEDDED.0);
        assert!(
            manifest.contains(&pinned),
            "another version brings other roots: set their day in EMBEDDED"
        );
        assert_eq!(EMBEDDED.1.to_string(), "2026-10-23T00:00:00Z");
    }

    #[test]
    fn mirrors_are_folders_and_tars_with_metadata_in_either_place() {
        let repo = Repo::new();
        let folder = tempfile::tempdir().unwrap();
        let flat = folder.path().join("flat");
        let deep = folder.path().join("deep");
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in &repo.files {
            let apart = if name.starts_with("targets") {
                name.clone()
            } else {
                Path::new("metadata").join(name)
            };
            for path in [flat.join(name), deep.join(apart)] {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, Path::new("./mirror").join(name), &bytes[..])
                .unwrap();
        }
        let tar = folder.path().join("mirror.tar");
        fs::write(&tar, archive.into_inner().unwrap()).unwrap();
        for place in [&flat, &deep, &tar] {
            let node = Node::new();
            let mirror = Box::new(Mirror::open(place).unwrap());
            refresh(&node.state, &node.root, &repo.trusted(), mirror).unwrap();
            assert!(
                node.state
                    .subdir(DIRECTORY)
                    .unwrap()
                    .read("public-good.json", MAX_BYTES)
                    .unwrap()
                    .is_some()
            );
        }
        let secret = folder.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, flat.join("link.json")).unwrap();
        let mirror = Mirror::open(&flat).unwrap();
        for name in ["../secret", "/etc/passwd", "link.json", "a/../../secret"] {
            assert!(!matches!(mirror.read(Path::new(name), 9), Ok(Some(_))), "{name}");
        }
        for (path, said) in [
            (folder.path().to_owned(), "is no copy of a TUF repository"),
            (secret, "failed to read entire block"),
            (folder.path().join("none"), "No such file"),
        ] {
            let error = Mirror::open(&path).unwrap_err();
            assert_eq!(error.code(), "tuf-unreachable");
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
