//! What is verified: signatures and attestations about the benchmark's image, by a key and by a private Sigstore; and
//! what is in the way of it.

use std::fs;
use std::path::{Path, PathBuf};

use assay::digest::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::node::{self, Node};
use crate::pki::{IDENTITY, ISSUER, Key, Sigstore, Version, base64};

/// Predicate types.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
pub const SBOM: &str = "https://spdx.dev/Document";
const PROVENANCE: &str = "https://slsa.dev/provenance/v1";

/// Images that are in the large cache beside the one that is asked about.
pub const OTHERS: usize = 10_000;
/// Forged bundles for one image.
pub const FORGED: usize = 10_000;

/// What a rule asks for: a signature and two attestations, all by one workflow, all in a log.
pub const KEYLESS: &str = "[[rule.signature]]
any = [{ identity = 'https://github.com/acme/app/.github/workflows/release.yml@refs/tags/*', issuer = 'https://token.actions.githubusercontent.com', root = 'ours' }]
log = 'required'
[[rule.provenance]]
any = [{ identity = 'https://github.com/acme/app/.github/workflows/release.yml@refs/tags/*', issuer = 'https://token.actions.githubusercontent.com', root = 'ours' }]
source = ['git+https://github.com/acme/app@refs/tags/*']
[[rule.sbom]]
any = [{ identity = 'https://github.com/acme/app/.github/workflows/release.yml@refs/tags/*', issuer = 'https://token.actions.githubusercontent.com', root = 'ours' }]";

