//! What a container really is, according to containerd and to the bytes that will be mounted.
//!
//! The question is what the request asks to mount; the answer is the image whose layers these are, proved by digests
//! that were computed here, or a [`Fault`]. Names, labels and annotations are kept apart from that: they select
//! policy and prove nothing. Who can forge them: whoever holds containerd's socket, and that is root on the node; a
//! pod's author chooses the image name and the Kubernetes namespace only as far as the API server lets them.
//!
//! What was attested stays true only as long as nobody with root changes unpacked layers: the chain ID says which
//! layers they were made from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::oci;

mod ahead;
mod census;
mod containerd;
mod fault;
mod image;
mod mounts;
mod remap;
mod spec;
mod unpacked;
mod volume;

pub use ahead::Trail;
pub use census::{Census, Inhabitant, census};
pub use fault::{Blob, Fault};
pub use image::{Image, is_this_platform};
pub use mounts::Mount;
pub use remap::{IdMapping, Mapping};
pub use spec::{Process, SpecMount, User};
pub use unpacked::{Unpacked, unpacked};

use containerd::Containerd;
use containerd_client::services::v1::Container;
use spec::Spec;

/// containerd namespace of Kubernetes.
const KUBERNETES: &str = "k8s.io";
/// containerd namespace of dockerd.
const DOCKER: &str = "moby";
const CONTAINER_METADATA: &str = "io.cri-containerd.container.metadata";
const SANDBOX_METADATA: &str = "io.cri-containerd.sandbox.metadata";
const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";
/// Programs that a pod's author wants to start besides the container's own.
const EXEC: &str = "assay.dev/exec";
const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// Longest name of an object of Kubernetes.
const MAX_NAME: usize = 253;

/// What is asked about a container.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Path of containerd's gRPC socket.
    pub containerd: &'a str,
    /// containerd namespace.
    pub namespace: &'a str,
    /// Container id.
    pub container: &'a str,
    /// The bundle.
    pub bundle: &'a Path,
    /// The mounts of the create request.
    pub rootfs: &'a [Mount],
    /// True when the task is restored from a checkpoint.
    pub checkpoint: bool,
    /// Whether the content store is searched for manifests and indexes of the image beside those that its names lead
    /// to. containerd looks at every blob that it has for that, however few belong to the image.
    pub thorough: bool,
    /// What led to the image of such a container before.
    pub trail: &'a Trail,
}

/// What a container is by its records, before anything is proved: what policy selects rules by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Image name as the user wrote it, else that of the container's record; may be empty.
    pub image: String,
    /// Kubernetes namespace of the pod, for containers that containerd's CRI made.
    pub kubernetes_namespace: Option<String>,
    /// The pod, for the same.
    pub pod: Option<Pod>,
    /// True for a pod's sandbox.
    pub sandbox: bool,
}

/// The pod that a container is of, by what Kubernetes calls it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What tells it from another one of the same name.
    pub uid: String,
    /// The container in it; empty for the sandbox.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
}

impl Pod {
    fn of(spec: &Spec) -> Option<Self> {
        let plain = |name: &str| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
            let text = spec.annotation(name)?;
            (text.len() <= MAX_NAME && text.chars().all(is_plain)).then(|| text.to_owned())
        };
        Some(Self {
            namespace: plain(SANDBOX_NAMESPACE)?,
            name: plain(SANDBOX_NAME)?,
            uid: plain(SANDBOX_UID)?,
            container: plain(CONTAINER_NAME).unwrap_or_default(),
        })
    }
}

/// Whether something was written to the container's own layer before it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upper {
    /// No: it is empty, or read-only.
    Empty,
    /// Yes: it has run before, or someone filled it.
    Used,
    /// The snapshotter keeps no directory of changes that could be looked into.
    Unknowable,
}

/// What is known about a container.
#[derive(Debug)]
pub struct Identity {
    /// Its records.
    pub record: Record,
    /// The image that its root file system was proved to be.
    pub root: Result<Image, Fault>,
    /// Where `root` is a fault: digests that the container's records name all the same, so that what is revoked is
    /// recognised.
    pub seen: Vec<Digest>,
    /// State of its own layer. [`Upper::Unknowable`] where `root` is a fault.
    pub upper: Upper,
    /// Its image volumes: where the container sees them, the name they were asked for by, and what they are.
    pub volumes: Result<Vec<Volume>, Fault>,
    /// What it starts, and what is mounted over its image.
    pub workload: Workload,
    /// OCI hooks, as `point path`.
    pub hooks: Vec<String>,
    /// Paths of added devices.
    pub devices: Vec<String>,
    /// What led to the image.
    pub trail: Trail,
}

