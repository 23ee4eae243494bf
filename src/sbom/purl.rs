//! What two tools mean when they name one package: package URLs, brought to one form.
//!
//! <https://github.com/package-url/purl-spec>. Tools differ in what they put into version, namespace and qualifiers: the
//! epoch stands in the version or in a qualifier, architectures have two names, distributions too. All of that is
//! settled here, once, for what an SBOM says and for what a package database says.

use std::fmt;
use std::str::FromStr;

use packageurl::PackageUrl;
use serde::{Deserialize, Serialize};

/// Longest package URL in bytes.
pub const MAX_PURL: usize = 2048;

/// Namespaces that stand for one distribution; the first name is the one that is compared.
const DISTRIBUTIONS: &[&[&str]] = &[
    &["redhat", "rhel"],
    &[
        "opensuse",
        "opensuse-leap",
        "opensuse-tumbleweed",
        "opensuse.leap",
        "opensuse.tumbleweed",
    ],
    &["sles", "suse", "sle", "suse linux enterprise server"],
    &["amazon", "amzn", "amazonlinux"],
    &["rocky", "rockylinux"],
    &["alma", "almalinux"],
    &["oracle", "ol", "oraclelinux"],
    &["azurelinux", "mariner", "cbl-mariner"],
    // Chainguard's images are made of the packages of both.
    &["wolfi", "chainguard"],
];

/// Architectures by the names of Go, dpkg, rpm and apk; the first one is compared.
const ARCHITECTURES: &[&[&str]] = &[
    &["amd64", "x86_64"],
    &["arm64", "aarch64"],
    &["i386", "i686", "i586", "x86", "386"],
    &["armhf", "armv7", "armv7l", "armv7hl"],
    &["ppc64el", "ppc64le"],
    &["all", "noarch"],
];

/// A package as far as two of them are compared. Every part is in its one form, and empty where it is not known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Type of the package URL: `deb`, `pypi`.
    pub kind: String,
    /// Distribution, scope or group.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Whole version, epoch first.
    pub version: String,
    /// Architecture; only packages of distributions have one.
    pub architecture: String,
}

/// Why a text is not a package URL that anything can be compared with.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPurl {
    /// Not one at all.
    #[error("not a package URL: {0}")]
    Syntax(#[from] packageurl::Error),
    /// Longer than [`MAX_PURL`].
    #[error("longer than {MAX_PURL} bytes")]
    TooLong,
}

impl Identity {
    /// Brings the parts of a package's name to their one form.
    #[must_use]
    pub fn new(kind: &str, namespace: &str, name: &str, version: &str, architecture: &str) -> Self {
        let kind = kind.to_ascii_lowercase();
        let of_distribution = is_of_distribution(&kind);
        let mut namespace = namespace.trim_matches('/').to_lowercase();
        if of_distribution {
            namespace = alias(DISTRIBUTIONS, namespace);
        }
        let name = match kind.as_str() {
            "pypi" => pypi(name),
            "deb" | "apk" | "npm" | "golang" => name.to_lowercase(),
            _ => name.to_owned(),
        };
        let version = match kind.as_str() {
            "deb" | "rpm" => version.trim_start_matches("0:"),
            // What was not built from a released version says so instead of naming one.
            "golang" if matches!(version, "(devel)" | "UNKNOWN") => "",
            "golang" => version.trim_start_matches('v'),
            _ => version,
        };
        let architecture = if of_distribution {
            alias(ARCHITECTURES, architecture.to_lowercase())
        } else {
            String::new()
        };
        Self {
            version: version.to_owned(),
            kind,
            namespace,
            name,
            architecture,
        }
    }

    /// The same package of any distribution.
    #[must_use]
    pub fn without_namespace(&self) -> Self {
        Self {
            namespace: String::new(),
            ..self.clone()
        }
    }

