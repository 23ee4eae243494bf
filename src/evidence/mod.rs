//! The local cache of signatures and attestations: an OCI image layout.
//!
//! [`import`] and [`pull`] fill it. [`judge`] answers which signatures in it are about given digests and made by trusted
//! keys; it reads nothing but the layout, so it can run in a process that has nothing else.
//!
//! What an image is signed by stands in signed payloads and nowhere else. Everything around them (the index,
//! its annotations, cosign's tags, the `subject` of a manifest) is written by whoever filled the layout and only
//! says where to look first, and what to explain when nothing counts.

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;

use crate::attest::{COSIGN_SIGN, Condition, Details, Predicate};
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Layout, shorten};
use crate::trust::Key;
use crate::verify::bundle::{self, Bundle};
use crate::verify::certificate::Leaf;
use crate::verify::{
    Answer, By, Carrier, Claim, Fact, Keyring, NotationStore, Problem, Proof, Signer, TrustedRoot, Unverified, Verify,
    attestation, legacy, notation,
};

mod chain;
mod content;
mod export;
mod gc;
mod import;
mod inventory;
mod predicate;
mod pull;
mod question;
#[cfg(test)]
mod slsa_verifier;
mod source;
mod subjects;
#[cfg(test)]
mod tests;

pub use chain::MAX_ATTESTATIONS;
pub use content::{Look, MAX_STATEMENT};
pub use export::{ExportError, Exported, export};
pub use gc::{Cleared, GcError, Unneeded, gc};
pub use import::{ImportError, Item, Report, SkipReason, Skipped, import};
pub use inventory::{Inventory, KnownImage, Piece, Wanted, inventory};
pub use predicate::{MAX_PREDICATE, NoPredicate, is_sbom, predicate};
pub use pull::{Fault, Obstacle, Progress, Pull, PullError, Pulled, PulledImage, pull};
pub use question::{Certifier, Denied, DeniedEntry, Question};
pub(crate) use source::Source;
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
pub const MAX_BYTES: u64 = 64 << 20;
/// Most bytes of memory for signatures that are kept until those that name their key have been looked at.
pub const MAX_DEFERRED: u64 = 20 << 20;
/// Most work for one question that goes into certificates, log entries and timestamps, in units of about a
/// signature check.
pub const MAX_WORK: usize = 1024;
/// Most of that for the signatures of one manifest, so that one with many leaves something to the others.
pub const MAX_WORK_OF_MANIFEST: usize = 128;
/// What a signature of the Notary Project costs of that: its chain, its timestamp's, and revocation lists.
const NOTATION_WORK: usize = 16;
/// What a signature with a certificate costs of that at least: itself, and what says when it was made.
const CERTIFICATE_WORK: usize = 2;
/// Most facts of one answer.
pub const MAX_FACTS: usize = 256;
/// Most findings that are listed.
pub const MAX_FINDINGS: usize = 32;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Which signatures and attestations in the layout are about one of the subjects and made by someone who may count.
///
/// Entries whose annotation names a subject are looked at first, then those whose tag does, then those that
/// have neither, last those whose tag names something else; each group in the order of the index. An index is
/// followed one level.
///
/// Trying every key on a signature is dear, and signatures that name no key are free to forge. So signatures by
/// the key that they name come first, wherever they are; then the rest in rounds, one of each manifest in a
/// round, so that a manifest with many does not keep those of others from being looked at. Certificates, log entries
/// and timestamps are dear as well: they are verified in the order above, certificates only of signers whom
/// policy names, and of one manifest no more than [`MAX_WORK_OF_MANIFEST`] allows.
///
/// Statements that carry no signature count by a signature of the manifest that they are in, or, where the question
/// says so, of an index that lists it: signatures about such manifests are looked for after those about the image, in
/// the same way.
///
/// Work is bounded by [`MAX_DOCUMENTS`], [`MAX_SIGNATURES`], [`MAX_BYTES`], [`MAX_DEFERRED`], [`MAX_WORK`],
/// [`MAX_FACTS`], [`MAX_ATTESTATIONS`] and the keyring's own limit; running into one is a finding.
#[must_use]
pub fn judge(layout: BorrowedFd<'_>, question: &Question) -> Answer {
    let (keyring, mut findings) = Keyring::new(&question.keys);
    let mut roots = Vec::new();
    for root in &question.roots {
        match TrustedRoot::new(root) {
            Ok((root, left_out)) => {
                findings.extend(left_out.into_iter().map(|left_out| {
                    let root = root.id().to_owned();
                    Problem::RootEntry { root, left_out }.finding(None)
                }));
                roots.push(root);
            }
            Err(problem) => findings.push(problem.finding(None)),
        }
    }
    let mut stores = Vec::new();
    for store in &question.notation {
        match NotationStore::new(store) {
            Ok(store) => stores.push(store),
            Err(problem) => findings.push(problem.finding(None)),
        }
    }
    let mut judge = Judge {
        fd: layout,
        layout: Layout::new(layout),
        stage: Stage::Image,
        keyring,
        roots,
        stores,
        question,
        subjects: question.subjects.iter().copied().collect(),
        answer: Answer {
            findings,
            ..Answer::default()
        },
        omitted: 0,
        bytes: 0,
        documents: 0,
        signatures: 0,
        opened: HashSet::new(),
        seen: HashSet::new(),
        deferred: Vec::new(),
        deferred_bytes: 0,
        deferred_all: true,
        work: Work::default(),
        attestations: Vec::new(),
        misplaced: Vec::new(),
        sizes: HashMap::new(),
    };
    let end = match subjects::listed(layout, question.subjects.iter()) {
        Ok(listed) if listed.empty => Err(Problem::CacheEmpty),
        Ok(listed) => judge.entries(listed.entries),
        Err(error) if error.is_missing() => Err(Problem::CacheEmpty),
        Err(error) => Err(Problem::Cache(error)),
    };
    // Running into a limit keeps nothing that was read before from being judged.
    let end = judge.deferred().and(end);
    let end = judge.chains().and(end);
    let end = end.and(judge.work.end());
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

/// What was spent on certificates, log entries and timestamps.
#[derive(Debug, Default)]
struct Work {
    spent: usize,
    manifest: Option<Digest>,
    spent_on_manifest: usize,
    refused: bool,
}

impl Work {
    /// Whether there is room for this much on a signature of this manifest.
    fn spend(&mut self, manifest: Digest, work: usize) -> bool {
        if self.manifest != Some(manifest) {
            self.manifest = Some(manifest);
            self.spent_on_manifest = 0;
        }
        let (all, here) = (
            self.spent.saturating_add(work),
            self.spent_on_manifest.saturating_add(work),
        );
        if all > MAX_WORK || here > MAX_WORK_OF_MANIFEST {
            self.refused = true;
            return false;
        }
        (self.spent, self.spent_on_manifest) = (all, here);
        true
    }

    /// Whether there is no room for this much on anything any more.
    fn is_spent(&self, work: usize) -> bool {
        self.spent.saturating_add(work) > MAX_WORK
    }

    fn end(&self) -> Bounded {
        if self.refused {
            Err(Problem::WorkLimit("certificates, log entries and timestamps"))
        } else {
            Ok(())
        }
    }
}

/// Names of the files of the layout that say which evidence there is about `subjects`. While they and the evidence
/// itself stay as they are, or as absent, so does the answer of [`judge`].
#[must_use]
pub fn rests_on(layout: BorrowedFd<'_>, subjects: &[Digest]) -> Vec<String> {
    subjects::rests_on(layout, subjects)
}

struct Judge<'a> {
    fd: BorrowedFd<'a>,
    layout: Layout<BorrowedFd<'a>>,
    stage: Stage,
    keyring: Keyring<'a>,
    roots: Vec<TrustedRoot>,
    stores: Vec<NotationStore>,
    question: &'a Question,
    subjects: HashSet<Digest>,
    answer: Answer,
    omitted: usize,
    bytes: u64,
    documents: usize,
    signatures: usize,
    /// Documents that were read, by what was said of their size too: one that lies must hide none that does not.
    opened: HashSet<(Digest, u64)>,
    /// Signatures that were looked at, by blob and annotations: several manifests may carry the same.
    seen: HashSet<Digest>,
    deferred: Vec<Deferred>,
    deferred_bytes: u64,
    /// False when one had no room.
    deferred_all: bool,
    work: Work,
    attestations: Vec<chain::Attestation>,
    /// Signatures of the image that are attached to something else.
    misplaced: Vec<chain::Misplaced>,
    /// Sizes of manifests and indexes of the image.
    sizes: HashMap<Digest, u64>,
}

