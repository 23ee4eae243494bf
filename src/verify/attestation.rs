//! Attestation manifests: in-toto statements that carry no signature themselves, as BuildKit writes them and as Docker
//! Hardened Images have them.
//!
//! What is signed is the manifest, or an index that lists it. From there every link is a digest and a size: of the
//! statement, which is a layer; of the image, in the manifest's `subject` where it has one; and the statement itself
//! names the image. Such a chain is evidence when each of its links holds; checked here is each link, not the
//! signature that it hangs on.
//!
//! Formats: <https://github.com/moby/buildkit/blob/master/docs/attestations/attestation-storage.md>, and
//! <https://github.com/opencontainers/image-spec/blob/main/manifest.md> for `subject`.

use crate::attest::Statement;
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Index, LayoutError, Manifest, shorten};

/// Media type of a statement without signature.
pub const STATEMENT: &str = "application/vnd.in-toto+json";
/// Largest statement in bytes.
pub const MAX_STATEMENT: u64 = super::bundle::MAX_BUNDLE;

const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";
/// Architecture and operating system of what is for no platform.
const NO_PLATFORM: &str = "unknown";

/// A document as it really is: what its bytes hash to, and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody signed it.
    #[error(
        "it is an attestation that carries no signature, and the evidence cache holds no signature of \
             its manifest that could count"
    )]
    Unsigned,
    /// Its manifest is about something else.
    #[error("its attestation manifest is about {0}, which is not the image")]
    Subject(Digest),
    /// Its manifest is about something that is no image.
    #[error("its attestation manifest is about something of type '{0}', which is no image")]
    SubjectType(String),
    /// A descriptor on the way lies about the size of what it leads to.
    #[error("{what} {digest} has {real} bytes, and {by} says {said}")]
    Size {
        /// What it leads to.
        what: &'static str,
        /// Which of them.
        digest: Digest,
        /// What it has.
        real: u64,
        /// Who lies.
        by: &'static str,
        /// What that says.
        said: u64,
    },
    /// The statement is about something else.
    #[error("its attestation manifest is about {wanted}, and the statement in it about {found}")]
    Statement {
        /// What the manifest is about.
        wanted: Digest,
        /// The first digest that the statement names.
        found: Digest,
    },
    /// The signature is of something else.
    #[error("it is attached to the attestation manifest {attached}, but what it signs is {signed}")]
    Signature {
        /// What the unsigned link names.
        attached: Digest,
        /// The first digest that the signed payload names.
        signed: Digest,
    },
    /// The signature's manifest says that it is about something else than what is signed.
    #[error("it signs the attestation manifest {signed}, and is attached to {attached}")]
    Attached {
        /// What is signed.
        signed: Digest,
        /// What the unsigned link names.
        attached: Digest,
    },
    /// The index does not list it as an attestation.
    #[error("the signed index {0} does not list it as an attestation manifest")]
    Unlisted(Digest),
    /// The index lists it for another image.
    #[error("the signed index {index} lists it as the attestation of {found}, not of {wanted}")]
    Platform {
        /// The index.
        index: Digest,
        /// What it is listed for.
        found: String,
        /// The image.
        wanted: Digest,
    },
    /// A document on the way is not there.
    #[error("the evidence cache lacks {0}, which it is about, so that the size of that cannot be compared")]
    LinkMissing(Digest),
}

impl Fault {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unsigned => "attestation-unsigned",
            Self::Subject(_) | Self::SubjectType(_) => "attestation-subject",
            Self::Size { .. } => "attestation-size",
            Self::Statement { .. } => "attestation-statement",
            Self::Signature { .. } | Self::Attached { .. } => "attestation-signature",
            Self::Unlisted(_) => "attestation-unlisted",
            Self::Platform { .. } => "attestation-platform",
            Self::LinkMissing(_) => "attestation-link-missing",
        }
    }
}

impl Document {
    /// Whether a descriptor with this digest says the right size.
    fn is_sized(self, said: u64, what: &'static str, by: &'static str) -> Result<(), Fault> {
        if said == self.size {
            return Ok(());
        }
        Err(Fault::Size {
            what,
            digest: self.digest,
            real: self.size,
            by,
            said,
        })
    }
}

/// A manifest with statements, read but not verified.
#[derive(Debug, Clone)]
pub struct AttestationManifest {
    document: Document,
    subject: Option<Descriptor>,
    statements: Vec<Descriptor>,
}

impl AttestationManifest {
    /// The manifest that `document` is, as an attestation manifest; `None` when none of its layers is a statement.
    #[must_use]
    pub fn new(document: Document, manifest: &Manifest) -> Option<Self> {
        let statements: Vec<Descriptor> = manifest
            .layers
            .iter()
            .filter(|layer| layer.media_type == STATEMENT)
            .cloned()
            .collect();
        (!statements.is_empty()).then(|| Self {
            document,
            subject: manifest.subject.clone(),
            statements,
        })
    }

