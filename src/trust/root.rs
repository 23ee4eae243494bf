//! Sigstore trusted roots: which certificate authorities, transparency logs and timestamp authorities are believed.
//!
//! Format: <https://github.com/sigstore/protobuf-specs/blob/main/protos/sigstore_trustroot.proto> in its JSON form.
//! A root that lists something new or broken stays usable: what the verifier does not support is left out entry by
//! entry, and said.

use std::collections::HashSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sigstore_verify::Verifier;
use sigstore_verify::trust_root::{
    CertificateAuthority, CertificateTransparencyLog, SIGSTORE_GITHUB_TRUSTED_ROOT, SIGSTORE_PRODUCTION_TRUSTED_ROOT,
    SIGSTORE_STAGING_TRUSTED_ROOT, TimestampAuthority, TransparencyLog, TrustedRoot,
};
use sigstore_verify::types::TimeRange;
use spki::SubjectPublicKeyInfoRef;
use spki::der::asn1::ObjectIdentifier;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::digest::Digest;
use crate::oci::{json, shorten};

/// Most roots of `trust.d`.
pub const MAX_ROOTS: usize = 16;
/// Largest trusted root in bytes. GitHub's, the largest public one, has 32 KiB.
pub const MAX_BYTES: u64 = 256 << 10;
/// Most entries of one kind in a root.
const MAX_ENTRIES: usize = 64;

const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");

const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.dev.sigstore.trustedroot.v0.1+json",
    "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    "application/vnd.dev.sigstore.trustedroot.v0.2+json",
    "application/vnd.dev.sigstore.trustedroot+json;version=0.2",
];

/// A `[[root]]` of `trust.d`, with its file already read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Name by which policy refers to it.
    pub id: String,
    /// Where it comes from.
    pub source: RootSource,
    /// Digest of `json`.
    pub digest: Digest,
    /// The trusted root.
    pub json: String,
    /// How long it counts, in seconds after it was known to be current. Without it, age refuses nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// When it was known to be current; only where `max_age` asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
}

/// Where a trusted root comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootSource {
    /// It is part of this program.
    Builtin(Builtin),
    /// This file.
    File(String),
}

/// A trusted root that is part of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Builtin {
    /// The public-good instance of Sigstore.
    Sigstore,
    /// GitHub's own instance, which signs for private repositories.
    Github,
    /// The instance on which Sigstore tests itself; never trusted by `trust.d`.
    Staging,
}

/// A trusted root that can be verified with.
#[derive(Debug)]
pub struct Usable {
    /// What is left of it.
    pub(crate) root: TrustedRoot,
    /// Whether it lists a transparency log, usable or not: then signatures have entries in one.
    pub(crate) lists_logs: bool,
    /// Whether it lists a log of certificates, usable or not: then certificates have entries in one.
    pub(crate) lists_certificate_logs: bool,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
}

/// An entry of a trusted root that is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its {kind} {} ({name}) is left out: {reason}", .index + 1)]
pub struct LeftOut {
    /// What it is.
    pub kind: EntryKind,
    /// Its place in the list.
    pub index: usize,
    /// Its address, as far as it has one.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What a trusted root lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A transparency log.
    Log,
    /// A log of certificates.
    CertificateLog,
    /// An authority that certifies signers.
    CertificateAuthority,
    /// An authority that says when something existed.
    TimestampAuthority,
}

/// Why a trusted root cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// Not the JSON of a trusted root.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// Another kind of document, or a version that is not known.
    #[error("its mediaType is '{0}', expected a Sigstore trusted root of version 0.1 or 0.2")]
    MediaType(String),
    /// More entries than any root needs.
    #[error("it has {count} entries in {list}, more than the {MAX_ENTRIES} that are accepted")]
    TooMany {
        /// The list.
        list: &'static str,
        /// Its length.
        count: usize,
    },
    /// Nothing in it can be used.
    #[error("none of its entries can be used")]
    Empty,
}

impl Root {
    /// A root that is part of this program.
    #[must_use]
    pub fn builtin(id: &str, which: Builtin) -> Self {
        let json = match which {
            Builtin::Sigstore => SIGSTORE_PRODUCTION_TRUSTED_ROOT,
            Builtin::Github => SIGSTORE_GITHUB_TRUSTED_ROOT,
            Builtin::Staging => SIGSTORE_STAGING_TRUSTED_ROOT,
        };
        Self::new(id, RootSource::Builtin(which), json.to_owned())
    }

