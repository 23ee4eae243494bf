//! `assay admit` and `assay verify` against containers that containerd really holds: what is bound, what is refused.
//!
//! Nothing is started here. A request is what the shim would send, and each test changes one thing about it, or about
//! what containerd has stored, that an attacker or a mistake could change.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assay::admission::{Decision, LOG, Mount, Request, VERSION, Verdict};
use assay::digest::Digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::MountsRequest;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::{Container as Record, GetContainerRequest};
use containerd_client::tonic::Request as ApiRequest;
use containerd_client::types::Mount as ApiMount;
use serde_json::{Value, json};

use crate::harness::cri::{Pod, image_volume};
use crate::harness::daemon::STOCK_HANDLER;
use crate::harness::image::Image;
use crate::harness::{BUSYBOX, Case, STOCK, Version, on_each_containerd};

on_each_containerd![
    a_signed_image_is_allowed_and_remembered,
    an_unsigned_image_is_refused_with_the_next_step,
    what_is_revoked_is_refused_in_every_mode,
    audit_and_off_let_unbound_containers_run,
    no_rule_and_no_policy_refuse,
    where_no_view_can_be_made_the_policy_decides,
    what_is_mounted_must_be_the_snapshot,
    the_snapshot_must_be_the_images,
    a_retagged_image_is_refused,
    a_reused_upper_directory_is_refused,
    edited_and_missing_content_is_refused,
    containers_without_an_image_are_refused,
    what_is_not_known_is_refused,
    a_containerd_that_hangs_is_refused_in_time,
    a_full_disk_is_refused,
    a_remapped_snapshot_is_bound,
    pods_are_bound_and_matched,
    image_volumes_need_a_rule_of_their_own,
    verify_says_what_admit_would,
    every_signed_manifest_of_a_configuration_counts,
    a_signed_index_that_does_not_list_the_image_is_none,
    an_attestation_that_an_index_calls_the_image_is_none,
    two_images_of_the_same_layers_are_ambiguous,
    indexes_without_end_are_refused,
    a_refusal_in_one_namespace_is_none_in_another,
    a_policy_diff_knows_images_and_undecided_containers,
];

const KEY_RULE: &str = r#"
[[rule]]
name = "signed"
match = { image = ["assay.test/**"] }
mode = "enforce"
[[rule.signature]]
any = [{ key = "release" }]
"#;

/// A configuration of Assay of its own, on one containerd.
pub(crate) struct Node<'a> {
    case: &'a Case,
    pub(crate) folder: PathBuf,
    key: EcdsaKeyPair,
}

