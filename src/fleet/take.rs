//! Taking what a registry or a file offers: signed, whole, sound and newer, or not at all.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Instant;

use super::{ARTIFACT, File, MAX_FILES, Offer, folder};
use crate::admission::parser::{self, ParserFault};
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::digest::Digest;
use crate::evidence::{self, ImportError, Pull, PullError, Question, Source, SourceError};
use crate::oci::registry::{Client, RegistryError, Repository};
use crate::oci::{self, Descriptor, Layout, LayoutError, Manifest, Reference};
use crate::policy::activate::{ActivateError, Activated, activate, load_active};
use crate::policy::{FLEET, FOLDERS, Kept, Sources, check};
use crate::store::{self, StateDir};
use crate::trust::clock::Clock;
use crate::trust::{self, Use, update};
use crate::verify::{Claim, Signer};

/// Below [`FLEET`]: what is offered, with its signatures, until it was looked at.
const OFFERED: &str = "offered";
const DOWNLOADS: &str = "downloads";
const LOCK: &str = ".lock";
/// Most reasons that are listed why a signature does not count.
const MAX_REASONS: usize = 4;

/// Where a policy is offered.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// In a registry, with its signatures; by HTTP instead of HTTPS where the flag says so.
    Registry(&'a Reference, bool),
    /// As an OCI image layout with its signatures, a folder or a tar.
    File(&'a Path),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// What the node keeps now.
    pub kept: Kept,
    /// Whether it kept another version before.
    pub is_new: bool,
    /// Whether it should have been replaced by now.
    pub is_expired: bool,
    /// What putting it in force did.
    pub activated: Activated,
}

/// Why it was not taken. What was in force still is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The registry does not give it.
    #[error("it cannot be had: {0}")]
    Unreachable(String),
    /// The folder or file cannot be read.
    #[error("it cannot be had: {0}")]
    Source(#[from] SourceError),
    /// It is no policy, or not one.
    #[error("it is no policy as assay policy pack makes it: {0}")]
    Artifact(String),
    /// A blob of it is missing or broken.
    #[error("it is not whole: {0}; copy it again")]
    Incomplete(String),
    /// Nobody signed it who may.
    #[error("no key of this node's trust with use = [\"policy\"] signed it ({digest}){reasons}")]
    Unsigned {
        /// Its manifest.
        digest: Digest,
        /// What was wrong with the signatures that there are.
        reasons: String,
    },
    /// Signatures cannot be judged.
    #[error("its signatures cannot be judged: {0}; {fix}", fix = .0.fix())]
    Parser(#[from] ParserFault),
    /// It is older than what the node keeps.
    #[error(
        "it has version {offered}, and this node keeps version {kept}: whoever offers it goes back; to go back on purpose, \
         pack the old files with a higher version"
    )]
    Rollback {
        /// Its version.
        offered: u64,
        /// What is kept.
        kept: u64,
    },
    /// The version is that of other content.
    #[error(
        "it has version {version} as what this node keeps, and other content ({kept} is kept); a change needs a higher version"
    )]
    Replaced {
        /// The version of both.
        version: u64,
        /// Manifest of what is kept.
        kept: Digest,
    },
    /// It should have been replaced already.
    #[error("it expired at {0}; pack it again with a higher version and a later expiry, and check this node's clock")]
    Expired(jiff::Timestamp),
    /// What it says is wrong on this node.
    #[error("{0}")]
    Faulty(Diagnostics),
    /// It cannot be put in force.
    #[error("{0}")]
    Activate(#[from] ActivateError),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] store::Error),
    /// What the node keeps cannot be used.
    #[error("{0}")]
    Kept(Diagnostics),
    /// There is no event loop.
    #[error("the event loop cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
}

