//! Trust stores: root certificates by kind and name, and revocation lists.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use x509_cert::der;

use super::certificate::{Certificate, CertificateError};
use super::revocation::{Crl, CrlError, MAX_CRL};
use crate::digest::Digest;
use crate::oci::shorten;

/// Largest file of a trust store in bytes.
pub const MAX_STORE_FILE: usize = 1 << 20;
/// Most bytes of all revocation lists together: they are kept in memory.
pub const MAX_CRLS: usize = 64 << 20;

/// What the roots of a store are trusted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// Certificate authorities: the signing scheme `notary.x509`.
    Ca,
    /// Signing authorities, whose signing time is believed: `notary.x509.signingAuthority`.
    SigningAuthority,
    /// Timestamp authorities.
    Tsa,
}

impl StoreKind {
    /// As trust policies write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::SigningAuthority => "signingAuthority",
            Self::Tsa => "tsa",
        }
    }
}

/// Why a file cannot be a part of the trust stores.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Too large.
    #[error("{0} bytes are more than a file of certificates can have")]
    TooLarge(usize),
    /// No certificate in it.
    #[error("it holds no certificate")]
    Empty,
    /// Something else in a PEM file.
    #[error("it holds PEM of the type '{0}', expected {1}")]
    Pem(String, &'static str),
    /// Neither PEM nor DER, or PEM that is broken.
    #[error("it cannot be read: {0}")]
    Broken(&'static str),
    /// A certificate that cannot be used.
    #[error("its certificate {number} cannot be used: {error}")]
    Certificate {
        /// Place in the file, from 1.
        number: usize,
        /// Why.
        error: CertificateError,
    },
    /// Only roots are trusted.
    #[error("its certificate {0} is not self-signed: a trust store holds root certificates only")]
    NotRoot(usize),
    /// A revocation list that cannot be used.
    #[error("it is not a revocation list that can be used: {0}")]
    Crl(CrlError),
    /// More than is kept in memory.
    #[error("with it, the revocation lists would have {0} bytes, more than are kept")]
    TooManyCrls(usize),
}

#[derive(Debug, Clone)]
struct Root {
    kind: StoreKind,
    store: String,
    certificate: Certificate,
}

/// All that a verification trusts: named stores of root certificates, and revocation lists of any origin (each
/// proves by its signature whose it is).
#[derive(Debug, Clone, Default)]
pub struct TrustStores {
    roots: Vec<Root>,
    crls: Vec<Crl>,
}

impl TrustStores {
    /// Adds the root certificates of a file, PEM or DER, to the store `name`.
    ///
    /// # Errors
    /// Anything in it that is not a root certificate that could be used.
    pub fn add_certificates(&mut self, kind: StoreKind, name: &str, file: &[u8]) -> Result<(), StoreError> {
        if file.len() > MAX_STORE_FILE {
            return Err(StoreError::TooLarge(file.len()));
        }
        let mut roots = Vec::new();
        for (place, der) in blocks(file, "CERTIFICATE")?.iter().enumerate() {
            let number = place + 1;
            let unusable = |error| StoreError::Certificate { number, error };
            let certificate = Certificate::parse(der).map_err(unusable)?;
            if !certificate.is_self_signed().map_err(unusable)? {
                return Err(StoreError::NotRoot(number));
            }
            roots.push(Root {
                kind,
                store: name.to_owned(),
                certificate,
            });
        }
        if roots.is_empty() {
            return Err(StoreError::Empty);
        }
        self.roots.append(&mut roots);
        Ok(())
    }

    /// Adds a revocation list, PEM or DER.
    ///
    /// # Errors
    /// Anything that is not exactly one readable list.
    pub fn add_crl(&mut self, file: &[u8]) -> Result<(), StoreError> {
        if file.len() > MAX_CRL {
            return Err(StoreError::Crl(CrlError::TooLarge(file.len())));
        }
        let blocks = blocks(file, "X509 CRL")?;
        let [der] = <[Vec<u8>; 1]>::try_from(blocks).map_err(|_| StoreError::Broken("expected one revocation list"))?;
        let total = der.len() + self.crls.iter().map(Crl::len).sum::<usize>();
        if total > MAX_CRLS {
            return Err(StoreError::TooManyCrls(total));
        }
        self.crls.push(Crl::parse(der).map_err(StoreError::Crl)?);
        Ok(())
    }

    pub(super) fn crls(&self) -> &[Crl] {
        &self.crls
    }

    pub(super) fn has(&self, kind: StoreKind) -> bool {
        self.roots.iter().any(|root| root.kind == kind)
    }

    /// The roots of all stores of a kind.
    pub(super) fn roots(&self, kind: StoreKind) -> impl Iterator<Item = &Certificate> {
        let of_kind = self.roots.iter().filter(move |root| root.kind == kind);
        of_kind.map(|root| &root.certificate)
    }

    /// Names of the stores of a kind that hold the certificate.
    pub(super) fn names(&self, kind: StoreKind, fingerprint: Digest) -> Vec<String> {
        let mut names: Vec<_> = self
            .roots
            .iter()
            .filter(|root| root.kind == kind && root.certificate.fingerprint() == fingerprint)
            .map(|root| root.store.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }
}

/// The DER in a file: all blocks of a PEM file, which must have this label, or the elements of a DER file.
fn blocks(file: &[u8], label: &'static str) -> Result<Vec<Vec<u8>>, StoreError> {
    const BEGIN: &str = "-----BEGIN ";
    let text = match std::str::from_utf8(file) {
        Ok(text) if text.contains(BEGIN) => text,
        _ => return elements(file),
    };
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (found, after) = after
            .split_once("-----")
            .ok_or(StoreError::Broken("a block has no label"))?;
        if found != label {
            return Err(StoreError::Pem(shorten(found), label));
        }
        let (body, after) = after
            .split_once(&format!("-----END {label}-----"))
            .ok_or(StoreError::Broken("a block has no end"))?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD
            .decode(body)
            .map_err(|_| StoreError::Broken("a block is not base64"))?;
        blocks.push(der);
        rest = after;
    }
    Ok(blocks)
}

fn elements(file: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
    let read = || -> Result<Vec<Vec<u8>>, der::Error> {
        let mut elements = super::element::Elements::new(file)?;
        let mut found = Vec::new();
        while !elements.is_at_end() {
            found.push(elements.next()?.whole.to_vec());
        }
        Ok(found)
    };
    read().map_err(|_| StoreError::Broken("it is neither PEM nor DER"))
}
