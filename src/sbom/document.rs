//! The JSON of all formats, read in one pass: entries are reduced to what is compared while they are read, so that an
//! SBOM of many files never stands in memory twice.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Error, Format, Identity, MAX_FILES, MAX_PACKAGES, MAX_PATH, Sbom};
use crate::oci::shorten;

const SPDX_VERSIONS: &str = "versions 2.2, 2.3 and 3.0";
const CYCLONEDX_VERSIONS: &str = "versions 1.4 to 1.7";

/// A document as it may stand in an attestation: older versions of cosign put it one level deeper.
type Outer = Document<Option<Box<Document<IgnoredAny>>>>;

pub(super) fn read(bytes: &[u8]) -> Result<Sbom, Error> {
    let mut outer: Outer = serde_json::from_slice(bytes)?;
    match outer.data.take() {
        Some(inner) => inner.finish(),
        None => outer.finish(),
    }
}

/// The top of a document: what it says it is, and its lists.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document<D: Default> {
    #[serde(rename = "Data")]
    data: D,
    #[serde(rename = "_type")]
    statement: Option<IgnoredAny>,

    spdx_version: Option<String>,
    packages: Folded<SpdxPackage>,
    /// Of SPDX and of syft.
    files: Folded<File>,

    #[serde(rename = "@context")]
    context: Option<Context>,
    #[serde(rename = "@graph")]
    graph: Folded<Element>,

    bom_format: Option<String>,
    spec_version: Option<String>,
    components: Folded<Component>,

    schema: Option<Schema>,
    artifacts: Folded<Artifact>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Context {
    One(String),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Schema {
    #[serde(default)]
    version: String,
    #[serde(default)]
    url: String,
}

impl<D: Default> Document<D> {
    fn finish(self) -> Result<Sbom, Error> {
        if self.statement.is_some() {
            return Err(Error::Statement);
        }
        let ld = match &self.context {
            // https://spdx.org/rdf/3.0.1/spdx-context.jsonld
            Some(Context::One(url)) => url.strip_prefix("https://spdx.org/rdf/"),
            _ => None,
        };
        let ld = ld.and_then(|rest| rest.strip_suffix("/spdx-context.jsonld"));
        let syft = self.schema.filter(|schema| schema.url.contains("/anchore/syft/"));
        let marks = [
            self.spdx_version.map(|version| (Format::Spdx, version)),
            ld.map(|version| (Format::Spdx, format!("SPDX-{version}"))),
            self.bom_format
                .filter(|format| format == "CycloneDX")
                .map(|_| (Format::Cyclonedx, self.spec_version.unwrap_or_default())),
            syft.map(|schema| (Format::Syft, schema.version)),
        ];
        let mut marks = marks.into_iter().flatten();
        let (format, version) = marks.next().ok_or(Error::Unknown)?;
        if let Some((other, _)) = marks.next() {
            return Err(Error::Ambiguous(format, other));
        }
        let unsupported = |expected| Error::Version {
            format,
            found: shorten(&version),
            expected,
        };
        // Only the lists of its own format count.
        let contents = match (format, version.as_str()) {
            (Format::Spdx, "SPDX-2.2" | "SPDX-2.3") => self.packages.contents.and(self.files.contents),
            (Format::Spdx, "SPDX-3.0.0" | "SPDX-3.0.1") => self.graph.contents,
            (Format::Cyclonedx, "1.4" | "1.5" | "1.6" | "1.7") => self.components.contents,
            (Format::Syft, _) => self.artifacts.contents.and(self.files.contents),
            (Format::Spdx, _) => return Err(unsupported(SPDX_VERSIONS)),
            (Format::Cyclonedx, _) => return Err(unsupported(CYCLONEDX_VERSIONS)),
        };
        let Contents {
            mut packages,
            unnamed,
            mut files,
        } = contents;
        packages.sort_unstable();
        packages.dedup();
        files.sort_unstable();
        files.dedup();
        Ok(Sbom {
            format,
            version,
            packages,
            unnamed,
            files,
        })
    }
}

/// What the entries of a list amount to.
#[derive(Default)]
struct Contents {
    packages: Vec<Identity>,
    unnamed: usize,
    files: Vec<(Box<str>, [u8; 32])>,
}

impl Contents {
    fn and(mut self, mut other: Self) -> Self {
        // A short list is moved into a long one, so that lists in lists in lists cost no more than their length.
        if self.packages.len() < other.packages.len() {
            std::mem::swap(&mut self.packages, &mut other.packages);
        }
        if self.files.len() < other.files.len() {
            std::mem::swap(&mut self.files, &mut other.files);
        }
        self.packages.append(&mut other.packages);
        self.files.append(&mut other.files);
        self.unnamed += other.unnamed;
        self
    }

    fn package<'p>(&mut self, mut purls: impl Iterator<Item = &'p str>) {
        match purls.next().map(str::parse) {
            Some(Ok(identity)) => self.packages.push(identity),
            Some(Err(_)) | None => self.unnamed += 1,
        }
    }

    fn file(&mut self, path: &str, hashes: &[Hash]) {
        if path.is_empty() || path.len() > MAX_PATH {
            return;
        }
        let path = path.strip_prefix("./").unwrap_or(path);
        let path = if path.starts_with('/') {
            path.into()
        } else {
            format!("/{path}").into_boxed_str()
        };
        if let Some(digest) = hashes.iter().find_map(Hash::sha256) {
            self.files.push((path, digest));
        }
    }

    /// What there is too much of.
    fn excess(&self) -> Option<String> {
        if self.packages.len() > MAX_PACKAGES {
            Some(format!("more than {MAX_PACKAGES} packages"))
        } else if self.files.len() > MAX_FILES {
            Some(format!("more than {MAX_FILES} files"))
        } else {
            None
        }
    }
}

