//! The layers of an image as containerd unpacked them: a read-only snapshot, there for as long as somebody looks at it.

use std::collections::HashMap;
use std::time::Duration;

use containerd_client::services::v1::leases_client::LeasesClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest};
use containerd_client::services::v1::{CreateRequest, DeleteRequest, InfoRequest};
use jiff::Timestamp;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};

use super::containerd::Containerd;
use super::mounts::Mount;
use super::{Fault, Image};
use crate::oci;

/// Label of an image's configuration that names the snapshot of its layers, without the snapshotter's name.
const UNPACKED: &str = "containerd.io/gc.ref.snapshot.";
/// Label of a lease: when containerd may forget it.
const EXPIRY: &str = "containerd.io/gc.expire";
/// Metadata of a call: the lease that holds what it makes.
const LEASE: &str = "containerd-lease";
/// How long the snapshot stays when nobody is left to remove it.
const LEASE_TIME: Duration = Duration::from_secs(600);

/// A read-only snapshot of an image's layers. Without [`Unpacked::release`], containerd removes it after ten minutes.
#[derive(Debug)]
pub struct Unpacked {
    containerd: Containerd,
    snapshotter: String,
    key: String,
    /// What has to be mounted to see the files.
    pub mounts: Vec<Mount>,
}

/// Asks containerd for a read-only snapshot of an image's layers, from whichever snapshotter they were unpacked with.
///
/// # Errors
/// An image that is not unpacked on this node, or a containerd that does not answer.
pub async fn unpacked(socket: &str, namespace: &str, image: &Image) -> Result<Unpacked, Fault> {
    let containerd = Containerd::connect(socket, namespace).await?;
    let chain = image.chain_id.to_string();
    let snapshotter = snapshotter(&containerd, image, &chain).await?;
    let now = Timestamp::now();
    let key = format!("assay-{}-{}", std::process::id(), now.as_nanosecond());
    let expiry = (now + LEASE_TIME).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let request = containerd.request(CreateRequest {
        id: key.clone(),
        labels: HashMap::from([(EXPIRY.to_owned(), expiry)]),
    });
    LeasesClient::new(containerd.channel())
        .create(request)
        .await
        .map_err(|status| containerd.fault("Leases.Create", &status))?;
    let mut unpacked = Unpacked {
        containerd,
        snapshotter,
        key,
        mounts: Vec::new(),
    };
    let request = unpacked.leased(ViewSnapshotRequest {
        snapshotter: unpacked.snapshotter.clone(),
        key: unpacked.key.clone(),
        parent: chain,
        labels: HashMap::new(),
    });
    match SnapshotsClient::new(unpacked.containerd.channel()).view(request).await {
        Ok(answer) => {
            unpacked.mounts = answer
                .into_inner()
                .mounts
                .into_iter()
                .map(|mount| Mount {
                    r#type: mount.r#type,
                    source: mount.source,
                    target: mount.target,
                    options: mount.options,
                })
                .collect();
            Ok(unpacked)
        }
        Err(status) => {
            let fault = unpacked.containerd.fault("Snapshots.View", &status);
            unpacked.release().await;
            Err(fault)
        }
    }
}

async fn snapshotter(containerd: &Containerd, image: &Image, chain: &str) -> Result<String, Fault> {
    let request = containerd.request(InfoRequest {
        digest: image.config.to_string(),
    });
    let answer = containerd_client::services::v1::content_client::ContentClient::new(containerd.channel())
        .info(request)
        .await
        .map_err(|status| containerd.fault("Content.Info", &status))?;
    let labels = answer.into_inner().info.map(|info| info.labels).unwrap_or_default();
    let mut snapshotters: Vec<&str> = labels
        .iter()
        .filter(|(_, snapshot)| snapshot.as_str() == chain)
        .filter_map(|(label, _)| label.strip_prefix(UNPACKED))
        .collect();
    // Any will do: the chain ID says that the layers are the same. The same one each time.
    snapshotters.sort_unstable();
    match snapshotters.first() {
        Some(snapshotter) => Ok((*snapshotter).to_owned()),
        None => Err(Fault::NotUnpacked(oci::shorten(&image.name))),
    }
}

impl Unpacked {
    fn leased<T>(&self, message: T) -> Request<T> {
        let mut request = self.containerd.request(message);
        // The key has letters, digits and dashes only.
        if let Ok(lease) = self.key.parse::<MetadataValue<Ascii>>() {
            request.metadata_mut().insert(LEASE, lease);
        }
        request
    }

    /// Removes the snapshot. What cannot be removed now goes with its lease.
    pub async fn release(self) {
        let request = self.leased(RemoveSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: self.key.clone(),
        });
        let _ = SnapshotsClient::new(self.containerd.channel()).remove(request).await;
        let request = self.containerd.request(DeleteRequest {
            id: self.key.clone(),
            sync: false,
        });
        let _ = LeasesClient::new(self.containerd.channel()).delete(request).await;
    }
}
