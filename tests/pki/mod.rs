//! A private Sigstore, made at run time: certificate authority, certificate transparency log, Rekor of both versions
//! and timestamp authority, and what they sign, right or with exactly one [`Fault`].
//!
//! ```ignore
//! let sigstore = Sigstore::new();
//! let bundle = sigstore.keyless().statement(&statement(hex, predicate)).bundle(Version::V03);
//! let broken = sigstore.breaking(Fault::TimeAltered).keyless().statement(…).bundle(Version::V03);
//! verify(&bundle, &sigstore.trusted_root());
//! ```

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "several programs use it, each a part, and all of them are tests"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub mod der;
mod fault;
mod log;
mod tsa;
mod x509;

pub use fault::Fault;
pub use log::{Entry, Log, Note, base64};
pub use x509::{Key, Leaf, Name, pem, sha256};

use log::{Logged, Logging, Proof, Tree};
use x509::{Authority, Purpose};

/// Payload type of an envelope.
pub const IN_TOTO: &str = "application/vnd.in-toto+json";
/// When things are signed, in seconds: 2025-06-01T10:00:00Z.
pub const SIGNED: i64 = 1_748_772_000;
/// Identity of [`Leaf::default`].
pub const IDENTITY: &str = "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1.2.3";
/// Issuer of [`Leaf::default`].
pub const ISSUER: &str = "https://token.actions.githubusercontent.com";

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;
/// 2100-01-01T00:00:00Z.
const FUTURE: i64 = 4_102_444_800;

/// The authorities and logs with their keys.
#[derive(Debug, Clone)]
pub struct Sigstore {
    fault: Option<Fault>,
    root: Authority,
    intermediate: Authority,
    ct: Key,
    pub rekor: Log,
    pub rekor2: Log,
    tsa_root: Authority,
    tsa: Authority,
    /// Trusted by nobody.
    stranger: Key,
    stranger_authority: Authority,
    stranger_tsa: Authority,
}

impl Default for Sigstore {
    fn default() -> Self {
        Self::new()
    }
}

impl Sigstore {
    /// With fresh keys and without fault.
    pub fn new() -> Self {
        let (start, end) = (SIGNED - YEAR, SIGNED + 9 * YEAR);
        let stranger = Key::new();
        let root = Authority::root("private root", &Key::new(), start, end);
        let tsa_root = Authority::root("private timestamp root", &Key::new(), start, end);
        let stranger_authority = Authority::root("private root", &stranger, start, end).certify(
            "private intermediate",
            &stranger,
            start,
            end,
            Purpose::Intermediate,
        );
        let stranger_tsa = Authority::root("private timestamp root", &stranger, start, end).certify(
            "private timestamps",
            &stranger,
            start,
            end,
            Purpose::TimestampAuthority,
        );
        Self {
            fault: None,
            intermediate: root.certify("private intermediate", &Key::new(), start, end, Purpose::Intermediate),
            tsa: tsa_root.certify(
                "private timestamps",
                &Key::new(),
                start,
                end,
                Purpose::TimestampAuthority,
            ),
            root,
            tsa_root,
            ct: Key::new(),
            rekor: Log::v1(&Key::new(), "rekor.private.example - 2605736670972794746"),
            rekor2: Log::v2(&Key::ed25519(), "log2025.private.example"),
            stranger,
            stranger_authority,
            stranger_tsa,
        }
    }

