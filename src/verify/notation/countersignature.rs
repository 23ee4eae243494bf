//! RFC 3161 timestamps over a signature.
//!
//! Read here and not by a CMS library: what is signed are bytes that such a library keeps only decoded.

use jiff::{SignedDuration, Timestamp};
use x509_cert::der::asn1::{ObjectIdentifier, OctetStringRef};
use x509_cert::der::{self, Tag, TagNumber};
use x509_cert::spki::AlgorithmIdentifierOwned;

use super::certificate::{Certificate, CertificateError, MAX_CHAIN, Purpose, check_chain};
use super::element::{Element, Elements, context};
use super::key::{AlgorithmError, Hash, SignatureAlgorithm};
use super::stores::{StoreKind, TrustStores};

/// Largest timestamp token in bytes.
pub const MAX_TOKEN: usize = 64 << 10;

/// Most signatures of certificates that are checked to find the way from a timestamp authority to its root.
const MAX_LINKS: usize = 64;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const SUBJECT_KEY_IDENTIFIER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
/// The baseline policy of ETSI, under which an accuracy that is not stated is one second.
const BASELINE_POLICY: ObjectIdentifier = ObjectIdentifier::new_unwrap("0.4.0.2023.1.1");

/// Why a timestamp does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimestampError {
    /// Larger than any genuine one.
    #[error("{0} bytes are more than a timestamp can have")]
    TooLarge(usize),
    /// Not an RFC 3161 token.
    #[error("it is not an RFC 3161 timestamp token in DER: {0}")]
    Malformed(String),
    /// A hash or signature algorithm that is not allowed.
    #[error("{0}")]
    Algorithm(AlgorithmError),
    /// It is of something else.
    #[error("it is not of this signature")]
    Imprint,
    /// Its signature is not its authority's.
    #[error("its own signature is not valid")]
    Signature,
    /// No certificate in it is the one that signed.
    #[error("it does not hold the certificate that signed it")]
    NoCertificate,
    /// No chain to a root that is trusted for timestamps.
    #[error("its authority's certificate leads to no root of the tsa trust stores")]
    Untrusted,
    /// From the future.
    #[error("it says {0}, which is in the future")]
    Future(Timestamp),
    /// A certificate of its authority's chain is refused.
    #[error("of its authority's chain, certificate {number} ('{subject}'): {error}")]
    Certificate {
        /// Place in the chain, from 1.
        number: usize,
        /// Its subject.
        subject: String,
        /// Why.
        error: CertificateError,
    },
}

impl TimestampError {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) | Self::Malformed(_) => "notation-timestamp-malformed",
            Self::Algorithm(_) => "notation-timestamp-algorithm",
            Self::Imprint => "notation-timestamp-imprint",
            Self::Signature | Self::NoCertificate => "notation-timestamp-signature",
            Self::Untrusted => "notation-timestamp-untrusted",
            Self::Future(_) => "notation-timestamp-future",
            Self::Certificate { .. } => "notation-timestamp-certificate",
        }
    }
}

