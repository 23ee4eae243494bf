//! Whose images a registry mirrors: the name under which someone else knows an image.

use serde::{Deserialize, Serialize};

use super::ImageName;

/// What both sides of a mirror end in.
const REST: &str = "/**";

/// Everything below one repository prefix is a copy of what is below another: `registry.example/mirror/**` of
/// `docker.io/**`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    from: String,
    to: String,
}

impl Mirror {
    /// Reads both sides as they are written in policy. `None` where one does not name a registry and end in `/**`.
    #[must_use]
    pub fn new(from: &str, to: &str) -> Option<Self> {
        let side = |text: &str| {
            let prefix = text.strip_suffix(REST)?;
            let (host, _) = prefix.split_once('/').unwrap_or((prefix, ""));
            let is_host = host.contains(['.', ':']) || host == "localhost";
            // A name below it must be one that a registry could have, whatever that registry calls it.
            let sound = is_host && !prefix.contains('*') && ImageName::parse(&format!("{prefix}/a")).is_some();
            sound.then(|| prefix.to_owned())
        };
        Some(Self {
            from: side(from)?,
            to: side(to)?,
        })
    }
}

/// The repository that an image name stands for, in its one form, and at its origin where `mirrors` know it: the longest
/// prefix counts.
pub(super) fn origin(name: &str, mirrors: &[Mirror]) -> Option<String> {
    let repository = ImageName::parse(name)?.repository();
    let mirror = mirrors
        .iter()
        .filter_map(|mirror| {
            let rest = repository.strip_prefix(mirror.from.as_str())?.strip_prefix('/')?;
            Some((mirror, rest))
        })
        .max_by_key(|(mirror, _)| mirror.from.len());
    match mirror {
        Some((mirror, rest)) => Some(ImageName::parse(&format!("{}/{rest}", mirror.to))?.repository()),
        None => Some(repository),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_one_name_at_its_origin() {
        let mirrors = [
            Mirror::new("registry.example/mirror/**", "docker.io/**").unwrap(),
            Mirror::new("registry.example/mirror/ghcr/**", "ghcr.io/**").unwrap(),
        ];
        for (name, repository) in [
            ("registry.example/mirror/nginx:1", "docker.io/library/nginx"),
            ("registry.example/mirror/acme/web", "docker.io/acme/web"),
            ("registry.example/mirror/ghcr/acme/web", "ghcr.io/acme/web"),
            ("registry.example/mirrors/web", "registry.example/mirrors/web"),
            ("nginx", "docker.io/library/nginx"),
        ] {
            assert_eq!(origin(name, &mirrors).as_deref(), Some(repository), "{name}");
        }
        assert_eq!(origin("Not A Name", &mirrors), None);
    }

    #[test]
    fn both_sides_name_a_registry() {
        for (from, to) in [
            ("registry.example/mirror", "docker.io/**"),
            ("mirror/**", "docker.io/**"),
            ("registry.example/*/**", "docker.io/**"),
            ("**", "docker.io/**"),
            ("registry.example/**", "library/**"),
        ] {
            assert_eq!(Mirror::new(from, to), None, "{from} {to}");
        }
    }
}