/// What a container starts, from its final specification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its first process.
    pub process: Process,
    /// Whether its root file system is read-only.
    pub read_only_root: bool,
    /// What is mounted over its image, in order.
    pub mounts: Vec<SpecMount>,
    /// The pod's annotation `assay.dev/exec`.
    pub exec_annotation: Option<String>,
    /// Its seccomp profile, as JSON.
    pub seccomp: Option<String>,
}

/// An image volume.
#[derive(Debug)]
pub struct Volume {
    /// Where the container sees it.
    pub destination: String,
    /// Name of the image as the pod's author wrote it; may be empty.
    pub name: String,
    /// The image that its files were proved to be.
    pub image: Result<Image, Fault>,
}

/// What CRI notes about a container, in JSON, beside its record.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Versioned {
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Metadata {
    image_ref: String,
    config: Option<CriConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CriConfig {
    mounts: Option<Vec<CriMount>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CriMount {
    container_path: String,
    image: Option<CriImage>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CriImage {
    image: String,
    user_specified_image: String,
}

impl CriImage {
    fn name(&self) -> &str {
        match self.user_specified_image.as_str() {
            // kubelet sends what it pulled, which is a digest, beside what the user wrote.
            "" => self.image.as_str(),
            written => written,
        }
    }
}

/// Who made the container's record.
enum Maker {
    /// containerd's CRI, an ordinary container.
    Cri(Metadata),
    /// containerd's CRI, a sandbox.
    CriSandbox,
    /// Another client of containerd.
    Other,
}

/// Finds out what a container is.
///
/// # Errors
///
/// Only what leaves not even its records known: no containerd, no such container, no readable `config.json`. A
/// container that is known but could not be bound to an image is an [`Identity`] whose `root` is a [`Fault`].
pub async fn identify(question: Question<'_>) -> Result<Identity, Fault> {
    let mut containerd = Containerd::connect(question.containerd, question.namespace).await?;
    if !question.thorough {
        containerd = containerd.by_name_only();
    }
    containerd.set_out(question.trail, question.container);
    let (container, spec) = tokio::join!(containerd.container(question.container), async {
        // The questions go out first, so that containerd works on them meanwhile.
        tokio::task::yield_now().await;
        Spec::read(question.bundle)
    });
    let container = container?.ok_or_else(|| Fault::ContainerUnknown(question.container.to_owned()))?;
    let spec = spec?;
    let (record, maker) = records(question.namespace, &container, &spec);
    let maker = match maker {
        Ok(maker) => maker,
        Err(fault) => {
            return Ok(Identity {
                record,
                root: Err(fault),
                seen: Vec::new(),
                upper: Upper::Unknowable,
                volumes: Ok(Vec::new()),
                workload: workload(&spec),
                hooks: spec.hooks(),
                devices: spec.devices(),
                trail: containerd.trail(),
            });
        }
    };
    let noted = match &maker {
        Maker::Cri(metadata) => metadata.config.as_ref().and_then(|config| config.mounts.as_deref()),
        _ => None,
    };
    let (root, volumes) = tokio::join!(
        root(&containerd, &question, &container, &spec, &maker, &record.image),
        volumes(&containerd, &container.snapshotter, &spec, noted.unwrap_or_default()),
    );
    let (root, upper, seen) = match root {
        Ok((image, upper)) => (Ok(image), upper, Vec::new()),
        Err(fault) => {
            let seen = claim(&containerd, &container, &maker).await;
            (
                Err(fault),
                Upper::Unknowable,
                seen.map(|claim| claim.digests()).unwrap_or_default(),
            )
        }
    };
    Ok(Identity {
        record,
        root,
        seen,
        upper,
        volumes,
        workload: workload(&spec),
        hooks: spec.hooks(),
        devices: spec.devices(),
        trail: containerd.trail(),
    })
}

/// Finds the image that `name` stands for on this node, without a container: nothing is mounted, so nothing binds its
/// layers to a snapshot, and of several manifests this node's platform decides.
///
/// # Errors
///
/// What is missing, edited or ambiguous.
pub async fn image(socket: &str, namespace: &str, name: &str) -> Result<Image, Fault> {
    let containerd = Containerd::connect(socket, namespace).await?;
    let mut target = containerd.image(name).await?;
    if target.is_none()
        && let Ok(reference) = name.parse::<oci::Reference>()
    {
        target = containerd.image(&reference.to_string()).await?;
    }
    let target = target.ok_or_else(|| Fault::ImageUnknown(oci::shorten(name)))?;
    let found = image::manifests(&containerd, &target).await?;
    let configs = image::configs(&containerd, &found).await?;
    let missing = || Fault::PlatformMissing {
        name: oci::shorten(name),
        platform: image::platform(),
    };
    // An image of a single manifest is what would run, whatever its platform says.
    let candidates = match configs.as_slice() {
        [_] => configs,
        _ => configs
            .into_iter()
            .filter(|(_, config)| image::is_for_this_node(config))
            .collect(),
    };
    let (config, parsed) = one(name, candidates)?.ok_or_else(missing)?;
    let chain_id = image::chain(config, &parsed)?;
    let proposals = image::search(&containerd, &[config], &[]).await?;
    let (manifests, indexes) = image::complete(&containerd, config, found, proposals).await?;
    Ok(Image {
        name: name.to_owned(),
        config,
        manifests,
        indexes,
        chain_id,
    })
}

fn workload(spec: &Spec) -> Workload {
    Workload {
        process: spec.process(),
        read_only_root: spec.read_only_root(),
        mounts: spec.mounts().to_vec(),
        exec_annotation: spec.annotation(EXEC).map(str::to_owned),
        seccomp: spec.seccomp(),
    }
}

/// What a container of an image starts where nobody says otherwise.
///
/// # Errors
/// A configuration that is missing or was edited.
pub async fn defaults(socket: &str, namespace: &str, image: &Image) -> Result<Workload, Fault> {
    let containerd = Containerd::connect(socket, namespace).await?;
    let defaults = image::config(&containerd, image.config).await?.defaults;
    Ok(Workload {
        process: Process {
            args: defaults.entrypoint.into_iter().chain(defaults.cmd).collect(),
            env: defaults.env,
            cwd: if defaults.working_dir.is_empty() {
                "/".to_owned()
            } else {
                defaults.working_dir
            },
            ..Process::default()
        },
        ..Workload::default()
    })
}

/// The signal that asks containers of the image with this configuration to end, as its author wrote it; empty where they
/// did not.
///
/// # Errors
/// A configuration that is missing or was edited.
pub async fn stop_signal(socket: &str, namespace: &str, config: Digest) -> Result<String, Fault> {
    let containerd = Containerd::connect(socket, namespace).await?;
    Ok(image::config(&containerd, config).await?.defaults.stop_signal)
}

/// The processes of a container that runs, as the node numbers them.
///
/// # Errors
/// See [`Fault`]; `None` where no such container runs.
pub async fn processes(socket: &str, namespace: &str, container: &str) -> Result<Option<Vec<u32>>, Fault> {
    let containerd = Containerd::connect(socket, namespace).await?;
    containerd.processes(container).await
}

/// What a container starts, by its record.
///
/// # Errors
/// No such container, or one whose specification cannot be read.
pub async fn recorded(socket: &str, namespace: &str, container: &str) -> Result<(Record, Workload), Fault> {
    let containerd = Containerd::connect(socket, namespace).await?;
    let unknown = || Fault::ContainerUnknown(oci::shorten(container));
    let record = containerd.container(container).await?.ok_or_else(unknown)?;
    let spec = record
        .spec
        .as_ref()
        .map(|spec| spec.value.as_slice())
        .unwrap_or_default();
    let spec = Spec::parse(spec, Path::new("its record"))?;
    let (record, _) = records(namespace, &record, &spec);
    Ok((record, workload(&spec)))
}

/// Tells by what names policy knows a container, and who made it.
fn records(namespace: &str, container: &Container, spec: &Spec) -> (Record, Result<Maker, Fault>) {
    let other = Record {
        image: container.image.clone(),
        kubernetes_namespace: None,
        pod: None,
        sandbox: false,
    };
    if namespace != KUBERNETES {
        return (other, Ok(Maker::Other));
    }
    let is_sandbox = container.extensions.contains_key(SANDBOX_METADATA);
    let maker = match container.extensions.get(CONTAINER_METADATA) {
        Some(any) => match serde_json::from_slice::<Versioned>(&any.value) {
            Ok(versioned) => Maker::Cri(versioned.metadata),
            Err(error) => return (other, Err(Fault::AnnotationsForeign(error.to_string()))),
        },
        None if is_sandbox => Maker::CriSandbox,
        None => return (other, Ok(Maker::Other)),
    };
    // A record says what the container is; an annotation that says otherwise was not written by CRI.
    let expected = if is_sandbox { "sandbox" } else { "container" };
    let found = spec.annotation(CONTAINER_TYPE).unwrap_or_default();
    if found != expected {
        let what = format!("{CONTAINER_TYPE} is '{found}', expected '{expected}'");
        return (other, Err(Fault::AnnotationsForeign(what)));
    }
    let record = Record {
        image: match (&maker, spec.annotation(IMAGE_NAME)) {
            (Maker::Cri(_), Some(name)) => name.to_owned(),
            _ => container.image.clone(),
        },
        kubernetes_namespace: spec.annotation(SANDBOX_NAMESPACE).map(str::to_owned),
        pod: Pod::of(spec),
        sandbox: is_sandbox,
    };
    (record, Ok(maker))
}

async fn root(
    containerd: &Containerd,
    question: &Question<'_>,
    container: &Container,
    spec: &Spec,
    maker: &Maker,
    name: &str,
) -> Result<(Image, Upper), Fault> {
    if question.checkpoint {
        return Err(Fault::Checkpoint);
    }
    check_layout(question, container)?;
    spec.check_root(question.bundle)?;
    let (snapshotter, key) = (container.snapshotter.as_str(), container.snapshot_key.as_str());
    let missing = || Fault::SnapshotMissing {
        snapshotter: snapshotter.to_owned(),
        key: key.to_owned(),
    };
    let mapping = spec.mapping();
    let (parent, held, claimed) = tokio::try_join!(
        containerd.parent(snapshotter, key),
        containerd.mounts(snapshotter, key),
        claim(containerd, container, maker),
    )?;
    let parent = parent.ok_or_else(missing)?;
    if parent.is_empty() {
        return Err(Fault::SnapshotNoParent(key.to_owned()));
    }
    // dockerd puts a snapshot of its own between image and container, whatever its namespace is called.
    if parent.ends_with("-init") {
        return Err(Fault::DockerLayout);
    }
    mounts::compare(
        question.rootfs,
        &held.ok_or_else(missing)?,
        spec.mount_label(),
        &mapping,
    )?;
    let upper = upper(question.rootfs)?;
    let base = base(containerd, snapshotter, &parent, &mapping, &claimed).await?;
    let (config, chain_id) = match claimed {
        Claim::Config { digest, chain_id, .. } => {
            if base.as_ref() != Some(&chain_id) {
                return Err(Fault::SnapshotForeign {
                    parent,
                    image: format!("image configuration {digest}"),
                });
            }
            (digest, chain_id)
        }
        Claim::Image { ref configs, .. } => {
            let mut matching = Vec::new();
            for (digest, config) in configs {
                if config.diff_ids.is_empty() {
                    continue;
                }
                let chain_id = image::chain(*digest, config)?;
                if base.as_ref() == Some(&chain_id) {
                    matching.push((*digest, config.clone()));
                }
            }
            if matching.len() > 1 {
                matching.retain(|(_, config)| image::is_for_this_node(config));
            }
            let Some((digest, config)) = one(name, matching)? else {
                return Err(stranger(containerd, container, parent, configs.is_empty()).await?);
            };
            (digest, image::chain(digest, &config)?)
        }
    };
    let (Claim::Config { found, proposals, .. } | Claim::Image { found, proposals, .. }) = claimed;
    let (manifests, indexes) = image::complete(containerd, config, found, proposals).await?;
    if manifests.is_empty() {
        return Err(Fault::ContentMissing {
            what: Blob::Manifest,
            digest: config,
        });
    }
    let image = Image {
        name: name.to_owned(),
        config,
        manifests,
        indexes,
        chain_id,
    };
    Ok((image, upper))
}

/// What the container's record says its image is.
enum Claim {
    /// CRI notes the configuration's digest.
    Config {
        digest: Digest,
        chain_id: Digest,
        found: Vec<image::Found>,
        proposals: image::Proposals,
    },
    /// Other clients note a name, which may stand for several manifests.
    Image {
        found: Vec<image::Found>,
        configs: Vec<(Digest, oci::ImageConfig)>,
        proposals: image::Proposals,
    },
}

impl Claim {
    /// Every configuration, manifest and index on the way.
    fn digests(&self) -> Vec<Digest> {
        let (Self::Config { found, .. } | Self::Image { found, .. }) = self;
        let of_manifests = found.iter().flat_map(image::Found::digests);
        match self {
            Self::Config { digest, .. } => of_manifests.chain([*digest]).collect(),
            Self::Image { .. } => of_manifests.collect(),
        }
    }

    fn chains(&self) -> Vec<Digest> {
        match self {
            Self::Config { chain_id, .. } => vec![*chain_id],
            Self::Image { configs, .. } => configs
                .iter()
                .filter_map(|(_, config)| config.chain_id().ok())
                .collect(),
        }
    }
}

async fn claim(containerd: &Containerd, container: &Container, maker: &Maker) -> Result<Claim, Fault> {
    let Maker::Cri(metadata) = maker else {
        let target = containerd
            .image(&container.image)
            .await?
            .ok_or_else(|| Fault::ImageUnknown(oci::shorten(&container.image)))?;
        let found = image::manifests(containerd, &target).await?;
        let known: Vec<Digest> = found.iter().map(|found| found.digest).collect();
        let wanted: Vec<Digest> = found.iter().map(|found| found.config).collect();
        // For all of them, since waiting until it is known which one counts takes longer.
        let (configs, proposals) = tokio::try_join!(
            image::configs(containerd, &found),
            image::search(containerd, &wanted, &known),
        )?;
        return Ok(Claim::Image {
            found,
            configs,
            proposals,
        });
    };
    let digest: Digest = metadata
        .image_ref
        .parse()
        .map_err(|_| Fault::NoImage("its CRI record names no image configuration"))?;
    // CRI keeps a record under the configuration's digest beside those under the image's names.
    let (own, by_name) = (digest.to_string(), &container.image);
    let manifests = async |name: &str| match containerd.image(name).await? {
        None => Ok(Vec::new()),
        Some(target) => match image::manifests(containerd, &target).await {
            // The name may have moved on to an image whose content is gone; it is only one way to the manifests.
            Err(Fault::ContentMissing { .. }) => Ok(Vec::new()),
            other => other,
        },
    };
    let by_name = async || {
        if *by_name == own {
            Ok(Vec::new())
        } else {
            manifests(by_name).await
        }
    };
    let wanted = [digest];
    let (config, mut found, more, proposals) = tokio::try_join!(
        image::config(containerd, digest),
        manifests(&own),
        by_name(),
        image::search(containerd, &wanted, &[]),
    )?;
    found.extend(more);
    Ok(Claim::Config {
        digest,
        chain_id: image::chain(digest, &config)?,
        found,
        proposals,
    })
}

/// The chain ID, among those claimed, whose snapshot is the parent: directly, or through a copy for a user namespace.
async fn base(
    containerd: &Containerd,
    snapshotter: &str,
    parent: &str,
    mapping: &Mapping,
    claim: &Claim,
) -> Result<Option<Digest>, Fault> {
    for chain in claim.chains() {
        if parent == chain.to_string() {
            return Ok(Some(chain));
        }
        if mapping.parents(&chain).iter().any(|name| name == parent) {
            // The name alone proves nothing: what it was copied from has to be the image's.
            let above = containerd.parent(snapshotter, parent).await?.unwrap_or_default();
            if above == chain.to_string() {
                return Ok(Some(chain));
            }
        }
    }
    Ok(None)
}

/// Names what a snapshot is that none of the image's configurations belongs to.
async fn stranger(
    containerd: &Containerd,
    container: &Container,
    parent: String,
    nothing_read: bool,
) -> Result<Fault, Fault> {
    let name = oci::shorten(&container.image);
    if nothing_read {
        return Ok(Fault::PlatformMissing {
            name,
            platform: image::platform(),
        });
    }
    let owners = containerd.configs_of(&container.snapshotter, &parent).await?;
    Ok(if owners.is_empty() {
        Fault::SnapshotForeign { parent, image: name }
    } else {
        Fault::ImageRetagged { name, parent }
    })
}

fn check_layout(question: &Question<'_>, container: &Container) -> Result<(), Fault> {
    if question.namespace == DOCKER {
        return Err(Fault::DockerLayout);
    }
    if let Some(what) = rootless(&std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default()) {
        return Err(Fault::RootlessLayout { what: what.to_owned() });
    }
    if container.snapshot_key.is_empty() || container.snapshotter.is_empty() {
        return Err(Fault::NoImage("it has no snapshot, only a directory"));
    }
    if container.image.is_empty() {
        return Err(Fault::NoImage("its record names none"));
    }
    Ok(())
}

/// In a user namespace of its own, what this process calls root is not the node's.
fn rootless(uid_map: &str) -> Option<&'static str> {
    let fields: Vec<&str> = uid_map.split_whitespace().collect();
    (fields != ["0", "0", "4294967295"]).then_some("it is in a user namespace")
}

/// Exactly one of several candidates.
fn one(
    name: &str,
    mut candidates: Vec<(Digest, oci::ImageConfig)>,
) -> Result<Option<(Digest, oci::ImageConfig)>, Fault> {
    match candidates.as_slice() {
        [(first, _), (second, _), ..] => Err(Fault::ImageAmbiguous {
            name: oci::shorten(name),
            first: *first,
            second: *second,
        }),
        _ => Ok(candidates.pop()),
    }
}

async fn volumes(
    containerd: &Containerd,
    snapshotter: &str,
    spec: &Spec,
    noted: &[CriMount],
) -> Result<Vec<Volume>, Fault> {
    if snapshotter.is_empty() {
        return Ok(Vec::new());
    }
    let mapping = spec.mapping();
    let mut volumes = Vec::new();
    for candidate in volume::find(containerd, snapshotter, spec, noted).await? {
        volumes.push(Volume {
            image: volume::bind(containerd, snapshotter, &candidate, &mapping).await,
            destination: candidate.destination,
            name: candidate.name,
        });
    }
    Ok(volumes)
}

/// Looks whether the directory that takes the container's changes is still empty.
fn upper(mounts: &[Mount]) -> Result<Upper, Fault> {
    for mount in mounts {
        if let Some(path) = mount.option("upperdir") {
            let unreadable = |source| Fault::UpperUnreadable {
                path: path.to_owned(),
                source,
            };
            let mut entries = std::fs::read_dir(path).map_err(unreadable)?;
            return match entries.next() {
                None => Ok(Upper::Empty),
                Some(Ok(_)) => Ok(Upper::Used),
                Some(Err(source)) => Err(unreadable(source)),
            };
        }
    }
    // Without a directory of changes, only a read-only mount is known to have none. Overlays of lower directories
    // alone are read-only by nature.
    let read_only = mounts
        .iter()
        .all(|mount| mount.r#type == "overlay" || mount.options.iter().any(|option| option == "ro" || option == "rro"));
    Ok(if read_only { Upper::Empty } else { Upper::Unknowable })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.to_owned(),
            source: "/source".to_owned(),
            target: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_writable_layer_is_looked_into() {
        let folder = tempfile::tempdir().unwrap();
        let option = format!("upperdir={}", folder.path().display());
        let overlay = [mount("overlay", &["lowerdir=/a:/b", &option])];
        assert_eq!(upper(&overlay).unwrap(), Upper::Empty);
        std::fs::write(folder.path().join(".hidden"), "").unwrap();
        assert_eq!(upper(&overlay).unwrap(), Upper::Used);
        let gone = [mount("overlay", &["upperdir=/no/such/directory"])];
        assert_eq!(upper(&gone).unwrap_err().code(), "upper-unreadable");
        // Views have no directory of changes and need none; other snapshotters have one that cannot be seen.
        assert_eq!(upper(&[mount("overlay", &["lowerdir=/a:/b"])]).unwrap(), Upper::Empty);
        assert_eq!(upper(&[mount("bind", &["ro", "rbind"])]).unwrap(), Upper::Empty);
        assert_eq!(upper(&[mount("bind", &["rw", "rbind"])]).unwrap(), Upper::Unknowable);
        assert_eq!(upper(&[mount("ext4", &[])]).unwrap(), Upper::Unknowable);
    }

    #[test]
    fn only_the_whole_identity_is_no_user_namespace() {
        assert_eq!(rootless("         0          0 4294967295\n"), None);
        for mapped in [
            "",
            "0 1000 1",
            "0 0 65536",
            "0 0 4294967295\n1 1 1",
            "0 100000 4294967295",
        ] {
            assert!(rootless(mapped).is_some(), "{mapped}");
        }
    }

    #[test]
    fn layouts_that_are_not_supported_have_their_own_codes() {
        let trail = Trail::default();
        let question = |namespace| Question {
            containerd: "/c.sock",
            namespace,
            container: "c",
            bundle: Path::new("/b"),
            rootfs: &[],
            checkpoint: false,
            thorough: true,
            trail: &trail,
        };
        let container = |image: &str, key: &str| Container {
            image: image.to_owned(),
            snapshotter: if key.is_empty() {
                String::new()
            } else {
                "overlayfs".to_owned()
            },
            snapshot_key: key.to_owned(),
            ..Container::default()
        };
        let code = |namespace, image, key| {
            check_layout(&question(namespace), &container(image, key))
                .err()
                .map_or("supported", |fault| fault.code())
        };
        assert_eq!(code("moby", "app", "c"), "docker-layout");
        assert_eq!(code("default", "app", ""), "no-image");
        assert_eq!(code("default", "", "c"), "no-image");
    }

    fn cri(extension: &str, kind: &str, image_name: &str) -> (Record, Result<Maker, Fault>) {
        let container = Container {
            image: "docker.io/library/app:1".to_owned(),
            extensions: [(
                extension.to_owned(),
                prost_types::Any {
                    type_url: "github.com/containerd/cri/pkg/store/container/Metadata".to_owned(),
                    value: br#"{"Version":"v1","Metadata":{"ImageRef":"sha256:00","Config":null}}"#.to_vec(),
                },
            )]
            .into(),
            ..Container::default()
        };
        let spec = format!(
            r#"{{"annotations":{{"{CONTAINER_TYPE}":"{kind}","{IMAGE_NAME}":"{image_name}","{SANDBOX_NAMESPACE}":"prod","{SANDBOX_NAME}":"web","{SANDBOX_UID}":"8d5f","{CONTAINER_NAME}":"main"}}}}"#
        );
        records(KUBERNETES, &container, &oci::json::parse(spec.as_bytes()).unwrap())
    }

    #[test]
    fn names_come_from_cri_only_where_cri_made_the_container() {
        let (record, maker) = cri(CONTAINER_METADATA, "container", "app:1");
        assert_eq!(record.image, "app:1");
        assert_eq!(record.kubernetes_namespace.as_deref(), Some("prod"));
        let pod = record.pod.unwrap();
        let names = [pod.namespace, pod.name, pod.uid, pod.container];
        assert_eq!(names, ["prod", "web", "8d5f", "main"]);
        assert!(!record.sandbox && matches!(maker, Ok(Maker::Cri(metadata)) if metadata.image_ref == "sha256:00"));
        let (record, maker) = cri(SANDBOX_METADATA, "sandbox", "pause-like");
        assert_eq!(record.image, "docker.io/library/app:1");
        assert!(record.sandbox && matches!(maker, Ok(Maker::CriSandbox)));
        // Annotations without CRI's record are anybody's.
        let (record, maker) = cri("something.else", "sandbox", "trusted:1");
        assert_eq!(record.image, "docker.io/library/app:1");
        assert_eq!((record.kubernetes_namespace, record.pod), (None, None));
        assert!(!record.sandbox && matches!(maker, Ok(Maker::Other)));
        // A container does not become a sandbox by saying so, nor the reverse.
        for (extension, kind) in [(CONTAINER_METADATA, "sandbox"), (SANDBOX_METADATA, "container")] {
            let (record, maker) = cri(extension, kind, "app:1");
            let Err(fault) = maker else {
                panic!("{extension} with {kind} was believed")
            };
            assert_eq!(fault.code(), "annotations-foreign");
            assert_eq!(record.kubernetes_namespace, None);
        }
    }
}
