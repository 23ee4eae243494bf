use std::os::fd::AsFd as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::attest::{COSIGN_SIGN, SPDX};
use crate::digest::Digest;
use crate::evidence::tests::{Cache, codes};
use crate::evidence::{Certifier, DeniedEntry, MAX_ATTESTATIONS, Question, REF_NAME, import, judge, rests_on};
use crate::oci;
use crate::trust::{HashAlgorithm, Key, Root, RootSource, Status, Use};
use crate::verify::attestation::STATEMENT;
use crate::verify::bundle::MEDIA_TYPES;
use crate::verify::legacy::SIMPLE_SIGNING;
use crate::verify::pki::{self, ISSUER, SIGNED, Sigstore, Version};
use crate::verify::{Answer, Carrier, Claim, Fact, Signer};

const BUNDLE: &str = MEDIA_TYPES[0];

fn digest(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap().parse().unwrap()
}

/// A publisher: an image of two platforms, and a key to sign what is about them.
struct Publisher {
    cache: Cache,
    key: pki::Key,
    sigstore: Sigstore,
    image: Value,
    other: Value,
}

impl Publisher {
    fn new() -> Self {
        let cache = Cache::new();
        let image = |name: &str| {
            let config = cache.put(name.as_bytes());
            let config = json!({
                "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": name.len(),
            });
            cache.document(
                oci::MANIFEST,
                &json!({"schemaVersion": 2, "mediaType": oci::MANIFEST, "config": config, "layers": []}),
            )
        };
        Self {
            image: image("amd64"),
            other: image("arm64, which is another"),
            cache,
            key: pki::Key::new(),
            sigstore: Sigstore::new(),
        }
    }

    fn statement(subject: &Value) -> String {
        pki::statement(&digest(subject).hex(), SPDX)
    }

    /// A statement about `about` in a manifest of which `more` says more.
    fn attestation(&self, about: &Value, more: &Value) -> Value {
        self.cache.manifest(STATEMENT, Self::statement(about).as_bytes(), more)
    }

    /// As Docker Hardened Images have it: attached to the image.
    fn attached(&self, to: &Value) -> Value {
        self.attestation(to, &json!({"artifactType": STATEMENT, "subject": to}))
    }

    /// cosign's older form of a signature, by the key.
    fn simple(&self, signed: &Value, more: &Value) -> Value {
        let payload = pki::simple_signing(&digest(signed).hex());
        let signature = BASE64_STANDARD.encode(self.key.sign(&payload));
        let layer = json!({
            "mediaType": SIMPLE_SIGNING,
            "digest": self.cache.put(&payload),
            "size": payload.len(),
            "annotations": {"dev.cosignproject.cosign/signature": signature},
        });
        let mut more = more.clone();
        more["layers"] = json!([layer]);
        self.cache.manifest(SIMPLE_SIGNING, &payload, &more)
    }

    /// The same in the form of a bundle.
    fn bundle(&self, signed: &Value, more: &Value) -> Value {
        let statement = pki::statement(&digest(signed).hex(), COSIGN_SIGN);
        let signed = self.sigstore.by_key(&self.key).unlogged().statement(&statement);
        self.cache
            .manifest(BUNDLE, signed.bundle(Version::V03).to_string().as_bytes(), more)
    }

    /// By a workflow in place of the key.
    fn keyless(&self, signed: &Value, more: &Value) -> Value {
        let statement = pki::statement(&digest(signed).hex(), COSIGN_SIGN);
        let signed = self.sigstore.keyless().statement(&statement);
        self.cache
            .manifest(BUNDLE, signed.bundle(Version::V03).to_string().as_bytes(), more)
    }

