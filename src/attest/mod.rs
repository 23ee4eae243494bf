//! What signed payloads say: in-toto statements with the predicates that rules ask about, and cosign's simple-signing
//! payload.
//!
//! The bytes given here are those whose signature is checked; nothing outside of them (annotations, descriptors)
//! says what an attestation is or what it is about.

mod condition;
mod details;
pub mod predicate;
mod profile;
mod provenance;
mod summary;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::digest::Digest;
use crate::oci::{json, shorten};
use crate::trust::Use;

pub use condition::{Condition, ConditionError, InvalidCondition, Predicate, check as check_condition};
pub use details::{Details, MAX_TEXT, PROVENANCE, PredicateError, SUMMARY};
pub use profile::{PROFILE, Profile};
pub use provenance::{Origin, Provenance, Version};
pub use summary::Summary;

/// What kind of evidence something is: what a table of a rule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Signatures of images.
    Signature,
    /// SLSA provenance.
    Provenance,
    /// SLSA verification summaries.
    Vsa,
    /// Software bills of materials: SPDX, CycloneDX.
    Sbom,
    /// OpenVEX.
    Vex,
    /// Seccomp profiles.
    Profile,
}

impl Family {
    /// The family of attestations of this type.
    #[must_use]
    pub fn of(predicate_type: &str) -> Option<Self> {
        [
            (PROVENANCE, Self::Provenance),
            (SUMMARY, Self::Vsa),
            (SPDX, Self::Sbom),
            (CYCLONEDX, Self::Sbom),
            (OPENVEX, Self::Vex),
            (PROFILE, Self::Profile),
        ]
        .into_iter()
        .find(|(family, _)| {
            predicate_type
                .strip_prefix(family)
                .is_some_and(|version| version.is_empty() || version.starts_with('/'))
        })
        .map(|(_, family)| family)
    }

    /// The use that a key must have for evidence of this kind to count.
    #[must_use]
    pub fn needs(self) -> Use {
        match self {
            Self::Signature => Use::Image,
            Self::Provenance | Self::Vsa => Use::Provenance,
            Self::Sbom => Use::Sbom,
            Self::Vex => Use::Vex,
            Self::Profile => Use::Profile,
        }
    }

    /// Name of its tables in a rule.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Provenance => "provenance",
            Self::Vsa => "vsa",
            Self::Sbom => "sbom",
            Self::Vex => "vex",
            Self::Profile => "profile",
        }
    }
}

/// Predicate types of SPDX documents.
pub const SPDX: &str = "https://spdx.dev/Document";
/// Predicate types of CycloneDX documents.
pub const CYCLONEDX: &str = "https://cyclonedx.org/bom";
/// Predicate types of OpenVEX documents.
pub const OPENVEX: &str = "https://openvex.dev/ns";

/// Predicate type under which cosign signs an image.
pub const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// Most subjects of a statement.
pub const MAX_SUBJECTS: usize = 1024;
/// Most digests of a subject.
pub const MAX_DIGESTS: usize = 32;

const STATEMENT_V01: &str = "https://in-toto.io/Statement/v0.1";
const STATEMENT_V1: &str = "https://in-toto.io/Statement/v1";
const SIMPLE_SIGNING: &str = "cosign container image signature";

