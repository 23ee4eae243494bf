//! `assay verify-bundle`: the command line by which the Sigstore project compares verifiers.
//!
//! <https://github.com/sigstore/sigstore-conformance/blob/main/docs/cli_protocol.md>. It asks for one bundle, one
//! identity or key and one trusted root; no policy has a say, and no network is used.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use spki::der::pem;

use super::{Exit, complain};
use crate::diagnostic::{self, Diagnostic};
use crate::digest::Digest;
use crate::trust::root::{MAX_BYTES, RootError};
use crate::trust::{Builtin, HashAlgorithm, Key, Root, RootSource, Status};
use crate::verify::bundle::{Bundle, MAX_BUNDLE};
use crate::verify::{By, Keyring, Problem, Proof, Signer, TrustedRoot, Unverified, Verify as _, sigstore};

/// Largest artifact that is read.
const MAX_ARTIFACT: u64 = 256 << 20;
/// Largest file of a key.
const MAX_KEY: u64 = 64 << 10;

/// Arguments of `assay verify-bundle`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Identity that its certificate must name
    #[arg(long, value_name = "IDENTITY", requires = "certificate_oidc_issuer")]
    certificate_identity: Option<String>,
    /// Who must have vouched for the identity
    #[arg(long, value_name = "URL", requires = "certificate_identity")]
    certificate_oidc_issuer: Option<String>,
    /// Key that must have signed it, in PEM
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "certificate_identity",
        required_unless_present = "certificate_identity"
    )]
    key: Option<PathBuf>,
    /// Trusted root, in place of that of the public-good instance
    #[arg(long, value_name = "FILE", conflicts_with = "staging")]
    trusted_root: Option<PathBuf>,
    /// Trust the instance on which Sigstore tests itself
    #[arg(long)]
    staging: bool,
    /// What it must be about: a file, or sha256: and a digest
    #[arg(value_name = "FILE_OR_DIGEST")]
    artifact: String,
}

/// Why a bundle is not accepted.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    File(Diagnostic),
    #[error("{} is no public key in PEM: {reason}", .path.display())]
    Key { path: PathBuf, reason: String },
    #[error(transparent)]
    Problem(#[from] Problem),
    #[error("it is signed by {found}, not by {expected}")]
    Signer { found: String, expected: String },
    #[error("it names nothing that it signs")]
    Subject,
    #[error("it has no entry in a transparency log, and the trusted root lists some")]
    Unlogged,
}

impl From<Diagnostic> for Refused {
    fn from(diagnostic: Diagnostic) -> Self {
        Self::File(diagnostic)
    }
}

/// Verifies one bundle; says why when it is not accepted.
#[must_use]
pub fn run(args: &Args) -> Exit {
    match verify(args) {
        Ok(()) => Exit::Done,
        Err(refused) => {
            complain(format_args!("error: {refused}"));
            Exit::Failed
        }
    }
}

fn verify(args: &Args) -> Result<(), Refused> {
    let root = match &args.trusted_root {
        None if args.staging => Root::builtin("staging", Builtin::Staging),
        None => Root::builtin("public-good", Builtin::Sigstore),
        Some(path) => {
            let json = String::from_utf8_lossy(&diagnostic::read_file(path, MAX_BYTES)?).into_owned();
            Root::new("given", RootSource::File(path.display().to_string()), json)
        }
    };
    let subject = subject(&args.artifact)?;
    let evidence = Bundle::parse(diagnostic::read_file(&args.bundle, MAX_BUNDLE)?)?.unverified()?;
    if let Some(path) = args.key.as_ref().filter(|_| !evidence.is_witnessed()) {
        return by_key_alone(&root, &evidence, path, subject);
    }
    let (root, left_out) = TrustedRoot::new(&root)?;
    for left_out in left_out {
        complain(format_args!("warning: {left_out}"));
    }
    let proof = match &args.key {
        Some(path) => by_key(&root, &evidence, path, subject)?,
        None => root.verify(&evidence, By::Certificate, subject, Timestamp::now())?,
    };
    if let (Signer::Certificate(certificate), Some(identity), Some(issuer)) =
        (&proof.signer, &args.certificate_identity, &args.certificate_oidc_issuer)
        && (certificate.identity.to_string() != *identity || certificate.issuer != *issuer)
    {
        return Err(Refused::Signer {
            found: proof.signer.to_string(),
            expected: format!("{identity} (issuer {issuer})"),
        });
    }
    if root.lists_logs() && proof.logs.is_empty() {
        return Err(Refused::Unlogged);
    }
    Ok(())
}

fn subject(artifact: &str) -> Result<Digest, Refused> {
    match artifact.parse() {
        Ok(digest) => Ok(digest),
        Err(_) => Ok(Digest::of(&diagnostic::read_file(Path::new(artifact), MAX_ARTIFACT)?)),
    }
}

/// A signature with neither log entry nor timestamp: the key is all that it needs, unless the root lists logs, in one
/// of which it would have to be.
fn by_key_alone(root: &Root, evidence: &Unverified, path: &Path, subject: Digest) -> Result<(), Refused> {
    match root.usable() {
        Ok(usable) if usable.lists_logs => return Err(Refused::Unlogged),
        Ok(_) | Err(RootError::Empty) => {}
        Err(error) => {
            let (root, reason) = (root.id.clone(), error.to_string());
            return Err(Problem::RootUnusable { root, reason }.into());
        }
    }
    let keys = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512]
        .into_iter()
        .map(|hash| key(path, hash))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut keyring, _) = Keyring::new(&keys);
    keyring.signer(evidence)?;
    match evidence.subjects() {
        subjects if subjects.contains(&subject) => Ok(()),
        [signed, ..] => Err(Problem::SubjectMismatch {
            attached: subject,
            signed: *signed,
        }
        .into()),
        [] => Err(Refused::Subject),
    }
}

fn by_key(root: &TrustedRoot, evidence: &Unverified, path: &Path, subject: Digest) -> Result<Proof, Refused> {
    let verify = |hash| -> Result<_, Refused> {
        let key = key(path, hash)?;
        Ok(root.verify(evidence, By::Key(&key), subject, Timestamp::now()))
    };
    // The command line does not say with which hash the key signs.
    match verify(HashAlgorithm::Sha256)? {
        Err(Problem::Sigstore {
            refusal: sigstore::Refusal::Key(_),
            ..
        }) => Ok(verify(HashAlgorithm::Sha384)??),
        verdict => Ok(verdict?),
    }
}

fn key(path: &Path, hash: HashAlgorithm) -> Result<Key, Refused> {
    let bytes = diagnostic::read_file(path, MAX_KEY)?;
    let (_, spki) = pem::decode_vec(&bytes).map_err(|reason| Refused::Key {
        path: path.to_owned(),
        reason: reason.to_string(),
    })?;
    Ok(Key {
        id: path.display().to_string(),
        spki,
        hash,
        r#use: Vec::new(),
        from: None,
        until: None,
        status: Status::Active,
        digests: Vec::new(),
    })
}
