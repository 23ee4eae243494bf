//! Timestamps of RFC 3161.

use super::der::{bits, explicit, generalized_time, int, octets, oid, sequence, set, tlv};
use super::x509::{Authority, name, sha256};

const SHA256: &str = "2.16.840.1.101.3.4.2.1";
const SIGNED_DATA: &str = "1.2.840.113549.1.7.2";
const TST_INFO: &str = "1.2.840.113549.1.9.16.1.4";
const CONTENT_TYPE: &str = "1.2.840.113549.1.9.3";
const MESSAGE_DIGEST: &str = "1.2.840.113549.1.9.4";
const SIGNING_CERTIFICATE_V2: &str = "1.2.840.113549.1.9.16.2.47";
const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// A response that grants a timestamp over `message`, by the authority `signer` whose certificate `issuer` issued.
pub fn stamp(signer: &Authority, issuer: &Authority, message: &[u8], seconds: i64, certificates: bool) -> Vec<u8> {
    let sha256_id = || sequence([oid(SHA256)]);
    let info = sequence([
        int(1),
        oid("1.3.6.1.4.1.57264.2"),
        sequence([sha256_id(), octets(&sha256(message))]),
        int(0x33),
        generalized_time(seconds),
    ]);
    let attribute = |id: &str, value: Vec<u8>| sequence([oid(id), set([value])]);
    let attributes = set([
        attribute(CONTENT_TYPE, oid(TST_INFO)),
        attribute(MESSAGE_DIGEST, octets(&sha256(&info))),
        attribute(
            SIGNING_CERTIFICATE_V2,
            sequence([sequence([sequence([octets(&sha256(&signer.certificate))])])]),
        ),
    ]);
    let signature = signer.key.sign(&attributes);
    // What is signed is a SET, what is sent has a context tag in its place.
    let mut sent = attributes;
    sent[0] = 0xa0;
    let signer_info = sequence([
        int(1),
        sequence([name(&issuer.name), int(0x22)]),
        sha256_id(),
        sent,
        sequence([oid(ECDSA_WITH_SHA256)]),
        octets(&signature),
    ]);
    let embedded = if certificates {
        tlv(0xa0, &[signer.certificate.clone(), issuer.certificate.clone()].concat())
    } else {
        Vec::new()
    };
    let token = sequence([
        oid(SIGNED_DATA),
        explicit(
            0,
            &sequence([
                int(3),
                set([sha256_id()]),
                sequence([oid(TST_INFO), explicit(0, &octets(&info))]),
                embedded,
                set([signer_info]),
            ]),
        ),
    ]);
    let granted = sequence([int(0)]);
    sequence([granted, token])
}

/// The bits of an authority's answer that it does not want to give a timestamp.
pub fn refused() -> Vec<u8> {
    sequence([sequence([int(2), bits(&[0x80])])])
}
