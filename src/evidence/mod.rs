//! The local cache of signatures and attestations: an OCI image layout.
//!
//! [`import`] and [`pull`] fill it. [`judge`] answers which signatures in it are about given digests and made by trusted
//! keys; it reads nothing but the layout, so it can run in a process that has nothing else.
//!
//! What an image is signed by stands in signed payloads and nowhere else. Everything around them (the index,
//! its annotations, cosign's tags, the `subject` of a manifest) is written by whoever filled the layout and only
//! says where to look first, and what to explain when nothing counts.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use crate::digest::Digest;
use crate::oci::{self, Descriptor, Layout, shorten};
use crate::trust::Key;
use crate::verify::bundle_key::{self, Bundle};
use crate::verify::{Answer, Claim, Fact, Keyring, Problem, Proof, Unverified, simple_signing};

mod content;
mod import;
mod pull;
mod source;
#[cfg(test)]
mod tests;

pub use content::MAX_STATEMENT;
pub use import::{ImportError, Item, Report, SkipReason, Skipped, import};
pub use pull::{Fault, Obstacle, Progress, Pull, PullError, Pulled, PulledImage, pull};
pub use source::SourceError;

/// Annotation of an entry of the layout's index: the digests that the payloads behind it name, separated by
/// commas. An entry without it is opened and looked at.
pub const SUBJECTS: &str = "dev.assay.evidence.subjects";

/// Annotation of an entry of the layout's index that is no evidence but an image's own manifest or index: the names
/// under which it was pulled, separated by commas.
pub const IMAGE: &str = "dev.assay.evidence.image";

/// Most manifests and indexes that are opened for one question.
pub const MAX_DOCUMENTS: usize = 16_384;
/// Most signatures and attestations that are looked at for one question.
pub const MAX_SIGNATURES: usize = 16_384;
/// Most bytes that are read for one question, not counting the layout's own index.
pub const MAX_BYTES: u64 = 256 << 20;
/// Most bytes of signatures that are kept until those that name their key have been looked at.
pub const MAX_DEFERRED: u64 = 64 << 20;
/// Most facts of one answer.
pub const MAX_FACTS: usize = 256;
/// Most findings that are listed.
pub const MAX_FINDINGS: usize = 32;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Which signatures and attestations in the layout are about one of `subjects` and made by one of `keys`.
///
/// Entries whose annotation names a subject are looked at first, then those whose tag does, then those that
/// have neither, last those whose tag names something else; each group in the order of the index. An index is
/// followed one level.
///
/// Trying every key on a signature is dear, and signatures that name no key are free to forge. So signatures by
/// the key that they name come first, wherever they are; then the rest in rounds, one of each manifest in a
/// round, so that a manifest with many does not keep those of others from being looked at.
///
/// Work is bounded by [`MAX_DOCUMENTS`], [`MAX_SIGNATURES`], [`MAX_BYTES`], [`MAX_DEFERRED`], [`MAX_FACTS`] and
/// the keyring's own limit; running into one is a finding.
#[must_use]
pub fn judge(layout: BorrowedFd<'_>, keys: &[Key], subjects: &[Digest]) -> Answer {
    let (keyring, findings) = Keyring::new(keys);
    let mut judge = Judge {
        layout: Layout::new(layout),
        keyring,
        subjects: subjects.iter().copied().collect(),
        answer: Answer {
            facts: Vec::new(),
            findings,
        },
        omitted: 0,
        bytes: 0,
        opened: HashSet::new(),
        seen: HashSet::new(),
        deferred: Vec::new(),
        deferred_bytes: 0,
        deferred_all: true,
    };
    let end = match judge.layout.index() {
        Ok(entries) if entries.is_empty() => Err(Problem::CacheEmpty),
        Ok(entries) => judge.entries(entries),
        Err(error) if error.is_missing() => Err(Problem::CacheEmpty),
        Err(error) => Err(Problem::Cache(error)),
    };
    // Running into a limit keeps nothing that was read before from being judged.
    let end = judge.deferred().and(end);
    if judge.omitted > 0 {
        judge
            .answer
            .findings
            .push(Problem::Omitted(judge.omitted).finding(None));
    }
    if let Err(problem) = end {
        judge.answer.findings.push(problem.finding(None));
    }
    judge.answer
}

struct Judge<'a> {
    layout: Layout<BorrowedFd<'a>>,
    keyring: Keyring<'a>,
    subjects: HashSet<Digest>,
    answer: Answer,
    omitted: usize,
    bytes: u64,
    opened: HashSet<Digest>,
    /// Signatures that were looked at, by blob and annotations: several manifests may carry the same.
    seen: HashSet<Digest>,
    deferred: Vec<Deferred>,
    deferred_bytes: u64,
    /// False when one had no room.
    deferred_all: bool,
}

/// A signature about one of the subjects that is not by the key that it names.
struct Deferred {
    manifest: Digest,
    /// How many of the same manifest are before it.
    round: usize,
    about: Vec<Digest>,
    unverified: Unverified,
}

/// What the surroundings of a manifest say that it is about.
#[derive(Clone, Copy)]
enum Link {
    /// One of the digests in question.
    Ours(Digest),
    /// Some other digest.
    Other,
    /// Nothing.
    Unknown,
}

