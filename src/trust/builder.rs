//! Build services: the only source of an SLSA level.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::TextPattern;

/// What stands for a released version in the pattern of a reference.
const VERSION: &str = "<semver>";

/// Highest SLSA build level that a builder can be given; version 0.1 of SLSA had four.
pub const MAX_LEVEL: u8 = 4;

/// A `[[builder]]` of `trust.d`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builder {
    /// Name by which policy refers to it.
    pub name: String,
    /// How provenance names it, without the reference behind an `@`.
    pub id: String,
    /// Which reference it may run from; without one, it is named without.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<RefPattern>,
    /// Who signs what it builds.
    pub signer: BuilderSigner,
    /// SLSA build level of what it builds.
    pub level: u8,
    /// Kinds of build that are known to have this level; empty for all that it does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build_types: Vec<String>,
}

/// Who signs the provenance of a builder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BuilderSigner {
    /// The holder of this key of `trust.d`.
    Key(String),
    /// The holder of a Sigstore certificate.
    Certificate {
        /// Who vouches for the identity.
        issuer: String,
        /// Identifier of the root that the certificate chains to.
        root: String,
        /// Identities that sign; without one, the identity is the builder that provenance names.
        identity: Option<TextPattern>,
    },
}

/// Why a text is no pattern for a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is neither a whole reference nor one with a {VERSION} in it")]
pub struct InvalidRef;

/// A reference of a repository, whole or with `<semver>` for the version of a release: three numbers, and nothing
/// behind them, since a pre-release is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RefPattern(String);

impl RefPattern {
    /// Whether a reference is one of these.
    #[must_use]
    pub fn matches(&self, reference: &str) -> bool {
        let Some((before, after)) = self.0.split_once(VERSION) else {
            return reference == self.0;
        };
        reference
            .strip_prefix(before)
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(is_release)
    }
}

fn is_release(version: &str) -> bool {
    let numbers: Vec<&str> = version.split('.').collect();
    let is_number = |text: &&str| {
        (1..=9).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'))
    };
    numbers.len() == 3 && numbers.iter().all(is_number)
}

impl TryFrom<String> for RefPattern {
    type Error = InvalidRef;

    fn try_from(text: String) -> Result<Self, InvalidRef> {
        let sound = text.matches(VERSION).count() <= 1
            && !text.is_empty()
            && text.len() <= 256
            && text
                .replace(VERSION, "")
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"*<>@".contains(&byte));
        if sound { Ok(Self(text)) } else { Err(InvalidRef) }
    }
}

impl From<RefPattern> for String {
    fn from(pattern: RefPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for RefPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Builder {
    /// Whether provenance that names `id` is by this builder.
    #[must_use]
    pub fn is_named(&self, id: &str) -> bool {
        match (&self.reference, id.strip_prefix(self.id.as_str())) {
            (None, Some(rest)) => rest.is_empty(),
            (Some(pattern), Some(rest)) => rest.strip_prefix('@').is_some_and(|rest| pattern.matches(rest)),
            (_, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_released_versions_are_versions() {
        let pattern = RefPattern::try_from("refs/tags/v<semver>".to_owned()).unwrap();
        for reference in ["refs/tags/v1.2.3", "refs/tags/v0.0.0", "refs/tags/v10.20.300"] {
            assert!(pattern.matches(reference), "{reference}");
        }
        for reference in [
            "refs/tags/v1.2",
            "refs/tags/v1.2.3.4",
            "refs/tags/v1.2.3-rc.1",
            "refs/tags/v1.2.3+build",
            "refs/tags/v01.2.3",
            "refs/tags/v1.2.x",
            "refs/tags/v1.2.",
            "refs/tags/v1.2.3/evil",
            "refs/heads/v1.2.3",
            "refs/tags/v+1.2.3",
            "refs/tags/v1.2.3 ",
            "refs/tags/v\u{0661}.2.3",
            "refs/tags/v1.2.99999999999999999999",
            "refs/tags/v",
            "",
        ] {
            assert!(!pattern.matches(reference), "{reference}");
        }
        let main = RefPattern::try_from("refs/heads/main".to_owned()).unwrap();
        assert!(main.matches("refs/heads/main") && !main.matches("refs/heads/main2"));
        for text in ["", "refs/tags/*", "v<semver><semver>", "a b", "v<server>", "a@b"] {
            assert_eq!(RefPattern::try_from(text.to_owned()), Err(InvalidRef), "{text}");
        }
    }

    #[test]
    fn a_builder_is_named_with_its_reference_or_without() {
        let builder = |reference: Option<&str>| Builder {
            name: "b".to_owned(),
            id: "https://builder.example/w.yml".to_owned(),
            reference: reference.map(|text| RefPattern::try_from(text.to_owned()).unwrap()),
            signer: BuilderSigner::Key("k".to_owned()),
            level: 3,
            build_types: Vec::new(),
        };
        let released = builder(Some("refs/tags/v<semver>"));
        assert!(released.is_named("https://builder.example/w.yml@refs/tags/v1.2.3"));
        for id in [
            "https://builder.example/w.yml",
            "https://builder.example/w.yml@refs/heads/main",
            "https://builder.example/w.ymlx@refs/tags/v1.2.3",
            "https://builder.example/w.ymlrefs/tags/v1.2.3",
        ] {
            assert!(!released.is_named(id), "{id}");
        }
        let plain = builder(None);
        assert!(plain.is_named("https://builder.example/w.yml"));
        assert!(!plain.is_named("https://builder.example/w.yml@refs/tags/v1.2.3"));
    }
}