    /// The same authorities, doing this wrong from now on. Some faults show in [`Self::trusted_root`].
    #[must_use]
    pub fn breaking(&self, fault: Fault) -> Self {
        let mut broken = Self {
            fault: Some(fault),
            ..self.clone()
        };
        let start = SIGNED - YEAR;
        let certify_tsa = |end, purpose| {
            self.tsa_root
                .certify(&self.tsa.name, &self.tsa.key, start, end, purpose)
        };
        match fault {
            Fault::IntermediateExpired => {
                broken.intermediate = self.root.certify(
                    &self.intermediate.name,
                    &self.intermediate.key,
                    start,
                    SIGNED - DAY,
                    Purpose::Intermediate,
                );
            }
            Fault::LeafOutsideNameConstraints => {
                broken.intermediate = self.root.certify(
                    &self.intermediate.name,
                    &self.intermediate.key,
                    start,
                    SIGNED + 9 * YEAR,
                    Purpose::ConstrainedIntermediate,
                );
            }
            Fault::TimestampOutsideAuthority => {
                broken.tsa = certify_tsa(SIGNED - DAY, Purpose::TimestampAuthority);
            }
            Fault::TimestampByUselessAuthority => broken.tsa = certify_tsa(SIGNED + YEAR, Purpose::Useless),
            _ => {}
        }
        broken
    }

