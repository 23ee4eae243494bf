//! `assay evidence pull` against a registry that answers as the test says.

use std::fs;

use serde_json::{Value, json};

use crate::fake::{Answer, BASIC, Fake, INDEX, Login, MANIFEST};
use crate::node::{Node, blob};

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
const IN_TOTO: &str = "application/vnd.in-toto+json";
const DSSE: &str = "application/vnd.dsse.envelope.v1+json";
const JWS: &str = "application/jose+json";

fn hex(descriptor: &Value) -> String {
    let digest = descriptor["digest"].as_str().unwrap();
    digest.strip_prefix("sha256:").unwrap().to_owned()
}

fn statement(subject: &Value, number: usize) -> String {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "_", "digest": {"sha256": hex(subject)}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"number": number},
    })
    .to_string()
}

fn simple_signing(subject: &Value) -> String {
    json!({"critical": {
        "identity": {"docker-reference": ""},
        "image": {"docker-manifest-digest": subject["digest"]},
        "type": "cosign container image signature",
    }, "optional": null})
    .to_string()
}

/// A DSSE envelope; nobody looks at its signature here.
fn envelope(subject: &Value, number: usize) -> String {
    use base64::Engine as _;
    let payload = base64::prelude::BASE64_STANDARD.encode(statement(subject, number));
    json!({"payload": payload, "payloadType": IN_TOTO, "signatures": [{"sig": "AAAA"}]}).to_string()
}

/// An image under `app:1` with one platform.
fn app(fake: &Fake) -> (Value, Value) {
    let platform = fake.image("app", "linux/amd64");
    let index = fake.index("app", std::slice::from_ref(&platform));
    fake.tag("app", "1", &index);
    (index, platform)
}

fn sorted(mut digests: Vec<String>) -> Vec<String> {
    digests.sort();
    digests
}

fn digests(descriptors: &[Value]) -> Vec<String> {
    sorted(
        descriptors
            .iter()
            .map(|d| d["digest"].as_str().unwrap().to_owned())
            .collect(),
    )
}

#[test]
fn evidence_is_found_wherever_it_hangs() {
    let fake = Fake::start();
    let platform = fake.image("app", "linux/amd64");
    let other = fake.image("app", "linux/arm64");
    // BuildKit's attestation is listed beside the platforms, and somebody signed it.
    let buildkit = fake.artifact("app", IN_TOTO, statement(&platform, 0).as_bytes(), None);
    let mut listed = buildkit.clone();
    listed["platform"] = json!({"architecture": "unknown", "os": "unknown"});
    listed["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": platform["digest"],
    });
    let index = fake.index("app", &[platform.clone(), other.clone(), listed]);
    fake.tag("app", "1", &index);
    let of_buildkit = fake.artifact("app", SIMPLE, simple_signing(&buildkit).as_bytes(), Some(&buildkit));
    fake.referrers("app", &buildkit, std::slice::from_ref(&of_buildkit), 10);
    // As Docker Hardened Images are signed: platform, attestation, signature of the attestation.
    let attestation = fake.artifact("app", IN_TOTO, statement(&other, 1).as_bytes(), Some(&other));
    let of_attestation = fake.artifact(
        "app",
        SIMPLE,
        simple_signing(&attestation).as_bytes(),
        Some(&attestation),
    );
    let notation = fake.artifact("app", JWS, b"{}", Some(&other));
    let sbom = fake.artifact("app", "application/spdx+json", b"{}", Some(&other));
    fake.referrers("app", &other, &[attestation.clone(), notation.clone(), sbom.clone()], 2);
    fake.referrers("app", &attestation, std::slice::from_ref(&of_attestation), 10);
    // Cosign's tags on the index, and the tag that stands for a list of referrers on a platform.
    let sig = fake.artifact("app", SIMPLE, simple_signing(&index).as_bytes(), None);
    fake.tag("app", &format!("sha256-{}.sig", hex(&index)), &sig);
    let att = fake.artifact("app", DSSE, envelope(&index, 2).as_bytes(), None);
    fake.tag("app", &format!("sha256-{}.att", hex(&index)), &att);
    let tagged = fake.artifact("app", DSSE, envelope(&platform, 3).as_bytes(), Some(&platform));
    let list = fake.index("app", std::slice::from_ref(&tagged));
    fake.tag("app", &format!("sha256-{}", hex(&platform)), &list);

    let node = Node::new();
    let said = node.pull(&[&fake.name("app:1")]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{}", said.out);
    let evidence = [
        buildkit,
        of_buildkit,
        attestation,
        of_attestation,
        notation,
        sig,
        att,
        tagged,
    ];
    assert_eq!(sorted(node.manifests()), digests(&evidence), "{}", said.out);
    assert!(said.out.contains("8 manifests with evidence"), "{}", said.out);
    // The links of the chain are there, layers and configurations of the image are not.
    for link in [&index, &platform, &other] {
        assert!(node.has(link));
    }
    assert!(!node.has(&sbom));
    let wanted = fake.requests();
    assert!(
        !wanted
            .iter()
            .any(|path| path.contains(&hex(&sbom)) && path.contains("blobs"))
    );
    let manifest: Value = serde_json::from_slice(&fs::read(node.cache().join(blob(&platform))).unwrap()).unwrap();
    for part in [&manifest["config"], &manifest["layers"][0]] {
        assert!(!wanted.iter().any(|path| path.contains(&hex(part))));
    }
    // What is there is not fetched again: only names and lists are asked for.
    fake.forget();
    let again = node.pull(&[&fake.name("app:1")]);
    assert!(again.out.contains("0 imported, 8 already present"), "{}", again.out);
    // Nor anything else but the manifest of what is no evidence.
    for path in fake.requests().iter().filter(|path| !path.ends_with(&hex(&sbom))) {
        assert!(
            path.ends_with("/app/manifests/1") || path.contains("/referrers/") || path.contains("/manifests/sha256-"),
            "{path}"
        );
    }
}

