//! What cosign, oras and skopeo really write, in a registry and as copies.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};

use serde_json::Value;

use crate::node::{Node, files};

/// `tests/evidence/publish`, once for all tests of this program.
struct Publisher {
    folder: PathBuf,
    registry: String,
    index: String,
    platform: String,
    tls_port: String,
}

/// Ends with this program: the publisher clears up when its standard input does.
static CHILD: Mutex<Option<Child>> = Mutex::new(None);

static PUBLISHER: LazyLock<Publisher> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("assay-publish-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    // A shell takes the folder away when this program is gone, however it ended.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/evidence/publish");
    let mut child = Command::new("/bin/sh")
        .args(["-c", "\"$0\" \"$1\"; rm -rf \"$1\"", script])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["ready", registry, index, platform, tls_port] = words[..] else {
        panic!("the publisher does not get ready: {line:?}");
    };
    let publisher = Publisher {
        folder,
        registry: registry.to_owned(),
        index: index.to_owned(),
        platform: platform.to_owned(),
        tls_port: tls_port.to_owned(),
    };
    *CHILD.lock().unwrap() = Some(child);
    publisher
});

/// Carrier, claim and digest of all that is in the cache, sorted.
fn evidence(node: &Node) -> Vec<(String, String, String)> {
    let said = node.evidence(&["ls", "-o", "json"]);
    let inventory: Value = serde_json::from_str(&said.out).unwrap();
    let mut found: Vec<_> = inventory["pieces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|piece| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let content = &piece["contents"][0];
            (
                text(&content["carrier"]),
                text(&content["claim"]),
                text(&piece["about"][0]),
            )
        })
        .collect();
    found.sort();
    found
}

fn expected(names: &[&str]) -> Vec<(String, String, String)> {
    let Publisher { index, platform, .. } = &*PUBLISHER;
    let signature = "image signature";
    let mut found: Vec<_> = names
        .iter()
        .map(|name| match *name {
            "index" => ("bundle", signature, index),
            "provenance" => ("bundle", "https://slsa.dev/provenance/v1", platform),
            "sig" => ("simple-signing", signature, platform),
            "statement" => ("in-toto", "https://spdx.dev/Document", platform),
            other => panic!("{other}"),
        })
        .map(|(carrier, claim, digest)| (carrier.to_owned(), claim.to_owned(), digest.clone()))
        .collect();
    found.sort();
    found
}