    fn breaks(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// `trusted_root.json`.
    pub fn trusted_root(&self) -> String {
        let window = |closed: Fault| {
            let start = time(SIGNED - YEAR);
            if self.breaks(closed) {
                json!({"start": start, "end": time(SIGNED - DAY)})
            } else {
                json!({"start": start})
            }
        };
        let log = |url: &str, key: &Key, id: &[u8; 32], closed: Fault| {
            json!({
                "baseUrl": url,
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": base64(&key.spki()),
                    "keyDetails": key.details(),
                    "validFor": window(closed),
                },
                "logId": {"keyId": base64(id)},
            })
        };
        let authority = |uri: &str, chain: [&Authority; 2], closed: Fault| {
            json!({
                "subject": {"organization": "private.example", "commonName": chain[1].name},
                "uri": uri,
                "certChain": {"certificates": chain.map(|one| json!({"rawBytes": base64(&one.certificate)}))},
                "validFor": window(closed),
            })
        };
        serde_json::to_string_pretty(&json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [
                log("https://rekor.private.example", &self.rekor.key, &self.rekor.id, Fault::LogKeyOutsideWindow),
                log("https://log2025.private.example", &self.rekor2.key, &self.rekor2.id, Fault::LogKeyOutsideWindow),
            ],
            "certificateAuthorities": [authority(
                "https://fulcio.private.example",
                [&self.intermediate, &self.root],
                Fault::AuthorityOutsideWindow,
            )],
            "ctlogs": [log("https://ct.private.example", &self.ct, &self.ct.id(), Fault::SctOutsideKeyWindow)],
            "timestampAuthorities": [authority(
                "https://timestamp.private.example",
                [&self.tsa, &self.tsa_root],
                Fault::TimestampOutsideWindow,
            )],
        }))
        .unwrap()
    }

    /// Certificate of the authority that issues the certificates of signers.
    pub fn intermediate(&self) -> &[u8] {
        &self.intermediate.certificate
    }

    /// Certificate of the root of trust.
    pub fn root(&self) -> &[u8] {
        &self.root.certificate
    }

    /// Signing with a certificate for [`IDENTITY`].
    pub fn keyless(&self) -> Signing<'_> {
        self.keyless_as(Leaf::default())
    }

    /// Signing with a certificate.
    pub fn keyless_as(&self, leaf: Leaf) -> Signing<'_> {
        Signing::new(self, Key::new(), Some(leaf))
    }

    /// Signing with a plain key.
    pub fn by_key(&self, key: &Key) -> Signing<'_> {
        Signing::new(self, key.clone(), None)
    }

    /// A timestamp of RFC 3161 over `message`.
    pub fn stamp(&self, message: &[u8], seconds: i64, certificates: bool) -> Vec<u8> {
        tsa::stamp(&self.tsa, &self.tsa_root, message, seconds, certificates)
    }

    fn certificate(&self, mut leaf: Leaf, key: &Key) -> Vec<u8> {
        match self.fault {
            Some(Fault::LeafIsAuthority) => leaf.authority = true,
            Some(Fault::LeafWithoutKeyUsage) => leaf.key_usage = None,
            Some(Fault::LeafWithoutDigitalSignature) => leaf.key_usage = Some(0x08),
            Some(Fault::LeafWithoutCodeSigning) => leaf.code_signing = false,
            Some(Fault::LeafWithoutName) => leaf.names.clear(),
            Some(Fault::LeafWithTwoNames) => leaf.names.push(Name::Email("mallory@example.com".to_owned())),
            Some(Fault::LeafIssuersDisagree) => leaf.issuer_v1 = Some("https://accounts.example.com".to_owned()),
            Some(Fault::LeafWithoutIssuer) => (leaf.issuer_v1, leaf.issuer_v2) = (None, None),
            Some(Fault::LeafExpired) => {
                (leaf.not_before, leaf.not_after) = (SIGNED - HOUR, SIGNED - HOUR / 2);
            }
            Some(Fault::LeafNotYetValid) => {
                (leaf.not_before, leaf.not_after) = (SIGNED + HOUR / 2, SIGNED + HOUR);
            }
            Some(Fault::TimeInFuture) => leaf.not_after = FUTURE + HOUR,
            _ => {}
        }
        if self.breaks(Fault::LeafSelfSigned) {
            return leaf.self_signed(key);
        }
        let sct = leaf.not_before * 1000 + 250;
        let timestamps: &[(&Key, i64, bool)] = match self.fault {
            Some(Fault::SctMissing) => &[],
            Some(Fault::SctByUnknownLog) => &[(&self.stranger, sct, true)],
            Some(Fault::SctOfOtherCertificate) => &[(&self.ct, sct, false)],
            _ => &[(&self.ct, sct, true)],
        };
        let issuer = match self.fault {
            Some(Fault::LeafByUnknownAuthority) => self.stranger_authority.clone(),
            Some(Fault::LeafByLeaf) => self.middleman(),
            _ => self.intermediate.clone(),
        };
        issuer.issue(&leaf, key, timestamps)
    }

    /// A signer that plays authority below the intermediate, which may have none below it.
    fn middleman(&self) -> Authority {
        self.intermediate.certify(
            "middleman",
            &self.stranger,
            SIGNED - DAY,
            SIGNED + DAY,
            Purpose::Intermediate,
        )
    }

    /// What stands between the certificate of a signer and the root.
    fn chain(&self) -> Vec<Vec<u8>> {
        match self.fault {
            Some(Fault::LeafByUnknownAuthority) => vec![self.stranger_authority.certificate.clone()],
            Some(Fault::LeafByLeaf) => vec![self.middleman().certificate, self.intermediate.certificate.clone()],
            _ => vec![self.intermediate.certificate.clone()],
        }
    }

    fn timestamps(&self, count: usize, signature: &[u8], payload: &[u8]) -> Vec<Vec<u8>> {
        let stranger = |embedded| tsa::stamp(&self.stranger_tsa, &self.tsa_root, signature, SIGNED, embedded);
        let one = || match self.fault {
            Some(Fault::TimestampOverPayload) => self.stamp(payload, SIGNED, true),
            Some(Fault::TimestampByUnknownAuthority) => stranger(false),
            Some(Fault::TimestampByUnknownAuthorityEmbedded) => stranger(true),
            Some(Fault::TimestampOutsideLeaf) => self.stamp(signature, SIGNED + DAY, true),
            Some(Fault::TimestampRefused) => tsa::refused(),
            _ => self.stamp(signature, SIGNED, true),
        };
        match self.fault {
            Some(Fault::TimestampMissing) => Vec::new(),
            Some(Fault::TimestampTwice) => vec![one(); 2],
            Some(Fault::TimestampsTooMany) => (0..33).map(|_| one()).collect(),
            _ => (0..count).map(|_| one()).collect(),
        }
    }

    fn logging(&self, entry: Entry, body: Vec<u8>, proof: bool) -> Logging {
        let v2 = matches!(entry, Entry::HashedRekord002 | Entry::Dsse002);
        let mut log = if v2 { self.rekor2.clone() } else { self.rekor.clone() };
        if self.breaks(Fault::LogUnknown) {
            log = if v2 {
                Log::v2(&Key::ed25519(), &log.origin)
            } else {
                Log::v1(&self.stranger, &log.origin)
            };
        }
        let tree = Tree::with(&body);
        // A log of version 1 counts on over the trees that it has had.
        let local = i64::try_from(tree.index).unwrap();
        let mut index = if v2 { local } else { 25_000_000 + local };
        let mut seconds = if self.breaks(Fault::TimeInFuture) {
            FUTURE
        } else {
            SIGNED
        };
        let promise = match self.fault {
            _ if v2 => None,
            Some(Fault::PromiseMissing) => None,
            Some(Fault::PromiseByOtherKey) => {
                let other = Log {
                    key: self.stranger.clone(),
                    ..log.clone()
                };
                Some(other.promise(&body, seconds, index))
            }
            Some(Fault::PromiseOfOtherBody) => Some(log.promise(b"{}", seconds, index)),
            Some(Fault::IndexNegative) => Some(log.promise(&body, seconds, -index)),
            _ => Some(log.promise(&body, seconds, index)),
        };
        match self.fault {
            Some(Fault::TimeAltered) => seconds += 60,
            Some(Fault::IndexAltered) => index += 1,
            Some(Fault::IndexNegative) => index = -index,
            // The second version has no index but this.
            Some(Fault::ProofIndexAltered) if v2 => index -= 1,
            _ => {}
        }
        Logging {
            entry,
            id: log.id,
            index,
            seconds: (!v2).then_some(seconds),
            body,
            promise,
            proof: (proof && !self.breaks(Fault::ProofMissing)).then(|| self.proof(&log, tree)),
        }
    }

    fn proof(&self, log: &Log, tree: Tree) -> Proof {
        let witness = || Note {
            text: log.checkpoint(tree.size, &tree.root).text,
            signatures: Vec::new(),
        };
        let without = |line: usize| {
            let whole = log.checkpoint(tree.size, &tree.root).text;
            let lines = whole.split_inclusive('\n').enumerate();
            Note {
                text: lines
                    .filter(|(number, _)| *number != line)
                    .map(|(_, line)| line)
                    .collect(),
                signatures: Vec::new(),
            }
        };
        let checkpoint = match self.fault {
            Some(Fault::CheckpointOfOtherTree) => log.checkpoint(tree.size, &sha256(b"another tree")),
            Some(Fault::CheckpointByOtherKey) => {
                let key = if log.id == self.rekor2.id {
                    Key::ed25519()
                } else {
                    self.stranger.clone()
                };
                witness().signed(&log.origin, &log.id, &key)
            }
            Some(Fault::CheckpointWithOtherHint) => witness().signed(&log.origin, &[0x5a; 32], &log.key),
            Some(Fault::CheckpointByWitnessOnly) => {
                let key = Key::ed25519();
                let log = Log::v2(&key, "witness.example");
                witness().signed(&log.origin, &log.id, &key)
            }
            Some(Fault::CheckpointWithoutRoot) => without(2).signed(&log.origin, &log.id, &log.key),
            Some(Fault::CheckpointWithoutSize) => without(1).signed(&log.origin, &log.id, &log.key),
            Some(Fault::CheckpointWithoutOrigin) => without(0).signed(&log.origin, &log.id, &log.key),
            Some(Fault::CheckpointOfOtherOrigin) => Log {
                origin: "elsewhere.example".to_owned(),
                ..log.clone()
            }
            .checkpoint(tree.size, &tree.root),
            _ => log.checkpoint(tree.size, &tree.root),
        };
        let mut proof = Proof {
            index: tree.index,
            size: tree.size,
            root: tree.root,
            path: tree.path,
            checkpoint: checkpoint.envelope(),
        };
        match self.fault {
            Some(Fault::ProofHashAltered) => proof.path[1] = [0; 32],
            Some(Fault::ProofIndexAltered) => proof.index -= 1,
            Some(Fault::ProofCutShort) => {
                proof.path.pop();
            }
            _ => {}
        }
        proof
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap().to_string()
}