/// What signatures are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Those about the image.
    Image,
    /// Those about attestation manifests.
    Attestations,
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
    /// Some other digest; which, where the manifest itself says so.
    Other(Option<Digest>),
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
                    (Link::Other(_), _) => return None,
                    (Link::Ours(subject), _) => (0, Link::Ours(subject)),
                    (Link::Unknown, Link::Ours(subject)) => (1, Link::Ours(subject)),
                    (Link::Unknown, Link::Unknown) => (2, Link::Unknown),
                    (Link::Unknown, other @ Link::Other(_)) => (3, other),
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
                    let link = match attestation::attested(child) {
                        Some(image) if self.subjects.contains(&image) => Link::Ours(image),
                        Some(_) => Link::Other(None),
                        None => link,
                    };
                    self.manifest(child, link, true)?;
                }
            }
            Err(error) if self.stage == Stage::Image => self.finding(descriptor.digest, &Problem::Evidence(error)),
            Err(_) => {}
        }
        Ok(())
    }

    fn manifest(&mut self, descriptor: &Descriptor, hint: Link, nested: bool) -> Bounded {
        if !self.open(descriptor)? {
            return Ok(());
        }
        let manifest = match self.layout.manifest(descriptor) {
            Ok(manifest) => manifest,
            // An index of several platforms is complete where it comes from; here it need not be.
            Err(error) if nested && error.is_missing() => return Ok(()),
            // It was told of before.
            Err(_) if self.stage == Stage::Attestations && !matches!(hint, Link::Ours(_)) => return Ok(()),
            Err(error) => {
                self.finding(descriptor.digest, &Problem::Evidence(error));
                return Ok(());
            }
        };
        let link = match &manifest.subject {
            Some(subject) if self.subjects.contains(&subject.digest) => Link::Ours(subject.digest),
            Some(subject) => Link::Other(Some(subject.digest)),
            None => hint,
        };
        match self.stage {
            Stage::Image => {
                self.note(descriptor, hint, &manifest)?;
                let is_unknown =
                    |layer: &&Descriptor| Kind::of(layer).is_none() && layer.media_type != attestation::STATEMENT;
                if let (Link::Ours(_), Some(layer)) = (link, manifest.layers.iter().find(is_unknown)) {
                    let problem = Problem::CarrierUnsupported(shorten(&layer.media_type));
                    self.finding(descriptor.digest, &problem);
                }
            }
            Stage::Attestations => {
                let has_signatures = manifest.layers.iter().any(|layer| Kind::of(layer).is_some());
                if !has_signatures || !self.hangs_right(descriptor.digest, hint, &manifest) {
                    return Ok(());
                }
            }
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
        self.signatures += 1;
        if self.signatures > MAX_SIGNATURES {
            return Err(Problem::WorkLimit("signatures"));
        }
        if self.is_in_vain(layer, kind) {
            return Ok(());
        }
        self.spend(layer, kind.limit())?;
        let blob = self.layout.blob(layer, kind.limit()).map_err(Problem::Evidence);
        if let (Kind::Bundle, Ok(bytes)) = (kind, &blob)
            && self.work.is_spent(CERTIFICATE_WORK)
            && bundle::is_certified(bytes)
        {
            self.work.refused = true;
            return Ok(());
        }
        let unverified = blob.and_then(|bytes| match kind {
            Kind::Bundle => Bundle::parse(bytes)?.unverified().map(Either::Signature),
            Kind::SimpleSigning => legacy::simple_signing(layer, bytes).map(Either::Signature),
            Kind::Envelope => legacy::envelope(layer, &bytes).map(Either::Signature),
            Kind::Notation => Ok(Either::Notation(bytes)),
        });
        let unverified = match unverified {
            Ok(Either::Signature(unverified)) => unverified,
            // Rules accept no attestation by such a signature.
            Ok(Either::Notation(_)) if self.stage == Stage::Attestations => return Ok(()),
            Ok(Either::Notation(envelope)) => {
                return self.notation(manifest.digest, link, &envelope, &layer.media_type);
            }
            Err(problem) => {
                if let Link::Ours(attached) = link {
                    self.claim(attached);
                }
                if !matches!(link, Link::Other(_)) {
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
                let problem = match self.stage {
                    Stage::Image => Problem::SubjectMismatch { attached, signed },
                    Stage::Attestations => Problem::Attestation(attestation::Fault::Signature { attached, signed }),
                };
                self.claim(attached);
                self.finding(manifest.digest, &problem);
            }
            return Ok(());
        }
        match (self.stage, link) {
            (Stage::Image, Link::Other(Some(attached))) if self.misplaced.len() < MAX_FINDINGS => {
                let signed = about.first().copied().unwrap_or(attached);
                self.misplaced.push(chain::Misplaced {
                    manifest: manifest.digest,
                    attached,
                    signed,
                });
            }
            // That someone attested an attestation signs nothing that is in it.
            (Stage::Attestations, _) if *unverified.claim() != Claim::ImageSignature => return Ok(()),
            (Stage::Attestations, _) => about.iter().for_each(|signed| self.claim(*signed)),
            (Stage::Image, _) => {}
        }
        if let Some(leaf) = unverified.certificate() {
            return self.certified(manifest.digest, &unverified, leaf, &about);
        }
        // Before any key is tried: what no key is trusted for needs no look at who signed it.
        if let Err(problem) = unverified.claim().needs() {
            self.finding(manifest.digest, &problem);
            return Ok(());
        }
        match self.keyring.named_signer(&unverified) {
            Some(key) => self.signed(manifest.digest, &unverified, key, &about),
            None => {
                self.defer(manifest.digest, about, unverified);
                Ok(())
            }
        }
    }

    /// Whether there is no room left to verify what this layer certainly holds, so that it need not even be read. Ten
    /// thousand forged signatures must not take longer than those that are verified.
    fn is_in_vain(&mut self, layer: &Descriptor, kind: Kind) -> bool {
        let least = match kind {
            Kind::Notation if !self.stores.is_empty() => NOTATION_WORK,
            Kind::SimpleSigning | Kind::Envelope if legacy::is_certified(layer) => CERTIFICATE_WORK,
            Kind::Bundle | Kind::Notation | Kind::SimpleSigning | Kind::Envelope => return false,
        };
        let in_vain = self.work.is_spent(least);
        self.work.refused |= in_vain;
        in_vain
    }

    /// Verifies a signature with a certificate under each root that could have issued it.
    fn certified(&mut self, manifest: Digest, unverified: &Unverified, leaf: &Leaf, about: &[Digest]) -> Bounded {
        let roots: Vec<usize> = (0..self.roots.len())
            .filter(|&at| self.roots.get(at).is_some_and(|root| root.may_have_issued(leaf)))
            .collect();
        if roots.is_empty() {
            self.finding(manifest, &Problem::RootUnknown);
            return Ok(());
        }
        // A log entry that the deny list names is seen whoever certifies the signer.
        let denied = &self.question.denied;
        let is_denied = !denied.log.is_empty()
            && unverified
                .entries()
                .iter()
                .any(|(log, index)| denied.lists(log, *index));
        let wanted = |root: &TrustedRoot| is_denied || self.question.wants(root.id(), leaf.issuer(), leaf.identity());
        let roots: Vec<usize> = roots
            .into_iter()
            .filter(|&at| self.roots.get(at).is_some_and(wanted))
            .collect();
        if roots.is_empty() {
            let problem = Problem::SignerUnlisted {
                identity: shorten(&leaf.identity().to_string()),
                issuer: shorten(leaf.issuer()),
            };
            self.finding(manifest, &problem);
            return Ok(());
        }
        let mut proved = Vec::new();
        for at in roots {
            for &subject in about {
                if !self.work.spend(manifest, unverified.work()) {
                    return self.facts(manifest, unverified, proved);
                }
                let Some(root) = self.roots.get(at) else {
                    continue;
                };
                match root.verify(unverified, By::Certificate, subject, self.question.now) {
                    Ok(proof) => proved.push((subject, proof)),
                    Err(problem) => self.finding(manifest, &problem),
                }
            }
        }
        self.facts(manifest, unverified, proved)
    }

    /// Judges a signature by `key`, which is known to be the key's.
    fn signed(&mut self, manifest: Digest, unverified: &Unverified, key: &Key, about: &[Digest]) -> Bounded {
        let proof = if unverified.is_witnessed() {
            match self.witnessed(manifest, unverified, key, about) {
                Some(proof) => proof,
                None => return Ok(()),
            }
        } else {
            Proof::by_key(&key.id)
        };
        if self.stage == Stage::Attestations {
            // Whether it counts depends on what it is about in the end.
            let proved = about.iter().map(|signed| (*signed, proof.clone())).collect();
            return self.facts(manifest, unverified, proved);
        }
        let needed = self.question.needs(unverified.claim());
        match needed.and_then(|needed| self.keyring.standing(key, needed, &proof.times, about)) {
            Ok((key, subjects)) => {
                let proof = Proof {
                    signer: Signer::Key(key.id.clone()),
                    ..proof
                };
                let proved = subjects.into_iter().map(|subject| (subject, proof.clone())).collect();
                self.facts(manifest, unverified, proved)
            }
            Err(problem) => {
                self.finding(manifest, &problem);
                Ok(())
            }
        }
    }

    /// Keeps what was proved about each subject, with what the predicate says.
    fn facts(&mut self, evidence: Digest, verified: &Unverified, proved: Vec<(Digest, Proof)>) -> Bounded {
        if proved.is_empty() {
            return Ok(());
        }
        if self.stage == Stage::Attestations {
            for (signed, proof) in proved {
                self.signature_of(signed, evidence, verified.carrier(), proof);
            }
            return Ok(());
        }
        let Some((details, held)) = self.read(evidence, verified.claim(), verified.predicate()) else {
            return Ok(());
        };
        for (subject, proof) in proved {
            self.fact(Fact {
                evidence,
                carrier: verified.carrier(),
                chain: None,
                subject,
                claim: verified.claim().clone(),
                proof,
                details: details.clone().map(Box::new),
                held: held.clone(),
            })?;
        }
        Ok(())
    }

    /// Verifies a signature of the Notary Project under each trust store.
    fn notation(&mut self, manifest: Digest, link: Link, envelope: &[u8], media_type: &str) -> Bounded {
        if self.stores.is_empty() {
            self.finding(manifest, &Problem::StoreMissing);
            return Ok(());
        }
        for at in 0..self.stores.len() {
            if !self.work.spend(manifest, NOTATION_WORK) {
                return Ok(());
            }
            let Some(store) = self.stores.get(at) else {
                continue;
            };
            match store.verify(envelope, media_type, self.question.now) {
                Ok((target, proof)) if self.subjects.contains(&target.digest) => self.fact(Fact {
                    evidence: manifest,
                    carrier: Carrier::Notation,
                    chain: None,
                    subject: target.digest,
                    claim: Claim::ImageSignature,
                    proof,
                    details: None,
                    held: Vec::new(),
                })?,
                Ok((target, _)) => {
                    if let Link::Ours(attached) = link {
                        let signed = target.digest;
                        self.finding(manifest, &Problem::SubjectMismatch { attached, signed });
                    }
                    return Ok(());
                }
                Err(problem) => self.finding(manifest, &problem),
            }
        }
        Ok(())
    }

    /// What the log entries and timestamps of a signature by `key` prove, under the first root that accepts them.
    /// They are about the signature, not about one of its subjects.
    fn witnessed(&mut self, manifest: Digest, unverified: &Unverified, key: &Key, about: &[Digest]) -> Option<Proof> {
        let subject = *about.first()?;
        let mut refusal = Problem::RootMissing;
        for root in &self.roots {
            if !self.work.spend(manifest, unverified.work()) {
                return None;
            }
            match root.verify(unverified, By::Key(key), subject, self.question.now) {
                Ok(proof) => return Some(proof),
                // Which root would have had to be refreshed says more than that another does not list the log.
                Err(_) if matches!(refusal, Problem::RootTooOld { .. }) => {}
                Err(problem) => refusal = problem,
            }
        }
        self.finding(manifest, &refusal);
        None
    }

    fn defer(&mut self, manifest: Digest, about: Vec<Digest>, unverified: Unverified) {
        let bytes = unverified.weight();
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
                Ok(key) => self.signed(manifest, &unverified, key, &about)?,
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

    /// What the predicate of something that verified says, and which conditions hold for it. One that is not what its
    /// type says is no evidence at all.
    fn read(&mut self, evidence: Digest, claim: &Claim, predicate: &[u8]) -> Option<(Option<Details>, Vec<usize>)> {
        let predicate_type = match claim {
            Claim::ImageSignature => COSIGN_SIGN,
            Claim::Attestation(predicate_type) => predicate_type,
        };
        let details = match Details::parse(predicate_type, predicate) {
            Ok(details) => details,
            Err(error) => {
                self.finding(evidence, &Problem::Predicate(error));
                return None;
            }
        };
        let family = claim.family();
        let about: Vec<(usize, &Condition)> = self
            .question
            .conditions
            .iter()
            .enumerate()
            .filter(|(_, condition)| Some(condition.about) == family)
            .collect();
        if about.is_empty() {
            return Some((details, Vec::new()));
        }
        let predicate = Predicate::parse(predicate_type, predicate);
        let mut held = Vec::new();
        for (number, condition) in about {
            let cel = shorten(&condition.cel);
            let answer = predicate
                .as_ref()
                .map_err(Clone::clone)
                .and_then(|predicate| condition.holds(predicate));
            match answer {
                Ok(true) => held.push(number),
                Ok(false) => self.finding(evidence, &Problem::ConditionFalse(cel)),
                Err(error) => self.finding(evidence, &Problem::Condition { cel, error }),
            }
        }
        Some((details, held))
    }

    /// Counts a document that is about to be read; false when it was read before.
    fn open(&mut self, descriptor: &Descriptor) -> Result<bool, Problem> {
        if !self.opened.insert((descriptor.digest, descriptor.size)) {
            return Ok(false);
        }
        self.documents += 1;
        if self.documents > MAX_DOCUMENTS {
            return Err(Problem::WorkLimit("manifests"));
        }
        self.spend(descriptor, oci::MAX_DOCUMENT)?;
        Ok(true)
    }

    /// Counts what is about to be read. What announces more than its limit is not read at all.
    fn spend(&mut self, descriptor: &Descriptor, limit: u64) -> Bounded {
        let is_read = descriptor.size <= limit;
        self.spend_bytes(if is_read { descriptor.size } else { 0 })
    }

    fn spend_bytes(&mut self, bytes: u64) -> Bounded {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES {
            Err(Problem::WorkLimit("bytes"))
        } else {
            Ok(())
        }
    }

    /// Keeps a fact. That someone signs an image is kept once: copies of a signature are free to whoever can write
    /// to the registry, and say nothing new.
    fn fact(&mut self, fact: Fact) -> Bounded {
        let says_the_same = |known: &Fact| {
            (known.subject, &known.claim, &known.held) == (fact.subject, &fact.claim, &fact.held)
                && known.proof.proves(&fact.proof)
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
                .map_or(Link::Other(None), Link::Ours),
        }
    }

    fn tagged(&self, entry: &Descriptor) -> Link {
        match entry.annotations.get(REF_NAME).and_then(|tag| tagged_digest(tag)) {
            None => Link::Unknown,
            Some(digest) if self.subjects.contains(&digest) => Link::Ours(digest),
            Some(_) => Link::Other(None),
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

/// A signature as it was read.
enum Either {
    Signature(Unverified),
    /// An envelope of the Notary Project, which is read as it is verified.
    Notation(Vec<u8>),
}

/// Layers that hold signatures.
#[derive(Clone, Copy)]
enum Kind {
    Bundle,
    SimpleSigning,
    Envelope,
    Notation,
}

impl Kind {
    fn of(layer: &Descriptor) -> Option<Self> {
        if layer.media_type == legacy::SIMPLE_SIGNING {
            Some(Self::SimpleSigning)
        } else if layer.media_type == legacy::ENVELOPE {
            Some(Self::Envelope)
        } else if matches!(layer.media_type.as_str(), notation::JWS | notation::COSE) {
            Some(Self::Notation)
        } else if layer.media_type.starts_with(bundle::MEDIA_TYPE_PREFIX) {
            Some(Self::Bundle)
        } else {
            None
        }
    }

    fn limit(self) -> u64 {
        match self {
            Self::Bundle => bundle::MAX_BUNDLE,
            Self::SimpleSigning => legacy::MAX_SIMPLE_SIGNING,
            Self::Envelope => legacy::MAX_ENVELOPE,
            Self::Notation => notation::MAX_ENVELOPE as u64,
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
