//! Certificates, envelopes, timestamps and revocation lists, right and wrong ones, made byte by byte.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use coset::cbor::value::Value as Cbor;
use coset::{CoseSign1Builder, Header, HeaderBuilder, TaggedCborSerializable as _, iana};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::verify::notation::{StoreKind, TrustStores};

pub(super) const PAYLOAD: &str = r#"{"targetArtifact":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","size":528}}"#;
pub(super) const CTY: &str = "application/vnd.cncf.notary.payload.v1+json";
pub(super) const SHA256_ECDSA: &str = "1.2.840.10045.4.3.2";
pub(super) const SHA1_ECDSA: &str = "1.2.840.10045.4.1";
const SHA256: &str = "2.16.840.1.101.3.4.2.1";

/// The middle of the validity of all certificates here that say nothing else.
pub(super) fn now() -> Timestamp {
    at("2026-06-01T00:00:00Z")
}

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A P-256 key that signs in both encodings.
pub(super) struct Key {
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
    pub spki: Vec<u8>,
}

impl Key {
    pub fn new() -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
        let asn1 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap();
        let spki: PublicKeyX509Der<'_> = asn1.public_key().as_der().unwrap();
        let spki = spki.as_ref().to_vec();
        Self {
            fixed: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap(),
            asn1,
            spki,
        }
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.asn1.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    }

    pub fn sign_envelope(&self, message: &[u8]) -> Vec<u8> {
        self.fixed
            .sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }
}

pub(super) static ROOT: LazyLock<Key> = LazyLock::new(Key::new);
pub(super) static SUB: LazyLock<Key> = LazyLock::new(Key::new);
pub(super) static LEAF: LazyLock<Key> = LazyLock::new(Key::new);
pub(super) static TSA: LazyLock<Key> = LazyLock::new(Key::new);
pub(super) static STAMP: LazyLock<Key> = LazyLock::new(Key::new);

pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let mut out = vec![tag];
    match value.len() {
        short @ 0..=0x7f => out.push(u8::try_from(short).unwrap()),
        long => {
            let bytes: Vec<u8> = long.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(bytes.len()).unwrap());
            out.extend(bytes);
        }
    }
    out.extend(value);
    out
}

pub(super) fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(super) fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, parts)
}

pub(super) fn octets(value: &[u8]) -> Vec<u8> {
    tlv(0x04, &[value])
}

pub(super) fn int(value: u64) -> Vec<u8> {
    let bytes: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    let sign: &[u8] = if bytes.first().is_none_or(|byte| *byte >= 0x80) {
        &[0]
    } else {
        &[]
    };
    tlv(0x02, &[sign, &bytes])
}

pub(super) fn oid(text: &str) -> Vec<u8> {
    let oid = x509_cert::der::asn1::ObjectIdentifier::new_unwrap(text);
    tlv(0x06, &[oid.as_bytes()])
}

fn bits(value: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], value])
}

fn utc(text: &str) -> Vec<u8> {
    tlv(0x17, &[text.as_bytes()])
}

