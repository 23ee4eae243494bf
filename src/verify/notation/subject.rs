//! Who signed: distinguished names of certificates, and the identities that a policy trusts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Encode as _, Tag, Tagged as _};
use x509_cert::name::Name;

use crate::diagnostic::printable;
use crate::oci::shorten;

/// What an identity in a policy starts with.
pub const IDENTITY_PREFIX: &str = "x509.subject:";

/// Attribute types by the names that identities may use.
const NAMES: [(&str, &str); 9] = [
    ("2.5.4.6", "C"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.7", "L"),
    ("2.5.4.11", "OU"),
    ("2.5.4.3", "CN"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.17", "POSTALCODE"),
    ("2.5.4.5", "SERIALNUMBER"),
];

/// A distinguished name as a certificate has it: relative names from the root down, each one or more attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(Vec<Vec<(String, String)>>);

impl Subject {
    pub(super) fn new(name: &Name) -> Self {
        Self(
            name.0
                .iter()
                .map(|relative| relative.0.iter().map(attribute).collect())
                .collect(),
        )
    }

    /// Attributes by type, unless one of them appears twice or shares a relative name with another: then what
    /// the name says depends on who reads it.
    fn attributes(&self) -> Option<BTreeMap<&str, &str>> {
        let mut attributes = BTreeMap::new();
        for relative in &self.0 {
            let [(name, value)] = relative.as_slice() else {
                return None;
            };
            if attributes.insert(name.as_str(), value.as_str()).is_some() {
                return None;
            }
        }
        Some(attributes)
    }
}

impl fmt::Display for Subject {
    /// As RFC 4514 writes it: from the leaf up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relative = |relative: &Vec<(String, String)>| {
            let attributes: Vec<_> = relative
                .iter()
                .map(|(name, value)| format!("{name}={}", escape(value)))
                .collect();
            attributes.join("+")
        };
        let text: Vec<_> = self.0.iter().rev().map(relative).collect();
        // Whole: policy compares it, and the beginning of a name is another name.
        f.write_str(&printable(&text.join(",")))
    }
}

fn attribute(attribute: &AttributeTypeAndValue) -> (String, String) {
    let oid = attribute.oid.to_string();
    let value = &attribute.value;
    let text = match value.tag() {
        Tag::PrintableString => value.decode_as::<PrintableStringRef<'_>>().map(|s| s.as_str()),
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().map(|s| s.as_str()),
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().map(|s| s.as_str()),
        tag => Err(tag.value_error()),
    };
    match (NAMES.iter().find(|(known, _)| *known == oid), text) {
        (Some((_, name)), Ok(text)) => ((*name).to_owned(), text.to_owned()),
        (name, _) => {
            let name = name.map_or(oid, |(_, name)| (*name).to_owned());
            // No identity can be written in this form, so it matches none.
            (
                name,
                format!("#{}", value.to_der().map(hex::encode).unwrap_or_default()),
            )
        }
    }
}

