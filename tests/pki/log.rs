//! Transparency logs: entries, promises, inclusion proofs, checkpoints.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::x509::{Key, pem, sha256};

/// Kind and version of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    HashedRekord001,
    Dsse001,
    Intoto001,
    Intoto002,
    HashedRekord002,
    Dsse002,
}

/// A log with its key and its name, the origin of its checkpoints.
#[derive(Debug, Clone)]
pub struct Log {
    pub key: Key,
    pub origin: String,
    pub id: [u8; 32],
}

/// What an entry is about.
#[derive(Debug, Clone)]
pub struct Logged<'a> {
    /// What was signed: the bytes themselves, or the encoding of an envelope.
    pub message: &'a [u8],
    /// Payload of the envelope.
    pub payload: &'a [u8],
    /// The whole envelope as it was sent to the log.
    pub envelope: &'a [u8],
    pub signature: &'a [u8],
    /// Certificate, or else the key.
    pub certificate: Option<&'a [u8]>,
    pub key: &'a Key,
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

impl Entry {
    pub fn kind(self) -> &'static str {
        match self {
            Self::HashedRekord001 | Self::HashedRekord002 => "hashedrekord",
            Self::Dsse001 | Self::Dsse002 => "dsse",
            Self::Intoto001 | Self::Intoto002 => "intoto",
        }
    }

    pub fn version(self) -> &'static str {
        match self {
            Self::HashedRekord001 | Self::Dsse001 | Self::Intoto001 => "0.0.1",
            Self::HashedRekord002 | Self::Dsse002 | Self::Intoto002 => "0.0.2",
        }
    }

    /// The canonical body of the entry.
    pub fn body(self, logged: &Logged<'_>) -> Vec<u8> {
        let hash = |bytes: &[u8]| json!({"algorithm": "sha256", "value": hex::encode(sha256(bytes))});
        let digest = |bytes: &[u8]| json!({"algorithm": "SHA2_256", "digest": base64(&sha256(bytes))});
        let signature = base64(logged.signature);
        let verifier = base64(
            match logged.certificate {
                Some(der) => pem("CERTIFICATE", der),
                None => logged.key.pem(),
            }
            .as_bytes(),
        );
        let raw = match logged.certificate {
            Some(der) => json!({"keyDetails": logged.key.details(), "x509Certificate": {"rawBytes": base64(der)}}),
            None => {
                json!({"keyDetails": logged.key.details(), "publicKey": {"rawBytes": base64(&logged.key.spki())}})
            }
        };
        let spec = match self {
            Self::HashedRekord001 => json!({
                "data": {"hash": hash(logged.message)},
                "signature": {"content": signature, "publicKey": {"content": verifier}},
            }),
            Self::Dsse001 => json!({
                "envelopeHash": hash(logged.envelope),
                "payloadHash": hash(logged.payload),
                "signatures": [{"signature": signature, "verifier": verifier}],
            }),
            Self::Intoto001 => json!({
                "content": {"hash": hash(logged.envelope), "payloadHash": hash(logged.payload)},
                "publicKey": verifier,
            }),
            Self::Intoto002 => json!({
                "content": {
                    "envelope": {
                        "payloadType": super::IN_TOTO,
                        "signatures": [{"publicKey": verifier, "sig": base64(signature.as_bytes())}],
                    },
                    "hash": hash(logged.envelope),
                    "payloadHash": hash(logged.payload),
                },
            }),
            Self::HashedRekord002 => json!({"hashedRekordV002": {
                "data": digest(logged.message),
                "signature": {"content": signature, "verifier": raw},
            }}),
            Self::Dsse002 => json!({"dsseV002": {
                "payloadHash": digest(logged.payload),
                "signatures": [{"content": signature, "verifier": raw}],
            }}),
        };
        serde_json::to_vec(&json!({"apiVersion": self.version(), "kind": self.kind(), "spec": spec})).unwrap()
    }
}

impl Log {
    /// A log of version 1: named by the hash of its key.
    pub fn v1(key: &Key, origin: &str) -> Self {
        Self {
            id: key.id(),
            key: key.clone(),
            origin: origin.to_owned(),
        }
    }

    /// A log of version 2: named by the hash of its name and key, as signed notes are.
    pub fn v2(key: &Key, origin: &str) -> Self {
        Self {
            id: sha256(&[origin.as_bytes(), &[0x0a, 0x01], &key.raw()].concat()),
            key: key.clone(),
            origin: origin.to_owned(),
        }
    }

    /// The signed entry timestamp.
    pub fn promise(&self, body: &[u8], seconds: i64, index: i64) -> Vec<u8> {
        let canonical = format!(
            r#"{{"body":"{}","integratedTime":{seconds},"logID":"{}","logIndex":{index}}}"#,
            base64(body),
            hex::encode(self.id),
        );
        self.key.sign(canonical.as_bytes())
    }

