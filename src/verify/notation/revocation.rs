//! Revocation lists: complete ones and deltas, as RFC 5280, section 5, and the Notary Project's trust policy
//! specification use them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use x509_cert::der::asn1::{ObjectIdentifier, OctetStringRef};
use x509_cert::der::{self, Decode as _, Tag, TagNumber};
use x509_cert::ext::pkix::crl::dp::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, CrlDistributionPoints};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::Span;
use super::certificate::{Certificate, timestamp};
use super::element::{Element, context};
use super::key::{AlgorithmError, SignatureAlgorithm};
use super::subject::Subject;
use crate::digest::Digest;

/// Largest revocation list in bytes.
pub const MAX_CRL: usize = 32 << 20;

const REASON: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.21");
const INVALIDITY_DATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.24");
const CRL_NUMBER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.20");
const DELTA_INDICATOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.27");
const ISSUING_POINT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.28");
const FRESHEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.46");
const DISTRIBUTION_POINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
const AUTHORITY_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

/// Why a revocation list cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CrlError {
    /// Larger than is read.
    #[error("{0} bytes are more than is read of a revocation list")]
    TooLarge(usize),
    /// Not an X.509 revocation list.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// A signature algorithm that is not allowed.
    #[error(transparent)]
    Algorithm(AlgorithmError),
    /// Something critical that is not understood, so that nothing of it may be used.
    #[error("it has the critical extension {0}, which is not supported")]
    Extension(String),
    /// A list about other issuers' certificates.
    #[error("it is an indirect list, which is not supported")]
    Indirect,
    /// It does not say how long it holds.
    #[error("it has no time of its next update")]
    NoNextUpdate,
}

impl From<der::Error> for CrlError {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What is known about the revocation of a chain's certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revocation {
    /// None is revoked, according to these lists.
    Good {
        /// Digests of the lists.
        crls: Vec<Digest>,
    },
    /// Their issuers offer no way to ask.
    NotOffered,
    /// It cannot be known; the text says why and what to do.
    Unavailable(String),
}

/// Why the revocation of a certificate cannot be known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unavailable {
    #[error("offers OCSP only, which needs a network")]
    OcspOnly,
    #[error("names revocation lists, and the cache holds none of its issuer")]
    NoList,
    #[error("has an issuer whose revocation lists in the cache are about other certificates")]
    OtherScope,
    #[error("has an issuer whose revocation list expired at {0}")]
    Expired(Timestamp),
    #[error("has an issuer whose revocation list holds from {0} on")]
    NotYet(Timestamp),
    #[error("has an issuer whose revocation list lacks a valid signature by it")]
    Signature,
    #[error("has an issuer that must not sign revocation lists and did")]
    NotItsUse,
    #[error("needs a delta of the revocation list, and the cache holds none that fits")]
    NoDelta,
}

/// A certificate that its issuer revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Revoked {
    pub place: usize,
    pub crl: Digest,
}

/// A revocation list that could be read; whose it is is not verified yet.
#[derive(Debug, Clone)]
pub(super) struct Crl {
    der: Vec<u8>,
    digest: Digest,
    issuer: Vec<u8>,
    algorithm: SignatureAlgorithm,
    this_update: Timestamp,
    next_update: Timestamp,
    number: Vec<u8>,
    /// The base that a delta is made for.
    base: Option<Vec<u8>>,
    /// The extension as it stands, to compare the scope of a delta with its base's.
    scope: Option<Vec<u8>>,
    point: Option<IssuingDistributionPoint>,
    has_deltas: bool,
}

/// What a list says about one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Revoked,
    Held,
    Removed,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    status: Status,
    invalid_since: Option<Timestamp>,
}

