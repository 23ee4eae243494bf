//! Putting a policy in force, and reading the one that is.
//!
//! Policy and trust are validated together and written as one document below the state directory; the way of a
//! container reads nothing else. A fault in the sources leaves the document as it was.

use jiff::Timestamp;

use super::{Active, Checked, check};
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::digest::Digest;
use crate::store::{self, StateDir};

/// Version of the [`Active`] document.
pub const VERSION: u32 = 1;

/// Largest document that is read.
const MAX_BYTES: u64 = 8 << 20;

const DIRECTORY: &str = "active";
const FILE: &str = "policy.json";
/// Where a document that could not be used is kept for whoever wants to know why.
const SET_ASIDE: &str = "policy.json.corrupt";
const LOCK: &str = "lock";

/// What an activation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// Generation of the policy that is now in force.
    pub generation: u64,
    /// False when the sources say what was in force already.
    pub changed: bool,
    /// Number of rules.
    pub rules: usize,
    /// Number of keys.
    pub keys: usize,
    /// Why the document before was set aside instead of being replaced.
    pub set_aside: Option<String>,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

/// Why nothing was activated. The policy that was in force still is.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The sources are wrong.
    #[error("{0}")]
    Sources(#[from] Diagnostics),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] store::Error),
    /// The document cannot be written as JSON.
    #[error("the policy cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// The document would be larger than its readers accept.
    #[error("the activated policy would have {0} bytes, more than the {MAX_BYTES} that are accepted; list less in it")]
    TooLarge(usize),
}

/// Why there is no policy to decide by. Every container is refused then.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing was activated on this node.
    #[error("no policy is active on this node")]
    Missing,
    /// The state directory or the document cannot be read safely.
    #[error("the active policy cannot be read: {0}")]
    State(#[from] store::Error),
    /// The document is not what was written.
    #[error("the active policy is corrupt: {0}")]
    Corrupt(#[from] serde_json::Error),
    /// The document is of another version of Assay.
    #[error("the active policy has format {0}, and this version of Assay reads format {VERSION}")]
    Version(u32),
}

impl LoadError {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "policy-missing",
            Self::State(_) => "policy-unreadable",
            Self::Corrupt(_) => "policy-corrupt",
            Self::Version(_) => "policy-version",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        "an administrator runs: assay policy apply"
    }
}

/// Validates the sources that the configuration names and puts them in force.
///
/// # Errors
/// Any fault in the sources, and a state directory that cannot be used. What was in force stays in force.
pub fn activate(config: &Config) -> Result<Activated, ActivateError> {
    let checked = check(&config.policy, &config.trust).map_err(Diagnostics)?;
    let directory = StateDir::open(&config.state)?.subdir(DIRECTORY)?;
    let _lock = directory.lock(LOCK)?;
    let (before, set_aside) = match read(&directory) {
        Ok((before, _)) => (Some(before), None),
        Err(LoadError::Missing) => (None, None),
        Err(LoadError::State(error)) => return Err(error.into()),
        // Activating is how a document that cannot be used is replaced.
        Err(error @ (LoadError::Corrupt(_) | LoadError::Version(_))) => {
            directory.rename(FILE, SET_ASIDE)?;
            (None, Some(error.to_string()))
        }
    };
    let mut activated = Activated {
        generation: before.as_ref().map_or(0, |before| before.generation),
        changed: false,
        rules: checked.rules.len(),
        keys: checked.keys.len(),
        set_aside,
        warnings: checked.warnings.clone(),
    };
    if before.is_some_and(|before| says_the_same(&before, &checked)) {
        return Ok(activated);
    }
    activated.generation += 1;
    activated.changed = true;
    let active = Active {
        version: VERSION,
        generation: activated.generation,
        time: Timestamp::now(),
        sources: checked.sources,
        keys: checked.keys,
        deny: checked.deny,
        rules: checked.rules,
    };
    let bytes = serde_json::to_vec(&active)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ActivateError::TooLarge(bytes.len()));
    }
    directory.write(FILE, &bytes)?;
    Ok(activated)
}

fn says_the_same(active: &Active, checked: &Checked) -> bool {
    active.sources == checked.sources
        && active.keys == checked.keys
        && active.deny == checked.deny
        && active.rules == checked.rules
}

/// The policy in force and the digest of its document, which changes whenever the policy does.
///
/// # Errors
/// When nothing was activated, or what was cannot be read safely and completely.
pub fn load_active(state: &StateDir) -> Result<(Active, Digest), LoadError> {
    read(&state.subdir(DIRECTORY)?)
}

fn read(directory: &StateDir) -> Result<(Active, Digest), LoadError> {
    let bytes = directory.read(FILE, MAX_BYTES)?.ok_or(LoadError::Missing)?;
    parse(&bytes).map(|active| (active, Digest::of(&bytes)))
}

fn parse(bytes: &[u8]) -> Result<Active, LoadError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    // First alone, since another version may have other fields.
    let Version { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(LoadError::Version(version));
    }
    Ok(serde_json::from_slice(bytes)?)
}