    /// As BuildKit lists it, beside the image.
    fn listed(attestation: &Value, of: &Value) -> Value {
        let mut entry = attestation.clone();
        entry["platform"] = json!({"os": "unknown", "architecture": "unknown"});
        entry["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": of["digest"],
        });
        entry
    }

    fn index(&self, manifests: &[Value]) -> Value {
        self.cache.document(
            oci::INDEX,
            &json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests}),
        )
    }

    fn trusted(&self, r#use: &[Use]) -> Key {
        Key {
            id: "dhi".to_owned(),
            spki: self.key.spki(),
            hash: HashAlgorithm::Sha256,
            r#use: r#use.to_vec(),
            from: None,
            until: None,
            status: Status::Active,
            digests: Vec::new(),
        }
    }

    fn question(&self, subjects: &[&Value]) -> Question {
        let source = RootSource::File("trusted_root.json".to_owned());
        Question {
            subjects: subjects.iter().map(|subject| digest(subject)).collect(),
            keys: vec![self.trusted(&[Use::Image, Use::Sbom])],
            roots: vec![Root::new("ours", source, self.sigstore.trusted_root())],
            certifiers: vec![Certifier {
                root: "ours".to_owned(),
                issuer: ISSUER.to_owned(),
            }],
            now: Timestamp::from_second(SIGNED + 3600).unwrap(),
            ..Question::default()
        }
    }

    /// The answer when these are the entries of the layout, as they are and as an import takes them over.
    fn ask(&self, entries: &[Value], question: &Question) -> [Answer; 2] {
        let (own, imported) = (Cache::new(), Cache::new());
        entries.iter().for_each(|entry| self.copy(entry, &own));
        own.index(entries);
        import(&imported.dir, &[own.dir.path().to_owned()]).unwrap();
        [own, imported].map(|cache| judge(cache.dir.as_fd(), question))
    }

    /// Copies everything that a document leads to, as far as it is there.
    fn copy(&self, value: &Value, to: &Cache) {
        if let Some(Ok(digest)) = value["digest"].as_str().map(str::parse)
            && let Ok(bytes) = std::fs::read(self.cache.blob(digest))
            && !to.blob(digest).exists()
        {
            to.put(&bytes);
            if let Ok(document) = serde_json::from_slice(&bytes) {
                self.copy(&document, to);
            }
        }
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.copy(value, to)),
            Value::Object(values) => values.values().for_each(|value| self.copy(value, to)),
            _ => {}
        }
    }

    /// What counts for the image, which is the same either way, and the codes of what does not.
    fn facts(&self, entries: &[Value], question: &Question) -> (Vec<Fact>, Vec<String>) {
        // With the image itself beside its evidence.
        let [raw, imported] = self.ask(&[entries, std::slice::from_ref(&self.image)].concat(), question);
        let findings = codes(&raw).into_iter().map(str::to_owned).collect();
        assert_eq!(raw.facts, imported.facts);
        (raw.facts, findings)
    }
}

fn attached_to(subject: &Value) -> Value {
    json!({"subject": subject})
}

#[test]
fn a_statement_counts_by_the_signature_of_its_manifest() {
    let publisher = Publisher::new();
    let attestation = publisher.attached(&publisher.image);
    let tagged = |mut entry: Value| {
        entry["annotations"] = json!({REF_NAME: format!("sha256-{}.sig", digest(&attestation).hex())});
        entry
    };
    let to = attached_to(&attestation);
    for (signature, carrier) in [
        (publisher.simple(&attestation, &to), Carrier::SimpleSigning),
        (
            tagged(publisher.simple(&attestation, &json!({}))),
            Carrier::SimpleSigning,
        ),
        (publisher.bundle(&attestation, &to), Carrier::BundleKey),
        (publisher.keyless(&attestation, &to), Carrier::BundleCertificate),
    ] {
        let question = publisher.question(&[&publisher.image]);
        let entries = [attestation.clone(), signature.clone(), publisher.image.clone()];
        let (facts, findings) = publisher.facts(&entries, &question);
        assert_eq!(findings, Vec::<String>::new());
        let [fact] = facts.as_slice() else {
            panic!("{carrier}: {facts:?}");
        };
        assert_eq!(fact.evidence, digest(&attestation));
        assert_eq!(fact.subject, digest(&publisher.image));
        assert_eq!(fact.claim, Claim::Attestation(SPDX.to_owned()));
        assert_eq!(fact.carrier, Carrier::AttestationManifest);
        let chain = fact.chain.as_deref().unwrap();
        assert_eq!((chain.carrier, chain.index), (carrier, None));
        assert_eq!(chain.signature, digest(&signature));
        let statement = Publisher::statement(&publisher.image);
        assert_eq!(chain.statement, Digest::of(statement.as_bytes()));
        match &fact.proof.signer {
            Signer::Key(id) => assert_eq!(id, "dhi"),
            Signer::Certificate(certificate) => assert_eq!(certificate.root, "ours"),
            Signer::Notation(_) => panic!("{fact:?}"),
        }
        // It is about nothing else.
        assert!(
            publisher
                .facts(&entries, &publisher.question(&[&publisher.other]))
                .0
                .is_empty()
        );
    }
}