impl<'a> Node<'a> {
    pub(crate) fn new(case: &'a Case, policy: &str) -> Self {
        let folder = case.daemon.folder.join(case.id("node"));
        for name in ["", "policy.d", "trust.d"] {
            fs::create_dir(folder.join(name)).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        let dir = folder.display();
        fs::write(
            folder.join("config.toml"),
            format!("state = '{dir}/state'\nrun = '{dir}/run'\npolicy = '{dir}/policy.d'\ntrust = '{dir}/trust.d'\n"),
        )
        .unwrap();
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref()).unwrap();
        // SubjectPublicKeyInfo of P-256 up to the point itself.
        let mut spki = hex::decode("3059301306072a8648ce3d020106082a8648ce3d030107034200").unwrap();
        spki.extend_from_slice(key.public_key().as_ref());
        let pem = BASE64_STANDARD.encode(spki);
        fs::write(
            folder.join("trust.d/release.pub"),
            format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n",
                &pem[..64],
                &pem[64..]
            ),
        )
        .unwrap();
        fs::write(
            folder.join("trust.d/release.toml"),
            "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nhash = \"sha256\"\nuse = [\"image\"]\n",
        )
        .unwrap();
        let node = Self { case, folder, key };
        if !policy.is_empty() {
            node.policy(policy);
        }
        node
    }

    pub(crate) fn assay(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command
            .args(arguments)
            .env_clear()
            .env("ASSAY_CONFIG", self.folder.join("config.toml"));
        command
    }

    pub(crate) fn policy(&self, text: &str) {
        fs::write(self.folder.join("policy.d/rules.toml"), text).unwrap();
        let applied = self.assay(&["policy", "apply"]).output().unwrap();
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    }

    /// A signature by the one key that this node trusts.
    pub(crate) fn signature(&self, bytes: &[u8]) -> Vec<u8> {
        let signature = self.key.sign(&SystemRandom::new(), bytes).unwrap();
        signature.as_ref().to_vec()
    }

    /// Signs a digest the way cosign did before bundles, and imports the signature.
    pub(crate) fn sign(&self, subject: Digest) {
        let payload = serde_json::to_vec(&json!({
            "critical": {
                "identity": { "docker-reference": "assay.test/busybox" },
                "image": { "docker-manifest-digest": subject },
                "type": "cosign container image signature",
            },
            "optional": null,
        }))
        .unwrap();
        let signature = self.signature(&payload);
        let layout = self.folder.join(format!("signature-{}", subject.hex()));
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let blob = |bytes: &[u8], kind: &str| {
            fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
            json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() })
        };
        let mut layer = blob(&payload, "application/vnd.dev.cosign.simplesigning.v1+json");
        layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": BASE64_STANDARD.encode(signature) });
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
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": format!("sha256-{}.sig", subject.hex()) });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(layout.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let import = self
            .assay(&["evidence", "import", layout.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(import.status.success(), "{import:?}");
    }

    fn admit(&self, request: &Request) -> Decision {
        self.admit_with(&mut self.assay(&["admit"]), request)
    }

    fn admit_with(&self, command: &mut Command, request: &Request) -> Decision {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let question = serde_json::to_vec(request).unwrap();
        child.stdin.take().unwrap().write_all(&question).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        let lines: Vec<&[u8]> = output.stdout.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(lines.len(), 1, "{output:?}");
        let decision: Decision = serde_json::from_slice(lines[0]).unwrap();
        assert_eq!(decision.container, request.container);
        decision
    }

    /// Fails unless the request is refused with this code, with a reason and a next step.
    #[track_caller]
    pub(crate) fn refuses(&self, request: &Request, code: &str) -> Decision {
        let decision = self.admit(request);
        assert_eq!(
            (decision.verdict, decision.code.as_str()),
            (Verdict::Refuse, code),
            "{}",
            decision.line()
        );
        assert!(!decision.reason.is_empty() && !decision.fix.is_empty(), "{decision:?}");
        assert!(!decision.line().contains('\n'));
        decision
    }

    #[track_caller]
    pub(crate) fn allows(&self, request: &Request, code: &str) -> Decision {
        let decision = self.admit(request);
        assert_eq!(
            (decision.verdict, decision.code.as_str()),
            (Verdict::Allow, code),
            "{}",
            decision.line()
        );
        decision
    }

    /// The file of a blob in containerd's own store.
    fn blob(&self, digest: Digest) -> PathBuf {
        let content = "root/io.containerd.content.v1.content/blobs/sha256";
        self.case.daemon.folder.join(content).join(digest.hex())
    }

    fn image(&self, name: &str) -> Image {
        let name = self.case.id(name);
        let image = Image::busybox(&format!("assay.test/{name}:1"), &name, &["/bin/sh"]);
        self.case.daemon.import(&image, &self.case.daemon.scope);
        image
    }

    /// A manifest of the layer of `image` with this configuration, different from others by its publisher.
    fn manifest_of(&self, image: &Image, config: &[u8], publisher: &str) -> Vec<u8> {
        let layer = fs::metadata(self.blob(image.chain_id)).unwrap().len();
        serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": listed(config, CONFIG),
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": image.chain_id, "size": layer,
            }],
            "annotations": { "publisher": publisher },
        }))
        .unwrap()
    }

    /// Has containerd import an index of these documents under a name, with all blobs of this containerd that they
    /// need and the `more` that it does not have; the index's digest.
    fn import_index(&self, name: &str, documents: &[(&[u8], &str)], more: &[&[u8]]) -> Digest {
        let entries: Vec<Value> = documents
            .iter()
            .map(|(bytes, kind)| {
                let mut entry = listed(bytes, kind);
                if *kind == MANIFEST {
                    entry["platform"] = json!({ "os": "linux", "architecture": "amd64" });
                }
                entry
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
        let index = serde_json::to_vec(&index).unwrap();
        let mut entry = listed(&index, INDEX);
        entry["annotations"] = json!({ "io.containerd.image.name": name });
        let top = serde_json::to_vec(&json!({ "schemaVersion": 2, "manifests": [entry] })).unwrap();
        let mut blobs: Vec<Vec<u8>> = more.iter().map(|bytes| bytes.to_vec()).collect();
        for (bytes, _) in documents {
            let document: Value = serde_json::from_slice(bytes).unwrap();
            let parts = document["layers"].as_array().cloned().unwrap_or_default();
            for part in parts.iter().chain([&document["config"]]) {
                if let Some(digest) = part["digest"].as_str()
                    && let Ok(bytes) = fs::read(self.blob(digest.parse().unwrap()))
                {
                    blobs.push(bytes);
                }
            }
            blobs.push(bytes.to_vec());
        }
        let layout = self.folder.join(format!("{}.tar", Digest::of(&index).hex()));
        let mut archive = tar::Builder::new(fs::File::create(&layout).unwrap());
        let mut add = |path: String, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes).unwrap();
        };
        add("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#);
        add("index.json".to_owned(), &top);
        let digests: std::collections::BTreeMap<Digest, &[u8]> = blobs
            .iter()
            .map(Vec::as_slice)
            .chain([index.as_slice()])
            .map(|bytes| (Digest::of(bytes), bytes))
            .collect();
        for (digest, bytes) in digests {
            add(format!("blobs/sha256/{}", digest.hex()), bytes);
        }
        archive.finish().unwrap();
        // What an attestation holds is nothing that could be unpacked.
        self.ctr(&["images", "import", "--no-unpack", layout.to_str().unwrap()]);
        Digest::of(&index)
    }

    fn ctr(&self, arguments: &[&str]) {
        let done = self.case.daemon.ctr(&self.case.daemon.scope, arguments);
        assert!(done.status.success(), "{arguments:?}: {done:?}");
    }

    /// A container as `ctr container create` makes it, with the request that starting it leads to.
    pub(crate) fn container(&self, name: &str, image: &Image) -> Held<'_> {
        self.container_on(name, &image.name, &image.chain_id.to_string(), &spec())
    }

    fn container_on(&self, name: &str, image: &str, parent: &str, spec: &Value) -> Held<'_> {
        let id = self.case.id(name);
        let mounts = self.case.client.prepare_snapshot(&id, parent).unwrap();
        self.case
            .client
            .create_record(Record {
                id: id.clone(),
                image: image.to_owned(),
                runtime: runtime(),
                snapshotter: "overlayfs".to_owned(),
                snapshot_key: id.clone(),
                spec: Some(any(spec)),
                ..Record::default()
            })
            .unwrap();
        let request = self.request(&self.case.daemon.scope, &id, mounts, spec);
        Held {
            case: self.case,
            id,
            snapshot: true,
            request,
        }
    }

    fn request(&self, namespace: &str, id: &str, mounts: Vec<ApiMount>, spec: &Value) -> Request {
        let bundle = self.folder.join("bundles").join(id);
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), serde_json::to_vec(spec).unwrap()).unwrap();
        Request {
            version: VERSION,
            containerd: self.case.daemon.socket().display().to_string(),
            namespace: namespace.to_owned(),
            container: id.to_owned(),
            bundle: bundle.display().to_string(),
            rootfs: mounts
                .into_iter()
                .map(|mount| Mount {
                    r#type: mount.r#type,
                    source: mount.source,
                    target: mount.target,
                    options: mount.options,
                })
                .collect(),
            checkpoint: false,
            runtime: "runc".to_owned(),
        }
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A container record with its snapshot, taken away again when dropped.
pub(crate) struct Held<'a> {
    case: &'a Case,
    id: String,
    snapshot: bool,
    pub(crate) request: Request,
}

