//! Patterns for image names and namespaces.
//!
//! A pattern is anchored at both ends. `*` stands for any run of characters within one component, `**` for one or
//! more whole components; nothing else is special. Image names and patterns are normalised alike (`nginx` is
//! `docker.io/library/nginx`, host names have no case), so that no other spelling of a name avoids a rule. In a
//! host, `*` also stops at `.` and `:`, so that it can reach neither another domain nor another port.
//!
//! Written here instead of taken from a glob library because deciding which rule applies is Assay's own purpose: the
//! semantics above are narrower than any library's, and [`ImagePattern::covers`] needs to compare two patterns.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::oci::Reference;
use crate::trust::Glob;

/// Longest pattern.
const MAX_PATTERN: usize = 512;

const DOCKER_HUB: &str = "docker.io";

/// Why a text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Longer than the limit.
    #[error("it is longer than {MAX_PATTERN} characters")]
    TooLong,
    /// A digest selects by content, not by name.
    #[error("it has a digest")]
    Digest,
    /// The registry is missing or a wildcard of unclear reach.
    #[error("it does not spell out the registry")]
    Registry,
    /// A host and nothing behind it.
    #[error("it names a registry and no repository")]
    HostOnly,
    /// `**` as a part of a component.
    #[error("`**` stands for whole components, never for a part of one")]
    PartialComponents,
    /// Components that no image name has.
    #[error("no repository looks like that")]
    Component,
    /// A host that no image name has.
    #[error("no registry looks like that")]
    Host,
    /// A tag that no image name has.
    #[error("no tag looks like that")]
    Tag,
    /// A namespace that cannot exist.
    #[error("no namespace looks like that")]
    Namespace,
}

impl InvalidPattern {
    /// What to write instead.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::TooLong => "shorten it",
            Self::Digest => "select by digest with `digest = [\"sha256:…\"]`",
            Self::Registry => "write it as in `registry.example/**`; `**` alone is every image",
            Self::HostOnly => "for everything in that registry write `registry.example/**`",
            Self::PartialComponents => "put a slash on both sides of `**`",
            Self::Component => {
                "components are lower-case letters and digits joined by . _ or -; `*` and `**` are the only wildcards"
            }
            Self::Host => "a host name or address, and a port after a colon",
            Self::Tag => "letters, digits, . _ and -; `*` is the only wildcard",
            Self::Namespace => "letters, digits, . _ and -; `*` is the only wildcard",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    One(Glob),
    Several,
}

/// A pattern for image names, as it was written; see the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImagePattern {
    text: String,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// `**`: every image, and containers without an image name.
    Everything,
    Name {
        host: String,
        path: Vec<Component>,
        tag: Option<Glob>,
    },
}

/// An image name in the form in which it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName(Reference);

impl ImageName {
    /// Normalises a name as the user wrote it. `None` for an image ID and for a text that no registry's rules could be
    /// about, which only `**` matches.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if is_image_id(text) {
            return None;
        }
        // Only what is a host for certain: `Acme/web` is no repository, and must not become one.
        let lower = text
            .split_once('/')
            .filter(|(host, _)| host.contains(['.', ':']))
            .map(|(host, path)| format!("{}/{path}", host.to_ascii_lowercase()));
        let text = lower.as_deref().unwrap_or(text);
        text.parse().ok().or_else(|| Reference::lenient(text)).map(Self)
    }

    /// Registry and repository, without tag and digest.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.0.registry(), self.0.repository())
    }
}

impl ImagePattern {
    /// Whether it matches an image name; `None` is a container without one, or with a text that is none.
    #[must_use]
    pub fn matches(&self, name: Option<&ImageName>) -> bool {
        let Shape::Name { host, path, tag } = &self.shape else {
            return true;
        };
        let Some(name) = name else {
            return false;
        };
        let components: Vec<_> = name.0.repository().split('/').map(Some).collect();
        let tag_matches = match (tag, name.0.tag()) {
            (None, _) => true,
            (Some(pattern), Some(tag)) => pattern.matches(tag),
            (Some(_), None) => false,
        };
        tag_matches && host_matches(host, name.0.registry()) && path_matches(path, &components)
    }

