//! Evidence that means harm: bundles that are as large as any may be, and of which every byte makes work.

use std::fs;
use std::path::{Path, PathBuf};

use assay::digest::Digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// A key that signed none of it.
const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
                   MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYDrRbPUAn+86CbkqFul69J/01Vcg\n\
                   Bv7iCa4O6BA13dYfrJ7XRkmKUafJYH7snQ5PL+XhVo1UoPulO/4hBWPRIQ==\n\
                   -----END PUBLIC KEY-----\n";
const POLICY: &str = r#"
[[rule]]
name = "signed"
match = { image = ["assay.test/**"] }
mode = "enforce"
[[rule.signature]]
any = [{ key = "release" }]
[[rule.sbom]]
any = [{ key = "release" }]
"#;
/// Bundles of each kind: together they are most of what is read for one question.
const BUNDLES: usize = 4;
/// Bytes of a payload, which base64 makes a third longer: 16 MiB are the most that a bundle may have.
const PAYLOAD: usize = 11_700_000;
/// Bytes of the rest of a bundle, where the payload is small.
const REST: usize = 15_500_000;

/// What a bundle is made of, as texts of JSON.
struct Parts {
    /// After the subject that is the image's.
    subjects: String,
    predicate: String,
    /// In the list of signatures.
    signatures: String,
    /// In the list of log entries.
    entries: String,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            subjects: String::new(),
            predicate: "{}".to_owned(),
            signatures: r#"{"sig":"MAYCAQECAQE="}"#.to_owned(),
            entries: String::new(),
        }
    }
}

/// `item` after `item`, with commas, in as many bytes.
fn filled(bytes: usize, item: &str) -> String {
    let mut text = item.to_owned();
    while text.len() < bytes {
        text.push(',');
        text.push_str(item);
    }
    text
}

/// Names that are all different, with `value`, in as many bytes.
fn named(bytes: usize, value: &str) -> String {
    let mut text = r#""x":0"#.to_owned();
    for number in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&format!(",\"{number:x}\":{value}"));
    }
    text
}

/// Writes bundles into the folder; answers the table of a test about their image.
type Make = fn(&Path) -> PathBuf;

/// What is in each bundle, the code that the image is refused with, and how it is written.
pub const INPUTS: [(&str, &str, Make); 6] = [
    ("SBOM of one long text", "key-unknown", |place| {
        let predicate = format!(r#"{{"a":"{}"}}"#, "x".repeat(PAYLOAD));
        bundles(place, &|| Parts {
            predicate: predicate.clone(),
            ..Parts::default()
        })
    }),
    ("SBOM of a million names", "key-unknown", |place| {
        let predicate = format!("{{{}}}", named(PAYLOAD, "0"));
        bundles(place, &|| Parts {
            predicate: predicate.clone(),
            ..Parts::default()
        })
    }),
    ("600 000 subjects", "payload-malformed", |place| {
        let subjects = format!(",{}", filled(PAYLOAD, r#"{"digest":{"a":""}}"#));
        bundles(place, &|| Parts {
            subjects: subjects.clone(),
            ..Parts::default()
        })
    }),
    ("a subject with a million digests", "payload-malformed", |place| {
        let subjects = format!(",{{\"digest\":{{{}}}}}", named(PAYLOAD, "\"\""));
        bundles(place, &|| Parts {
            subjects: subjects.clone(),
            ..Parts::default()
        })
    }),
    ("a million signatures", "signature-count", |place| {
        let signatures = filled(REST, r#"{"sig":""}"#);
        bundles(place, &|| Parts {
            signatures: signatures.clone(),
            ..Parts::default()
        })
    }),
    ("two million log entries", "bundle-malformed", |place| {
        let entries = filled(REST, r#"{"a":0}"#);
        bundles(place, &|| Parts {
            entries: entries.clone(),
            ..Parts::default()
        })
    }),
];

/// A table of one test about an image with these bundles, beside configuration, policy, trust and evidence.
fn bundles(place: &Path, parts: &dyn Fn() -> Parts) -> PathBuf {
    let image = Digest::of(b"image");
    let blobs = place.join("evidence/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let manifests: Vec<Value> = (0..BUNDLES)
        .map(|number| {
            let Parts {
                subjects,
                predicate,
                signatures,
                entries,
            } = parts();
            let payload = format!(
                r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"{number}","digest":{{"sha256":"{}"}}}}{subjects}],"predicateType":"https://spdx.dev/Document","predicate":{predicate}}}"#,
                image.hex()
            );
            let payload = BASE64_STANDARD.encode(payload);
            let bundle = format!(
                r#"{{"mediaType":"{BUNDLE}","verificationMaterial":{{"publicKey":{{}},"tlogEntries":[{entries}]}},"dsseEnvelope":{{"payload":"{payload}","payloadType":"application/vnd.in-toto+json","signatures":[{signatures}]}}}}"#
            );
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": BUNDLE,
                "config": put("application/vnd.oci.empty.v1+json", b"{}"),
                "layers": [put(BUNDLE, bundle.as_bytes())],
                "subject": {"mediaType": MANIFEST, "digest": image.to_string(), "size": 2},
            });
            put(MANIFEST, manifest.to_string().as_bytes())
        })
        .collect();
    let write = |name: &str, text: &str| fs::write(place.join(name), text).unwrap();
    write("evidence/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    write(
        "evidence/index.json",
        &json!({"schemaVersion": 2, "manifests": manifests}).to_string(),
    );
    fs::create_dir(place.join("trust.d")).unwrap();
    write("trust.d/release.pub", KEY);
    write(
        "trust.d/release.toml",
        "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\", \"sbom\"]\n",
    );
    write("policy.toml", POLICY);
    write(
        "test.toml",
        &format!(
            "[[test]]\nname = \"it\"\nimage = \"assay.test/app:1\"\ndigest = \"{image}\"\nevidence = \"evidence\"\nexpect = \"refuse\"\n"
        ),
    );
    place.join("test.toml")
}