impl Held<'_> {
    fn with(&self, change: impl FnOnce(&mut Request)) -> Request {
        let mut request = self.request.clone();
        change(&mut request);
        request
    }

    fn with_options(&self, change: impl FnOnce(&mut Vec<String>)) -> Request {
        self.with(|request| change(&mut request.rootfs[0].options))
    }

    /// The directory that takes the container's changes.
    fn upper(&self) -> PathBuf {
        let options = self.request.rootfs[0].options.iter();
        options
            .filter_map(|option| option.strip_prefix("upperdir="))
            .map(PathBuf::from)
            .next()
            .unwrap()
    }

    fn write_spec(&self, spec: &Value) {
        fs::write(
            Path::new(&self.request.bundle).join("config.json"),
            serde_json::to_vec(spec).unwrap(),
        )
        .unwrap();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let record = self.case.client.delete_record(&self.id);
        let snapshot = self.snapshot.then(|| self.case.client.remove_snapshot(&self.id));
        if !std::thread::panicking() {
            record.unwrap();
            snapshot.transpose().unwrap();
        }
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn listed(bytes: &[u8], kind: &str) -> Value {
    json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() })
}

/// containerd wants one in every record; nothing is ever started by it here.
fn runtime() -> Option<Runtime> {
    Some(Runtime {
        name: STOCK.to_owned(),
        options: None,
    })
}

fn any(spec: &Value) -> prost_types::Any {
    prost_types::Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned(),
        value: serde_json::to_vec(spec).unwrap(),
    }
}

fn spec() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": { "args": ["/bin/sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
        "root": { "path": "rootfs" },
        "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
        "linux": {},
    })
}

fn where_no_view_can_be_made_the_policy_decides(case: &Case) {
    let node = Node::new(case, "");
    node.policy(&format!("{KEY_RULE}[rule.filesystem]\nmode = \"enforce\"\n"));
    node.sign(BUSYBOX.manifest);
    let held = node.container("c", &BUSYBOX);
    // Something else lies where views are kept.
    fs::write(node.folder.join("state/views"), "").unwrap();
    node.refuses(&held.request, "state-unusable");
    node.policy(&format!(
        "{KEY_RULE}[rule.filesystem]\nmode = \"enforce\"\nunavailable = \"full\"\n"
    ));
    let full = node.allows(&held.request, "signature-verified");
    let files = full.files.expect("why it sees everything");
    assert!(full.view.is_none());
    assert!(files.unavailable.contains("state/views"), "{files:?}");
    fs::remove_file(node.folder.join("state/views")).unwrap();
    let shown = node.allows(&held.request, "signature-verified");
    assert!(shown.view.is_some() && shown.files.unwrap().unavailable.is_empty());
}

fn a_signed_image_is_allowed_and_remembered(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let held = node.container("c", &BUSYBOX);
    let first = node.allows(&held.request, "signature-verified");
    assert!(!first.repeated);
    assert_eq!(first.rule.as_deref(), Some("signed"));
    assert_eq!(first.evidence.len(), 1);
    assert_eq!(first.evidence[0].proof.signer.key(), Some("release"));
    let image = first.image.unwrap();
    assert_eq!(image.config, BUSYBOX.config);
    assert_eq!(image.chain_id, BUSYBOX.chain_id);
    assert!(image.manifests.contains(&BUSYBOX.manifest));
    // What led to the image is asked for at once from now on; the other tests show that it is still asked.
    assert_eq!(fs::read_dir(node.folder.join("run/trails")).unwrap().count(), 1);

    let again = node.allows(&held.request, "signature-verified");
    assert!(again.repeated);
    assert_eq!(again.evidence, first.evidence);

    // The evidence file was touched: it is read again.
    let carrier = node
        .folder
        .join("state/evidence/blobs/sha256")
        .join(first.evidence[0].evidence.hex());
    let bytes = fs::read(&carrier).unwrap();
    fs::write(&carrier, &bytes).unwrap();
    assert!(!node.allows(&held.request, "signature-verified").repeated);
    // It was edited: it does not count any more, whatever is remembered.
    fs::write(&carrier, [&bytes[..bytes.len() - 1], b" }"].concat()).unwrap();
    node.refuses(&held.request, "evidence-corrupt");
    fs::remove_file(&carrier).unwrap();
    node.refuses(&held.request, "evidence-missing");

    let log = fs::read_to_string(node.folder.join("state").join(LOG)).unwrap();
    let logged: Vec<Decision> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let codes: Vec<&str> = logged.iter().map(|decision| decision.code.as_str()).collect();
    assert_eq!(
        codes,
        [
            "signature-verified",
            "signature-verified",
            "signature-verified",
            "evidence-corrupt",
            "evidence-missing"
        ]
    );
}

fn an_unsigned_image_is_refused_with_the_next_step(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let held = node.container("c", &BUSYBOX);
    let decision = node.refuses(&held.request, "evidence-cache-empty");
    assert!(decision.policy);
    let line = decision.line();
    for part in [
        &BUSYBOX.name,
        &BUSYBOX.manifest.to_string(),
        "\"signed\"",
        "assay evidence import",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    // A signature of something else, by the right key.
    node.sign(Digest::of(b"another image"));
    node.refuses(&held.request, "signature-missing");
    // The right signature, by a key that is not trusted.
    let stranger = Node {
        case,
        folder: node.folder.clone(),
        key: {
            let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new()).unwrap();
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref()).unwrap()
        },
    };
    stranger.sign(BUSYBOX.manifest);
    std::mem::forget(stranger);
    node.refuses(&held.request, "key-unknown");
}

