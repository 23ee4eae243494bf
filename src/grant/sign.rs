//! An administrator's private key: PKCS #8 (RFC 5958) in PEM, or what `cosign generate-key-pair` writes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use serde::Deserialize;
use spki::der::pem;

use crate::store;

/// Largest file in bytes.
const MAX_FILE: u64 = 64 << 10;
/// Most memory that finding the key of a password may take, in bytes: cosign asks for 64 MiB.
const MAX_MEMORY: u64 = 100 << 20;
/// Labels of keys that cosign encrypted, now and in its first versions.
const ENCRYPTED: [&str; 2] = ["ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY"];
/// Bytes of a key of secretbox.
const KEY: usize = 32;
/// Bytes of its nonce.
const NONCE: usize = 24;

/// A key that signs.
#[derive(Debug)]
pub struct PrivateKey(Kind);

#[derive(Debug)]
enum Kind {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// Why nothing is signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] store::Error),
    /// Others can read the key.
    #[error("{} can be read by others than its owner, and the key in it is not encrypted; run: chmod 0600 {}", .0.display(), .0.display())]
    Open(PathBuf),
    /// No private key is in it.
    #[error(
        "{} holds no private key that can be used: {why}; wanted is PKCS #8 in PEM (openssl pkcs8 -topk8 -nocrypt), or \
         a key of 'cosign generate-key-pair'", path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The password is not the key's.
    #[error("the password does not open {}; COSIGN_PASSWORD is used where it is set", .0.display())]
    Password(PathBuf),
    /// Nobody says the password.
    #[error("the key is encrypted, and no password was given: {0}; set COSIGN_PASSWORD, or run it on a terminal")]
    NoPassword(#[source] std::io::Error),
    /// The library does not sign.
    #[error("the key does not sign")]
    Sign,
}

/// What cosign encrypts a key into.
#[derive(Debug, Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Debug, Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Debug, Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Debug, Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

impl PrivateKey {
    /// Reads the key in a file. `password` is asked for that of an encrypted one.
    ///
    /// # Errors
    /// See [`SignError`].
    pub fn read(path: &Path, password: impl FnOnce() -> std::io::Result<String>) -> Result<Self, SignError> {
        let none = |why: String| SignError::NoKey {
            path: path.to_owned(),
            why,
        };
        let text = store::read_bounded(path, MAX_FILE)?;
        let (label, bytes) = pem::decode_vec(&text).map_err(|error| none(error.to_string()))?;
        let der = match label {
            "PRIVATE KEY" => {
                let mode = std::fs::metadata(path).map_or(0o777, |metadata| metadata.permissions().mode());
                if mode & 0o077 != 0 {
                    return Err(SignError::Open(path.to_owned()));
                }
                bytes
            }
            label if ENCRYPTED.contains(&label) => {
                let sealed = Sealed::parse(&bytes).map_err(none)?;
                let password = password().map_err(SignError::NoPassword)?;
                sealed
                    .open(password.as_bytes())
                    .ok_or_else(|| SignError::Password(path.to_owned()))?
            }
            other => return Err(none(format!("it holds a '{}'", crate::oci::shorten(other)))),
        };
        let curves = [
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            &ECDSA_P521_SHA512_ASN1_SIGNING,
        ];
        let ecdsa = curves
            .into_iter()
            .find_map(|curve| EcdsaKeyPair::from_pkcs8(curve, &der).ok())
            .map(Kind::Ecdsa);
        let ed25519 = || Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok().map(Kind::Ed25519);
        let rsa = || RsaKeyPair::from_pkcs8(&der).ok().map(Kind::Rsa);
        let kind = ecdsa.or_else(ed25519).or_else(rsa);
        let wanted = "its key is none of ECDSA P-256, P-384, P-521, Ed25519, or RSA with at least 2048 bits";
        kind.map(Self).ok_or_else(|| none(wanted.to_owned()))
    }

    /// Signs with the hash that goes with the key: SHA-256, or as long as the curve.
    ///
    /// # Errors
    /// [`SignError::Sign`].
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.0 {
            Kind::Ecdsa(key) => key
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignError::Sign),
            Kind::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
            Kind::Rsa(key) => {
                let mut signed = vec![0; key.public_modulus_len()];
                key.sign(&signature::RSA_PKCS1_SHA256, &random, message, &mut signed)
                    .map_err(|_| SignError::Sign)?;
                Ok(signed)
            }
        }
    }
}

/// An encrypted key, with what it takes to open it.
struct Sealed {
    params: scrypt::Params,
    salt: Vec<u8>,
    nonce: [u8; NONCE],
    ciphertext: Vec<u8>,
}

impl Sealed {
    /// Reads what cosign wrote; the error says what is wrong with it.
    fn parse(json: &[u8]) -> Result<Self, String> {
        let Encrypted {
            kdf,
            cipher,
            ciphertext,
        } = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if kdf.name != "scrypt" || cipher.name != "nacl/secretbox" {
            return Err("it is encrypted in a way that cosign does not use".to_owned());
        }
        let Params { n, r, p } = kdf.params;
        let memory = n.saturating_mul(128).saturating_mul(r.into());
        if !n.is_power_of_two() || memory > MAX_MEMORY || p > 16 {
            return Err(format!("finding its key with N = {n}, r = {r}, p = {p} takes too much"));
        }
        let log = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
        let decoded = |text: &str| BASE64_STANDARD.decode(text).map_err(|error| error.to_string());
        Ok(Self {
            params: scrypt::Params::new(log, r, p, KEY).map_err(|error| error.to_string())?,
            salt: decoded(&kdf.salt)?,
            nonce: decoded(&cipher.nonce)?
                .try_into()
                .map_err(|_| "its nonce is not as long as one".to_owned())?,
            ciphertext: decoded(&ciphertext)?,
        })
    }

    /// `None` where it is not the password.
    fn open(&self, password: &[u8]) -> Option<Vec<u8>> {
        let mut key = [0; KEY];
        scrypt::scrypt(password, &self.salt, &self.params, &mut key).ok()?;
        let cipher = XSalsa20Poly1305::new(&key.into());
        cipher
            .decrypt(&Nonce::from(self.nonce), self.ciphertext.as_slice())
            .ok()
    }
}

/// The password of an encrypted key: what COSIGN_PASSWORD says, else what is typed on the terminal.
///
/// # Errors
/// Without a terminal.
pub fn password() -> std::io::Result<String> {
    match std::env::var("COSIGN_PASSWORD") {
        Ok(password) => Ok(password),
        Err(_) => rpassword::prompt_password("Password of the private key: "),
    }
}

/// A signature as it is, where it is not base64 of one: tools write both.
#[must_use]
pub fn decoded(signature: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(signature).unwrap_or_default();
    let compact: String = text.split_whitespace().collect();
    match BASE64_STANDARD.decode(compact) {
        Ok(decoded) if !decoded.is_empty() => decoded,
        _ => signature.to_vec(),
    }
}
