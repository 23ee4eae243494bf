//! Signatures of the Notary Project under one trust store of `trust.d`.

use jiff::{SignedDuration, Timestamp};

use super::notation::{self, Revocation, StoreError, StoreKind, TrustStores, Verified};
use super::{NotationSigner, Problem, Proof, Signer, Span, TimeSource, TrustedTime};
use crate::diagnostic::printable;
use crate::oci::{self, shorten};
use crate::trust::TrustStore;

/// Longest subject of a signing certificate in bytes. It is compared as a whole.
pub const MAX_SUBJECT: usize = 1024;

/// One trust store, ready to verify with. Its timestamp authorities and revocation lists count for its own signers
/// only.
#[derive(Debug)]
pub struct NotationStore {
    id: String,
    stores: TrustStores,
}

impl NotationStore {
    /// Reads the certificates and revocation lists of a store.
    ///
    /// # Errors
    /// [`Problem::StoreUnusable`]: one of them cannot be used, and without it the store would mean something else.
    pub fn new(store: &TrustStore) -> Result<Self, Problem> {
        let mut stores = TrustStores::default();
        let kinds = [
            (StoreKind::Ca, &store.ca),
            (StoreKind::SigningAuthority, &store.signing_authority),
            (StoreKind::Tsa, &store.tsa),
        ];
        let mut read = || {
            for (kind, certificates) in kinds {
                for certificate in certificates {
                    stores.add_certificates(kind, &store.id, &certificate.0)?;
                }
            }
            store.crls.iter().try_for_each(|crl| stores.add_crl(&crl.0))
        };
        read().map_err(|error: StoreError| Problem::StoreUnusable {
            store: store.id.clone(),
            error,
        })?;
        Ok(Self {
            id: store.id.clone(),
            stores,
        })
    }

    /// Verifies an envelope: what is signed, and what that proves.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn verify(
        &self,
        envelope: &[u8],
        media_type: &str,
        now: Timestamp,
    ) -> Result<(oci::Descriptor, Proof), Problem> {
        let verified = notation::verify(envelope, media_type, &self.stores, now).map_err(Problem::Notation)?;
        if !oci::is_manifest(&verified.target.media_type) && !oci::is_index(&verified.target.media_type) {
            return Err(Problem::NotationTarget(shorten(&verified.target.media_type)));
        }
        let proof = self.proof(&verified)?;
        Ok((verified.target, proof))
    }

    fn proof(&self, verified: &Verified) -> Result<Proof, Problem> {
        let unknown = |revocation: &Revocation| match revocation {
            Revocation::Unavailable(text) => Some(printable(text).chars().take(MAX_SUBJECT / 4).collect()),
            Revocation::Good { .. } | Revocation::NotOffered => None,
        };
        let authority = verified.trusted_time.as_ref().and_then(|time| time.authority.as_ref());
        let revocation_unknown = unknown(&verified.revocation)
            .or_else(|| authority.and_then(|authority| unknown(&authority.revocation)))
            .unwrap_or_default();
        let times = verified.trusted_time.iter().map(|time| TrustedTime {
            source: TimeSource::Timestamp,
            authority: match &time.authority {
                Some(authority) => shorten(&authority.identity.to_string()),
                None => format!("signing authority {}", self.id),
            },
            time: time.latest,
        });
        let subject = verified.identity.to_string();
        if subject.len() > MAX_SUBJECT || printable(&subject) != subject {
            return Err(Problem::NotationSubject(shorten(&subject)));
        }
        let fingerprint = *verified
            .chain
            .first()
            .ok_or(Problem::Notation(notation::Fault::ChainLength(0)))?;
        Ok(Proof {
            signer: Signer::Notation(Box::new(NotationSigner {
                store: self.id.clone(),
                subject,
                fingerprint,
                revocation_unknown,
            })),
            logs: Vec::new(),
            times: times.collect(),
            span: Span {
                from: verified.span.not_before,
                // The last moment still belongs to it.
                until: verified
                    .span
                    .not_after
                    .map(|last| last.checked_add(SignedDuration::from_nanos(1)).unwrap_or(last)),
            },
        })
    }
}