impl From<der::Error> for TimestampError {
    fn from(error: der::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// A timestamp that verified.
#[derive(Debug)]
pub(super) struct Countersignature {
    pub earliest: Timestamp,
    pub latest: Timestamp,
    /// The authority's chain up to the trusted root.
    pub chain: Vec<Certificate>,
    /// Names of the trust stores that hold the root.
    pub stores: Vec<String>,
}

/// Verifies a timestamp token over `signature`.
pub(super) fn verify(
    token: &[u8],
    signature: &[u8],
    stores: &TrustStores,
    now: Timestamp,
) -> Result<Countersignature, TimestampError> {
    if token.len() > MAX_TOKEN {
        return Err(TimestampError::TooLarge(token.len()));
    }
    let token = Token::parse(token)?;
    let info = Info::parse(token.content)?;
    if info.hash.of(signature) != info.imprint {
        return Err(TimestampError::Imprint);
    }
    let (signer, others) = token.verify()?;
    let chain = chain(signer, &others, stores)?;
    let refused = |(place, error): (usize, CertificateError)| TimestampError::Certificate {
        number: place + 1,
        subject: chain.get(place).map(|it| it.subject().to_string()).unwrap_or_default(),
        error,
    };
    check_chain(&chain, Purpose::TimeStamping).map_err(refused)?;
    for (place, certificate) in chain.iter().enumerate() {
        certificate
            .check_time(info.time, info.time)
            .map_err(|error| refused((place, error)))?;
    }
    if info.earliest > now {
        return Err(TimestampError::Future(info.earliest));
    }
    let root = chain.last().ok_or(TimestampError::Untrusted)?.fingerprint();
    Ok(Countersignature {
        earliest: info.earliest,
        latest: info.latest,
        stores: stores.names(StoreKind::Tsa, root),
        chain,
    })
}

/// A CMS SignedData with one signer.
struct Token<'a> {
    /// The encoded TSTInfo.
    content: &'a [u8],
    certificates: Vec<&'a [u8]>,
    /// Names the signer's certificate; the signed attribute with its hash decides.
    signer_name: Element<'a>,
    digest_hash: Hash,
    signed_attributes: Element<'a>,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: &'a [u8],
}

/// The name of an algorithm that has no parameters.
fn algorithm(identifier: Element<'_>) -> Result<ObjectIdentifier, der::Error> {
    let mut fields = identifier.elements()?;
    let oid = fields.oid()?;
    if let Some(null) = fields.optional(Tag::Null)? {
        null.decode::<der::asn1::Null>()?;
    }
    fields.end()?;
    Ok(oid)
}

fn hash(identifier: Element<'_>) -> Result<Hash, TimestampError> {
    let oid = algorithm(identifier)?;
    Hash::from_oid(oid)
        .ok_or_else(|| TimestampError::Algorithm(AlgorithmError::Signature(format!("the hash algorithm {oid}"))))
}

impl<'a> Token<'a> {
    fn parse(token: &'a [u8]) -> Result<Self, TimestampError> {
        let malformed = |what: &str| TimestampError::Malformed(what.to_owned());
        let mut content_info = Element::only(token, Tag::Sequence)?.elements()?;
        if content_info.oid()? != SIGNED_DATA {
            return Err(malformed("it is not signed data"));
        }
        let signed_data = content_info.expect(context(TagNumber::N0))?;
        content_info.end()?;
        let mut fields = Element::only(signed_data.value, Tag::Sequence)?.elements()?;
        if fields.expect(Tag::Integer)?.value != [3] {
            return Err(malformed("it is not of version 3"));
        }
        let mut algorithms = fields.expect(Tag::Set)?.elements()?;
        while !algorithms.is_at_end() {
            algorithm(algorithms.expect(Tag::Sequence)?)?;
        }
        let mut encapsulated = fields.expect(Tag::Sequence)?.elements()?;
        if encapsulated.oid()? != TST_INFO {
            return Err(malformed("what it signs is no time"));
        }
        let content = encapsulated.expect(context(TagNumber::N0))?;
        let content: OctetStringRef<'a> = Element::only(content.value, Tag::OctetString)?.decode()?;
        encapsulated.end()?;
        let mut certificates = Vec::new();
        if let Some(set) = fields.optional(context(TagNumber::N0))? {
            let mut elements = set.elements()?;
            while !elements.is_at_end() {
                let certificate = elements.next()?;
                if certificates.len() == MAX_CHAIN {
                    return Err(malformed("it holds too many certificates"));
                }
                certificate.tag.assert_eq(Tag::Sequence)?;
                certificates.push(certificate.whole);
            }
        }
        fields.optional(context(TagNumber::N1))?;
        let mut signers = fields.expect(Tag::Set)?.elements()?;
        fields.end()?;
        let mut signer = signers.expect(Tag::Sequence)?.elements()?;
        if !signers.is_at_end() {
            return Err(malformed("it has several signers"));
        }
        signer.expect(Tag::Integer)?;
        let signer_name = signer.next()?;
        let digest_hash = hash(signer.expect(Tag::Sequence)?)?;
        let signed_attributes = signer.expect(context(TagNumber::N0))?;
        let signature_algorithm = signer.expect(Tag::Sequence)?.decode()?;
        let signature: OctetStringRef<'a> = signer.expect(Tag::OctetString)?.decode()?;
        signer.optional(context(TagNumber::N1))?;
        signer.end()?;
        Ok(Self {
            content: content.as_bytes(),
            certificates,
            signer_name,
            digest_hash,
            signed_attributes,
            signature_algorithm,
            signature: signature.as_bytes(),
        })
    }

    /// Whether the signer's name, by issuer and serial number or by key identifier, is this certificate's.
    fn names(&self, signer: &Certificate) -> Result<bool, TimestampError> {
        if self.signer_name.tag != Tag::Sequence {
            let named = [&[0x04], self.signer_name.whole.get(1..).unwrap_or_default()].concat();
            return Ok(signer.extension(SUBJECT_KEY_IDENTIFIER) == Some(named.as_slice()));
        }
        let mut fields = self.signer_name.elements()?;
        let (issuer, serial) = (fields.expect(Tag::Sequence)?, fields.expect(Tag::Integer)?);
        Ok(issuer.whole == signer.issuer() && serial.value == signer.serial())
    }