/// Running into a limit ends the question; the facts so far stand.
type Bounded = Result<(), Problem>;

impl Judge<'_> {
    fn entries(&mut self, entries: Vec<Descriptor>) -> Bounded {
        let mut ranked: Vec<(u8, Link, Descriptor)> = entries
            .into_iter()
            .filter_map(|entry| {
                let (rank, link) = match (self.annotated(&entry), self.tagged(&entry)) {
                    (Link::Other, _) => return None,
                    (Link::Ours(subject), _) => (0, Link::Ours(subject)),
                    (Link::Unknown, Link::Ours(subject)) => (1, Link::Ours(subject)),
                    (Link::Unknown, Link::Unknown) => (2, Link::Unknown),
                    (Link::Unknown, Link::Other) => (3, Link::Other),
                };
                Some((rank, link, entry))
            })
            .collect();
        ranked.sort_by_key(|(rank, ..)| *rank);
        for (_, link, entry) in &ranked {
            if oci::is_index(&entry.media_type) {
                self.index(entry, *link)?;
            } else if oci::is_manifest(&entry.media_type) {
                self.manifest(entry, *link, false)?;
            }
        }
        Ok(())
    }

    fn index(&mut self, descriptor: &Descriptor, link: Link) -> Bounded {
        if !self.open(descriptor)? {
            return Ok(());
        }
        match self.layout.nested_index(descriptor) {
            Ok(index) => {
                for child in index
                    .manifests
                    .iter()
                    .filter(|child| oci::is_manifest(&child.media_type))
                {
                    self.manifest(child, link, true)?;
                }
            }
            Err(error) => self.finding(descriptor.digest, &Problem::Evidence(error)),
        }
        Ok(())
    }

    fn manifest(&mut self, descriptor: &Descriptor, link: Link, nested: bool) -> Bounded {
        if !self.open(descriptor)? {
            return Ok(());
        }
        let manifest = match self.layout.manifest(descriptor) {
            Ok(manifest) => manifest,
            // An index of several platforms is complete where it comes from; here it need not be.
            Err(error) if nested && error.is_missing() => return Ok(()),
            Err(error) => {
                self.finding(descriptor.digest, &Problem::Evidence(error));
                return Ok(());
            }
        };
        let link = match &manifest.subject {
            Some(subject) if self.subjects.contains(&subject.digest) => Link::Ours(subject.digest),
            Some(_) => Link::Other,
            None => link,
        };
        if let (Link::Ours(_), Some(layer)) = (link, manifest.layers.iter().find(|layer| Kind::of(layer).is_none())) {
            self.finding(
                descriptor.digest,
                &Problem::CarrierUnsupported(shorten(&layer.media_type)),
            );
        }
        for (layer, kind) in manifest
            .layers
            .iter()
            .filter_map(|layer| Some((layer, Kind::of(layer)?)))
        {
            self.signature(descriptor, link, layer, kind)?;
        }
        Ok(())
    }

    fn signature(&mut self, manifest: &Descriptor, link: Link, layer: &Descriptor, kind: Kind) -> Bounded {
        if !self.seen.insert(identity(layer)) {
            return Ok(());
        }
        if self.seen.len() > MAX_SIGNATURES {
            return Err(Problem::WorkLimit("signatures"));
        }
        self.spend(layer)?;
        let unverified = self
            .layout
            .blob(layer, kind.limit())
            .map_err(Problem::Evidence)
            .and_then(|bytes| match kind {
                Kind::Bundle => Bundle::parse(&bytes)?.unverified(),
                Kind::SimpleSigning => simple_signing::parse(layer, bytes),
            });
        let unverified = match unverified {
            Ok(unverified) => unverified,
            Err(problem) => {
                if !matches!(link, Link::Other) {
                    self.finding(manifest.digest, &problem);
                }
                return Ok(());
            }
        };
        let about: Vec<Digest> = unverified
            .subjects()
            .iter()
            .copied()
            .filter(|subject| self.subjects.contains(subject))
            .collect();
        if about.is_empty() {
            if let (Link::Ours(attached), Some(&signed)) = (link, unverified.subjects().first()) {
                self.finding(manifest.digest, &Problem::SubjectMismatch { attached, signed });
            }
            return Ok(());
        }
        match self.keyring.named_signer(&unverified) {
            Ok(Some(key)) => self.facts(manifest.digest, &unverified, key, &about),
            Ok(None) => {
                self.defer(manifest.digest, layer, about, unverified);
                Ok(())
            }
            Err(problem) => {
                self.finding(manifest.digest, &problem);
                Ok(())
            }
        }
    }

    fn defer(&mut self, manifest: Digest, layer: &Descriptor, about: Vec<Digest>, unverified: Unverified) {
        let annotations: usize = layer.annotations.values().map(String::len).sum();
        let bytes = layer.size.saturating_add(annotations as u64);
        if bytes > MAX_DEFERRED - self.deferred_bytes {
            self.deferred_all = false;
            return;
        }
        self.deferred_bytes += bytes;
        let round = match self.deferred.last() {
            Some(last) if last.manifest == manifest => last.round + 1,
            _ => 0,
        };
        self.deferred.push(Deferred {
            manifest,
            round,
            about,
            unverified,
        });
    }

    /// Tries all keys on the signatures that are not by the key that they name.
    fn deferred(&mut self) -> Bounded {
        let mut deferred = std::mem::take(&mut self.deferred);
        deferred.sort_by_key(|deferred| deferred.round);
        for Deferred {
            manifest,
            about,
            unverified,
            ..
        } in deferred
        {
            match self.keyring.unnamed_signer(&unverified) {
                Ok(key) => self.facts(manifest, &unverified, key, &about)?,
                Err(problem @ Problem::WorkLimit(_)) => return Err(problem),
                Err(problem) => self.finding(manifest, &problem),
            }
        }
        if self.deferred_all {
            Ok(())
        } else {
            Err(Problem::WorkLimit("bytes"))
        }
    }

    fn facts(&mut self, evidence: Digest, unverified: &Unverified, key: &Key, about: &[Digest]) -> Bounded {
        for &subject in about {
            self.fact(Fact {
                evidence,
                carrier: unverified.carrier(),
                subject,
                claim: unverified.claim().clone(),
                proof: Proof::by_key(&key.id),
            })?;
        }
        Ok(())
    }

    /// Counts a document that is about to be read; false when it was read before.
    fn open(&mut self, descriptor: &Descriptor) -> Result<bool, Problem> {
        if !self.opened.insert(descriptor.digest) {
            return Ok(false);
        }
        if self.opened.len() > MAX_DOCUMENTS {
            return Err(Problem::WorkLimit("manifests"));
        }
        self.spend(descriptor)?;
        Ok(true)
    }

    fn spend(&mut self, descriptor: &Descriptor) -> Bounded {
        self.bytes = self.bytes.saturating_add(descriptor.size);
        if self.bytes > MAX_BYTES {
            Err(Problem::WorkLimit("bytes"))
        } else {
            Ok(())
        }
    }

    /// Keeps a fact. That a key signs an image is kept once: copies of a signature are free to whoever can write
    /// to the registry, and say nothing new.
    fn fact(&mut self, fact: Fact) -> Bounded {
        let says_the_same = |known: &Fact| {
            (known.subject, &known.proof.signer, &known.claim) == (fact.subject, &fact.proof.signer, &fact.claim)
        };
        if fact.claim == Claim::ImageSignature && self.answer.facts.iter().any(says_the_same) {
            return Ok(());
        }
        if self.answer.facts.len() == MAX_FACTS {
            return Err(Problem::WorkLimit("attestations"));
        }
        self.answer.facts.push(fact);
        Ok(())
    }

    fn finding(&mut self, evidence: Digest, problem: &Problem) {
        if self.answer.findings.len() < MAX_FINDINGS {
            self.answer.findings.push(problem.finding(Some(evidence)));
        } else {
            self.omitted += 1;
        }
    }

    fn annotated(&self, entry: &Descriptor) -> Link {
        match entry.annotations.get(SUBJECTS) {
            None => Link::Unknown,
            Some(list) => list
                .split(',')
                .filter_map(|digest| digest.parse().ok())
                .find(|digest| self.subjects.contains(digest))
                .map_or(Link::Other, Link::Ours),
        }
    }

    fn tagged(&self, entry: &Descriptor) -> Link {
        match entry.annotations.get(REF_NAME).and_then(|tag| tagged_digest(tag)) {
            None => Link::Unknown,
            Some(digest) if self.subjects.contains(&digest) => Link::Ours(digest),
            Some(_) => Link::Other,
        }
    }
}

