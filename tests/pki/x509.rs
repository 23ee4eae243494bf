//! Keys, certificates and the signed certificate timestamps in them.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use super::der::{
    bits, boolean, explicit, generalized_time, implicit, int, octets, oid, sequence, set, tlv, utc_time, utf8,
};

const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";
const FULCIO: &str = "1.3.6.1.4.1.57264.1";

/// Seconds of 2050-01-01, from when on certificates write times in the long form.
const YEAR_2050: i64 = 2_524_608_000;

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// A fresh signing key.
#[derive(Clone)]
pub struct Key(Pair);

#[derive(Clone)]
enum Pair {
    P256(Arc<EcdsaKeyPair>),
    Ed25519(Arc<Ed25519KeyPair>),
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({})", hex::encode(self.id()))
    }
}

impl Key {
    /// ECDSA P-256, signing with SHA-256.
    pub fn new() -> Self {
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        Self(Pair::P256(Arc::new(EcdsaKeyPair::generate(algorithm).unwrap())))
    }

    pub fn ed25519() -> Self {
        Self(Pair::Ed25519(Arc::new(Ed25519KeyPair::generate().unwrap())))
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Pair::P256(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Pair::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }

    /// Its SubjectPublicKeyInfo.
    pub fn spki(&self) -> Vec<u8> {
        let der: PublicKeyX509Der<'_> = match &self.0 {
            Pair::P256(key) => key.public_key().as_der().unwrap(),
            Pair::Ed25519(key) => key.public_key().as_der().unwrap(),
        };
        der.as_ref().to_vec()
    }

    /// The bare point of an Ed25519 key.
    pub fn raw(&self) -> Vec<u8> {
        match &self.0 {
            Pair::P256(key) => key.public_key().as_ref().to_vec(),
            Pair::Ed25519(key) => key.public_key().as_ref().to_vec(),
        }
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what names a log of version 1.
    pub fn id(&self) -> [u8; 32] {
        sha256(&self.spki())
    }

    pub fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    pub fn details(&self) -> &'static str {
        match &self.0 {
            Pair::P256(_) => "PKIX_ECDSA_P256_SHA_256",
            Pair::Ed25519(_) => "PKIX_ED25519",
        }
    }
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Whom a certificate is for.
#[derive(Debug, Clone)]
pub enum Name {
    Uri(String),
    Email(String),
}

/// The certificate of a signer, before it is issued.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub names: Vec<Name>,
    /// The deprecated extension 1, raw text.
    pub issuer_v1: Option<String>,
    /// Extension 8, an UTF8String.
    pub issuer_v2: Option<String>,
    /// Further extensions under Fulcio's arc by their last number, each an UTF8String.
    pub claims: Vec<(u8, String)>,
    pub not_before: i64,
    pub not_after: i64,
    pub authority: bool,
    /// First byte of the KeyUsage bits; `0x80` is digitalSignature.
    pub key_usage: Option<u8>,
    pub code_signing: bool,
    /// SubjectPublicKeyInfo of another key than the one that signs.
    pub foreign_key: Option<Vec<u8>>,
    /// What the certificate transparency log adds to its promise.
    pub sct_extensions: Vec<u8>,
}

/// What a certificate authority may do.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    Root,
    Intermediate,
    /// An intermediate that may certify only URIs of another host.
    ConstrainedIntermediate,
    TimestampAuthority,
    /// A timestamp authority's certificate without its extended key usage.
    Useless,
}

/// A certificate with the key that it is about.
#[derive(Debug, Clone)]
pub struct Authority {
    pub name: String,
    pub key: Key,
    pub certificate: Vec<u8>,
}

impl Authority {
    /// An authority that nobody vouches for.
    pub fn root(name: &str, key: &Key, not_before: i64, not_after: i64) -> Self {
        let template = Template::authority(name, key, not_before, not_after, Purpose::Root);
        Self {
            name: name.to_owned(),
            key: key.clone(),
            certificate: template.issue(name, key),
        }
    }

    /// Certifies `key` as another authority.
    pub fn certify(&self, name: &str, key: &Key, not_before: i64, not_after: i64, purpose: Purpose) -> Self {
        let template = Template::authority(name, key, not_before, not_after, purpose);
        Self {
            name: name.to_owned(),
            key: key.clone(),
            certificate: template.issue(&self.name, &self.key),
        }
    }

    /// Issues the certificate of a signer, with the given signed certificate timestamps over it: each is the log's
    /// key, the time in milliseconds and whether it is really about this certificate.
    pub fn issue(&self, leaf: &Leaf, key: &Key, timestamps: &[(&Key, i64, bool)]) -> Vec<u8> {
        let mut template = leaf.template(key);
        let about = template.tbs(&self.name);
        let other = Template {
            serial: 0x66,
            ..leaf.template(key)
        }
        .tbs(&self.name);
        let list: Vec<Vec<u8>> = timestamps
            .iter()
            .map(|(log, time, really)| {
                let about = if *really { &about } else { &other };
                self.timestamp(about, log, *time, &leaf.sct_extensions)
            })
            .collect();
        if !list.is_empty() {
            let list: Vec<u8> = list.iter().flat_map(|one| opaque16(one)).collect();
            let value = octets(&opaque16(&list));
            template
                .extensions
                .push(extension("1.3.6.1.4.1.11129.2.4.2", false, &value));
        }
        template.issue(&self.name, &self.key)
    }