    /// The one value of a signed attribute.
    fn attribute(&self, wanted: ObjectIdentifier) -> Result<Element<'a>, TimestampError> {
        let malformed = || TimestampError::Malformed(format!("it has not exactly one signed attribute {wanted}"));
        let mut found = None;
        let mut attributes = self.signed_attributes.elements()?;
        while !attributes.is_at_end() {
            let mut attribute = attributes.expect(Tag::Sequence)?.elements()?;
            if attribute.oid()? != wanted {
                continue;
            }
            let mut values = attribute.expect(Tag::Set)?.elements()?;
            let value = values.next()?;
            if !values.is_at_end() || found.replace(value).is_some() {
                return Err(malformed());
            }
        }
        found.ok_or_else(malformed)
    }

    /// Verifies the signature, and gives the certificate that made it and the others.
    fn verify(&self) -> Result<(Certificate, Vec<Certificate>), TimestampError> {
        let content_type: ObjectIdentifier = self.attribute(CONTENT_TYPE)?.decode()?;
        let digest = self.attribute(MESSAGE_DIGEST)?;
        let digest: OctetStringRef<'_> = digest.decode()?;
        if content_type != TST_INFO || digest.as_bytes() != self.digest_hash.of(self.content) {
            return Err(TimestampError::Signature);
        }
        let (hash, expected) = signing_certificate(self.attribute(SIGNING_CERTIFICATE)?)?;
        let signer = self.certificates.iter().position(|der| hash.of(der) == expected);
        let Some(signer) = signer else {
            return Err(TimestampError::NoCertificate);
        };
        // A certificate with a key that is not allowed leads nowhere, unless it is the signer's.
        let mut certificates = Vec::new();
        let mut others = Vec::new();
        for (place, der) in self.certificates.iter().enumerate() {
            match Certificate::parse(der) {
                Ok(certificate) if place == signer => certificates.push(certificate),
                Ok(certificate) => others.push(certificate),
                Err(CertificateError::Algorithm(_)) if place != signer => {}
                Err(error) => {
                    return Err(TimestampError::Certificate {
                        number: place + 1,
                        subject: String::new(),
                        error,
                    });
                }
            }
        }
        let signer = certificates.pop().ok_or(TimestampError::NoCertificate)?;
        if !self.names(&signer)? {
            return Err(TimestampError::NoCertificate);
        }
        let algorithm = SignatureAlgorithm::parse(&self.signature_algorithm, Some(self.digest_hash))
            .map_err(TimestampError::Algorithm)?;
        // What is signed is the SET OF that the implicit tag replaces (RFC 5652, section 5.4).
        let mut message = self.signed_attributes.whole.to_vec();
        if let Some(tag) = message.first_mut() {
            *tag = 0x31;
        }
        if !signer.key().verifies(algorithm, &message, self.signature) {
            return Err(TimestampError::Signature);
        }
        Ok((signer, others))
    }
}

/// Hash algorithm and hash of the first certificate in a SigningCertificateV2 (RFC 5035).
fn signing_certificate(attribute: Element<'_>) -> Result<(Hash, Vec<u8>), TimestampError> {
    let mut certificates = Element::only(attribute.whole, Tag::Sequence)?
        .elements()?
        .expect(Tag::Sequence)?
        .elements()?;
    let mut first = certificates.expect(Tag::Sequence)?.elements()?;
    let algorithm = match first.optional(Tag::Sequence)? {
        Some(algorithm) => hash(algorithm)?,
        None => Hash::Sha256,
    };
    let expected: OctetStringRef<'_> = first.expect(Tag::OctetString)?.decode()?;
    Ok((algorithm, expected.as_bytes().to_vec()))
}

/// What a timestamp says.
struct Info {
    hash: Hash,
    imprint: Vec<u8>,
    time: Timestamp,
    earliest: Timestamp,
    latest: Timestamp,
}

