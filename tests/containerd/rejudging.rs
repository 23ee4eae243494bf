//! `assay agent`: verdicts on running containers that end with time, and with evidence that goes.

use std::fs;
use std::path::Path;

use assay::admission::Verdict;
use assay::admission::again::{Cause, Step};
use assay::digest::Digest;
use containerd_client::types::v1::Status as State;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::agent::{Agent, Node};
use crate::harness::needs_assay;
use pki::{IDENTITY, ISSUER, SIGNED, Sigstore, Version};

#[path = "../pki/mod.rs"]
mod pki;

/// A name of the signed image, under a rule that wants a certificate's signature.
const CERTIFIED: &str = "assay.test/certified/signed:latest";
/// What cosign says that it signs.
const SIGNS: &str = "https://sigstore.dev/cosign/sign/v1";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Keeps a blob of an image layout, and answers its descriptor.
fn keep(layout: &Path, kind: &str, bytes: &[u8]) -> Value {
    let digest = Digest::of(bytes);
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
    json!({ "mediaType": kind, "digest": digest.to_string(), "size": bytes.len() })
}

/// A signature of an image by a certificate, as `oras copy` brings it.
fn sign(sigstore: &Sigstore, layout: &Path, image: &Digest, size: u64) {
    let statement = pki::statement(&image.hex(), SIGNS);
    let bundle = sigstore
        .keyless()
        .statement(&statement)
        .bundle(Version::V03)
        .to_string();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": BUNDLE,
        "config": keep(layout, "application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [keep(layout, BUNDLE, bundle.as_bytes())],
        "subject": { "mediaType": MANIFEST, "digest": image.to_string(), "size": size },
    });
    let mut listed = keep(layout, MANIFEST, manifest.to_string().as_bytes());
    listed["artifactType"] = BUNDLE.into();
    fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": [listed] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// A node whose image is signed by a certificate of a private Sigstore; answers where that signature lies, too.
fn node(name: &str, more: &str) -> (Node, tempfile::TempDir) {
    let node = Node::new(name, "1s");
    let sigstore = Sigstore::new();
    let home = node.home();
    fs::write(home.join("trust.d/trusted_root.json"), sigstore.trusted_root()).unwrap();
    fs::write(
        home.join("trust.d/root.toml"),
        "[[root]]\nid = 'ours'\nfile = 'trusted_root.json'\n",
    )
    .unwrap();
    let policy = fs::read_to_string(home.join("policy.d/50-tests.toml")).unwrap();
    node.write_policy(&format!(
        "[[rule]]\nname = 'certified'\nmatch = {{ image = ['{CERTIFIED}'] }}\nmode = 'enforce'\n\
         [[rule.signature]]\nany = [{{ identity = '{IDENTITY}', issuer = '{ISSUER}', root = 'ours' }}]\n{more}\n{policy}"
    ));
    let daemon = node.case.daemon;
    daemon.tag(&daemon.scope, "assay.test/busybox:latest", CERTIFIED);
    // The manifest is what the release key has signed as well.
    let released = node.start("released", crate::agent::REPORTED);
    let decision = daemon.decisions(&released.id).remove(0);
    let manifest = decision.evidence[0].subject;
    let layout = tempfile::tempdir().unwrap();
    let blob = daemon.state().join("evidence/blobs/sha256").join(manifest.hex());
    sign(&sigstore, layout.path(), &manifest, fs::metadata(blob).unwrap().len());
    node.assay(&["evidence", "import", layout.path().to_str().unwrap()]);
    (node, layout)
}

#[test]
fn an_age_that_is_passed_reaches_running_containers() {
    if !needs_assay("assay agent") {
        return;
    }
    // Some seconds from now on.
    let age = Timestamp::now().as_second() - SIGNED + 20;
    let reevaluate = "[rule.reevaluate]\naction = 'freeze'\ngrace = '1s'";
    let (node, _layout) = node("aged", &format!("max_age = '{age}s'\n{reevaluate}"));
    let container = node.start("aged", CERTIFIED);
    assert_eq!(container.status(), State::Running);
    let _agent = Agent::start(&node);
    let records = node.wait_for(&container, &[Step::Changed, Step::Done]);
    assert_eq!(
        (records[0].old.verdict, records[0].new.verdict, &records[0].cause),
        (Verdict::Allow, Verdict::Refuse, &vec![Cause::Time])
    );
    assert_eq!(records[0].new.code, "evidence-too-old", "{records:?}");
    let began: Timestamp = records[0].time.parse().unwrap();
    assert!(began.as_second() >= SIGNED + age, "{records:?}");
    assert_eq!(container.status(), State::Paused);
}

#[test]
fn evidence_that_goes_and_comes_back_reaches_running_containers() {
    if !needs_assay("assay agent") {
        return;
    }
    let (node, layout) = node("lost", "");
    let container = node.start("lost", CERTIFIED);
    let _agent = Agent::start(&node);
    // An administrator takes that signature out of the cache, which still has the other one.
    let evidence = node.case.daemon.state().join("evidence");
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let taken = read(&layout.path().join("index.json"))["manifests"][0]["digest"].clone();
    let mut index = read(&evidence.join("index.json"));
    let listed = index["manifests"].as_array_mut().unwrap();
    let before = listed.len();
    listed.retain(|manifest| manifest["digest"] != taken);
    assert_eq!(listed.len(), before - 1);
    let hex = taken.as_str().unwrap().strip_prefix("sha256:").unwrap();
    fs::remove_file(evidence.join("blobs/sha256").join(hex)).unwrap();
    let replacement = evidence.join("replacement");
    fs::write(&replacement, index.to_string()).unwrap();
    fs::rename(replacement, evidence.join("index.json")).unwrap();
    node.assay(&["evidence", "import", evidence.to_str().unwrap()]);

    let records = node.wait_for(&container, &[Step::Changed]);
    assert_eq!(
        (records[0].new.verdict, &records[0].cause),
        (Verdict::Refuse, &vec![Cause::Evidence])
    );
    assert_eq!(records[0].new.code, "signer-not-wanted", "{records:?}");
    assert_eq!(container.status(), State::Running);

    node.assay(&["evidence", "import", layout.path().to_str().unwrap()]);
    let records = node.wait_for(&container, &[Step::Changed, Step::Changed]);
    assert_eq!(
        (records[1].new.verdict, &records[1].cause),
        (Verdict::Allow, &vec![Cause::Evidence])
    );
}