/// Why a signed payload is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(clippy::error_impl_error, reason = "always written with its module: attest::Error")]
pub enum Error {
    /// Not a document of this kind.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// An unknown type of statement or payload.
    #[error("its type is '{found}', expected {expected}")]
    Type {
        /// What it says, shortened.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// No subject, or too many.
    #[error("it has {0} subjects, expected 1 to {MAX_SUBJECTS}")]
    Subjects(usize),
    /// Too many digests for one subject.
    #[error("a subject has {0} digests, more than the {MAX_DIGESTS} that are accepted")]
    Digests(usize),
    /// An algorithm that is nearly one of ours: another reader could take it for that.
    #[error("a subject has a digest named '{0}', which could be mistaken for sha256")]
    Algorithm(String),
    /// A SHA-256 that is not 64 lower-case hexadecimal digits.
    #[error("the sha256 '{0}' of a subject is not 64 lower-case hexadecimal digits")]
    Sha256(String),
    /// The same content with two different digests.
    #[error("the subjects contradict each other: two {0} digests for {1}")]
    Contradiction(String, Digest),
    /// No subject is named by SHA-256, the only digest that images have.
    #[error("no subject has a sha256 digest")]
    NoSha256,
    /// The predicate type is empty.
    #[error("it has no predicate type")]
    NoPredicateType,
}

/// An in-toto statement, version 0.1 or 1.
///
/// Format: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    /// SHA-256 digests of what it is about, each once, in order of appearance.
    pub subjects: Vec<Digest>,
    /// What kind of claim it makes.
    pub predicate_type: String,
    /// What it claims, as JSON; empty where there is nothing.
    pub predicate: &'a [u8],
}

impl<'a> Statement<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(payload: &'a [u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw<'a> {
            #[serde(rename = "_type")]
            r#type: String,
            subject: json::First<Subject, MAX_SUBJECTS>,
            predicate_type: String,
            #[serde(borrow)]
            predicate: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Subject {
            digest: json::FirstNamed<String, MAX_DIGESTS>,
        }
        let raw: Raw<'a> = json::parse(payload)?;
        if !matches!(raw.r#type.as_str(), STATEMENT_V01 | STATEMENT_V1) {
            return Err(Error::Type {
                found: shorten(&raw.r#type),
                expected: "an in-toto statement v0.1 or v1",
            });
        }
        if raw.predicate_type.is_empty() {
            return Err(Error::NoPredicateType);
        }
        if !(1..=MAX_SUBJECTS).contains(&raw.subject.count) {
            return Err(Error::Subjects(raw.subject.count));
        }
        let mut subjects = Vec::new();
        let mut known: BTreeMap<Digest, BTreeMap<&str, &str>> = BTreeMap::new();
        for Subject { digest } in &raw.subject.items {
            if digest.count > MAX_DIGESTS {
                return Err(Error::Digests(digest.count));
            }
            let digest = &digest.items;
            let mistakable = |name: &&String| {
                let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
                name.as_str() != "sha256" && matches!(plain.to_ascii_lowercase().as_str(), "sha256" | "sha2256")
            };
            if let Some(name) = digest.keys().find(mistakable) {
                return Err(Error::Algorithm(shorten(name)));
            }
            let Some(hex) = digest.get("sha256") else {
                continue;
            };
            let sha256 = format!("sha256:{hex}")
                .parse()
                .map_err(|_| Error::Sha256(shorten(hex)))?;
            let others = known.entry(sha256).or_insert_with(|| {
                subjects.push(sha256);
                BTreeMap::new()
            });
            for (algorithm, value) in digest.iter().filter(|(name, _)| is_file_digest(name)) {
                if others.insert(algorithm, value).is_some_and(|before| before != value) {
                    return Err(Error::Contradiction(algorithm.clone(), sha256));
                }
            }
        }
        if subjects.is_empty() {
            return Err(Error::NoSha256);
        }
        Ok(Self {
            subjects,
            predicate_type: raw.predicate_type,
            predicate: raw
                .predicate
                .map(|predicate| predicate.get().as_bytes())
                .unwrap_or_default(),
        })
    }
}

/// Algorithms of which the same bytes have one digest, unlike `gitCommit` or `dirHash`, for example.
fn is_file_digest(algorithm: &str) -> bool {
    matches!(algorithm, "sha256" | "sha384" | "sha512")
}

/// The payload that cosign signs in its older layout, also called simple signing.
///
/// Format: <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>. What stands under `critical`
/// must be understood by whoever verifies, so an unknown field there is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimpleSigning {
    /// Digest of the signed manifest or index.
    pub digest: Digest,
    /// What the signer added, as JSON; empty where there is nothing.
    pub optional: Vec<u8>,
}

