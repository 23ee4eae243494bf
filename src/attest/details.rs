//! What a rule can ask about the predicate of an attestation, read into types with bounds.

use serde::{Deserialize, Serialize};

use super::{Family, Profile, Provenance, Summary, profile};
use crate::digest::Digest;
use crate::oci::json;

/// Longest text that is kept of a predicate, in bytes. Anything longer is refused, never cut: a cut text could match
/// what the whole one does not.
pub const MAX_TEXT: usize = 2048;

/// Predicate types of SLSA provenance.
pub const PROVENANCE: &str = "https://slsa.dev/provenance";
/// Predicate types of SLSA verification summaries.
pub const SUMMARY: &str = "https://slsa.dev/verification_summary";

/// What the predicate of an attestation says, where a rule can ask about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Details {
    /// How the image was built.
    Provenance(Provenance),
    /// What someone else's verification found.
    Summary(Summary),
    /// What is in the image: digest of the predicate, which is read when the image is.
    Sbom(Digest),
    /// The system calls that it makes.
    Profile(Profile),
}

/// Why a predicate is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PredicateError {
    /// It is missing, or not a document of its type.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// A text that is longer than anything genuine.
    #[error("its {0} has more than {MAX_TEXT} bytes")]
    TooLong(&'static str),
    /// More of something than anything genuine has.
    #[error("it has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// Something that must be said is not.
    #[error("it names no {0}")]
    Missing(&'static str),
    /// A time that is none.
    #[error("its {0} is no RFC 3339 time")]
    Time(&'static str),
    /// A name or number that cannot be one.
    #[error("it has '{0}', which is no {1}")]
    Invalid(String, &'static str),
    /// It says two things about one.
    #[error("it contradicts itself about {0}")]
    Contradiction(&'static str),
    /// A version that is not read.
    #[error("its predicate type is of a version that is not read, {0} are")]
    Version(&'static str),
}

impl Details {
    /// Reads the predicate of a statement of this type; `None` for types that no rule asks anything more about.
    ///
    /// # Errors
    /// A predicate that is not what its type says.
    pub fn parse(predicate_type: &str, predicate: &[u8]) -> Result<Option<Self>, PredicateError> {
        if let Some(version) = version(predicate_type, PROVENANCE) {
            Provenance::parse(version, predicate).map(|read| Some(Self::Provenance(read)))
        } else if let Some(version) = version(predicate_type, SUMMARY) {
            Summary::parse(version, predicate).map(|read| Some(Self::Summary(read)))
        } else if let Some(version) = version(predicate_type, profile::PROFILE) {
            Profile::parse(version, predicate).map(|read| Some(Self::Profile(read)))
        } else if Family::of(predicate_type) == Some(Family::Sbom) {
            Ok(Some(Self::Sbom(Digest::of(predicate))))
        } else {
            Ok(None)
        }
    }
}

impl Details {
    /// What kind of evidence has these.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Provenance(_) => Family::Provenance,
            Self::Summary(_) => Family::Vsa,
            Self::Sbom(_) => Family::Sbom,
            Self::Profile(_) => Family::Profile,
        }
    }

    /// Whether it is within the bounds of what [`Details::parse`] gives, whoever made it.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        match self {
            Self::Provenance(provenance) => provenance.is_bounded(),
            Self::Summary(summary) => summary.is_bounded(),
            Self::Sbom(_) => true,
            Self::Profile(profile) => profile.is_bounded(),
        }
    }
}

/// The version of a predicate type of this family: what follows its slash.
fn version<'a>(predicate_type: &'a str, family: &str) -> Option<&'a str> {
    let rest = predicate_type.strip_prefix(family)?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix('/')
    }
}

/// A text that must be there and have a bounded length.
pub(super) fn bounded(what: &'static str, text: Option<String>) -> Result<String, PredicateError> {
    match text {
        None => Err(PredicateError::Missing(what)),
        Some(text) if text.is_empty() => Err(PredicateError::Missing(what)),
        Some(text) if text.len() > MAX_TEXT => Err(PredicateError::TooLong(what)),
        Some(text) => Ok(text),
    }
}