#[test]
fn an_attestation_that_buildkit_wrote_counts_by_its_own_signature() {
    let publisher = Publisher::new();
    // Older versions do not say in the manifest what it is about.
    for more in [json!({}), attached_to(&publisher.image)] {
        let attestation = publisher.attestation(&publisher.image, &more);
        let of_other = publisher.attestation(&publisher.other, &json!({}));
        let index = publisher.index(&[
            publisher.image.clone(),
            publisher.other.clone(),
            Publisher::listed(&attestation, &publisher.image),
            Publisher::listed(&of_other, &publisher.other),
        ]);
        let question = publisher.question(&[&publisher.image, &index]);
        let signature = publisher.bundle(&attestation, &attached_to(&attestation));
        let (facts, findings) = publisher.facts(&[index.clone(), signature], &question);
        assert_eq!((facts.len(), findings), (1, vec![]), "{more}");
        assert_eq!(facts[0].subject, digest(&publisher.image));
        // Unsigned, it counts for nothing, and neither does the other platform's signature help.
        let other = publisher.bundle(&of_other, &attached_to(&of_other));
        for entries in [vec![index.clone()], vec![index, other]] {
            let (facts, findings) = publisher.facts(&entries, &question);
            assert_eq!(
                (facts.len(), findings),
                (0, vec!["attestation-unsigned".to_owned()]),
                "{more}"
            );
        }
    }
}

#[test]
fn every_broken_link_to_a_statement_is_refused_with_its_own_code() {
    let publisher = Publisher::new();
    let (image, other) = (&publisher.image, &publisher.other);
    let sized = |descriptor: &Value, more: i64| {
        let mut wrong = descriptor.clone();
        wrong["size"] = (descriptor["size"].as_i64().unwrap() + more).into();
        wrong
    };
    let good = publisher.attached(image);
    let signed = |attestation: &Value| publisher.simple(attestation, &attached_to(attestation));
    let statement = Publisher::statement(image);
    let of_statement = |size: usize| {
        let layer = json!({"mediaType": STATEMENT, "digest": Digest::of(statement.as_bytes()), "size": size});
        publisher.attestation(image, &json!({"subject": image, "layers": [layer]}))
    };
    let gone = |digest: Digest| {
        let layer = json!({"mediaType": STATEMENT, "digest": digest, "size": 5});
        publisher.attestation(image, &json!({"subject": image, "layers": [layer]}))
    };
    let noted = |mut entry: Value, about: &Value| {
        entry["annotations"] = json!({crate::evidence::SUBJECTS: about["digest"]});
        entry
    };
    // From the signature to the attestation manifest.
    let mut cases = vec![("nobody signed it", vec![good.clone()], "attestation-unsigned")];
    cases.push((
        "the image is signed in its place",
        vec![good.clone(), publisher.simple(image, &attached_to(&good))],
        "attestation-signature",
    ));
    cases.push((
        "the other platform's attestation is signed",
        vec![
            good.clone(),
            publisher.simple(&publisher.attached(other), &attached_to(&good)),
        ],
        "attestation-signature",
    ));
    cases.push((
        "the signature hangs on the image",
        vec![good.clone(), noted(publisher.simple(&good, &attached_to(image)), &good)],
        "attestation-signature",
    ));
    for more in [-1, 1] {
        let signature = publisher.simple(&good, &attached_to(&sized(&good, more)));
        cases.push((
            "the signature lies about the size",
            vec![good.clone(), signature],
            "attestation-size",
        ));
    }
    // From the attestation manifest to the image.
    let elsewhere = publisher.attestation(image, &attached_to(other));
    cases.push((
        "the manifest is about another",
        vec![noted(elsewhere.clone(), image), signed(&elsewhere)],
        "attestation-subject",
    ));
    for more in [-1, 1] {
        let lying = publisher.attestation(image, &attached_to(&sized(image, more)));
        cases.push((
            "the manifest lies about the size",
            vec![lying.clone(), signed(&lying)],
            "attestation-size",
        ));
    }
    // From the attestation manifest to the statement.
    for size in [statement.len() - 1, statement.len() + 1] {
        let lying = of_statement(size);
        cases.push((
            "the statement has another size",
            vec![lying.clone(), signed(&lying)],
            "attestation-size",
        ));
    }
    let lost = gone(Digest::of(b"nowhere"));
    cases.push((
        "the statement is not there",
        vec![lost.clone(), signed(&lost)],
        "evidence-missing",
    ));
    let large = of_statement(1 << 30);
    cases.push((
        "the statement is endless",
        vec![large.clone(), signed(&large)],
        "evidence-too-large",
    ));
    // From the statement to the image.
    let of_other = publisher.attestation(other, &attached_to(image));
    cases.push((
        "the statement is about another",
        vec![of_other.clone(), signed(&of_other)],
        "attestation-statement",
    ));
    let loose = publisher.attestation(other, &json!({}));
    cases.push((
        "so is one in a manifest that does not say",
        vec![noted(loose.clone(), image), signed(&loose)],
        "attestation-statement",
    ));
    let broken = publisher.cache.manifest(STATEMENT, b"{}", &attached_to(image));
    cases.push((
        "it is no statement",
        vec![broken.clone(), signed(&broken)],
        "payload-malformed",
    ));
    for (what, entries, code) in cases {
        let (facts, findings) = publisher.facts(&entries, &publisher.question(&[image]));
        let about_image = facts
            .iter()
            .filter(|fact| fact.claim.family() == Some(crate::attest::Family::Sbom));
        assert_eq!(about_image.count(), 0, "{what}");
        assert_eq!(findings, [code], "{what}");
    }
}