#[test]
fn a_second_repository_may_hold_the_evidence() {
    let fake = Fake::start();
    let (index, platform) = app(&fake);
    let evidence = fake.artifact("trust/app", DSSE, envelope(&platform, 0).as_bytes(), Some(&platform));
    fake.referrers("trust/app", &platform, std::slice::from_ref(&evidence), 10);
    fake.referrers("trust/app", &index, &[], 10);
    let node = Node::new();
    let said = node.pull(&[&fake.name("app:1")]);
    assert_eq!(said.code, 4, "{}{}", said.out, said.err);
    assert!(said.err.contains("--referrers-from"), "{}", said.err);
    let said = node.pull(&["--referrers-from", &fake.name("trust/app"), &fake.name("app:1")]);
    assert_eq!((said.code, node.manifests()), (0, digests(&[evidence])));
}

#[test]
fn an_image_is_pulled_by_digest_as_well() {
    let fake = Fake::start();
    let (_, platform) = app(&fake);
    let evidence = fake.artifact("app", DSSE, envelope(&platform, 0).as_bytes(), Some(&platform));
    fake.referrers("app", &platform, std::slice::from_ref(&evidence), 10);
    let node = Node::new();
    let name = fake.name(&format!("app@{}", platform["digest"].as_str().unwrap()));
    let said = node.pull(&[&name]);
    assert_eq!((said.code, node.manifests()), (0, digests(&[evidence])), "{}", said.err);
}

