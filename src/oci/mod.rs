//! OCI documents: descriptors, manifests, indexes, image configurations, chain IDs, image layouts, references,
//! registries.
//!
//! Formats: <https://github.com/opencontainers/image-spec>. Everything here reads bytes that an attacker may
//! have written. What is not needed is ignored, what could be read in two ways is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::printable;
use crate::digest::Digest;

pub mod json;
mod layout;
mod reference;
pub mod registry;

pub use layout::{Files, Layout, LayoutError, MAX_LAYOUT_INDEX};
pub use reference::{InvalidReference, Reference};

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a Docker manifest list.
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Largest manifest, index or image configuration in bytes.
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// Most layers of a manifest and most diff IDs of a configuration.
pub const MAX_LAYERS: usize = 1024;
/// Most manifests that an index lists.
pub const MAX_MANIFESTS: usize = 1024;

/// True for the media types of a manifest.
#[must_use]
pub fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MANIFEST | DOCKER_MANIFEST)
}

/// True for the media types of an index.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, INDEX | DOCKER_INDEX)
}

/// Why an OCI document is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(clippy::error_impl_error, reason = "always written with its module: oci::Error")]
pub enum Error {
    /// Not a document of this kind.
    #[error(transparent)]
    Json(#[from] json::Error),
    /// Larger than [`MAX_DOCUMENT`].
    #[error("the document has {size} bytes, more than the {MAX_DOCUMENT} that are accepted")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Not schema version 2.
    #[error("schemaVersion is {0}, expected 2")]
    SchemaVersion(u64),
    /// The document calls itself something else than the descriptor that leads to it.
    #[error("the document calls itself '{found}' where its descriptor says '{expected}'")]
    MediaType {
        /// What the descriptor says.
        expected: String,
        /// What the document says, shortened.
        found: String,
    },
    /// A media type that is neither a manifest's nor an index's where one of them is needed.
    #[error("'{0}' is not the media type of {1}")]
    Kind(String, &'static str),
    /// A manifest with fields of an index or the other way round: clients disagree about what it is.
    #[error("the document has both 'manifests' and 'layers' or 'config': it could be read as two different things")]
    Ambiguous,
    /// Too many layers, diff IDs or manifests.
    #[error("{count} {what}, more than the {limit} that are accepted")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The root file system of a configuration is not made of layers.
    #[error("rootfs.type is '{0}', expected 'layers'")]
    RootfsType(String),
    /// A configuration without layers has no chain ID.
    #[error("the image configuration lists no layers")]
    NoLayers,
}

/// Refers to a blob by digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Hints; signed by nobody.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// Media type of the artifact behind it; a hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Platform that the manifest behind it is for; a hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

/// What an image runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Processor architecture in Go's words.
    pub architecture: String,
    /// Operating system in Go's words.
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// An image manifest, OCI's or Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The image configuration, or an artifact's.
    pub config: Descriptor,
    /// Layers, base first, or an artifact's blobs.
    pub layers: Vec<Descriptor>,
    /// What an artifact says it is about; signed by nobody.
    pub subject: Option<Descriptor>,
    /// What an artifact says it is.
    pub artifact_type: Option<String>,
    /// What it says about itself.
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest that a descriptor of type `media_type` led to.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, Error> {
        if !is_manifest(media_type) {
            return Err(Error::Kind(shorten(media_type), "a manifest"));
        }
        let document = Document::parse(bytes, media_type)?;
        let (Some(config), Some(layers), None) = (document.config, document.layers, document.manifests) else {
            return Err(Error::Ambiguous);
        };
        at_most("layers", layers.len(), MAX_LAYERS)?;
        Ok(Self {
            config,
            layers,
            subject: document.subject,
            artifact_type: document.artifact_type,
            annotations: document.annotations,
        })
    }
}

/// An image index, or Docker's manifest list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// What it lists.
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// Reads an index that a descriptor of type `media_type` led to.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(bytes: &[u8], media_type: &str) -> Result<Self, Error> {
        if !is_index(media_type) {
            return Err(Error::Kind(shorten(media_type), "an index"));
        }
        let document = Document::parse(bytes, media_type)?;
        let (Some(manifests), None, None) = (document.manifests, document.layers, document.config) else {
            return Err(Error::Ambiguous);
        };
        at_most("manifests", manifests.len(), MAX_MANIFESTS)?;
        Ok(Self { manifests })
    }
}

