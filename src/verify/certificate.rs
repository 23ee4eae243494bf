//! What a Sigstore signing certificate says about its holder. Whether an authority that is trusted issued it is
//! another question.
//!
//! Format: <https://github.com/sigstore/fulcio/blob/main/docs/certificate-specification.md> and `oid-info.md` there.

use std::collections::BTreeMap;

use spki::SubjectPublicKeyInfoRef;
use x509_cert::Certificate as X509;
use x509_cert::der::asn1::Utf8StringRef;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectAltName};

use super::{Certificate, Identity, Problem};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::trust::public_key::{self, Kind};

/// Longest identity, issuer or claim in bytes.
pub const MAX_TEXT: usize = 2048;

const SUBJECT_ALT_NAME: &str = "2.5.29.17";
const KEY_USAGE: &str = "2.5.29.15";
const BASIC_CONSTRAINTS: &str = "2.5.29.19";
const FULCIO: &str = "1.3.6.1.4.1.57264.1.";
const ISSUER_V1: &str = "1.3.6.1.4.1.57264.1.1";
const ISSUER_V2: &str = "1.3.6.1.4.1.57264.1.8";

/// Claims of a build service, by the last number of their identifier.
const CLAIMS: &[(&str, &str)] = &[
    ("9", "build-signer-uri"),
    ("10", "build-signer-digest"),
    ("11", "runner-environment"),
    ("12", "source-repository-uri"),
    ("13", "source-repository-digest"),
    ("14", "source-repository-ref"),
    ("15", "source-repository-identifier"),
    ("16", "source-repository-owner-uri"),
    ("17", "source-repository-owner-identifier"),
    ("18", "build-config-uri"),
    ("19", "build-config-digest"),
    ("20", "build-trigger"),
    ("21", "run-invocation-uri"),
    ("22", "source-repository-visibility-at-signing"),
    ("23", "deployment-environment"),
    ("24", "token-subject"),
];

/// Names of all claims that a certificate can make.
pub fn claim_names() -> impl Iterator<Item = &'static str> {
    CLAIMS.iter().map(|(_, name)| *name)
}

/// A signing certificate, read but not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    pub(super) der: Vec<u8>,
    /// DER of the name of whoever issued it.
    pub(super) authority: Vec<u8>,
    pub(super) identity: Identity,
    pub(super) issuer: String,
    pub(super) claims: BTreeMap<String, String>,
}