    /// The manifest itself.
    #[must_use]
    pub fn document(&self) -> Document {
        self.document
    }

    /// What it says that it is about; older versions of BuildKit do not say it.
    #[must_use]
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// Its statements.
    #[must_use]
    pub fn statements(&self) -> &[Descriptor] {
        &self.statements
    }

    /// That a signature whose own manifest says that it is about `attached` is about this one.
    ///
    /// # Errors
    /// [`Fault::Attached`], [`Fault::Size`].
    pub fn carries(&self, attached: &Descriptor) -> Result<(), Fault> {
        if attached.digest != self.document.digest {
            return Err(Fault::Attached {
                signed: self.document.digest,
                attached: attached.digest,
            });
        }
        self.document
            .is_sized(attached.size, "the attestation manifest", "what is attached to it")
    }

    /// That what it says to be about is `image`.
    ///
    /// # Errors
    /// [`Fault::Subject`], [`Fault::SubjectType`], [`Fault::Size`].
    pub fn is_about(&self, image: Document) -> Result<(), Fault> {
        let Some(subject) = &self.subject else {
            return Ok(());
        };
        if subject.digest != image.digest {
            return Err(Fault::Subject(subject.digest));
        }
        if !oci::is_manifest(&subject.media_type) && !oci::is_index(&subject.media_type) {
            return Err(Fault::SubjectType(shorten(&subject.media_type)));
        }
        image.is_sized(subject.size, "the image", "the attestation manifest about it")
    }

    /// Those of the digests that `statement`, one of its own, names of which `is_asked` holds. Where the manifest says
    /// what it is about, the statement has to be about that.
    ///
    /// # Errors
    /// [`Fault::Statement`].
    pub fn reached(&self, statement: &Statement, is_asked: impl Fn(&Digest) -> bool) -> Result<Vec<Digest>, Fault> {
        let Some(subject) = &self.subject else {
            return Ok(statement.subjects.iter().copied().filter(is_asked).collect());
        };
        let wanted = subject.digest;
        match statement.subjects.first() {
            _ if statement.subjects.contains(&wanted) => Ok(vec![wanted]),
            Some(&found) => Err(Fault::Statement { wanted, found }),
            None => Ok(Vec::new()),
        }
    }

    /// That `index`, which has the digest `signed`, lists both `image` and this manifest as its attestation.
    ///
    /// # Errors
    /// [`Fault::Unlisted`], [`Fault::Platform`], [`Fault::Size`].
    pub fn is_listed(&self, signed: Digest, index: &Index, image: Document) -> Result<(), Fault> {
        let entry = |digest: Digest| index.manifests.iter().find(|entry| entry.digest == digest);
        let own = entry(self.document.digest).filter(|entry| is_attestation(entry));
        let own = own.ok_or(Fault::Unlisted(signed))?;
        let found = own.annotations.get(REFERENCE_DIGEST).map_or("", String::as_str);
        let listed = entry(image.digest).filter(|_| found.parse() == Ok(image.digest));
        let listed = listed.ok_or_else(|| Fault::Platform {
            index: signed,
            found: if found.is_empty() {
                "nothing".to_owned()
            } else {
                shorten(found)
            },
            wanted: image.digest,
        })?;
        let by = "the signed index";
        self.document.is_sized(own.size, "the attestation manifest", by)?;
        image.is_sized(listed.size, "the image", by)
    }
}

/// Whether an index lists this as an attestation: for no platform, and called so.
#[must_use]
pub fn is_attestation(entry: &Descriptor) -> bool {
    let is_called_so = entry
        .annotations
        .get(REFERENCE_TYPE)
        .is_some_and(|kind| kind == ATTESTATION);
    let is_for_none = entry
        .platform
        .as_ref()
        .is_some_and(|platform| platform.os == NO_PLATFORM && platform.architecture == NO_PLATFORM);
    is_called_so && is_for_none
}

/// What an entry of an index says that it is an attestation of. A hint.
#[must_use]
pub fn attested(entry: &Descriptor) -> Option<Digest> {
    is_attestation(entry)
        .then(|| entry.annotations.get(REFERENCE_DIGEST)?.parse().ok())
        .flatten()
}

