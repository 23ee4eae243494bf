//! What both forms of envelope hold, and what has to be in it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Fault, jws};
use crate::oci::shorten;

/// The only content of a Notary Project signature.
pub const PAYLOAD_TYPE: &str = "application/vnd.cncf.notary.payload.v1+json";

/// Most attributes in a protected header.
pub(super) const MAX_ATTRIBUTES: usize = 64;

pub(super) const SCHEME: &str = "io.cncf.notary.signingScheme";
pub(super) const SIGNING_TIME: &str = "io.cncf.notary.signingTime";
pub(super) const AUTHENTIC_SIGNING_TIME: &str = "io.cncf.notary.authenticSigningTime";
pub(super) const EXPIRY: &str = "io.cncf.notary.expiry";
pub(super) const SIGNING_AGENT: &str = "io.cncf.notary.signingAgent";
pub(super) const TIMESTAMP: &str = "io.cncf.notary.timestampSignature";
const PLUGIN: &str = "io.cncf.notary.verificationPlugin";
const PLUGIN_VERSION: &str = "io.cncf.notary.verificationPluginMinVersion";

/// Who vouches for the signing time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheme {
    /// Nobody, unless a timestamp authority does.
    #[serde(rename = "notary.x509")]
    X509,
    /// The signer, being a signing authority.
    #[serde(rename = "notary.x509.signingAuthority")]
    SigningAuthority,
}

/// An envelope, read and not verified.
#[derive(Debug)]
pub(super) struct Envelope {
    /// What is signed, in the encoding of the envelope's form.
    pub message: Vec<u8>,
    pub signature: Vec<u8>,
    pub payload: Vec<u8>,
    /// Certificates as they came, the signer's first.
    pub chain: Vec<Vec<u8>>,
    pub timestamp: Option<Vec<u8>>,
    pub attributes: Attributes,
}

/// The protected header as it stands.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    /// Algorithm by its name in a JWS.
    pub algorithm: String,
    pub content_type: String,
    pub scheme: String,
    pub critical: Vec<String>,
    pub signing_time: Option<Timestamp>,
    pub authentic_signing_time: Option<Timestamp>,
    pub expiry: Option<Timestamp>,
    /// Names of all other attributes; `plugin` has the value of the one that names a plugin.
    pub others: Vec<String>,
    pub plugin: Option<String>,
}

/// What the attributes say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub scheme: Scheme,
    pub signing_time: Timestamp,
    pub expiry: Option<Timestamp>,
}

impl Attributes {
    /// Takes an attribute that only its name is known of.
    pub fn other(&mut self, name: String, value: Option<&str>) {
        if name == PLUGIN {
            self.plugin = Some(shorten(value.unwrap_or_default()));
        }
        self.others.push(name);
    }

    /// # Errors
    /// Attributes that contradict each other, are missing or are not supported.
    pub fn check(&self) -> Result<Terms, Fault> {
        let is_plugin = |name: &String| name == PLUGIN || name == PLUGIN_VERSION;
        if self.others.iter().chain(&self.critical).any(is_plugin) {
            return Err(Fault::Plugin(self.plugin.clone().unwrap_or_default()));
        }
        if self.content_type != PAYLOAD_TYPE {
            return Err(Fault::ContentType(shorten(&self.content_type)));
        }
        let scheme = match self.scheme.as_str() {
            "notary.x509" => Scheme::X509,
            "notary.x509.signingAuthority" => Scheme::SigningAuthority,
            other => return Err(Fault::Scheme(shorten(other))),
        };
        let (signing_time, foreign) = match scheme {
            Scheme::X509 => (self.signing_time, self.authentic_signing_time),
            Scheme::SigningAuthority => (self.authentic_signing_time, self.signing_time),
        };
        let signing_time = signing_time.ok_or(Fault::Attributes("it lacks the signing time of its scheme"))?;
        if foreign.is_some() {
            return Err(Fault::Attributes("it has a signing time of another scheme"));
        }
        for (place, name) in self.critical.iter().enumerate() {
            if self.critical.iter().take(place).any(|earlier| earlier == name) {
                return Err(Fault::Attributes("it lists a critical attribute twice"));
            }
            let present = match name.as_str() {
                SCHEME => true,
                SIGNING_TIME => self.signing_time.is_some(),
                AUTHENTIC_SIGNING_TIME => self.authentic_signing_time.is_some(),
                EXPIRY => self.expiry.is_some(),
                other => return Err(Fault::CriticalUnknown(shorten(other))),
            };
            if !present {
                return Err(Fault::Attributes("it lists a critical attribute that it does not have"));
            }
        }
        let required = [
            (SCHEME, true),
            (AUTHENTIC_SIGNING_TIME, self.authentic_signing_time.is_some()),
            (EXPIRY, self.expiry.is_some()),
        ];
        for (name, applies) in required {
            if applies && !self.critical.iter().any(|listed| listed == name) {
                return Err(Fault::CriticalMissing(name));
            }
        }
        if self.expiry.is_some_and(|expiry| expiry <= signing_time) {
            return Err(Fault::Attributes("it expired before it was signed"));
        }
        Ok(Terms {
            scheme,
            signing_time,
            expiry: self.expiry,
        })
    }
}

/// Reads an envelope of one of the two media types.
pub(super) fn parse(bytes: &[u8], media_type: &str) -> Result<Envelope, Fault> {
    match media_type {
        jws::MEDIA_TYPE => jws::parse(bytes),
        super::cose::MEDIA_TYPE => super::cose::parse(bytes),
        other => Err(Fault::MediaType(shorten(other))),
    }
}
