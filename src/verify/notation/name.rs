//! Distinguished names, as policies name signers of the Notary Project by them.
//!
//! Format: the string form of RFC 4514, without multi-valued attributes, which no policy could compare in one way. A
//! certificate's own name is written in it by [`Subject`](super::Subject).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::subject::NAMES;

/// Longest name.
const MAX_NAME: usize = 2048;
/// Most attributes of a name.
const MAX_ATTRIBUTES: usize = 32;
/// Attributes that a pattern must have, as the Notary Project's specification demands: without them too many
/// certificates would match.
const REQUIRED: [&str; 3] = ["C", "ST", "O"];

/// Why a text is no pattern for distinguished names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Not of the form.
    #[error("it is no distinguished name in the form of RFC 4514")]
    Form,
    /// An attribute appears twice or several in one place.
    #[error("it has an attribute twice, or several in one place")]
    Ambiguous,
    /// An attribute that no certificate's name is written with.
    #[error("it has an attribute other than C, ST, O, L, OU, CN, STREET, POSTALCODE and SERIALNUMBER")]
    Attribute,
    /// Attributes that must be there are missing.
    #[error("it must have the attributes C, ST and O")]
    Required,
}

/// A pattern for distinguished names: all of its attributes must be in a name, with the same values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DistinguishedName {
    text: String,
    attributes: Vec<(String, String)>,
}

impl DistinguishedName {
    /// Whether a subject, in the form of RFC 4514, has all of these attributes with these values. One that cannot be
    /// read in exactly one way has none.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        attributes(subject).is_ok_and(|theirs| self.attributes.iter().all(|ours| theirs.contains(ours)))
    }
}

impl TryFrom<String> for DistinguishedName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        let attributes = attributes(&text)?;
        let is_known = |name: &String| NAMES.iter().any(|(_, known)| known == name);
        if !attributes.iter().all(|(name, _)| is_known(name)) {
            return Err(InvalidName::Attribute);
        }
        if REQUIRED
            .iter()
            .all(|wanted| attributes.iter().any(|(name, _)| name == wanted))
        {
            Ok(Self { text, attributes })
        } else {
            Err(InvalidName::Required)
        }
    }
}

impl From<DistinguishedName> for String {
    fn from(name: DistinguishedName) -> Self {
        name.text
    }
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The attributes of a name, each with its type in upper case and its value without escapes.
fn attributes(text: &str) -> Result<Vec<(String, String)>, InvalidName> {
    if text.len() > MAX_NAME {
        return Err(InvalidName::Form);
    }
    let mut attributes: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    loop {
        let (name, behind) = rest.split_once('=').ok_or(InvalidName::Form)?;
        let name = name.trim().to_ascii_uppercase();
        let sound = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        if !sound || attributes.len() == MAX_ATTRIBUTES {
            return Err(InvalidName::Form);
        }
        // `S` is how the Notary Project's tools write the state.
        let name = if name == "S" { "ST".to_owned() } else { name };
        let (value, behind) = value(behind.trim_start())?;
        if attributes.iter().any(|(known, _)| *known == name) {
            return Err(InvalidName::Ambiguous);
        }
        attributes.push((name, value));
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(attributes),
        }
    }
}

/// A value without its escapes, and what stands behind its comma.
fn value(text: &str) -> Result<(String, Option<&str>), InvalidName> {
    let mut bytes: Vec<u8> = Vec::new();
    // Blanks at the end count only when they are escaped.
    let mut kept = 0;
    let mut chars = text.char_indices();
    let mut behind = None;
    while let Some((at, c)) = chars.next() {
        match c {
            ',' => {
                behind = Some(text.get(at + 1..).unwrap_or_default());
                break;
            }
            '+' => return Err(InvalidName::Ambiguous),
            '\\' => {
                let (_, escaped) = chars.next().ok_or(InvalidName::Form)?;
                if escaped.is_ascii_hexdigit() {
                    let (_, second) = chars.next().ok_or(InvalidName::Form)?;
                    let pair = [escaped, second].iter().collect::<String>();
                    bytes.push(u8::from_str_radix(&pair, 16).map_err(|_| InvalidName::Form)?);
                } else if " \"#+,;<=>\\".contains(escaped) {
                    bytes.push(u8::try_from(escaped).map_err(|_| InvalidName::Form)?);
                } else {
                    return Err(InvalidName::Form);
                }
                kept = bytes.len();
            }
            '"' | ';' | '<' | '>' | '\0' => return Err(InvalidName::Form),
            // A value in hexadecimal, which has another form as text.
            '#' if bytes.is_empty() => return Err(InvalidName::Form),
            ' ' => bytes.push(b' '),
            other => {
                bytes.extend(other.encode_utf8(&mut [0; 4]).as_bytes());
                kept = bytes.len();
            }
        }
    }
    bytes.truncate(kept);
    let value = String::from_utf8(bytes).map_err(|_| InvalidName::Form)?;
    if value.is_empty() {
        Err(InvalidName::Form)
    } else {
        Ok((value, behind))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Result<DistinguishedName, InvalidName> {
        DistinguishedName::try_from(text.to_owned())
    }

    #[test]
    fn all_attributes_of_the_pattern_must_be_there() {
        let acme = name("C=US, ST=WA, O=acme").unwrap();
        for subject in [
            "CN=release,O=acme,ST=WA,C=US",
            "c=US,s=WA,o=acme",
            "O=acme , ST=WA , C=US",
            "O=\\61cme,ST=WA,C=US",
        ] {
            assert!(acme.matches(subject), "{subject}");
        }
        for subject in [
            "CN=release,O=acme-evil,ST=WA,C=US",
            "O=Acme,ST=WA,C=US",
            "O=acme,C=US",
            "CN=C=US\\, ST=WA\\, O=acme",
            "O=acme,O=evil,ST=WA,C=US",
            "O=acme+CN=x,ST=WA,C=US",
            "O=acme,ST=WA,C=US,",
            "O=acme\0,ST=WA,C=US",
            "O=#0c0461636d65,ST=WA,C=US",
            "",
        ] {
            assert!(!acme.matches(subject), "{subject}");
        }
    }

    #[test]
    fn escapes_are_read() {
        let company = name("C=US,ST=WA,O=Acme\\, Inc.\\ ").unwrap();
        assert!(company.matches("O=Acme\\2c Inc.\\20,ST=WA,C=US"));
        assert!(!company.matches("O=Acme\\, Inc.,ST=WA,C=US"));
        let accent = name("C=DE,ST=BY,O=M\u{fc}ller").unwrap();
        assert!(accent.matches("O=M\\c3\\bcller,ST=BY,C=DE"));
    }

    #[test]
    fn what_is_too_little_is_no_pattern() {
        for (text, fault) in [
            ("CN=release", InvalidName::Required),
            ("C=US,O=acme", InvalidName::Required),
            ("acme", InvalidName::Form),
            ("C=US,ST=WA,O=", InvalidName::Form),
            ("C=US,ST=WA,O=a,O=b", InvalidName::Ambiguous),
            ("C=US,ST=WA,O=a,UID=1", InvalidName::Attribute),
            ("", InvalidName::Form),
        ] {
            assert_eq!(name(text), Err(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC*|[a-zA-Z=,+\\\\\" #0-9]*") {
            if let Ok(read) = name(&text) {
                prop_assert!(read.matches(&text));
            }
        }
    }
}