    /// A root from a file.
    #[must_use]
    pub fn new(id: &str, source: RootSource, json: String) -> Self {
        Self {
            id: id.to_owned(),
            source,
            digest: Digest::of(json.as_bytes()),
            json,
            max_age: None,
            as_of: None,
        }
    }

    /// The same root with this `max_age`, known to be current at `as_of`.
    #[must_use]
    pub fn aging(self, max_age: Option<i64>, as_of: Option<Timestamp>) -> Self {
        Self {
            max_age,
            // Nothing else depends on it, and a policy that says the same must be the same.
            as_of: max_age.and(as_of),
            ..self
        }
    }

    /// The end of the time in which it counts, exclusive; `None` where its entry asks for none. One that nobody knows
    /// to have been current never counts where its age matters.
    #[must_use]
    pub fn until(&self) -> Option<Timestamp> {
        let max_age = SignedDuration::from_secs(self.max_age?);
        let as_of = self.as_of.unwrap_or(Timestamp::MIN);
        Some(as_of.checked_add(max_age).unwrap_or(Timestamp::MAX))
    }

    /// What of it can be verified with.
    ///
    /// # Errors
    /// See [`RootError`].
    pub fn usable(&self) -> Result<Usable, RootError> {
        parse(self.json.as_bytes())
    }
}

/// Reads a trusted root and leaves out what the verifier does not support.
///
/// # Errors
/// See [`RootError`].
pub fn parse(bytes: &[u8]) -> Result<Usable, RootError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        media_type: String,
        #[serde(default)]
        tlogs: Vec<Value>,
        #[serde(default)]
        certificate_authorities: Vec<Value>,
        #[serde(default)]
        ctlogs: Vec<Value>,
        #[serde(default)]
        timestamp_authorities: Vec<Value>,
    }
    let raw: Raw = json::parse(bytes)?;
    if !MEDIA_TYPES.contains(&raw.media_type.as_str()) {
        return Err(RootError::MediaType(shorten(&raw.media_type)));
    }
    let mut usable = Usable {
        root: empty()?,
        lists_logs: !raw.tlogs.is_empty(),
        lists_certificate_logs: !raw.ctlogs.is_empty(),
        left_out: Vec::new(),
    };
    let left_out = &mut usable.left_out;
    usable.root.tlogs = sift(EntryKind::Log, raw.tlogs, left_out)?;
    usable.root.ctlogs = sift(EntryKind::CertificateLog, raw.ctlogs, left_out)?;
    usable.root.certificate_authorities = sift(EntryKind::CertificateAuthority, raw.certificate_authorities, left_out)?;
    usable.root.timestamp_authorities = sift(EntryKind::TimestampAuthority, raw.timestamp_authorities, left_out)?;
    let root = &usable.root;
    if root.tlogs.is_empty() && root.certificate_authorities.is_empty() && root.timestamp_authorities.is_empty() {
        return Err(RootError::Empty);
    }
    Ok(usable)
}

/// The verifier's types have no other way to be made.
fn empty() -> Result<TrustedRoot, RootError> {
    let json = serde_json::json!({ "mediaType": MEDIA_TYPES[1] });
    serde_json::from_value(json).map_err(|error| RootError::Json(error.into()))
}

/// An entry of one of the lists of a trusted root.
trait Entry: Sized + serde::de::DeserializeOwned {
    /// What may be in a list only once.
    fn key(&self) -> Option<Vec<u8>>;
    /// Puts it into a root.
    fn add_to(&self, root: &mut TrustedRoot);
    /// DER of its key, where it is nothing but a key.
    fn spki(&self) -> Option<&[u8]> {
        None
    }
    /// Restricts it to when it can be right, or says why it never is.
    fn restrict(&mut self) -> Result<(), String> {
        Ok(())
    }
}

impl Entry for TransparencyLog {
    fn key(&self) -> Option<Vec<u8>> {
        Some(self.log_id.key_id.as_bytes().to_vec())
    }

    fn add_to(&self, root: &mut TrustedRoot) {
        root.tlogs.push(self.clone());
    }

    fn spki(&self) -> Option<&[u8]> {
        Some(self.public_key.raw_bytes.as_bytes())
    }
}

impl Entry for CertificateTransparencyLog {
    fn key(&self) -> Option<Vec<u8>> {
        Some(self.log_id.key_id.as_bytes().to_vec())
    }