    /// A signed certificate timestamp, see RFC 6962, section 3.2.
    fn timestamp(&self, tbs: &[u8], log: &Key, milliseconds: i64, extensions: &[u8]) -> Vec<u8> {
        let extensions = opaque16(extensions);
        let time = milliseconds.to_be_bytes();
        let length = u32::try_from(tbs.len()).unwrap().to_be_bytes();
        let signed = [
            &[0, 0][..],
            &time,
            &[0, 1],
            &self.key.id(),
            &length[1..],
            tbs,
            &extensions,
        ]
        .concat();
        [
            &[0][..],
            &log.id(),
            &time,
            &extensions,
            &[4, 3],
            &opaque16(&log.sign(&signed)),
        ]
        .concat()
    }
}

fn opaque16(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

impl Leaf {
    fn template(&self, key: &Key) -> Template {
        let mut extensions = Vec::new();
        if let Some(usage) = self.key_usage {
            extensions.push(key_usage(usage));
        }
        if self.code_signing {
            extensions.push(extended_key_usage(CODE_SIGNING));
        }
        if self.authority {
            extensions.push(basic_constraints(None));
        }
        if !self.names.is_empty() {
            let names = self.names.iter().map(|name| match name {
                Name::Email(text) => implicit(1, text.as_bytes()),
                Name::Uri(text) => implicit(6, text.as_bytes()),
            });
            extensions.push(extension("2.5.29.17", true, &sequence(names)));
        }
        if let Some(issuer) = &self.issuer_v1 {
            extensions.push(extension(&format!("{FULCIO}.1"), false, issuer.as_bytes()));
        }
        if let Some(issuer) = &self.issuer_v2 {
            extensions.push(extension(&format!("{FULCIO}.8"), false, &utf8(issuer)));
        }
        for (number, text) in &self.claims {
            extensions.push(extension(&format!("{FULCIO}.{number}"), false, &utf8(text)));
        }
        Template {
            subject: String::new(),
            serial: 0x11,
            spki: self.foreign_key.clone().unwrap_or_else(|| key.spki()),
            not_before: self.not_before,
            not_after: self.not_after,
            extensions,
        }
    }

    /// The certificate signed by its own key.
    pub fn self_signed(&self, key: &Key) -> Vec<u8> {
        self.template(key).issue("", key)
    }
}

struct Template {
    subject: String,
    serial: u8,
    spki: Vec<u8>,
    not_before: i64,
    not_after: i64,
    extensions: Vec<Vec<u8>>,
}

impl Template {
    fn authority(name: &str, key: &Key, not_before: i64, not_after: i64, purpose: Purpose) -> Self {
        const SIGN_CERTIFICATES: u8 = 0x06;
        const SIGN: u8 = 0x80;
        let extensions = match purpose {
            Purpose::Root => vec![key_usage(SIGN_CERTIFICATES), basic_constraints(Some(1))],
            Purpose::Intermediate => vec![
                key_usage(SIGN_CERTIFICATES),
                extended_key_usage(CODE_SIGNING),
                basic_constraints(Some(0)),
            ],
            Purpose::ConstrainedIntermediate => vec![
                key_usage(SIGN_CERTIFICATES),
                extended_key_usage(CODE_SIGNING),
                basic_constraints(Some(0)),
                name_constraints("other.example"),
            ],
            Purpose::TimestampAuthority => vec![
                key_usage(SIGN),
                extension("2.5.29.37", true, &sequence([oid(TIME_STAMPING)])),
            ],
            Purpose::Useless => vec![key_usage(SIGN), extended_key_usage(CODE_SIGNING)],
        };
        Self {
            subject: name.to_owned(),
            serial: 0x22,
            spki: key.spki(),
            not_before,
            not_after,
            extensions,
        }
    }

    fn tbs(&self, issuer: &str) -> Vec<u8> {
        sequence([
            explicit(0, &int(2)),
            int(self.serial),
            sequence([oid(ECDSA_WITH_SHA256)]),
            name(issuer),
            sequence([time(self.not_before), time(self.not_after)]),
            name(&self.subject),
            self.spki.clone(),
            explicit(3, &sequence(self.extensions.iter().cloned())),
        ])
    }

    fn issue(&self, issuer: &str, key: &Key) -> Vec<u8> {
        let tbs = self.tbs(issuer);
        let signature = bits(&key.sign(&tbs));
        sequence([tbs, sequence([oid(ECDSA_WITH_SHA256)]), signature])
    }
}

/// A distinguished name of nothing but a common name; empty for a signer.
pub fn name(common: &str) -> Vec<u8> {
    if common.is_empty() {
        return sequence([]);
    }
    sequence([set([sequence([oid("2.5.4.3"), utf8(common)])])])
}

fn time(seconds: i64) -> Vec<u8> {
    if seconds < YEAR_2050 {
        utc_time(seconds)
    } else {
        generalized_time(seconds)
    }
}

fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { boolean(true) } else { Vec::new() };
    sequence([oid(id), critical, octets(value)])
}

fn key_usage(first: u8) -> Vec<u8> {
    let unused = u8::try_from(first.trailing_zeros()).unwrap();
    extension("2.5.29.15", true, &tlv(0x03, &[unused, first]))
}

fn extended_key_usage(purpose: &str) -> Vec<u8> {
    extension("2.5.29.37", false, &sequence([oid(purpose)]))
}

/// Permits URIs of one host and nothing else, see RFC 5280, section 4.2.1.10.
fn name_constraints(host: &str) -> Vec<u8> {
    let permitted = sequence([implicit(6, host.as_bytes())]);
    extension("2.5.29.30", true, &sequence([tlv(0xa0, &permitted)]))
}

fn basic_constraints(path_length: Option<u8>) -> Vec<u8> {
    let length = path_length.map(int).unwrap_or_default();
    extension("2.5.29.19", true, &sequence([boolean(true), length]))
}
