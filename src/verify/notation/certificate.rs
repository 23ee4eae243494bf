//! Certificates and chains that are given whole, from the signer to the root.
//!
//! Requirements: <https://github.com/notaryproject/specifications/blob/main/specs/signature-specification.md#certificate-requirements>.

use jiff::Timestamp;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Decode as _, Tag, TagNumber};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

use super::element::{Element, context};
use super::key::{AlgorithmError, Key, SignatureAlgorithm};
use super::subject::Subject;
use crate::digest::Digest;

/// Largest certificate in bytes.
pub const MAX_CERTIFICATE: usize = 16 << 10;
/// Most certificates in a chain.
pub const MAX_CHAIN: usize = 10;

/// Most values in one SET of a certificate: readers sort them in quadratic time, and names have one or two.
const MAX_SET: usize = 16;

const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
/// May be critical and says nothing that is asked for here.
const CERTIFICATE_POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");

const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
const TIME_STAMPING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.8");
const ANY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");
/// Usages that a code-signing certificate must not have beside its own.
const FOREIGN_USAGES: [(ObjectIdentifier, &str); 6] = [
    (ANY_USAGE, "any purpose"),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"), "TLS servers"),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"), "TLS clients"),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4"), "e-mail"),
    (TIME_STAMPING, "timestamps"),
    (ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9"), "OCSP"),
];

/// What the certificate at the start of a chain is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    CodeSigning,
    TimeStamping,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Larger than any genuine one.
    #[error("{0} bytes are more than a certificate can have")]
    TooLarge(usize),
    /// Not an X.509 certificate.
    #[error("it is not an X.509 certificate in DER: {0}")]
    Malformed(String),
    /// A key or a signature algorithm that is not allowed.
    #[error(transparent)]
    Algorithm(AlgorithmError),
    /// Issued by another than the one that follows it.
    #[error("it was not issued by the certificate that follows it in the chain")]
    Issuer,
    /// A root that is not at the end.
    #[error("it is self-signed and not the last of its chain")]
    SelfSigned,
    /// The chain has no root.
    #[error("it is the last of its chain and not self-signed: the chain has no root")]
    NoRoot,
    /// A CA signed as if it were a signer, or the reverse.
    #[error("{0}")]
    Constraints(&'static str),
    /// Used for something that it is not made for.
    #[error("{0}")]
    Usage(String),
    /// More CAs below than it allows.
    #[error("it allows {allowed} authorities below it, the chain has {found}")]
    PathLength {
        /// Most that it allows.
        allowed: u8,
        /// How many there are.
        found: usize,
    },
    /// A restriction that is not understood.
    #[error("it is restricted by the extension {0}, which is not supported")]
    Extension(String),
    /// Not valid at the time that counts.
    #[error("it is valid from {from} to {until}, and {at} is outside")]
    Time {
        /// Start of its validity.
        from: Timestamp,
        /// End of its validity.
        until: Timestamp,
        /// Time that counts.
        at: Timestamp,
    },
}

impl CertificateError {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::Malformed(_) => "notation-certificate-malformed",
            Self::Algorithm(_) => "notation-certificate-algorithm",
            Self::Issuer | Self::SelfSigned | Self::NoRoot => "notation-chain-broken",
            Self::Constraints(_) | Self::Usage(_) => "notation-certificate-usage",
            Self::PathLength { .. } => "notation-path-length",
            Self::Extension(_) => "notation-certificate-extension",
            Self::Time { .. } => "notation-certificate-time",
        }
    }
}

impl From<der::Error> for CertificateError {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A certificate that could be read. Nothing about it is verified.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    der: Vec<u8>,
    /// As it stands in the certificate: value of the INTEGER.
    serial: Vec<u8>,
    /// Names as they stand in the certificate.
    issuer: Vec<u8>,
    subject: Vec<u8>,
    inner: x509_cert::Certificate,
    key: Key,
    signature_algorithm: Result<SignatureAlgorithm, AlgorithmError>,
    basic_constraints: Option<(bool, BasicConstraints)>,
    key_usage: Option<(bool, KeyUsage)>,
    extended_key_usage: Option<(bool, Vec<ObjectIdentifier>)>,
    unknown_restriction: Option<ObjectIdentifier>,
}

