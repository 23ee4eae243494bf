//! A registry of the test's own, into which it puts whatever it likes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use assay::digest::Digest;
use serde_json::{Value, json};

use crate::pki::Layer;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
const PATIENCE: Duration = Duration::from_secs(20);

/// The only repository.
pub const REPOSITORY: &str = "app";

/// The registry that `make setup` installs; dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    pub address: String,
}

impl Registry {
    pub fn start(folder: &Path) -> Self {
        let file = folder.join("registry.yml");
        let log = folder.join("registry.log");
        fs::write(
            &file,
            format!(
                "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: '127.0.0.1:0', secret: tests}}\n",
                folder.join("registry").display()
            ),
        )
        .unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/registry/bin/docker-registry");
        let out = fs::File::create(&log).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .expect("docker-registry is not in target/tools: run `make setup`");
        let mut registry = Self {
            child,
            address: String::new(),
        };
        let since = Instant::now();
        loop {
            let said = fs::read_to_string(&log).unwrap();
            if let Some((_, after)) = said.split_once("listening on ") {
                let end = after.find(['"', ',', ' ', '\n']).unwrap_or(after.len());
                after[..end].clone_into(&mut registry.address);
                // Every manifest refers to it. The registry does not bear the same upload twice at a time.
                registry.blob(b"{}");
                return registry;
            }
            assert!(since.elapsed() < PATIENCE, "the registry does not start: {said}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Puts an image without any signature there.
    pub fn image(&self, manifest: &[u8]) -> Digest {
        self.document(&Digest::of(manifest).to_string(), MANIFEST, manifest)
    }

    /// Attaches bundles to an image, where registries without the referrers API have them.
    pub fn attach(&self, image: Digest, bundles: &[String]) {
        let attached: Vec<Value> = bundles
            .iter()
            .map(|bundle| {
                let mut manifest = of_layers(json!([self.described(BUNDLE, bundle.as_bytes())]));
                manifest["artifactType"] = BUNDLE.into();
                manifest["subject"] = json!({"mediaType": MANIFEST, "digest": image.to_string(), "size": 1});
                let bytes = manifest.to_string().into_bytes();
                let digest = self
                    .document(&Digest::of(&bytes).to_string(), MANIFEST, &bytes)
                    .to_string();
                json!({"mediaType": MANIFEST, "artifactType": BUNDLE, "digest": digest, "size": bytes.len()})
            })
            .collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": attached});
        self.document(&format!("sha256-{}", image.hex()), INDEX, index.to_string().as_bytes());
    }

    /// Puts a layer where cosign's older layout has it.
    pub fn tag(&self, image: Digest, layer: &Layer) {
        let kind = if layer.media_type.contains("simplesigning") {
            "sig"
        } else {
            "att"
        };
        let mut described = self.described(layer.media_type, &layer.blob);
        described["annotations"] = json!(layer.annotations);
        let manifest = of_layers(json!([described]));
        self.document(
            &format!("sha256-{}.{kind}", image.hex()),
            MANIFEST,
            manifest.to_string().as_bytes(),
        );
    }

    fn described(&self, media_type: &str, blob: &[u8]) -> Value {
        self.blob(blob);
        json!({"mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len()})
    }

    fn document(&self, reference: &str, media_type: &str, body: &[u8]) -> Digest {
        let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
        let answer = self.send("PUT", &path, media_type, body);
        assert!(answer.starts_with("HTTP/1.1 201"), "{reference}: {answer}");
        Digest::of(body)
    }

    fn blob(&self, bytes: &[u8]) {
        // Two uploads of the same bytes at once, as of the empty configuration, make this registry lose one.
        static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let begun = self.send("POST", &format!("/v2/{REPOSITORY}/blobs/uploads/"), "text/plain", b"");
        let place = begun
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .unwrap_or_else(|| panic!("{begun}"));
        let path = &place[place.find("/v2/").unwrap()..];
        let path = format!("{path}&digest={}", Digest::of(bytes));
        let answer = self.send("PUT", &path, "application/octet-stream", bytes);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: {media_type}\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).replace("\r\n", "\n")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An image of no use, like no other of the same test.
pub fn image(name: &str) -> Vec<u8> {
    let mut image = of_layers(json!([described_empty()]));
    image["annotations"] = json!({"name": name});
    image.to_string().into_bytes()
}

fn of_layers(layers: Value) -> Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": described_empty(), "layers": layers})
}

fn described_empty() -> Value {
    json!({"mediaType": EMPTY, "digest": Digest::of(b"{}").to_string(), "size": 2})
}