fn escape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (place, c) in value.chars().enumerate() {
        let at_edge = c == ' ' && (place == 0 || place == last);
        if at_edge || ",;\\+\"<>=".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Why a list of trusted identities is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdentity {
    /// Nobody is trusted.
    #[error("no identity is listed; write \"*\" to trust every signer of the trust stores")]
    None,
    /// The wildcard beside others.
    #[error("\"*\" trusts every signer of the trust stores, so nothing may stand beside it")]
    Wildcard,
    /// Another kind of identity.
    #[error("'{0}' is not an identity: expected \"x509.subject: C=…, ST=…, O=…\" or \"*\"")]
    Kind(String),
    /// Not a distinguished name.
    #[error("'{0}' is not a distinguished name as RFC 4514 writes it")]
    Name(String),
    /// An attribute that cannot be matched.
    #[error("the attribute '{0}' is not supported: use C, ST, O, L, OU, CN, STREET, POSTALCODE or SERIALNUMBER")]
    Attribute(String),
    /// An attribute twice.
    #[error("the attribute {0} appears twice")]
    Twice(&'static str),
    /// An attribute that has to be there.
    #[error("the attribute {0} is missing: an identity names at least C, ST and O")]
    Missing(&'static str),
    /// Two identities of which one covers the other.
    #[error("'{0}' and '{1}' overlap: one covers the other")]
    Overlap(String, String),
}

/// The signers that a policy trusts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustedIdentities {
    /// Everyone with a certificate under the trust stores.
    Any,
    /// Those whose subject has all attributes of one of these.
    Subjects(Vec<BTreeMap<&'static str, String>>),
}

impl TrustedIdentities {
    /// Reads identities as a Notary Project trust policy lists them.
    ///
    /// # Errors
    /// [`InvalidIdentity`].
    pub fn parse<T: AsRef<str>>(identities: &[T]) -> Result<Self, InvalidIdentity> {
        let texts: Vec<&str> = identities.iter().map(AsRef::as_ref).collect();
        match texts.as_slice() {
            [] => return Err(InvalidIdentity::None),
            ["*"] => return Ok(Self::Any),
            _ if texts.contains(&"*") => return Err(InvalidIdentity::Wildcard),
            _ => {}
        }
        let subjects = texts.iter().map(|text| identity(text)).collect::<Result<Vec<_>, _>>()?;
        for (place, one) in subjects.iter().enumerate() {
            for (other_place, other) in subjects.iter().enumerate() {
                if place != other_place && one.iter().all(|(name, value)| other.get(name) == Some(value)) {
                    return Err(InvalidIdentity::Overlap(
                        shorten(texts[place]),
                        shorten(texts[other_place]),
                    ));
                }
            }
        }
        Ok(Self::Subjects(subjects))
    }

    /// Whether the signer is one of them. A subject that names an attribute twice is nobody's.
    #[must_use]
    pub fn matches(&self, subject: &Subject) -> bool {
        let Self::Subjects(trusted) = self else {
            return true;
        };
        let Some(attributes) = subject.attributes() else {
            return false;
        };
        trusted.iter().any(|wanted| {
            wanted
                .iter()
                .all(|(name, value)| attributes.get(name) == Some(&value.as_str()))
        })
    }
}

fn identity(text: &str) -> Result<BTreeMap<&'static str, String>, InvalidIdentity> {
    let name = text
        .strip_prefix(IDENTITY_PREFIX)
        .ok_or_else(|| InvalidIdentity::Kind(shorten(text)))?;
    let mut attributes = BTreeMap::new();
    for (key, value) in relative_names(name).ok_or_else(|| InvalidIdentity::Name(shorten(name)))? {
        // `S` is what Go's and Microsoft's tools call the state.
        let key = if key == "S" { "ST".to_owned() } else { key };
        let Some((_, key)) = NAMES.iter().find(|(_, known)| *known == key) else {
            return Err(InvalidIdentity::Attribute(shorten(&key)));
        };
        if attributes.insert(*key, value).is_some() {
            return Err(InvalidIdentity::Twice(key));
        }
    }
    for key in ["C", "ST", "O"] {
        if !attributes.contains_key(key) {
            return Err(InvalidIdentity::Missing(key));
        }
    }
    Ok(attributes)
}

/// The attributes of a name whose relative names have one each.
fn relative_names(text: &str) -> Option<Vec<(String, String)>> {
    let mut rest = text.chars().peekable();
    let mut names = Vec::new();
    loop {
        let mut key = String::new();
        loop {
            match rest.next()? {
                '=' => break,
                c => key.push(c),
            }
        }
        while rest.next_if_eq(&' ').is_some() {}
        let mut value = Vec::new();
        // Bytes up to here are kept when unescaped spaces at the end are cut.
        let mut kept = 0;
        let more = loop {
            match rest.next() {
                None => break false,
                Some(',') => break true,
                Some('\\') => {
                    match rest.next()? {
                        c @ (' ' | ',' | ';' | '\\' | '+' | '"' | '<' | '>' | '=' | '#') => {
                            value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        }
                        high => {
                            let digits = [high.to_digit(16)?, rest.next()?.to_digit(16)?];
                            value.push(u8::try_from(digits[0] * 16 + digits[1]).ok()?);
                        }
                    }
                    kept = value.len();
                }
                Some('+' | ';' | '"' | '<' | '>' | '\0') => return None,
                Some('#') if value.is_empty() => return None,
                Some(c) => {
                    value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    if c != ' ' {
                        kept = value.len();
                    }
                }
            }
        };
        value.truncate(kept);
        let value = String::from_utf8(value).ok()?;
        if value.is_empty() {
            return None;
        }
        names.push((key.trim().to_owned(), value));
        if !more {
            return Some(names);
        }
    }
}
