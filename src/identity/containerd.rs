//! The few calls to containerd that identity needs, every answer bounded and every blob re-hashed.

use std::sync::Arc;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::content_client::ContentClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{MountsRequest, StatSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, GetContainerRequest, GetImageRequest, ListContentRequest, ListPidsRequest, ReadContentRequest,
};
use containerd_client::types::Descriptor;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::Fault;
use super::ahead::{Ahead, Search, Snapshot, Trail};
use super::fault::Blob;
use super::mounts::Mount;
use crate::digest::Digest;
use crate::oci;

/// Most blobs that one search of the content store returns; more than one configuration is ever listed by, and few
/// enough to be held at once: others can push manifests that name a configuration too.
const MAX_FOUND: usize = 64;
/// Positions in an index at which a manifest is searched. containerd labels an index with the place of each of its
/// manifests, and can only be asked for a place and a manifest together.
const MAX_INDEX_PLACES: usize = 64;

/// A connection to containerd, in one namespace.
#[derive(Debug, Clone)]
pub(super) struct Containerd {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    socket: Arc<str>,
    ahead: Arc<Ahead>,
    thorough: bool,
}

impl Containerd {
    pub(super) async fn connect(socket: &str, namespace: &str) -> Result<Self, Fault> {
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        let namespace = namespace
            .parse()
            .map_err(|_| Fault::Namespace(oci::shorten(namespace)))?;
        let channel = containerd_client::connect(path)
            .await
            .map_err(|error| Fault::Unreachable {
                socket: socket.to_owned(),
                why: innermost(&error),
            })?;
        Ok(Self {
            channel,
            namespace,
            socket: socket.into(),
            ahead: Arc::default(),
            thorough: true,
        })
    }

    /// Leaves the content store unsearched: only what names lead to is found.
    pub(super) fn by_name_only(mut self) -> Self {
        self.thorough = false;
        self
    }

    /// Asks the questions of a trail about a container without waiting for their answers.
    pub(super) fn set_out(&self, trail: &Trail, container: &str) {
        let ahead = &self.ahead;
        for name in &trail.images {
            let (containerd, name) = (self.clone(), name.clone());
            ahead
                .images
                .start(name.clone(), async move { containerd.get_image(&name).await });
        }
        for snapshotter in &trail.snapshotters {
            let snapshot = (snapshotter.clone(), container.to_owned());
            let (containerd, of) = (self.clone(), snapshot.clone());
            ahead
                .parents
                .start(snapshot.clone(), async move { containerd.stat(&of).await });
            let (containerd, of) = (self.clone(), snapshot.clone());
            ahead
                .mounts
                .start(snapshot, async move { containerd.get_mounts(&of).await });
        }
        for &(what, digest) in &trail.blobs {
            let containerd = self.clone();
            ahead
                .blobs
                .start((what, digest), async move { containerd.read(what, digest).await });
        }
        if !self.thorough {
            // Not asked, and not forgotten.
            ahead.note(|asked| {
                asked.searches.clone_from(&trail.searches);
                true
            });
            return;
        }
        for search in &trail.searches {
            let (containerd, filters) = (self.clone(), filters(search));
            ahead
                .searches
                .start(search.clone(), async move { containerd.list(filters).await });
        }
    }

    /// Every question about an image that was asked so far.
    pub(super) fn trail(&self) -> Trail {
        self.ahead.trail()
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        request
    }

    /// The channel for calls that are not made here.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// What a failed call means, also when the thing does not exist.
    pub(super) fn fault(&self, call: &'static str, status: &Status) -> Fault {
        self.failed(call, status).unwrap_or_else(|| Fault::Call {
            call,
            code: name(Code::NotFound),
            message: oci::shorten(status.message()),
        })
    }

    /// What a failed call means; `None` when the thing does not exist.
    fn failed(&self, call: &'static str, status: &Status) -> Option<Fault> {
        match status.code() {
            Code::NotFound => None,
            Code::Unavailable => Some(Fault::Unreachable {
                socket: self.socket.to_string(),
                why: oci::shorten(status.message()),
            }),
            code => Some(Fault::Call {
                call,
                code: name(code),
                message: oci::shorten(status.message()),
            }),
        }
    }