impl Default for Leaf {
    fn default() -> Self {
        Self {
            names: vec![Name::Uri(IDENTITY.to_owned())],
            issuer_v1: Some(ISSUER.to_owned()),
            issuer_v2: Some(ISSUER.to_owned()),
            claims: vec![
                (11, "github-hosted".to_owned()),
                (12, "https://github.com/acme/app".to_owned()),
                (14, "refs/tags/v1.2.3".to_owned()),
                (15, "123456".to_owned()),
                (17, "7890".to_owned()),
            ],
            not_before: SIGNED - 60,
            not_after: SIGNED + 540,
            authority: false,
            key_usage: Some(0x80),
            code_signing: true,
            foreign_key: None,
            sct_extensions: Vec::new(),
        }
    }
}

/// Who signs, and what vouches for it.
#[derive(Debug, Clone)]
pub struct Signing<'a> {
    sigstore: &'a Sigstore,
    key: Key,
    leaf: Option<Leaf>,
    entry: Option<Option<Entry>>,
    version2: bool,
    proof: bool,
    timestamps: usize,
}

impl<'a> Signing<'a> {
    fn new(sigstore: &'a Sigstore, key: Key, leaf: Option<Leaf>) -> Self {
        Self {
            sigstore,
            key,
            leaf,
            entry: None,
            version2: false,
            proof: true,
            timestamps: 0,
        }
    }