/// An entry of a list.
trait Entry: DeserializeOwned {
    fn fold(self, contents: &mut Contents);
}

/// A list of entries, of which only the contents are kept. `null` is an empty list, as in what Go writes.
struct Folded<T> {
    contents: Contents,
    entries: PhantomData<T>,
}

impl<T> Default for Folded<T> {
    fn default() -> Self {
        Self {
            contents: Contents::default(),
            entries: PhantomData,
        }
    }
}

impl<'de, T: Entry> Deserialize<'de> for Folded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self::default())
    }
}

impl<'de, T: Entry> Visitor<'de> for Folded<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some(entry) = list.next_element::<T>()? {
            entry.fold(&mut self.contents);
            if let Some(excess) = self.contents.excess() {
                return Err(A::Error::custom(excess));
            }
        }
        Ok(self)
    }
}

/// A hash by the names that the formats have for its two parts.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Hash {
    #[serde(alias = "alg")]
    algorithm: String,
    #[serde(alias = "checksumValue", alias = "content", alias = "hashValue")]
    value: String,
}

impl Hash {
    fn sha256(&self) -> Option<[u8; 32]> {
        let is_sha256 = ["SHA256", "sha256", "SHA-256"].contains(&self.algorithm.as_str());
        let mut digest = [0; 32];
        (is_sha256 && hex::decode_to_slice(&self.value, &mut digest).is_ok()).then_some(digest)
    }
}

/// `packages` of SPDX 2.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage {
    #[serde(default)]
    external_refs: Option<Vec<ExternalRef>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct ExternalRef {
    reference_type: String,
    reference_locator: String,
}

impl Entry for SpdxPackage {
    fn fold(self, contents: &mut Contents) {
        let refs = self.external_refs.iter().flatten();
        contents.package(
            refs.filter(|found| found.reference_type == "purl")
                .map(|found| found.reference_locator.as_str()),
        );
    }
}

/// `files` of SPDX 2 and of syft.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct File {
    file_name: String,
    checksums: Option<Vec<Hash>>,
    location: Location,
    digests: Option<Vec<Hash>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Location {
    path: String,
}

impl Entry for File {
    fn fold(self, contents: &mut Contents) {
        contents.file(&self.file_name, self.checksums.as_deref().unwrap_or_default());
        contents.file(&self.location.path, self.digests.as_deref().unwrap_or_default());
    }
}

/// `artifacts` of syft.
#[derive(Deserialize)]
struct Artifact {
    #[serde(default)]
    purl: Option<String>,
}

impl Entry for Artifact {
    fn fold(self, contents: &mut Contents) {
        contents.package(self.purl.as_deref().filter(|purl| !purl.is_empty()).into_iter());
    }
}

/// `components` of CycloneDX.
#[derive(Deserialize)]
struct Component {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    purl: Option<String>,
    #[serde(default)]
    hashes: Option<Vec<Hash>>,
    #[serde(default)]
    components: Folded<Component>,
}

impl Entry for Component {
    fn fold(self, contents: &mut Contents) {
        let nested = self.components.contents;
        match self.purl.as_deref().filter(|purl| !purl.is_empty()) {
            Some(purl) => contents.package(std::iter::once(purl)),
            None if self.kind == "file" => contents.file(&self.name, self.hashes.as_deref().unwrap_or_default()),
            None if self.kind == "library" => contents.unnamed += 1,
            None => {}
        }
        *contents = std::mem::take(contents).and(nested);
    }
}

/// An element of the graph of SPDX 3.
#[derive(Deserialize)]
struct Element {
    #[serde(default, rename = "type", alias = "@type")]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default, rename = "software_packageUrl")]
    package_url: Option<String>,
    #[serde(default, rename = "externalIdentifier")]
    identifiers: Option<Vec<Linked<ExternalIdentifier>>>,
    #[serde(default, rename = "verifiedUsing")]
    hashes: Option<Vec<Linked<Hash>>>,
}

/// Something that stands in its place, or of which only the name does.
#[derive(Deserialize)]
#[serde(untagged)]
enum Linked<T> {
    Here(T),
    Elsewhere(IgnoredAny),
}

impl<T> Linked<T> {
    fn here(self) -> Option<T> {
        match self {
            Self::Here(here) => Some(here),
            Self::Elsewhere(_) => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExternalIdentifier {
    #[serde(default)]
    external_identifier_type: String,
    #[serde(default)]
    identifier: String,
}

impl Entry for Element {
    fn fold(self, contents: &mut Contents) {
        match self.kind.as_str() {
            "software_Package" => {
                let identifiers = self.identifiers.into_iter().flatten().filter_map(Linked::here);
                let identifier = identifiers
                    .filter(|found| found.external_identifier_type == "packageUrl")
                    .map(|found| found.identifier)
                    .next();
                contents.package(self.package_url.or(identifier).iter().map(String::as_str));
            }
            "software_File" => {
                let hashes: Vec<Hash> = self.hashes.into_iter().flatten().filter_map(Linked::here).collect();
                contents.file(&self.name, &hashes);
            }
            _ => {}
        }
    }
}