    pub(super) async fn container(&self, id: &str) -> Result<Option<Container>, Fault> {
        let request = self.request(GetContainerRequest { id: id.to_owned() });
        match ContainersClient::new(self.channel.clone()).get(request).await {
            Ok(answer) => Ok(answer.into_inner().container),
            Err(status) => self.failed("Containers.Get", &status).map_or(Ok(None), Err),
        }
    }

    /// The processes of a container that runs.
    pub(super) async fn processes(&self, id: &str) -> Result<Option<Vec<u32>>, Fault> {
        let container_id = id.to_owned();
        let request = self.request(ListPidsRequest { container_id });
        match TasksClient::new(self.channel.clone()).list_pids(request).await {
            Ok(answer) => {
                let processes = answer.into_inner().processes;
                Ok(Some(processes.iter().map(|process| process.pid).collect()))
            }
            Err(status) => self.failed("Tasks.ListPids", &status).map_or(Ok(None), Err),
        }
    }

    /// What an image name stands for now.
    pub(super) async fn image(&self, name: &str) -> Result<Option<Descriptor>, Fault> {
        self.ahead.note(|trail| trail.images.insert(name.to_owned()));
        self.ahead.images.or(name.to_owned(), self.get_image(name)).await
    }

    async fn get_image(&self, name: &str) -> Result<Option<Descriptor>, Fault> {
        let request = self.request(GetImageRequest { name: name.to_owned() });
        match ImagesClient::new(self.channel.clone()).get(request).await {
            Ok(answer) => Ok(answer.into_inner().image.and_then(|image| image.target)),
            Err(status) => self.failed("Images.Get", &status).map_or(Ok(None), Err),
        }
    }

    /// Parent of a snapshot, empty when it has none.
    pub(super) async fn parent(&self, snapshotter: &str, key: &str) -> Result<Option<String>, Fault> {
        let snapshot = (snapshotter.to_owned(), key.to_owned());
        self.ahead.parents.or(snapshot.clone(), self.stat(&snapshot)).await
    }