    /// In Rekor's second version, with a timestamp because that has no time of its own.
    #[must_use]
    pub fn rekor2(self) -> Self {
        Self {
            version2: true,
            timestamps: 1,
            ..self
        }
    }

    /// With an entry of this kind in place of the usual one.
    #[must_use]
    pub fn entry(self, entry: Entry) -> Self {
        Self {
            entry: Some(Some(entry)),
            ..self
        }
    }

    /// In no log.
    #[must_use]
    pub fn unlogged(self) -> Self {
        Self {
            entry: Some(None),
            ..self
        }
    }

    /// With the log's promise, but without proof.
    #[must_use]
    pub fn promised(self) -> Self {
        Self { proof: false, ..self }
    }

    /// With timestamps.
    #[must_use]
    pub fn timestamps(self, timestamps: usize) -> Self {
        Self { timestamps, ..self }
    }

    /// Signs an in-toto statement in an envelope.
    pub fn statement(&self, statement: &str) -> Signed {
        let default = if self.version2 {
            Entry::HashedRekord002
        } else {
            Entry::Dsse001
        };
        let payload = statement.as_bytes();
        self.sign(pae(payload), Some(payload), default)
    }

    /// Signs a message alone.
    pub fn message(&self, message: &[u8]) -> Signed {
        let default = if self.version2 {
            Entry::HashedRekord002
        } else {
            Entry::HashedRekord001
        };
        self.sign(message.to_vec(), None, default)
    }