fn what_is_revoked_is_refused_in_every_mode(case: &Case) {
    let node = Node::new(case, "");
    node.policy(KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let held = node.container("c", &BUSYBOX);
    node.allows(&held.request, "signature-verified");
    for mode in ["off", "audit", "enforce"] {
        let rule = KEY_RULE.replace("enforce", mode);
        node.policy(&format!("[[deny]]\ndigest = [\"{}\"]\n{rule}", BUSYBOX.manifest));
        assert!(node.refuses(&held.request, "digest-denied").policy);
        node.policy(&format!("[[deny]]\ndigest = [\"{}\"]\n{rule}", BUSYBOX.config));
        node.refuses(&held.request, "digest-denied");
        node.policy(&format!("[[deny]]\nkey = [\"release\"]\n{rule}"));
        node.refuses(&held.request, "key-denied");
    }
}

fn audit_and_off_let_unbound_containers_run(case: &Case) {
    let node = Node::new(case, &KEY_RULE.replace("enforce", "audit"));
    let held = node.container("c", &BUSYBOX);
    let foreign = held.with(|request| request.rootfs[0].source = "/etc".to_owned());
    let decision = node.allows(&foreign, "audit-only");
    assert_eq!(decision.image, None);
    assert_eq!(decision.audit[0].rule, "signed");
    assert_eq!(decision.audit[0].verdict, Verdict::Refuse);
    assert_eq!(decision.audit[0].code, "mounts-foreign");
    let decision = node.allows(&held.request, "audit-only");
    assert_eq!(decision.audit[0].code, "evidence-cache-empty");
    node.sign(BUSYBOX.manifest);
    let decision = node.allows(&held.request, "audit-only");
    assert_eq!(decision.audit[0].verdict, Verdict::Allow);

    node.policy("[[rule]]\nname = \"free\"\nmatch = { image = [\"assay.test/**\"] }\nmode = \"off\"\n");
    let decision = node.allows(&foreign, "rule-off");
    assert_eq!(decision.rule.as_deref(), Some("free"));
}

fn no_rule_and_no_policy_refuse(case: &Case) {
    let node = Node::new(case, "");
    let held = node.container("c", &BUSYBOX);
    node.refuses(&held.request, "policy-missing");
    node.policy(&KEY_RULE.replace("assay.test", "another.test"));
    assert!(node.refuses(&held.request, "no-rule").policy);
    fs::write(node.folder.join("config.toml"), "state = 1\n").unwrap();
    node.refuses(&held.request, "config-invalid");
}

fn what_is_mounted_must_be_the_snapshot(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let held = node.container("c", &BUSYBOX);
    let other = node.container("other", &BUSYBOX);
    node.allows(&held.request, "signature-verified");
    node.allows(
        &held.with_options(|options| options.push("ro".to_owned())),
        "signature-verified",
    );
    for (request, code) in [
        (held.with(|request| request.rootfs.clear()), "mounts-foreign"),
        (
            held.with(|request| request.rootfs = other.request.rootfs.clone()),
            "mounts-foreign",
        ),
        (
            held.with_options(|options| {
                for option in options {
                    if let Some(lower) = option.strip_prefix("lowerdir=") {
                        *option = format!("lowerdir=/etc:{lower}");
                    }
                }
            }),
            "mounts-foreign",
        ),
        (
            held.with(|request| request.rootfs.push(request.rootfs[0].clone())),
            "mounts-foreign",
        ),
        (
            held.with_options(|options| options.push("redirect_dir=on".to_owned())),
            "mount-option-unknown",
        ),
        (
            held.with_options(|options| options.push("context=\"a:b:c:s0\"".to_owned())),
            "mount-option-unknown",
        ),
        (held.with(|request| request.checkpoint = true), "checkpoint-restore"),
    ] {
        node.refuses(&request, code);
    }
    let mut edited = spec();
    edited["linux"]["mountLabel"] = "a:b:c:s0".into();
    held.write_spec(&edited);
    node.allows(
        &held.with_options(|options| options.push("context=\"a:b:c:s0\"".to_owned())),
        "signature-verified",
    );
    for (path, destination) in [("/", "/proc"), ("../other/rootfs", "/proc"), ("rootfs", "/")] {
        let mut edited = spec();
        edited["root"]["path"] = path.into();
        edited["mounts"][0]["destination"] = destination.into();
        held.write_spec(&edited);
        node.refuses(&held.request, "root-foreign");
    }
}

fn the_snapshot_must_be_the_images(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let empty = node.container_on("empty", &BUSYBOX.name, "", &spec());
    node.refuses(&empty.request, "snapshot-no-parent");

    // Someone put a file on top of the image and calls the result a layer.
    let (active, layer) = (case.id("active"), case.id("layer"));
    node.ctr(&["snapshots", "prepare", &active, &BUSYBOX.chain_id.to_string()]);
    node.ctr(&["snapshots", "commit", &layer, &active]);
    {
        let foreign = node.container_on("foreign", &BUSYBOX.name, &layer, &spec());
        node.refuses(&foreign.request, "snapshot-foreign");
    }
    node.ctr(&["snapshots", "rm", &layer]);

    let gone = node.container("gone", &BUSYBOX);
    let mut gone = std::mem::ManuallyDrop::new(gone);
    gone.snapshot = false;
    case.client.remove_snapshot(&gone.id).unwrap();
    node.refuses(&gone.request, "snapshot-missing");
    drop(std::mem::ManuallyDrop::into_inner(gone));
}

fn a_retagged_image_is_refused(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let first = node.image("first");
    node.sign(first.manifest);
    let name = format!("assay.test/{}:moving", case.id("tag"));
    node.ctr(&["images", "tag", &first.name, &name]);
    let held = node.container_on("c", &name, &first.chain_id.to_string(), &spec());
    node.allows(&held.request, "signature-verified");
    // The name now stands for another image, signed as well: what is mounted is still the first.
    node.ctr(&["images", "tag", "--force", &BUSYBOX.name, &name]);
    node.refuses(&held.request, "image-retagged");
    node.ctr(&["images", "rm", &name]);
    node.refuses(&held.request, "image-unknown");
    node.ctr(&["images", "rm", &first.name]);
}

fn a_reused_upper_directory_is_refused(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let held = node.container("c", &BUSYBOX);
    node.allows(&held.request, "signature-verified");
    fs::write(held.upper().join("left-behind"), "").unwrap();
    assert!(node.refuses(&held.request, "upper-reused").policy);
    node.policy(&KEY_RULE.replace(
        "[[rule.signature]]",
        "runtime = { restart = \"allow\" }\n[[rule.signature]]",
    ));
    node.allows(&held.request, "signature-verified");
}

fn edited_and_missing_content_is_refused(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let image = node.image("edited");
    node.sign(image.manifest);
    let held = node.container("c", &image);
    node.allows(&held.request, "signature-verified");
    let edited = |digest: Digest, code: &str| {
        let file = node.blob(digest);
        let kept = fs::read(&file).unwrap();
        let replaced = String::from_utf8(kept.clone()).unwrap().replacen("amd64", "arm64", 1);
        let replaced = replaced.replacen("\"schemaVersion\":2", "\"schemaVersion\":3", 1);
        assert_ne!(replaced.as_bytes(), kept);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, replaced).unwrap();
        node.refuses(&held.request, code);
        fs::remove_file(&file).unwrap();
        node.refuses(
            &held.request,
            if code == "config-edited" {
                "platform-missing"
            } else {
                "content-missing"
            },
        );
        fs::write(&file, kept).unwrap();
        node.allows(&held.request, "signature-verified");
    };
    edited(image.config, "config-edited");
    edited(image.manifest, "manifest-edited");
    node.ctr(&["images", "rm", &image.name]);
}

