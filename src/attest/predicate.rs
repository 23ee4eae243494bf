//! A predicate that was verified before, found again by its digest.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::digest::Digest;

/// As much as there is of the carriers of a statement: a Sigstore bundle, a DSSE envelope, the statement itself.
#[derive(Deserialize)]
struct Carrier<'a> {
    #[serde(rename = "dsseEnvelope", default)]
    envelope: Option<Envelope>,
    #[serde(default)]
    payload: Option<String>,
    #[serde(borrow, default)]
    predicate: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Envelope {
    payload: String,
}

/// The predicate with this digest in a blob that carries a statement. Everything about the blob was checked when it was
/// verified; that it is the same predicate is what the digest says.
#[must_use]
pub fn find(blob: &[u8], digest: Digest) -> Option<Vec<u8>> {
    let carrier: Carrier<'_> = serde_json::from_slice(blob).ok()?;
    if let Some(payload) = carrier.envelope.map(|envelope| envelope.payload).or(carrier.payload) {
        let statement = BASE64_STANDARD.decode(payload).ok()?;
        let carrier: Carrier<'_> = serde_json::from_slice(&statement).ok()?;
        return matching(carrier.predicate?, digest);
    }
    matching(carrier.predicate?, digest)
}

fn matching(predicate: &RawValue, digest: Digest) -> Option<Vec<u8>> {
    let bytes = predicate.get().as_bytes();
    (Digest::of(bytes) == digest).then(|| bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predicate_is_found_in_every_carrier_and_only_by_its_digest() {
        let predicate = r#"{"spdxVersion": "SPDX-2.3"}"#;
        let statement = format!(r#"{{"_type":"https://in-toto.io/Statement/v1","predicate":{predicate}}}"#);
        let payload = BASE64_STANDARD.encode(&statement);
        let envelope =
            format!(r#"{{"payloadType":"application/vnd.in-toto+json","payload":"{payload}","signatures":[]}}"#);
        let bundle = format!(r#"{{"mediaType":"x","dsseEnvelope":{envelope},"verificationMaterial":{{}}}}"#);
        let digest = Digest::of(predicate.as_bytes());
        for blob in [&statement, &envelope, &bundle] {
            assert_eq!(
                find(blob.as_bytes(), digest).as_deref(),
                Some(predicate.as_bytes()),
                "{blob}"
            );
            assert_eq!(find(blob.as_bytes(), Digest::of(b"another")), None);
        }
        for blob in [
            "",
            "{}",
            "[]",
            r#"{"payload":"!"}"#,
            r#"{"dsseEnvelope":{"payload":"e30="}}"#,
        ] {
            assert_eq!(find(blob.as_bytes(), digest), None, "{blob}");
        }
    }
}
