//! What a rule asks for: tables of evidence and the signers that count for them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Mirror, Subject};
use crate::attest::{Condition, Family};
use crate::trust::TextPattern;
use crate::verify::notation::DistinguishedName;

/// A `[[rule.signature]]`, `[[rule.provenance]]`, `[[rule.vsa]]`, `[[rule.sbom]]`, `[[rule.vex]]` or `[[rule.profile]]`:
/// evidence that must be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Evidence of what kind, and what it must say.
    pub asks: Asks,
    /// Who may have signed it; empty only where builders say who.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<SignerPattern>,
    /// How many different signers there must be.
    pub threshold: usize,
    /// What it must be about.
    pub subject: Subject,
    /// What must be signed of a statement that carries no signature itself.
    #[serde(default, skip_serializing_if = "Signed::is_itself")]
    pub signed: Signed,
    /// How many different transparency logs must include each piece.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub logs: usize,
    /// How old it may be at most, in seconds, by a time that someone trusted vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// What must be true of its predicate, in CEL.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
}

/// What must be signed of a statement that carries no signature itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signed {
    /// The attestation manifest that it is in.
    #[default]
    Itself,
    /// That, or an index that lists it beside the image.
    Index,
}

impl Signed {
    fn is_itself(&self) -> bool {
        *self == Self::Itself
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Evidence of what kind, and what it must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asks {
    /// A signature of the image.
    Signature,
    /// SLSA provenance.
    Provenance(Box<Provenance>),
    /// A SLSA verification summary.
    Vsa(Box<Vsa>),
    /// A software bill of materials, in this format if one is named.
    Sbom(Option<SbomFormat>),
    /// An OpenVEX document.
    Vex,
    /// A seccomp profile for this machine.
    Profile,
}

/// What provenance must say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Names of builders; empty for whatever builder the signers name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builder: Vec<String>,
    /// Least SLSA build level of the builder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// Sources of which each must be one of these; empty asks nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<TextPattern>,
    /// Build types; empty asks nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_type: Vec<String>,
    /// External parameters that may be there; none allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Vec<Parameter>>,
}

/// An external parameter that may be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// The one value that it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What a verification summary must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsa {
    /// Verifiers that count.
    pub verifier: Vec<String>,
    /// Levels that it must have reached, all of them.
    pub levels: Vec<String>,
    /// What must have been verified; empty for the image by its own name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource: Vec<TextPattern>,
    /// Whose images a registry mirrors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirror: Vec<Mirror>,
    /// By which policy; empty asks nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<String>,
}

/// A format of bills of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SbomFormat {
    /// SPDX.
    Spdx,
    /// CycloneDX.
    CycloneDx,
}

/// Someone whose evidence counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignerPattern {
    /// The holder of a key of `trust.d`, by its identifier.
    Key(String),
    /// The holder of a Sigstore certificate.
    Certificate(Box<CertificatePattern>),
    /// The holder of a certificate of a Notary Project trust store.
    Notation(Box<NotationPattern>),
}

/// Sigstore certificates that count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificatePattern {
    /// Whom they are issued to.
    pub identity: IdentityPattern,
    /// Who vouches for the identity.
    pub issuer: String,
    /// Identifier of the root that they chain to.
    pub root: String,
    /// Further claims that they must have, by the names of [`crate::verify::Certificate::claims`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, TextPattern>,
}

/// Identities. A URI never equals an email address, whatever they spell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityPattern {
    /// Workflows or services.
    Uri(TextPattern),
    /// A person.
    Email(String),
}

/// Certificates of a Notary Project trust store that count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotationPattern {
    /// Attributes that their subject must have.
    pub subject: DistinguishedName,
    /// Identifier of the trust store.
    pub store: String,
    /// Whether it must be known that none of their chain was revoked.
    pub revocation: Revocation,
}

/// Whether it must be known that a certificate was not revoked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revocation {
    /// It must.
    #[default]
    Required,
    /// What is known counts, and nothing need be.
    Optional,
}

impl Table {
    /// What must be true of the predicate.
    pub(super) fn condition(&self) -> Option<Condition> {
        self.condition.as_ref().map(|cel| Condition {
            about: self.asks.family(),
            cel: cel.clone(),
        })
    }
}

impl Asks {
    /// What kind of evidence this is.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Self::Signature => Family::Signature,
            Self::Provenance(_) => Family::Provenance,
            Self::Vsa(_) => Family::Vsa,
            Self::Sbom(_) => Family::Sbom,
            Self::Vex => Family::Vex,
            Self::Profile => Family::Profile,
        }
    }
}

impl SignerPattern {
    /// Whether only one signer can be it.
    #[must_use]
    pub fn is_one(&self) -> bool {
        match self {
            Self::Key(_) => true,
            Self::Certificate(pattern) => match &pattern.identity {
                IdentityPattern::Uri(uri) => uri.is_exact(),
                IdentityPattern::Email(_) => true,
            },
            Self::Notation(_) => false,
        }
    }
}

impl fmt::Display for SignerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => f.write_str(id),
            Self::Certificate(pattern) => {
                match &pattern.identity {
                    IdentityPattern::Uri(uri) => write!(f, "{uri}")?,
                    IdentityPattern::Email(email) => f.write_str(email)?,
                }
                write!(f, " (issuer {}, root {}", pattern.issuer, pattern.root)?;
                for (name, value) in &pattern.claims {
                    write!(f, ", {name} {value}")?;
                }
                f.write_str(")")
            }
            Self::Notation(pattern) => write!(f, "{} (trust store {})", pattern.subject, pattern.store),
        }
    }
}

impl fmt::Display for SbomFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spdx => "SPDX",
            Self::CycloneDx => "CycloneDX",
        })
    }
}