fn containers_without_an_image_are_refused(case: &Case) {
    let every = KEY_RULE.replace("{ image = [\"assay.test/**\"] }", "{ kind = \"container\" }");
    let node = Node::new(case, &every);
    let id = case.id("rootfs");
    case.client
        .create_record(Record {
            id: id.clone(),
            runtime: runtime(),
            spec: Some(any(&spec())),
            ..Record::default()
        })
        .unwrap();
    let held = Held {
        case,
        request: node.request(&case.daemon.scope, &id, Vec::new(), &spec()),
        id,
        snapshot: false,
    };
    let decision = node.refuses(&held.request, "no-image");
    assert_eq!(decision.name, "");
    let unnamed = node.container_on("unnamed", "", &BUSYBOX.chain_id.to_string(), &spec());
    node.refuses(&unnamed.request, "no-image");
}

fn what_is_not_known_is_refused(case: &Case) {
    let node = Node::new(case, &KEY_RULE.replace("enforce", "audit"));
    let held = node.container("c", &BUSYBOX);
    for (request, code) in [
        (
            held.with(|request| request.containerd = "/run/no/such.sock".to_owned()),
            "containerd-unreachable",
        ),
        (
            held.with(|request| request.container = "no-such-container".to_owned()),
            "container-unknown",
        ),
        (
            held.with(|request| request.bundle = "/no/such/bundle".to_owned()),
            "spec-unreadable",
        ),
    ] {
        node.refuses(&request, code);
    }
    fs::write(Path::new(&held.request.bundle).join("config.json"), "{\"root\":1}").unwrap();
    node.refuses(&held.request, "spec-invalid");
    held.write_spec(&spec());
    // What a user namespace calls root is not the node's.
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--", env!("CARGO_BIN_EXE_assay"), "admit"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("ASSAY_CONFIG", node.folder.join("config.toml"));
    let decision = node.admit_with(&mut command, &held.request);
    assert_eq!(decision.audit[0].code, "rootless-layout", "{}", decision.line());

    let mut wrong = serde_json::to_value(&held.request).unwrap();
    wrong["version"] = 99.into();
    let mut child = node
        .assay(&["admit"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(wrong.to_string().as_bytes())
        .unwrap();
    let decision: Decision = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(
        (decision.verdict, decision.code.as_str()),
        (Verdict::Refuse, "request-invalid")
    );
}

fn a_containerd_that_hangs_is_refused_in_time(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let held = node.container("c", &BUSYBOX);
    let config = node.folder.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}admit_timeout = \"500ms\"\n")).unwrap();
    let socket = node.folder.join("hangs.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    let hanging = held.with(|request| request.containerd = socket.display().to_string());
    node.refuses(&hanging, "identity-timeout");
    assert!(started.elapsed() < Duration::from_secs(10));
}

fn a_full_disk_is_refused(case: &Case) {
    let node = Node::new(case, "");
    let state = node.folder.join("state");
    fs::create_dir(&state).unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new(arguments[0])
            .args(&arguments[1..])
            .arg(&state)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    mount(&["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"]);
    let full = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        node.policy(KEY_RULE);
        node.sign(BUSYBOX.manifest);
        let held = node.container("c", &BUSYBOX);
        node.allows(&held.request, "signature-verified");
        let log = state.join(LOG);
        // Every page is taken, and the log's last one is nearly full.
        let line = fs::read_to_string(&log).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(line.repeat(4).as_bytes()).unwrap();
        let mut filler = fs::File::create(state.join("filler")).unwrap();
        while filler.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
        while file.write(line.as_bytes()).is_ok_and(|written| written == line.len()) {}
        let decision = node.refuses(&held.request, "state-full");
        assert!(!decision.policy);
        drop(filler);
        fs::remove_file(state.join("filler")).unwrap();
        node.allows(&held.request, "signature-verified");
    }));
    mount(&["umount"]);
    if let Err(panic) = full {
        std::panic::resume_unwind(panic);
    }
}

fn a_remapped_snapshot_is_bound(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let chain = BUSYBOX.chain_id.to_string();
    let mut mapped = spec();
    let line = json!([{ "containerID": 0, "hostID": 4000, "size": 1000 }]);
    mapped["linux"] = json!({ "uidMappings": line, "gidMappings": line });
    let document = format!(
        r#"{{"Parent":"{chain}","IDMap":{{"UidMap":[{{"containerID":0,"hostID":4000,"size":1000}}],"GidMap":[{{"containerID":0,"hostID":4000,"size":1000}}]}}}}"#
    );
    for (number, copy) in [
        format!("{chain}-4000-4000"),
        Digest::of(document.as_bytes()).to_string(),
    ]
    .iter()
    .enumerate()
    {
        let active = case.id(&format!("remap-{number}"));
        node.ctr(&["snapshots", "prepare", &active, &chain]);
        node.ctr(&["snapshots", "commit", copy, &active]);
        {
            let held = node.container_on(&format!("mapped-{number}"), &BUSYBOX.name, copy, &mapped);
            node.allows(&held.request, "signature-verified");
            // Another mapping, or none, does not lead to this copy.
            held.write_spec(&spec());
            node.refuses(&held.request, "snapshot-foreign");
        }
        node.ctr(&["snapshots", "rm", copy]);
    }
    // The right name on something that was not copied from the image.
    let copy = format!("{chain}-4000-4000");
    let active = case.id("forged");
    node.ctr(&["snapshots", "prepare", &active]);
    node.ctr(&["snapshots", "commit", &copy, &active]);
    {
        let held = node.container_on("forged-copy", &BUSYBOX.name, &copy, &mapped);
        node.refuses(&held.request, "snapshot-foreign");
    }
    node.ctr(&["snapshots", "rm", &copy]);
}

