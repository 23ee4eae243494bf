//! Fetching the signatures and attestations of images from a registry.
//!
//! A pull fills a folder of its own, which is an OCI image layout as other tools write it, and then imports that. A
//! pull that was interrupted finds there what it had; nothing that is half there is ever in the cache.
//!
//! Where evidence hangs: on the index that the name stands for and on each manifest that the index lists, as
//! referrers (by the registry's list or, where it keeps none, by the tag `sha256-<hex>`), under cosign's tags
//! `sha256-<hex>.sig` and `.att`, and as attestation manifests that BuildKit lists in the index. An attestation that
//! is not signed itself may have a signature in the same places, so those are followed on: platform manifest,
//! attestation manifest, signature.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::content::{Content, Sort};
use super::import::{self, ImportError, MAX_CONFIG, Report};
use super::{IMAGE, REF_NAME};
use crate::digest::Digest;
use crate::oci::registry::{Client, Document, RegistryError, Repository};
use crate::oci::{self, Descriptor, Index, Layout, Manifest, Reference};
use crate::store::{self, StateDir};

/// Most requests that are under way at the same time.
const PARALLEL: usize = 6;
/// How far signatures are followed from an image: to an attestation, and from there to its signature.
const MAX_HOPS: usize = 2;
/// Most manifests and indexes that are fetched for one image.
pub const MAX_DOCUMENTS: usize = 16_384;
/// Most bytes that are fetched for one image.
pub const MAX_BYTES: u64 = 2 << 30;

const BUILDKIT_TYPE: &str = "vnd.docker.reference.type";
const BUILDKIT_ATTESTATION: &str = "attestation-manifest";
const LOCK: &str = ".lock";

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// Images, by tag or digest.
    pub images: &'a [Reference],
    /// A second repository in which their evidence is looked for.
    pub referrers_from: Option<&'a Reference>,
    /// HTTP instead of HTTPS.
    pub plain_http: bool,
}

/// How far the pull of one image is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Requests that are done.
    pub done: usize,
    /// Requests that are known to be necessary so far.
    pub known: usize,
    /// Bytes that were fetched.
    pub bytes: u64,
}

/// Why a pull failed as a whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The registry's client cannot be used.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What was fetched cannot be kept.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What was fetched cannot be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// There is no event loop.
    #[error("the event loop cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
}