    fn sign(&self, message: Vec<u8>, payload: Option<&[u8]>, default: Entry) -> Signed {
        let sigstore = self.sigstore;
        let certificate = self
            .leaf
            .as_ref()
            .map(|leaf| sigstore.certificate(leaf.clone(), &self.key));
        let signature = match sigstore.fault {
            Some(Fault::SignatureByOtherKey) => sigstore.stranger.sign(&message),
            Some(Fault::SignatureWithoutEncoding) => self.key.sign(payload.unwrap()),
            _ => self.key.sign(&message),
        };
        let content = match payload {
            Some(payload) => Content::Envelope(Envelope {
                payload: payload.to_vec(),
                payload_type: IN_TOTO.to_owned(),
                signatures: vec![signature.clone()],
            }),
            None => Content::Message(message.clone()),
        };
        let entries = match self.entry.unwrap_or(Some(default)) {
            None => Vec::new(),
            Some(entry) => {
                let envelope = match &content {
                    Content::Envelope(envelope) => envelope.json(),
                    Content::Message(_) => Vec::new(),
                };
                let payload = payload.unwrap_or_default();
                let mut logged = Logged {
                    message: &message,
                    payload,
                    envelope: &envelope,
                    signature: &signature,
                    certificate: certificate.as_deref(),
                    key: &self.key,
                };
                let (other_key, other_signature) = (Key::new(), self.key.sign(b"something else"));
                let other_certificate = self
                    .leaf
                    .as_ref()
                    .map(|leaf| sigstore.certificate(leaf.clone(), &other_key));
                let other_envelope = [b" ", &envelope[..]].concat();
                match sigstore.fault {
                    Some(Fault::EntryOfOtherPayload) => {
                        (logged.payload, logged.message) = (b"something else", b"something else");
                    }
                    // An entry that holds no signature is bound to it by the hash of the envelope.
                    Some(Fault::EntryOfOtherSignature) => {
                        (logged.signature, logged.envelope) = (&other_signature, &other_envelope);
                    }
                    Some(Fault::EntryOfOtherSigner) => {
                        (logged.key, logged.certificate) = (&other_key, other_certificate.as_deref());
                    }
                    _ => {}
                }
                let logging = sigstore.logging(entry, entry.body(&logged), self.proof);
                vec![logging; if sigstore.breaks(Fault::EntryTwice) { 2 } else { 1 }]
            }
        };
        let timestamps = sigstore.timestamps(self.timestamps, &signature, payload.unwrap_or(&message));
        let mut signed = Signed {
            content,
            signature,
            certificate,
            chain: sigstore.chain(),
            hint: base64(&self.key.id()),
            entries,
            timestamps,
        };
        signed.spoil(sigstore.fault);
        signed
    }
}

/// What is signed.
#[derive(Debug, Clone)]
pub enum Content {
    Envelope(Envelope),
    Message(Vec<u8>),
}

/// A DSSE envelope.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub payload: Vec<u8>,
    pub payload_type: String,
    pub signatures: Vec<Vec<u8>>,
}

impl Envelope {
    /// Its bytes as cosign writes them: a layer, and what it sends to the log.
    pub fn json(&self) -> Vec<u8> {
        let signatures: Vec<String> = self
            .signatures
            .iter()
            .map(|signature| format!(r#"{{"keyid":"","sig":"{}"}}"#, base64(signature)))
            .collect();
        format!(
            r#"{{"payloadType":"{}","payload":"{}","signatures":[{}]}}"#,
            self.payload_type,
            base64(&self.payload),
            signatures.join(",")
        )
        .into_bytes()
    }
}

/// A signature with all that vouches for it.
#[derive(Debug, Clone)]
pub struct Signed {
    pub content: Content,
    pub signature: Vec<u8>,
    pub certificate: Option<Vec<u8>>,
    pub chain: Vec<Vec<u8>>,
    pub hint: String,
    entries: Vec<Logging>,
    pub timestamps: Vec<Vec<u8>>,
}

/// Version of the bundle format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V01,
    V02,
    V03,
}

/// A layer of cosign's older layout.
#[derive(Debug, Clone)]
pub struct Layer {
    pub media_type: &'static str,
    pub blob: Vec<u8>,
    pub annotations: BTreeMap<String, String>,
}

impl Signed {
    fn spoil(&mut self, fault: Option<Fault>) {
        let last = self.signature.len() - 1;
        match fault {
            Some(Fault::SignatureAltered) => self.signature[last] ^= 1,
            Some(Fault::PayloadAltered) => match &mut self.content {
                Content::Envelope(envelope) => envelope.payload.push(b' '),
                Content::Message(message) => message.push(b' '),
            },
            _ => {}
        }
        let Content::Envelope(envelope) = &mut self.content else {
            return;
        };
        envelope.signatures = vec![self.signature.clone()];
        match fault {
            Some(Fault::SignaturesTwo) => envelope.signatures.push(self.signature.clone()),
            Some(Fault::PayloadTypeAltered) => envelope.payload_type = "application/json".to_owned(),
            _ => {}
        }
    }

