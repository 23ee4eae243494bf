//! Break-glass: what an administrator's key opens for a while although the policy refuses it.
//!
//! A grant is a DSSE envelope whose payload is a [`Grant`], signed by a key of trust with `use = ["grant"]`. Grants are
//! read only from a directory of Assay's state, which is root's: nothing that comes with an image, a pod or its evidence
//! is one. They are verified each time that they are used.

mod envelope;
mod keep;
pub mod sign;

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::oci::shorten;
use crate::store;

pub use envelope::{Unsigned, verify};
pub use keep::{DIRECTORY, Event, Grants, Held, NONE, Record, State, Unusable, add, are_any, node, revoke};

/// `payloadType` of the envelope.
pub const TYPE: &str = "application/vnd.assay.grant.v1+json";
/// Version of the payload.
pub const VERSION: u32 = 1;
/// Code of what a grant opens.
pub const GRANTED: &str = "granted";
/// Longest time between start and end.
pub const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// Largest envelope in bytes.
pub const MAX_ENVELOPE: u64 = 16 << 10;
/// Longest reason in bytes.
pub const MAX_REASON: usize = 256;
/// Longest name in bytes: of a node, a namespace, a container, an owner.
const MAX_NAME: usize = 253;
/// Hexadecimal digits of an identifier: 128 bits.
const ID: usize = 32;

/// What an administrator allows for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// [`VERSION`].
    pub version: u32,
    /// 128 random bits, hexadecimal.
    pub id: String,
    /// What it is about.
    pub subject: Subject,
    /// Where it counts.
    pub scope: Scope,
    /// Whether it also opens further processes that `[rule.exec]` refuses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exec: bool,
    /// Why, in the words of its owner.
    pub reason: String,
    /// Who says that they made it. The key is what is proved.
    pub owner: String,
    /// Its first instant.
    pub not_before: Timestamp,
    /// The instant after its last, at most [`LONGEST`] later.
    pub not_after: Timestamp,
}

/// What a grant is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Every container of an image, by the digest of its manifest or of an index that lists it.
    Image(Digest),
    /// One container.
    Container(Container),
}

/// A container, as containerd names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// containerd namespace.
    pub namespace: String,
    /// Its id.
    pub id: String,
}

/// Where a grant counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// On the node with this host name.
    Node(String),
    /// On every node that trusts its key.
    Fleet,
}

/// What a decision says of the grant that it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Granted {
    /// Its identifier.
    pub id: String,
    /// Why it was made.
    pub reason: String,
    /// Who says that they made it.
    pub owner: String,
    /// The key of trust that signed it.
    pub key: String,
    /// Until when it counts.
    pub until: Timestamp,
    /// Code of the refusal that it took the place of.
    pub refused: String,
    /// The sentence of that refusal.
    pub why: String,
}

/// Why a grant does not count.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] store::Error),
    /// There are more than are looked at.
    #[error(
        "this node has {0} grants that are not over, and none beyond is looked at; make a new one when one of them is over"
    )]
    TooMany(usize),
    /// It is not what its format asks for.
    #[error("it is no grant: {0}")]
    Malformed(String),
    /// The envelope holds something else.
    #[error("its payload is of type '{0}', not {TYPE}")]
    PayloadType(String),
    /// Nobody who is trusted signed it.
    #[error(
        "no key of the trust in force signed it, with the hash of its entry; a key that was added to trust.d counts after: \
         assay policy apply"
    )]
    Unknown,
    /// Somebody who may not signed it.
    #[error("key {0} signed it, which has no use = [\"grant\"]")]
    KeyUse(String),
    /// Somebody who may not any more signed it.
    #[error("key {key} signed it, which does not count: {why}")]
    KeyEnded {
        /// Its identifier in trust.
        key: String,
        /// Why not.
        why: &'static str,
    },
    /// It would last too long.
    #[error("it would last from {from:.0} to {until:.0}, and a grant lasts 24 hours at most")]
    Longer {
        /// Its start.
        from: Timestamp,
        /// Its end.
        until: Timestamp,
    },
    /// It does not count yet.
    #[error("it counts from {0:.0} on")]
    Pending(Timestamp),
    /// It is over.
    #[error("it ended at {0:.0}")]
    Expired(Timestamp),
    /// It was taken back.
    #[error("it was revoked at {0:.0}")]
    Revoked(Timestamp),
    /// It was added before.
    #[error("this node has it already; a grant is added once")]
    Present,
    /// It is for another node.
    #[error(
        "it is for node '{wanted}', and this is '{here}'; write it to a file for that node with -o, and add it there"
    )]
    Node {
        /// The node that it names.
        wanted: String,
        /// The host name of this one.
        here: String,
    },
    /// The time is not known well enough.
    #[error(
        "this node's clock cannot be relied on: it is before a time that has passed, or the record of that is damaged"
    )]
    Clock,
    /// There is no such grant here.
    #[error("this node has no grant, or more than one, whose identifier starts with '{0}'; see: assay grant ls")]
    Missing(String),
}