/// What containerd stores about a container of CRI, as a request for it.
fn cri_request(node: &Node<'_>, id: &str) -> Request {
    let client = node.case.daemon.client("k8s.io");
    let get = GetContainerRequest { id: id.to_owned() };
    let record = client
        .answer(ContainersClient::new(client.channel()).get(in_kubernetes(get)))
        .unwrap()
        .container
        .unwrap();
    let spec: Value = serde_json::from_slice(&record.spec.unwrap().value).unwrap();
    let mounts = MountsRequest {
        snapshotter: record.snapshotter,
        key: record.snapshot_key,
    };
    let mounts = client
        .answer(SnapshotsClient::new(client.channel()).mounts(in_kubernetes(mounts)))
        .unwrap()
        .mounts;
    node.request("k8s.io", id, mounts, &spec)
}

fn in_kubernetes<T>(body: T) -> ApiRequest<T> {
    let mut request = ApiRequest::new(body);
    request
        .metadata_mut()
        .insert("containerd-namespace", "k8s.io".parse().unwrap());
    request
}

fn pods_are_bound_and_matched(case: &Case) {
    let node = Node::new(
        case,
        &format!(
            "{}{}",
            KEY_RULE.replace(
                "image = [\"assay.test/**\"]",
                "image = [\"assay.test/plain/busybox:*\"], namespace = [\"default\"], kind = \"container\""
            ),
            r#"
[[rule]]
name = "pause"
match = { kind = "sandbox", namespace = ["default"] }
mode = "enforce"
[[rule.signature]]
any = [{ key = "release" }]
"#
        ),
    );
    node.sign(BUSYBOX.manifest);
    let pod = Pod::run(case.daemon, &case.id("pod"), STOCK_HANDLER).unwrap();
    let container = pod.create("c", &BUSYBOX.name, &["/bin/sh"]).unwrap();
    let request = cri_request(&node, &container);
    let decision = node.allows(&request, "signature-verified");
    assert_eq!(decision.rule.as_deref(), Some("signed"));
    assert_eq!(decision.name, BUSYBOX.name);

    // The sandbox has run already: only that stands between it and an answer about its image.
    let sandbox = cri_request(&node, &pod.id);
    let decision = node.admit(&sandbox);
    assert_eq!(decision.rule.as_deref(), Some("pause"), "{}", decision.line());
    assert_eq!(decision.code, "upper-reused", "{}", decision.line());
    assert!(decision.image.is_some());

    // An annotation cannot make a container a sandbox, whose rule may be weaker.
    let config = Path::new(&request.bundle).join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    spec["annotations"]["io.kubernetes.cri.container-type"] = "sandbox".into();
    fs::write(&config, spec.to_string()).unwrap();
    node.policy("[[rule]]\nname = \"everything\"\nmatch = { kind = \"container\" }\nmode = \"enforce\"\ndigest = [\"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"]\n");
    node.refuses(&request, "annotations-foreign");
    pod.remove(&container).unwrap();
    end(case, pod);
}

/// Removes a pod, and after it the cgroup that a kubelet would remove.
fn end(case: &Case, pod: Pod) {
    drop(pod);
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let cgroup = hierarchy.unwrap().path().join(&case.daemon.scope).join(case.id("pod"));
        if cgroup.exists() {
            fs::remove_dir(cgroup).unwrap();
        }
    }
}

fn image_volumes_need_a_rule_of_their_own(case: &Case) {
    if case.daemon.version != Version::V2_1 {
        println!("skipped: containerd {} has no image volumes", case.daemon.version);
        return;
    }
    let node = Node::new(case, KEY_RULE);
    node.sign(BUSYBOX.manifest);
    let name = case.id("data");
    let volume = Image::busybox(&format!("assay.test/{name}:1"), &name, &["/bin/sh"]);
    case.daemon.import(&volume, "k8s.io");
    let pod = Pod::run(case.daemon, &case.id("pod"), STOCK_HANDLER).unwrap();
    let container = pod
        .create_with("with-volume", &BUSYBOX.name, &[], |config| {
            config.mounts = vec![image_volume(&volume.name, "/data")];
        })
        .unwrap();
    let request = cri_request(&node, &container);
    let decision = node.refuses(&request, "no-rule");
    assert!(
        decision.reason.contains("/data") && decision.reason.contains(&volume.name),
        "{}",
        decision.line()
    );
    let for_volumes = KEY_RULE
        .replace("match = { ", "match = { kind = \"volume\", ")
        .replace("\"signed\"", "\"volumes\"");
    node.policy(&format!("{KEY_RULE}{for_volumes}"));
    node.refuses(&request, "signature-missing");
    node.sign(volume.manifest);
    let decision = node.allows(&request, "signature-verified");
    assert_eq!(decision.evidence.len(), 2);
    pod.remove(&container).unwrap();
    end(case, pod);
    let removed = case.daemon.ctr("k8s.io", &["images", "rm", &volume.name]);
    assert!(removed.status.success());
}

