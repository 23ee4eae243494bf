//! Patterns for the texts that certificates and attestations name things by: identities, sources, references.
//!
//! A pattern is anchored at both ends. `*` stands for any run of plain characters: ASCII, and none of `/ @ ? # %`,
//! blanks or control characters. So it stays within one component, reaches neither another reference nor another host,
//! and no other spelling of a separator slips through it. Nothing else is special, and case counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest pattern.
const MAX_PATTERN: usize = 1024;

/// Components that a pattern for an identity or a source must spell out: host and owner.
const SPELLED_OUT: usize = 2;

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextFault {
    /// Longer than the limit, or empty.
    #[error("it is empty or longer than {MAX_PATTERN} characters")]
    Length,
    /// Characters that such a text never has.
    #[error("it has blanks, control characters or others outside of ASCII")]
    Characters,
    /// `**`.
    #[error("`**` has no meaning here: `*` stays within one component")]
    DoubleStar,
    /// A wildcard before host and owner are given.
    #[error("it does not spell out host and owner")]
    Owner,
    /// A wildcard where only an exact text counts.
    #[error("it has a `*`, and only an exact text counts here")]
    NotExact,
}

impl TextFault {
    /// What to write instead.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::Length => "shorten it",
            Self::Characters => "write it as it stands in the certificate or attestation",
            Self::DoubleStar => "write one `*` for each component",
            Self::Owner => {
                "write it as in https://github.com/acme/*, so that nobody else's identity on the same host matches"
            }
            Self::NotExact => "write the whole text",
        }
    }
}

/// A text in which `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob(pub(crate) String);