#[test]
fn a_registry_that_wants_a_login_gets_the_one_that_docker_has() {
    for login in [Login::Basic, Login::Bearer] {
        let fake = Fake::start();
        let (_, platform) = app(&fake);
        let evidence = fake.artifact("app", DSSE, envelope(&platform, 0).as_bytes(), Some(&platform));
        fake.referrers("app", &platform, std::slice::from_ref(&evidence), 10);
        fake.state.lock().unwrap().login = login;
        let node = Node::new();
        let said = node.pull(&[&fake.name("app:1")]);
        assert_eq!(said.code, 1);
        assert!(
            said.err.contains(&format!("run: docker login {}", fake.address)),
            "{}",
            said.err
        );
        node.login(&fake.address.to_string(), BASIC.strip_prefix("Basic ").unwrap());
        let said = node.pull(&[&fake.name("app:1")]);
        assert_eq!((said.code, node.manifests()), (0, digests(&[evidence])), "{}", said.err);
        // The password goes to the token service, once, and to nobody else.
        let state = fake.state.lock().unwrap();
        let with_password = state.log.iter().filter(|(path, authorization)| {
            login == Login::Bearer && authorization.as_deref() == Some(BASIC) && !path.starts_with("/token")
        });
        assert_eq!(with_password.count(), 0);
        let tokens = state
            .log
            .iter()
            .filter(|(path, given)| path.starts_with("/token") && given.is_some());
        assert_eq!(tokens.count(), usize::from(login == Login::Bearer));
        // A wrong one is told from none.
        drop(state);
        node.login(&fake.address.to_string(), "dXNlcjp3cm9uZw==");
        let said = node.pull(&[&fake.name("app:1")]);
        assert!(
            said.err.contains("the user that docker is logged in as"),
            "{}",
            said.err
        );
        assert!(!said.err.contains("wrong"), "{}", said.err);
    }
}

#[test]
fn a_credential_helper_is_asked() {
    use std::os::unix::fs::PermissionsExt as _;
    let fake = Fake::start();
    let (_, platform) = app(&fake);
    let evidence = fake.artifact("app", DSSE, envelope(&platform, 0).as_bytes(), Some(&platform));
    fake.referrers("app", &platform, std::slice::from_ref(&evidence), 10);
    fake.state.lock().unwrap().login = Login::Basic;
    let node = Node::new();
    let config = json!({"credHelpers": {fake.address.to_string(): "test"}});
    fs::write(node.path("docker/config.json"), config.to_string()).unwrap();
    let helper = node.path("docker/docker-credential-test");
    let with = |script: &str| {
        fs::write(&helper, script).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", node.path("docker").display(), std::env::var("PATH").unwrap());
        let name = fake.name("app:1");
        let mut command = node.command(&["evidence", "pull", "--plain-http", &name]);
        crate::node::said(&command.env("PATH", path).output().unwrap())
    };
    let said = with("#!/bin/sh\ncat >/dev/null\necho '{\"Username\":\"user\",\"Secret\":\"password\"}'\n");
    assert_eq!((said.code, node.manifests()), (0, digests(&[evidence])), "{}", said.err);
    let said = with("#!/bin/sh\ncat >/dev/null\necho credentials not found in native keychain\nexit 1\n");
    assert!(said.err.contains("someone without a login"), "{}", said.err);
    let said = with("#!/bin/sh\ncat >/dev/null\necho my-secret\nexit 1\n");
    assert!(said.err.contains("docker-credential-test failed"), "{}", said.err);
    assert!(!said.err.contains("my-secret"), "{}", said.err);
}

#[test]
fn a_list_of_referrers_ends_and_stays_on_its_host() {
    let fake = Fake::start();
    let (index, platform) = app(&fake);
    let path = format!("/v2/app/referrers/{}", platform["digest"].as_str().unwrap());
    fake.referrers("app", &index, &[], 1);
    let empty = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}).to_string();
    let mut endless = Answer::of(INDEX, empty.as_bytes());
    endless.headers.push(("Link", format!("<{path}>; rel=\"next\"")));
    fake.set(&path, endless);
    let node = Node::new();
    let said = node.pull(&[&fake.name("app:1")]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("lists more than 256 pages of referrers of"),
        "{}",
        said.err
    );
    let mut elsewhere = Answer::of(INDEX, empty.as_bytes());
    elsewhere
        .headers
        .push(("Link", "<http://127.0.0.1:1/v2/>; rel=\"next\"".to_owned()));
    fake.set(&path, elsewhere);
    let said = node.pull(&[&fake.name("app:1")]);
    assert!(said.err.contains("its next page is on another host"), "{}", said.err);
    let many: Vec<Value> = (0..5000)
        .map(|n| json!({"mediaType": MANIFEST, "digest": assay::digest::Digest::of(format!("{n}").as_bytes()), "size": 9}))
        .collect();
    fake.referrers("app", &platform, &many, 500);
    let said = node.pull(&[&fake.name("app:1")]);
    assert!(said.err.contains("lists more than 4096 referrers of"), "{}", said.err);
}