impl SimpleSigning {
    /// Reads a payload.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(payload: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            critical: Critical,
            optional: Option<BTreeMap<String, Box<RawValue>>>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Critical {
            #[serde(rename = "identity")]
            _identity: Identity,
            image: Image,
            r#type: String,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Identity {
            #[serde(rename = "docker-reference")]
            _reference: String,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Image {
            #[serde(rename = "docker-manifest-digest")]
            digest: Digest,
        }
        let raw: Raw = json::parse(payload)?;
        if raw.critical.r#type != SIMPLE_SIGNING {
            return Err(Error::Type {
                found: shorten(&raw.critical.r#type),
                expected: "'cosign container image signature'",
            });
        }
        Ok(Self {
            digest: raw.critical.image.digest,
            // Texts as they were: there is always a JSON form.
            optional: raw
                .optional
                .and_then(|optional| serde_json::to_vec(&optional).ok())
                .unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn statement(subjects: &str) -> Result<Statement<'static>, Error> {
        let text = format!(
            r#"{{"_type":"{STATEMENT_V1}","subject":[{subjects}],"predicateType":"p","predicate":{{"x":[1]}}}}"#
        );
        Statement::parse(text.leak().as_bytes())
    }

    fn subject(digests: &str) -> Result<Statement<'static>, Error> {
        statement(&format!(r#"{{"name":"n","digest":{{{digests}}},"annotations":{{}}}}"#))
    }

    fn refused(result: Result<Statement, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_statement_is_read() {
        let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
        let other = Digest::of(b"other");
        let read = statement(&format!(
            r#"{{"digest":{{"gitCommit":"ab"}}}},{{"digest":{{"sha256":"{HEX}","sha512":"x"}}}},{{"digest":{{"sha256":"{}"}}}},{{"digest":{{"sha256":"{HEX}"}}}}"#,
            other.hex()
        ))
        .unwrap();
        assert_eq!(
            read,
            Statement {
                subjects: vec![digest, other],
                predicate_type: "p".to_owned(),
                predicate: br#"{"x":[1]}"#,
            }
        );
        Statement::parse(
            format!(
                r#"{{"_type":"{STATEMENT_V01}","subject":[{{"digest":{{"sha256":"{HEX}"}}}}],"predicateType":"p"}}"#
            )
            .as_bytes(),
        )
        .unwrap();
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        let with = |r#type: &str, predicate: &str| {
            refused(Statement::parse(
                format!(r#"{{"_type":"{type}","subject":[{{"digest":{{"sha256":"{HEX}"}}}}]{predicate}}}"#).as_bytes(),
            ))
        };
        insta::assert_snapshot!(with("https://in-toto.io/Statement/v2", r#","predicateType":"p""#), @"its type is 'https://in-toto.io/Statement/v2', expected an in-toto statement v0.1 or v1");
        insta::assert_snapshot!(with(STATEMENT_V1, ""), @"not acceptable JSON: missing field `predicateType` at line 1 column 144");
        insta::assert_snapshot!(with(STATEMENT_V1, r#","predicateType":"""#), @"it has no predicate type");
        insta::assert_snapshot!(with(STATEMENT_V1, r#","predicateType":"p","predicateType":"q""#), @r#"not acceptable JSON: the key "predicateType" appears twice at line 1 column 179"#);
        insta::assert_snapshot!(with(STATEMENT_V1, r#","predicateType":"p"}"#), @"not acceptable JSON: trailing characters at line 1 column 165");
    }

    #[test]
    fn subjects_are_counted_and_read_in_one_way_only() {
        insta::assert_snapshot!(refused(statement("")), @"it has 0 subjects, expected 1 to 1024");
        let many = |n: usize| vec![format!(r#"{{"digest":{{"sha256":"{HEX}"}}}}"#); n].join(",");
        assert_eq!(statement(&many(MAX_SUBJECTS)).unwrap().subjects.len(), 1);
        insta::assert_snapshot!(refused(statement(&many(MAX_SUBJECTS + 1))), @"it has 1025 subjects, expected 1 to 1024");
        insta::assert_snapshot!(refused(subject("")), @"no subject has a sha256 digest");
        insta::assert_snapshot!(refused(subject(r#""sha1":"da39a3ee","md5":"d4","sha512":"cf83""#)), @"no subject has a sha256 digest");
        insta::assert_snapshot!(refused(subject(&format!(r#""sha256":"{}""#, HEX.to_uppercase()))), @"the sha256 'E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855' of a subject is not 64 lower-case hexadecimal digits");
        assert!(matches!(
            subject(&format!(r#""sha256":"{}""#, &HEX[..62])),
            Err(Error::Sha256(_))
        ));
        assert!(matches!(
            subject(&format!(r#""sha256":"sha256:{HEX}""#)),
            Err(Error::Sha256(_))
        ));
        for name in ["SHA256", "sha-256", "Sha256", "sha2-256", "sha_256"] {
            assert!(
                matches!(
                    subject(&format!(r#""sha256":"{HEX}","{name}":"00""#)),
                    Err(Error::Algorithm(_))
                ),
                "{name}"
            );
            assert!(
                matches!(subject(&format!(r#""{name}":"{HEX}""#)), Err(Error::Algorithm(_))),
                "{name}"
            );
        }
        let contradiction = |digest: &str| {
            statement(&format!(
                r#"{{"digest":{{"sha256":"{HEX}","sha512":"aa"}}}},{{"digest":{{"sha256":"{HEX}","sha512":"{digest}"}}}}"#
            ))
        };
        contradiction("aa").unwrap();
        insta::assert_snapshot!(refused(contradiction("bb")), @"the subjects contradict each other: two sha512 digests for sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let digests = (0..=MAX_DIGESTS)
            .map(|n| format!(r#""d{n}":"x""#))
            .collect::<Vec<_>>()
            .join(",");
        insta::assert_snapshot!(refused(subject(&digests)), @"a subject has 33 digests, more than the 32 that are accepted");
    }

    #[test]
    fn a_simple_signing_payload_is_read_strictly() {
        let payload = |r#type: &str, image: &str, more: &str| {
            SimpleSigning::parse(
                format!(
                    r#"{{"critical":{{"identity":{{"docker-reference":"r"}},"image":{{"docker-manifest-digest":"{image}"}},"type":"{type}"{more}}},"optional":null}}"#
                )
                .as_bytes(),
            )
        };
        let good = format!("sha256:{HEX}");
        assert_eq!(payload(SIMPLE_SIGNING, &good, "").unwrap().digest.to_string(), good);
        let refused = |result: Result<SimpleSigning, Error>| result.unwrap_err().to_string();
        insta::assert_snapshot!(refused(payload("atomic container signature", &good, "")), @"its type is 'atomic container signature', expected 'cosign container image signature'");
        assert!(payload("Cosign container image signature", &good, "").is_err());
        assert!(payload(SIMPLE_SIGNING, HEX, "").is_err());
        assert!(payload(SIMPLE_SIGNING, &good.to_uppercase(), "").is_err());
        insta::assert_snapshot!(refused(payload(SIMPLE_SIGNING, &good, r#","expires":"1970""#)), @"not acceptable JSON: unknown field `expires`, expected one of `identity`, `image`, `type` at line 1 column 209");
        assert!(SimpleSigning::parse(b"{}").is_err());
        assert!(SimpleSigning::parse(br#"{"critical":{"type":"cosign container image signature"}}"#).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Statement::parse(&bytes).is_err());
            prop_assert!(SimpleSigning::parse(&bytes).is_err());
        }
    }
}
