//! Envelopes in JSON: JWS in the flattened serialization.
//!
//! Format: <https://github.com/notaryproject/specifications/blob/main/specs/signature-envelope-jws.md>.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Fault;
use super::certificate::MAX_CHAIN;
use super::envelope::{AUTHENTIC_SIGNING_TIME, Attributes, EXPIRY, Envelope, MAX_ATTRIBUTES, SCHEME, SIGNING_TIME};
use crate::oci::json;

/// Media type of the layer.
pub const MEDIA_TYPE: &str = "application/jose+json";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flattened {
    payload: String,
    protected: String,
    header: Unprotected,
    signature: String,
}

/// What is not listed here is refused: no signature needs it, and a name that is slightly wrong would hide what it
/// names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unprotected {
    x5c: Vec<String>,
    #[serde(rename = "io.cncf.notary.timestampSignature")]
    timestamp: Option<String>,
    /// Names the software that signed; signed by nobody.
    #[serde(rename = "io.cncf.notary.signingAgent")]
    _agent: Option<String>,
}

pub(super) fn parse(bytes: &[u8]) -> Result<Envelope, Fault> {
    let jws: Flattened = json::parse(bytes).map_err(Fault::Json)?;
    if jws.header.x5c.len() > MAX_CHAIN {
        return Err(Fault::ChainLength(jws.header.x5c.len()));
    }
    let url = |what, text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Fault::Base64(what));
    let standard = |what, text: &String| BASE64_STANDARD.decode(text).map_err(|_| Fault::Base64(what));
    let protected = url("protected header", &jws.protected)?;
    Ok(Envelope {
        message: format!("{}.{}", jws.protected, jws.payload).into_bytes(),
        signature: url("signature", &jws.signature)?,
        payload: url("payload", &jws.payload)?,
        chain: jws
            .header
            .x5c
            .iter()
            .map(|text| standard("certificate", text))
            .collect::<Result<_, _>>()?,
        timestamp: jws
            .header
            .timestamp
            .as_ref()
            .map(|text| standard("timestamp", text))
            .transpose()?,
        attributes: attributes(json::parse(&protected).map_err(Fault::Json)?)?,
    })
}

fn attributes(header: Map<String, Value>) -> Result<Attributes, Fault> {
    if header.len() > MAX_ATTRIBUTES {
        return Err(Fault::Attributes("it has too many attributes"));
    }
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut attributes = Attributes::default();
    for (name, value) in header {
        match name.as_str() {
            "alg" => attributes.algorithm = text(&value).ok_or(Fault::Attributes("its algorithm is no text"))?,
            "cty" => attributes.content_type = text(&value).ok_or(Fault::Attributes("its content type is no text"))?,
            "crit" => {
                attributes.critical = value
                    .as_array()
                    .and_then(|names| names.iter().map(text).collect())
                    .ok_or(Fault::Attributes("its critical attributes are no list of names"))?;
            }
            SCHEME => attributes.scheme = text(&value).ok_or(Fault::Attributes("its signing scheme is no text"))?,
            SIGNING_TIME => attributes.signing_time = Some(time(&value)?),
            AUTHENTIC_SIGNING_TIME => attributes.authentic_signing_time = Some(time(&value)?),
            EXPIRY => attributes.expiry = Some(time(&value)?),
            _ => attributes.other(name, value.as_str()),
        }
    }
    Ok(attributes)
}

/// A time as RFC 3339 writes it; the reader alone would take more.
fn time(value: &Value) -> Result<Timestamp, Fault> {
    let malformed = Fault::Attributes("one of its times is not written as RFC 3339 says");
    match value.as_str() {
        Some(text)
            if text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"-:TZ.+".contains(&byte)) =>
        {
            text.parse().map_err(|_| malformed)
        }
        _ => Err(malformed),
    }
}
