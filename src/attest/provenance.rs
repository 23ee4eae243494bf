//! SLSA provenance, versions 0.2 and 1.
//!
//! Formats: <https://slsa.dev/spec/v0.2/provenance> and <https://slsa.dev/spec/v1.0/provenance>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::details::{MAX_TEXT, PredicateError, bounded};
use crate::oci::json;

/// Most external parameters.
pub const MAX_PARAMETERS: usize = 256;
/// Most sources.
pub const MAX_SOURCES: usize = 64;
/// Most materials or resolved dependencies that are looked through.
pub const MAX_DEPENDENCIES: usize = 16_384;
/// Most digests of a source.
const MAX_DIGESTS: usize = 16;

/// Build types whose first resolved dependency is what was built: they record no source among the parameters.
const FIRST_DEPENDENCY: &str = "https://github.com/slsa-framework/slsa-github-generator/";

const GIT: &str = "git+";

/// What SLSA provenance says about a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of its format: `0.2` or `1`.
    pub version: Version,
    /// Who built.
    pub builder: String,
    /// How the parameters are to be read.
    pub build_type: String,
    /// From what: every source that the parameters name, as `repository@reference`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Origin>,
    /// What whoever asked for the build could choose: top-level names, values as JSON text without the quotes of a
    /// string; none where the value is longer than [`MAX_TEXT`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Option<String>>,
}

/// Versions of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    /// 0.2.
    #[serde(rename = "0.2")]
    V02,
    /// 1, 1.1, …
    #[serde(rename = "1")]
    V1,
}

/// A source that a build started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Repository and, behind an `@`, reference.
    pub uri: String,
    /// Digests by algorithm, `gitCommit` or `sha1` for example.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
}

/// A material, a resolved dependency or a configuration source.
#[derive(Deserialize)]
struct Resource {
    uri: Option<String>,
    #[serde(default)]
    digest: BTreeMap<String, String>,
}

impl Provenance {
    /// Reads a predicate of this version of the predicate type.
    ///
    /// # Errors
    /// See [`PredicateError`].
    pub fn parse(version: &str, predicate: &[u8]) -> Result<Self, PredicateError> {
        match version {
            "v0.2" => parse_v02(predicate),
            "v1" | "v1.0" | "v1.1" | "v1.2" => parse_v1(predicate),
            _ => Err(PredicateError::Version("v0.2 and v1")),
        }
    }

    pub(super) fn is_bounded(&self) -> bool {
        let short = |text: &String| text.len() <= MAX_TEXT;
        let source = |source: &Origin| {
            short(&source.uri)
                && source.digest.len() <= MAX_DIGESTS
                && source.digest.iter().all(|(name, value)| short(name) && short(value))
        };
        short(&self.builder)
            && short(&self.build_type)
            && self.sources.len() <= MAX_SOURCES
            && self.sources.iter().all(source)
            && self.parameters.len() <= MAX_PARAMETERS
            && self
                .parameters
                .iter()
                .all(|(name, value)| short(name) && value.iter().all(short))
    }
}

fn parse_v02(predicate: &[u8]) -> Result<Provenance, PredicateError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        builder: Builder,
        build_type: Option<String>,
        invocation: Option<Invocation>,
        #[serde(default)]
        materials: Vec<Resource>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Invocation {
        config_source: Option<Resource>,
        parameters: Option<Value>,
    }
    let raw: Raw = json::parse(predicate)?;
    let (config, parameters) = raw
        .invocation
        .map(|invocation| (invocation.config_source, invocation.parameters))
        .unwrap_or_default();
    let mut named = Vec::new();
    if let Some(Resource { uri: Some(uri), digest }) = config
        && !uri.is_empty()
    {
        named.push(Named {
            uri,
            digest: Some(digest).filter(|digest| !digest.is_empty()),
        });
    }
    Ok(Provenance {
        version: Version::V02,
        builder: bounded("builder", raw.builder.id)?,
        build_type: bounded("build type", raw.build_type)?,
        sources: sources(named, &raw.materials)?,
        parameters: flatten(parameters)?,
    })
}

#[derive(Deserialize)]
struct Builder {
    id: Option<String>,
}

