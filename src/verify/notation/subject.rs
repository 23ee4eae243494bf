//! Who signed: distinguished names of certificates.

use std::fmt;

use serde::{Deserialize, Serialize};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Encode as _, Tag, Tagged as _};
use x509_cert::name::Name;

use crate::diagnostic::printable;

/// Attribute types by the names that identities may use.
pub(super) const NAMES: [(&str, &str); 9] = [
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

/// A distinguished name as a certificate has it: relative names from the root down, each one or more attributes with
/// their values as RFC 4514 writes them.
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
}

impl fmt::Display for Subject {
    /// As RFC 4514 writes it: from the leaf up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let relative = |relative: &Vec<(String, String)>| {
            let attributes: Vec<_> = relative.iter().map(|(name, value)| format!("{name}={value}")).collect();
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
        (Some((_, name)), Ok(text)) => ((*name).to_owned(), escape(text)),
        (name, _) => {
            let name = name.map_or(oid, |(_, name)| (*name).to_owned());
            // No pattern can be written in this form, so it matches none.
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
        let at_edge = (c == ' ' && (place == 0 || place == last)) || (c == '#' && place == 0);
        if at_edge || ",;\\+\"<>=".contains(c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}
