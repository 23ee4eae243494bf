//! Signatures of cosign's older layout, made with a plain key: a simple-signing payload as layer, the signature
//! in an annotation of the layer's descriptor.
//!
//! Format: <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>.

use super::bundle::base64;
use super::key::Message;
use super::{Carrier, Claim, Maker, Problem, Unverified};
use crate::attest::SimpleSigning;
use crate::oci::Descriptor;

/// Media type of the payload.
pub const MEDIA_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Largest payload in bytes.
pub const MAX_PAYLOAD: u64 = 64 << 10;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATES: [&str; 2] = ["dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain"];
const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";
const TIMESTAMP: &str = "dev.sigstore.cosign/rfc3161timestamp";

/// Reads the payload that `layer` describes, with the signature in its annotations.
///
/// # Errors
/// A payload that is not acceptable, or verification material that this carrier cannot verify.
pub fn parse(layer: &Descriptor, payload: Vec<u8>) -> Result<Unverified, Problem> {
    let annotation = |name: &str| layer.annotations.get(name).filter(|value| !value.is_empty());
    if CERTIFICATES.into_iter().any(|name| annotation(name).is_some()) {
        return Err(Problem::CertificateUnsupported);
    }
    if annotation(LOG_ENTRY).is_some() {
        return Err(Problem::LogEntry);
    }
    if annotation(TIMESTAMP).is_some() {
        return Err(Problem::Timestamp);
    }
    let signature = annotation(SIGNATURE).ok_or(Problem::SignatureCount(0))?;
    let SimpleSigning { digest, optional } = SimpleSigning::parse(&payload).map_err(Problem::Payload)?;
    Ok(Unverified {
        carrier: Carrier::SimpleSigning,
        claim: Claim::ImageSignature,
        subjects: vec![digest],
        maker: Maker::Key(None),
        predicate: optional,
        message: Message::Bytes(payload),
        signature: base64("signature", signature)?,
        bundle: None,
        work: 1,
    })
}