    fn add_to(&self, root: &mut TrustedRoot) {
        root.ctlogs.push(self.clone());
    }

    fn spki(&self) -> Option<&[u8]> {
        Some(self.public_key.raw_bytes.as_bytes())
    }
}

impl Entry for CertificateAuthority {
    fn key(&self) -> Option<Vec<u8>> {
        None
    }

    fn add_to(&self, root: &mut TrustedRoot) {
        root.certificate_authorities.push(self.clone());
    }

    /// The verifier anchors its trust in each certificate of the chain, and nobody looks at the validity of an
    /// anchor. An authority speaks only while all of its chain is valid.
    fn restrict(&mut self) -> Result<(), String> {
        let mut window = self.valid_for.unwrap_or(TimeRange::new(Timestamp::UNIX_EPOCH, None));
        for entry in &self.cert_chain.certificates {
            let (start, end) = validity(entry.raw_bytes.as_bytes())?;
            window.start = window.start.max(start);
            window.end = Some(window.end.map_or(end, |known| known.min(end)));
        }
        if window.end.is_some_and(|end| end < window.start) {
            return Err("its certificates are never valid at the same time".to_owned());
        }
        self.valid_for = Some(window);
        Ok(())
    }
}

impl Entry for TimestampAuthority {
    fn key(&self) -> Option<Vec<u8>> {
        None
    }

    fn add_to(&self, root: &mut TrustedRoot) {
        root.timestamp_authorities.push(self.clone());
    }
}

/// First and last second of a certificate's validity.
fn validity(der: &[u8]) -> Result<(Timestamp, Timestamp), String> {
    let certificate = Certificate::from_der(der).map_err(|error| format!("not a certificate: {error}"))?;
    let validity = certificate.tbs_certificate.validity;
    let time = |time: x509_cert::time::Time| {
        Timestamp::try_from(time.to_system_time()).map_err(|error| format!("not a time: {error}"))
    };
    Ok((time(validity.not_before)?, time(validity.not_after)?))
}

fn sift<T: Entry>(kind: EntryKind, values: Vec<Value>, left_out: &mut Vec<LeftOut>) -> Result<Vec<T>, RootError> {
    if values.len() > MAX_ENTRIES {
        return Err(RootError::TooMany {
            list: kind.list(),
            count: values.len(),
        });
    }
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let address = value.get("baseUrl").or_else(|| value.get("uri"));
        let name = shorten(address.and_then(Value::as_str).unwrap_or("without address"));
        match entry::<T>(value) {
            Ok(entry) if entry.key().is_some_and(|key| !seen.insert(key)) => left_out.push(LeftOut {
                kind,
                index,
                name,
                reason: "an entry before it has the same identifier".to_owned(),
            }),
            Ok(entry) => kept.push(entry),
            Err(reason) => left_out.push(LeftOut {
                kind,
                index,
                name,
                reason: shorten(&reason),
            }),
        }
    }
    Ok(kept)
}

/// Reads one entry and asks the verifier whether it could work with a root of nothing else.
fn entry<T: Entry>(value: Value) -> Result<T, String> {
    let mut entry: T = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if entry.spki().is_some_and(is_p521) {
        return Err("its key is of ECDSA P-521, which is verified for the keys of trust.d only".to_owned());
    }
    entry.restrict()?;
    let mut alone = empty().map_err(|error| error.to_string())?;
    entry.add_to(&mut alone);
    Verifier::new(&alone).map_err(|error| error.to_string())?;
    Ok(entry)
}

/// Whether a SubjectPublicKeyInfo is of the curve that the verifier lacks and people are likely to use.
pub(crate) fn is_p521(spki: &[u8]) -> bool {
    SubjectPublicKeyInfoRef::try_from(spki)
        .is_ok_and(|spki| spki.algorithm.parameters_oid().is_ok_and(|curve| curve == P521))
}

impl EntryKind {
    fn list(self) -> &'static str {
        match self {
            Self::Log => "tlogs",
            Self::CertificateLog => "ctlogs",
            Self::CertificateAuthority => "certificateAuthorities",
            Self::TimestampAuthority => "timestampAuthorities",
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Log => "transparency log",
            Self::CertificateLog => "certificate log",
            Self::CertificateAuthority => "certificate authority",
            Self::TimestampAuthority => "timestamp authority",
        })
    }
}