/// The part of an image configuration that says what is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageConfig {
    /// What it runs on.
    pub platform: Platform,
    /// Digests of the uncompressed layers, base first.
    pub diff_ids: Vec<Digest>,
    /// What a container is started with where nobody says otherwise.
    pub defaults: Defaults,
}

/// What an image says that a container of it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Defaults {
    /// First part of the command line.
    #[serde(deserialize_with = "json::or_default")]
    pub entrypoint: Vec<String>,
    /// The rest of it.
    #[serde(deserialize_with = "json::or_default")]
    pub cmd: Vec<String>,
    /// Environment, as `NAME=value`.
    #[serde(deserialize_with = "json::or_default")]
    pub env: Vec<String>,
    /// Working directory; empty for `/`.
    #[serde(deserialize_with = "json::or_default")]
    pub working_dir: String,
    /// Name or number of the signal that asks it to end; empty for SIGTERM.
    #[serde(deserialize_with = "json::or_default")]
    pub stop_signal: String,
}

impl ImageConfig {
    /// Reads an image configuration, OCI's or Docker's.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(flatten)]
            platform: Platform,
            rootfs: Rootfs,
            #[serde(default, deserialize_with = "json::or_default")]
            config: Defaults,
        }
        #[derive(Deserialize)]
        struct Rootfs {
            r#type: String,
            diff_ids: Vec<Digest>,
        }
        small(bytes)?;
        let raw: Raw = json::parse(bytes)?;
        if raw.rootfs.r#type != "layers" {
            return Err(Error::RootfsType(shorten(&raw.rootfs.r#type)));
        }
        at_most("diff IDs", raw.rootfs.diff_ids.len(), MAX_LAYERS)?;
        Ok(Self {
            platform: raw.platform,
            diff_ids: raw.rootfs.diff_ids,
            defaults: raw.config,
        })
    }

    /// The chain ID of all layers: the name under which containerd keeps the unpacked file system.
    ///
    /// # Errors
    /// [`Error::NoLayers`].
    pub fn chain_id(&self) -> Result<Digest, Error> {
        chain_id(&self.diff_ids).ok_or(Error::NoLayers)
    }
}

/// The chain ID of layers, base first; `None` for no layers.
#[must_use]
pub fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    diff_ids
        .iter()
        .copied()
        .reduce(|chain, diff_id| Digest::of(format!("{chain} {diff_id}").as_bytes()))
}

/// Fields of manifests and indexes together, so that a document that is both can be told apart from either.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    annotations: BTreeMap<String, String>,
}

impl Document {
    fn parse(bytes: &[u8], expected: &str) -> Result<Self, Error> {
        small(bytes)?;
        let document: Self = json::parse(bytes)?;
        if document.schema_version != 2 {
            return Err(Error::SchemaVersion(document.schema_version));
        }
        match &document.media_type {
            Some(found) if found != expected => Err(Error::MediaType {
                expected: shorten(expected),
                found: shorten(found),
            }),
            _ => Ok(document),
        }
    }
}

fn small(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::TooLarge { size: bytes.len() });
    }
    Ok(())
}

fn at_most(what: &'static str, count: usize, limit: usize) -> Result<(), Error> {
    if count > limit {
        return Err(Error::TooMany { what, count, limit });
    }
    Ok(())
}

/// The start of a text, safe to print: an error must not repeat a whole hostile document.
pub(crate) fn shorten(text: &str) -> String {
    let start: String = text.chars().take(100).collect();
    printable(&start).into_owned()
}

