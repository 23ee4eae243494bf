//! What containerd has altogether: for clearing up what nothing on this node needs any more, and for what another policy
//! would say about it.

use std::collections::BTreeSet;
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::{ListContainersRequest, ListImagesRequest, ListNamespacesRequest};
use tonic::{Request, Status};

use super::containerd::Containerd;
use super::{Blob, Fault};
use crate::digest::Digest;
use crate::oci::{self, Index};

/// Label by which CRI says what kind of container it is.
const KIND: &str = "io.cri-containerd.kind";
/// Label with the Kubernetes namespace of the pod.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";

/// Longest time for one call to containerd.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A container of any namespace, running or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inhabitant {
    /// containerd namespace.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// Name of the image in its record; may be empty.
    pub name: String,
    /// Whether its labels call it the sandbox of a pod. They prove nothing, and decide nothing.
    pub is_sandbox: bool,
    /// Kubernetes namespace that its labels name; proves nothing either.
    pub kubernetes_namespace: Option<String>,
    /// Digests of the image that its record names: the index, where there is one, and its manifests. Empty when that
    /// name stands for nothing any more.
    pub image: BTreeSet<Digest>,
}

/// Images and containers of all namespaces.
#[derive(Debug, Default)]
pub struct Census {
    /// Digests of all images: indexes with the manifests that they list, and manifests.
    pub images: BTreeSet<Digest>,
    /// Namespace, name and digest of all records of images.
    pub named: BTreeSet<(String, String, Digest)>,
    /// All containers.
    pub containers: Vec<Inhabitant>,
}

/// Asks containerd at `socket` for everything it has.
///
/// # Errors
/// A containerd that does not answer. What an index that cannot be read lists is not known; what nothing is known
/// about must not be taken for gone, so that is an error too.
pub fn census(socket: &str) -> Result<Census, Fault> {
    let unreachable = |why: String| Fault::Unreachable {
        socket: socket.to_owned(),
        why,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    runtime.block_on(count(socket))
}

async fn count(socket: &str) -> Result<Census, Fault> {
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    let unreachable = |why: String| Fault::Unreachable {
        socket: socket.to_owned(),
        why,
    };
    let channel = containerd_client::connect(path)
        .await
        .map_err(|error| unreachable(super::containerd::innermost(&error)))?;
    let failed = |status: Status| unreachable(oci::shorten(status.message()));
    let mut request = Request::new(ListNamespacesRequest::default());
    request.set_timeout(CALL_TIMEOUT);
    let namespaces = NamespacesClient::new(channel.clone())
        .list(request)
        .await
        .map_err(failed)?;
    let mut census = Census::default();
    for namespace in namespaces.into_inner().namespaces {
        let containerd = Containerd::connect(socket, &namespace.name).await?;
        let mut request = containerd.request(ListImagesRequest::default());
        request.set_timeout(CALL_TIMEOUT);
        let images = ImagesClient::new(channel.clone()).list(request).await.map_err(failed)?;
        let mut named = std::collections::HashMap::new();
        for image in images.into_inner().images {
            let Some(target) = image.target else {
                continue;
            };
            let Ok(digest) = target.digest.parse() else {
                continue;
            };
            let mut digests = BTreeSet::from([digest]);
            if oci::is_index(&target.media_type) {
                let bytes = match containerd.blob(Blob::Manifest, digest).await {
                    Ok(bytes) => bytes,
                    // An image whose pull has not come that far.
                    Err(Fault::ContentMissing { .. }) => Vec::new(),
                    Err(fault) => return Err(fault),
                };
                let index = Index::parse(&bytes, &target.media_type);
                digests.extend(
                    index
                        .iter()
                        .flat_map(|index| &index.manifests)
                        .map(|child| child.digest),
                );
            }
            census.images.extend(&digests);
            census
                .named
                .insert((namespace.name.clone(), image.name.clone(), digest));
            named.insert(image.name, digests);
        }
        let mut request = containerd.request(ListContainersRequest::default());
        request.set_timeout(CALL_TIMEOUT);
        let containers = ContainersClient::new(channel.clone())
            .list(request)
            .await
            .map_err(failed)?;
        let containers = containers.into_inner().containers.into_iter();
        census.containers.extend(containers.map(|container| Inhabitant {
            namespace: namespace.name.clone(),
            image: named.get(&container.image).cloned().unwrap_or_default(),
            is_sandbox: container.labels.get(KIND).is_some_and(|kind| kind == "sandbox"),
            kubernetes_namespace: container.labels.get(POD_NAMESPACE).cloned(),
            name: container.image,
            id: container.id,
        }));
    }
    Ok(census)
}