impl FleetError {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) | Self::Source(_) => "fleet-unreachable",
            Self::Artifact(_) => "fleet-artifact",
            Self::Incomplete(_) => "fleet-incomplete",
            Self::Unsigned { .. } => "fleet-unsigned",
            Self::Parser(fault) => fault.code(),
            Self::Rollback { .. } => "fleet-rollback",
            Self::Replaced { .. } => "fleet-replaced",
            Self::Expired(_) => "fleet-expired",
            Self::Faulty(_) => "fleet-faulty",
            Self::Activate(_) => "fleet-activate",
            Self::State(_) => "state-unusable",
            Self::Kept(_) => "fleet-kept",
            Self::Runtime(_) => "runtime-start",
        }
    }
}

impl From<RegistryError> for FleetError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Digest { .. } | RegistryError::TooLarge { .. } => Self::Incomplete(error.to_string()),
            error => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<LayoutError> for FleetError {
    fn from(error: LayoutError) -> Self {
        Self::Incomplete(error.to_string())
    }
}

/// Takes the policy that is offered at `place`, keeps it, and puts it in force together with this node's own.
///
/// Keys are those of the trust that this node has before: its own, and its fleet's as it is kept. So whoever holds a key
/// that counts now says which keys count next.
///
/// # Errors
/// See [`FleetError`]. What was kept and in force stays so.
pub fn take(config: &Config, place: Place<'_>) -> Result<Taken, FleetError> {
    let kept = |fault: Diagnostic| FleetError::Kept(Diagnostics(vec![fault]));
    let state = StateDir::open(&config.state)?;
    let fleet = state.subdir(FLEET)?;
    let _lock = fleet.lock(LOCK)?;
    let before = Kept::read(&config.state).map_err(kept)?;
    let sources = Sources::of(config).map_err(kept)?;

    clear(&fleet, OFFERED)?;
    let offered = fleet.subdir(OFFERED)?;
    let found = Found::at(place, &fleet, &offered)?;
    let offer = Offer::of(&found.manifest).map_err(FleetError::Artifact)?;
    let signer = signer(config, &state, &sources, &offered, &found)?;
    let clock = Clock::read(&state);
    let is_expired = clock.mark.map_or(clock.now, |mark| mark.max(clock.now)) >= offer.expires;
    let kept = match before {
        Some(before) if before.version > offer.version => {
            return Err(FleetError::Rollback {
                offered: offer.version,
                kept: before.version,
            });
        }
        Some(before) if before.version == offer.version && before.digest != found.digest => {
            return Err(FleetError::Replaced {
                version: before.version,
                kept: before.digest,
            });
        }
        Some(before) if before.version == offer.version => {
            let activated = activate(config)?;
            clear(&fleet, OFFERED)?;
            return Ok(Taken {
                kept: before,
                is_new: false,
                is_expired,
                activated,
            });
        }
        _ if is_expired => return Err(FleetError::Expired(offer.expires)),
        _ => Kept::new(found.digest, offer.version, offer.expires, signer, found.from.clone()),
    };
    let files = unpack(&found.layer(&offer.layer)?)?;
    let name = folder(kept.digest);
    clear(&fleet, &name)?;
    let home = write(&fleet, &name, &files)?;
    if let Err(faults) = check(&Sources::own(config).and(home.path())) {
        clear(&fleet, &name)?;
        return Err(FleetError::Faulty(Diagnostics(faults)));
    }
    kept.write(&fleet)?;
    let activated = activate(config)?;
    sweep(&fleet, &name)?;
    Ok(Taken {
        kept,
        is_new: true,
        is_expired,
        activated,
    })
}

/// What is offered.
struct Found {
    digest: Digest,
    manifest: Manifest,
    from: String,
    blobs: Blobs,
    /// What was wrong with the rest of it.
    faults: Vec<String>,
}

enum Blobs {
    Registry(tokio::runtime::Runtime, Box<Repository>),
    Source(Source),
}

impl Found {
    /// Looks at what is offered, and puts its signatures into the layout `offered`.
    fn at(place: Place<'_>, fleet: &StateDir, offered: &StateDir) -> Result<Self, FleetError> {
        match place {
            Place::Registry(reference, plain) => Self::in_registry(reference, plain, fleet, offered),
            Place::File(path) => Self::in_file(path, offered),
        }
    }