/// What kept a statement from being read, where its size is what is wrong.
#[must_use]
pub fn missized(error: &LayoutError) -> Option<Fault> {
    let LayoutError::Size {
        digest,
        expected,
        found,
    } = *error
    else {
        return None;
    };
    Some(Fault::Size {
        what: "the statement",
        digest,
        real: found,
        by: "the attestation manifest",
        said: expected,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn link(name: &str) -> Document {
        Document {
            digest: Digest::of(name.as_bytes()),
            size: name.len() as u64,
        }
    }

    fn descriptor(name: &str) -> Value {
        let Document { digest, size } = link(name);
        json!({"mediaType": oci::MANIFEST, "digest": digest, "size": size})
    }

    fn manifest(more: &Value) -> AttestationManifest {
        let mut document = json!({
            "schemaVersion": 2,
            "config": descriptor("config"),
            "layers": [{"mediaType": STATEMENT, "digest": link("statement").digest, "size": 9}],
        });
        document
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let manifest = Manifest::parse(document.to_string().as_bytes(), oci::MANIFEST).unwrap();
        AttestationManifest::new(link("attestation"), &manifest).unwrap()
    }

    fn entry(change: impl FnOnce(&mut Value)) -> Value {
        let mut entry = descriptor("attestation");
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry["annotations"] = json!({
            REFERENCE_TYPE: ATTESTATION,
            REFERENCE_DIGEST: link("image").digest,
        });
        change(&mut entry);
        entry
    }

    fn index(entries: &[Value]) -> Index {
        let document = json!({"schemaVersion": 2, "manifests": entries});
        Index::parse(document.to_string().as_bytes(), oci::INDEX).unwrap()
    }

    #[test]
    fn every_link_of_an_index_is_compared() {
        let code = |entries: &[Value]| {
            let listed = manifest(&json!({})).is_listed(link("index").digest, &index(entries), link("image"));
            listed.err().map_or("holds", |fault| fault.code())
        };
        let image = || descriptor("image");
        assert_eq!(code(&[image(), entry(|_| {})]), "holds");
        let mut larger = image();
        larger["size"] = 6.into();
        assert_eq!(code(&[larger, entry(|_| {})]), "attestation-size");
        assert_eq!(code(&[entry(|_| {})]), "attestation-platform");
        assert_eq!(code(&[image()]), "attestation-unlisted");
        type Change = fn(&mut Value);
        let changes: [(Change, &str); 7] = [
            (|entry| entry["size"] = 12.into(), "attestation-size"),
            (|entry| entry["platform"]["os"] = "linux".into(), "attestation-unlisted"),
            (
                |entry| drop(entry.as_object_mut().unwrap().remove("platform")),
                "attestation-unlisted",
            ),
            (
                |entry| entry["annotations"][REFERENCE_TYPE] = "image".into(),
                "attestation-unlisted",
            ),
            (
                |entry| entry["digest"] = json!(link("other").digest),
                "attestation-unlisted",
            ),
            (
                |entry| entry["annotations"][REFERENCE_DIGEST] = json!(link("other").digest),
                "attestation-platform",
            ),
            (
                |entry| drop(entry["annotations"].as_object_mut().unwrap().remove(REFERENCE_DIGEST)),
                "attestation-platform",
            ),
        ];
        for (number, (change, wanted)) in changes.into_iter().enumerate() {
            assert_eq!(code(&[image(), entry(change)]), wanted, "{number}");
        }
    }

    #[test]
    fn a_subject_is_compared_by_digest_type_and_size() {
        let about = |change: fn(&mut Value)| {
            let mut subject = descriptor("image");
            change(&mut subject);
            let about = manifest(&json!({"subject": subject})).is_about(link("image"));
            about.err().map_or("holds", |fault| fault.code())
        };
        assert_eq!(about(|_| {}), "holds");
        assert_eq!(about(|subject| subject["size"] = 4.into()), "attestation-size");
        assert_eq!(
            about(|subject| subject["mediaType"] = "text/plain".into()),
            "attestation-subject"
        );
        assert_eq!(
            about(|subject| subject["digest"] = json!(link("other").digest)),
            "attestation-subject"
        );
        assert_eq!(manifest(&json!({})).is_about(link("image")), Ok(()));
    }

    #[test]
    fn a_statement_reaches_only_what_its_manifest_is_about() {
        let statement = |names: &[&str]| Statement {
            subjects: names.iter().map(|name| link(name).digest).collect(),
            predicate_type: "x".to_owned(),
            predicate: &[],
        };
        let all = |_: &Digest| true;
        let bound = manifest(&json!({"subject": descriptor("image")}));
        let image = link("image").digest;
        assert_eq!(bound.reached(&statement(&["other", "image"]), all), Ok(vec![image]));
        let fault = bound.reached(&statement(&["other"]), all).unwrap_err();
        assert_eq!(fault.code(), "attestation-statement");
        let free = manifest(&json!({}));
        let only = |digest: &Digest| *digest == image;
        assert_eq!(free.reached(&statement(&["other", "image"]), only), Ok(vec![image]));
        assert_eq!(free.reached(&statement(&["other"]), only), Ok(Vec::new()));
    }

    #[test]
    fn what_has_no_statement_is_no_attestation_manifest() {
        let layers = json!({"layers": [descriptor("layer")], "schemaVersion": 2, "config": descriptor("config")});
        let manifest = Manifest::parse(layers.to_string().as_bytes(), oci::MANIFEST).unwrap();
        assert!(AttestationManifest::new(link("attestation"), &manifest).is_none());
    }
}