/// The digest in a tag by which cosign and the referrers tag schema attach things: `sha256-<hex>`, and more
/// after a dot.
fn tagged_digest(tag: &str) -> Option<Digest> {
    let hex = tag.strip_prefix("sha256-")?;
    let hex = hex.split_once('.').map_or(hex, |(hex, _)| hex);
    format!("sha256:{hex}").parse().ok()
}

/// Layers that hold signatures.
#[derive(Clone, Copy)]
enum Kind {
    Bundle,
    SimpleSigning,
}

impl Kind {
    fn of(layer: &Descriptor) -> Option<Self> {
        if layer.media_type == simple_signing::MEDIA_TYPE {
            Some(Self::SimpleSigning)
        } else if layer.media_type.starts_with(bundle_key::MEDIA_TYPE_PREFIX) {
            Some(Self::Bundle)
        } else {
            None
        }
    }

    fn limit(self) -> u64 {
        match self {
            Self::Bundle => bundle_key::MAX_BUNDLE,
            Self::SimpleSigning => simple_signing::MAX_PAYLOAD,
        }
    }
}

/// What makes two layers the same signature: blob, type and annotations.
fn identity(layer: &Descriptor) -> Digest {
    let mut text = format!("{} {}", layer.digest, layer.media_type);
    for (name, value) in &layer.annotations {
        text.push_str(&format!(" {}:{name} {}:{value}", name.len(), value.len()));
    }
    Digest::of(text.as_bytes())
}