#[test]
fn what_a_registry_gets_wrong_is_said_and_the_rest_is_kept() {
    let fake = Fake::start();
    let (_, platform) = app(&fake);
    let good = fake.artifact("app", DSSE, envelope(&platform, 0).as_bytes(), Some(&platform));
    let swapped = fake.artifact("app", DSSE, envelope(&platform, 1).as_bytes(), Some(&platform));
    let long = fake.artifact("app", DSSE, envelope(&platform, 2).as_bytes(), Some(&platform));
    let missing = fake.artifact("app", DSSE, envelope(&platform, 3).as_bytes(), Some(&platform));
    let layer = |manifest: &Value| {
        let path = format!("/v2/app/manifests/{}", manifest["digest"].as_str().unwrap());
        let manifest: Value = serde_json::from_slice(&fake.state.lock().unwrap().answers[&path].body).unwrap();
        format!("/v2/app/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap())
    };
    fake.set(&layer(&swapped), Answer::of("application/octet-stream", b"{}"));
    fake.set(
        &layer(&long),
        Answer::of("application/octet-stream", &b" ".repeat(100_000)),
    );
    let absent = layer(&missing);
    fake.state.lock().unwrap().answers.remove(&absent);
    fake.referrers("app", &platform, &[good.clone(), swapped, long, missing.clone()], 10);
    let node = Node::new();
    let said = node.pull(&[&fake.name("app:1")]);
    assert_eq!(said.code, 1);
    for part in [
        "with other content: its digest is",
        "bytes that are accepted",
        "and does not have it",
    ] {
        assert!(said.err.contains(part), "{part}: {}", said.err);
    }
    assert_eq!(node.manifests(), digests(std::slice::from_ref(&good)), "{}", said.out);
    // What it left is not what another pull found.
    let elsewhere = fake.image("elsewhere", "linux/amd64");
    fake.tag("elsewhere", "1", &elsewhere);
    let its = fake.artifact("elsewhere", DSSE, envelope(&elsewhere, 9).as_bytes(), Some(&elsewhere));
    fake.referrers("elsewhere", &elsewhere, std::slice::from_ref(&its), 10);
    let said = node.pull(&[&fake.name("elsewhere:1")]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.contains("1 imported, 0 already present, 0 skipped"),
        "{}",
        said.out
    );
    // The next pull goes on where this one was.
    let bytes = envelope(&platform, 3);
    fake.blob("app", DSSE, bytes.as_bytes());
    fake.forget();
    node.pull(&[&fake.name("app:1")]);
    assert_eq!(sorted(node.manifests()), digests(&[good.clone(), missing, its]));
    assert!(!fake.requests().contains(&layer(&good)));
}

#[test]
fn where_evidence_was_looked_for_in_vain_is_said() {
    let fake = Fake::start();
    app(&fake);
    let other = fake.name("nosuch");
    let said = Node::new().pull(&["--referrers-from", &other, &fake.name("app:1")]);
    assert_eq!(said.code, 4, "{}", said.err);
    assert!(said.err.contains(&format!("nor in {other}")), "{}", said.err);
    assert!(!said.err.contains("--referrers-from"), "{}", said.err);
}

#[test]
fn a_registry_that_is_busy_is_asked_again() {
    let fake = Fake::start();
    let (_, platform) = app(&fake);
    let evidence = fake.artifact("app", DSSE, envelope(&platform, 0).as_bytes(), Some(&platform));
    fake.referrers("app", &platform, std::slice::from_ref(&evidence), 10);
    let mut busy = Answer::status("429 Too Many Requests");
    busy.headers.push(("Retry-After", "0".to_owned()));
    let cut = Answer {
        headers: vec![
            ("Content-Type", INDEX.to_owned()),
            ("Content-Length", "5000".to_owned()),
        ],
        ..Answer::of(INDEX, b"{")
    };
    let path = "/v2/app/manifests/1".to_owned();
    fake.state
        .lock()
        .unwrap()
        .first
        .insert(path.clone(), vec![busy.clone(), cut]);
    let node = Node::new();
    let said = node.pull(&[&fake.name("app:1")]);
    assert_eq!((said.code, node.manifests()), (0, digests(&[evidence])), "{}", said.err);
    // Not for ever.
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"come \u001b[2Jback"}]}"#;
    fake.set(
        &path,
        Answer {
            body: body.to_vec(),
            ..busy
        },
    );
    let said = node.pull(&[&fake.name("app:1")]);
    assert_eq!(said.code, 1);
    assert!(
        said.err
            .contains("answers 429 Too Many Requests for /v2/app/manifests/1 (TOOMANYREQUESTS: come "),
        "{}",
        said.err
    );
    assert!(!said.err.contains('\u{1b}'), "{:?}", said.err);
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let fake = Fake::start();
    app(&fake);
    let node = Node::new();
    for (words, code, part) in [
        (
            &[fake.name("app:2")][..],
            7,
            "the registry has no such image; check repository and tag",
        ),
        (&[fake.name("nothing:1")][..], 7, "the registry has no such image"),
        (
            &["127.0.0.1:1/app:1".to_owned()][..],
            1,
            "127.0.0.1:1 cannot be reached: Connection refused",
        ),
        (
            &["no-such-host.invalid/app:1".to_owned()][..],
            1,
            "no-such-host.invalid cannot be reached",
        ),
        (&["app:".to_owned()][..], 2, "is not an image reference"),
        (&[][..], 2, "required arguments"),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = node.pull(&words);
        assert_eq!(said.code, code, "{words:?}: {}", said.err);
        assert!(said.err.contains(part), "{words:?}: {}", said.err);
    }
    let said = node.evidence(&["pull", &fake.name("app:1")]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("whether it speaks HTTPS at all (else: --plain-http)"),
        "{}",
        said.err
    );
    fs::write(node.path("docker/config.json"), "{").unwrap();
    let said = node.pull(&[&fake.name("app:1")]);
    assert!(said.err.contains("docker/config.json"), "{}", said.err);
}

