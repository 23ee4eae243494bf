//! A writer for DER: certificates and tokens that no library would agree to make.

use spki::der::asn1::ObjectIdentifier;

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        length @ 0..0x80 => out.push(u8::try_from(length).unwrap()),
        length => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap()..];
            out.push(0x80 | u8::try_from(bytes.len()).unwrap());
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

pub fn sequence(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    tlv(0x30, &parts.into_iter().flatten().collect::<Vec<_>>())
}

/// A SET OF, its elements in the order that DER demands.
pub fn set(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort();
    tlv(0x31, &parts.concat())
}

pub fn oid(dotted: &str) -> Vec<u8> {
    tlv(0x06, ObjectIdentifier::new(dotted).unwrap().as_bytes())
}

/// A small non-negative INTEGER.
pub fn int(value: u8) -> Vec<u8> {
    assert!(value < 0x80);
    tlv(0x02, &[value])
}

pub fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

pub fn octets(bytes: &[u8]) -> Vec<u8> {
    tlv(0x04, bytes)
}

pub fn bits(bytes: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], bytes].concat())
}

pub fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, text.as_bytes())
}

/// Explicit context tag.
pub fn explicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

/// Implicit context tag of a primitive.
pub fn implicit(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0x80 | number, content)
}

/// GeneralizedTime in whole seconds.
pub fn generalized_time(seconds: i64) -> Vec<u8> {
    tlv(0x18, format_time(seconds, "%Y%m%d%H%M%SZ").as_bytes())
}

/// UTCTime, which certificates use until 2049.
pub fn utc_time(seconds: i64) -> Vec<u8> {
    tlv(0x17, format_time(seconds, "%y%m%d%H%M%SZ").as_bytes())
}

fn format_time(seconds: i64, format: &str) -> String {
    jiff::Timestamp::from_second(seconds)
        .unwrap()
        .strftime(format)
        .to_string()
}