impl Crl {
    pub fn parse(der: Vec<u8>) -> Result<Self, CrlError> {
        if der.len() > MAX_CRL {
            return Err(CrlError::TooLarge(der.len()));
        }
        let mut parts = Element::only(&der, Tag::Sequence)?.elements()?;
        let list = parts.expect(Tag::Sequence)?;
        let outer = parts.expect(Tag::Sequence)?;
        parts.expect(Tag::BitString)?;
        parts.end()?;

        let mut fields = list.elements()?;
        if fields.expect(Tag::Integer)?.value != [1] {
            return Err(CrlError::Malformed("it is not of version 2".to_owned()));
        }
        let inner = fields.expect(Tag::Sequence)?;
        if inner.whole != outer.whole {
            return Err(CrlError::Malformed(
                "it names two different signature algorithms".to_owned(),
            ));
        }
        let algorithm: AlgorithmIdentifierOwned = inner.decode()?;
        let issuer = fields.expect(Tag::Sequence)?;
        let this_update = fields.next()?.time()?;
        let next_update = match fields.is_at_end() {
            false if !matches!(fields.clone().next()?.tag, Tag::UtcTime | Tag::GeneralizedTime) => None,
            false => Some(fields.next()?.time()?),
            true => None,
        };
        let mut crl = Self {
            digest: Digest::of(&der),
            der: Vec::new(),
            issuer: issuer.whole.to_vec(),
            algorithm: SignatureAlgorithm::parse(&algorithm, None).map_err(CrlError::Algorithm)?,
            this_update: timestamp(this_update),
            next_update: timestamp(next_update.ok_or(CrlError::NoNextUpdate)?),
            number: Vec::new(),
            base: None,
            scope: None,
            point: None,
            has_deltas: false,
        };
        let revoked = fields.optional(Tag::Sequence)?;
        if let Some(extensions) = fields.optional(context(TagNumber::N0))? {
            for extension in extensions_of(Element::only(extensions.value, Tag::Sequence)?)? {
                crl.read_extension(&extension)?;
            }
        }
        fields.end()?;
        // All entries are read once, so that one that is not understood disqualifies the list.
        if let Some(revoked) = revoked {
            let mut entries = revoked.elements()?;
            while !entries.is_at_end() {
                let (_, entry) = read_entry(entries.expect(Tag::Sequence)?)?;
                if entry.status == Status::Removed && crl.base.is_none() {
                    return Err(CrlError::Malformed(
                        "it removes an entry, and is not a delta".to_owned(),
                    ));
                }
            }
        }
        crl.der = der;
        Ok(crl)
    }

    pub fn len(&self) -> usize {
        self.der.len()
    }

    fn read_extension(&mut self, extension: &Extension<'_>) -> Result<(), CrlError> {
        match extension.oid {
            CRL_NUMBER => self.number = number(extension.value)?,
            DELTA_INDICATOR => self.base = Some(number(extension.value)?),
            ISSUING_POINT => {
                let point = IssuingDistributionPoint::from_der(extension.value)?;
                if point.indirect_crl {
                    return Err(CrlError::Indirect);
                }
                self.scope = Some(extension.value.to_vec());
                self.point = Some(point);
            }
            FRESHEST => self.has_deltas = true,
            other if extension.critical => return Err(CrlError::Extension(other.to_string())),
            _ => {}
        }
        Ok(())
    }

    fn is_signed_by(&self, issuer: &Certificate) -> bool {
        let verified = || -> Result<bool, der::Error> {
            let mut parts = Element::only(&self.der, Tag::Sequence)?.elements()?;
            let signed = parts.next()?.whole;
            parts.next()?;
            let signature: der::asn1::BitStringRef<'_> = parts.next()?.decode()?;
            Ok(signature
                .as_bytes()
                .is_some_and(|signature| issuer.key().verifies(self.algorithm, signed, signature)))
        };
        verified().unwrap_or(false)
    }

    /// The entries about a serial number.
    fn entries(&self, serial: &[u8]) -> Result<Vec<Entry>, CrlError> {
        let list = Element::only(&self.der, Tag::Sequence)?.elements()?.next()?;
        let mut fields = list.elements()?;
        for _ in 0..5 {
            fields.next()?;
        }
        let mut found = Vec::new();
        if let Some(revoked) = fields.optional(Tag::Sequence)? {
            let mut entries = revoked.elements()?;
            while !entries.is_at_end() {
                let entry = entries.next()?;
                if entry.elements()?.next()?.value == serial {
                    found.push(read_entry(entry)?.1);
                }
            }
        }
        Ok(found)
    }

    /// Whether a certificate that it does not list is good.
    fn covers(&self, certificate: &Certificate) -> bool {
        let Some(point) = &self.point else {
            return true;
        };
        if point.only_contains_attribute_certs
            || point.only_some_reasons.is_some()
            || (point.only_contains_user_certs && certificate.is_authority())
            || (point.only_contains_ca_certs && !certificate.is_authority())
        {
            return false;
        }
        let Some(DistributionPointName::FullName(names)) = &point.distribution_point else {
            return point.distribution_point.is_none();
        };
        let own = distribution_points(certificate);
        names.iter().any(|name| own.contains(name))
    }
}