    async fn stat(&self, (snapshotter, key): &Snapshot) -> Result<Option<String>, Fault> {
        let request = self.request(StatSnapshotRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
        });
        match SnapshotsClient::new(self.channel.clone()).stat(request).await {
            Ok(answer) => Ok(answer.into_inner().info.map(|info| info.parent)),
            Err(status) => self.failed("Snapshots.Stat", &status).map_or(Ok(None), Err),
        }
    }

    pub(super) async fn mounts(&self, snapshotter: &str, key: &str) -> Result<Option<Vec<Mount>>, Fault> {
        self.ahead
            .note(|trail| trail.snapshotters.insert(snapshotter.to_owned()));
        let snapshot = (snapshotter.to_owned(), key.to_owned());
        self.ahead.mounts.or(snapshot.clone(), self.get_mounts(&snapshot)).await
    }

    async fn get_mounts(&self, (snapshotter, key): &Snapshot) -> Result<Option<Vec<Mount>>, Fault> {
        let request = self.request(MountsRequest {
            snapshotter: snapshotter.clone(),
            key: key.clone(),
        });
        match SnapshotsClient::new(self.channel.clone()).mounts(request).await {
            Ok(answer) => {
                let mounts = answer.into_inner().mounts.into_iter();
                Ok(Some(
                    mounts
                        .map(|mount| Mount {
                            r#type: mount.r#type,
                            source: mount.source,
                            target: mount.target,
                            options: mount.options,
                        })
                        .collect(),
                ))
            }
            Err(status) => self.failed("Snapshots.Mounts", &status).map_or(Ok(None), Err),
        }
    }

    /// The bytes of a blob, of which `digest` has been computed again.
    pub(super) async fn blob(&self, what: Blob, digest: Digest) -> Result<Vec<u8>, Fault> {
        self.ahead.note(|trail| trail.blobs.insert((what, digest)));
        self.ahead.blobs.or((what, digest), self.read(what, digest)).await
    }

    async fn read(&self, what: Blob, digest: Digest) -> Result<Vec<u8>, Fault> {
        const LIMIT: u64 = oci::MAX_DOCUMENT;
        let missing = || Fault::ContentMissing { what, digest };
        let request = self.request(ReadContentRequest {
            digest: digest.to_string(),
            offset: 0,
            // containerd answers with less where the blob is smaller.
            size: i64::try_from(LIMIT + 1).unwrap_or(i64::MAX),
        });
        let failed = |status: Status| self.failed("Content.Read", &status).unwrap_or_else(missing);
        let mut stream = ContentClient::new(self.channel.clone())
            .read(request)
            .await
            .map_err(failed)?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(part) = stream.message().await.map_err(failed)? {
            bytes.extend_from_slice(&part.data);
            if bytes.len() as u64 > LIMIT {
                return Err(Fault::ContentTooLarge {
                    what,
                    digest,
                    limit: LIMIT,
                });
            }
        }
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(Fault::ContentEdited { what, digest, found });
        }
        Ok(bytes)
    }

    /// Digests of blobs labelled as manifests of one of the image configurations `configs`.
    pub(super) async fn manifests_of(&self, configs: &[Digest]) -> Result<Vec<Digest>, Fault> {
        self.find(Search::Manifests(configs.to_vec())).await
    }

    /// Digests of blobs labelled as indexes that list one of `manifests`.
    pub(super) async fn indexes_of(&self, manifests: &[Digest]) -> Result<Vec<Digest>, Fault> {
        self.find(Search::Indexes(manifests.to_vec())).await
    }

    /// Digests of blobs labelled as configurations that were unpacked to the snapshot `chain`.
    pub(super) async fn configs_of(&self, snapshotter: &str, chain: &str) -> Result<Vec<Digest>, Fault> {
        // Both become part of a quoted filter.
        if [snapshotter, chain].iter().any(|text| text.contains(['"', '\\'])) {
            return Ok(Vec::new());
        }
        self.list(vec![format!(
            "labels.\"containerd.io/gc.ref.snapshot.{snapshotter}\"==\"{chain}\""
        )])
        .await
    }

    async fn find(&self, search: Search) -> Result<Vec<Digest>, Fault> {
        // containerd takes a search for nothing as one for everything.
        if search.is_empty() || !self.thorough {
            return Ok(Vec::new());
        }
        let question = self.list(filters(&search));
        self.ahead.note(|trail| trail.searches.insert(search.clone()));
        self.ahead.searches.or(search, question).await
    }

    async fn list(&self, filters: Vec<String>) -> Result<Vec<Digest>, Fault> {
        let request = self.request(ListContentRequest { filters });
        let failed = |status: Status| {
            self.failed("Content.List", &status).unwrap_or(Fault::Call {
                call: "Content.List",
                code: name(Code::NotFound),
                message: String::new(),
            })
        };
        let mut stream = ContentClient::new(self.channel.clone())
            .list(request)
            .await
            .map_err(failed)?
            .into_inner();
        let mut found = Vec::new();
        while let Some(part) = stream.message().await.map_err(failed)? {
            // What has no SHA-256 digest is no blob of an image that Assay could check.
            found.extend(part.info.iter().filter_map(|info| info.digest.parse::<Digest>().ok()));
            if found.len() >= MAX_FOUND {
                break;
            }
        }
        found.truncate(MAX_FOUND);
        Ok(found)
    }
}

/// A search in containerd's words.
fn filters(search: &Search) -> Vec<String> {
    match search {
        Search::Manifests(configs) => configs
            .iter()
            .map(|config| format!("labels.\"containerd.io/gc.ref.content.config\"==\"{config}\""))
            .collect(),
        Search::Indexes(manifests) => manifests
            .iter()
            .flat_map(|manifest| {
                (0..MAX_INDEX_PLACES)
                    .map(move |place| format!("labels.\"containerd.io/gc.ref.content.m.{place}\"==\"{manifest}\""))
            })
            .collect(),
    }
}

/// The error at the end of a chain: "transport error" helps nobody, "No such file or directory" does.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
