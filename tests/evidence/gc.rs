//! `assay evidence gc` beside a containerd of the test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::fake::Fake;
use crate::node::{Node, blob};

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

struct Containerd {
    child: Child,
    folder: PathBuf,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Containerd {
    fn start(node: &Node) -> Self {
        let folder = node.path("containerd");
        fs::create_dir(&folder).unwrap();
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.cri.v1.images\", \
             \"io.containerd.cri.v1.runtime\", \"io.containerd.nri.v1.nri\"]\n[grpc]\naddress = \"{0}/c.sock\"\n",
            folder.display()
        );
        fs::write(folder.join("containerd.toml"), config).unwrap();
        let child = Command::new(tool("containerd"))
            .arg("--config")
            .arg(folder.join("containerd.toml"))
            .stderr(fs::File::create(folder.join("log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let containerd = Self { child, folder };
        for _ in 0..100 {
            if containerd.ctr(&["version"]).is_ok() {
                return containerd;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", fs::read_to_string(containerd.folder.join("log")).unwrap());
    }

    fn socket(&self) -> String {
        self.folder.join("c.sock").display().to_string()
    }

    fn ctr(&self, words: &[&str]) -> Result<(), String> {
        let output = Command::new(tool("ctr"))
            .args(["--address", &self.socket(), "--namespace", "gc-test"])
            .args(words)
            .output()
            .unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/tools/containerd-2.1/bin")
        .join(name);
    assert!(path.exists(), "{} is missing: `make setup` makes it", path.display());
    path
}

/// The image that containerd has, and its digests.
fn busybox() -> (PathBuf, String, String) {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images");
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(images.join("busybox/index.json")).unwrap()).unwrap();
    let target = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let document = fs::read(images.join("busybox").join(blob(&json!(target)))).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
    let platform = document["manifests"][0]["digest"]
        .as_str()
        .unwrap_or(&target)
        .to_owned();
    (images.join("busybox.tar"), target, platform)
}

/// Pulls a signature about `subject`, and some more where `more` is not 0, from a registry that has nothing else.
fn signed(node: &Node, subject: &str) -> String {
    let fake = Fake::start();
    let image = fake.image("app", "linux/amd64");
    fake.tag("app", "1", &image);
    let payload = json!({"critical": {
        "identity": {"docker-reference": ""},
        "image": {"docker-manifest-digest": subject},
        "type": "cosign container image signature",
    }, "optional": null});
    let evidence = fake.artifact("app", SIMPLE, payload.to_string().as_bytes(), None);
    fake.referrers("app", &image, std::slice::from_ref(&evidence), 10);
    let said = node.pull(&[&fake.name("app:1")]);
    assert_eq!(said.code, 0, "{}", said.err);
    evidence["digest"].as_str().unwrap().to_owned()
}

fn aged(node: &Node, digest: &str, days: u64) {
    let file = fs::File::options()
        .write(true)
        .open(node.cache().join(blob(&json!(digest))))
        .unwrap();
    let time = SystemTime::now() - Duration::from_secs(days * 86_400);
    file.set_modified(time).unwrap();
}

fn sorted<const N: usize>(mut list: [&String; N]) -> Vec<String> {
    list.sort();
    list.into_iter().cloned().collect()
}

#[test]
fn what_the_node_or_a_container_needs_stays() {
    let node = Node::new();
    let containerd = Containerd::start(&node);
    let (tar, target, platform) = busybox();
    containerd
        .ctr(&[
            "images",
            "import",
            "--no-unpack",
            "--index-name",
            "test/busybox:1",
            tar.to_str().unwrap(),
        ])
        .unwrap();
    let socket = containerd.socket();
    let gc = |words: &[&str]| {
        let said = node.evidence(&[&["gc", "--address", &socket], words].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    };
    let elsewhere = assay::digest::Digest::of(b"an image that was removed").to_string();
    let of_index = signed(&node, &target);
    let of_platform = signed(&node, &platform);
    let gone = signed(&node, &elsewhere);
    let used = signed(
        &node,
        &assay::digest::Digest::of(b"an image that was retagged").to_string(),
    );
    let all = sorted([&of_index, &of_platform, &gone, &used]);
    assert_eq!(node.manifests(), all);

    // Without a condition, nothing that is evidence goes.
    assert!(gc(&[]).starts_with("0 manifests"));
    // A dry run says what would go, and changes nothing.
    let before = crate::node::files(&node.cache());
    let said = gc(&["--not-on-node", "--dry-run"]);
    assert!(said.contains(&format!("would go  {gone} about {elsewhere}")), "{said}");
    assert!(!said.contains(&of_platform) && !said.contains(&of_index), "{said}");
    assert!(crate::node::files(&node.cache()) == before);

    // A container that exists was decided on evidence about an image that has no name any more.
    containerd
        .ctr(&[
            "containers",
            "create",
            "--snapshotter",
            "native",
            "test/busybox:1",
            "keeper",
        ])
        .unwrap();
    let decision =
        json!({"namespace": "gc-test", "container": "keeper", "verdict": "allow", "evidence": [{"evidence": used}]});
    fs::write(node.path("state/decisions.jsonl"), format!("{decision}\n")).unwrap();
    for digest in [&of_index, &gone, &used] {
        aged(&node, digest, 100);
    }
    // Both conditions have to hold.
    gc(&["--older-than", "101d", "--not-on-node"]);
    assert_eq!(node.manifests(), all);
    let said = gc(&["--older-than", "90d", "--not-on-node"]);
    assert!(said.contains(&format!("removed   {gone}")), "{said}");
    assert_eq!(node.manifests(), sorted([&of_index, &of_platform, &used]));
    assert!(!node.has(&json!(gone)));
    gc(&["--older-than", "90d"]);
    assert_eq!(node.manifests(), sorted([&of_platform, &used]));
    // Without a decision on record, everything about the container's image stays.
    let of_index = signed(&node, &target);
    aged(&node, &of_index, 100);
    fs::write(node.path("state/decisions.jsonl"), "").unwrap();
    gc(&["--older-than", "90d"]);
    assert_eq!(node.manifests(), sorted([&of_index, &of_platform]));
    containerd.ctr(&["containers", "delete", "keeper"]).unwrap();
    gc(&["--older-than", "90d"]);
    assert_eq!(node.manifests(), sorted([&of_platform]));
    // What is left is whole, and an image is kept in the list as long as there is evidence about it.
    let said = node.evidence(&["import", node.cache().to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
}

#[test]
fn without_containerd_nothing_is_removed() {
    let node = Node::new();
    let gone = signed(&node, &assay::digest::Digest::of(b"gone").to_string());
    for condition in [&["--not-on-node"][..], &["--older-than", "1d"]] {
        let said = node.evidence(&[&["gc", "--address", "/nonexistent"], condition].concat());
        assert_eq!(said.code, 6, "{}", said.err);
        assert!(said.err.contains("nothing was removed"), "{}", said.err);
    }
    assert_eq!(node.manifests(), [gone]);
}

#[test]
fn killed_at_any_moment_it_leaves_a_whole_layout() {
    let node = Node::new();
    let containerd = Containerd::start(&node);
    let kept: Vec<String> = (0..6)
        .map(|n| {
            signed(
                &node,
                &assay::digest::Digest::of(format!("gone {n}").as_bytes()).to_string(),
            )
        })
        .collect();
    for wait in [0, 5, 10, 20, 40, 80] {
        for digest in &kept {
            let path = node.cache().join(blob(&json!(digest)));
            if path.exists() {
                aged(&node, digest, 100);
            }
        }
        let mut command = node.command(&[
            "evidence",
            "gc",
            "--older-than",
            "90d",
            "--address",
            &containerd.socket(),
        ]);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        for digest in node.manifests() {
            assert!(node.has(&json!(digest)), "after {wait} ms");
        }
        assert!(!node.evidence(&["ls"]).out.contains("damaged"));
    }
    let socket = containerd.socket();
    assert_eq!(
        node.evidence(&["gc", "--older-than", "90d", "--address", &socket]).code,
        0
    );
    assert_eq!(node.manifests(), [""; 0]);
}
