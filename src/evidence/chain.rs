//! Statements that carry no signature themselves, and who signed them all the same: by the manifest that they are in, or
//! by the index that lists it.
//!
//! First the manifests with statements are noted as they are found among what is about the image. Then the signatures
//! about *those* are looked for, as they are for an image. Only statements that somebody signed this way are read.

use std::collections::{BTreeMap, HashSet};

use super::{Bounded, Judge, Link, MAX_SIGNATURES, Stage, subjects};
use crate::attest::Statement;
use crate::digest::Digest;
use crate::oci::{self, Descriptor, Index, Manifest};
use crate::verify::attestation::{self, AttestationManifest, Document, Fault};
use crate::verify::{Carrier, Chain, Claim, Fact, Problem, Proof, Signer};

/// Most attestation manifests that are looked at for one question.
pub const MAX_ATTESTATIONS: usize = 1024;

/// An attestation manifest about the image, with who signed it.
pub(super) struct Attestation {
    manifest: AttestationManifest,
    /// What its surroundings say that it is about, where that is the image.
    image: Option<Digest>,
    signatures: Vec<Signature>,
    /// Whether there is anything that claims to be a signature of it.
    is_claimed: bool,
}

/// A signature that verified, of an attestation manifest or of an index that lists some.
#[derive(Clone)]
struct Signature {
    /// Manifest that carries it.
    manifest: Digest,
    carrier: Carrier,
    proof: Proof,
}

/// A signed index.
struct Signed {
    digest: Digest,
    /// The index, or why it could not be read.
    index: Result<Index, Fault>,
    signatures: Vec<Signature>,
}

/// A signature that is attached to one thing and signs another.
pub(super) struct Misplaced {
    pub(super) manifest: Digest,
    pub(super) attached: Digest,
    pub(super) signed: Digest,
}