/// A name of relative names with one attribute each, from the country down.
pub(super) fn name(attributes: &[(&str, &str)]) -> Vec<u8> {
    let relative: Vec<Vec<u8>> = attributes
        .iter()
        .map(|(kind, value)| set(&[&seq(&[&oid(kind), &tlv(0x0c, &[value.as_bytes()])])]))
        .collect();
    seq(&relative.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

pub(super) fn named(common: &str) -> Vec<u8> {
    name(&[
        ("2.5.4.6", "DE"),
        ("2.5.4.8", "Berlin"),
        ("2.5.4.10", "Acme"),
        ("2.5.4.3", common),
    ])
}

pub(super) fn extension(kind: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    seq(&[&oid(kind), critical, &octets(value)])
}

pub(super) fn key_usage(bits: u8, critical: bool) -> Vec<u8> {
    let unused = u8::try_from(bits.trailing_zeros()).unwrap();
    extension("2.5.29.15", critical, &[3, 2, unused, bits])
}

pub(super) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(super) const KEY_CERT_SIGN: u8 = 0x04;
pub(super) const CRL_SIGN: u8 = 0x02;

pub(super) fn authority(path_length: Option<u64>) -> Vec<u8> {
    let length = path_length.map(int).unwrap_or_default();
    extension("2.5.29.19", true, &seq(&[&[1, 1, 0xff], &length]))
}

pub(super) fn usages(critical: bool, list: &[&str]) -> Vec<u8> {
    let list: Vec<Vec<u8>> = list.iter().map(|usage| oid(usage)).collect();
    extension(
        "2.5.29.37",
        critical,
        &seq(&list.iter().map(Vec::as_slice).collect::<Vec<_>>()),
    )
}

pub(super) const CODE_SIGNING: &str = "1.3.6.1.5.5.7.3.3";
pub(super) const TIME_STAMPING: &str = "1.3.6.1.5.5.7.3.8";

/// `cRLDistributionPoints` with one URI.
pub(super) fn points(uri: &str) -> Vec<u8> {
    let full_name = tlv(0xa0, &[&tlv(0xa0, &[&tlv(0x86, &[uri.as_bytes()])])]);
    extension("2.5.29.31", false, &seq(&[&seq(&[&full_name])]))
}

/// What a certificate is made of.
#[derive(Clone)]
pub(super) struct Cert {
    pub serial: u64,
    pub subject: Vec<u8>,
    pub issuer: Vec<u8>,
    pub spki: Vec<u8>,
    pub from: &'static str,
    pub until: &'static str,
    pub algorithm: &'static str,
    pub extensions: Vec<Vec<u8>>,
}

impl Cert {
    fn new(serial: u64, subject: &str, issuer: &str, key: &Key, extensions: &[Vec<u8>]) -> Self {
        Self {
            serial,
            subject: named(subject),
            issuer: named(issuer),
            spki: key.spki.clone(),
            from: "260101000000Z",
            until: "270101000000Z",
            algorithm: SHA256_ECDSA,
            extensions: extensions.to_vec(),
        }
    }

    pub fn root() -> Self {
        let usage = key_usage(KEY_CERT_SIGN | CRL_SIGN, true);
        Self::new(1, "Root", "Root", &ROOT, &[authority(None), usage])
    }

    pub fn sub() -> Self {
        let usage = key_usage(KEY_CERT_SIGN | CRL_SIGN, true);
        Self::new(2, "Sub", "Root", &SUB, &[authority(Some(0)), usage])
    }

    pub fn leaf() -> Self {
        let usage = key_usage(DIGITAL_SIGNATURE, true);
        Self::new(3, "Leaf", "Sub", &LEAF, &[usage, usages(false, &[CODE_SIGNING])])
    }

    pub fn tsa() -> Self {
        let usage = key_usage(KEY_CERT_SIGN | CRL_SIGN, true);
        Self::new(4, "Time", "Time", &TSA, &[authority(None), usage])
    }

    pub fn stamp() -> Self {
        let usage = key_usage(DIGITAL_SIGNATURE, true);
        Self::new(5, "Stamp", "Time", &STAMP, &[usage, usages(true, &[TIME_STAMPING])])
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn signed(&self, issuer: &Key) -> Vec<u8> {
        let algorithm = seq(&[&oid(self.algorithm)]);
        let extensions: Vec<&[u8]> = self.extensions.iter().map(Vec::as_slice).collect();
        let body = seq(&[
            &tlv(0xa0, &[&int(2)]),
            &int(self.serial),
            &algorithm,
            &self.issuer,
            &seq(&[&utc(self.from), &utc(self.until)]),
            &self.subject,
            &self.spki,
            &tlv(0xa3, &[&seq(&extensions)]),
        ]);
        seq(&[&body, &algorithm, &bits(&issuer.sign(&body))])
    }
}

/// A signer's chain and what signs with it.
#[derive(Clone)]
pub(super) struct Chain(pub Vec<Vec<u8>>);

impl Chain {
    pub fn new() -> Self {
        Self::of(&Cert::leaf(), &Cert::sub(), &Cert::root())
    }

    pub fn of(leaf: &Cert, sub: &Cert, root: &Cert) -> Self {
        Self(vec![leaf.signed(&SUB), sub.signed(&ROOT), root.signed(&ROOT)])
    }

    /// Trust stores with its last certificate for code, and the timestamp authority's.
    pub fn stores(&self) -> TrustStores {
        let mut stores = TrustStores::default();
        stores
            .add_certificates(StoreKind::Ca, "acme", self.0.last().unwrap())
            .unwrap();
        stores
            .add_certificates(StoreKind::Tsa, "clock", &Cert::tsa().signed(&TSA))
            .unwrap();
        stores
    }

    /// An envelope in JSON.
    pub fn jws(&self, protected: &Value) -> Jws {
        let protected = BASE64_URL_SAFE_NO_PAD.encode(protected.to_string());
        let payload = BASE64_URL_SAFE_NO_PAD.encode(PAYLOAD);
        let signature = LEAF.sign_envelope(format!("{protected}.{payload}").as_bytes());
        let chain: Vec<String> = self.0.iter().map(|der| BASE64_STANDARD.encode(der)).collect();
        Jws {
            json: json!({
                "payload": payload,
                "protected": protected,
                "header": {"x5c": chain, "io.cncf.notary.signingAgent": "forge/1"},
                "signature": BASE64_URL_SAFE_NO_PAD.encode(&signature),
            }),
            signature,
        }
    }

    /// An envelope in CBOR.
    pub fn cose(&self, protected: Header) -> Vec<u8> {
        let chain = self.0.iter().map(|der| Cbor::Bytes(der.clone())).collect();
        let unprotected = HeaderBuilder::new().value(33, Cbor::Array(chain)).build();
        CoseSign1Builder::new()
            .protected(protected)
            .unprotected(unprotected)
            .payload(PAYLOAD.as_bytes().to_vec())
            .create_signature(&[], |message| LEAF.sign_envelope(message))
            .build()
            .to_tagged_vec()
            .unwrap()
    }
}

/// An envelope in JSON, with the signature to put a timestamp on.
pub(super) struct Jws {
    pub json: Value,
    pub signature: Vec<u8>,
}

impl Jws {
    pub fn bytes(&self) -> Vec<u8> {
        self.json.to_string().into_bytes()
    }

    pub fn stamped(mut self, token: &[u8]) -> Vec<u8> {
        self.json["header"]["io.cncf.notary.timestampSignature"] = BASE64_STANDARD.encode(token).into();
        self.bytes()
    }
}

pub(super) fn protected() -> Value {
    json!({
        "alg": "ES256",
        "cty": CTY,
        "crit": ["io.cncf.notary.signingScheme"],
        "io.cncf.notary.signingScheme": "notary.x509",
        "io.cncf.notary.signingTime": "2026-05-01T00:00:00Z",
    })
}

pub(super) fn authority_protected(time: &str) -> Value {
    json!({
        "alg": "ES256",
        "cty": CTY,
        "crit": ["io.cncf.notary.signingScheme", "io.cncf.notary.authenticSigningTime"],
        "io.cncf.notary.signingScheme": "notary.x509.signingAuthority",
        "io.cncf.notary.authenticSigningTime": time,
    })
}

pub(super) fn cose_protected() -> HeaderBuilder {
    HeaderBuilder::new()
        .algorithm(iana::Algorithm::ES256)
        .content_type(CTY.to_owned())
        .add_critical_label(coset::RegisteredLabelWithPrivate::Text(
            "io.cncf.notary.signingScheme".to_owned(),
        ))
        .text_value("io.cncf.notary.signingScheme".to_owned(), "notary.x509".into())
        .text_value(
            "io.cncf.notary.signingTime".to_owned(),
            Cbor::Tag(1, Box::new(1_777_593_600_i64.into())),
        )
}

/// A timestamp token.
#[derive(Clone)]
pub(super) struct Token {
    pub over: Vec<u8>,
    pub time: &'static str,
    /// Encoded `Accuracy`.
    pub accuracy: Vec<u8>,
    pub certificates: Vec<Vec<u8>>,
    /// Digest that the signed attribute names in place of the content's.
    pub digest: Option<Vec<u8>>,
    /// Hash of the signer's certificate that the signed attribute names in place of the first one's.
    pub certificate_hash: Option<Vec<u8>>,
    /// Name of the signer's certificate.
    pub signer: Vec<u8>,
}

impl Token {
    pub fn new(over: &[u8], time: &'static str) -> Self {
        Self {
            over: over.to_vec(),
            time,
            accuracy: seq(&[&int(1)]),
            certificates: vec![Cert::stamp().signed(&TSA)],
            digest: None,
            certificate_hash: None,
            signer: seq(&[&named("Time"), &int(5)]),
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn signed(&self, key: &Key) -> Vec<u8> {
        let sha256 = seq(&[&oid(SHA256)]);
        let info = seq(&[
            &int(1),
            &oid("1.2.3.4"),
            &seq(&[&sha256, &octets(&Sha256::digest(&self.over))]),
            &int(77),
            &tlv(0x18, &[self.time.as_bytes()]),
            &self.accuracy,
        ]);
        let digest = self.digest.clone().unwrap_or_else(|| Sha256::digest(&info).to_vec());
        let certificate_hash = self
            .certificate_hash
            .clone()
            .unwrap_or_else(|| Sha256::digest(&self.certificates[0]).to_vec());
        let attribute = |kind: &str, value: &[u8]| seq(&[&oid(kind), &set(&[value])]);
        let attributes = [
            attribute("1.2.840.113549.1.9.3", &oid("1.2.840.113549.1.9.16.1.4")),
            attribute("1.2.840.113549.1.9.4", &octets(&digest)),
            attribute(
                "1.2.840.113549.1.9.16.2.47",
                &seq(&[&seq(&[&seq(&[&octets(&certificate_hash)])])]),
            ),
        ]
        .concat();
        let signature = key.sign(&set(&[&attributes]));
        let signer = seq(&[
            &int(1),
            &self.signer,
            &sha256,
            &tlv(0xa0, &[&attributes]),
            &seq(&[&oid(SHA256_ECDSA)]),
            &octets(&signature),
        ]);
        let data = seq(&[
            &int(3),
            &set(&[&sha256]),
            &seq(&[&oid("1.2.840.113549.1.9.16.1.4"), &tlv(0xa0, &[&octets(&info)])]),
            &tlv(0xa0, &[&self.certificates.concat()]),
            &set(&[&signer]),
        ]);
        seq(&[&oid("1.2.840.113549.1.7.2"), &tlv(0xa0, &[&data])])
    }
}

/// A revocation list.
#[derive(Clone)]
pub(super) struct List {
    pub issuer: Vec<u8>,
    pub from: &'static str,
    pub until: Option<&'static str>,
    pub entries: Vec<Vec<u8>>,
    pub extensions: Vec<Vec<u8>>,
}

impl List {
    /// Of the authority that issued the leaf, with this number and these entries.
    pub fn new(number: u64, entries: &[Vec<u8>]) -> Self {
        Self {
            issuer: named("Sub"),
            from: "260501000000Z",
            until: Some("260701000000Z"),
            entries: entries.to_vec(),
            extensions: vec![extension("2.5.29.20", false, &int(number))],
        }
    }

    /// A delta for a base.
    pub fn delta(number: u64, base: u64, entries: &[Vec<u8>]) -> Self {
        let mut list = Self::new(number, entries);
        list.extensions.push(extension("2.5.29.27", true, &int(base)));
        list
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub fn signed(&self, key: &Key) -> Vec<u8> {
        let algorithm = seq(&[&oid(SHA256_ECDSA)]);
        let entries = match self.entries.as_slice() {
            [] => Vec::new(),
            some => seq(&some.iter().map(Vec::as_slice).collect::<Vec<_>>()),
        };
        let extensions: Vec<&[u8]> = self.extensions.iter().map(Vec::as_slice).collect();
        let body = seq(&[
            &int(1),
            &algorithm,
            &self.issuer,
            &utc(self.from),
            &self.until.map(utc).unwrap_or_default(),
            &entries,
            &tlv(0xa0, &[&seq(&extensions)]),
        ]);
        seq(&[&body, &algorithm, &bits(&key.sign(&body))])
    }
}

/// An entry of a revocation list with its extensions.
pub(super) fn revoked(serial: u64, extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = match extensions {
        [] => Vec::new(),
        some => seq(&some.iter().map(Vec::as_slice).collect::<Vec<_>>()),
    };
    seq(&[&int(serial), &utc("260501000000Z"), &extensions])
}

pub(super) fn reason(code: u8) -> Vec<u8> {
    extension("2.5.29.21", false, &[0x0a, 1, code])
}

pub(super) fn invalid_since(time: &str) -> Vec<u8> {
    extension("2.5.29.24", false, &tlv(0x18, &[time.as_bytes()]))
}

/// `issuingDistributionPoint` with these fields.
pub(super) fn scope(fields: &[&[u8]]) -> Vec<u8> {
    extension("2.5.29.28", true, &seq(fields))
}