impl Info {
    /// Reads a TSTInfo (RFC 3161, section 2.4.2).
    fn parse(der: &[u8]) -> Result<Self, TimestampError> {
        let malformed = |what: &str| TimestampError::Malformed(what.to_owned());
        let mut fields = Element::only(der, Tag::Sequence)?.elements()?;
        if fields.expect(Tag::Integer)?.value != [1] {
            return Err(malformed("it is not of version 1"));
        }
        let policy = fields.oid()?;
        let mut imprint = fields.expect(Tag::Sequence)?.elements()?;
        let hash = hash(imprint.expect(Tag::Sequence)?)?;
        let hashed: OctetStringRef<'_> = imprint.expect(Tag::OctetString)?.decode()?;
        imprint.end()?;
        fields.expect(Tag::Integer)?;
        let time = fields.expect(Tag::GeneralizedTime)?;
        let time = generalized_time(time.value).ok_or_else(|| malformed("its time is not in UTC to the second"))?;
        let mut accuracy = match fields.optional(Tag::Sequence)? {
            Some(accuracy) => read_accuracy(accuracy.elements()?)?,
            None => SignedDuration::ZERO,
        };
        if accuracy.is_zero() && policy == BASELINE_POLICY {
            accuracy = SignedDuration::from_secs(1);
        }
        fields.optional(Tag::Boolean)?;
        fields.optional(Tag::Integer)?;
        fields.optional(context(TagNumber::N0))?;
        if let Some(extensions) = fields.optional(context(TagNumber::N1))? {
            let mut extensions = extensions.elements()?;
            while !extensions.is_at_end() {
                let mut extension = extensions.expect(Tag::Sequence)?.elements()?;
                let oid = extension.oid()?;
                if extension
                    .optional(Tag::Boolean)?
                    .is_some_and(|critical| critical.value != [0])
                {
                    return Err(malformed(&format!(
                        "it has the critical extension {oid}, which is not supported"
                    )));
                }
            }
        }
        fields.end()?;
        let range = time.checked_sub(accuracy).ok().zip(time.checked_add(accuracy).ok());
        let (earliest, latest) = range.ok_or_else(|| malformed("its accuracy is out of range"))?;
        Ok(Self {
            hash,
            imprint: hashed.as_bytes().to_vec(),
            time,
            earliest,
            latest,
        })
    }
}

fn read_accuracy(mut fields: Elements<'_>) -> Result<SignedDuration, TimestampError> {
    let part = |element: Option<Element<'_>>| -> Result<i64, TimestampError> {
        // The tags [1] and [2] replace INTEGER's.
        element.map_or(Ok(0), |element| match *element.value {
            [byte] if byte < 0x80 => Ok(i64::from(byte)),
            [high, low] if high < 0x80 => Ok(i64::from(u16::from_be_bytes([high, low]))),
            _ => Err(TimestampError::Malformed("its accuracy is out of range".to_owned())),
        })
    };
    let implicit = |number| Tag::ContextSpecific {
        constructed: false,
        number,
    };
    let seconds = part(fields.optional(Tag::Integer)?)?;
    let millis = part(fields.optional(implicit(TagNumber::N0))?)?;
    let micros = part(fields.optional(implicit(TagNumber::N1))?)?;
    fields.end()?;
    Ok(SignedDuration::from_secs(seconds) + SignedDuration::from_millis(millis) + SignedDuration::from_micros(micros))
}

/// A GeneralizedTime in UTC, to the second or with a fraction, as RFC 3161 allows it.
fn generalized_time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 14 || !digits(whole) {
        return None;
    }
    if let Some(fraction) = fraction
        && (fraction.is_empty() || fraction.len() > 9 || fraction.ends_with('0') || !digits(fraction))
    {
        return None;
    }
    let (date, time) = whole.split_at(8);
    let fraction = fraction.map(|fraction| format!(".{fraction}")).unwrap_or_default();
    format!(
        "{}-{}-{}T{}:{}:{}{fraction}Z",
        date.get(..4)?,
        date.get(4..6)?,
        date.get(6..)?,
        time.get(..2)?,
        time.get(2..4)?,
        time.get(4..)?
    )
    .parse()
    .ok()
}

/// Finds the way from a certificate to a trusted root, over the others that came with it.
fn chain(
    signer: Certificate,
    others: &[Certificate],
    stores: &TrustStores,
) -> Result<Vec<Certificate>, TimestampError> {
    let mut chain = vec![signer];
    let mut links = 0;
    if extend(&mut chain, others, stores, &mut links) {
        Ok(chain)
    } else {
        Err(TimestampError::Untrusted)
    }
}

fn extend(chain: &mut Vec<Certificate>, others: &[Certificate], stores: &TrustStores, links: &mut usize) -> bool {
    let Some(last) = chain.last().cloned() else {
        return false;
    };
    if chain.len() > MAX_CHAIN {
        return false;
    }
    let mut issued = |issuer: &Certificate| {
        *links += 1;
        *links <= MAX_LINKS && last.is_issued_by(issuer).unwrap_or(false)
    };
    if stores.roots(StoreKind::Tsa).any(|root| root.der() == last.der()) {
        return true;
    }
    if let Some(root) = stores
        .roots(StoreKind::Tsa)
        .find(|root| root.names_issuer_of(&last) && issued(root))
    {
        chain.push(root.clone());
        return true;
    }
    let issuers: Vec<&Certificate> = others
        .iter()
        .filter(|other| other.names_issuer_of(&last) && chain.iter().all(|member| member.der() != other.der()))
        .filter(|other| issued(other))
        .collect();
    for issuer in issuers {
        chain.push(issuer.clone());
        if extend(chain, others, stores, links) {
            return true;
        }
        chain.pop();
    }
    false
}