fn parse_v1(predicate: &[u8]) -> Result<Provenance, PredicateError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Raw {
        build_definition: Definition,
        run_details: Details,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Definition {
        build_type: Option<String>,
        external_parameters: Option<Value>,
        #[serde(default)]
        resolved_dependencies: Vec<Resource>,
    }
    #[derive(Deserialize)]
    struct Details {
        builder: Builder,
    }
    let raw: Raw = json::parse(predicate)?;
    let definition = raw.build_definition;
    let build_type = bounded("build type", definition.build_type)?;
    let mut named = definition
        .external_parameters
        .as_ref()
        .map(named_sources)
        .unwrap_or_default();
    if named.is_empty()
        && build_type.starts_with(FIRST_DEPENDENCY)
        && let Some(uri) = definition
            .resolved_dependencies
            .first()
            .and_then(|first| first.uri.clone())
    {
        named.push(Named { uri, digest: None });
    }
    Ok(Provenance {
        version: Version::V1,
        builder: bounded("builder", raw.run_details.builder.id)?,
        build_type,
        sources: sources(named, &definition.resolved_dependencies)?,
        parameters: flatten(definition.external_parameters)?,
    })
}

/// A source that the parameters name.
struct Named {
    uri: String,
    digest: Option<BTreeMap<String, String>>,
}

/// Where the known build types put their source among the external parameters:
/// `workflow` (GitHub Actions), `buildConfigSource` and `sourceToBuild` (Google Cloud Build) hold repository and
/// reference, `configSource` (BuildKit) and `source` (container-based builds) a URI. Whatever of it is there counts.
fn named_sources(parameters: &Value) -> Vec<Named> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let mut named = Vec::new();
    for key in ["workflow", "buildConfigSource", "sourceToBuild"] {
        let Some(place) = parameters.get(key) else { continue };
        let Some(repository) = text(place, "repository") else {
            continue;
        };
        let uri = match text(place, "ref").filter(|reference| !reference.is_empty()) {
            Some(reference) => format!("{repository}@{reference}"),
            None => repository,
        };
        named.push(Named { uri, digest: None });
    }
    for key in ["configSource", "source"] {
        let Some(place) = parameters.get(key) else { continue };
        let uri = place.as_str().map(str::to_owned).or_else(|| text(place, "uri"));
        let digest = place
            .get("digest")
            .and_then(|digest| serde_json::from_value(digest.clone()).ok());
        if let Some(uri) = uri.filter(|uri| !uri.is_empty()) {
            named.push(Named { uri, digest });
        }
    }
    named
}

/// The sources in one form, each once, with their digests. What the parameters name counts; only where they name
/// nothing, every Git repository among the dependencies is one.
fn sources(named: Vec<Named>, dependencies: &[Resource]) -> Result<Vec<Origin>, PredicateError> {
    if dependencies.len() > MAX_DEPENDENCIES {
        return Err(PredicateError::TooMany {
            what: "dependencies",
            limit: MAX_DEPENDENCIES,
        });
    }
    let named = if named.is_empty() {
        dependencies
            .iter()
            .filter_map(|dependency| dependency.uri.clone())
            .filter(|uri| uri.starts_with(GIT))
            .map(|uri| Named { uri, digest: None })
            .collect()
    } else {
        named
    };
    let mut sources: Vec<Origin> = Vec::new();
    for Named { uri, digest } in named {
        let uri = bounded("source", Some(normal(&uri)))?;
        let resolved = dependencies
            .iter()
            .find(|dependency| dependency.uri.as_deref().is_some_and(|theirs| normal(theirs) == uri))
            .map(|dependency| &dependency.digest);
        let digest = match (digest, resolved) {
            (Some(claimed), Some(resolved)) if contradict(&claimed, resolved) => {
                return Err(PredicateError::Contradiction("the digest of its source"));
            }
            (Some(claimed), _) => claimed,
            (None, Some(resolved)) => resolved.clone(),
            (None, None) => BTreeMap::new(),
        };
        if digest.len() > MAX_DIGESTS
            || digest
                .iter()
                .any(|(name, value)| name.len().max(value.len()) > MAX_TEXT)
        {
            return Err(PredicateError::TooMany {
                what: "digests of a source",
                limit: MAX_DIGESTS,
            });
        }
        if let Some(known) = sources.iter_mut().find(|known| known.uri == uri) {
            if contradict(&known.digest, &digest) {
                return Err(PredicateError::Contradiction("the digest of its source"));
            }
            known.digest.extend(digest);
        } else if sources.len() == MAX_SOURCES {
            return Err(PredicateError::TooMany {
                what: "sources",
                limit: MAX_SOURCES,
            });
        } else {
            sources.push(Origin { uri, digest });
        }
    }
    Ok(sources)
}

fn contradict(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    one.iter()
        .any(|(algorithm, value)| other.get(algorithm).is_some_and(|theirs| theirs != value))
}

