//! The envelope of a grant: bytes and the trust in force in, a grant and the key that signed it out.
//!
//! The signature is verified before anything of the payload is read.
//!
//! Format: <https://github.com/secure-systems-lab/dsse/blob/master/envelope.md>.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Fault, Grant, TYPE};
use crate::oci::{json, shorten};
use crate::policy::Active;
use crate::trust::{Key, Status, Use};
use crate::verify::bundle::pae;
use crate::verify::key::{Message, PublicKey};

/// How the encoding of what is signed starts.
const PREFIX: &[u8] = b"DSSEv1 ";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signature {
    sig: String,
    /// Names a key; the signature decides, not its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keyid: Option<String>,
}

/// A grant as it is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    payload: Vec<u8>,
}

impl Unsigned {
    /// The bytes that are signed stand for exactly this grant.
    ///
    /// # Errors
    /// See [`Grant::check`].
    pub fn new(grant: &Grant) -> Result<Self, Fault> {
        grant.check()?;
        let payload = serde_json::to_vec(grant).map_err(|error| Fault::Malformed(error.to_string()))?;
        Ok(Self { payload })
    }

    /// What a key signs: the pre-authentication encoding of DSSE.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        pae(TYPE, &self.payload)
    }

    /// Reads back what [`Unsigned::message`] wrote, for a signature that was made elsewhere.
    ///
    /// # Errors
    /// Bytes that it did not write.
    pub fn of_message(message: &[u8]) -> Result<Self, Fault> {
        let other = || Fault::Malformed("it is not what 'assay grant --unsigned' wrote".to_owned());
        let at = message
            .starts_with(PREFIX)
            .then(|| message.iter().position(|byte| *byte == b'{'));
        let payload = message
            .get(at.flatten().ok_or_else(other)?..)
            .unwrap_or_default()
            .to_vec();
        let unsigned = Self { payload };
        // Of the one form that the type and the payload have.
        (unsigned.message() == message).then_some(unsigned).ok_or_else(other)
    }

    /// The envelope with a signature of [`Unsigned::message`].
    ///
    /// # Errors
    /// When it has no JSON form.
    pub fn sealed(&self, signature: &[u8]) -> Result<Vec<u8>, Fault> {
        let envelope = Envelope {
            payload: BASE64_STANDARD.encode(&self.payload),
            payload_type: TYPE.to_owned(),
            signatures: vec![Signature {
                sig: BASE64_STANDARD.encode(signature),
                keyid: None,
            }],
        };
        serde_json::to_vec(&envelope).map_err(|error| Fault::Malformed(error.to_string()))
    }
}

/// The grant in an envelope, and the key of the trust in force that signed it and counts at `now`. When the grant itself
/// counts is another question.
///
/// # Errors
/// Anything that is not exactly one signature of such a key over exactly one grant.
pub fn verify<'a>(bytes: &[u8], active: &'a Active, now: Timestamp) -> Result<(Grant, &'a Key), Fault> {
    let malformed = |what: &str| Fault::Malformed(what.to_owned());
    let envelope: Envelope = json::parse(bytes).map_err(|error| Fault::Malformed(shorten(&error.to_string())))?;
    if envelope.payload_type != TYPE {
        return Err(Fault::PayloadType(shorten(&envelope.payload_type)));
    }
    let [signature] = envelope.signatures.as_slice() else {
        return Err(malformed("its envelope does not have exactly one signature"));
    };
    let decoded = |text: &str| {
        BASE64_STANDARD
            .decode(text)
            .map_err(|_| malformed("it is not in base64"))
    };
    let payload = decoded(&envelope.payload)?;
    let message = Message::Bytes(pae(TYPE, &payload));
    let key = signer(active, &message, &decoded(&signature.sig)?, now)?;
    Ok((Grant::parse(&payload)?, key))
}

/// The key that signed, if it may.
fn signer<'a>(active: &'a Active, message: &Message, signature: &[u8], now: Timestamp) -> Result<&'a Key, Fault> {
    let made =
        |key: &&Key| PublicKey::from_spki(&key.spki, key.hash).is_ok_and(|public| public.verifies(message, signature));
    let (may, may_not): (Vec<&Key>, Vec<&Key>) = active.keys.iter().partition(|key| key.r#use.contains(&Use::Grant));
    let Some(found) = may.iter().copied().find(made) else {
        return Err(may_not
            .into_iter()
            .find(made)
            .map_or(Fault::Unknown, |key| Fault::KeyUse(key.id.clone())));
    };
    // One key may be listed more than once: distrust of any entry is distrust of the key.
    let same: Vec<&Key> = active.keys.iter().filter(|key| key.spki == found.spki).collect();
    let ended = |key: &Key, why| {
        Err(Fault::KeyEnded {
            key: key.id.clone(),
            why,
        })
    };
    if let Some(key) = same.iter().find(|key| key.status == Status::Distrusted) {
        return ended(key, "it is distrusted");
    }
    if let Some(key) = same.iter().find(|key| active.deny.key.contains(&key.id)) {
        return ended(key, "it is on the deny list");
    }
    let usable = same
        .iter()
        .filter(|key| key.hash == found.hash && key.r#use.contains(&Use::Grant));
    let mut why = "it is retired";
    for key in usable.filter(|key| key.status == Status::Active) {
        // A grant is of the present: what counts is the node's time, and no one else's.
        match (key.from, key.until) {
            (Some(from), _) if now < from => why = "its window has not begun",
            (_, Some(until)) if now >= until => why = "its window is over",
            _ => return Ok(key),
        }
    }
    ended(found, why)
}

/// The grant in an envelope, whoever signed it: only to say which one it is, and to forget it.
pub(super) fn unverified(bytes: &[u8]) -> Option<Grant> {
    let envelope: Envelope = json::parse(bytes).ok()?;
    Grant::parse(&BASE64_STANDARD.decode(envelope.payload).ok()?).ok()
}