impl Certificate {
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > MAX_CERTIFICATE {
            return Err(CertificateError::TooLarge(der.len()));
        }
        refuse_large_sets(Element::only(der, Tag::Sequence)?, 0)?;
        let inner = x509_cert::Certificate::from_der(der)?;
        let tbs = &inner.tbs_certificate;
        if tbs.signature != inner.signature_algorithm {
            return Err(CertificateError::Malformed(
                "it names two different signature algorithms".to_owned(),
            ));
        }
        let mut fields = Element::only(der, Tag::Sequence)?.elements()?.next()?.elements()?;
        fields.optional(context(TagNumber::N0))?;
        let serial = fields.next()?.value.to_vec();
        fields.next()?;
        let issuer = fields.next()?.whole.to_vec();
        fields.next()?;
        let mut certificate = Self {
            der: der.to_vec(),
            serial,
            issuer,
            subject: fields.next()?.whole.to_vec(),
            key: Key::parse(&tbs.subject_public_key_info).map_err(CertificateError::Algorithm)?,
            signature_algorithm: SignatureAlgorithm::parse(&inner.signature_algorithm, None),
            basic_constraints: None,
            key_usage: None,
            extended_key_usage: None,
            unknown_restriction: None,
            inner,
        };
        certificate.read_extensions()?;
        Ok(certificate)
    }

    fn read_extensions(&mut self) -> Result<(), CertificateError> {
        let extensions = self.inner.tbs_certificate.extensions.as_deref().unwrap_or_default();
        for (place, extension) in extensions.iter().enumerate() {
            let (oid, value) = (extension.extn_id, extension.extn_value.as_bytes());
            if extensions.iter().take(place).any(|earlier| earlier.extn_id == oid) {
                return Err(CertificateError::Malformed(format!("it has the extension {oid} twice")));
            }
            match oid {
                BASIC_CONSTRAINTS => {
                    self.basic_constraints = Some((extension.critical, BasicConstraints::from_der(value)?));
                }
                KEY_USAGE => self.key_usage = Some((extension.critical, KeyUsage::from_der(value)?)),
                EXTENDED_KEY_USAGE => {
                    self.extended_key_usage = Some((extension.critical, ExtendedKeyUsage::from_der(value)?.0));
                }
                CERTIFICATE_POLICIES => {}
                _ if extension.critical || oid == NAME_CONSTRAINTS => self.unknown_restriction = Some(oid),
                _ => {}
            }
        }
        Ok(())
    }

    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn subject(&self) -> Subject {
        Subject::new(&self.inner.tbs_certificate.subject)
    }

    /// Its serial number as it is encoded.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The name of its issuer as it is encoded.
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// The value of an extension.
    pub fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.inner.tbs_certificate.extensions.as_deref()?;
        let extension = extensions.iter().find(|extension| extension.extn_id == oid)?;
        Some(extension.extn_value.as_bytes())
    }

    pub fn is_authority(&self) -> bool {
        self.basic_constraints
            .as_ref()
            .is_some_and(|(_, constraints)| constraints.ca)
    }

    pub fn may_sign_revocation_lists(&self) -> bool {
        self.key_usage.as_ref().is_some_and(|(_, usage)| usage.crl_sign())
    }

    /// Whether `issuer` issued it.
    pub fn is_issued_by(&self, issuer: &Self) -> Result<bool, CertificateError> {
        if self.issuer != issuer.subject {
            return Ok(false);
        }
        let algorithm = self.signature_algorithm.clone().map_err(CertificateError::Algorithm)?;
        let mut parts = Element::only(&self.der, Tag::Sequence)?.elements()?;
        let signed = parts.next()?.whole;
        let Some(signature) = self.inner.signature.as_bytes() else {
            return Ok(false);
        };
        Ok(issuer.key.verifies(algorithm, signed, signature))
    }

    /// Whether it has the name of `certificate`'s issuer; the cheap part of [`Self::is_issued_by`].
    pub fn names_issuer_of(&self, certificate: &Self) -> bool {
        self.subject == certificate.issuer
    }

    pub fn is_self_signed(&self) -> Result<bool, CertificateError> {
        self.is_issued_by(self)
    }

    /// First and last second of its validity.
    pub fn validity(&self) -> (Timestamp, Timestamp) {
        let validity = &self.inner.tbs_certificate.validity;
        (
            timestamp(validity.not_before.to_unix_duration().as_secs()),
            timestamp(validity.not_after.to_unix_duration().as_secs()),
        )
    }

    /// # Errors
    /// [`CertificateError::Time`] unless it is valid during all of `earliest..=latest`.
    pub fn check_time(&self, earliest: Timestamp, latest: Timestamp) -> Result<(), CertificateError> {
        let (from, until) = self.validity();
        for at in [earliest, latest] {
            if at < from || at > until {
                return Err(CertificateError::Time { from, until, at });
            }
        }
        Ok(())
    }

    fn check_signer(&self, purpose: Purpose) -> Result<(), CertificateError> {
        if self.is_authority() {
            return Err(CertificateError::Constraints(
                "it signed, and is a certificate authority",
            ));
        }
        let usage = |text: &str| Err(CertificateError::Usage(text.to_owned()));
        let Some((critical, key_usage)) = &self.key_usage else {
            return usage("it does not say what its key is for");
        };
        if !critical && purpose == Purpose::CodeSigning {
            return usage("its key usage is not marked critical");
        }
        let foreign = key_usage.key_encipherment()
            || key_usage.data_encipherment()
            || key_usage.key_agreement()
            || key_usage.key_cert_sign()
            || key_usage.crl_sign()
            || key_usage.encipher_only()
            || key_usage.decipher_only();
        if !key_usage.digital_signature() || foreign {
            return usage("its key is not for digital signatures alone");
        }
        match (purpose, &self.extended_key_usage) {
            (Purpose::CodeSigning, None) => Ok(()),
            (Purpose::CodeSigning, Some((_, usages))) => {
                let foreign = FOREIGN_USAGES.iter().find(|(oid, _)| usages.contains(oid));
                if let Some((_, name)) = foreign {
                    return Err(CertificateError::Usage(format!("it is for {name}")));
                }
                if !usages.contains(&CODE_SIGNING) {
                    return usage("it is not for code signing");
                }
                Ok(())
            }
            (Purpose::TimeStamping, Some((true, usages))) if *usages == [TIME_STAMPING] => Ok(()),
            (Purpose::TimeStamping, _) => usage("it is not for timestamps alone, or does not mark that critical"),
        }
    }

    /// `below` is the number of authorities between it and the signer.
    fn check_authority(&self, purpose: Purpose, below: usize, is_root: bool) -> Result<(), CertificateError> {
        let Some((
            true,
            BasicConstraints {
                ca: true,
                path_len_constraint,
            },
        )) = &self.basic_constraints
        else {
            return Err(CertificateError::Constraints(
                "it issued a certificate, and is not marked as a certificate authority",
            ));
        };
        if let Some(allowed) = *path_len_constraint
            && below > usize::from(allowed)
        {
            return Err(CertificateError::PathLength { allowed, found: below });
        }
        let usage = |text: &str| Err(CertificateError::Usage(text.to_owned()));
        match &self.key_usage {
            Some((critical, _)) if !critical && purpose == Purpose::CodeSigning => {
                return usage("its key usage is not marked critical");
            }
            Some((_, key_usage)) if key_usage.key_cert_sign() => {}
            _ => return usage("it issued a certificate, and its key is not for that"),
        }
        let wanted = match purpose {
            Purpose::CodeSigning => CODE_SIGNING,
            Purpose::TimeStamping => TIME_STAMPING,
        };
        match &self.extended_key_usage {
            Some((_, usages)) if !is_root && !usages.contains(&wanted) && !usages.contains(&ANY_USAGE) => {
                usage("it is an authority for other purposes")
            }
            _ => Ok(()),
        }
    }
}

