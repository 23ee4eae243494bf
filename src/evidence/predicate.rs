//! What a verified attestation says: its predicate, found again in the evidence that carried it.

use std::os::fd::BorrowedFd;

use super::Kind;
use crate::attest::{Family, Statement};
use crate::oci::{self, Descriptor, Layout, LayoutError, Manifest};
use crate::verify::bundle::{self, Bundle};
use crate::verify::{Carrier, Claim, Fact, attestation, legacy};

/// Largest predicate in bytes.
pub const MAX_PREDICATE: u64 = bundle::MAX_BUNDLE;

/// Why there is no predicate for a fact.
#[derive(Debug, thiserror::Error)]
pub enum NoPredicate {
    /// The evidence is no longer what it was.
    #[error("the evidence cannot be read again: {0}")]
    Layout(#[from] LayoutError),
    /// Its manifest is not one.
    #[error("the evidence's manifest cannot be read again: {0}")]
    Manifest(#[from] oci::Error),
    /// Nothing in it says what the fact does.
    #[error("the evidence holds no attestation that says what was verified")]
    Missing,
    /// Several say it, and only one of them needs to be signed by whom the fact names.
    #[error("the evidence holds several attestations of this type, and which of them was verified is not known")]
    Ambiguous,
}

/// The predicate of the attestation that `fact` is about, as it stands in the signed statement.
///
/// Nothing is verified again: the fact says that one attestation in its evidence with this subject, type and carrier
/// was. If all that there are say the same, that is what it says.
///
/// # Errors
/// See [`NoPredicate`].
pub fn predicate(layout: BorrowedFd<'_>, fact: &Fact) -> Result<Vec<u8>, NoPredicate> {
    let layout = Layout::new(layout);
    let manifest = layout.blob_by_digest(fact.evidence, oci::MAX_DOCUMENT)?;
    let manifest = Manifest::parse(&manifest, oci::MANIFEST)?;
    let mut found: Option<Vec<u8>> = None;
    for layer in &manifest.layers {
        let Some(limit) = limit(layer, fact) else {
            continue;
        };
        let bytes = match layout.blob(layer, limit) {
            Ok(bytes) => bytes,
            // One that is not there was not verified either.
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error.into()),
        };
        match (&found, said(layer, &bytes, fact)) {
            (_, None) => {}
            (Some(other), Some(predicate)) if *other != predicate => return Err(NoPredicate::Ambiguous),
            (_, Some(predicate)) => found = Some(predicate),
        }
    }
    found.ok_or(NoPredicate::Missing)
}

/// Largest blob of a layer that could carry what the fact is about; `None` where it cannot.
fn limit(layer: &Descriptor, fact: &Fact) -> Option<u64> {
    match (fact.carrier, Kind::of(layer)) {
        (Carrier::AttestationManifest, _) if layer.media_type == attestation::STATEMENT => {
            Some(attestation::MAX_STATEMENT)
        }
        (Carrier::AttestationManifest, _) => None,
        (_, Some(kind @ (Kind::Bundle | Kind::Envelope))) => Some(kind.limit()),
        _ => None,
    }
}

/// The predicate in a layer, if it says what the fact does. One that is broken was not verified.
fn said(layer: &Descriptor, bytes: &[u8], fact: &Fact) -> Option<Vec<u8>> {
    // Signed is the manifest, and thereby every statement in it.
    if fact.carrier == Carrier::AttestationManifest {
        let statement = Statement::parse(bytes).ok()?;
        let is_it =
            fact.claim == Claim::Attestation(statement.predicate_type) && statement.subjects.contains(&fact.subject);
        return is_it.then(|| statement.predicate.to_vec());
    }
    let unverified = match Kind::of(layer)? {
        Kind::Bundle => Bundle::parse(bytes.to_vec()).ok()?.unverified().ok()?,
        Kind::Envelope => legacy::envelope(layer, bytes).ok()?,
        _ => return None,
    };
    let is_it = unverified.carrier() == fact.carrier
        && *unverified.claim() == fact.claim
        && unverified.subjects().contains(&fact.subject);
    is_it.then(|| unverified.predicate().to_vec())
}

/// Whether a fact is that somebody attests an SBOM.
#[must_use]
pub fn is_sbom(fact: &Fact) -> bool {
    matches!(&fact.claim, Claim::Attestation(_)) && fact.claim.family() == Some(Family::Sbom)
}