/// Why something was not fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// The registry gave no usable answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// There is no such image.
    #[error("the registry has no such image; check repository and tag")]
    NoImage,
    /// The registry lists what it does not have.
    #[error("the registry lists {0} and does not have it; push the image and its signatures again")]
    Missing(Digest),
    /// A manifest or index that cannot be read.
    #[error("{digest}: {source}")]
    Document {
        /// Which.
        digest: Digest,
        /// Why.
        source: oci::Error,
    },
    /// A signature or attestation that is larger than anything genuine.
    #[error("{digest} has {size} bytes, more than the {limit} that are accepted of its kind")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// There is more evidence than is fetched.
    #[error("it has more than {0}; what was fetched before is kept")]
    TooMuch(&'static str),
    /// A task of the pull died.
    #[error("a request ended without an answer: {0}")]
    Died(String),
    /// What was fetched cannot be written.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Something that was not fetched.
#[derive(Debug)]
pub struct Fault {
    /// The image for which it was wanted.
    pub image: String,
    /// Why.
    pub obstacle: Obstacle,
}

/// One image of a pull.
#[derive(Debug)]
pub struct PulledImage {
    /// As it was asked for, in its normal form.
    pub name: String,
    /// What the name stands for.
    pub digest: Digest,
    /// Manifests for platforms; one, where the name stands for a manifest.
    pub platforms: usize,
    /// Manifests that carry signatures or attestations.
    pub evidence: usize,
}

/// What a pull did.
#[derive(Debug)]
pub struct Pulled {
    /// The images that were found.
    pub images: Vec<PulledImage>,
    /// What was not fetched.
    pub faults: Vec<Fault>,
    /// Bytes that were fetched; what was there before is not fetched again.
    pub bytes: u64,
    /// What came of it in the cache.
    pub report: Report,
}

/// Fetches the evidence of images into the cache `evidence`, by way of the folder `downloads`. `watch` is told how
/// far the pull of each image is.
///
/// Pulls run one at a time. Imports and decisions are not held up.
///
/// # Errors
/// A registry with which nothing can be begun, or state that cannot be written. What is wrong with single images or
/// blobs is among the faults; the rest is imported.
pub fn pull(
    evidence: &StateDir,
    downloads: &StateDir,
    what: Pull<'_>,
    watch: &mut dyn FnMut(&str, Progress),
) -> Result<Pulled, PullError> {
    let client = Client::new(what.plain_http)?;
    let _lock = downloads.lock(LOCK)?;
    let blobs = downloads.subdir("blobs")?.subdir("sha256")?;
    for folder in [downloads, &blobs] {
        folder.remove_abandoned()?;
    }
    let store = Arc::new(Store {
        cache: evidence.subdir("blobs").and_then(|_| StateDir::open(evidence.path()))?,
        downloads: StateDir::open(downloads.path())?,
        blobs,
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(PullError::Runtime)?;
    let mut images = Vec::new();
    let mut faults = Vec::new();
    let mut bytes = 0;
    let mut entries = BTreeMap::new();
    for reference in what.images {
        let name = reference.to_string();
        let mut repositories = vec![Arc::new(client.repository(reference)?)];
        if let Some(other) = what.referrers_from {
            repositories.push(Arc::new(client.repository(other)?));
        }
        let mut walk = Walk::new(&store, repositories, &name, watch);
        images.extend(runtime.block_on(walk.image(reference)));
        bytes += walk.progress.bytes;
        faults.extend(walk.faults.into_iter().map(|obstacle| Fault {
            image: name.clone(),
            obstacle,
        }));
        entries.extend(walk.entries);
    }
    store.blobs.sync()?;
    import::write_layout(downloads, entries.values())?;
    let mut report = import::import(evidence, &[downloads.path().to_owned()])?;
    // A pull with faults leaves what it fetched; that comes along, and is not what was asked for now.
    report.imported.retain(|item| entries.contains_key(&item.manifest));
    report.present.retain(|item| entries.contains_key(&item.manifest));
    report.skipped.retain(|skipped| entries.contains_key(&skipped.blob));
    // What is left of a pull with faults need not be fetched again by the next one.
    if faults.is_empty() {
        store.clear()?;
    }
    Ok(Pulled {
        images,
        faults,
        bytes,
        report,
    })
}

/// Where fetched blobs go, and where they may be already.
#[derive(Debug)]
struct Store {
    cache: StateDir,
    downloads: StateDir,
    blobs: StateDir,
}

impl Store {
    /// A blob that is there and whole. One that only the cache has is put beside the fetched ones.
    fn find(&self, digest: Digest, limit: u64) -> Result<Option<Vec<u8>>, store::Error> {
        if let Ok(bytes) = Layout::new(self.downloads.as_fd()).blob_by_digest(digest, limit) {
            return Ok(Some(bytes));
        }
        match Layout::new(self.cache.as_fd()).blob_by_digest(digest, limit) {
            Ok(bytes) => {
                self.keep(digest, &bytes)?;
                Ok(Some(bytes))
            }
            Err(_) => Ok(None),
        }
    }

    fn keep(&self, digest: Digest, bytes: &[u8]) -> Result<(), store::Error> {
        self.blobs.write_unsynced(&digest.hex(), bytes)
    }

    fn clear(&self) -> Result<(), store::Error> {
        for name in store::names(self.blobs.as_fd(), self.blobs.path())? {
            self.blobs.remove(&name?)?;
        }
        Ok(())
    }
}

/// One request.
#[derive(Debug, Clone)]
enum Task {
    /// The registry's list of what is about a digest.
    Referrers(Digest),
    /// What a tag that is made from a digest stands for.
    Tag(Digest, &'static str),
    /// A manifest that may carry evidence.
    Manifest(Descriptor),
    /// A manifest of the image itself, of which only the link is needed.
    Link(Descriptor),
    /// A layer or configuration of evidence, with the limit of its kind.
    Blob(Descriptor, u64),
}

/// Where to send a request, and how far from the image it is.
#[derive(Debug, Clone)]
struct Errand {
    task: Task,
    repository: Arc<Repository>,
    hops: usize,
}

/// What a request brought.
#[derive(Debug)]
struct Fetched {
    /// Bytes that came from the registry.
    bytes: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Referrers(Option<Vec<Descriptor>>),
    Document(Box<Document>),
    Nothing,
    Blob,
}

/// The pull of one image.
struct Walk<'a> {
    store: &'a Arc<Store>,
    repositories: Vec<Arc<Repository>>,
    name: &'a str,
    watch: &'a mut dyn FnMut(&str, Progress),
    waiting: VecDeque<Errand>,
    running: JoinSet<(Errand, Result<Fetched, Obstacle>)>,
    /// Digests that were asked for, so that nothing is fetched twice.
    seen: HashSet<Digest>,
    /// Digests about which evidence was looked for.
    asked: HashSet<Digest>,
    entries: BTreeMap<Digest, Descriptor>,
    evidence: usize,
    progress: Progress,
    faults: Vec<Obstacle>,
}

impl<'a> Walk<'a> {
    fn new(
        store: &'a Arc<Store>,
        repositories: Vec<Arc<Repository>>,
        name: &'a str,
        watch: &'a mut dyn FnMut(&str, Progress),
    ) -> Self {
        Self {
            store,
            repositories,
            name,
            watch,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            seen: HashSet::new(),
            asked: HashSet::new(),
            entries: BTreeMap::new(),
            evidence: 0,
            progress: Progress::default(),
            faults: Vec::new(),
        }
    }

    async fn image(&mut self, reference: &Reference) -> Option<PulledImage> {
        (self.watch)(self.name, self.progress);
        let (root, platforms) = match self.root(reference).await {
            Ok(root) => root,
            Err(obstacle) => {
                self.faults.push(obstacle);
                return None;
            }
        };
        self.run().await;
        Some(PulledImage {
            name: self.name.to_owned(),
            digest: root,
            platforms,
            evidence: self.evidence,
        })
    }

    /// Fetches what the name stands for and plans the rest.
    async fn root(&mut self, reference: &Reference) -> Result<(Digest, usize), Obstacle> {
        let repository = self.repositories.first().cloned();
        let repository = repository.ok_or(Obstacle::NoImage)?;
        let document = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => repository.manifest(digest).await?,
            (None, tag) => repository.tagged(tag.unwrap_or_default()).await?,
        };
        let Document { descriptor, bytes } = document.ok_or(Obstacle::NoImage)?;
        let digest = descriptor.digest;
        let unreadable = |source| Obstacle::Document { digest, source };
        self.store.keep(digest, &bytes)?;
        self.progress.bytes += descriptor.size;
        self.seen.insert(digest);
        self.about(digest, 1);
        let mut platforms = 1;
        if oci::is_index(&descriptor.media_type) {
            let index = Index::parse(&bytes, &descriptor.media_type).map_err(unreadable)?;
            platforms = 0;
            for child in index
                .manifests
                .into_iter()
                .filter(|child| oci::is_manifest(&child.media_type))
            {
                if child
                    .annotations
                    .get(BUILDKIT_TYPE)
                    .is_some_and(|kind| kind == BUILDKIT_ATTESTATION)
                {
                    self.plan(&repository, Task::Manifest(child), 1);
                } else {
                    platforms += 1;
                    self.about(child.digest, 1);
                    self.plan(&repository, Task::Link(child), 1);
                }
            }
        } else {
            Manifest::parse(&bytes, &descriptor.media_type).map_err(unreadable)?;
        }
        let annotations = [(IMAGE.to_owned(), self.name.to_owned())];
        self.entries.insert(
            digest,
            Descriptor {
                annotations: annotations.into(),
                ..descriptor
            },
        );
        Ok((digest, platforms))
    }

    async fn run(&mut self) {
        loop {
            while self.running.len() < PARALLEL
                && let Some(errand) = self.waiting.pop_front()
            {
                let store = Arc::clone(self.store);
                self.running.spawn(async move {
                    let fetched = fetch(&store, &errand).await;
                    (errand, fetched)
                });
            }
            let Some(ended) = self.running.join_next().await else {
                return;
            };
            let done = match ended {
                Ok((errand, Ok(fetched))) => self.fetched(errand, fetched),
                Ok((_, Err(obstacle))) => Err(obstacle),
                Err(error) => Err(Obstacle::Died(error.to_string())),
            };
            if let Err(obstacle) = done {
                // Where one request fails like this, so do all others.
                if matches!(
                    obstacle,
                    Obstacle::Registry(RegistryError::Unreachable { .. } | RegistryError::Unauthorized { .. })
                        | Obstacle::TooMuch(_)
                        | Obstacle::Store(_)
                ) {
                    self.waiting.clear();
                    self.running.abort_all();
                    while self.running.join_next().await.is_some() {}
                }
                self.faults.push(obstacle);
            }
            self.progress.done += 1;
            (self.watch)(self.name, self.progress);
        }
    }

    fn fetched(&mut self, errand: Errand, fetched: Fetched) -> Result<(), Obstacle> {
        self.progress.bytes += fetched.bytes;
        if self.progress.bytes > MAX_BYTES {
            return Err(Obstacle::TooMuch("2 GiB of signatures and attestations"));
        }
        let Errand { task, repository, hops } = errand;
        match (fetched.what, task) {
            (What::Referrers(list), Task::Referrers(subject)) => {
                let list = list.unwrap_or_default();
                if list.is_empty() {
                    // No list, or one that older tools did not write to.
                    self.plan(&repository, Task::Tag(subject, ""), hops);
                }
                self.listed(&repository, list, hops);
            }
            (What::Document(document), Task::Tag(_, "")) if oci::is_index(&document.descriptor.media_type) => {
                let Document { descriptor, bytes } = *document;
                let index = Index::parse(&bytes, &descriptor.media_type).map_err(|source| Obstacle::Document {
                    digest: descriptor.digest,
                    source,
                })?;
                self.listed(&repository, index.manifests, hops);
            }
            (What::Document(document), Task::Tag(subject, suffix)) => {
                let mut document = document;
                let tag = format!("sha256-{}{suffix}", subject.hex());
                document.descriptor.annotations.insert(REF_NAME.to_owned(), tag);
                if self.seen.insert(document.descriptor.digest) {
                    self.manifest(&repository, &document, hops)?;
                }
            }
            (What::Document(document), Task::Manifest(listed)) => {
                // Its tag, if it has one, says more than the registry's list.
                let document = Document {
                    descriptor: Descriptor {
                        annotations: BTreeMap::new(),
                        ..listed
                    },
                    ..*document
                };
                self.manifest(&repository, &document, hops)?;
            }
            (What::Nothing, Task::Manifest(listed) | Task::Blob(listed, _)) => {
                return Err(Obstacle::Missing(listed.digest));
            }
            // A tag that nobody set, a platform that was not copied along, a blob that needs nothing more.
            _ => {}
        }
        Ok(())
    }

    fn listed(&mut self, repository: &Arc<Repository>, list: Vec<Descriptor>, hops: usize) {
        for descriptor in list.into_iter().filter(|listed| oci::is_manifest(&listed.media_type)) {
            self.plan(repository, Task::Manifest(descriptor), hops);
        }
    }

    /// Plans what a manifest with evidence needs.
    fn manifest(&mut self, repository: &Arc<Repository>, document: &Document, hops: usize) -> Result<(), Obstacle> {
        let Document { descriptor, bytes } = document;
        let digest = descriptor.digest;
        if !oci::is_manifest(&descriptor.media_type) {
            return Ok(());
        }
        let manifest =
            Manifest::parse(bytes, &descriptor.media_type).map_err(|source| Obstacle::Document { digest, source })?;
        let Sort::Evidence(layers) = Sort::of(&manifest) else {
            return Ok(());
        };
        self.evidence += 1;
        if self.evidence > MAX_DOCUMENTS {
            return Err(Obstacle::TooMuch("16384 signatures and attestations"));
        }
        self.store.keep(digest, bytes)?;
        self.entries.insert(digest, descriptor.clone());
        let signed = layers.iter().all(|(_, content)| content.is_signed());
        self.plan(repository, Task::Blob(manifest.config, MAX_CONFIG), hops);
        for (layer, content) in layers {
            self.plan(repository, Task::Blob(layer, Content::limit(content)), hops);
        }
        if !signed && hops < MAX_HOPS {
            self.about(digest, hops + 1);
        }
        Ok(())
    }

    /// Plans to look for everything that is about `subject`.
    fn about(&mut self, subject: Digest, hops: usize) {
        if !self.asked.insert(subject) {
            return;
        }
        for repository in self.repositories.clone() {
            self.plan(&repository, Task::Referrers(subject), hops);
            self.plan(&repository, Task::Tag(subject, ".sig"), hops);
            self.plan(&repository, Task::Tag(subject, ".att"), hops);
        }
    }

    fn plan(&mut self, repository: &Arc<Repository>, task: Task, hops: usize) {
        if let Task::Manifest(descriptor) | Task::Link(descriptor) | Task::Blob(descriptor, _) = &task
            && !self.seen.insert(descriptor.digest)
        {
            return;
        }
        self.progress.known += 1;
        self.waiting.push_back(Errand {
            task,
            repository: Arc::clone(repository),
            hops,
        });
    }
}

/// Does one errand. What is there already is not fetched.
async fn fetch(store: &Store, errand: &Errand) -> Result<Fetched, Obstacle> {
    let Errand { task, repository, .. } = errand;
    let fetched = |bytes: u64, what| Ok(Fetched { bytes, what });
    match task {
        Task::Referrers(subject) => fetched(0, What::Referrers(repository.referrers(*subject).await?)),
        Task::Tag(subject, suffix) => match repository.tagged(&format!("sha256-{}{suffix}", subject.hex())).await? {
            Some(document) => fetched(document.descriptor.size, What::Document(Box::new(document))),
            None => fetched(0, What::Nothing),
        },
        Task::Manifest(descriptor) | Task::Link(descriptor) => {
            if let Some(bytes) = store.find(descriptor.digest, oci::MAX_DOCUMENT)? {
                let descriptor = descriptor.clone();
                return fetched(0, What::Document(Box::new(Document { descriptor, bytes })));
            }
            let Some(document) = repository.manifest(descriptor.digest).await? else {
                return fetched(0, What::Nothing);
            };
            store.keep(descriptor.digest, &document.bytes)?;
            fetched(document.descriptor.size, What::Document(Box::new(document)))
        }
        Task::Blob(descriptor, limit) => {
            let Descriptor { digest, size, .. } = *descriptor;
            if size > *limit {
                return Err(Obstacle::TooLarge {
                    digest,
                    size,
                    limit: *limit,
                });
            }
            if store.find(digest, size)?.is_some() {
                return fetched(0, What::Blob);
            }
            let Some(bytes) = repository.blob(descriptor).await? else {
                return fetched(0, What::Nothing);
            };
            store.keep(digest, &bytes)?;
            fetched(size, What::Blob)
        }
    }
}