/// Checks each certificate and each link of a chain, the signer first, the root last; not its time.
///
/// # Errors
/// The place in the chain, and what is wrong there.
pub(super) fn check_chain(chain: &[Certificate], purpose: Purpose) -> Result<(), (usize, CertificateError)> {
    for (place, certificate) in chain.iter().enumerate() {
        let at = |error| (place, error);
        if let Some(oid) = certificate.unknown_restriction {
            return Err(at(CertificateError::Extension(oid.to_string())));
        }
        certificate
            .signature_algorithm
            .as_ref()
            .map_err(|error| at(CertificateError::Algorithm(error.clone())))?;
        let self_signed = certificate.is_self_signed().map_err(at)?;
        match chain.get(place + 1) {
            None if !self_signed => return Err(at(CertificateError::NoRoot)),
            None => {}
            Some(_) if self_signed => return Err(at(CertificateError::SelfSigned)),
            Some(issuer) if !certificate.is_issued_by(issuer).map_err(at)? => {
                return Err(at(CertificateError::Issuer));
            }
            Some(_) => {}
        }
        match place.checked_sub(1) {
            None => certificate.check_signer(purpose),
            Some(below) => certificate.check_authority(purpose, below, place + 1 == chain.len()),
        }
        .map_err(at)?;
    }
    Ok(())
}

/// Seconds since 1970 as a time. The year 9999, which certificates write for "never", may be too late for one.
pub(super) fn timestamp(seconds: u64) -> Timestamp {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .unwrap_or(Timestamp::MAX)
}

/// Refuses a SET with more than [`MAX_SET`] values anywhere in a structure.
fn refuse_large_sets(element: Element<'_>, depth: usize) -> Result<(), CertificateError> {
    /// Deeper than any field of a certificate outside its extensions, which are octets.
    const MAX_DEPTH: usize = 16;
    if !element.tag.is_constructed() {
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Err(CertificateError::Malformed("it is nested too deeply".to_owned()));
    }
    let mut elements = element.elements()?;
    let mut count = 0;
    while !elements.is_at_end() {
        count += 1;
        if element.tag == Tag::Set && count > MAX_SET {
            return Err(CertificateError::Malformed(
                "a set in it has too many values".to_owned(),
            ));
        }
        refuse_large_sets(elements.next()?, depth + 1)?;
    }
    Ok(())
}
