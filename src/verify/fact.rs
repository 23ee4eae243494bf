//! What verification proves about an image, and who says so.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Carrier, Claim};
use crate::attest::Details;
use crate::digest::Digest;

/// A signature that verified, by someone that is trusted, about one of the subjects that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    /// Manifest in the evidence layout that carries it.
    pub evidence: Digest,
    /// How it was carried.
    pub carrier: Carrier,
    /// What was signed in its place, where it is a statement that carries no signature itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Box<Chain>>,
    /// Digest that the signed payload names, or the statement.
    pub subject: Digest,
    /// What it says.
    pub claim: Claim,
    /// Who says it, and when.
    pub proof: Proof,
    /// What its predicate says, where rules can ask about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Box<Details>>,
    /// Which of the conditions in question hold for its predicate, by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<usize>,
}

/// How a signature reaches a statement in an attestation manifest, which is the fact's `evidence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// Manifest in the evidence layout that carries the signature.
    pub signature: Digest,
    /// How that was carried.
    pub carrier: Carrier,
    /// The index that was signed; none where it was the attestation manifest itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Digest>,
    /// The statement, a layer of the attestation manifest.
    pub statement: Digest,
}

/// What is known about a signature once it is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Who made it.
    pub signer: Signer,
    /// Entries of this signature in transparency logs that verified, each once. A log may have several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<LogEntry>,
    /// Times at which the signature existed, each vouched for by someone that is trusted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<TrustedTime>,
    /// When it holds.
    #[serde(default, skip_serializing_if = "Span::is_always")]
    pub span: Span,
}

/// Who made a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signer {
    /// The holder of a key of `trust.d`, by its identifier.
    Key(String),
    /// The holder of a Sigstore certificate.
    Certificate(Box<Certificate>),
    /// The holder of a certificate of a Notary Project trust store.
    Notation(Box<NotationSigner>),
}

/// A Sigstore signing certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Identifier of the `[[root]]` of `trust.d` that it chains to.
    pub root: String,
    /// Its one subject alternative name.
    pub identity: Identity,
    /// Who vouched for the identity: issuer of the OpenID token.
    pub issuer: String,
    /// Further claims of a build service by the names of
    /// <https://github.com/sigstore/fulcio/blob/main/docs/oid-info.md>, in kebab case: `source-repository-uri`, for
    /// example.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, String>,
    /// SHA-256 of its DER.
    pub fingerprint: Digest,
}

/// The subject alternative name of a signing certificate. A URI never equals an email address, whatever they spell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// A workflow or service.
    Uri(String),
    /// A person.
    Email(String),
}

/// The signing certificate of a Notary Project signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotationSigner {
    /// Identifier of the trust store of `trust.d` that holds its root.
    pub store: String,
    /// Its distinguished name in the form of RFC 4514.
    pub subject: String,
    /// SHA-256 of its DER.
    pub fingerprint: Digest,
    /// Why it is not known whether a certificate of its chain was revoked; empty where it is known that none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revocation_unknown: String,
}

/// A verified entry of a transparency log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogEntry {
    /// Identifier of the log, hexadecimal: the hash of its key.
    pub log: String,
    /// Number of the entry.
    pub index: u64,
    /// Whether inclusion was proved; otherwise the log only promised it.
    pub included: bool,
    /// Whether nobody but the evidence says which number it is: a proof of a log of the first version does not cover
    /// that, only a promise does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unnumbered: bool,
}

/// A time at which a signature existed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedTime {
    /// What says so.
    pub source: TimeSource,
    /// Who says so: identifier of the log, or name of the timestamp authority.
    pub authority: String,
    /// The time.
    pub time: Timestamp,
}

/// What vouches for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeSource {
    /// The signed time of entry into a transparency log.
    Log,
    /// A timestamp of RFC 3161.
    Timestamp,
}

/// A span of the node's own time; a fact counts only inside of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Its first instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// The instant after its last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl Proof {
    /// The proof of a signature by a key of `trust.d`, which holds at any time.
    #[must_use]
    pub fn by_key(id: &str) -> Self {
        Self {
            signer: Signer::Key(id.to_owned()),
            logs: Vec::new(),
            times: Vec::new(),
            span: Span::default(),
        }
    }

    /// Whether `other` is by the same signer and proves nothing more than this.
    #[must_use]
    pub fn proves(&self, other: &Self) -> bool {
        self.signer == other.signer
            && other.logs.iter().all(|entry| self.logs.contains(entry))
            && other.times.iter().all(|time| self.times.contains(time))
    }
}

impl Span {
    /// Whether it has no end on either side.
    #[must_use]
    pub fn is_always(&self) -> bool {
        self.from.is_none() && self.until.is_none()
    }

    /// Whether `time` is inside of it.
    #[must_use]
    pub fn contains(&self, time: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= time) && self.until.is_none_or(|until| time < until)
    }

    /// What is inside of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            until: match (self.until, other.until) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
        }
    }
}

impl Signer {
    /// Identifier of the key, where a key signed.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Key(id) => Some(id),
            Self::Certificate(_) | Self::Notation(_) => None,
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => formatter.write_str(id),
            Self::Certificate(certificate) => {
                write!(
                    formatter,
                    "{} (issuer {}, root {})",
                    certificate.identity, certificate.issuer, certificate.root
                )
            }
            Self::Notation(signer) => write!(formatter, "{} (trust store {})", signer.subject, signer.store),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(text) | Self::Email(text) => formatter.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_meet() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let (early, late) = (
            Span {
                from: None,
                until: at(20),
            },
            Span {
                from: at(10),
                until: None,
            },
        );
        let both = early.and(late);
        assert_eq!(
            both,
            Span {
                from: at(10),
                until: at(20)
            }
        );
        assert_eq!(
            Span {
                from: at(5),
                until: at(15)
            }
            .and(both),
            Span {
                from: at(10),
                until: at(15)
            }
        );
        for (second, inside) in [(9, false), (10, true), (19, true), (20, false)] {
            assert_eq!(both.contains(at(second).unwrap()), inside, "{second}");
        }
        assert!(Span::default().is_always() && !both.is_always());
    }
}
