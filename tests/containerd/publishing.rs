//! A seccomp profile from the publisher's export to a node that takes it in place of its own analysis, signed by cosign.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assay::admission::filter::{DIRECTORY, Origin};
use assay::digest::Digest;
use assay::seccomp::Profile;
use assay::syscalls::Machine;
use serde_json::{Value, json};

use crate::admission::Node;
use crate::harness::{BUSYBOX, Case, on_each_containerd};

on_each_containerd![a_profile_that_its_publisher_signed_stands_in];

const RULE: &str = r#"
[[rule]]
name = "profiled"
match = { image = ["assay.test/**"] }
mode = "enforce"
[[rule.signature]]
any = [{ key = "release" }]
[rule.seccomp]
mode = "enforce"
"#;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

const SIGNED: &str = "[[rule.profile]]\nany = [{ key = \"profiles\" }]\n";

fn a_profile_that_its_publisher_signed_stands_in(case: &Case) {
    let node = Node::new(case, RULE);
    node.sign(BUSYBOX.manifest);
    let socket = case.daemon.socket();
    let show = |more: &[&str]| {
        let mut arguments = vec!["seccomp", "show", "--namespace", &case.daemon.scope, "--address"];
        arguments.push(socket.to_str().unwrap());
        arguments.extend(more);
        arguments.push(&BUSYBOX.name);
        let output = node.assay(&arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    // What the publisher does.
    let (code, exported, error) = show(&["-o", "in-toto"]);
    assert_eq!(code, 0, "{error}");
    let statement: Value = serde_json::from_str(&exported).unwrap();
    assert_eq!(
        statement["subject"][0]["digest"]["sha256"],
        json!(BUSYBOX.manifest.hex())
    );
    let (code, _, error) = show(&["--verify"]);
    assert_eq!(code, 4, "nothing is signed yet: {error}");

    // A node that asks for one, before it is there and afterwards.
    let publisher = Publisher::new(node.folder.join("publisher"));
    fs::copy(publisher.key(), node.folder.join("trust.d/profiles.pub")).unwrap();
    let trust = "[[key]]\nid = \"profiles\"\nfile = \"profiles.pub\"\nhash = \"sha256\"\nuse = [\"profile\"]\n";
    fs::write(node.folder.join("trust.d/profiles.toml"), trust).unwrap();
    node.policy(&RULE.replace("[rule.seccomp]", &format!("{SIGNED}[rule.seccomp]")));
    let held = node.container("c", &BUSYBOX);
    node.refuses(&held.request, "profile-missing");
    // It lacks a call that the files make, and has one that none makes.
    let made: BTreeSet<String> =
        serde_json::from_value(statement["predicate"]["syscalls"][0]["names"].clone()).unwrap();
    let mut listed = made.clone();
    assert!(listed.remove("listen") && listed.insert("kexec_load".to_owned()));
    let mut signed = statement;
    signed["predicate"]["syscalls"][0]["names"] = json!(listed);
    publisher.attest(&signed, BUSYBOX.manifest, &node.folder.join("attested"));
    let imported = node
        .assay(&["evidence", "import", node.folder.join("attested").to_str().unwrap()])
        .output()
        .unwrap();
    assert!(imported.status.success(), "{imported:?}");
    let decision = node.allows(&held.request, "signature-verified");
    let said = decision.syscalls.unwrap();
    assert_eq!((said.from, said.counts.derived), (Origin::Attestation, listed.len()));
    let file = format!("{}.json", said.profile.unwrap().hex());
    let profile = fs::read(node.folder.join("state").join(DIRECTORY).join(file)).unwrap();
    let profile = Profile::parse(&profile).unwrap();
    let allowed = profile.effective(Machine::native());
    assert!(listed.iter().all(|name| allowed.contains_key(name.as_str())));
    assert!(!allowed.contains_key("listen"), "the signed profile, and not the files");
    let (code, differences, error) = show(&["--verify"]);
    assert_eq!(code, 1, "{error}");
    assert!(differences.contains("+ listen: its files make it"), "{differences}");
    assert!(
        differences.contains("- kexec_load: the signed profile lists it"),
        "{differences}"
    );
}

/// Somebody with a key of cosign's own making.
struct Publisher {
    folder: PathBuf,
}

impl Publisher {
    fn new(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let publisher = Self { folder };
        publisher.cosign(&["generate-key-pair", "--output-key-prefix", "profiles"]);
        publisher
    }

    fn key(&self) -> PathBuf {
        self.folder.join("profiles.pub")
    }

    fn cosign(&self, arguments: &[&str]) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cosign/bin/cosign");
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .env("COSIGN_PASSWORD", "")
            .output()
            .expect("cosign is not in target/tools: run `make setup`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Has cosign sign a statement, and writes its bundle as a referrer of the image into an OCI layout.
    fn attest(&self, statement: &Value, image: Digest, layout: &Path) {
        fs::write(self.folder.join("statement.json"), statement.to_string()).unwrap();
        self.cosign(&["signing-config", "create", "--out", "signing.json"]);
        self.cosign(&[
            "attest-blob",
            "--yes",
            "--key",
            "profiles.key",
            "--signing-config",
            "signing.json",
            "--statement",
            "statement.json",
            "--bundle",
            "bundle.json",
        ]);
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let blob = |bytes: &[u8], kind: &str| {
            fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
            json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() })
        };
        let layer = blob(&fs::read(self.folder.join("bundle.json")).unwrap(), BUNDLE);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BUNDLE,
            "config": blob(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [layer],
            "subject": { "mediaType": MANIFEST, "digest": image, "size": 1 },
        });
        let entry = blob(manifest.to_string().as_bytes(), MANIFEST);
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}
