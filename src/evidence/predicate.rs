//! What a verified attestation says: its predicate, found again in the evidence that carried it.

use std::os::fd::BorrowedFd;

use super::Kind;
use crate::attest::Family;
use crate::oci::{self, Layout, LayoutError, Manifest};
use crate::verify::bundle::{self, Bundle};
use crate::verify::{Claim, Fact, Problem, Unverified, legacy};

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
    /// What it carries cannot be read.
    #[error("the attestation cannot be read again: {0}")]
    Problem(#[from] Problem),
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
        let read: fn(&oci::Descriptor, &[u8]) -> Result<Unverified, Problem> = match Kind::of(layer) {
            Some(Kind::Bundle) => |_, bytes| Bundle::parse(bytes)?.unverified(),
            Some(Kind::Envelope) => legacy::envelope,
            _ => continue,
        };
        let limit = Kind::of(layer).map_or(0, Kind::limit);
        let unverified = match layout.blob(layer, limit) {
            Ok(bytes) => read(layer, &bytes),
            // One that is not there was not verified either.
            Err(error) if error.is_missing() => continue,
            Err(error) => return Err(error.into()),
        };
        // Nor was one that is broken.
        let Ok(unverified) = unverified else {
            continue;
        };
        if unverified.carrier() != fact.carrier
            || *unverified.claim() != fact.claim
            || !unverified.subjects().contains(&fact.subject)
        {
            continue;
        }
        match &found {
            Some(other) if other != unverified.predicate() => return Err(NoPredicate::Ambiguous),
            _ => found = Some(unverified.predicate().to_vec()),
        }
    }
    found.ok_or(NoPredicate::Missing)
}

/// Whether a fact is that somebody attests an SBOM.
#[must_use]
pub fn is_sbom(fact: &Fact) -> bool {
    matches!(&fact.claim, Claim::Attestation(_)) && fact.claim.family() == Some(Family::Sbom)
}
