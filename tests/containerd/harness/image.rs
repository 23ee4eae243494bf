//! Tiny images, written as OCI archives: a static busybox and nothing else.

use std::fs;
use std::io::Cursor;
use std::process::Command;

use assay::digest::Digest;
use serde_json::{Value, json};

/// An image with one layer.
#[derive(Debug, Clone)]
pub struct Image {
    /// Name under which it is imported.
    pub name: String,
    /// Digest of the only layer, which is also the chain ID.
    pub chain_id: Digest,
    /// Digest of the configuration.
    pub config: Digest,
    /// Digest of the manifest, which is what containerd's image record points at.
    pub manifest: Digest,
    /// The OCI layout as one tar file.
    pub archive: Vec<u8>,
}

impl Image {
    /// busybox with a link for each applet. `command` is what runs when nothing else is asked for; `marker` is
    /// written into the layer, so that images with different markers share no digest.
    pub fn busybox(name: &str, marker: &str, command: &[&str]) -> Self {
        let layer = busybox_layer(marker);
        let chain_id = Digest::of(&layer);
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Env": ["PATH=/bin"], "Cmd": command },
            "rootfs": { "type": "layers", "diff_ids": [chain_id] },
        }))
        .unwrap();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        }))
        .unwrap();
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        entry["annotations"] = json!({ "io.containerd.image.name": name });
        let index = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] })).unwrap();

        let mut archive = tar::Builder::new(Vec::new());
        add_file(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        add_file(&mut archive, "index.json", 0o644, &index);
        for blob in [&layer, &config, &manifest] {
            let path = format!("blobs/sha256/{}", Digest::of(blob).hex());
            add_file(&mut archive, &path, 0o644, blob);
        }
        Self {
            name: name.to_owned(),
            chain_id,
            config: Digest::of(&config),
            manifest: Digest::of(&manifest),
            archive: archive.into_inner().unwrap(),
        }
    }
}

fn busybox_layer(marker: &str) -> Vec<u8> {
    let program = fs::read("/bin/busybox").expect("the Debian package busybox-static provides /bin/busybox");
    let applets = Command::new("/bin/busybox").arg("--list").output().unwrap();
    let applets = String::from_utf8(applets.stdout).unwrap();

    let mut layer = tar::Builder::new(Vec::new());
    for folder in ["bin/", "etc/", "proc/", "sys/", "dev/", "tmp/", "run/"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if folder == "tmp/" { 0o1777 } else { 0o755 });
        header.set_size(0);
        layer.append_data(&mut header, folder, Cursor::new([])).unwrap();
    }
    add_file(&mut layer, "bin/busybox", 0o755, &program);
    add_file(
        &mut layer,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    );
    add_file(&mut layer, "etc/marker", 0o644, marker.as_bytes());
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        layer
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    layer.into_inner().unwrap()
}

fn add_file(archive: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).unwrap();
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(blob), "size": blob.len() })
}
