//! Envelopes in CBOR: a tagged `COSE_Sign1`.
//!
//! Format: <https://github.com/notaryproject/specifications/blob/main/specs/signature-envelope-cose.md>.

use coset::cbor::value::Value;
use coset::iana::{self, EnumI64 as _};
use coset::{ContentType, CoseSign1, Label, RegisteredLabelWithPrivate, TaggedCborSerializable as _};
use jiff::Timestamp;

use super::Fault;
use super::certificate::MAX_CHAIN;
use super::envelope::{
    AUTHENTIC_SIGNING_TIME, Attributes, EXPIRY, Envelope, MAX_ATTRIBUTES, SCHEME, SIGNING_AGENT, SIGNING_TIME,
    TIMESTAMP,
};

/// Media type of the layer.
pub const MEDIA_TYPE: &str = "application/cose";

/// Tag of times in seconds since 1970 (RFC 8949, section 3.4.2).
const EPOCH_TAG: u64 = 1;

/// Refused, because a name that is slightly wrong would hide what it names.
const NEEDLESS: &str = "it has an unprotected attribute that no signature needs";

pub(super) fn parse(bytes: &[u8]) -> Result<Envelope, Fault> {
    let sign1 = CoseSign1::from_tagged_slice(bytes).map_err(|error| Fault::Cbor(error.to_string()))?;
    let mut registered = sign1.unprotected.clone();
    registered.rest.clear();
    if !registered.is_empty() {
        return Err(Fault::Attributes(NEEDLESS));
    }
    let mut chain = Vec::new();
    let mut timestamp = None;
    for (label, value) in &sign1.unprotected.rest {
        match (label, value) {
            (Label::Int(label), Value::Array(certificates)) if *label == iana::HeaderParameter::X5Chain.to_i64() => {
                if certificates.len() > MAX_CHAIN {
                    return Err(Fault::ChainLength(certificates.len()));
                }
                for certificate in certificates {
                    let der = certificate
                        .as_bytes()
                        .ok_or(Fault::Attributes("a certificate is no bytes"))?;
                    chain.push(der.clone());
                }
            }
            (Label::Text(label), Value::Bytes(token)) if label == TIMESTAMP => timestamp = Some(token.clone()),
            (Label::Text(label), Value::Text(_)) if label == SIGNING_AGENT => {}
            _ => return Err(Fault::Attributes(NEEDLESS)),
        }
    }
    Ok(Envelope {
        message: sign1.tbs_data(&[]),
        payload: sign1.payload.clone().ok_or(Fault::Attributes("it has no payload"))?,
        chain,
        timestamp,
        attributes: attributes(&sign1)?,
        signature: sign1.signature,
    })
}

fn attributes(sign1: &CoseSign1) -> Result<Attributes, Fault> {
    let header = &sign1.protected.header;
    if header.rest.len() > MAX_ATTRIBUTES || header.crit.len() > MAX_ATTRIBUTES {
        return Err(Fault::Attributes("it has too many attributes"));
    }
    let mut attributes = Attributes {
        algorithm: match header.alg {
            Some(RegisteredLabelWithPrivate::Assigned(algorithm)) => format!("{algorithm:?}"),
            Some(RegisteredLabelWithPrivate::PrivateUse(number)) => number.to_string(),
            Some(RegisteredLabelWithPrivate::Text(ref name)) => name.clone(),
            None => String::new(),
        },
        content_type: match &header.content_type {
            Some(ContentType::Text(name)) => name.clone(),
            Some(ContentType::Assigned(number)) => format!("{number:?}"),
            None => String::new(),
        },
        critical: header
            .crit
            .iter()
            .map(|label| match label {
                RegisteredLabelWithPrivate::Text(name) => name.clone(),
                RegisteredLabelWithPrivate::Assigned(label) => label.to_i64().to_string(),
                RegisteredLabelWithPrivate::PrivateUse(number) => number.to_string(),
            })
            .collect(),
        ..Attributes::default()
    };
    for (label, value) in &header.rest {
        let name = match label {
            Label::Text(name) => name.clone(),
            Label::Int(number) => number.to_string(),
        };
        match (label, name.as_str()) {
            (Label::Text(_), SCHEME) => {
                let scheme = value
                    .as_text()
                    .ok_or(Fault::Attributes("its signing scheme is no text"))?;
                attributes.scheme = scheme.to_owned();
            }
            (Label::Text(_), SIGNING_TIME) => attributes.signing_time = Some(time(value)?),
            (Label::Text(_), AUTHENTIC_SIGNING_TIME) => attributes.authentic_signing_time = Some(time(value)?),
            (Label::Text(_), EXPIRY) => attributes.expiry = Some(time(value)?),
            _ => attributes.other(name, value.as_text()),
        }
    }
    Ok(attributes)
}

fn time(value: &Value) -> Result<Timestamp, Fault> {
    match value {
        Value::Tag(EPOCH_TAG, seconds) => seconds
            .as_integer()
            .and_then(|seconds| i64::try_from(i128::from(seconds)).ok())
            .and_then(|seconds| Timestamp::from_second(seconds).ok()),
        _ => None,
    }
    .ok_or(Fault::Attributes("one of its times is no tagged number of seconds"))
}