impl Fault {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "grant-unreadable",
            Self::TooMany(_) => "grant-too-many",
            Self::Malformed(_) => "grant-malformed",
            Self::PayloadType(_) => "grant-payload-type",
            Self::Unknown => "grant-key-unknown",
            Self::KeyUse(_) => "grant-key-use",
            Self::KeyEnded { .. } => "grant-key-ended",
            Self::Longer { .. } => "grant-too-long",
            Self::Pending(_) => "grant-pending",
            Self::Expired(_) => "grant-expired",
            Self::Revoked(_) => "grant-revoked",
            Self::Present => "grant-present",
            Self::Node { .. } => "grant-node",
            Self::Clock => "grant-clock",
            Self::Missing(_) => "grant-missing",
        }
    }
}

impl Grant {
    /// Reads a payload.
    fn parse(payload: &[u8]) -> Result<Self, Fault> {
        let grant: Self =
            crate::oci::json::parse(payload).map_err(|error| Fault::Malformed(shorten(&error.to_string())))?;
        grant.check()?;
        Ok(grant)
    }

    /// Whether it is one, whoever signs it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), Fault> {
        let malformed = |what: &str| Err(Fault::Malformed(what.to_owned()));
        if self.version != VERSION {
            return malformed(&format!("it has version {}, this assay reads {VERSION}", self.version));
        }
        if !is_id(&self.id) {
            return malformed("its id is not 32 hexadecimal digits");
        }
        let named = |text: &str, most: usize| !text.trim().is_empty() && text.len() <= most && printable(text) == text;
        if !named(&self.reason, MAX_REASON) {
            return malformed("its reason is empty, longer than 256 bytes, or has characters that cannot be shown");
        }
        if !named(&self.owner, MAX_NAME) {
            return malformed("its owner is empty, too long, or has characters that cannot be shown");
        }
        let container = match &self.subject {
            Subject::Image(_) => true,
            Subject::Container(container) => named(&container.namespace, MAX_NAME) && named(&container.id, MAX_NAME),
        };
        if !container {
            return malformed("its container is empty, too long, or has characters that cannot be shown");
        }
        if let Scope::Node(node) = &self.scope
            && !named(node, MAX_NAME)
        {
            return malformed("its node is empty, too long, or has characters that cannot be shown");
        }
        let (from, until) = (self.not_before, self.not_after);
        if until <= from {
            return malformed("it ends before it begins");
        }
        if until.duration_since(from) > LONGEST {
            return Err(Fault::Longer { from, until });
        }
        Ok(())
    }

    /// Whether it is about a container of this id in this namespace, of an image with these digests.
    fn is_about(&self, digests: &[Digest], namespace: &str, container: &str) -> bool {
        match &self.subject {
            Subject::Image(digest) => digests.contains(digest),
            Subject::Container(named) => !container.is_empty() && named.namespace == namespace && named.id == container,
        }
    }
}

impl Granted {
    /// Says what was granted, and what would be said without it. One sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self {
            id,
            reason,
            owner,
            key,
            until,
            refused,
            why,
        } = self;
        format!(
            "nothing but grant {id} allows it ({reason:?}, by {owner:?}, signed by key {key}, until {until:.0}); without it: \
             {refused}: {why}"
        )
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(digest) => write!(formatter, "image {digest}"),
            Self::Container(Container { namespace, id }) => write!(formatter, "container {namespace}/{id}"),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(formatter, "node {name}"),
            Self::Fleet => formatter.write_str("fleet"),
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == ID && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
pub(crate) mod tests;