/// Go writes an empty map as `null`.
fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;

    fn manifest(rest: &str) -> Result<Manifest, Error> {
        Manifest::parse(
            format!(r#"{{"schemaVersion":2,"config":{CONFIG}{rest}}}"#).as_bytes(),
            MANIFEST,
        )
    }

    #[test]
    fn a_manifest_is_read() {
        let read = manifest(&format!(
            r#","mediaType":"{MANIFEST}","layers":[{CONFIG}],"annotations":{{"a":"b"}},"artifactType":"x","subject":{CONFIG},"unknown":[]"#
        ))
        .unwrap();
        assert_eq!(read.layers, std::slice::from_ref(&read.config));
        assert_eq!(read.subject, Some(read.config));
        assert_eq!(read.artifact_type.as_deref(), Some("x"));
        assert!(manifest(r#","layers":[],"subject":null"#).unwrap().layers.is_empty());
    }

    #[test]
    fn a_document_that_could_be_two_things_is_refused() {
        let both = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":[],"manifests":[]}}"#);
        assert!(matches!(
            Manifest::parse(both.as_bytes(), MANIFEST),
            Err(Error::Ambiguous)
        ));
        assert!(matches!(Index::parse(both.as_bytes(), INDEX), Err(Error::Ambiguous)));
        let layers = r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#;
        assert!(matches!(Index::parse(layers.as_bytes(), INDEX), Err(Error::Ambiguous)));
    }

    #[test]
    fn a_document_that_calls_itself_something_else_is_refused() {
        let error = manifest(&format!(r#","layers":[],"mediaType":"{INDEX}""#)).unwrap_err();
        insta::assert_snapshot!(error, @"the document calls itself 'application/vnd.oci.image.index.v1+json' where its descriptor says 'application/vnd.oci.image.manifest.v1+json'");
        assert!(matches!(
            manifest(&format!(r#","layers":[],"mediaType":"{DOCKER_MANIFEST}""#)),
            Err(Error::MediaType { .. })
        ));
        assert!(matches!(Manifest::parse(b"{}", INDEX), Err(Error::Kind(..))));
        assert!(matches!(Index::parse(b"{}", MANIFEST), Err(Error::Kind(..))));
    }

    #[test]
    fn limits_and_versions_hold() {
        let many = |n: usize| vec![CONFIG; n].join(",");
        assert_eq!(
            manifest(&format!(r#","layers":[{}]"#, many(MAX_LAYERS)))
                .unwrap()
                .layers
                .len(),
            MAX_LAYERS
        );
        let error = manifest(&format!(r#","layers":[{}]"#, many(MAX_LAYERS + 1))).unwrap_err();
        insta::assert_snapshot!(error, @"1025 layers, more than the 1024 that are accepted");
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, many(MAX_MANIFESTS + 1));
        assert!(matches!(
            Index::parse(index.as_bytes(), INDEX),
            Err(Error::TooMany { .. })
        ));
        let mut large = br#"{"schemaVersion":2,"manifests":[]}"#.to_vec();
        assert!(Index::parse(&large, INDEX).unwrap().manifests.is_empty());
        large.resize(usize::try_from(MAX_DOCUMENT).unwrap() + 1, b' ');
        assert!(matches!(Index::parse(&large, INDEX), Err(Error::TooLarge { .. })));
        assert!(matches!(
            Index::parse(br#"{"schemaVersion":1,"manifests":[]}"#, INDEX),
            Err(Error::SchemaVersion(1))
        ));
        for descriptor in [
            r#"{"mediaType":"x","digest":"sha256:zz","size":0}"#,
            r#"{"mediaType":"x","digest":"sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#,
            r#"{"mediaType":"x","digest":"../../etc/passwd","size":0}"#,
            r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":-1}"#,
            r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":1.5}"#,
            r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}"#,
        ] {
            assert!(
                manifest(&format!(r#","layers":[{descriptor}]"#)).is_err(),
                "{descriptor}"
            );
        }
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|layer| Digest::of(layer));
        assert_eq!(chain_id(&[]), None);
        assert_eq!(chain_id(&[a]), Some(a));
        let ab = Digest::of(format!("{a} {b}").as_bytes());
        assert_eq!(chain_id(&[a, b]), Some(ab));
        assert_eq!(chain_id(&[a, b, c]), Some(Digest::of(format!("{ab} {c}").as_bytes())));
    }

    #[test]
    fn an_image_configuration_is_read() {
        let of = |rootfs: &str| {
            ImageConfig::parse(
                format!(r#"{{"architecture":"arm64","os":"linux","variant":"v8","config":{{"User":"1"}},"rootfs":{rootfs}}}"#)
                    .as_bytes(),
            )
        };
        let layer = Digest::of(b"layer");
        let read = of(&format!(r#"{{"type":"layers","diff_ids":["{layer}"]}}"#)).unwrap();
        assert_eq!(read.chain_id().unwrap(), layer);
        assert_eq!(read.platform.architecture, "arm64");
        assert_eq!(read.platform.variant.as_deref(), Some("v8"));
        assert!(matches!(
            of(r#"{"type":"layers","diff_ids":[]}"#).unwrap().chain_id(),
            Err(Error::NoLayers)
        ));
        assert!(matches!(
            of(r#"{"type":"zip","diff_ids":[]}"#),
            Err(Error::RootfsType(_))
        ));
        assert!(of(r#"{"type":"layers"}"#).is_err());
        let many = vec![format!("\"{layer}\""); MAX_LAYERS + 1].join(",");
        assert!(matches!(
            of(&format!(r#"{{"type":"layers","diff_ids":[{many}]}}"#)),
            Err(Error::TooMany { .. })
        ));
    }
}