/// A policy of one rule.
pub fn rule(name: &str, asks: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nmatch = {{ image = [\"assay.test/**\"] }}\nmode = \"enforce\"\n{asks}\n")
}

/// Signers, and what they sign about one image.
#[derive(Debug)]
pub struct Bundles {
    sigstore: Sigstore,
    key: Key,
    folder: TempDir,
    /// Digest of the image's index.
    pub index: Digest,
}

impl Bundles {
    pub fn new() -> Self {
        let layout = fs::read(node::root().join("target/images/busybox/index.json")).unwrap();
        let layout: Value = serde_json::from_slice(&layout).unwrap();
        Self {
            sigstore: Sigstore::new(),
            key: Key::new(),
            folder: tempfile::tempdir().unwrap(),
            index: layout["manifests"][0]["digest"].as_str().unwrap().parse().unwrap(),
        }
    }

    /// Makes a node trust the signers and fills its evidence cache.
    pub fn trust(&self, node: &Node) {
        self.write_trust(&node.folder().join("trust.d"));
        let layout = self.folder.path().join("evidence");
        if !layout.exists() {
            let keyless = [SIGN, PROVENANCE, SBOM].map(|predicate| self.keyless(predicate));
            let all = [SIGN, SBOM].map(|predicate| self.by_key(predicate));
            write_layout(
                &layout,
                all.into_iter().chain(keyless).map(|bundle| (self.index, bundle)),
            );
        }
        node.assay(["evidence", "import", layout.to_str().unwrap()]);
    }

    fn write_trust(&self, folder: &Path) {
        fs::write(folder.join("bench.pub"), self.key.pem()).unwrap();
        fs::write(folder.join("root.json"), self.sigstore.trusted_root()).unwrap();
        fs::write(
            folder.join("bench.toml"),
            "[[key]]\nid = \"bench\"\nfile = \"bench.pub\"\nuse = [\"image\", \"sbom\"]\n\n\
             [[root]]\nid = \"ours\"\nfile = \"root.json\"\n",
        )
        .unwrap();
    }

    /// A bundle with nothing but a signature by the key.
    pub fn by_key(&self, predicate: &str) -> String {
        let signing = self.sigstore.by_key(&self.key).unlogged();
        signing
            .statement(&statement(self.index, predicate))
            .bundle(Version::V03)
            .to_string()
    }

    fn keyless(&self, predicate: &str) -> String {
        let signed = self.sigstore.keyless().statement(&statement(self.index, predicate));
        signed.bundle(Version::V03).to_string()
    }

    /// A layout with evidence about ten thousand other images.
    pub fn others(&self) -> PathBuf {
        let layout = self.folder.path().join("others");
        let mut bundle: Value = serde_json::from_str(&self.keyless(SIGN)).unwrap();
        let others = (0..OTHERS).map(|number| {
            let image = Digest::of(&number.to_le_bytes());
            bundle["dsseEnvelope"]["payload"] = base64(statement(image, SIGN).as_bytes()).into();
            (image, bundle.to_string())
        });
        write_layout(&layout, others);
        layout
    }

    /// A table of one test about the image, in a folder with configuration, policy, trust and evidence: a genuine bundle
    /// before ten thousand that are genuine as far as can be told without a check of a signature.
    pub fn forged(&self) -> PathBuf {
        let folder = self.folder.path().join("attack");
        fs::create_dir_all(folder.join("trust.d")).unwrap();
        self.write_trust(&folder.join("trust.d"));
        let genuine: Value = serde_json::from_str(&self.keyless(SIGN)).unwrap();
        let mut forged = genuine.clone();
        let forged = (0..FORGED).map(|number| {
            forged["dsseEnvelope"]["signatures"][0]["keyid"] = number.to_string().into();
            forged["verificationMaterial"]["tlogEntries"][0]["logIndex"] = number.to_string().into();
            (self.index, forged.to_string())
        });
        write_layout(
            &folder.join("evidence"),
            std::iter::once((self.index, genuine.to_string())).chain(forged),
        );
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        let here = folder.display();
        write(
            "config.toml",
            &format!(
                "state = '{here}/state'\nrun = '{here}/run'\npolicy = '{here}/policy.toml'\ntrust = '{here}/trust.d'\n"
            ),
        );
        let signer = format!("{{ identity = '{IDENTITY}', issuer = '{ISSUER}', root = 'ours' }}");
        write(
            "policy.toml",
            &rule("signed", &format!("[[rule.signature]]\nany = [{signer}]")),
        );
        write(
            "test.toml",
            &format!(
                "[[test]]\nname = 'it'\nimage = 'assay.test/app:1'\ndigest = '{}'\nevidence = 'evidence'\nexpect = 'allow'\n",
                self.index
            ),
        );
        folder.join("test.toml")
    }
}

fn statement(image: Digest, predicate_type: &str) -> String {
    let predicate = match predicate_type {
        PROVENANCE => json!({
            "buildDefinition": {
                "buildType": "https://actions.github.io/buildtypes/workflow/v1",
                "externalParameters": {"workflow": {
                    "ref": "refs/tags/v1.2.3",
                    "repository": "https://github.com/acme/app",
                    "path": ".github/workflows/release.yml",
                }},
            },
            "runDetails": {"builder": {"id": IDENTITY}},
        }),
        SBOM => json!({"spdxVersion": "SPDX-2.3", "packages": (0..200).map(|number| json!({
            "SPDXID": format!("SPDXRef-{number}"), "name": format!("package-{number}"), "versionInfo": "1.0",
        })).collect::<Vec<_>>()}),
        _ => json!({}),
    };
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "", "digest": {"sha256": image.hex()}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
    .to_string()
}

/// An image layout in which each bundle is attached to an image.
fn write_layout(folder: &Path, bundles: impl Iterator<Item = (Digest, String)>) {
    const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let config = put(b"{}", "application/vnd.oci.empty.v1+json");
    let entries: Vec<Value> = bundles
        .map(|(image, bundle)| {
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": BUNDLE,
                "config": config,
                "layers": [put(bundle.as_bytes(), BUNDLE)],
                "subject": {"mediaType": MANIFEST, "digest": image.to_string(), "size": 1},
            });
            put(manifest.to_string().as_bytes(), MANIFEST)
        })
        .collect();
    fs::write(
        folder.join("index.json"),
        json!({"schemaVersion": 2, "manifests": entries}).to_string(),
    )
    .unwrap();
}
