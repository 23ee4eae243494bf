//! Where the files and the SBOM come from: an image of containerd and the evidence cache, or a directory and a file.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

use super::report::Report;
use super::{Args, SbomError, child};
use crate::admission::{self, Verdict};
use crate::config::Config;
use crate::evidence;
use crate::identity::{self, Mount};
use crate::sbom;
use crate::shim::mount::{MountError, mount_all, unmount_recursive};
use crate::store::{self, StateDir};

/// Where the image is mounted, in a mount namespace that only this process and its children see.
const PLACE: &str = "/tmp";
/// Folder of the evidence cache below `state`.
const EVIDENCE: &str = "evidence";
const DERIVED: &str = "derived from the package database";

/// Why there is nothing to look at.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("{} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Sbom(store::Error),
    #[error("no private mounts can be made: {0}; run assay sbom as root")]
    Private(io::Error),
    #[error("the image's layers cannot be mounted: {0}")]
    Mount(#[from] MountError),
    #[error("containerd cannot be called: {0}")]
    Runtime(io::Error),
}

/// Looks at what the arguments name.
pub(super) fn look(args: &Args, config: &Config) -> Result<Report, SbomError> {
    match (&args.rootfs, &args.image) {
        (Some(directory), _) => of_directory(directory, args.file.as_deref()),
        (None, Some(image)) => of_image(args, image, config),
        // The command line asks for one of them.
        (None, None) => Err(SourceError::Runtime(io::ErrorKind::InvalidInput.into()).into()),
    }
}

fn of_directory(directory: &Path, file: Option<&Path>) -> Result<Report, SbomError> {
    let root = open(directory)?;
    let document = file.map(|file| store::read_bounded(file, sbom::MAX_BYTES as u64));
    let document = document.transpose().map_err(SourceError::Sbom)?;
    let mut report = child::inspect(root.as_fd(), document.as_deref())?;
    report.name = directory.display().to_string();
    report.source = match file {
        Some(file) => format!("the SBOM in {}, for which nobody vouches", file.display()),
        None => format!("{DERIVED}: a directory has no attested SBOM"),
    };
    Ok(report)
}

fn of_image(args: &Args, name: &str, config: &Config) -> Result<Report, SbomError> {
    let (document, source) = attested(args, name, config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(SourceError::Runtime)?;
    let image = runtime.block_on(identity::image(&args.address, &args.namespace, name))?;
    let unpacked = runtime.block_on(identity::unpacked(&args.address, &args.namespace, &image))?;
    let looked = mounted(&unpacked.mounts, |root| child::inspect(root, document.as_deref()));
    runtime.block_on(unpacked.release());
    let mut report = looked?;
    name.clone_into(&mut report.name);
    report.manifest = image.manifests.first().map(ToString::to_string);
    report.source = source;
    Ok(report)
}

/// The SBOM of the attestation on which a verdict about the image rests, and what is to be said about it.
fn attested(args: &Args, name: &str, config: &Config) -> (Option<Vec<u8>>, String) {
    let kubernetes = args.kubernetes_namespace.as_deref();
    let decision = admission::verify(Ok(config), &args.address, &args.namespace, name, kubernetes);
    let none = |why: String| (None, format!("{DERIVED}: {why}"));
    if decision.verdict == Verdict::Refuse {
        return none(format!("the image is refused ({})", decision.code));
    }
    let Some(fact) = decision.evidence.iter().find(|fact| evidence::is_sbom(fact)) else {
        return none("no rule for this image asks for an attested SBOM".to_owned());
    };
    let cache = StateDir::open(&config.state).and_then(|state| state.subdir(EVIDENCE));
    let document = match cache {
        Ok(cache) => child::extract(cache.as_fd(), fact).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match document {
        Ok(document) => {
            let source = format!("the SBOM attested by {} ({})", fact.proof.signer, fact.evidence);
            (Some(document), source)
        }
        Err(error) => none(error),
    }
}

/// Mounts an image where nobody else sees it, for as long as somebody looks at it.
fn mounted<T>(
    mounts: &[Mount],
    look: impl FnOnce(BorrowedFd<'_>) -> Result<T, child::ChildError>,
) -> Result<T, SbomError> {
    let place = Path::new(PLACE);
    // SAFETY: the descriptor table is not unshared, so no descriptor that other code holds changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(|error| SourceError::Private(error.into()))?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| SourceError::Private(error.into()))?;
    mount_all(mounts, None, place).map_err(SourceError::Mount)?;
    let looked = open(place)
        .map_err(SbomError::from)
        .and_then(|root| Ok(look(root.as_fd())?));
    // containerd's socket may lie behind it, and its snapshot goes only when nobody uses it.
    unmount_recursive(place).map_err(SourceError::Mount)?;
    looked
}

fn open(directory: &Path) -> Result<OwnedFd, SourceError> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).map_err(|error| SourceError::Open {
        path: directory.to_owned(),
        source: error.into(),
    })
}