#[test]
fn one_image_that_fails_does_not_keep_the_others() {
    let fake = Fake::start();
    let (_, platform) = app(&fake);
    let evidence = fake.artifact("app", DSSE, envelope(&platform, 0).as_bytes(), Some(&platform));
    fake.referrers("app", &platform, std::slice::from_ref(&evidence), 10);
    let node = Node::new();
    let said = node.pull(&[&fake.name("app:none"), &fake.name("app:1")]);
    assert_eq!((said.code, node.manifests()), (7, digests(&[evidence])), "{}", said.err);
}

#[test]
fn a_pull_that_is_killed_leaves_a_whole_cache() {
    let fake = Fake::start();
    let (_, platform) = app(&fake);
    let list: Vec<Value> = (0..60)
        .map(|n| fake.artifact("app", DSSE, envelope(&platform, n).as_bytes(), Some(&platform)))
        .collect();
    fake.referrers("app", &platform, &list, 10);
    let node = Node::new();
    let name = fake.name("app:1");
    for wait in [0, 20, 60, 120] {
        let mut child = node.command(&["evidence", "pull", "--plain-http", &name]);
        let mut child = child.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        if node.cache().join("index.json").exists() {
            for digest in node.manifests() {
                assert!(node.has(&Value::from(digest)));
            }
        }
    }
    let said = node.pull(&[&name]);
    assert_eq!((said.code, node.manifests().len()), (0, 60), "{}", said.err);
    let left = fs::read_dir(node.path("state/downloads/blobs/sha256")).unwrap().count();
    assert_eq!(left, 0);
}