fn verify_says_what_admit_would(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let socket = case.daemon.socket();
    let verify = |image: &str, more: &[&str]| {
        let mut arguments = vec![
            "verify",
            "--namespace",
            &case.daemon.scope,
            "--address",
            socket.to_str().unwrap(),
        ];
        arguments.extend(more);
        arguments.push(image);
        let output = node.assay(&arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = verify(&BUSYBOX.name, &[]);
    assert_eq!(code, 4, "{text}");
    node.sign(BUSYBOX.manifest);
    let (code, text) = verify(&BUSYBOX.name, &["-o", "json"]);
    assert_eq!(code, 0, "{text}");
    let decision: Decision = serde_json::from_str(&text).unwrap();
    assert_eq!(decision.code, "signature-verified");
    let held = node.container("c", &BUSYBOX);
    let admitted = node.allows(&held.request, "signature-verified");
    assert_eq!(admitted.image, decision.image);
    assert_eq!(admitted.evidence, decision.evidence);
    let (code, text) = verify("assay.test/no/such:1", &[]);
    assert_eq!(code, 7, "{text}");
    let (code, text) = verify(&BUSYBOX.name, &["--address", "/no/such.sock"]);
    assert_eq!(code, 2, "an option given twice is a mistake: {text}");
}

fn every_signed_manifest_of_a_configuration_counts(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let image = node.image("twice");
    // Another publisher's manifest of the very same configuration, signed; the container's own is not.
    let other = Image::busybox(
        &format!("assay.test/{}:copy", case.id("twice")),
        &case.id("twice"),
        &["/bin/sh"],
    );
    assert_eq!(other.config, image.config);
    let config = fs::read(node.blob(image.config)).unwrap();
    let manifest = node.manifest_of(&image, &config, "another");
    let index = node.import_index(&other.name, &[(&manifest, MANIFEST)], &[]);
    let held = node.container("c", &image);
    node.refuses(&held.request, "evidence-cache-empty");
    // Its index counts as well, and is only found through the content store.
    node.sign(index);
    let decision = node.allows(&held.request, "signature-verified");
    let bound = decision.image.unwrap();
    assert_eq!(bound.manifests.len(), 2);
    // The index that `ctr` imported from may still be waiting for the garbage collector.
    assert!(bound.indexes.contains(&index), "{:?}", bound.indexes);
    // Where the container's own manifest is signed nothing else is looked for, unless it could speak against the image.
    node.sign(image.manifest);
    let decision = node.allows(&held.request, "signature-verified");
    assert!(!decision.image.unwrap().indexes.contains(&index));
    node.policy(&format!("[[deny]]\ndigest = [\"{index}\"]\n{KEY_RULE}"));
    assert!(node.refuses(&held.request, "digest-denied").policy);
    let by_index =
        format!("[[rule]]\nname = \"by its index\"\nmatch = {{ digest = [\"{index}\"] }}\nmode = \"enforce\"");
    node.policy(&format!("{by_index}\ndigest = [\"{}\"]\n{KEY_RULE}", BUSYBOX.manifest));
    node.refuses(&held.request, "digest-not-listed");
    node.ctr(&["images", "rm", &other.name, &image.name]);
}

fn a_signed_index_that_does_not_list_the_image_is_none(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let (image, other) = (node.image("unlisted"), node.image("listed"));
    let config = fs::read(node.blob(other.config)).unwrap();
    let manifest = node.manifest_of(&other, &config, "signed");
    let name = format!("assay.test/{}:index", case.id("other"));
    let index = node.import_index(&name, &[(&manifest, MANIFEST)], &[]);
    node.sign(index);
    let held = node.container("c", &image);
    node.refuses(&held.request, "signature-missing");
    // containerd's labels say that the index lists the image. Whoever writes them says so, and not the index.
    let label = format!("containerd.io/gc.ref.content.m.7={}", image.manifest);
    node.ctr(&["content", "label", &index.to_string(), &label]);
    node.refuses(&held.request, "signature-missing");
    let listed = node.container("listed", &other);
    let decision = node.allows(&listed.request, "signature-verified");
    assert!(decision.image.unwrap().indexes.contains(&index));
    node.ctr(&["images", "rm", &name, &image.name, &other.name]);
}

fn an_attestation_that_an_index_calls_the_image_is_none(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let image = node.image("attested");
    let statement = br#"{"_type":"https://in-toto.io/Statement/v0.1"}"#;
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(statement)] },
    });
    let config = serde_json::to_vec(&config).unwrap();
    let attestation = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": listed(&config, CONFIG),
        "layers": [listed(statement, "application/vnd.in-toto+json")],
    });
    let attestation = serde_json::to_vec(&attestation).unwrap();
    let own = fs::read(node.blob(image.manifest)).unwrap();
    // Signed is the attestation, which the index says is the image for this platform, alone or beside the image.
    node.sign(Digest::of(&attestation));
    let alone = format!("assay.test/{}:alone", case.id("attested"));
    let beside = format!("assay.test/{}:beside", case.id("attested"));
    let more = [config.as_slice(), statement];
    node.import_index(&alone, &[(&attestation, MANIFEST)], &more);
    node.import_index(&beside, &[(&attestation, MANIFEST), (&own, MANIFEST)], &more);
    {
        let chain = image.chain_id.to_string();
        let held = node.container_on("alone", &alone, &chain, &spec());
        node.refuses(&held.request, "image-retagged");
        let held = node.container_on("beside", &beside, &chain, &spec());
        let decision = node.refuses(&held.request, "signature-missing");
        assert_eq!(decision.image.unwrap().manifests, [image.manifest]);
    }
    node.ctr(&["images", "rm", &alone, &beside, &image.name]);
}

fn two_images_of_the_same_layers_are_ambiguous(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let image = node.image("twin");
    let config = fs::read_to_string(node.blob(image.config)).unwrap();
    let other = config.replace("/bin/sh", "/bin/false").into_bytes();
    let first = node.manifest_of(&image, config.as_bytes(), "first");
    let second = node.manifest_of(&image, &other, "second");
    let name = format!("assay.test/{}:twins", case.id("twin"));
    let index = node.import_index(&name, &[(&first, MANIFEST), (&second, MANIFEST)], &[&other]);
    // Signed as a whole, and yet nobody knows which of the two is meant to run.
    node.sign(index);
    {
        let held = node.container_on("c", &name, &image.chain_id.to_string(), &spec());
        node.refuses(&held.request, "image-ambiguous");
    }
    node.ctr(&["images", "rm", &name, &image.name]);
}