impl Glob {
    /// Whether the pattern matches. `*` in `text` is an ordinary character, which makes this a test of covering too:
    /// only a `*` of the pattern can take it up, and whatever it may stand for.
    pub(crate) fn matches(&self, text: &str) -> bool {
        matches(&self.0, text)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    // The earliest place for each part leaves the most for those behind it.
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A pattern; see the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TextPattern(String);

impl TextPattern {
    /// A pattern for an identity or a source: before its first `*` it names host and owner.
    ///
    /// # Errors
    /// A text that is no such pattern.
    pub fn owned(text: &str) -> Result<Self, TextFault> {
        let pattern = Self::try_from(text.to_owned())?;
        let Some((before, _)) = text.split_once('*') else {
            return Ok(pattern);
        };
        let rest = before.split_once("://").map_or(before, |(_, rest)| rest);
        let mut components = rest.split('/');
        let whole = components.by_ref().take(SPELLED_OUT).filter(|part| !part.is_empty());
        // What follows the last slash is a component that the `*` is a part of.
        if whole.count() == SPELLED_OUT && components.next().is_some() {
            Ok(pattern)
        } else {
            Err(TextFault::Owner)
        }
    }

    /// A text without any `*`.
    ///
    /// # Errors
    /// A text that is not acceptable, or has a `*`.
    pub fn exact(text: &str) -> Result<Self, TextFault> {
        let pattern = Self::try_from(text.to_owned())?;
        if pattern.is_exact() {
            Ok(pattern)
        } else {
            Err(TextFault::NotExact)
        }
    }

    /// Whether it stands for one text only.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Whether it matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // Separators only stand for themselves, so the n-th of one side is the n-th of the other.
        self.0.matches(is_separator).eq(text.matches(is_separator))
            && self
                .0
                .split(is_separator)
                .zip(text.split(is_separator))
                .all(|(ours, theirs)| matches(ours, theirs))
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a `*` never stands for.
fn is_separator(c: char) -> bool {
    !c.is_ascii_graphic() || matches!(c, '/' | '@' | '?' | '#' | '%')
}

impl TryFrom<String> for TextPattern {
    type Error = TextFault;

    fn try_from(text: String) -> Result<Self, TextFault> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            Err(TextFault::Length)
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Err(TextFault::Characters)
        } else if text.contains("**") {
            Err(TextFault::DoubleStar)
        } else {
            Ok(Self(text))
        }
    }
}

impl From<TextPattern> for String {
    fn from(pattern: TextPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for TextPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_reaches_no_other_component_reference_or_spelling() {
        let workflow = TextPattern::owned("https://github.com/acme/*/.github/workflows/*.yml@refs/tags/v*").unwrap();
        for identity in [
            "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1.2.3",
            "https://github.com/acme/app/.github/workflows/a.b.yml@refs/tags/v",
        ] {
            assert!(workflow.matches(identity), "{identity}");
        }
        for identity in [
            "https://github.com/acme/app/.github/workflows/release.yml@refs/heads/v1",
            "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1/x",
            "https://github.com/acme/app/.github/workflows/a/b.yml@refs/tags/v1",
            "https://github.com/acme/app/.github/workflows/x@refs/heads/y.yml@refs/tags/v1",
            "https://github.com/acme/app/.github/workflows/r%2fx.yml@refs/tags/v1",
            "https://github.com/acme/app/.github/workflows/r\u{2215}x.yml@refs/tags/v1",
            "https://github.com/acme/app/.github/workflows/r.yml@refs/tags/v1\n",
            "https://github.com/acme/app/.github/workflows/r.yml@refs/tags/v1\0",
            "https://github.com/acme/app/.github/workflows/r.yml@refs/tags/v1#x",
            "https://github.com/Acme/app/.github/workflows/r.yml@refs/tags/v1",
            "https://github.com/acme-evil/app/.github/workflows/r.yml@refs/tags/v1",
            "https://evil-github.com/acme/app/.github/workflows/r.yml@refs/tags/v1",
            "xhttps://github.com/acme/app/.github/workflows/r.yml@refs/tags/v1",
            "http://github.com/acme/app/.github/workflows/r.yml@refs/tags/v1",
            "",
        ] {
            assert!(!workflow.matches(identity), "{identity}");
        }
    }

    #[test]
    fn host_and_owner_are_spelled_out() {
        for text in [
            "https://github.com/acme/*",
            "git+https://github.com/acme/app@refs/tags/*",
            "spiffe://cluster.local/ns/*",
            "pkg:docker/acme/*",
            "docker.io/acme/*",
            "https://accounts.example",
        ] {
            TextPattern::owned(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        }
        for (text, fault) in [
            ("*", TextFault::Owner),
            ("https://*", TextFault::Owner),
            ("https://github.com/*", TextFault::Owner),
            ("https://github.com/acme*", TextFault::Owner),
            ("https://github.com/acme-*/app", TextFault::Owner),
            ("https://github.com*/acme/app", TextFault::Owner),
            ("https:///acme/*", TextFault::Owner),
            ("https://github.com//*", TextFault::Owner),
            ("https://github.com/acme/**", TextFault::DoubleStar),
            ("https://github.com/acme/a b", TextFault::Characters),
            ("https://github.com/acm\u{e9}/x", TextFault::Characters),
            ("", TextFault::Length),
        ] {
            assert_eq!(TextPattern::owned(text), Err(fault), "{text}");
        }
        assert_eq!(TextPattern::exact("a*"), Err(TextFault::NotExact));
        assert!(TextPattern::exact("https://issuer.example").is_ok());
    }

    proptest! {
        #[test]
        fn a_pattern_matches_like_its_definition(pattern in "[ab/@*]{0,8}", text in "[ab/@]{0,8}") {
            // The definition, written as recursion over characters.
            fn defined(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len())
                        .take_while(|skip| text[..*skip].iter().all(|byte| !b"/@".contains(byte)))
                        .any(|skip| defined(rest, &text[skip..])),
                    Some((byte, rest)) => text.first() == Some(byte) && defined(rest, &text[1..]),
                }
            }
            if let Ok(read) = TextPattern::try_from(pattern.clone()) {
                prop_assert_eq!(read.matches(&text), defined(pattern.as_bytes(), text.as_bytes()));
            }
        }

        #[test]
        fn an_exact_pattern_matches_itself_alone(pattern in "[a-z/@:.]{1,20}", text in "\\PC{0,20}") {
            let read = TextPattern::exact(&pattern).unwrap();
            prop_assert!(read.matches(&pattern));
            prop_assert_eq!(read.matches(&text), pattern == text);
        }
    }
}