struct Extension<'a> {
    oid: ObjectIdentifier,
    critical: bool,
    value: &'a [u8],
}

fn extensions_of(list: Element<'_>) -> Result<Vec<Extension<'_>>, der::Error> {
    let mut found: Vec<Extension<'_>> = Vec::new();
    let mut extensions = list.elements()?;
    while !extensions.is_at_end() {
        let mut fields = extensions.expect(Tag::Sequence)?.elements()?;
        let oid = fields.oid()?;
        let critical = match fields.optional(Tag::Boolean)? {
            Some(critical) => critical.decode()?,
            None => false,
        };
        let value = fields
            .expect(Tag::OctetString)?
            .decode::<OctetStringRef<'_>>()?
            .as_bytes();
        fields.end()?;
        if found.iter().any(|earlier| earlier.oid == oid) {
            return Err(Tag::Sequence.value_error());
        }
        found.push(Extension { oid, critical, value });
    }
    Ok(found)
}

/// Serial number and meaning of an entry.
fn read_entry(entry: Element<'_>) -> Result<(&[u8], Entry), CrlError> {
    let mut fields = entry.elements()?;
    let serial = fields.expect(Tag::Integer)?.value;
    fields.next()?.time()?;
    let mut read = Entry {
        status: Status::Revoked,
        invalid_since: None,
    };
    if let Some(extensions) = fields.optional(Tag::Sequence)? {
        for extension in extensions_of(extensions)? {
            match extension.oid {
                REASON => {
                    read.status = match Element::only(extension.value, Tag::Enumerated)?.value {
                        [6] => Status::Held,
                        [8] => Status::Removed,
                        _ => Status::Revoked,
                    }
                }
                INVALIDITY_DATE => {
                    let date = Element::only(extension.value, Tag::GeneralizedTime)?;
                    read.invalid_since = Some(timestamp(date.time()?));
                }
                other if extension.critical => return Err(CrlError::Extension(other.to_string())),
                _ => {}
            }
        }
    }
    fields.end()?;
    Ok((serial, read))
}

/// The bytes of a number that is not negative, without leading zeros.
fn number(der: &[u8]) -> Result<Vec<u8>, der::Error> {
    let number: der::asn1::UintRef<'_> = Element::only(der, Tag::Integer)?.decode()?;
    Ok(number
        .as_bytes()
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect())
}

/// Numbers of [`number`] in their order.
fn at_least(one: &[u8], other: &[u8]) -> bool {
    (one.len(), one) >= (other.len(), other)
}

/// The list with the highest number.
fn newest<'a>(lists: impl Iterator<Item = (&'a Crl, bool)>) -> Option<(&'a Crl, bool)> {
    lists.max_by(|(one, _), (other, _)| (one.number.len(), &one.number).cmp(&(other.number.len(), &other.number)))
}

fn distribution_points(certificate: &Certificate) -> Vec<GeneralName> {
    let Some(Ok(points)) = certificate
        .extension(DISTRIBUTION_POINTS)
        .map(CrlDistributionPoints::from_der)
    else {
        return Vec::new();
    };
    points
        .0
        .into_iter()
        .filter_map(|point| match point.distribution_point {
            Some(DistributionPointName::FullName(names)) => Some(names),
            _ => None,
        })
        .flatten()
        .collect()
}

fn offers_ocsp(certificate: &Certificate) -> bool {
    match certificate
        .extension(AUTHORITY_INFO)
        .map(AuthorityInfoAccessSyntax::from_der)
    {
        Some(Ok(access)) => access.0.iter().any(|access| access.access_method == OCSP),
        // What cannot be read may be an offer.
        Some(Err(_)) => true,
        None => false,
    }
}