impl Leaf {
    /// Reads a certificate and refuses what no signing certificate is.
    ///
    /// # Errors
    /// [`Problem::Certificate`].
    pub fn parse(der: &[u8]) -> Result<Self, Problem> {
        let malformed = |error: x509_cert::der::Error| refused(&format!("it is malformed: {error}"));
        let certificate = X509::from_der(der).map_err(malformed)?.tbs_certificate;
        let mut extensions: BTreeMap<String, &[u8]> = BTreeMap::new();
        for extension in certificate.extensions.iter().flatten() {
            let oid = extension.extn_id.to_string();
            if extensions.insert(oid, extension.extn_value.as_bytes()).is_some() {
                return Err(refused(&format!("it has the extension {} twice", extension.extn_id)));
            }
        }
        if let Some(value) = extensions.get(BASIC_CONSTRAINTS)
            && BasicConstraints::from_der(value).map_err(malformed)?.ca
        {
            return Err(refused("it is of a certificate authority, which signs no images"));
        }
        let usage = extensions
            .get(KEY_USAGE)
            .ok_or_else(|| refused("it has no key usage"))?;
        let usage = KeyUsage::from_der(usage).map_err(malformed)?;
        if !usage.0.contains(KeyUsages::DigitalSignature) {
            return Err(refused("its key may not be used for signatures"));
        }
        let spki = certificate.subject_public_key_info.to_der().map_err(malformed)?;
        let info = SubjectPublicKeyInfoRef::try_from(spki.as_slice()).map_err(|_| refused("its key is malformed"))?;
        match public_key::kind(&info).map_err(|fault| refused(&format!("it {fault}")))? {
            Kind::P256 | Kind::P384 | Kind::Ed25519 | Kind::Rsa => {}
            kind @ (Kind::P521 | Kind::RsaPss(_)) => {
                let name = kind.name();
                return Err(refused(&format!(
                    "its key is of {name}, which is verified for the keys of trust.d only"
                )));
            }
        }
        let names = extensions
            .get(SUBJECT_ALT_NAME)
            .ok_or_else(|| refused("it names no identity"))?;
        let identity = match SubjectAltName::from_der(names).map_err(malformed)?.0.as_slice() {
            [GeneralName::UniformResourceIdentifier(uri)] => Identity::Uri(text("identity", uri.as_str())?),
            [GeneralName::Rfc822Name(email)] => Identity::Email(text("identity", email.as_str())?),
            [_] => return Err(refused("its identity is neither a URI nor an email address")),
            names => {
                return Err(refused(&format!(
                    "it has {} identities, expected exactly one",
                    names.len()
                )));
            }
        };
        let old = extensions
            .get(ISSUER_V1)
            .map(|raw| std::str::from_utf8(raw).map_err(|_| refused("its issuer is not text")))
            .transpose()?;
        let new = extensions.get(ISSUER_V2).map(|der| utf8("issuer", der)).transpose()?;
        let issuer = match (old, new) {
            (Some(old), Some(new)) if old != new => {
                return Err(refused("its two extensions that name the issuer contradict each other"));
            }
            (_, Some(issuer)) | (Some(issuer), None) => text("issuer", issuer)?,
            (None, None) => return Err(refused("it names no issuer of the identity")),
        };
        let mut claims = BTreeMap::new();
        for (number, name) in CLAIMS {
            if let Some(der) = extensions.get(&format!("{FULCIO}{number}")) {
                claims.insert((*name).to_owned(), text(name, utf8(name, der)?)?);
            }
        }
        Ok(Self {
            der: der.to_owned(),
            authority: certificate.issuer.to_der().map_err(malformed)?,
            identity,
            issuer,
            claims,
        })
    }

    /// Who vouched for the identity, as the certificate has it.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whom the certificate names.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is known of the holder once the certificate is verified under a root.
    pub(super) fn certified(&self, root: &str) -> Certificate {
        Certificate {
            root: root.to_owned(),
            identity: self.identity.clone(),
            issuer: self.issuer.clone(),
            claims: self.claims.clone(),
            fingerprint: Digest::of(&self.der),
        }
    }
}

/// Whether a certificate names itself as the one that issued it, as roots do.
///
/// # Errors
/// [`Problem::Certificate`].
pub(super) fn is_self_signed(der: &[u8]) -> Result<bool, Problem> {
    let certificate =
        X509::from_der(der).map_err(|error| refused(&format!("one that comes with it is malformed: {error}")))?;
    Ok(certificate.tbs_certificate.issuer == certificate.tbs_certificate.subject)
}

fn refused(reason: &str) -> Problem {
    Problem::Certificate(reason.to_owned())
}

fn utf8<'a>(what: &str, der: &'a [u8]) -> Result<&'a str, Problem> {
    let text = Utf8StringRef::from_der(der).map_err(|_| refused(&format!("its {what} is not a UTF-8 string")))?;
    Ok(text.as_str())
}

/// Text that is compared with what an administrator wrote, and shown.
fn text(what: &str, text: &str) -> Result<String, Problem> {
    if text.is_empty() && !CLAIMS.iter().any(|(_, name)| *name == what) {
        return Err(refused(&format!("its {what} is empty")));
    }
    if text.len() > MAX_TEXT {
        return Err(refused(&format!("its {what} has {} bytes", text.len())));
    }
    if printable(text) != text {
        return Err(refused(&format!("its {what} has characters that cannot be shown")));
    }
    Ok(text.to_owned())
}