    fn in_registry(
        reference: &Reference,
        plain: bool,
        fleet: &StateDir,
        offered: &StateDir,
    ) -> Result<Self, FleetError> {
        let what = Pull {
            images: std::slice::from_ref(reference),
            referrers_from: None,
            plain_http: plain,
        };
        let pulled = evidence::pull(offered, &fleet.subdir(DOWNLOADS)?, what, &mut |_, _| {}).map_err(unreachable)?;
        let faults: Vec<String> = pulled.faults.iter().map(|fault| fault.obstacle.to_string()).collect();
        let Some(image) = pulled.images.first() else {
            return Err(FleetError::Unreachable(faults.join("; ")));
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(FleetError::Runtime)?;
        let repository = Client::new(plain)?.repository(reference)?;
        let document = runtime.block_on(repository.manifest(image.digest))?;
        let document = document.ok_or_else(|| FleetError::Incomplete(format!("{} is gone", image.digest)))?;
        Ok(Self {
            digest: image.digest,
            manifest: Manifest::parse(&document.bytes, &document.descriptor.media_type)
                .map_err(|error| FleetError::Artifact(error.to_string()))?,
            from: reference.to_string(),
            blobs: Blobs::Registry(runtime, Box::new(repository)),
            faults,
        })
    }

    fn in_file(path: &Path, offered: &StateDir) -> Result<Self, FleetError> {
        let source = Source::open(path)?;
        let layout = Layout::new(&source);
        let mut policies = Vec::new();
        for entry in layout
            .index()?
            .iter()
            .filter(|entry| oci::is_manifest(&entry.media_type))
        {
            let is_known = policies.iter().any(|(digest, _)| *digest == entry.digest);
            // What cannot be read may be a signature, which is looked at elsewhere.
            if let (false, Ok(manifest)) = (is_known, layout.manifest(entry))
                && manifest.artifact_type.as_deref() == Some(ARTIFACT)
            {
                policies.push((entry.digest, manifest));
            }
        }
        let count = policies.len();
        let (Some((digest, manifest)), 1) = (policies.pop(), count) else {
            return Err(FleetError::Artifact(format!(
                "{} holds {count} manifests of type {ARTIFACT}, not one",
                path.display()
            )));
        };
        let report = evidence::import(offered, &[path.to_owned()]).map_err(|error| match error {
            ImportError::Source(error) => error.into(),
            ImportError::Store(error) => error.into(),
            error => FleetError::Incomplete(error.to_string()),
        })?;
        Ok(Self {
            digest,
            manifest,
            from: path.display().to_string(),
            blobs: Blobs::Source(source),
            faults: report
                .skipped
                .iter()
                .map(|skipped| skipped.reason.to_string())
                .collect(),
        })
    }

    /// The layer, which is no larger than what is accepted.
    fn layer(&self, layer: &Descriptor) -> Result<Vec<u8>, FleetError> {
        match &self.blobs {
            Blobs::Registry(runtime, repository) => runtime
                .block_on(repository.blob(layer))?
                .ok_or_else(|| FleetError::Incomplete(format!("the registry does not have {}", layer.digest))),
            Blobs::Source(source) => Ok(Layout::new(source).blob(layer, layer.size)?),
        }
    }
}

fn unreachable(error: PullError) -> FleetError {
    match error {
        PullError::Store(error) => error.into(),
        PullError::Registry(error) => error.into(),
        error => FleetError::Unreachable(error.to_string()),
    }
}

/// The key that signed what is offered.
fn signer(
    config: &Config,
    state: &StateDir,
    sources: &Sources,
    offered: &StateDir,
    found: &Found,
) -> Result<String, FleetError> {
    let trust = trust::load(&sources.trust).map_err(|faults| FleetError::Kept(Diagnostics(faults)))?;
    // Before anything was activated nothing is denied.
    let denied = load_active(state)
        .map(|(active, _)| active.deny.key)
        .unwrap_or_default();
    let question = Question {
        subjects: vec![found.digest],
        keys: trust.keys.into_iter().filter(|key| !denied.contains(&key.id)).collect(),
        // One that was refreshed and cannot be used is the one of trust; doctor says so.
        roots: (trust.roots.iter())
            .map(|root| update::current(state, root).map_or_else(|_| root.clone(), |(current, _)| current))
            .collect(),
        purpose: Some(Use::Policy),
        now: Clock::read(state).now,
        ..Question::default()
    };
    let answer = parser::ask(offered.as_fd(), &question, Instant::now() + config.admit_timeout)?.answer;
    let signed = answer.facts.into_iter().find_map(|fact| match fact.proof.signer {
        Signer::Key(key) if fact.subject == found.digest && fact.claim == Claim::ImageSignature => Some(key),
        _ => None,
    });
    signed.ok_or_else(|| {
        let findings = answer
            .findings
            .iter()
            .map(|finding| format!("{}: {}", finding.code, finding.text));
        let reasons: Vec<String> = findings.chain(found.faults.iter().cloned()).take(MAX_REASONS).collect();
        FleetError::Unsigned {
            digest: found.digest,
            reasons: match reasons.as_slice() {
                [] => String::new(),
                reasons => format!(": {}", reasons.join("; ")),
            },
        }
    })
}

/// The files in a layer. Its size is known to be small.
fn unpack(layer: &[u8]) -> Result<Vec<File>, FleetError> {
    let malformed = |error: std::io::Error| FleetError::Artifact(format!("its layer is not a readable tar: {error}"));
    let mut files: Vec<File> = Vec::new();
    for entry in tar::Archive::new(layer).entries().map_err(malformed)? {
        let mut entry = entry.map_err(malformed)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |why: &str| FleetError::Artifact(format!("its layer holds '{}', {why}", oci::shorten(&path)));
        if entry.header().entry_type() != tar::EntryType::Regular {
            return Err(refused("which is no plain file"));
        }
        if files.len() == MAX_FILES {
            return Err(FleetError::Artifact(format!(
                "its layer holds more than {MAX_FILES} files"
            )));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(malformed)?;
        let file = File::at(&path, bytes).ok_or_else(|| {
            refused(&format!(
                "and a policy is made of plain files in {}",
                FOLDERS.join(", ")
            ))
        })?;
        if files
            .iter()
            .any(|known| (known.folder, &known.name) == (file.folder, &file.name))
        {
            return Err(refused("twice"));
        }
        files.push(file);
    }
    Ok(files)
}

/// Writes files into the folder `name`.
fn write(fleet: &StateDir, name: &str, files: &[File]) -> Result<StateDir, store::Error> {
    let home = fleet.subdir(name)?;
    for folder in FOLDERS {
        let place = home.subdir(folder)?;
        for file in files.iter().filter(|file| file.folder == folder) {
            place.write_unsynced(&file.name, &file.bytes)?;
        }
        place.sync()?;
    }
    home.sync()?;
    fleet.sync()?;
    Ok(home)
}

/// Removes the folder `name`, if there is one.
fn clear(fleet: &StateDir, name: &str) -> Result<(), store::Error> {
    let path = fleet.path().join(name);
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(store::Error::Io {
            action: "remove",
            path,
            source: rustix::io::Errno::from_io_error(&source).unwrap_or(rustix::io::Errno::IO),
        }),
        _ => Ok(()),
    }
}

/// Removes every folder but that of the policy that is kept.
fn sweep(fleet: &StateDir, kept: &str) -> Result<(), store::Error> {
    let names = store::names(fleet.as_fd(), fleet.path())?.collect::<Result<Vec<_>, _>>()?;
    for name in names {
        if name != kept && fleet.path().join(&name).is_dir() {
            clear(fleet, &name)?;
        }
    }
    Ok(())
}
