//! Which trusted key made a signature, and whether that key counts for what is claimed.

use super::key::PublicKey;
use super::{Finding, Problem, Unverified};
use crate::oci::shorten;
use crate::trust::{HashAlgorithm, Key, Status, Use};

/// Most signature checks with keys that the signature does not name.
const MAX_BLIND_CHECKS: usize = 1024;

/// Most refusals that are explained by what the signature verifies with instead.
const MAX_EXPLAINED: usize = 64;

/// Trusted keys, ready to verify with.
#[derive(Debug)]
pub struct Keyring<'a> {
    keys: Vec<(&'a Key, PublicKey)>,
    blind_checks: usize,
    explained: usize,
}

impl<'a> Keyring<'a> {
    /// Reads the keys; one that cannot be used is a finding.
    #[must_use]
    pub fn new(keys: &'a [Key]) -> (Self, Vec<Finding>) {
        let mut findings = Vec::new();
        let keys = keys
            .iter()
            .filter_map(|key| match PublicKey::from_spki(&key.spki, key.hash) {
                Ok(public) => Some((key, public)),
                Err(reason) => {
                    findings.push(
                        Problem::KeyUnusable {
                            key: key.id.clone(),
                            reason,
                        }
                        .finding(None),
                    );
                    None
                }
            })
            .collect();
        (
            Self {
                keys,
                blind_checks: 0,
                explained: 0,
            },
            findings,
        )
    }

    /// The trusted key that signed `evidence` and counts for what it claims: the one that it names, or any other.
    ///
    /// # Errors
    /// Why there is none.
    pub fn signer(&mut self, evidence: &Unverified) -> Result<&'a Key, Problem> {
        match self.named_signer(evidence)? {
            Some(key) => Ok(key),
            None => self.unnamed_signer(evidence),
        }
    }

    /// The trusted key that `evidence` names, when it made the signature. A check or two, and never on the budget
    /// for keys that are not named.
    ///
    /// # Errors
    /// Why that key does not count, though the signature is its own.
    pub fn named_signer(&self, evidence: &Unverified) -> Result<Option<&'a Key>, Problem> {
        let needed = evidence.claim.needs()?;
        self.keys
            .iter()
            .filter(|(_, public)| is_named(public, evidence))
            .find(|(_, public)| made(public, evidence))
            .map(|(key, _)| self.standing(key, needed))
            .transpose()
    }

    /// The trusted key that signed `evidence`, which does not name it. Keys are tried in the order of `trust.d`,
    /// until the budget of such checks is used up.
    ///
    /// # Errors
    /// Why there is none.
    pub fn unnamed_signer(&mut self, evidence: &Unverified) -> Result<&'a Key, Problem> {
        let needed = evidence.claim.needs()?;
        for (key, public) in &self.keys {
            if is_named(public, evidence) || !public.can_verify(&evidence.message) {
                continue;
            }
            if self.blind_checks == MAX_BLIND_CHECKS {
                return Err(Problem::WorkLimit("signature checks"));
            }
            self.blind_checks += 1;
            if public.verifies(&evidence.message, &evidence.signature) {
                return self.standing(key, needed);
            }
        }
        Err(self.refusal(evidence))
    }

    /// Why no key made the signature.
    fn refusal(&mut self, evidence: &Unverified) -> Problem {
        let Some((key, public)) = self.keys.iter().rfind(|(_, public)| is_named(public, evidence)) else {
            return Problem::KeyUnknown(evidence.hint.as_deref().map(shorten));
        };
        let key_id = key.id.clone();
        if !public.can_verify(&evidence.message) {
            return Problem::MessageNeeded(key_id);
        }
        if self.explained == MAX_EXPLAINED {
            return Problem::SignatureInvalid(key_id);
        }
        self.explained += 1;
        match other_hash(key, evidence) {
            Some(hash) => Problem::KeyHash { key: key_id, hash },
            None => Problem::SignatureInvalid(key_id),
        }
    }

    /// Whether the key that made a signature counts. The same key may be listed more than once: distrust of
    /// any entry is distrust of the key, otherwise the first entry that counts is the one.
    fn standing(&self, signed_by: &'a Key, needed: Use) -> Result<&'a Key, Problem> {
        let same = || {
            self.keys
                .iter()
                .map(|(key, _)| *key)
                .filter(|key| key.spki == signed_by.spki)
        };
        if let Some(key) = same().find(|key| key.status == Status::Distrusted) {
            return Err(Problem::KeyDistrusted(key.id.clone()));
        }
        let Err(refusal) = counts(signed_by, needed) else {
            return Ok(signed_by);
        };
        same()
            .filter(|key| key.hash == signed_by.hash)
            .find(|key| counts(key, needed).is_ok())
            .ok_or(refusal)
    }
}

fn is_named(public: &PublicKey, evidence: &Unverified) -> bool {
    evidence.hint.as_deref() == Some(public.fingerprint())
}

fn made(public: &PublicKey, evidence: &Unverified) -> bool {
    public.can_verify(&evidence.message) && public.verifies(&evidence.message, &evidence.signature)
}

/// The hash with which the key would verify, when it is not the one that it is trusted with: only to explain.
fn other_hash(key: &Key, evidence: &Unverified) -> Option<&'static str> {
    [
        (HashAlgorithm::Sha256, "sha256"),
        (HashAlgorithm::Sha384, "sha384"),
        (HashAlgorithm::Sha512, "sha512"),
    ]
    .into_iter()
    .filter(|(hash, _)| *hash != key.hash)
    .find(|(hash, _)| PublicKey::from_spki(&key.spki, *hash).is_ok_and(|public| made(&public, evidence)))
    .map(|(_, name)| name)
}

fn counts(key: &Key, needed: Use) -> Result<(), Problem> {
    if !key.r#use.contains(&needed) {
        Err(Problem::KeyUse {
            key: key.id.clone(),
            needed: use_name(needed),
        })
    } else if key.status == Status::Retired {
        Err(Problem::KeyRetired(key.id.clone()))
    } else if key.from.is_some() || key.until.is_some() {
        Err(Problem::KeyWindow(key.id.clone()))
    } else {
        Ok(())
    }
}

fn use_name(needed: Use) -> &'static str {
    match needed {
        Use::Image => "image",
        Use::Provenance => "provenance",
        Use::Sbom => "sbom",
        Use::Vex => "vex",
        Use::Policy => "policy",
        Use::Grant => "grant",
        Use::Profile => "profile",
    }
}