#[test]
fn a_signature_of_an_attestation_counts_only_with_a_key_for_what_it_says() {
    let publisher = Publisher::new();
    let attestation = publisher.attached(&publisher.image);
    let entries = [
        attestation.clone(),
        publisher.simple(&attestation, &attached_to(&attestation)),
    ];
    let ask = |key: Key| {
        let question = Question {
            keys: vec![key],
            ..publisher.question(&[&publisher.image])
        };
        publisher.facts(&entries, &question)
    };
    assert_eq!(ask(publisher.trusted(&[Use::Sbom])).0.len(), 1);
    let trusted = publisher.trusted(&[Use::Image, Use::Sbom]);
    let at = |second| Timestamp::from_second(second).ok();
    for (key, code) in [
        (publisher.trusted(&[Use::Image, Use::Provenance, Use::Vex]), "key-use"),
        (
            Key {
                status: Status::Distrusted,
                ..trusted.clone()
            },
            "key-distrusted",
        ),
        (
            Key {
                status: Status::Retired,
                ..trusted.clone()
            },
            "key-retired",
        ),
        (
            Key {
                from: at(0),
                ..trusted.clone()
            },
            "key-window",
        ),
        (
            Key {
                spki: pki::Key::new().spki(),
                ..trusted.clone()
            },
            "key-unknown",
        ),
    ] {
        assert_eq!(ask(key), (vec![], vec![code.to_owned()]));
    }
    // What a retired key is recorded for is the image.
    let recorded = Key {
        status: Status::Retired,
        digests: vec![digest(&publisher.image)],
        ..trusted
    };
    assert_eq!(ask(recorded).0.len(), 1);
}

#[test]
fn a_forged_or_foreign_signature_of_an_attestation_is_none() {
    let publisher = Publisher::new();
    let attestation = publisher.attached(&publisher.image);
    let to = attached_to(&attestation);
    // A statement about the attestation manifest says nothing about what is in it.
    let statement = pki::statement(&digest(&attestation).hex(), SPDX);
    let bundle = publisher
        .sigstore
        .by_key(&publisher.key)
        .unlogged()
        .statement(&statement);
    let about = publisher
        .cache
        .manifest(BUNDLE, bundle.bundle(Version::V03).to_string().as_bytes(), &to);
    let stranger = Publisher {
        key: pki::Key::new(),
        ..Publisher::new()
    };
    let payload = pki::simple_signing(&digest(&attestation).hex());
    let forged = BASE64_STANDARD.encode(stranger.key.sign(&payload));
    let layer = json!({
        "mediaType": SIMPLE_SIGNING, "digest": publisher.cache.put(&payload), "size": payload.len(),
        "annotations": {"dev.cosignproject.cosign/signature": forged},
    });
    let mut more = to.clone();
    more["layers"] = json!([layer]);
    let forged = publisher.cache.manifest(SIMPLE_SIGNING, &payload, &more);
    let other_root = {
        let statement = pki::statement(&digest(&attestation).hex(), COSIGN_SIGN);
        let signed = stranger.sigstore.keyless().statement(&statement);
        publisher
            .cache
            .manifest(BUNDLE, signed.bundle(Version::V03).to_string().as_bytes(), &to)
    };
    for (signature, code) in [
        (about, "attestation-unsigned"),
        (forged, "key-unknown"),
        (other_root, "log-unproved"),
    ] {
        let question = publisher.question(&[&publisher.image]);
        let answer = publisher.facts(&[attestation.clone(), signature], &question);
        assert_eq!(answer, (vec![], vec![code.to_owned()]));
    }
}

