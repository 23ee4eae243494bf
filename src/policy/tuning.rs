//! `/etc/assay/seccomp.d`: what a security team adds to the profile of an image, or takes from it, for a reason and for
//! a time.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::schema::tuning::parse;
use super::{Checked, ImageName, ImagePattern, diags};
use crate::diagnostic::{self, Diagnostic, Severity};
use crate::digest::Digest;
use crate::trust::SourceFile;

/// A `[[tune]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// Where it is written: the name of its file, and the line.
    pub source: String,
    /// Names of images to which it applies, as the user wrote them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<ImagePattern>,
    /// Digests of the configuration, of a manifest or of an index to which it applies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<Digest>,
    /// Names of calls that are allowed although nothing was found that makes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Names of calls that are never allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// From when on it does not count any more.
    pub expires: Timestamp,
}

impl Tuning {
    /// Whether it is about an image: by one of its names, or one of its digests.
    #[must_use]
    pub fn applies(&self, name: &str, digests: &[Digest]) -> bool {
        let name = ImageName::parse(name);
        self.image.iter().any(|pattern| pattern.matches(name.as_ref()))
            || self.digest.iter().any(|digest| digests.contains(digest))
    }

    /// Whether it counts at a time.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> bool {
        now < self.expires
    }
}

impl Checked {
    /// Adds the tunings in folders or files; none where there is no such folder. One that has expired is a warning.
    ///
    /// # Errors
    /// Everything that is wrong with them, what was found before included.
    pub fn tuned(mut self, places: &[PathBuf], now: Timestamp) -> Result<Self, Vec<Diagnostic>> {
        let mut found = std::mem::take(&mut self.warnings);
        for source in diagnostic::sources(&diagnostic::present(places), &mut found) {
            self.sources.push(SourceFile::new(&source.path, source.text.as_bytes()));
            let (tunings, faults) = parse(&source);
            found.extend(faults);
            for (tuning, expires_at) in tunings {
                if !tuning.counts(now) {
                    found.push(diags::tuning_expired(&tuning, expires_at));
                }
                self.tunings.push(tuning);
            }
        }
        if found.iter().any(|diagnostic| diagnostic.severity == Severity::Error) {
            return Err(found);
        }
        self.warnings = found;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn checked(text: &str) -> Result<Checked, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("50.toml"), text).unwrap();
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let empty = Checked {
            sources: Vec::new(),
            keys: Vec::new(),
            builders: Vec::new(),
            notation: Vec::new(),
            roots: Vec::new(),
            deny: super::super::Deny::default(),
            rules: Vec::new(),
            closure: Vec::new(),
            tunings: Vec::new(),
            warnings: Vec::new(),
        };
        empty.tuned(&[folder.path().to_owned()], now).map_err(|found| {
            let said: Vec<String> = found.iter().map(ToString::to_string).collect();
            said.join("\n\n")
                .replace(&folder.path().display().to_string(), "/etc/assay/seccomp.d")
        })
    }

    const TUNE: &str = "[[tune]]\nimage = ['registry.example/debug/**']\nallow = ['ptrace', 'process_vm_readv']\n\
                        deny = ['io_uring_setup']\nreason = 'gdb attaches in the debug variant'\nowner = 'platform team'\n";

    #[test]
    fn a_tuning_is_about_images_by_name_or_digest_until_it_expires() {
        let checked = checked(&format!("{TUNE}expires = '2027-01-01T00:00:00Z'\n")).unwrap();
        let [tuning] = checked.tunings.as_slice() else {
            panic!("{checked:?}")
        };
        assert_eq!((tuning.source.as_str(), checked.warnings.len()), ("50.toml:1", 0));
        assert_eq!(tuning.allow, ["process_vm_readv", "ptrace"]);
        assert!(tuning.applies("registry.example/debug/app:1", &[]));
        assert!(!tuning.applies("registry.example/app:1", &[]));
        assert!(tuning.counts("2026-12-31T23:59:59Z".parse().unwrap()));
        assert!(!tuning.counts("2027-01-01T00:00:00Z".parse().unwrap()));
        let digest = Digest::of(b"x");
        let by_digest = Tuning {
            image: Vec::new(),
            digest: vec![digest],
            ..tuning.clone()
        };
        assert!(by_digest.applies("anything", &[digest]) && !by_digest.applies("registry.example/debug/app:1", &[]));
    }

    #[test]
    fn an_expired_tuning_is_a_warning() {
        let checked = checked(&format!("{TUNE}expires = '2026-01-01T00:00:00Z'\n")).unwrap();
        assert_eq!(checked.tunings.len(), 1);
        insta::assert_snapshot!(checked.warnings[0].message, @"this tuning of platform team expired at 2026-01-01T00:00:00Z and does not count");
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        insta::assert_snapshot!(
            checked("[[tune]]\nimage = ['nginx*']\nallow = ['opennat']\ndeny = []\nexpires = 'soon'\nowner = ''\n")
                .unwrap_err()
        );
        insta::assert_snapshot!(
            checked("[[tune]]\nreason = 'x'\nowner = 'y'\nexpires = '2027-01-01T00:00:00Z'\n").unwrap_err()
        );
    }
}