    /// Whether it is `**`.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.shape == Shape::Everything
    }

    /// Whether it certainly matches all that `other` matches. May say no where the answer is yes.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let (
            Shape::Name { host, path, tag },
            Shape::Name {
                host: other_host,
                path: other_path,
                tag: other_tag,
            },
        ) = (&self.shape, &other.shape)
        else {
            return self.is_everything();
        };
        let components: Vec<_> = other_path
            .iter()
            .map(|component| match component {
                Component::One(glob) => Some(glob.0.as_str()),
                Component::Several => None,
            })
            .collect();
        let tag_covers = match (tag, other_tag) {
            (None, _) => true,
            (Some(tag), Some(other)) => tag.matches(&other.0),
            (Some(_), None) => false,
        };
        tag_covers && host_matches(host, other_host) && path_matches(path, &components)
    }
}

/// Compares label by label; the separators must be the same, so that `*` reaches over none of them.
fn host_matches(pattern: &str, host: &str) -> bool {
    let mut labels = pattern.split_inclusive(['.', ':']);
    let mut host_labels = host.split_inclusive(['.', ':']);
    loop {
        match (labels.next(), host_labels.next()) {
            (None, None) => return true,
            (Some(label), Some(host_label)) => {
                let (label, separator) = split_separator(label);
                let (host_label, host_separator) = split_separator(host_label);
                if separator != host_separator || !Glob(label.to_owned()).matches(host_label) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn split_separator(label: &str) -> (&str, Option<char>) {
    match label.strip_suffix(['.', ':']) {
        Some(rest) => (rest, label.chars().next_back()),
        None => (label, None),
    }
}

/// Whether the pattern's components match these; `None` among them stands for a `**` of another pattern.
fn path_matches(pattern: &[Component], path: &[Option<&str>]) -> bool {
    // reached[j]: the pattern's components so far match the first j of the path.
    let mut reached = vec![false; path.len() + 1];
    if let Some(start) = reached.first_mut() {
        *start = true;
    }
    for component in pattern {
        let mut next = vec![false; path.len() + 1];
        for (j, part) in path.iter().enumerate() {
            let here = match (component, part) {
                (Component::Several, _) => reached.get(j) == Some(&true) || next.get(j) == Some(&true),
                (Component::One(glob), Some(part)) => reached.get(j) == Some(&true) && glob.matches(part),
                (Component::One(_), None) => false,
            };
            if let Some(slot) = next.get_mut(j + 1) {
                *slot = here;
            }
        }
        reached = next;
    }
    reached.last() == Some(&true)
}

impl TryFrom<String> for ImagePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        if text == "**" {
            let shape = Shape::Everything;
            return Ok(Self { text, shape });
        }
        if text.len() > MAX_PATTERN {
            return Err(InvalidPattern::TooLong);
        }
        if text.contains('@') {
            return Err(InvalidPattern::Digest);
        }
        let (name, tag) = split_tag(&text);
        let (host, path) = pattern_host(name)?;
        if !is_host(&host) {
            return Err(InvalidPattern::Host);
        }
        let mut components = Vec::new();
        for component in normal_path(&host, path) {
            if component == "**" {
                components.push(Component::Several);
            } else if component.contains("**") {
                return Err(InvalidPattern::PartialComponents);
            } else if is_component(component) {
                components.push(Component::One(Glob(component.to_owned())));
            } else {
                return Err(InvalidPattern::Component);
            }
        }
        if !tag.is_none_or(is_tag) {
            return Err(InvalidPattern::Tag);
        }
        let tag = tag.map(|tag| Glob(tag.to_owned()));
        let path = components;
        let shape = Shape::Name { host, path, tag };
        Ok(Self { text, shape })
    }
}

/// The host and path of a pattern's name. A wildcard where host and repository cannot be told apart is refused.
fn pattern_host(name: &str) -> Result<(String, &str), InvalidPattern> {
    match name.split_once('/') {
        None if name.contains('*') => Err(InvalidPattern::Registry),
        None if name.contains('.') => Err(InvalidPattern::HostOnly),
        Some((first, _)) if first.contains("**") || (first.contains('*') && !first.contains(['.', ':'])) => {
            Err(InvalidPattern::Registry)
        }
        Some((_, "")) => Err(InvalidPattern::HostOnly),
        _ => Ok(split_host(name)),
    }
}

fn is_image_id(name: &str) -> bool {
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A colon behind the last slash starts the tag; one before it starts a port.
fn split_tag(name: &str) -> (&str, Option<&str>) {
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    match name.get(last..).and_then(|rest| rest.find(':')) {
        Some(colon) => {
            let (name, tag) = name.split_at(last + colon);
            (name, tag.strip_prefix(':'))
        }
        None => (name, None),
    }
}

/// As [`Reference`] does for names: the first component is a registry when it looks like a host; otherwise the name
/// is one of Docker Hub.
fn split_host(name: &str) -> (String, &str) {
    let host = name
        .split_once('/')
        .filter(|(first, _)| first.contains(['.', ':']) || *first == "localhost");
    match host {
        Some((host, path)) => {
            let host = host.to_ascii_lowercase();
            let hub = host == "index.docker.io";
            (if hub { DOCKER_HUB.to_owned() } else { host }, path)
        }
        None => (DOCKER_HUB.to_owned(), name),
    }
}

fn normal_path<'a>(host: &str, path: &'a str) -> Vec<&'a str> {
    let mut components: Vec<_> = path.split('/').collect();
    if host == DOCKER_HUB && components.len() == 1 && components != ["**"] {
        components.insert(0, "library");
    }
    components
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_is_sound =
        port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit() || b == b'*'));
    let name_is_sound = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'*')
        }),
    };
    port_is_sound && name_is_sound
}

/// Lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '*';
    let ends = component.starts_with(is_word) && component.ends_with(is_word);
    ends && component
        .split(is_word)
        .all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'*';
    tag.bytes().next().is_some_and(is_word) && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-')
}

impl From<ImagePattern> for String {
    fn from(pattern: ImagePattern) -> Self {
        pattern.text
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A pattern for Kubernetes or containerd namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamespacePattern(Glob);

impl NamespacePattern {
    /// Whether it matches a namespace.
    #[must_use]
    pub fn matches(&self, namespace: &str) -> bool {
        self.0.matches(namespace)
    }

    /// Whether it certainly matches all that `other` matches.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.0.matches(&other.0.0)
    }
}

impl TryFrom<String> for NamespacePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        if text.len() > MAX_PATTERN {
            return Err(InvalidPattern::TooLong);
        }
        let sound = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._*".contains(&b));
        if text.is_empty() || !sound || text.contains("**") {
            return Err(InvalidPattern::Namespace);
        }
        Ok(Self(Glob(text)))
    }
}

impl From<NamespacePattern> for String {
    fn from(pattern: NamespacePattern) -> Self {
        pattern.0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> ImagePattern {
        ImagePattern::try_from(text.to_owned()).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn matches(text: &str, name: &str) -> bool {
        pattern(text).matches(ImageName::parse(name).as_ref())
    }

    #[test]
    fn an_unusual_name_does_not_escape_the_rules_for_its_registry() {
        let long = format!("registry.example/prod/{}", "a/".repeat(200) + "b");
        let other_digest = format!("registry.example/prod/app@sha512:{}", "0".repeat(128));
        for name in [
            &long,
            &other_digest,
            "registry.example/prod/APP",
            "registry.example/prod/a__________b:1",
            "REGISTRY.example/prod/x//y",
        ] {
            assert!(matches("registry.example/prod/**", name), "{name}");
            assert!(!matches("other.example/**", name), "{name}");
        }
    }

    #[track_caller]
    fn check(text: &str, hits: &[&str], misses: &[&str]) {
        for name in hits {
            assert!(matches(text, name), "{text} must match {name}");
        }
        for name in misses {
            assert!(!matches(text, name), "{text} must not match {name}");
        }
    }

    #[test]
    fn a_star_stays_within_a_component() {
        check(
            "registry.example/prod/*",
            &[
                "registry.example/prod/web",
                "registry.example/prod/web:1",
                "registry.example/prod/web@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            ],
            &[
                "registry.example/prod/a/b",
                "registry.example/prod",
                "registry.example/prodx/web",
                "registry.example/x/prod/web",
            ],
        );
        check(
            "registry.example/prod/**",
            &["registry.example/prod/web", "registry.example/prod/a/b/c:1"],
            &[
                "registry.example/prod",
                "registry.example/prod-evil/web",
                "evil.example/registry.example/prod/web",
            ],
        );
        check(
            "registry.example/**/web",
            &["registry.example/a/web", "registry.example/a/b/web"],
            &["registry.example/web", "registry.example/a/webs"],
        );
        check(
            "registry.example/a*b*c",
            &["registry.example/abc", "registry.example/a1b2b3c"],
            &["registry.example/ac", "registry.example/abcd", "registry.example/acb"],
        );
    }

    #[test]
    fn tags_match_when_the_pattern_has_one() {
        check(
            "registry.example/web:1.*",
            &["registry.example/web:1.2"],
            &["registry.example/web:2.1", "registry.example/web"],
        );
        check(
            "registry.example/web:latest",
            &["registry.example/web", "registry.example/web:latest"],
            &["registry.example/web:1"],
        );
        let digest = "registry.example/web@sha256:0000000000000000000000000000000000000000000000000000000000000000";
        check("registry.example/web:latest", &[], &[digest]);
        check("registry.example/web", &[digest, "registry.example/web:anything"], &[]);
    }

    #[test]
    fn every_spelling_of_a_docker_hub_name_is_one_name() {
        for text in [
            "nginx",
            "library/nginx",
            "docker.io/nginx",
            "docker.io/library/nginx",
            "index.docker.io/nginx",
        ] {
            check(
                text,
                &[
                    "nginx",
                    "nginx:1",
                    "library/nginx",
                    "docker.io/nginx",
                    "docker.io/library/nginx",
                    "index.docker.io/library/nginx",
                    "Docker.IO/nginx",
                ],
                &[
                    "evil/nginx",
                    "docker.io/evil/nginx",
                    "docker.io.evil.example/library/nginx",
                    "registry.example/library/nginx",
                    "localhost/nginx",
                ],
            );
        }
        check(
            "docker.io/**",
            &["nginx", "acme/web", "acme/deep/web"],
            &["docker.example/nginx", "registry-1.docker.io/library/nginx"],
        );
        check("docker.io/*", &["nginx"], &["acme/web"]);
        check("docker.io/acme/*", &["acme/web"], &["acme/web/x", "nginx"]);
    }

    #[test]
    fn a_port_is_part_of_the_registry() {
        check(
            "registry.example/**",
            &["registry.example/web"],
            &["registry.example:5000/web", "registry.example:443/web"],
        );
        check(
            "registry.example:5000/**",
            &["registry.example:5000/web", "REGISTRY.example:5000/web:1"],
            &["registry.example/web", "registry.example:50000/web"],
        );
        check(
            "registry.example:*/**",
            &["registry.example:5000/web"],
            &["registry.example/web"],
        );
        check(
            "localhost:5000/web",
            &["localhost:5000/web", "localhost:5000/web:v1"],
            &["localhost/web:5000", "localhost:5001/web"],
        );
        check("localhost/web", &["localhost/web"], &["localhost:5000/web", "web"]);
        check("[::1]:5000/web", &["[::1]:5000/web"], &["[::2]:5000/web"]);
    }

    #[test]
    fn a_star_in_a_host_reaches_no_other_domain_or_port() {
        check(
            "*.registry.example/**",
            &["eu.registry.example/web"],
            &[
                "registry.example/web",
                "a.b.registry.example/web",
                "evil.example:80/registry.example/web",
                "eu.registry.example:5000/web",
                "eu.registry.example.evil.example/web",
            ],
        );
        check(
            "registry.ex*/web",
            &["registry.example/web"],
            &["registry.ex.evil/web", "registry.ex:5000/web"],
        );
    }

    #[test]
    fn everything_is_everything() {
        let everything = pattern("**");
        assert!(everything.matches(None));
        for name in ["nginx", "not a name", "", "sha256:abc", "../../etc"] {
            assert!(everything.matches(ImageName::parse(name).as_ref()), "{name}");
        }
        assert!(!pattern("docker.io/**").matches(None));
    }

    #[test]
    fn what_is_no_image_name_is_matched_by_nothing_else() {
        let id = "0".repeat(64);
        let long = format!("registry.example/{}", "a".repeat(600));
        for name in [
            "",
            "/",
            "nginx/",
            "/nginx",
            "a//b",
            "registry.example/../prod/web",
            "registry.example/./web",
            "Registry",
            "registry.example/Web",
            "registry.example/web:",
            "registry.example/web:a:b",
            "registry.example/web@sha256",
            "registry.example/web@sha256:zz",
            "registry.example/we b",
            "registry.example/web\n",
            "registry.example/web\u{202e}",
            "registry.example/*",
            "registry.example/**",
            "registry.example/-web",
            "registry.example/web-",
            "registry.example/a..b",
            "registry.example/a___b",
            "-.example/web",
            "registry..example/web",
            "registry.example:/web",
            "registry.example:5x/web",
            "registry.example:1:2/web",
            "[::g]/web",
            "http://registry.example/web",
            &id,
            &format!("sha256:{id}"),
            &long,
            "ｎginx",
            "registry.example/wéb",
        ] {
            assert!(!matches("docker.io/**", name), "{name:?}");
            assert!(!matches("other.example/**", name), "{name:?}");
        }
    }

    #[test]
    fn patterns_that_reach_further_than_they_look_are_refused() {
        for (text, fault) in [
            ("*", InvalidPattern::Registry),
            ("*/nginx", InvalidPattern::Registry),
            ("**/nginx", InvalidPattern::Registry),
            ("**.example/x", InvalidPattern::Registry),
            ("nginx*", InvalidPattern::Registry),
            ("***", InvalidPattern::Registry),
            ("registry.example", InvalidPattern::HostOnly),
            ("registry.example/", InvalidPattern::HostOnly),
            ("registry.example/prod**", InvalidPattern::PartialComponents),
            ("registry.example/***", InvalidPattern::PartialComponents),
            ("registry.example/**:a b", InvalidPattern::Tag),
            ("registry.example/web:", InvalidPattern::Tag),
            ("registry.example/web@sha256:00", InvalidPattern::Digest),
            ("registry.example/{a,b}", InvalidPattern::Component),
            ("registry.example/[ab]", InvalidPattern::Component),
            ("registry.example/we?", InvalidPattern::Component),
            ("registry.example/Web", InvalidPattern::Component),
            ("registry.example//web", InvalidPattern::Component),
            ("registry.example/../web", InvalidPattern::Component),
            ("https://registry.example/web", InvalidPattern::Host),
            ("registry_x.example/web", InvalidPattern::Host),
            (".example/web", InvalidPattern::Host),
            ("", InvalidPattern::Component),
        ] {
            assert_eq!(ImagePattern::try_from(text.to_owned()), Err(fault), "{text}");
        }
        assert_eq!(ImagePattern::try_from("a".repeat(513)), Err(InvalidPattern::TooLong));
    }

    #[test]
    fn namespaces() {
        let pattern = |text: &str| NamespacePattern::try_from(text.to_owned());
        assert!(pattern("prod-*").unwrap().matches("prod-eu"));
        assert!(!pattern("prod-*").unwrap().matches("nonprod-eu"));
        assert!(!pattern("prod").unwrap().matches("prod2"));
        assert!(pattern("*").unwrap().matches("k8s.io"));
        for text in ["", "**", "a b", "a/b", "[a]", "é"] {
            assert_eq!(pattern(text), Err(InvalidPattern::Namespace), "{text}");
        }
    }

    #[test]
    fn covering() {
        for (wide, narrow) in [
            ("**", "nginx"),
            ("**", "**"),
            ("docker.io/**", "nginx"),
            ("registry.example/**", "registry.example/prod/**"),
            ("registry.example/**", "registry.example/*"),
            ("registry.example/prod/*", "registry.example/prod/web:1"),
            ("registry.example/web:*", "registry.example/web:1.*"),
            ("*.example/**", "eu.example/web"),
            ("registry.example/**/web", "registry.example/a/**/web"),
        ] {
            assert!(pattern(wide).covers(&pattern(narrow)), "{wide} covers {narrow}");
        }
        for (narrow, wide) in [
            ("nginx", "**"),
            ("nginx:1", "nginx"),
            ("registry.example/*", "registry.example/**"),
            ("registry.example/prod/**", "registry.example/**"),
            ("registry.example/a*", "registry.example/*"),
            ("*.example/**", "*.other/**"),
        ] {
            assert!(
                !pattern(narrow).covers(&pattern(wide)),
                "{narrow} does not cover {wide}"
            );
        }
    }

    fn any_pattern() -> impl Strategy<Value = ImagePattern> {
        "(a\\.b|a\\.\\*|\\*\\.b|a\\.b:5|docker\\.io)/((a|b|\\*|\\*\\*|a\\*|\\*b|library)/){0,3}(a|b|\\*|\\*\\*|a\\*b)(:(a|\\*|a\\*))?|\\*\\*|a"
            .prop_map(|text| pattern(&text))
    }

    fn any_name() -> impl Strategy<Value = String> {
        "((a\\.b|a\\.c|a\\.b:5|docker\\.io)/)?((a|b|ab|aab|library)/){0,3}(a|b|ab|acb)(:(a|b|ab))?"
    }

    proptest! {
        #[test]
        fn what_covers_matches_at_least_as_much(wide in any_pattern(), narrow in any_pattern(), name in any_name()) {
            let name = ImageName::parse(&name);
            prop_assert!(name.is_some());
            if wide.covers(&narrow) && narrow.matches(name.as_ref()) {
                prop_assert!(wide.matches(name.as_ref()));
            }
            prop_assert!(wide.covers(&wide));
        }

        #[test]
        fn patterns_survive_storage(pattern in any_pattern()) {
            let json = serde_json::to_string(&pattern).unwrap();
            prop_assert_eq!(serde_json::from_str::<ImagePattern>(&json).unwrap(), pattern);
        }

        #[test]
        fn a_glob_matches_like_its_regular_definition(glob in "[ab*]{0,8}", text in "[ab]{0,8}") {
            // The definition, written as recursion over characters.
            fn defined(glob: &[u8], text: &[u8]) -> bool {
                match glob.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|skip| defined(rest, &text[skip..])),
                    Some((byte, rest)) => text.first() == Some(byte) && defined(rest, &text[1..]),
                }
            }
            prop_assert_eq!(Glob(glob.clone()).matches(&text), defined(glob.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[a-z./:@*\\[\\]-]*") {
            let name = ImageName::parse(&text);
            if let Ok(pattern) = ImagePattern::try_from(text) {
                let _ = pattern.matches(name.as_ref());
            }
        }
    }
}