fn filled() -> Node {
    let node = Node::new();
    let said = node.pull(&[&format!("{}/app:1", PUBLISHER.registry)]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    node
}

#[test]
fn a_pull_finds_what_cosign_and_oras_attached() {
    let node = filled();
    assert_eq!(evidence(&node), expected(&["index", "provenance", "sig", "statement"]));
    let said = node.pull(&[&format!("{}/unsigned:1", PUBLISHER.registry)]);
    assert_eq!(said.code, 4, "{}", said.out);
    assert!(
        said.err.contains("holds no signature and no attestation of"),
        "{}",
        said.err
    );
}

#[test]
fn a_host_is_found_by_name() {
    let node = Node::new();
    let (_, port) = PUBLISHER.registry.split_once(':').unwrap();
    // A name of /etc/hosts, as on every machine.
    let said = node.pull(&[&format!("localhost:{port}/app:1")]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(evidence(&node).len(), 4);
}

#[test]
fn a_certificate_counts_when_its_authority_is_known() {
    let node = Node::new();
    let name = format!("localhost:{}/app:1", PUBLISHER.tls_port);
    let with = |authorities: &str| {
        let mut command = node.command(&["evidence", "pull", &name]);
        crate::node::said(&command.env("SSL_CERT_FILE", authorities).output().unwrap())
    };
    let ca = PUBLISHER.folder.join("ca.pem");
    // An authority that others trust is none for this registry: the leaf itself is no authority at all.
    let said = with(PUBLISHER.folder.join("tls.pem").to_str().unwrap());
    assert_eq!(said.code, 1);
    assert!(said.err.contains("invalid peer certificate"), "{}", said.err);
    assert!(
        said.err
            .contains("whether this machine trusts its certificate (SSL_CERT_FILE"),
        "{}",
        said.err
    );
    let said = with(ca.to_str().unwrap());
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(evidence(&node).len(), 4);
}

#[test]
fn copies_of_other_tools_are_imported() {
    for (copy, holds) in [
        ("oras", &["index", "provenance", "statement"][..]),
        ("oras-platform", &["provenance", "statement"]),
        ("oras-platform.tar", &["provenance", "statement"]),
        ("cosign", &["index"]),
        ("cosign-platform", &["provenance", "sig", "statement"]),
        ("skopeo", &["provenance", "statement"]),
        ("skopeo.tar", &["provenance", "statement"]),
        ("skopeo-sig", &["sig"]),
    ] {
        let node = Node::new();
        let path = PUBLISHER.folder.join(copy);
        let said = node.evidence(&["import", path.to_str().unwrap()]);
        assert_eq!(
            (said.code, evidence(&node)),
            (0, expected(holds)),
            "{copy}: {}{}",
            said.out,
            said.err
        );
    }
    let node = Node::new();
    let path = PUBLISHER.folder.join("skopeo-dir");
    let said = node.evidence(&["import", path.to_str().unwrap()]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("oci:"), "{}", said.err);
}

#[test]
fn an_export_makes_another_node_the_same() {
    let node = filled();
    let tar = node.path("evidence.tar");
    let said = node.evidence(&["export", "-o", tar.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    let other = Node::new();
    assert_eq!(other.evidence(&["import", tar.to_str().unwrap()]).code, 0);
    let layout = |node: &Node| {
        let mut files = files(&node.cache());
        files.retain(|(path, _)| !path.ends_with("stamp.json"));
        files
    };
    assert!(layout(&node) == layout(&other));
    // And the other way round, byte by byte, to standard output as well.
    let again = other.command(&["evidence", "export"]).output().unwrap();
    assert_eq!(fs::read(&tar).unwrap(), again.stdout);
    let listed = Command::new("tar").arg("tf").arg(&tar).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("oci-layout"));
}

#[test]
fn an_export_can_be_of_one_image() {
    let node = filled();
    let Publisher {
        registry,
        index,
        platform,
        ..
    } = &*PUBLISHER;
    let tar = node.path("some.tar");
    let mut name = format!("{registry}/app:1");
    for (wanted, holds) in [
        (&mut name, &["index", "provenance", "sig", "statement"][..]),
        (&mut index.clone(), &["index", "provenance", "sig", "statement"]),
        (&mut platform.clone(), &["provenance", "sig", "statement"]),
    ] {
        let said = node.evidence(&["export", "-o", tar.to_str().unwrap(), wanted]);
        assert_eq!(said.code, 0, "{}", said.err);
        let other = Node::new();
        other.evidence(&["import", tar.to_str().unwrap()]);
        assert_eq!(evidence(&other), expected(holds), "{wanted}");
    }
    fs::remove_file(&tar).unwrap();
    let said = node.evidence(&["export", "-o", tar.to_str().unwrap(), "app:never"]);
    assert_eq!((said.code, tar.exists()), (7, false), "{}", said.err);
    let said = node.evidence(&["export", "-o", "/nonexistent/some.tar"]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("cannot write /nonexistent/some.tar"), "{}", said.err);
}

#[test]
fn lists_say_what_is_signed_and_what_is_not() {
    let node = filled();
    let Publisher { registry, platform, .. } = &*PUBLISHER;
    let said = node.evidence(&["ls"]);
    assert_eq!(said.out.lines().count(), 5, "{}", said.out);
    assert!(said.out.contains("in-toto (unsigned)"), "{}", said.out);
    let said = node.evidence(&["show", &format!("{registry}/app:1")]);
    for part in [
        "holds   https://spdx.dev/Document (in-toto): unsigned; counts under a signature of this manifest only",
        "holds   image signature (simple-signing): signed, it says by a key",
        "holds   https://slsa.dev/provenance/v1 (bundle): signed, it says by the key with fingerprint",
        "nothing of this is verified here",
        &format!("lists   {platform}"),
    ] {
        assert!(said.out.contains(part), "{part}: {}", said.out);
    }
    let said = node.evidence(&["show", platform]);
    assert_eq!(
        said.out.matches("\nevidence").count() + usize::from(said.out.starts_with("evidence")),
        3
    );
    let said = node.evidence(&["show", "app:never"]);
    assert_eq!(said.code, 7);
    assert!(
        said.err
            .contains("run: assay evidence pull docker.io/library/app:never"),
        "{}",
        said.err
    );
    // What is damaged is in the list, and the next pull mends it.
    let manifest = node.manifests().remove(0);
    fs::write(
        node.cache().join(crate::node::blob(&Value::from(manifest.as_str()))),
        "{}",
    )
    .unwrap();
    assert!(node.evidence(&["ls"]).out.contains("damaged"));
    node.pull(&[&format!("{registry}/app:1")]);
    assert_eq!(evidence(&node), expected(&["index", "provenance", "sig", "statement"]));
}

#[test]
fn a_truncated_tar_is_told_from_an_empty_one() {
    let node = filled();
    let tar = node.path("evidence.tar");
    node.evidence(&["export", "-o", tar.to_str().unwrap()]);
    let bytes = fs::read(&tar).unwrap();
    fs::write(&tar, &bytes[..bytes.len() / 2]).unwrap();
    let other = Node::new();
    let said = other.evidence(&["import", tar.to_str().unwrap()]);
    assert_ne!(said.code, 0);
    assert!(said.err.contains("is not a readable tar"), "{}{}", said.out, said.err);
    // Wherever it was cut.
    for end in [bytes.len() - 1024, bytes.len() - 1536] {
        fs::write(&tar, &bytes[..end]).unwrap();
        assert_ne!(other.evidence(&["import", tar.to_str().unwrap()]).code, 0, "{end}");
    }
    assert!(!other.cache().join("index.json").exists());
}

#[test]
fn attestations_that_carry_no_signature_count_by_what_cosign_signed() {
    let Publisher {
        folder,
        registry,
        platform,
        ..
    } = &*PUBLISHER;
    for (name, signed, code) in [
        ("hardened", "itself", "attestation-verified"),
        ("hardened", "index", "attestation-verified"),
        ("buildkit", "itself", "attestation-verified"),
        ("indexed", "itself", "attestation-unsigned"),
        ("indexed", "index", "attestation-verified"),
    ] {
        let node = Node::new();
        let said = node.pull(&[&format!("{registry}/{name}:1")]);
        assert_eq!(said.code, 0, "{name}: {}{}", said.out, said.err);
        fs::copy(folder.join("release.pub"), node.path("trust/release.pub")).unwrap();
        let key = "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\", \"sbom\"]\n";
        fs::write(node.path("trust/keys.toml"), key).unwrap();
        let rule = format!(
            "[[rule]]\nname = \"r\"\nmatch = {{ image = [\"**\"] }}\nmode = \"enforce\"\ndigest = [\"{platform}\"]\n\
             [[rule.sbom]]\nany = [{{ key = \"release\" }}]\nsigned = \"{signed}\"\n"
        );
        fs::write(node.path("policy/rules.toml"), rule).unwrap();
        let raw = fs::read(folder.join(name).join("index.json")).unwrap();
        let layout: Value = serde_json::from_slice(&raw).unwrap();
        let index = layout["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .find(|entry| entry["mediaType"].as_str().unwrap().contains("index"))
            .unwrap();
        let expect = if code == "attestation-verified" {
            "allow"
        } else {
            "refuse"
        };
        // What was pulled, and a copy as oras makes it.
        let tests: String = [node.cache(), folder.join(name)]
            .iter()
            .enumerate()
            .map(|(number, evidence)| {
                format!(
                    "[[test]]\nname = \"{number}\"\nimage = \"registry.example/{name}:1\"\ndigest = \"{platform}\"\n\
                     indexes = [{}]\nevidence = \"{}\"\nexpect = \"{expect}\"\ncode = \"{code}\"\n",
                    index["digest"],
                    evidence.display(),
                )
            })
            .collect();
        let file = node.path("tests.toml");
        fs::write(&file, tests).unwrap();
        let told = node
            .command(&["policy", "test", file.to_str().unwrap()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&told.stdout).into_owned() + &String::from_utf8_lossy(&told.stderr);
        assert!(told.status.success(), "{name} {signed}: {text}");
    }
}
