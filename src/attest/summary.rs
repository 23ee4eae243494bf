//! SLSA verification summaries, versions 0.2 and 1.
//!
//! Formats: <https://slsa.dev/verification_summary/v0.2> and <https://slsa.dev/spec/v1.0/verification_summary>.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::details::{MAX_TEXT, PredicateError, bounded};
use crate::oci::json;

/// Most levels of a summary.
pub const MAX_LEVELS: usize = 64;

const PASSED: &str = "PASSED";

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Who verified.
    pub verifier: String,
    /// When, as the verifier says.
    pub time: Timestamp,
    /// What was verified.
    pub resource: String,
    /// By which policy; empty where the summary does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Whether it passed.
    pub passed: bool,
    /// Levels that it reached, `SLSA_BUILD_LEVEL_3` for example.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<String>,
}

impl Summary {
    /// Reads a predicate of this version of the predicate type.
    ///
    /// # Errors
    /// See [`PredicateError`].
    pub fn parse(version: &str, predicate: &[u8]) -> Result<Self, PredicateError> {
        #[derive(Deserialize)]
        struct Verifier {
            id: Option<String>,
        }
        #[derive(Deserialize)]
        struct Policy {
            uri: Option<String>,
        }
        // Before version 1 names had underscores, and some writers used the later names already.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Raw {
            verifier: Verifier,
            #[serde(alias = "time_verified")]
            time_verified: Option<String>,
            #[serde(alias = "resource_uri")]
            resource_uri: Option<String>,
            policy: Option<Policy>,
            #[serde(alias = "verification_result")]
            verification_result: Option<String>,
            #[serde(alias = "verified_levels", default)]
            verified_levels: Vec<String>,
        }
        if !matches!(version, "v0.2" | "v1" | "v1.0" | "v1.1" | "v1.2") {
            return Err(PredicateError::Version("v0.2 and v1"));
        }
        let raw: Raw = json::parse(predicate)?;
        let time: Timestamp = bounded("time of verification", raw.time_verified)?
            .parse()
            .map_err(|_| PredicateError::Time("time of verification"))?;
        if raw.verified_levels.len() > MAX_LEVELS {
            return Err(PredicateError::TooMany {
                what: "levels",
                limit: MAX_LEVELS,
            });
        }
        if raw.verified_levels.iter().any(|level| level.len() > MAX_TEXT) {
            return Err(PredicateError::TooLong("level"));
        }
        let policy = match raw.policy.and_then(|policy| policy.uri).filter(|uri| !uri.is_empty()) {
            Some(uri) => bounded("policy", Some(uri))?,
            None => String::new(),
        };
        Ok(Self {
            verifier: bounded("verifier", raw.verifier.id)?,
            time,
            resource: bounded("resource", raw.resource_uri)?,
            policy,
            passed: bounded("result", raw.verification_result)? == PASSED,
            levels: raw.verified_levels,
        })
    }

    pub(super) fn is_bounded(&self) -> bool {
        let texts = [&self.verifier, &self.resource, &self.policy];
        self.levels.len() <= MAX_LEVELS && texts.into_iter().chain(&self.levels).all(|text| text.len() <= MAX_TEXT)
    }

    /// Whether it reached a level. A build level includes those below it.
    #[must_use]
    pub fn has_level(&self, wanted: &str) -> bool {
        let split = |level: &str| {
            let (track, number) = level.rsplit_once("_LEVEL_")?;
            Some((track.to_owned(), number.parse::<u8>().ok()?))
        };
        self.levels.iter().any(|level| {
            level == wanted
                || split(level)
                    .zip(split(wanted))
                    .is_some_and(|((track, number), (wanted, least))| track == wanted && number >= least)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = r#"{
        "verifier": {"id": "https://verifier.example", "version": {"x": "1"}},
        "timeVerified": "2026-11-01T12:00:00Z",
        "resourceUri": "docker.io/acme/app",
        "policy": {"uri": "https://verifier.example/policy", "digest": {"sha256": "aa"}},
        "inputAttestations": [{"uri": "x", "digest": {}}],
        "verificationResult": "PASSED",
        "verifiedLevels": ["SLSA_BUILD_LEVEL_3", "ACME_REVIEWED"],
        "slsaVersion": "1.0"
    }"#;

    fn read(version: &str, predicate: &str) -> Result<Summary, String> {
        Summary::parse(version, predicate.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn both_spellings_are_read() {
        let summary = read("v1", V1).unwrap();
        assert!(summary.passed && summary.is_bounded());
        assert_eq!(summary.resource, "docker.io/acme/app");
        let mut old = V1.to_owned();
        for (new, underscored) in [
            ("timeVerified", "time_verified"),
            ("resourceUri", "resource_uri"),
            ("verificationResult", "verification_result"),
            ("verifiedLevels", "verified_levels"),
        ] {
            old = old.replace(new, underscored);
        }
        assert_eq!(read("v0.2", &old).unwrap(), summary);
        for result in ["FAILED", "passed", "PASSED ", "x"] {
            let failed = read("v1", &V1.replace("\"PASSED\"", &format!("\"{result}\""))).unwrap();
            assert!(!failed.passed, "{result}");
        }
    }

    #[test]
    fn a_build_level_includes_those_below() {
        let summary = read("v1", V1).unwrap();
        for level in ["SLSA_BUILD_LEVEL_3", "SLSA_BUILD_LEVEL_1", "ACME_REVIEWED"] {
            assert!(summary.has_level(level), "{level}");
        }
        for level in [
            "SLSA_BUILD_LEVEL_4",
            "SLSA_SOURCE_LEVEL_1",
            "ACME",
            "SLSA_BUILD_LEVEL_",
            "",
        ] {
            assert!(!summary.has_level(level), "{level}");
        }
    }

    #[test]
    fn what_is_no_summary_is_refused() {
        let without = |key: &str| read("v1", &V1.replace(&format!("\"{key}\""), "\"other\"")).unwrap_err();
        insta::assert_snapshot!(without("timeVerified"), @"it names no time of verification");
        insta::assert_snapshot!(without("resourceUri"), @"it names no resource");
        insta::assert_snapshot!(without("verificationResult"), @"it names no result");
        insta::assert_snapshot!(without("verifier"), @"not acceptable JSON: missing field `verifier` at line 10 column 5");
        insta::assert_snapshot!(read("v0.1", V1).unwrap_err(), @"its predicate type is of a version that is not read, v0.2 and v1 are");
        insta::assert_snapshot!(read("v1", &V1.replace("2026-11-01T12:00:00Z", "yesterday")).unwrap_err(), @"its time of verification is no RFC 3339 time");
        // The same thing said in both spellings is said twice.
        insta::assert_snapshot!(read("v1", &V1.replace("\"slsaVersion\": \"1.0\"", "\"verification_result\": \"PASSED\"")).unwrap_err(), @"not acceptable JSON: duplicate field `verificationResult` at line 9 column 29");
    }
}