/// One form for what build services spell differently: without `git+`, the reference behind `@`.
fn normal(uri: &str) -> String {
    let uri = uri.strip_prefix(GIT).unwrap_or(uri);
    match uri.split_once('#') {
        // BuildKit writes reference and folder as a fragment.
        Some((repository, fragment)) if !repository.contains('@') => {
            let reference = fragment.split(':').next().unwrap_or_default();
            if reference.is_empty() {
                repository.to_owned()
            } else {
                format!("{repository}@{reference}")
            }
        }
        _ => uri.to_owned(),
    }
}

/// The top-level names of the parameters with their values.
fn flatten(parameters: Option<Value>) -> Result<BTreeMap<String, Option<String>>, PredicateError> {
    let entries = match parameters {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries,
        // Nothing that a list of names could be compared with.
        Some(_) => return Err(PredicateError::Missing("parameters by name")),
    };
    if entries.len() > MAX_PARAMETERS {
        return Err(PredicateError::TooMany {
            what: "parameters",
            limit: MAX_PARAMETERS,
        });
    }
    let mut flat = BTreeMap::new();
    for (name, value) in entries {
        let value = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if name.len() > MAX_TEXT {
            return Err(PredicateError::TooLong("parameter"));
        }
        flat.insert(name, Some(value).filter(|value| value.len() <= MAX_TEXT));
    }
    Ok(flat)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(version: &str, predicate: &str) -> Result<Provenance, String> {
        Provenance::parse(version, predicate.as_bytes()).map_err(|error| error.to_string())
    }

    fn uris(provenance: &Provenance) -> Vec<&str> {
        provenance.sources.iter().map(|source| source.uri.as_str()).collect()
    }

    /// As slsa-github-generator writes it, version 0.2.
    const V02: &str = r#"{
        "builder": {"id": "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/generator_container_slsa3.yml@refs/tags/v1.9.0"},
        "buildType": "https://github.com/slsa-framework/slsa-github-generator/container@v1",
        "invocation": {
            "configSource": {"uri": "git+https://github.com/acme/app@refs/tags/v1.0.0", "digest": {"sha1": "aa"}, "entryPoint": ".github/workflows/release.yml"},
            "parameters": {"inputs": {"debug": true}, "channel": "stable"},
            "environment": {"github_event_name": "push"}
        },
        "metadata": {"completeness": {}},
        "materials": [{"uri": "git+https://github.com/acme/app@refs/tags/v1.0.0", "digest": {"sha1": "aa"}}]
    }"#;

    /// As GitHub's attestations write it, version 1.
    const V1: &str = r#"{
        "buildDefinition": {
            "buildType": "https://actions.github.io/buildtypes/workflow/v1",
            "externalParameters": {"workflow": {"ref": "refs/heads/main", "repository": "https://github.com/acme/app", "path": ".github/workflows/build.yml"}},
            "internalParameters": {"github": {"event_name": "push"}},
            "resolvedDependencies": [
                {"uri": "git+https://github.com/acme/app@refs/heads/main", "digest": {"gitCommit": "bb"}},
                {"uri": "git+https://github.com/other/submodule@refs/heads/main", "digest": {"gitCommit": "cc"}}
            ]
        },
        "runDetails": {"builder": {"id": "https://github.com/acme/app/.github/workflows/build.yml@refs/heads/main"}, "metadata": {}}
    }"#;

    #[test]
    fn both_versions_are_read() {
        let old = read("v0.2", V02).unwrap();
        assert_eq!(old.version, Version::V02);
        assert_eq!(uris(&old), ["https://github.com/acme/app@refs/tags/v1.0.0"]);
        assert_eq!(old.sources[0].digest["sha1"], "aa");
        assert_eq!(old.parameters["inputs"].as_deref(), Some(r#"{"debug":true}"#));
        assert_eq!(old.parameters["channel"].as_deref(), Some("stable"));
        let new = read("v1", V1).unwrap();
        assert_eq!(new.version, Version::V1);
        assert_eq!(uris(&new), ["https://github.com/acme/app@refs/heads/main"]);
        assert_eq!(new.sources[0].digest["gitCommit"], "bb");
        assert_eq!(new.parameters.keys().collect::<Vec<_>>(), ["workflow"]);
        for provenance in [old, new] {
            assert!(provenance.is_bounded());
            let json = serde_json::to_string(&provenance).unwrap();
            assert_eq!(serde_json::from_str::<Provenance>(&json).unwrap(), provenance);
        }
    }

    #[test]
    fn every_build_service_has_its_place_for_the_source() {
        let of = |build_type: &str, parameters: &str, dependencies: &str| {
            let predicate = format!(
                r#"{{"buildDefinition":{{"buildType":"{build_type}","externalParameters":{parameters},"resolvedDependencies":[{dependencies}]}},"runDetails":{{"builder":{{"id":"b"}}}}}}"#
            );
            let read = read("v1", &predicate).unwrap();
            uris(&read).join(" ")
        };
        // Google Cloud Build: both places count.
        assert_eq!(
            of(
                "gcb",
                r#"{"buildConfigSource":{"repository":"https://github.com/acme/app","ref":"refs/heads/main","path":"x"},"sourceToBuild":{"repository":"https://github.com/acme/other","ref":""}}"#,
                ""
            ),
            "https://github.com/acme/app@refs/heads/main https://github.com/acme/other"
        );
        // BuildKit: a fragment with a folder.
        assert_eq!(
            of(
                "buildkit",
                r#"{"configSource":{"uri":"https://github.com/acme/app.git#refs/tags/v1:docker","digest":{"sha1":"aa"}}}"#,
                ""
            ),
            "https://github.com/acme/app.git@refs/tags/v1"
        );
        assert_eq!(
            of(
                "container-based",
                r#"{"source":{"uri":"git+https://github.com/acme/app@refs/heads/x"}}"#,
                ""
            ),
            "https://github.com/acme/app@refs/heads/x"
        );
        // A generator that records its source as the first dependency only.
        let dependencies =
            r#"{"uri":"git+https://github.com/acme/app@refs/heads/main"},{"uri":"git+https://github.com/evil/x"}"#;
        assert_eq!(
            of(
                "https://github.com/slsa-framework/slsa-github-generator/delegator-generic@v0",
                "{}",
                dependencies
            ),
            "https://github.com/acme/app@refs/heads/main"
        );
        // Nothing says which: all repositories count.
        assert_eq!(
            of("unknown", "{}", dependencies),
            "https://github.com/acme/app@refs/heads/main https://github.com/evil/x"
        );
        assert_eq!(of("unknown", "{}", r#"{"uri":"pkg:docker/alpine"}"#), "");
    }

    #[test]
    fn what_is_no_provenance_is_refused() {
        let refused = |version: &str, predicate: &str| read(version, predicate).unwrap_err();
        insta::assert_snapshot!(refused("v0.1", "{}"), @"its predicate type is of a version that is not read, v0.2 and v1 are");
        insta::assert_snapshot!(refused("v1", ""), @"not acceptable JSON: EOF while parsing a value at line 1 column 0");
        insta::assert_snapshot!(refused("v0.2", V1), @"not acceptable JSON: missing field `builder` at line 12 column 5");
        insta::assert_snapshot!(refused("v0.2", r#"{"builder":{},"buildType":"t"}"#), @"it names no builder");
        insta::assert_snapshot!(refused("v0.2", r#"{"builder":{"id":"b"}}"#), @"it names no build type");
        insta::assert_snapshot!(refused("v0.2", &V02.replacen("\"sha1\": \"aa\"", "\"sha1\": \"zz\"", 1)), @"it contradicts itself about the digest of its source");
        insta::assert_snapshot!(refused("v0.2", &V02.replace("https://github.com/acme/app", &format!("https://{}", "a".repeat(MAX_TEXT)))), @"its source has more than 2048 bytes");
        insta::assert_snapshot!(refused("v0.2", &V02.replace("\"channel\"", "\"inputs\"")), @r#"not acceptable JSON: the key "inputs" appears twice at line 6 column 62"#);
        let many: Vec<String> = (0..=MAX_PARAMETERS).map(|n| format!("\"p{n}\":1")).collect();
        let many = format!(
            r#"{{"builder":{{"id":"b"}},"buildType":"t","invocation":{{"parameters":{{{}}}}}}}"#,
            many.join(",")
        );
        insta::assert_snapshot!(refused("v0.2", &many), @"it has more than 256 parameters");
        insta::assert_snapshot!(refused("v0.2", r#"{"builder":{"id":"b"},"buildType":"t","invocation":{"parameters":[1]}}"#), @"it names no parameters by name");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..V1.len()) {
            prop_assert!(Provenance::parse("v1", &bytes).is_err());
            let _ = Provenance::parse("v0.2", &V1.as_bytes()[..cut]);
        }
    }
}
