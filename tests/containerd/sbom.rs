//! `assay sbom` for images that containerd really holds.

use std::fs;

use assay::digest::Digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::admission::Node;
use crate::harness::{BUSYBOX, Case, eventually, on_each_containerd};

on_each_containerd![the_attested_sbom_is_compared_with_the_image];

const RULE: &str = r#"
[[rule]]
name = "described"
match = { image = ["assay.test/**"] }
mode = "enforce"
[[rule.signature]]
any = [{ key = "release" }]
[[rule.sbom]]
any = [{ key = "release" }]
"#;

fn the_attested_sbom_is_compared_with_the_image(case: &Case) {
    let node = Node::new(case, "");
    let trust = node.folder.join("trust.d/release.toml");
    let key = fs::read_to_string(&trust)
        .unwrap()
        .replace("[\"image\"]", "[\"image\", \"sbom\"]");
    fs::write(trust, key).unwrap();
    node.policy(RULE);
    let socket = case.daemon.socket();
    let look = |image: &str| {
        let arguments = [
            "sbom",
            "--namespace",
            &case.daemon.scope,
            "--address",
            socket.to_str().unwrap(),
            "-o",
            "json",
            image,
        ];
        let output = node.assay(&arguments).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (
            output.status.code().unwrap(),
            report,
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let snapshots = || {
        let listed = case.daemon.ctr(&case.daemon.scope, &["snapshots", "ls"]);
        let listed = String::from_utf8(listed.stdout).unwrap();
        listed.lines().filter(|line| line.contains("View")).count()
    };

    let (code, report, error) = look(&BUSYBOX.name);
    assert_eq!(code, 0, "{error}");
    let source = report["source"].as_str().unwrap();
    assert!(
        source.starts_with("derived from the package database: the image is refused"),
        "{source}"
    );
    assert_eq!(report["sbom"], Value::Null);
    assert_eq!(report["unattested_executables"]["first"], json!(["/bin/busybox"]));

    let busybox = Digest::of(&fs::read("/bin/busybox").unwrap());
    let sbom = |digest: &Digest| {
        json!({
            "spdxVersion": "SPDX-2.3",
            "packages": [],
            "files": [{ "fileName": "bin/busybox", "checksums": [{ "algorithm": "SHA256", "checksumValue": digest.hex() }] }],
        })
    };
    node.sign(BUSYBOX.manifest);
    attest(&node, BUSYBOX.manifest, &sbom(&busybox), "first");
    let (code, report, error) = look(&BUSYBOX.name);
    assert_eq!(code, 0, "{error}");
    let source = report["source"].as_str().unwrap();
    assert!(source.starts_with("the SBOM attested by release (sha256:"), "{source}");
    assert_eq!(report["manifest"], json!(BUSYBOX.manifest));
    assert_eq!(report["sbom"]["files"], 1);
    assert_eq!(report["unattested_executables"]["count"], 0);
    assert_eq!(report["coverage"]["executables"]["attested"], 1);
    assert!(
        report["coverage"]["links"]["attested"].as_u64().unwrap() > 100,
        "{}",
        report["coverage"]
    );
    // Other tests look at images of this containerd too.
    eventually("that what was mounted is gone again", || match snapshots() {
        0 => Ok(()),
        some => Err(format!("{some} snapshots")),
    });

    let (code, _, error) = look("assay.test/no/such:1");
    assert_eq!(code, 7, "{error}");
}

/// Signs an SBOM the way cosign attests one, and imports it.
fn attest(node: &Node<'_>, subject: Digest, predicate: &Value, name: &str) {
    const TYPE: &str = "application/vnd.in-toto+json";
    let statement = serde_json::to_vec(&json!({
        "_type": "https://in-toto.io/Statement/v0.1",
        "subject": [{ "name": "busybox", "digest": { "sha256": subject.hex() } }],
        "predicateType": "https://spdx.dev/Document",
        "predicate": predicate,
    }))
    .unwrap();
    let mut signed = format!("DSSEv1 {} {TYPE} {} ", TYPE.len(), statement.len()).into_bytes();
    signed.extend_from_slice(&statement);
    let envelope = json!({
        "payloadType": TYPE,
        "payload": BASE64_STANDARD.encode(&statement),
        "signatures": [{ "keyid": "", "sig": BASE64_STANDARD.encode(node.signature(&signed)) }],
    });
    let layout = node.folder.join(name);
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |bytes: &[u8], kind: &str| {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() })
    };
    let layer = blob(
        &serde_json::to_vec(&envelope).unwrap(),
        "application/vnd.dsse.envelope.v1+json",
    );
    let config = blob(b"{}", "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut entry = blob(
        &serde_json::to_vec(&manifest).unwrap(),
        "application/vnd.oci.image.manifest.v1+json",
    );
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("sha256-{}.att", subject.hex()) });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let arguments = ["evidence", "import", layout.to_str().unwrap()];
    let import = node.assay(&arguments).output().unwrap();
    assert!(import.status.success(), "{import:?}");
}