    /// As a Sigstore bundle.
    pub fn bundle(&self, version: Version) -> Value {
        let media_type = match version {
            Version::V01 => "application/vnd.dev.sigstore.bundle+json;version=0.1",
            Version::V02 => "application/vnd.dev.sigstore.bundle+json;version=0.2",
            Version::V03 => "application/vnd.dev.sigstore.bundle.v0.3+json",
        };
        let raw = |der: &[u8]| json!({"rawBytes": base64(der)});
        let mut material = json!({
            "tlogEntries": self.entries.iter().map(Logging::json).collect::<Vec<_>>(),
            "timestampVerificationData": {"rfc3161Timestamps": self
                .timestamps
                .iter()
                .map(|token| json!({"signedTimestamp": base64(token)}))
                .collect::<Vec<_>>()},
        });
        match (&self.certificate, version) {
            (None, _) => material["publicKey"] = json!({"hint": self.hint}),
            // The newest version has no room for a chain.
            (Some(leaf), Version::V03) => material["certificate"] = raw(leaf),
            (Some(leaf), _) => {
                let chain: Vec<Value> = [leaf].into_iter().chain(&self.chain).map(|der| raw(der)).collect();
                material["x509CertificateChain"] = json!({"certificates": chain});
            }
        }
        let mut bundle = json!({"mediaType": media_type, "verificationMaterial": material});
        match &self.content {
            Content::Envelope(envelope) => {
                let signatures: Vec<Value> = envelope
                    .signatures
                    .iter()
                    .map(|signature| json!({"sig": base64(signature), "keyid": ""}))
                    .collect();
                bundle["dsseEnvelope"] = json!({
                    "payload": base64(&envelope.payload),
                    "payloadType": envelope.payload_type,
                    "signatures": signatures,
                });
            }
            Content::Message(message) => {
                bundle["messageSignature"] = json!({
                    "messageDigest": {"algorithm": "SHA2_256", "digest": base64(&sha256(message))},
                    "signature": base64(&self.signature),
                });
            }
        }
        bundle
    }

    /// As a layer of cosign's older layout, a `.sig` for a message and an `.att` for an envelope.
    pub fn layer(&self) -> Layer {
        let mut annotations = BTreeMap::new();
        let mut annotate = |name: &str, value: String| annotations.insert(name.to_owned(), value);
        let (media_type, blob) = match &self.content {
            Content::Message(message) => {
                annotate("dev.cosignproject.cosign/signature", base64(&self.signature));
                ("application/vnd.dev.cosign.simplesigning.v1+json", message.clone())
            }
            Content::Envelope(envelope) => {
                annotate("dev.cosignproject.cosign/signature", String::new());
                ("application/vnd.dsse.envelope.v1+json", envelope.json())
            }
        };
        if let Some(leaf) = &self.certificate {
            annotate("dev.sigstore.cosign/certificate", pem("CERTIFICATE", leaf));
            let chain: Vec<String> = self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
            annotate("dev.sigstore.cosign/chain", chain.concat());
        }
        if let Some(entry) = self.entries.first() {
            annotate("dev.sigstore.cosign/bundle", entry.annotation().to_string());
        }
        if let Some(token) = self.timestamps.first() {
            annotate(
                "dev.sigstore.cosign/rfc3161timestamp",
                json!({"SignedRFC3161Timestamp": base64(token)}).to_string(),
            );
        }
        Layer {
            media_type,
            blob,
            annotations,
        }
    }
}

/// The pre-authentication encoding of an in-toto payload.
pub fn pae(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {IN_TOTO} {} ", IN_TOTO.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// An in-toto statement about the SHA-256 `hex`.
pub fn statement(hex: &str, predicate_type: &str) -> String {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "registry.example/app", "digest": {"sha256": hex}}],
        "predicateType": predicate_type,
        "predicate": {},
    })
    .to_string()
}

/// A simple-signing payload about the SHA-256 `hex`.
pub fn simple_signing(hex: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": "registry.example/app"},
            "image": {"docker-manifest-digest": format!("sha256:{hex}")},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string()
    .into_bytes()
}