    /// The same package for any architecture.
    #[must_use]
    pub fn without_architecture(&self) -> Self {
        Self {
            architecture: String::new(),
            ..self.clone()
        }
    }

    /// The same package in any version.
    #[must_use]
    pub fn without_version(&self) -> Self {
        Self {
            version: String::new(),
            ..self.clone()
        }
    }

    /// Whether it comes from a distribution's repository: the only packages for which namespace and architecture may be
    /// left out.
    #[must_use]
    pub fn is_of_distribution(&self) -> bool {
        is_of_distribution(&self.kind)
    }
}

fn is_of_distribution(kind: &str) -> bool {
    matches!(kind, "deb" | "apk" | "rpm" | "alpm")
}

fn alias(table: &[&[&str]], name: String) -> String {
    let row = table.iter().find(|row| row.contains(&name.as_str()));
    match row.and_then(|row| row.first()) {
        Some(first) => (*first).to_owned(),
        None => name,
    }
}

/// <https://packaging.python.org/en/latest/specifications/name-normalization/>.
fn pypi(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
        if !normal.is_empty() {
            normal.push('-');
        }
        normal.push_str(&part.to_lowercase());
    }
    normal
}

impl FromStr for Identity {
    type Err = InvalidPurl;

    fn from_str(text: &str) -> Result<Self, InvalidPurl> {
        if text.len() > MAX_PURL {
            return Err(InvalidPurl::TooLong);
        }
        let purl = PackageUrl::from_str(text)?;
        let qualifier = |name: &str| {
            let found = purl.qualifiers().iter().find(|(key, _)| key.as_ref() == name);
            found.map_or("", |(_, value)| value.as_ref())
        };
        let version = purl.version().unwrap_or_default();
        // Debian's epoch stands in the version or in a qualifier, by tool.
        let epoch = match qualifier("epoch") {
            "" | "0" => String::new(),
            _ if version.split_once(':').is_some_and(|(epoch, _)| is_number(epoch)) => String::new(),
            epoch => format!("{epoch}:"),
        };
        let kind = purl.ty();
        let epoch = if matches!(kind, "deb" | "rpm") {
            epoch
        } else {
            String::new()
        };
        let (mut namespace, mut name) = (purl.namespace().unwrap_or_default().to_owned(), purl.name().to_owned());
        // Some tools put what follows the repository in the path of a Go module into the subpath.
        if let ("golang", Some(subpath)) = (kind, purl.subpath()) {
            let path = format!("{namespace}/{name}/{subpath}");
            let (before, last) = path.rsplit_once('/').unwrap_or(("", &path));
            (namespace, name) = (before.to_owned(), last.to_owned());
        }
        Ok(Self::new(
            kind,
            &namespace,
            &name,
            &format!("{epoch}{version}"),
            qualifier("arch"),
        ))
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

impl Identity {
    fn purl(&self) -> Result<String, packageurl::Error> {
        let mut purl = PackageUrl::new(self.kind.as_str(), self.name.as_str())?;
        if !self.namespace.is_empty() {
            purl.with_namespace(self.namespace.as_str())?;
        }
        if !self.version.is_empty() {
            purl.with_version(self.version.as_str())?;
        }
        if !self.architecture.is_empty() {
            purl.add_qualifier("arch", self.architecture.as_str())?;
        }
        Ok(purl.to_string())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.purl() {
            Ok(purl) => f.write_str(&purl),
            // A name that no package URL can have is shown as it is.
            Err(_) => write!(f, "{} {} {}", self.kind, self.name, self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(purl: &str) -> Identity {
        purl.parse().unwrap()
    }

    #[test]
    fn tools_that_mean_one_package_are_understood_alike() {
        let debian = Identity::new("deb", "debian", "vim-common", "2:9.0.1378-2", "all");
        for purl in [
            // syft
            "pkg:deb/debian/vim-common@2:9.0.1378-2?arch=all&distro=debian-12&upstream=vim",
            "pkg:deb/debian/vim-common@2%3A9.0.1378-2?arch=all&distro=debian-12&upstream=vim",
            // trivy
            "pkg:deb/debian/vim-common@9.0.1378-2?arch=all&distro=debian-12.5&epoch=2",
            // The epoch said twice.
            "pkg:deb/debian/vim-common@2:9.0.1378-2?arch=all&epoch=2",
        ] {
            assert_eq!(read(purl), debian, "{purl}");
        }
        let rpm = Identity::new("rpm", "rhel", "bind-libs", "32:9.11.36-3.el8", "x86_64");
        for purl in [
            "pkg:rpm/redhat/bind-libs@9.11.36-3.el8?arch=x86_64&epoch=32&upstream=bind-9.11.36-3.el8.src.rpm&distro=rhel-8.5",
            "pkg:rpm/redhat/bind-libs@32:9.11.36-3.el8?arch=amd64",
        ] {
            assert_eq!(read(purl), rpm, "{purl}");
        }
        let apk = Identity::new("apk", "wolfi", "libstdc++", "13.2.0-r3", "x86_64");
        for purl in [
            "pkg:apk/wolfi/libstdc%2B%2B@13.2.0-r3?arch=x86_64&distro=wolfi-20230201&upstream=gcc",
            "pkg:apk/chainguard/libstdc++@13.2.0-r3?arch=x86_64",
        ] {
            assert_eq!(read(purl), apk, "{purl}");
        }
        assert_eq!(
            read("pkg:golang/github.com/Azure/go-autorest@v14.2.0%2Bincompatible#autorest"),
            Identity::new(
                "golang",
                "github.com/azure/go-autorest",
                "autorest",
                "14.2.0+incompatible",
                ""
            )
        );
        assert_eq!(
            read("pkg:golang/github.com/bmatcuk/doublestar@v4.7.1#v4"),
            read("pkg:golang/github.com/bmatcuk/doublestar/v4@v4.7.1")
        );
        assert_eq!(
            read("pkg:pypi/ruamel-yaml-clib@0.2.7"),
            Identity::new("pypi", "", "ruamel.yaml_Clib", "0.2.7", "")
        );
        assert_eq!(
            read("pkg:npm/%40angular/animation@12.3.1"),
            Identity::new("npm", "@angular", "animation", "12.3.1", "")
        );
    }

    #[test]
    fn what_differs_stays_different() {
        let bash = read("pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=amd64");
        for purl in [
            "pkg:deb/ubuntu/bash@5.2.15-2%2Bb2?arch=amd64",
            "pkg:deb/debian/bash@5.2.15-2?arch=amd64",
            "pkg:deb/debian/bash@5.2.15-2%2Bb2?arch=arm64",
            "pkg:deb/debian/bash@1:5.2.15-2%2Bb2?arch=amd64",
            "pkg:rpm/debian/bash@5.2.15-2%2Bb2?arch=amd64",
            "pkg:deb/debian/dash@5.2.15-2%2Bb2?arch=amd64",
        ] {
            assert_ne!(read(purl), bash, "{purl}");
        }
        assert_eq!(
            read("pkg:deb/debian/bash@0:5.2.15-2%2Bb2?arch=amd64"),
            bash,
            "no epoch is epoch 0"
        );
        assert!("bash@5".parse::<Identity>().is_err());
        assert!(
            format!("pkg:deb/debian/{}", "x".repeat(MAX_PURL))
                .parse::<Identity>()
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(pkg:)?[a-z]{0,4}[/@?#&=%:.a-zA-Z0-9é\u{0}-]{0,60}") {
            if let Ok(identity) = text.parse::<Identity>() {
                let _ = identity.to_string();
                prop_assert_eq!(identity.clone(), Identity::new(&identity.kind, &identity.namespace, &identity.name, &identity.version, &identity.architecture));
            }
        }
    }
}