    /// A checkpoint over a tree of `size` entries.
    pub fn checkpoint(&self, size: usize, root: &[u8; 32]) -> Note {
        Note {
            text: format!("{}\n{size}\n{}\n", self.origin, base64(root)),
            signatures: Vec::new(),
        }
        .signed(&self.origin, &self.id, &self.key)
    }
}

/// A signed note, see <https://github.com/C2SP/C2SP/blob/main/signed-note.md>.
#[derive(Debug, Clone)]
pub struct Note {
    pub text: String,
    pub signatures: Vec<String>,
}

impl Note {
    pub fn signed(mut self, name: &str, id: &[u8; 32], key: &Key) -> Self {
        let name = name.split(' ').next().unwrap();
        let signature = base64(&[&id[..4], &key.sign(self.text.as_bytes())].concat());
        self.signatures.push(format!("\u{2014} {name} {signature}\n"));
        self
    }

    pub fn envelope(&self) -> String {
        format!("{}\n{}", self.text, self.signatures.concat())
    }
}

/// A Merkle tree of RFC 6962 with `body` among other entries.
#[derive(Debug, Clone)]
pub struct Tree {
    pub root: [u8; 32],
    pub index: usize,
    pub size: usize,
    pub path: Vec<[u8; 32]>,
}

impl Tree {
    pub fn with(body: &[u8]) -> Self {
        const BEFORE: u8 = 5;
        const AFTER: u8 = 2;
        let other = |number: u8| vec![b'{', number, b'}'];
        let leaves: Vec<[u8; 32]> = (0..BEFORE)
            .map(other)
            .chain([body.to_vec()])
            .chain((BEFORE..BEFORE + AFTER).map(other))
            .map(|entry| sha256(&[&[0][..], &entry].concat()))
            .collect();
        let index = usize::from(BEFORE);
        Self {
            root: tree_hash(&leaves),
            index,
            size: leaves.len(),
            path: audit_path(index, &leaves),
        }
    }
}

fn split(leaves: &[[u8; 32]]) -> (&[[u8; 32]], &[[u8; 32]]) {
    leaves.split_at(leaves.len().next_power_of_two() / 2)
}

fn tree_hash(leaves: &[[u8; 32]]) -> [u8; 32] {
    if let [leaf] = leaves {
        return *leaf;
    }
    let (left, right) = split(leaves);
    sha256(&[&[1][..], &tree_hash(left), &tree_hash(right)].concat())
}

fn audit_path(index: usize, leaves: &[[u8; 32]]) -> Vec<[u8; 32]> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let (left, right) = split(leaves);
    let (mut path, sibling) = if index < left.len() {
        (audit_path(index, left), tree_hash(right))
    } else {
        (audit_path(index - left.len(), right), tree_hash(left))
    };
    path.push(sibling);
    path
}

/// An entry as a bundle carries it.
#[derive(Debug, Clone)]
pub struct Logging {
    pub entry: Entry,
    pub id: [u8; 32],
    pub index: i64,
    pub seconds: Option<i64>,
    pub body: Vec<u8>,
    pub promise: Option<Vec<u8>>,
    pub proof: Option<Proof>,
}

/// A proof of inclusion.
#[derive(Debug, Clone)]
pub struct Proof {
    pub index: usize,
    pub size: usize,
    pub root: [u8; 32],
    pub path: Vec<[u8; 32]>,
    pub checkpoint: String,
}

impl Logging {
    /// An element of `tlogEntries`.
    pub fn json(&self) -> Value {
        let mut entry = json!({
            "logIndex": self.index.to_string(),
            "logId": {"keyId": base64(&self.id)},
            "kindVersion": {"kind": self.entry.kind(), "version": self.entry.version()},
            "canonicalizedBody": base64(&self.body),
        });
        if let Some(seconds) = self.seconds {
            entry["integratedTime"] = json!(seconds.to_string());
        }
        if let Some(promise) = &self.promise {
            entry["inclusionPromise"] = json!({"signedEntryTimestamp": base64(promise)});
        }
        if let Some(proof) = &self.proof {
            entry["inclusionProof"] = json!({
                "logIndex": proof.index.to_string(),
                "rootHash": base64(&proof.root),
                "treeSize": proof.size.to_string(),
                "hashes": proof.path.iter().map(|hash| base64(hash)).collect::<Vec<_>>(),
                "checkpoint": {"envelope": proof.checkpoint},
            });
        }
        entry
    }

    /// The annotation `dev.sigstore.cosign/bundle`.
    pub fn annotation(&self) -> Value {
        json!({
            "SignedEntryTimestamp": base64(self.promise.as_deref().unwrap_or_default()),
            "Payload": {
                "body": base64(&self.body),
                "integratedTime": self.seconds.unwrap_or_default(),
                "logIndex": self.index,
                "logID": hex::encode(self.id),
            },
        })
    }
}