impl Judge<'_> {
    /// Notes a manifest with statements. `hint` is what its surroundings say that it is about.
    pub(super) fn note(&mut self, descriptor: &Descriptor, hint: Link, manifest: &Manifest) -> Bounded {
        let document = Document {
            digest: descriptor.digest,
            size: descriptor.size,
        };
        let Some(found) = AttestationManifest::new(document, manifest) else {
            return Ok(());
        };
        let image = match (found.subject(), hint) {
            (Some(subject), _) if self.subjects.contains(&subject.digest) => Some(subject.digest),
            (Some(subject), Link::Ours(_)) => {
                let fault = Fault::Subject(subject.digest);
                self.finding(descriptor.digest, &Problem::Attestation(fault));
                return Ok(());
            }
            (Some(_), _) | (None, Link::Other(_)) => return Ok(()),
            (None, Link::Ours(image)) => Some(image),
            (None, Link::Unknown) => None,
        };
        if self.attestations.len() == MAX_ATTESTATIONS {
            return Err(Problem::WorkLimit("attestation manifests"));
        }
        self.attestations.push(Attestation {
            manifest: found,
            image,
            signatures: Vec::new(),
            is_claimed: false,
        });
        Ok(())
    }

    /// Looks for the signatures of the attestation manifests that were noted, and reads what is signed.
    pub(super) fn chains(&mut self) -> Bounded {
        let noted: Vec<Digest> = self
            .attestations
            .iter()
            .map(|one| one.manifest.document().digest)
            .collect();
        if noted.is_empty() {
            return Ok(());
        }
        self.answer.attestations.clone_from(&noted);
        let listed = subjects::listed(self.fd, noted.iter()).map_err(Problem::Cache)?;
        let image = std::mem::replace(&mut self.subjects, noted.into_iter().collect());
        self.stage = Stage::Attestations;
        // What was passed over as being about something else may be about these.
        self.opened = HashSet::new();
        self.seen = HashSet::new();
        let end = self.entries(listed.entries);
        let end = self.deferred().and(end);
        self.stage = Stage::Image;
        self.subjects = image;
        for Misplaced {
            manifest,
            attached,
            signed,
        } in std::mem::take(&mut self.misplaced)
        {
            if let Some(noted) = self.noted(attached)
                && !noted.is_claimed
            {
                noted.is_claimed = true;
                let fault = Fault::Signature { attached, signed };
                self.finding(manifest, &Problem::Attestation(fault));
            }
        }
        // What was found before a limit is judged.
        self.statements().and(end)
    }

    fn noted(&mut self, digest: Digest) -> Option<&mut Attestation> {
        self.attestations
            .iter_mut()
            .find(|one| one.manifest.document().digest == digest)
    }

    /// Notes that something claims to be a signature of the attestation manifest `digest`.
    pub(super) fn claim(&mut self, digest: Digest) {
        if let Some(noted) = self.noted(digest) {
            noted.is_claimed = true;
        }
    }

    /// Whether a manifest with signatures hangs where its own `subject`, if it has one, says.
    pub(super) fn hangs_right(&mut self, evidence: Digest, hint: Link, manifest: &Manifest) -> bool {
        let Some(attached) = &manifest.subject else {
            return true;
        };
        let signed = match hint {
            _ if self.subjects.contains(&attached.digest) => attached.digest,
            Link::Ours(signed) => signed,
            Link::Other(_) | Link::Unknown => return false,
        };
        let Some(noted) = self.noted(signed) else {
            return false;
        };
        match noted.manifest.carries(attached) {
            Ok(()) => true,
            Err(fault) => {
                noted.is_claimed = true;
                self.finding(evidence, &Problem::Attestation(fault));
                false
            }
        }
    }

    /// Keeps a signature of the attestation manifest `signed`. One that proves nothing new is kept once.
    pub(super) fn signature_of(&mut self, signed: Digest, manifest: Digest, carrier: Carrier, proof: Proof) {
        let Some(noted) = self.noted(signed) else {
            return;
        };
        if !noted.signatures.iter().any(|known| known.proof.proves(&proof)) {
            noted.signatures.push(Signature {
                manifest,
                carrier,
                proof,
            });
        }
    }

    fn statements(&mut self) -> Bounded {
        let indexes = if self.question.through_index {
            self.signed_indexes()?
        } else {
            Vec::new()
        };
        for attestation in std::mem::take(&mut self.attestations) {
            self.attested(&attestation, &indexes)?;
        }
        Ok(())
    }

    /// The indexes among what image signatures were found of.
    fn signed_indexes(&mut self) -> Result<Vec<Signed>, Problem> {
        let mut signed: BTreeMap<Digest, Vec<Signature>> = BTreeMap::new();
        for fact in &self.answer.facts {
            let is_of_sigstore = !matches!(fact.proof.signer, Signer::Notation(_));
            if fact.claim == Claim::ImageSignature && is_of_sigstore {
                signed.entry(fact.subject).or_default().push(Signature {
                    manifest: fact.evidence,
                    carrier: fact.carrier,
                    proof: fact.proof.clone(),
                });
            }
        }
        let mut indexes = Vec::new();
        for (digest, signatures) in signed {
            let index = match self.document(digest)? {
                Ok(bytes) => [oci::INDEX, oci::DOCKER_INDEX]
                    .into_iter()
                    .find_map(|media_type| Index::parse(&bytes, media_type).ok())
                    .map(Ok),
                Err(Problem::Attestation(fault)) => Some(Err(fault)),
                Err(problem) => {
                    self.finding(digest, &problem);
                    None
                }
            };
            indexes.extend(index.map(|index| Signed {
                digest,
                index,
                signatures,
            }));
        }
        Ok(indexes)
    }

    /// Judges the statements of an attestation manifest by what is signed.
    fn attested(&mut self, attestation: &Attestation, indexes: &[Signed]) -> Bounded {
        let Attestation {
            manifest,
            image,
            signatures,
            is_claimed,
        } = attestation;
        let evidence = manifest.document().digest;
        if signatures.is_empty() && indexes.is_empty() {
            if image.is_some() && !is_claimed {
                self.finding(evidence, &Problem::Attestation(Fault::Unsigned));
            }
            return Ok(());
        }
        if let Some(subject) = manifest.subject() {
            let about = self.real(subject.digest)?;
            let about = about.and_then(|image| manifest.is_about(image).map_err(Problem::Attestation));
            if let Err(problem) = about {
                self.finding(evidence, &problem);
                return Ok(());
            }
        }
        let mut faults = Vec::new();
        for layer in manifest.statements() {
            self.statement(attestation, layer, indexes, &mut faults)?;
        }
        for fault in faults {
            self.finding(evidence, &Problem::Attestation(fault));
        }
        Ok(())
    }

    /// Judges one statement. What keeps an index from standing for it is put to `faults`, unless the manifest is signed.
    fn statement(
        &mut self,
        attestation: &Attestation,
        layer: &Descriptor,
        indexes: &[Signed],
        faults: &mut Vec<Fault>,
    ) -> Bounded {
        let manifest = &attestation.manifest;
        let evidence = manifest.document().digest;
        self.signatures += 1;
        if self.signatures > MAX_SIGNATURES {
            return Err(Problem::WorkLimit("signatures"));
        }
        self.spend(layer, attestation::MAX_STATEMENT)?;
        let bytes = match self.layout.blob(layer, attestation::MAX_STATEMENT) {
            Ok(bytes) => bytes,
            Err(error) => {
                let problem = attestation::missized(&error).map_or(Problem::Evidence(error), Problem::Attestation);
                self.finding(evidence, &problem);
                return Ok(());
            }
        };
        let statement = Statement::parse(&bytes).map_err(Problem::Payload);
        let reached = statement.and_then(|statement| {
            let reached = manifest.reached(&statement, |digest| self.subjects.contains(digest));
            Ok((reached.map_err(Problem::Attestation)?, statement))
        });
        let (about, statement) = match reached {
            Ok(reached) => reached,
            Err(problem) => {
                self.finding(evidence, &problem);
                return Ok(());
            }
        };
        if about.is_empty() {
            if let (Some(wanted), Some(&found)) = (attestation.image, statement.subjects.first()) {
                let fault = Fault::Statement { wanted, found };
                self.finding(evidence, &Problem::Attestation(fault));
            }
            return Ok(());
        }
        let claim = Claim::Attestation(statement.predicate_type);
        // Publishers sign much that no rule can ask for.
        if claim.needs().is_err() {
            return Ok(());
        }
        let mut proved = Vec::new();
        for subject in about {
            for signature in &attestation.signatures {
                proved.extend(self.stands(signature, None, subject, &claim));
            }
            for signed in indexes {
                match self.covers(signed, manifest, subject)? {
                    Ok(()) => {
                        for signature in &signed.signatures {
                            proved.extend(self.stands(signature, Some(signed.digest), subject, &claim));
                        }
                    }
                    Err(fault) if attestation.signatures.is_empty() && !faults.contains(&fault) => faults.push(fault),
                    Err(_) => {}
                }
            }
        }
        if proved.is_empty() {
            return Ok(());
        }
        let Some((details, held)) = self.read(evidence, &claim, statement.predicate) else {
            return Ok(());
        };
        for (subject, signature, index) in proved {
            self.fact(Fact {
                evidence,
                carrier: Carrier::AttestationManifest,
                chain: Some(Box::new(Chain {
                    signature: signature.manifest,
                    carrier: signature.carrier,
                    index,
                    statement: layer.digest,
                })),
                subject,
                claim: claim.clone(),
                proof: signature.proof,
                details: details.clone().map(Box::new),
                held: held.clone(),
            })?;
        }
        Ok(())
    }

    /// Whether an index that is signed stands for a statement about `image` in this manifest.
    fn covers(
        &mut self,
        signed: &Signed,
        manifest: &AttestationManifest,
        image: Digest,
    ) -> Result<Result<(), Fault>, Problem> {
        let index = match &signed.index {
            Ok(index) => index,
            Err(fault) => return Ok(Err(fault.clone())),
        };
        Ok(match self.real(image)? {
            Ok(image) => manifest.is_listed(signed.digest, index, image),
            Err(Problem::Attestation(fault)) => Err(fault),
            Err(_) => Err(Fault::LinkMissing(image)),
        })
    }

    /// Whether who signed may say this about the image, and by which entry of trust.
    fn stands(
        &mut self,
        signature: &Signature,
        index: Option<Digest>,
        subject: Digest,
        claim: &Claim,
    ) -> Option<(Digest, Signature, Option<Digest>)> {
        let Signer::Key(id) = &signature.proof.signer else {
            return Some((subject, signature.clone(), index));
        };
        let key = self.question.keys.iter().find(|key| key.id == *id)?;
        let needed = self.question.needs(claim);
        match needed.and_then(|needed| self.keyring.standing(key, needed, &signature.proof.times, &[subject])) {
            Ok((key, _)) => {
                let mut signature = signature.clone();
                signature.proof.signer = Signer::Key(key.id.clone());
                Some((subject, signature, index))
            }
            Err(problem) => {
                self.finding(signature.manifest, &problem);
                None
            }
        }
    }

    /// A manifest or index of the image, as it really is.
    fn real(&mut self, digest: Digest) -> Result<Result<Document, Problem>, Problem> {
        if let Some(&size) = self.sizes.get(&digest) {
            return Ok(Ok(Document { digest, size }));
        }
        let bytes = self.document(digest)?;
        Ok(bytes.map(|bytes| {
            let size = bytes.len() as u64;
            self.sizes.insert(digest, size);
            Document { digest, size }
        }))
    }

    fn document(&mut self, digest: Digest) -> Result<Result<Vec<u8>, Problem>, Problem> {
        match self.layout.blob_by_digest(digest, oci::MAX_DOCUMENT) {
            Ok(bytes) => {
                self.spend_bytes(bytes.len() as u64)?;
                Ok(Ok(bytes))
            }
            Err(error) if error.is_missing() => Ok(Err(Problem::Attestation(Fault::LinkMissing(digest)))),
            Err(error) => Ok(Err(Problem::Evidence(error))),
        }
    }
}

#[cfg(test)]
mod tests;
