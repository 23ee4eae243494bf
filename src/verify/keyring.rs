//! Which trusted key made a signature, and whether that key counts for what is claimed.

use super::key::PublicKey;
use super::{Finding, Problem, TrustedTime, Unverified};
use crate::digest::Digest;
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

    /// The trusted key that signed `evidence`: the one that it names, or any other. Whether it counts is for
    /// [`Keyring::standing`] to say.
    ///
    /// # Errors
    /// Why there is none.
    pub fn signer(&mut self, evidence: &Unverified) -> Result<&'a Key, Problem> {
        match self.named_signer(evidence) {
            Some(key) => Ok(key),
            None => self.unnamed_signer(evidence),
        }
    }

    /// The trusted key that `evidence` names, when it made the signature. A check or two, and never on the budget
    /// for keys that are not named.
    #[must_use]
    pub fn named_signer(&self, evidence: &Unverified) -> Option<&'a Key> {
        self.keys
            .iter()
            .filter(|(_, public)| is_named(public, evidence))
            .find(|(_, public)| made(public, evidence))
            .map(|(key, _)| *key)
    }

    /// The trusted key that signed `evidence`, which does not name it. Keys are tried in the order of `trust.d`,
    /// until the budget of such checks is used up.
    ///
    /// # Errors
    /// Why there is none.
    pub fn unnamed_signer(&mut self, evidence: &Unverified) -> Result<&'a Key, Problem> {
        for (key, public) in &self.keys {
            if is_named(public, evidence) || !public.can_verify(&evidence.message) {
                continue;
            }
            if self.blind_checks == MAX_BLIND_CHECKS {
                return Err(Problem::WorkLimit("signature checks"));
            }
            self.blind_checks += 1;
            if public.verifies(&evidence.message, &evidence.signature) {
                return Ok(key);
            }
        }
        Err(self.refusal(evidence))
    }

    /// Why no key made the signature.
    fn refusal(&mut self, evidence: &Unverified) -> Problem {
        let Some((key, public)) = self.keys.iter().rfind(|(_, public)| is_named(public, evidence)) else {
            return Problem::KeyUnknown(evidence.hint().map(shorten));
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

    /// The entry of a key that made a signature by which it counts for `needed`, and those of the subjects in `about` for
    /// which it does, when `times` are the trusted times of the signature. The same key may be listed more than once: distrust
    /// of any entry is distrust of the key, otherwise the first entry that counts is the one.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn standing(
        &self,
        signed_by: &'a Key,
        needed: Use,
        times: &[TrustedTime],
        about: &[Digest],
    ) -> Result<(&'a Key, Vec<Digest>), Problem> {
        let same = || {
            self.keys
                .iter()
                .map(|(key, _)| *key)
                .filter(|key| key.spki == signed_by.spki)
        };
        if let Some(key) = same().find(|key| key.status == Status::Distrusted) {
            return Err(Problem::KeyDistrusted(key.id.clone()));
        }
        let refusal = match counts(signed_by, needed, times, about) {
            Ok(subjects) => return Ok((signed_by, subjects)),
            Err(refusal) => refusal,
        };
        same()
            .filter(|key| key.hash == signed_by.hash)
            .find_map(|key| Some((key, counts(key, needed, times, about).ok()?)))
            .ok_or(refusal)
    }
}

fn is_named(public: &PublicKey, evidence: &Unverified) -> bool {
    evidence.hint() == Some(public.fingerprint())
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

/// For which of the subjects in `about` a key counts.
fn counts(key: &Key, needed: Use, times: &[TrustedTime], about: &[Digest]) -> Result<Vec<Digest>, Problem> {
    if !key.r#use.contains(&needed) {
        return Err(Problem::KeyUse {
            key: key.id.clone(),
            needed: use_name(needed),
        });
    }
    let timed = is_within_window(key, times);
    if key.status == Status::Retired {
        // Without an end of the window, no time is known to be from before the key was retired.
        if timed && key.until.is_some() {
            return Ok(about.to_vec());
        }
        let recorded: Vec<Digest> = about
            .iter()
            .copied()
            .filter(|subject| key.digests.contains(subject))
            .collect();
        return match about.first() {
            Some(signed) if recorded.is_empty() => Err(Problem::KeyRetired {
                key: key.id.clone(),
                ends: key.until.is_some(),
                signed: *signed,
            }),
            _ => Ok(recorded),
        };
    }
    if timed || (key.from.is_none() && key.until.is_none()) {
        Ok(about.to_vec())
    } else {
        Err(Problem::KeyWindow(key.id.clone()))
    }
}

/// Whether someone who is trusted says when a signature was made, and nobody puts that outside of the key's window.
fn is_within_window(key: &Key, times: &[TrustedTime]) -> bool {
    let inside = |time: &TrustedTime| {
        key.from.is_none_or(|from| from <= time.time) && key.until.is_none_or(|until| time.time < until)
    };
    !times.is_empty() && times.iter().all(inside)
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
