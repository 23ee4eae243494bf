//! Image references and the one name that each of them means.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// Longest path of a repository, without registry, tag and digest.
pub const MAX_NAME: usize = 255;
/// Longest tag.
pub const MAX_TAG: usize = 128;

const DEFAULT_REGISTRY: &str = "docker.io";
/// Docker Hub's old name, which clients rewrite.
const LEGACY_REGISTRY: &str = "index.docker.io";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

/// An image reference in its normal form: `nginx` is `docker.io/library/nginx:latest`.
///
/// The grammar is that of <https://github.com/distribution/reference>, which containerd and Docker use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not an image reference: {reason}")]
pub struct InvalidReference {
    text: String,
    reason: &'static str,
}

impl Reference {
    /// Registry and repository: what the patterns of a policy are compared with.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The registry's host name with its port, if it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; `latest` where neither tag nor digest was written.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was written.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let invalid = |reason| InvalidReference {
            text: super::shorten(text),
            reason,
        };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    digest
                        .parse()
                        .map_err(|_| invalid("after '@' comes sha256: and 64 hexadecimal digits"))?,
                ),
            ),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("a tag has at most 128 letters, digits, '_', '.' and '-'"));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || has_upper(first) => {
                (first, rest.to_owned())
            }
            _ => (DEFAULT_REGISTRY, path.to_owned()),
        };
        let registry = if registry == LEGACY_REGISTRY {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        if !is_registry(registry) {
            return Err(invalid("the part before the first '/' is not a host name"));
        }
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') && !repository.is_empty() {
            format!("{DEFAULT_NAMESPACE}/{repository}")
        } else {
            repository
        };
        if !repository.split('/').all(is_path_component) {
            return Err(invalid(
                "a repository is made of lower-case letters and digits with single separators",
            ));
        }
        if repository.len() > MAX_NAME {
            return Err(invalid("the repository is longer than 255 characters"));
        }
        let tag = match (tag, digest) {
            (None, None) => Some(DEFAULT_TAG),
            (tag, _) => tag,
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl Reference {
    /// The reference that a text would be if its path, tag and digest needed no particular form. A registry or a
    /// containerd of another version may accept names that [`FromStr`] does not; the rules for their registry must
    /// reach them all the same. `None` for a text without a registry and a path in it.
    #[must_use]
    pub fn lenient(text: &str) -> Option<Self> {
        let rest = text.split_once('@').map_or(text, |(rest, _)| rest);
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_owned())),
            _ => (rest, None),
        };
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => return None,
        };
        let registry = if registry == LEGACY_REGISTRY {
            DEFAULT_REGISTRY
        } else {
            registry
        };
        (is_registry(registry) && !repository.is_empty()).then(|| Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest: None,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn has_upper(text: &str) -> bool {
    text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Letters and digits, joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = bytes.first().is_some_and(word) && bytes.last().is_some_and(word);
    ends && bytes
        .split(word)
        .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_mean_docker_hub() {
        let digest = Digest::of(b"");
        for (text, normal) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("acme/app", "docker.io/acme/app:latest".to_owned()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest".to_owned()),
            (
                "docker.io/library/nginx:latest",
                "docker.io/library/nginx:latest".to_owned(),
            ),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/app:x", "localhost:5000/app:x".to_owned()),
            (
                "registry.example/prod/web_server.v1--2:T_1",
                "registry.example/prod/web_server.v1--2:T_1".to_owned(),
            ),
            ("127.0.0.1:5000/a/b/c", "127.0.0.1:5000/a/b/c:latest".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("Registry/app", "Registry/app:latest".to_owned()),
            (&format!("nginx@{digest}"), format!("docker.io/library/nginx@{digest}")),
            (
                &format!("r.example:1/a:t@{digest}"),
                format!("r.example:1/a:t@{digest}"),
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), normal, "{text}");
            assert_eq!(reference.to_string().parse(), Ok(reference), "{text}");
        }
        let reference: Reference = "r.example:1/a/b:t".parse().unwrap();
        assert_eq!(
            (
                reference.name().as_str(),
                reference.registry(),
                reference.repository(),
                reference.tag()
            ),
            ("r.example:1/a/b", "r.example:1", "a/b", Some("t"))
        );
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "",
            "/",
            ":",
            "@",
            "a//b",
            "/a",
            "a/",
            "A",
            "nginx:",
            "nginx:-x",
            "nginx@",
            "nginx@sha256:00",
            "a b",
            "a\n",
            "é",
            "a..b",
            "a___b",
            "_a",
            "a-",
            "a/../b",
            "../a",
            "./a",
            "r.example:x/a",
            "r.example:/a",
            "-r.example/a",
            "r..example/a",
            "r.example//a",
            "[::1/a",
            "[zz]:1/a",
            "r.example:1:2/a",
            "r_x.example/a",
            "user@host/a",
            "https://r.example/a",
            "r.example/A",
            "localhost/",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
        assert!("a/".repeat(200).parse::<Reference>().is_err());
        assert!(format!("r.example/{}", "a".repeat(256)).parse::<Reference>().is_err());
        insta::assert_snapshot!("r.example/A".parse::<Reference>().unwrap_err(), @"'r.example/A' is not an image reference: a repository is made of lower-case letters and digits with single separators");
    }

    proptest! {
        #[test]
        fn the_normal_form_is_stable(text in "[a-zA-Z0-9.:/@_-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference));
            }
        }
    }
}