#[test]
fn a_signed_index_stands_for_the_attestations_that_it_lists_where_policy_says_so() {
    let publisher = Publisher::new();
    let (image, other) = (&publisher.image, &publisher.other);
    let attestation = publisher.attestation(image, &json!({}));
    let listed = Publisher::listed(&attestation, image);
    let ask = |index: &Value, attestation: &Value, through_index: bool, r#use: &[Use]| {
        let question = Question {
            through_index,
            keys: vec![publisher.trusted(r#use)],
            ..publisher.question(&[image, index])
        };
        let signature = publisher.bundle(index, &attached_to(index));
        let mut entry = attestation.clone();
        entry["annotations"] = json!({crate::evidence::SUBJECTS: image["digest"]});
        let (mut facts, findings) = publisher.facts(&[index.clone(), signature, entry], &question);
        facts.retain(|fact| fact.chain.is_some());
        (facts, findings)
    };
    let both = [Use::Image, Use::Sbom];
    let index = publisher.index(&[image.clone(), other.clone(), listed.clone()]);
    let (facts, findings) = ask(&index, &attestation, true, &both);
    assert_eq!((facts.len(), findings), (1, vec![]));
    assert_eq!(facts[0].chain.as_deref().unwrap().index, Some(digest(&index)));
    assert_eq!(facts[0].subject, digest(image));
    let code = |code: &str| (vec![], vec![code.to_owned()]);
    assert_eq!(ask(&index, &attestation, false, &both), code("attestation-unsigned"));
    assert_eq!(ask(&index, &attestation, true, &[Use::Image]), code("key-use"));
    // An index that somebody signed for something else than images is none.
    assert_eq!(ask(&index, &attestation, true, &[Use::Sbom]).0, []);

    let sized = |descriptor: &Value| {
        let mut wrong = descriptor.clone();
        wrong["size"] = (descriptor["size"].as_u64().unwrap() + 1).into();
        wrong
    };
    let elsewhere = Publisher::listed(&attestation, other);
    let plain = attestation.clone();
    let mut platform = listed.clone();
    platform["platform"] = json!({"os": "linux", "architecture": "amd64"});
    for (what, manifests, wanted) in [
        ("not listed", vec![image.clone()], "attestation-unlisted"),
        (
            "listed as something else",
            vec![image.clone(), plain],
            "attestation-unlisted",
        ),
        (
            "listed as an image",
            vec![image.clone(), platform],
            "attestation-unlisted",
        ),
        (
            "of another platform",
            vec![image.clone(), other.clone(), elsewhere],
            "attestation-platform",
        ),
        (
            "of an image that is not listed",
            vec![other.clone(), listed.clone()],
            "attestation-platform",
        ),
        (
            "of another size",
            vec![image.clone(), sized(&listed)],
            "attestation-size",
        ),
        (
            "beside an image of another size",
            vec![sized(image), listed.clone()],
            "attestation-size",
        ),
    ] {
        let index = publisher.index(&manifests);
        let (facts, mut findings) = ask(&index, &attestation, true, &both);
        // An entry that lies about a manifest's size leads nowhere either.
        findings.retain(|finding| finding != "evidence-corrupt");
        assert_eq!((facts, findings), code(wanted), "{what}");
    }
    // What the manifest itself says has to fit as well, and so does the statement.
    for (attestation, wanted) in [
        (
            publisher.attestation(image, &attached_to(&sized(image))),
            "attestation-size",
        ),
        (
            publisher.attestation(other, &attached_to(image)),
            "attestation-statement",
        ),
        (publisher.attestation(other, &json!({})), "attestation-statement"),
    ] {
        let index = publisher.index(&[image.clone(), Publisher::listed(&attestation, image)]);
        assert_eq!(ask(&index, &attestation, true, &both), code(wanted));
    }
}

#[test]
fn without_the_image_in_the_cache_its_size_cannot_be_compared() {
    let publisher = Publisher::new();
    let attestation = publisher.attached(&publisher.image);
    let entries = [
        attestation.clone(),
        publisher.simple(&attestation, &attached_to(&attestation)),
    ];
    let question = publisher.question(&[&publisher.image]);
    publisher.cache.index(&entries);
    std::fs::remove_file(publisher.cache.blob(digest(&publisher.image))).unwrap();
    let answer = judge(publisher.cache.dir.as_fd(), &question);
    assert_eq!(
        (answer.facts.len(), codes(&answer)),
        (0, vec!["attestation-link-missing"])
    );
}

#[test]
fn who_signs_an_attestation_later_is_seen() {
    let publisher = Publisher::new();
    let attestation = publisher.attached(&publisher.image);
    let node = Cache::new();
    let take = |entries: &[Value]| {
        publisher.cache.index(entries);
        import(&node.dir, &[publisher.cache.dir.path().to_owned()]).unwrap();
        judge(node.dir.as_fd(), &publisher.question(&[&publisher.image]))
    };
    // All blobs of the source are scanned, so only what is made later is new.
    let before = take(&[publisher.image.clone(), attestation.clone()]);
    assert_eq!(
        (before.facts.len(), before.attestations.clone()),
        (0, vec![digest(&attestation)])
    );
    let lists = || {
        let subjects = [&[digest(&publisher.image)], before.attestations.as_slice()].concat();
        let names = rests_on(node.dir.as_fd(), &subjects);
        names
            .iter()
            .map(|name| crate::store::Stamp::of(node.dir.as_fd(), name))
            .collect::<Vec<_>>()
    };
    let unsigned = lists();
    let after = take(&[publisher.simple(&attestation, &attached_to(&attestation))]);
    assert_eq!(after.facts.len(), 1);
    assert_ne!(lists(), unsigned);
}

#[test]
fn attestation_manifests_without_end_starve_nothing_else() {
    let publisher = Publisher::new();
    let mut entries: Vec<Value> = (0..=MAX_ATTESTATIONS)
        .map(|number| {
            let more = json!({"subject": publisher.image, "annotations": {"n": number.to_string()}});
            publisher.attestation(&publisher.image, &more)
        })
        .collect();
    let signature = publisher.simple(&publisher.image, &attached_to(&publisher.image));
    entries.insert(0, signature);
    publisher.cache.index(&entries);
    let answer = judge(publisher.cache.dir.as_fd(), &publisher.question(&[&publisher.image]));
    assert_eq!((answer.facts.len(), answer.attestations.len()), (1, MAX_ATTESTATIONS));
    assert!(answer.is_cut_short());
    // Copies of one signature are one.
    let attestation = publisher.attached(&publisher.image);
    let mut entries: Vec<Value> = (0..300)
        .map(|number| {
            let mut more = attached_to(&attestation);
            more["annotations"] = json!({"n": number.to_string()});
            publisher.bundle(&attestation, &more)
        })
        .collect();
    entries.push(attestation);
    publisher.cache.index(&entries);
    let answer = judge(publisher.cache.dir.as_fd(), &publisher.question(&[&publisher.image]));
    assert_eq!((answer.facts.len(), answer.is_cut_short()), (1, false));
}

#[test]
fn a_denied_log_entry_is_seen_whoever_certifies_the_signer() {
    let publisher = Publisher::new();
    let to = attached_to(&publisher.image);
    let attestation = publisher.attached(&publisher.image);
    let of_attestation = publisher.keyless(&attestation, &attached_to(&attestation));
    let asked = |entries: &[Value], denied: Vec<DeniedEntry>, is_named: bool| {
        let mut question = publisher.question(&[&publisher.image]);
        question.denied.log = denied;
        if !is_named {
            question.certifiers.clear();
        }
        publisher.facts(entries, &question)
    };
    for entries in [
        vec![publisher.keyless(&publisher.image, &to)],
        vec![attestation, of_attestation],
    ] {
        let (facts, _) = asked(&entries, vec![], true);
        let logged = &facts[0].proof.logs[0];
        let denied = DeniedEntry {
            log: logged.log.clone(),
            index: logged.index,
        };
        assert_eq!(asked(&entries, vec![], false).1, ["signer-unlisted"]);
        let (seen, findings) = asked(&entries, vec![denied.clone()], false);
        assert_eq!((seen, findings), (facts, vec![]));
        let next = DeniedEntry {
            index: denied.index + 1,
            ..denied
        };
        assert_eq!(asked(&entries, vec![next], false).1, ["signer-unlisted"]);
    }
}