fn indexes_without_end_are_refused(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let image = node.image("nested");
    node.sign(image.manifest);
    let chain = image.chain_id.to_string();
    let own = fs::read(node.blob(image.manifest)).unwrap();
    let around = |bytes: &[u8], kind: &str| {
        serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed(bytes, kind)] }))
            .unwrap()
    };
    let name = |what: &str| format!("assay.test/{}:{what}", case.id("nested"));
    let (shallow, deep) = (name("shallow"), name("deep"));
    let one = around(&own, MANIFEST);
    let two = around(&one, INDEX);
    let three = around(&two, INDEX);
    let layer = fs::read(node.blob(image.chain_id)).unwrap();
    let config = fs::read(node.blob(image.config)).unwrap();
    let inner: [&[u8]; 5] = [&one, &two, &own, &layer, &config];
    node.import_index(&shallow, &[(&two, INDEX)], &inner);
    node.import_index(&deep, &[(&three, INDEX)], &inner);
    {
        let held = node.container_on("shallow", &shallow, &chain, &spec());
        node.allows(&held.request, "signature-verified");
        let held = node.container_on("deep", &deep, &chain, &spec());
        node.refuses(&held.request, "index-too-large");
    }
    node.ctr(&["images", "rm", &shallow, &deep, &image.name]);
}

fn a_refusal_in_one_namespace_is_none_in_another(case: &Case) {
    let node = Node::new(case, "");
    let qa = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/evidence/keys/p256.pub");
    fs::copy(qa, node.folder.join("trust.d/qa.pub")).unwrap();
    fs::write(
        node.folder.join("trust.d/qa.toml"),
        "[[key]]\nid = \"qa\"\nfile = \"qa.pub\"\nuse = [\"image\"]\n",
    )
    .unwrap();
    let elsewhere = KEY_RULE
        .replace("\"signed\"", "\"qa\"")
        .replace("match = { ", "match = { containerd_namespace = [\"k8s.io\"], ")
        .replace("key = \"release\"", "key = \"qa\"");
    node.policy(&format!("{elsewhere}{KEY_RULE}"));
    let socket = case.daemon.socket();
    let verify = |namespace: &str| {
        let arguments = [
            "verify",
            "-o",
            "json",
            "--address",
            socket.to_str().unwrap(),
            "--namespace",
        ];
        let output = node
            .assay(&[&arguments[..], &[namespace, &BUSYBOX.name]].concat())
            .output()
            .unwrap();
        let decision: Decision = serde_json::from_slice(&output.stdout).unwrap();
        (decision.verdict, decision.code, decision.repeated)
    };
    let refused = |code: &str| (Verdict::Refuse, code.to_owned(), false);
    let allowed = |repeated| (Verdict::Allow, "signature-verified".to_owned(), repeated);
    let ours = case.daemon.scope.as_str();
    assert_eq!(verify(ours), refused("evidence-cache-empty"));
    node.sign(BUSYBOX.manifest);
    // The same image with the same evidence: each namespace has its own rule, and neither word sticks to the other.
    assert_eq!(verify("k8s.io"), refused("signer-not-wanted"));
    assert_eq!(verify(ours), allowed(false));
    assert_eq!(verify(ours), allowed(true));
    let (verdict, code, _) = verify("k8s.io");
    assert_eq!((verdict, code.as_str()), (Verdict::Refuse, "signer-not-wanted"));
    assert_eq!(verify(ours), allowed(true));
}

/// What `assay policy diff` says about a container or, without one, about the images.
fn changes<'a>(said: &'a Value, container: Option<&str>) -> Vec<&'a Value> {
    let changes = said["changes"].as_array().unwrap().iter();
    changes
        .filter(|change| change["container"].as_str() == container)
        .collect()
}

fn a_policy_diff_knows_images_and_undecided_containers(case: &Case) {
    let node = Node::new(case, KEY_RULE);
    let image = node.image("diffed");
    node.sign(image.manifest);
    let decided = node.container("decided", &image);
    let undecided = node.container("undecided", &image);
    node.allows(&decided.request, "signature-verified");
    // Decided on as it was: with a digest of its own instead of a signature it would be another rule's affair.
    let listed = format!(
        "[[rule]]\nname = \"listed\"\nmatch = {{ image = [\"assay.test/**\"] }}\ndigest = [\"{}\"]\n",
        BUSYBOX.config
    );
    let new = node.folder.join("new.toml");
    fs::write(&new, listed).unwrap();
    let socket = case.daemon.socket();
    let arguments = [
        "policy",
        "diff",
        "-o",
        "json",
        "--address",
        socket.to_str().unwrap(),
        "active",
    ];
    let output = node
        .assay(&[&arguments[..], &[new.to_str().unwrap()]].concat())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    for id in [&decided.id, &undecided.id] {
        let of_it = changes(&said, Some(id));
        let [change] = of_it.as_slice() else {
            panic!("{id}: {said:#}")
        };
        assert_eq!(change["namespace"], case.daemon.scope.as_str());
        assert_eq!(change["image"], image.name);
        assert_eq!(
            (&change["old"]["verdict"], &change["old"]["rule"]),
            (&json!("allow"), &json!("signed"))
        );
        assert_eq!(
            (&change["new"]["code"], &change["new"]["rule"]),
            (&json!("digest-not-listed"), &json!("listed"))
        );
    }
    let of_images = changes(&said, None);
    let named = |name: &str| {
        of_images
            .iter()
            .any(|change| change["image"] == name && change["namespace"] == case.daemon.scope.as_str())
    };
    assert!(named(&image.name), "{said:#}");
    // Nothing was signed before, and it is listed now: a difference, too.
    assert!(named(&BUSYBOX.name), "{said:#}");
    let log = fs::read_to_string(node.folder.join("state").join(LOG)).unwrap();
    assert_eq!(log.lines().count(), 1, "{log}");
    drop((decided, undecided));
    node.ctr(&["images", "rm", &image.name]);
}
