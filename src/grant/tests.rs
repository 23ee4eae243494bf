//! What opens something, and what does not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};

use super::sign::{PrivateKey, SignError};
use super::*;
use crate::policy::{Active, Deny, activate};
use crate::store::StateDir;
use crate::trust::clock::Clock;
use crate::trust::{HashAlgorithm, Key, Status, Use};
use crate::verify::bundle::pae;

/// A node with a policy in force and administrators whose keys are in files.
pub(crate) struct Node {
    folder: tempfile::TempDir,
    pub(crate) active: Active,
}

const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

fn minutes(minutes: i64) -> SignedDuration {
    SignedDuration::from_mins(minutes)
}

pub(crate) fn clock(now: Timestamp) -> Clock {
    Clock {
        now,
        mark: Some(Timestamp::UNIX_EPOCH),
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    spki::der::pem::encode_string(label, spki::der::pem::LineEnding::LF, der).unwrap()
}

impl Node {
    /// `ops` may grant, `release` may sign images.
    pub(crate) fn new() -> Self {
        let active = Active {
            closure: Vec::new(),
            tunings: Vec::new(),
            version: activate::VERSION,
            generation: 1,
            time: Timestamp::UNIX_EPOCH,
            sources: Vec::new(),
            keys: Vec::new(),
            builders: Vec::new(),
            notation: Vec::new(),
            roots: Vec::new(),
            deny: Deny::default(),
            rules: Vec::new(),
        };
        let mut node = Self {
            folder: tempfile::tempdir().unwrap(),
            active,
        };
        for (id, uses) in [("release", vec![Use::Image]), ("ops", vec![Use::Image, Use::Grant])] {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
            let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
            node.write_key(id, pair.to_pkcs8v1().unwrap().as_ref());
            node.trust(id, public.as_ref(), HashAlgorithm::Sha256, uses);
        }
        let stranger = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        node.write_key("stranger", stranger.to_pkcs8v1().unwrap().as_ref());
        node
    }

    fn path(&self, key: &str) -> std::path::PathBuf {
        self.folder.path().join(format!("{key}.pem"))
    }

    fn write_key(&self, id: &str, pkcs8: &[u8]) {
        fs::write(self.path(id), pem("PRIVATE KEY", pkcs8)).unwrap();
        fs::set_permissions(self.path(id), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn trust(&mut self, id: &str, spki: &[u8], hash: HashAlgorithm, r#use: Vec<Use>) {
        self.active.keys.push(Key {
            id: id.to_owned(),
            spki: spki.to_vec(),
            hash,
            r#use,
            from: None,
            until: None,
            status: Status::Active,
            digests: Vec::new(),
        });
    }

    fn key(&mut self, id: &str) -> &mut Key {
        self.active.keys.iter_mut().find(|key| key.id == id).unwrap()
    }

    pub(crate) fn state(&self) -> StateDir {
        StateDir::open(&self.folder.path().canonicalize().unwrap().join("state")).unwrap()
    }

    fn sign(&self, key: &str, message: &[u8]) -> Vec<u8> {
        let key = PrivateKey::read(&self.path(key), || panic!("no password is asked for")).unwrap();
        key.sign(message).unwrap()
    }

    pub(crate) fn envelope(&self, key: &str, grant: &Grant) -> Vec<u8> {
        let unsigned = Unsigned::new(grant).unwrap();
        unsigned.sealed(&self.sign(key, &unsigned.message())).unwrap()
    }

    /// An envelope of any payload of any type.
    fn envelope_of(&self, key: &str, kind: &str, payload: &str) -> Vec<u8> {
        use base64::Engine as _;
        let base64 = |bytes: &[u8]| base64::prelude::BASE64_STANDARD.encode(bytes);
        let signature = self.sign(key, &pae(kind, payload.as_bytes()));
        let (payload, sig) = (base64(payload.as_bytes()), base64(&signature));
        format!(r#"{{"payload":"{payload}","payloadType":"{kind}","signatures":[{{"keyid":"ops","sig":"{sig}"}}]}}"#)
            .into_bytes()
    }

    fn add_at(&self, envelope: &[u8], now: Timestamp) -> Result<Held, Fault> {
        add(&self.state(), envelope, &self.active, clock(now), |_| Ok(()))
    }

    pub(crate) fn add(&self, grant: &Grant) {
        self.add_at(&self.envelope("ops", grant), grant.not_before).unwrap();
    }

    fn grants(&self, now: Timestamp) -> Grants {
        Grants::load(&self.state(), &self.active, clock(now))
    }

    /// The id of what opens the image, or what is said instead.
    fn opening(&self, now: Timestamp) -> Result<String, String> {
        let opened = self
            .grants(now)
            .opening(&[image()], "k8s.io", "web", false)
            .map(|(held, _)| held.grant.id.clone());
        opened.map_err(|notes| notes.join("; "))
    }

    /// The code of what keeps the only grant from opening the image.
    fn closed(&self, now: Timestamp) -> String {
        let said = self.opening(now).unwrap_err();
        let (_, said) = said.split_once(" does not count: ").unwrap_or(("", ""));
        said.split_once(':').map_or(said, |(code, _)| code).to_owned()
    }
}

fn image() -> Digest {
    Digest::of(b"manifest")
}

/// Half an hour for the image of the tests, on this node.
pub(crate) fn grant() -> Grant {
    Grant {
        version: VERSION,
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        subject: Subject::Image(image()),
        scope: Scope::Node(node()),
        exec: false,
        reason: "the mirror is down".to_owned(),
        owner: "alice".to_owned(),
        not_before: NOW,
        not_after: NOW + minutes(30),
    }
}

fn code<T>(result: Result<T, Fault>) -> &'static str {
    result.err().map_or("opens", |fault| fault.code())
}

#[test]
fn every_kind_of_key_signs_what_verifies() {
    let mut node = Node::new();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).unwrap();
    let public: PublicKeyX509Der<'_> = p384.public_key().as_der().unwrap();
    node.write_key("p384", p384.to_pkcs8v1().unwrap().as_ref());
    node.trust("p384", public.as_ref(), HashAlgorithm::Sha384, vec![Use::Grant]);
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let public: PublicKeyX509Der<'_> = ed25519.public_key().as_der().unwrap();
    node.write_key("ed25519", ed25519.to_pkcs8v1().unwrap().as_ref());
    node.trust("ed25519", public.as_ref(), HashAlgorithm::Sha256, vec![Use::Grant]);
    let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = rsa.public_key().as_der().unwrap();
    node.write_key("rsa", private.as_ref());
    node.trust("rsa", public.as_ref(), HashAlgorithm::Sha256, vec![Use::Grant]);
    for key in ["ops", "p384", "ed25519", "rsa"] {
        let (read, by) = verify(&node.envelope(key, &grant()), &node.active, NOW).unwrap();
        assert_eq!((read, by.id.as_str()), (grant(), key));
    }
}

#[test]
fn a_private_key_that_others_can_read_is_refused_and_so_is_what_is_no_key() {
    let node = Node::new();
    let read = |path: &Path| PrivateKey::read(path, || Ok(String::new())).map(drop);
    let path = node.path("ops");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(read(&path), Err(SignError::Open(_))));
    let other = node.path("other");
    for (text, said) in [
        ("not a key".to_owned(), "holds no private key"),
        (pem("EC PRIVATE KEY", b"x"), "EC PRIVATE KEY"),
        (pem("PRIVATE KEY", b"x"), "none of ECDSA"),
        (pem("ENCRYPTED SIGSTORE PRIVATE KEY", b"{}"), "missing field"),
        (
            pem(
                "ENCRYPTED SIGSTORE PRIVATE KEY",
                br#"{"kdf":{"name":"scrypt","params":{"N":1073741824,"r":8,"p":1},"salt":""},"cipher":{"name":"nacl/secretbox","nonce":""},"ciphertext":""}"#,
            ),
            "takes too much",
        ),
    ] {
        fs::write(&other, text).unwrap();
        fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
        let error = read(&other).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn only_a_key_that_may_grant_and_counts_now_opens_anything() {
    let mut node = Node::new();
    let by = |node: &Node, key: &str| code(verify(&node.envelope(key, &grant()), &node.active, NOW));
    assert_eq!(by(&node, "ops"), "opens");
    assert_eq!(by(&node, "release"), "grant-key-use");
    assert_eq!(by(&node, "stranger"), "grant-key-unknown");
    type Change = fn(&mut Node);
    let changes: [Change; 5] = [
        |node| node.key("ops").status = Status::Retired,
        |node| node.key("ops").status = Status::Distrusted,
        |node| node.key("ops").until = Some(NOW),
        |node| node.key("ops").from = Some(NOW + minutes(1)),
        |node| {
            node.key("ops").status = Status::Active;
            node.active.deny.key = vec!["ops".to_owned()];
        },
    ];
    for change in changes {
        let before = node.active.clone();
        change(&mut node);
        assert_eq!(by(&node, "ops"), "grant-key-ended");
        node.active = before;
    }
    // The same key under another name is the same key.
    let again = Key {
        id: "again".to_owned(),
        status: Status::Distrusted,
        ..node.key("ops").clone()
    };
    node.active.keys.push(again);
    assert_eq!(by(&node, "ops"), "grant-key-ended");
}

#[test]
fn an_envelope_of_anything_else_opens_nothing() {
    let node = Node::new();
    let payload = serde_json::to_string(&grant()).unwrap();
    let said = |envelope: &[u8]| code(verify(envelope, &node.active, NOW));
    assert_eq!(said(&node.envelope_of("ops", TYPE, &payload)), "opens");
    let in_toto = node.envelope_of("ops", "application/vnd.in-toto+json", &payload);
    assert_eq!(said(&in_toto), "grant-payload-type");
    // What was signed as another kind does not become one by its name.
    let renamed = String::from_utf8(in_toto)
        .unwrap()
        .replace("application/vnd.in-toto+json", TYPE);
    assert_eq!(said(renamed.as_bytes()), "grant-key-unknown");

    let good = String::from_utf8(node.envelope("ops", &grant())).unwrap();
    let value: serde_json::Value = serde_json::from_str(&good).unwrap();
    let altered = Grant {
        reason: "the mirror is up".to_owned(),
        ..grant()
    };
    let other = Unsigned::new(&altered).unwrap().sealed(b"x").unwrap();
    let other: serde_json::Value = serde_json::from_slice(&other).unwrap();
    let mut copied = value.clone();
    copied["payload"] = other["payload"].clone();
    assert_eq!(said(copied.to_string().as_bytes()), "grant-key-unknown");
    let mut twice = value.clone();
    let signature = value["signatures"][0].clone();
    twice["signatures"] = serde_json::json!([signature, signature]);
    let mut none = value.clone();
    none["signatures"] = serde_json::json!([]);
    let mut more = value;
    more["more"] = true.into();
    for envelope in [twice, none, more] {
        assert_eq!(said(envelope.to_string().as_bytes()), "grant-malformed");
    }
    assert_eq!(said(b"{"), "grant-malformed");
    assert_eq!(
        said(good.replace("payload\":\"", "payload\":\"*").as_bytes()),
        "grant-malformed"
    );
}

#[test]
fn a_grant_that_says_too_much_or_too_little_is_none() {
    let node = Node::new();
    let said = |payload: &str| code(verify(&node.envelope_of("ops", TYPE, payload), &node.active, NOW));
    let json = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(grant()).unwrap();
        change(&mut value);
        value.to_string()
    };
    assert_eq!(said(&json(&|_| {})), "opens");
    for (field, text) in [
        ("version", serde_json::json!(2)),
        ("id", "0123".into()),
        ("id", "../../../../../../../../../../ab".into()),
        ("reason", "".into()),
        ("reason", " ".into()),
        ("reason", "x".repeat(MAX_REASON + 1).into()),
        ("reason", "a\nb".into()),
        ("reason", "\u{1b}[2J".into()),
        ("owner", "".into()),
        ("scope", serde_json::json!({"node": ""})),
        ("scope", "everywhere".into()),
        ("subject", serde_json::json!({"image": "latest"})),
        (
            "subject",
            serde_json::json!({"container": {"namespace": "k8s.io", "id": ""}}),
        ),
        ("not_after", NOW.to_string().into()),
        ("deny", "nothing".into()),
    ] {
        let payload = json(&|value| value[field] = text.clone());
        assert_eq!(said(&payload), "grant-malformed", "{payload}");
    }
    let until = NOW + LONGEST;
    assert_eq!(
        said(&json(&|value| value["not_after"] = until.to_string().into())),
        "opens"
    );
    let longer = until + SignedDuration::from_secs(1);
    assert_eq!(
        said(&json(&|value| value["not_after"] = longer.to_string().into())),
        "grant-too-long"
    );
    let twice = json(&|_| {}).replacen('{', r#"{"reason":"another","#, 1);
    assert_eq!(said(&twice), "grant-malformed");
}

#[test]
fn what_was_signed_elsewhere_is_put_together_again() {
    let node = Node::new();
    let unsigned = Unsigned::new(&grant()).unwrap();
    let message = unsigned.message();
    assert_eq!(Unsigned::of_message(&message).unwrap(), unsigned);
    for other in [&message[1..], &message[..message.len() - 1], b"DSSEv1 1 a 2 {}", b""] {
        assert_eq!(code(Unsigned::of_message(other)), "grant-malformed");
    }
    let signature = node.sign("ops", &message);
    use base64::Engine as _;
    let text = format!("{}\n", base64::prelude::BASE64_STANDARD.encode(&signature));
    assert_eq!(sign::decoded(text.as_bytes()), signature);
    assert_eq!(sign::decoded(&signature), signature);
}

#[test]
fn a_grant_opens_what_it_is_about_from_its_start_to_its_end() {
    let node = Node::new();
    assert_eq!(node.opening(NOW), Err(String::new()));
    let mut recorded = None;
    add(
        &node.state(),
        &node.envelope("ops", &grant()),
        &node.active,
        clock(NOW),
        |record| {
            recorded = Some(record.clone());
            Ok(())
        },
    )
    .unwrap();
    let recorded = recorded.unwrap();
    assert_eq!(
        (recorded.event, recorded.key.as_str(), &recorded.grant),
        (Event::Added, "ops", &grant())
    );
    assert_eq!(node.opening(NOW), Ok(grant().id));
    assert_eq!(node.opening(NOW + minutes(29)), Ok(grant().id));
    let grants = node.grants(NOW);
    let opens =
        |digests: &[Digest], namespace, container, exec| grants.opening(digests, namespace, container, exec).is_ok();
    assert!(opens(&[Digest::of(b"config"), image()], "default", "", false));
    assert!(!opens(&[Digest::of(b"other")], "k8s.io", "web", false));
    assert!(
        !opens(&[image()], "k8s.io", "web", true),
        "it says nothing of further processes"
    );
    // It is over at its end, and a clock that is turned back does not bring it back.
    assert_eq!(node.closed(NOW + minutes(30)), "grant-expired");
    assert_eq!(node.closed(NOW), "grant-expired");
    assert_eq!(code(node.add_at(&node.envelope("ops", &grant()), NOW)), "grant-present");
}

#[test]
fn a_container_is_named_with_its_namespace() {
    let node = Node::new();
    node.add(&Grant {
        subject: Subject::container("k8s.io", "web"),
        exec: true,
        ..grant()
    });
    let grants = node.grants(NOW);
    let opens = |namespace, container| grants.opening(&[image()], namespace, container, true).is_ok();
    assert!(opens("k8s.io", "web"));
    assert!(!opens("default", "web") && !opens("k8s.io", "web2") && !opens("k8s.io", ""));
}

#[test]
fn what_is_not_for_this_node_or_this_time_is_not_added() {
    let node = Node::new();
    let elsewhere = Grant {
        scope: Scope::Node("elsewhere".to_owned()),
        ..grant()
    };
    assert_eq!(code(node.add_at(&node.envelope("ops", &elsewhere), NOW)), "grant-node");
    let late = NOW + minutes(30);
    assert_eq!(
        code(node.add_at(&node.envelope("ops", &grant()), late)),
        "grant-expired"
    );
    assert_eq!(
        code(node.add_at(&node.envelope("release", &grant()), NOW)),
        "grant-key-use"
    );
    let behind = Clock {
        now: NOW,
        mark: Some(NOW + minutes(6)),
    };
    let unknown = Clock { now: NOW, mark: None };
    for clock in [behind, unknown] {
        let added = add(
            &node.state(),
            &node.envelope("ops", &grant()),
            &node.active,
            clock,
            |_| Ok(()),
        );
        assert_eq!(code(added), "grant-clock");
    }
    // Nothing that is not on record is kept.
    let full = || store::Error::Full { path: "log".into() };
    let unrecorded = add(
        &node.state(),
        &node.envelope("ops", &grant()),
        &node.active,
        clock(NOW),
        |_| Err(full()),
    );
    assert_eq!(code(unrecorded), "grant-unreadable");
    assert_eq!(node.opening(NOW), Err(String::new()));
    // One that is yet to come waits.
    node.add_at(&node.envelope("ops", &grant()), NOW - minutes(5)).unwrap();
    assert_eq!(node.closed(NOW - minutes(5)), "grant-pending");
    assert_eq!(node.opening(NOW), Ok(grant().id));
    // A clock that says a time before it was added was turned back.
    assert_eq!(node.closed(NOW - minutes(30)), "grant-clock");
}

#[test]
fn a_file_that_was_copied_here_counts_no_more_than_one_that_was_added() {
    let node = Node::new();
    node.add(&grant());
    let folder = node.state().path().join(DIRECTORY);
    let file = folder.join(format!("{}.json", grant().id));
    let text = fs::read_to_string(&file).unwrap();
    let other = "ffffffffffffffffffffffffffffffff";
    fs::write(folder.join(format!("{other}.json")), &text).unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(node.closed(NOW), "grant-malformed");
    fs::remove_file(folder.join(format!("{other}.json"))).unwrap();
    for (content, code) in [("{", "grant-malformed"), ("{}", "grant-malformed")] {
        fs::write(&file, content).unwrap();
        assert_eq!(node.closed(NOW), code);
    }
    // Nobody reads a hundred megabytes.
    let large = fs::File::create(&file).unwrap();
    large.set_len(100 << 20).unwrap();
    assert_eq!(node.closed(NOW), "grant-unreadable");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
    assert_eq!(node.closed(NOW), "grant-unreadable");
    fs::remove_file(&file).unwrap();
    fs::write(&file, &text).unwrap();
    assert_eq!(node.opening(NOW), Ok(grant().id));
    // Of a directory that is not root's alone, nothing counts.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(node.closed(NOW), "grant-unreadable");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&folder, Some(1000), None).unwrap();
        assert_eq!(node.closed(NOW), "grant-unreadable");
        std::os::unix::fs::chown(&folder, Some(0), None).unwrap();
    }
    assert_eq!(node.opening(NOW), Ok(grant().id));
}

#[test]
fn what_is_revoked_stays_revoked() {
    let mut node = Node::new();
    node.add(&grant());
    let revoke = |node: &Node, id: &str| revoke(&node.state(), id, &node.active, clock(NOW), |_| Ok(()));
    assert_eq!(code(revoke(&node, "f")), "grant-missing");
    assert_eq!(revoke(&node, "0123456789ab").unwrap(), grant());
    assert_eq!(node.closed(NOW), "grant-revoked");
    assert_eq!(code(node.add_at(&node.envelope("ops", &grant()), NOW)), "grant-revoked");
    assert_eq!(code(revoke(&node, "0123456789ab")), "grant-revoked");
    // One whose key does not count any more can be taken back as well, in case the key comes back.
    let other = Grant {
        id: "f".repeat(32),
        ..grant()
    };
    node.add(&other);
    node.key("ops").status = Status::Distrusted;
    assert_eq!(revoke(&node, "ffff").unwrap(), other);
    node.key("ops").status = Status::Active;
    assert!(node.opening(NOW).is_err());
}

#[test]
fn room_is_made_of_what_is_over_and_of_nothing_that_was_only_revoked() {
    let node = Node::new();
    node.add(&grant());
    revoke(&node.state(), &grant().id, &node.active, clock(NOW), |_| Ok(())).unwrap();
    let of = |n: usize, lasting: i64| Grant {
        id: format!("{n:032x}"),
        not_after: NOW + minutes(lasting),
        ..grant()
    };
    for n in 1..64 {
        node.add(&of(n, if n == 1 { 5 } else { 30 }));
    }
    let add = |grant: &Grant, now| node.add_at(&node.envelope("ops", grant), now);
    assert_eq!(code(add(&of(64, 30), NOW)), "grant-too-many");
    let later = NOW + minutes(6);
    assert_eq!(code(add(&of(64, 30), later)), "opens");
    assert_eq!(code(add(&of(65, 30), later)), "grant-too-many");
    assert_eq!(code(add(&grant(), later)), "grant-revoked");
}

#[test]
fn a_refusal_names_the_newest_grants_that_are_about_it() {
    let mut node = Node::new();
    for (n, subject) in [
        (1, Subject::Image(image())),
        (2, Subject::container("k8s.io", "other")),
        (3, Subject::Image(image())),
    ] {
        let made = Grant {
            id: format!("{n:032x}"),
            subject,
            ..grant()
        };
        node.add_at(&node.envelope("ops", &made), NOW + minutes(n)).unwrap();
        revoke(&node.state(), &made.id, &node.active, clock(NOW + minutes(n)), |_| {
            Ok(())
        })
        .unwrap();
    }
    let notes = |node: &Node| {
        let grants = node.grants(NOW + minutes(4));
        let notes = grants.opening(&[image()], "k8s.io", "web", false).err().unwrap();
        notes
            .iter()
            .map(|note| note.split(' ').nth(1).unwrap().trim_start_matches('0').to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(notes(&node), ["3", "1"]);
    node.key("ops").status = Status::Distrusted;
    assert_eq!(notes(&node), ["1", "3"], "never the one about another container");
}

#[test]
fn the_end_of_the_key_is_the_end_of_what_it_opens() {
    let mut node = Node::new();
    node.key("ops").until = Some(NOW + minutes(10));
    node.add(&grant());
    let grants = node.grants(NOW);
    let (_, until) = grants.opening(&[image()], "k8s.io", "web", false).unwrap();
    assert_eq!(until, NOW + minutes(10));
    assert_eq!(node.closed(NOW + minutes(10)), "grant-key-ended");
}

#[test]
fn what_is_said_can_be_read() {
    let node = Node::new();
    node.add(&grant());
    let grants = node.grants(NOW);
    let (held, until) = grants.opening(&[image()], "k8s.io", "web", false).unwrap();
    insta::assert_snapshot!(held.granted(until, "signature-missing", "nobody signed it").sentence(), @r#"nothing but grant 0123456789abcdef0123456789abcdef allows it ("the mirror is down", by "alice", signed by key ops, until 2027-01-15T08:30:00Z); without it: signature-missing: nobody signed it"#);
    let errors = [
        Fault::Unknown,
        Fault::KeyUse("release".to_owned()),
        Fault::KeyEnded {
            key: "ops".to_owned(),
            why: "its window is over",
        },
        Fault::Longer {
            from: NOW,
            until: NOW + minutes(1500),
        },
        Fault::Revoked(NOW),
        Fault::Clock,
        Fault::TooMany(64),
    ];
    insta::assert_snapshot!(errors.map(|fault| format!("{}: {fault}", fault.code())).join("\n"), @r#"
    grant-key-unknown: no key of the trust in force signed it, with the hash of its entry; a key that was added to trust.d counts after: assay policy apply
    grant-key-use: key release signed it, which has no use = ["grant"]
    grant-key-ended: key ops signed it, which does not count: its window is over
    grant-too-long: it would last from 2027-01-15T08:00:00Z to 2027-01-16T09:00:00Z, and a grant lasts 24 hours at most
    grant-revoked: it was revoked at 2027-01-15T08:00:00Z
    grant-clock: this node's clock cannot be relied on: it is before a time that has passed, or the record of that is damaged
    grant-too-many: this node has 64 grants that are not over, and none beyond is looked at; make a new one when one of them is over
    "#);
}
