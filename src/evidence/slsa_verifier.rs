//! Attestations of real images in cosign's older layout, see `tests/fixtures/slsa-verifier`.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::*;
use crate::store::StateDir;
use crate::trust::Root;
use crate::trust::root::Builtin;
use crate::verify::{Identity, Signer};

const ISSUER: &str = "https://token.actions.githubusercontent.com";
const PROVENANCE: &str = "https://slsa.dev/provenance/v0.2";
const LOG_ENTRY: &str = "dev.sigstore.cosign/bundle";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";

/// One version's image and attestation.
struct Case {
    version: String,
    folder: PathBuf,
    image: Digest,
    layer: Descriptor,
    blob: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/slsa-verifier"));
    let mut cases: Vec<Case> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|folder| {
            let file = std::fs::File::open(&folder).unwrap();
            let layout = Layout::new(file.as_fd());
            let [image, attestations] = layout.index().unwrap().try_into().unwrap();
            let layer = layout.manifest(&attestations).unwrap().layers.remove(0);
            Case {
                version: folder.file_name().unwrap().to_str().unwrap().to_owned(),
                image: image.digest,
                blob: layout.blob(&layer, legacy::MAX_ENVELOPE).unwrap(),
                layer,
                folder,
            }
        })
        .collect();
    cases.sort_by(|one, other| one.version.cmp(&other.version));
    assert!(cases.len() >= 2);
    cases
}

fn public_good() -> Root {
    Root::builtin("public-good", Builtin::Sigstore)
}

fn certifier() -> Certifier {
    Certifier {
        root: "public-good".to_owned(),
        issuer: ISSUER.to_owned(),
    }
}

fn question(subject: Digest, roots: Vec<Root>, certifiers: Vec<Certifier>) -> Question {
    Question {
        subjects: vec![subject],
        roots,
        certifiers,
        now: Timestamp::now(),
        ..Question::default()
    }
}

#[test]
fn real_attestations_are_decided_rightly() {
    let keep = tempfile::tempdir().unwrap();
    let cache = StateDir::open(&keep.path().canonicalize().unwrap().join("evidence")).unwrap();
    let cases = cases();
    let folders: Vec<PathBuf> = cases.iter().map(|case| case.folder.clone()).collect();
    assert_eq!(import(&cache, &folders).unwrap().imported.len(), cases.len());
    for case in &cases {
        let answer = judge(
            cache.as_fd(),
            &question(case.image, vec![public_good()], vec![certifier()]),
        );
        let [fact] = answer.facts.as_slice() else {
            panic!("{}: {answer:#?}", case.version);
        };
        assert_eq!(fact.subject, case.image);
        assert_eq!(fact.claim, Claim::Attestation(PROVENANCE.to_owned()));
        let Signer::Certificate(certificate) = &fact.proof.signer else {
            panic!("{fact:?}");
        };
        let workflow = format!(
            "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/\
             generator_container_slsa3.yml@refs/tags/{}",
            case.version
        );
        assert_eq!(certificate.identity, Identity::Uri(workflow));
        assert_eq!(certificate.issuer, ISSUER);
        let [entry] = fact.proof.logs.as_slice() else {
            panic!("{fact:?}");
        };
        assert!(!entry.included && entry.index > 10_000_000);
        assert_eq!(fact.proof.times.len(), 1);
    }
}

#[test]
fn real_attestations_count_for_nobody_else() {
    for case in cases() {
        let folder = std::fs::File::open(&case.folder).unwrap();
        let ask = |question: &Question| judge(folder.as_fd(), question);
        let other = Digest::of(b"another image");
        for question in [
            question(other, vec![public_good()], vec![certifier()]),
            question(case.image, Vec::new(), vec![certifier()]),
            question(
                case.image,
                vec![Root::builtin("public-good", Builtin::Github)],
                vec![certifier()],
            ),
            question(
                case.image,
                vec![Root::builtin("public-good", Builtin::Staging)],
                vec![certifier()],
            ),
            question(case.image, vec![public_good()], Vec::new()),
            question(
                case.image,
                vec![public_good()],
                vec![Certifier {
                    issuer: "https://accounts.google.com".to_owned(),
                    ..certifier()
                }],
            ),
        ] {
            assert_eq!(ask(&question).facts, [], "{}: {question:?}", case.version);
        }
    }
}

/// The code of the refusal of an attestation under the public-good root.
fn refusal(case: &Case, layer: &Descriptor, blob: &[u8]) -> Result<(), &'static str> {
    let (root, _) = TrustedRoot::new(&public_good()).unwrap();
    legacy::envelope(layer, blob)
        .and_then(|unverified| root.verify(&unverified, By::Certificate, case.image, Timestamp::now()))
        .map(|_| ())
        .map_err(|problem| problem.code())
}

#[test]
fn real_attestations_that_were_changed_are_refused() {
    let cases = cases();
    for (at, case) in cases.iter().enumerate() {
        assert_eq!(refusal(case, &case.layer, &case.blob), Ok(()), "{}", case.version);
        let other = &cases[(at + 1) % cases.len()];
        let annotated = |name: &str, change: &dyn Fn(&str) -> String| {
            let mut layer = case.layer.clone();
            let value = change(&layer.annotations[name]);
            assert_ne!(layer.annotations.insert(name.to_owned(), value.clone()), Some(value));
            refusal(case, &layer, &case.blob)
        };
        // What vouches for another image's attestation.
        assert!(refusal(case, &other.layer, &case.blob).is_err());
        assert!(refusal(case, &case.layer, &other.blob).is_err());
        for name in [LOG_ENTRY, CERTIFICATE] {
            assert!(annotated(name, &|_| other.layer.annotations[name].clone()).is_err());
            assert!(annotated(name, &|_| String::new()).is_err());
        }
        for (from, to) in [
            ("\"integratedTime\":1", "\"integratedTime\":2"),
            ("\"logIndex\":", "\"logIndex\":1"),
            ("\"logID\":\"c0", "\"logID\":\"c1"),
            ("\"SignedEntryTimestamp\":\"MEU", "\"SignedEntryTimestamp\":\"MEY"),
            ("\"SignedEntryTimestamp\":\"MEQ", "\"SignedEntryTimestamp\":\"MEY"),
            ("\"body\":\"eyJ", "\"body\":\"IyJ"),
        ] {
            if case.layer.annotations[LOG_ENTRY].contains(from) {
                let verdict = annotated(LOG_ENTRY, &|text| text.replacen(from, to, 1));
                assert!(verdict.is_err(), "{}: {from}", case.version);
            }
        }
        // One bit of the envelope, anywhere.
        for place in (0..case.blob.len()).step_by(97) {
            let mut blob = case.blob.clone();
            blob[place] ^= 1;
            assert!(refusal(case, &case.layer, &blob).is_err(), "{}: {place}", case.version);
        }
        for length in [0, 1, case.blob.len() / 2, case.blob.len() - 1] {
            assert!(refusal(case, &case.layer, &case.blob[..length]).is_err());
        }
        // One letter of the certificate, anywhere.
        let pem = &case.layer.annotations[CERTIFICATE];
        for place in (28..pem.len() - 28).step_by(41) {
            let letter = pem.as_bytes()[place];
            if letter.is_ascii_alphanumeric() {
                let other = if letter == b'A' { "B" } else { "A" };
                let verdict = annotated(CERTIFICATE, &|pem| {
                    format!("{}{other}{}", &pem[..place], &pem[place + 1..])
                });
                assert!(verdict.is_err(), "{}: {place}", case.version);
            }
        }
    }
}
