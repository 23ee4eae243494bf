//! What is asked about the evidence in a layout.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attest::Condition;
use crate::digest::Digest;
use crate::trust::{Key, Root, TextPattern, TrustStore, Use};
use crate::verify::{Claim, Identity, Problem};

/// What is asked about the evidence in a layout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Manifests, indexes and configurations that signatures may be about.
    pub subjects: Vec<Digest>,
    /// Keys whose signatures may count.
    pub keys: Vec<Key>,
    /// Roots under which certificates, log entries and timestamps may count.
    pub roots: Vec<Root>,
    /// Trust stores under which signatures of the Notary Project may count.
    pub notation: Vec<TrustStore>,
    /// Who certifies the signers that policy names; certificates by others are not even verified.
    pub certifiers: Vec<Certifier>,
    /// Signers that the deny list names, whoever certifies them.
    pub denied: Denied,
    /// Conditions that may hold for predicates.
    pub conditions: Vec<Condition>,
    /// What keys must be for, where it is not an image that is asked about: what signs it signs that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<Use>,
    /// Whether statements without signature may count by a signature of an index that lists them.
    pub through_index: bool,
    /// The node's own time.
    pub now: Timestamp,
}

/// Who certifies a signer that policy names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certifier {
    /// Identifier of the root.
    pub root: String,
    /// Who vouches for the identity.
    pub issuer: String,
}

/// Signers that the deny list names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denied {
    /// Workflows and services.
    pub uris: Vec<TextPattern>,
    /// Persons.
    pub emails: Vec<String>,
    /// Entries of transparency logs.
    pub log: Vec<DeniedEntry>,
}

/// An entry of a transparency log that the deny list names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeniedEntry {
    /// Identifier of the log, hexadecimal.
    pub log: String,
    /// Number of the entry.
    pub index: u64,
}

impl Denied {
    /// Whether it names this entry of this log.
    #[must_use]
    pub fn lists(&self, log: &str, index: u64) -> bool {
        self.log.iter().any(|entry| entry.log == log && entry.index == index)
    }
}

impl Question {
    /// The use that a key must have for this claim to count.
    ///
    /// # Errors
    /// As [`Claim::needs`].
    pub fn needs(&self, claim: &Claim) -> Result<Use, Problem> {
        match (self.purpose, claim) {
            (Some(purpose), Claim::ImageSignature) => Ok(purpose),
            _ => claim.needs(),
        }
    }

    /// Whether policy wants to know of signatures with a certificate for this identity: some rule names who certifies
    /// it, or the deny list names the identity.
    #[must_use]
    pub fn wants(&self, root: &str, issuer: &str, identity: &Identity) -> bool {
        let certified = |by: &Certifier| by.root == root && by.issuer == issuer;
        self.certifiers.iter().any(certified)
            || match identity {
                Identity::Uri(uri) => self.denied.uris.iter().any(|pattern| pattern.matches(uri)),
                Identity::Email(email) => self.denied.emails.contains(email),
            }
    }
}