/// Looks for each certificate of a verified chain, but the root, in the lists of its issuer. `span` becomes the
/// time in which the answer holds. `signed_until` is the latest time at which the signature can have been made, if
/// that is vouched for by somebody else than the signer.
///
/// # Errors
/// A certificate is revoked.
pub(super) fn check(
    chain: &[Certificate],
    crls: &[Crl],
    now: Timestamp,
    signed_until: Option<Timestamp>,
    span: &mut Span,
) -> Result<Revocation, Revoked> {
    let mut used = Vec::new();
    let mut unavailable = None;
    for (place, pair) in chain.windows(2).enumerate() {
        let [certificate, issuer] = pair else { continue };
        match check_one(certificate, issuer, crls, now, signed_until, span) {
            Ok(mut lists) => used.append(&mut lists),
            Err(Unknown::Revoked(crl)) => return Err(Revoked { place, crl }),
            Err(Unknown::Unavailable(why)) => {
                unavailable.get_or_insert_with(|| why.about(&certificate.subject()));
            }
        }
    }
    used.sort();
    used.dedup();
    Ok(match unavailable {
        Some(text) => Revocation::Unavailable(text),
        None if used.is_empty() => Revocation::NotOffered,
        None => Revocation::Good { crls: used },
    })
}

impl Unavailable {
    fn about(&self, subject: &Subject) -> String {
        format!("the certificate of '{subject}' {self}; import a current revocation list of its issuer")
    }
}

enum Unknown {
    Revoked(Digest),
    Unavailable(Unavailable),
}

/// The lists that show a certificate to be good; none if its issuer publishes none.
fn check_one(
    certificate: &Certificate,
    issuer: &Certificate,
    crls: &[Crl],
    now: Timestamp,
    signed_until: Option<Timestamp>,
    span: &mut Span,
) -> Result<Vec<Digest>, Unknown> {
    let unavailable = |why| Err(Unknown::Unavailable(why));
    let excused = |entry: &Entry| {
        entry
            .invalid_since
            .is_some_and(|since| signed_until.is_some_and(|signed| signed < since))
    };

    let mut reason = None;
    let mut lists = Vec::new();
    for crl in crls.iter().filter(|crl| crl.issuer == certificate.issuer()) {
        if !issuer.may_sign_revocation_lists() {
            reason = Some(Unavailable::NotItsUse);
        } else if !crl.is_signed_by(issuer) {
            reason = Some(Unavailable::Signature);
        } else if let Ok(mut entries) = crl.entries(certificate.serial()) {
            entries.retain(|entry| !excused(entry));
            // A revocation for good is believed from every list of the issuer, however old.
            if entries.iter().any(|entry| entry.status == Status::Revoked) {
                return Err(Unknown::Revoked(crl.digest));
            }
            if crl.this_update > now {
                // What it says then is not known now.
                span.ends_before(crl.this_update);
                reason = Some(Unavailable::NotYet(crl.this_update));
            } else if crl.next_update < now {
                reason = Some(Unavailable::Expired(crl.next_update));
            } else {
                lists.push((crl, entries));
            }
        }
    }

    let held = |entries: &[Entry]| entries.iter().any(|entry| entry.status == Status::Held);
    let removed = |entries: &[Entry]| entries.iter().any(|entry| entry.status == Status::Removed);
    let base = newest(
        lists
            .iter()
            .filter(|(crl, _)| crl.base.is_none() && crl.covers(certificate))
            .map(|(crl, entries)| (*crl, held(entries))),
    );
    let Some((base, mut is_held)) = base else {
        if let Some(reason) = reason {
            return unavailable(reason);
        }
        if !lists.is_empty() {
            return unavailable(Unavailable::OtherScope);
        }
        if certificate.extension(DISTRIBUTION_POINTS).is_some() {
            return unavailable(Unavailable::NoList);
        }
        return if offers_ocsp(certificate) {
            unavailable(Unavailable::OcspOnly)
        } else {
            Ok(Vec::new())
        };
    };
    span.within(base.this_update, base.next_update);
    let mut used = vec![base.digest];

    let fits = |delta: &Crl| {
        delta
            .base
            .as_ref()
            .is_some_and(|made_for| at_least(&base.number, made_for))
            && delta.scope == base.scope
            && at_least(&delta.number, &base.number)
    };
    let delta = newest(
        lists
            .iter()
            .filter(|(crl, _)| fits(crl))
            .map(|(crl, entries)| (*crl, (is_held || held(entries)) && !removed(entries))),
    );
    match delta {
        Some((delta, held)) => {
            is_held = held;
            span.within(delta.this_update, delta.next_update);
            used.push(delta.digest);
        }
        None if !is_held && (base.has_deltas || certificate.extension(FRESHEST).is_some()) => {
            return unavailable(Unavailable::NoDelta);
        }
        None => {}
    }
    if is_held {
        return Err(Unknown::Revoked(used.pop().unwrap_or(base.digest)));
    }
    Ok(used)
}
