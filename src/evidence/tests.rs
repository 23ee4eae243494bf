use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::oci::Manifest;
use crate::store::StateDir;
use crate::trust::{Der, HashAlgorithm, TrustStore, Use};
use crate::verify::tests::{fixtures, key, recorded};
use crate::verify::{Carrier, Claim};

/// A question that only keys can answer.
fn question(keys: &[Key], subjects: &[Digest]) -> Question {
    Question {
        subjects: subjects.to_vec(),
        keys: keys.to_vec(),
        roots: Vec::new(),
        notation: Vec::new(),
        certifiers: Vec::new(),
        denied: Denied::default(),
        conditions: Vec::new(),
        purpose: None,
        through_index: false,
        now: Timestamp::now(),
    }
}

pub(super) struct Cache {
    _keep: tempfile::TempDir,
    pub(super) dir: StateDir,
}

impl Cache {
    pub(super) fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let dir = StateDir::open(&keep.path().canonicalize().unwrap().join("evidence")).unwrap();
        Self { _keep: keep, dir }
    }

    fn filled(sources: &[&str]) -> Self {
        let cache = Self::new();
        cache.import(sources);
        cache
    }

    fn import(&self, sources: &[&str]) -> Report {
        let paths: Vec<PathBuf> = sources.iter().map(|name| fixtures().join(name)).collect();
        import(&self.dir, &paths).unwrap()
    }

    fn judge(&self, keys: &[Key], subjects: &[Digest]) -> Answer {
        judge(self.dir.as_fd(), &question(keys, subjects))
    }

    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.dir.path().join("blobs/sha256").join(digest.hex())
    }

    pub(super) fn put(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        std::fs::create_dir_all(self.dir.path().join("blobs/sha256")).unwrap();
        std::fs::write(self.blob(digest), bytes).unwrap();
        digest
    }

    /// Writes a manifest with one layer and returns its descriptor.
    pub(super) fn manifest(&self, layer_type: &str, layer: &[u8], more: &Value) -> Value {
        let config = self.put(b"{}");
        let digest = self.put(layer);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": oci::MANIFEST,
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": layer_type, "digest": digest, "size": layer.len()}],
        });
        manifest
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.document(oci::MANIFEST, &manifest)
    }

    pub(super) fn document(&self, media_type: &str, document: &Value) -> Value {
        let bytes = document.to_string();
        let digest = self.put(bytes.as_bytes());
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    pub(super) fn index(&self, entries: &[Value]) {
        std::fs::write(self.dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": entries});
        std::fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Names and bytes of all files but the lock and the stamp, which has times.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else if !path.ends_with(".lock") && !path.ends_with("stamp.json") {
                    files.push((path.clone(), std::fs::read(path).unwrap()));
                }
            }
        }
        let mut files = Vec::new();
        walk(self.dir.path(), &mut files);
        files.sort();
        files
    }
}

fn keys() -> Vec<Key> {
    let with = |name: &str, hash| Key { hash, ..key(name) };
    vec![
        key("p256"),
        with("p384", HashAlgorithm::Sha384),
        with("p521", HashAlgorithm::Sha512),
        key("ed25519"),
        key("rsa2048"),
        key("rsa4096"),
    ]
}

/// Key and claim of every fact, sorted.
fn facts(answer: &Answer) -> Vec<(String, String)> {
    let mut facts: Vec<_> = answer
        .facts
        .iter()
        .map(|fact| {
            let claim = match &fact.claim {
                Claim::ImageSignature => "image",
                Claim::Attestation(predicate) => predicate,
            };
            (fact.proof.signer.to_string(), claim.to_owned())
        })
        .collect();
    facts.sort();
    facts
}

pub(super) fn codes(answer: &Answer) -> Vec<&str> {
    answer.findings.iter().map(|finding| finding.code.as_str()).collect()
}

/// A recorded bundle by `p256` that signs the image manifest.
fn bundle() -> Vec<u8> {
    let cache = Cache::filled(&["oras"]);
    let answer = cache.judge(&[key("p256")], &[recorded("manifest")]);
    let manifest = std::fs::read(cache.blob(answer.facts[0].evidence)).unwrap();
    let layer = Manifest::parse(&manifest, oci::MANIFEST).unwrap().layers.remove(0);
    std::fs::read(cache.blob(layer.digest)).unwrap()
}

const BUNDLE: &str = bundle::MEDIA_TYPES[0];

#[test]
fn what_oras_copied_is_found_for_manifest_and_index() {
    let cache = Cache::new();
    let report = cache.import(&["oras"]);
    assert_eq!(
        (report.imported.len(), report.present.len(), report.skipped.len()),
        (7, 0, 0)
    );
    let all = ["ed25519", "p256", "p384", "p521", "rsa2048", "rsa4096"].map(|key| (key.to_owned(), "image".to_owned()));
    let answer = cache.judge(&keys(), &[recorded("manifest")]);
    assert_eq!((facts(&answer), answer.findings), (all.to_vec(), vec![]));
    let answer = cache.judge(&keys(), &[recorded("index")]);
    assert_eq!(facts(&answer), [("p256".to_owned(), "image".to_owned())]);
    assert_eq!(answer.facts[0].subject, recorded("index"));
    assert_eq!(
        cache
            .judge(&keys(), &[recorded("manifest"), recorded("index")])
            .facts
            .len(),
        7
    );
    // Signed for one platform is not signed for another.
    assert_eq!(cache.judge(&keys(), &[recorded("other-manifest")]), Answer::default());
    assert_eq!(cache.judge(&keys(), &[]), Answer::default());
}

#[test]
fn what_cosign_saved_is_found_though_no_index_lists_it() {
    let cache = Cache::new();
    let report = cache.import(&["cosign-save"]);
    assert_eq!((report.imported.len(), report.skipped.len()), (4, 0));
    let answer = cache.judge(&[key("p256")], &[recorded("manifest")]);
    let predicates = [
        "https://cyclonedx.org/bom",
        "https://openvex.dev/ns",
        "https://spdx.dev/Document",
    ];
    assert_eq!(
        facts(&answer),
        predicates.map(|predicate| ("p256".to_owned(), predicate.to_owned()))
    );
    // The recorded provenance is empty: signed, and no evidence of anything.
    assert_eq!(codes(&answer), ["predicate-malformed"]);
    // An SBOM is not vouched for by a key that only signs images.
    let image_only = Key {
        r#use: vec![Use::Image],
        ..key("p256")
    };
    let answer = cache.judge(&[image_only], &[recorded("manifest")]);
    assert_eq!((answer.facts.len(), codes(&answer)), (0, vec!["key-use"; 4]));
}

#[test]
fn cosigns_older_layout_is_found() {
    let cache = Cache::new();
    let report = cache.import(&["cosign-save-legacy"]);
    assert_eq!((report.imported.len(), report.skipped.len()), (2, 0));
    let answer = cache.judge(&keys(), &[recorded("manifest")]);
    assert_eq!(
        facts(&answer),
        [
            ("p256", "https://spdx.dev/Document"),
            ("p256", "image"),
            ("rsa2048", "image")
        ]
        .map(|(key, claim)| (key.to_owned(), claim.to_owned()))
    );
    assert!(answer.facts.iter().all(|fact| match fact.claim {
        Claim::ImageSignature => fact.carrier == Carrier::SimpleSigning,
        Claim::Attestation(_) => fact.carrier == Carrier::Envelope,
    }));
}

#[test]
fn layouts_that_other_tools_filled_are_judged_as_they_are() {
    for (name, count) in [("oras", 6), ("cosign-save-legacy", 3)] {
        let folder = File::open(fixtures().join(name)).unwrap();
        let answer = judge(folder.as_fd(), &question(&keys(), &[recorded("manifest")]));
        assert_eq!((answer.facts.len(), answer.findings), (count, vec![]), "{name}");
    }
}

#[test]
fn no_layer_and_no_configuration_of_an_image_is_copied() {
    let cache = Cache::filled(&["oras", "cosign-save", "cosign-save-legacy"]);
    let files = cache.files();
    assert!(files.iter().all(|(_, bytes)| !bytes.starts_with(b"layer for")));
    let configuration = |name: &str| {
        let manifest = std::fs::read(cache.blob(recorded(name))).unwrap();
        Manifest::parse(&manifest, oci::MANIFEST).unwrap().config.digest
    };
    assert!(!cache.blob(configuration("manifest")).exists());
    // Everything in the cache is an acceptable layout of its own.
    let layout = Layout::new(cache.dir.as_fd());
    let (images, evidence): (Vec<_>, Vec<_>) = layout
        .index()
        .unwrap()
        .into_iter()
        .partition(|entry| entry.annotations.contains_key(IMAGE));
    let known = ["index", "manifest", "other-manifest"].map(recorded);
    assert!(images.len() > 1 && images.iter().all(|entry| known.contains(&entry.digest)));
    for entry in &images {
        layout.blob(entry, oci::MAX_DOCUMENT).unwrap();
    }
    for entry in evidence {
        let manifest = layout.manifest(&entry).unwrap();
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            layout.blob(blob, 1 << 20).unwrap();
        }
    }
}

#[test]
fn importing_again_changes_nothing() {
    let cache = Cache::filled(&["oras"]);
    let before = cache.files();
    let report = cache.import(&["oras", "oras"]);
    assert_eq!((report.imported.len(), report.present.len()), (0, 14));
    assert_eq!(cache.files(), before);
}

#[test]
fn imports_at_the_same_time_lose_nothing() {
    let cache = Cache::new();
    std::thread::scope(|scope| {
        for name in ["oras", "cosign-save", "cosign-save-legacy", "oras"] {
            let cache = &cache;
            scope.spawn(move || cache.import(&[name]));
        }
    });
    let together = Cache::filled(&["oras", "cosign-save", "cosign-save-legacy"]);
    let bytes = |cache: &Cache| cache.files().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
    assert_eq!(bytes(&cache), bytes(&together));
}

#[test]
fn what_an_import_says() {
    let cache = Cache::new();
    let legacy = cache.import(&["cosign-save-legacy"]).to_string();
    let again = cache.import(&["cosign-save-legacy"]).to_string();
    // Signatures are random, so digests differ from one recording to the next.
    let shown = |text: &str| {
        let text = text.replace(&fixtures().display().to_string(), "FOLDER");
        let mut words = text
            .split_inclusive([' ', '\n', ','])
            .map(|word| match word.strip_prefix("sha256:") {
                Some(rest) => format!("sha256:…{}", &rest[64..]),
                None => word.to_owned(),
            })
            .collect::<String>();
        words.push('\n');
        words
    };
    insta::assert_snapshot!(shown(&legacy) + &shown(&again), @r#"
    imported  sha256:… about sha256:…
    imported  sha256:… about sha256:…
    2 imported, 0 already present, 0 skipped
    present   sha256:… about sha256:…
    present   sha256:… about sha256:…
    0 imported, 2 already present, 0 skipped
    "#);
}

fn tar_of(folder: &Path, prefix: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut archive = tar::Builder::new(&file);
    archive.append_dir_all(prefix, folder).unwrap();
    archive.finish().unwrap();
    drop(archive);
    file
}

#[test]
fn a_tar_is_as_good_as_a_folder() {
    let folder = Cache::filled(&["oras"]);
    for prefix in ["", "./"] {
        let tar = tar_of(&fixtures().join("oras"), prefix);
        let cache = Cache::new();
        assert_eq!(import(&cache.dir, &[tar.path().to_owned()]).unwrap().imported.len(), 7);
        let bytes = |cache: &Cache| cache.files().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>();
        assert_eq!(bytes(&cache), bytes(&folder));
    }
}

#[test]
fn a_hostile_tar_puts_nothing_anywhere() {
    let outside = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut archive = tar::Builder::new(&file);
    let mut add = |name: &str, kind: tar::EntryType, link: &str, size: u64, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        // set_path refuses such names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        archive.append(&header, bytes).unwrap();
    };
    let blob = format!("blobs/sha256/{}", Digest::of(b"x").hex());
    add(
        "oci-layout",
        tar::EntryType::Regular,
        "",
        30,
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    );
    add(
        &format!("{}/out", outside.path().display()),
        tar::EntryType::Regular,
        "",
        1,
        b"x",
    );
    add("../../out", tar::EntryType::Regular, "", 1, b"x");
    add("blobs/sha256", tar::EntryType::Symlink, "/etc", 0, b"");
    add(&blob, tar::EntryType::Link, "/etc/passwd", 0, b"");
    add("blobs/sha256/../../index.json", tar::EntryType::Regular, "", 2, b"{}");
    add("blobs/sha256/zz", tar::EntryType::Regular, "", 2, b"{}");
    // A file that promises more than there is.
    add(
        &format!("blobs/sha256/{}", Digest::of(b"y").hex()),
        tar::EntryType::Regular,
        "",
        1 << 20,
        b"{}",
    );
    drop(archive);
    let cache = Cache::new();
    let result = import(&cache.dir, &[file.path().to_owned()]);
    if let Ok(report) = &result {
        assert!(report.imported.is_empty() && report.present.is_empty());
    }
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(
        cache
            .files()
            .iter()
            .all(|(path, _)| path.ends_with("oci-layout") || path.ends_with("index.json"))
    );
}

#[test]
fn what_cannot_be_imported_is_refused_before_anything_is_written() {
    let keep = tempfile::tempdir().unwrap();
    let at = |name: &str| keep.path().join(name);
    std::fs::create_dir(at("docker")).unwrap();
    std::fs::write(at("docker/manifest.json"), "[]").unwrap();
    std::fs::create_dir(at("empty")).unwrap();
    std::fs::write(at("image.tar.gz"), b"\x1f\x8b\x08\0").unwrap();
    std::fs::write(at("image.tar.zst"), b"\x28\xb5\x2f\xfd").unwrap();
    std::fs::write(at("text"), "x".repeat(2000)).unwrap();
    std::fs::copy(tar_of(&at("docker"), "").path(), at("docker.tar")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo"), rustix::fs::Mode::RUSR).unwrap();
    let cache = Cache::new();
    let mut lines = String::new();
    for name in [
        "missing",
        "docker",
        "docker.tar",
        "empty",
        "image.tar.gz",
        "image.tar.zst",
        "text",
        "fifo",
    ] {
        let error = import(&cache.dir, &[fixtures().join("oras"), at(name)])
            .unwrap_err()
            .to_string();
        lines.push_str(&error.replace(&keep.path().display().to_string(), "DIR"));
        lines.push('\n');
    }
    insta::assert_snapshot!(lines, @r#"
    cannot open DIR/missing: No such file or directory (os error 2)
    DIR/docker is a 'docker save' archive, which holds no signatures; run: oras copy --recursive --to-oci-layout IMAGE FOLDER:TAG, or cosign save --dir FOLDER IMAGE, and import the folder
    DIR/docker.tar is a 'docker save' archive, which holds no signatures; run: oras copy --recursive --to-oci-layout IMAGE FOLDER:TAG, or cosign save --dir FOLDER IMAGE, and import the folder
    DIR/empty is not an OCI image layout: it has no file named oci-layout
    DIR/image.tar.gz is compressed; run: gzip -d DIR/image.tar.gz
    DIR/image.tar.zst is compressed; run: zstd -d DIR/image.tar.zst
    DIR/text is not a readable tar: numeric field was not a number: xxxxxxxx when getting cksum for xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
    DIR/fifo is not a regular file; remove it
    "#);
    assert_eq!(cache.files(), []);
}

#[test]
fn a_damaged_source_gives_what_is_whole() {
    let source = Cache::filled(&["oras"]);
    let layout = Layout::new(source.dir.as_fd());
    let mut entries = layout.index().unwrap();
    entries.retain(|entry| !entry.annotations.contains_key(IMAGE));
    let layer = |n: usize| layout.manifest(&entries[n]).unwrap().layers[0].digest;
    let (corrupt, missing, long) = (layer(0), layer(1), layer(2));
    std::fs::write(source.blob(corrupt), b"{}").unwrap();
    std::fs::remove_file(source.blob(missing)).unwrap();
    let mut bytes = std::fs::read(source.blob(long)).unwrap();
    bytes.push(b' ');
    std::fs::write(source.blob(long), bytes).unwrap();
    std::fs::remove_file(source.blob(entries[3].digest)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", source.blob(entries[3].digest)).unwrap();
    let cache = Cache::new();
    let report = import(&cache.dir, &[source.dir.path().to_owned()]).unwrap();
    assert_eq!(report.imported.len(), 3);
    // Two layers are found corrupt by themselves and again by their manifests.
    assert_eq!(report.skipped.len(), 6, "{report}");
    let answer = cache.judge(&keys(), &[recorded("manifest"), recorded("index")]);
    assert_eq!((answer.facts.len(), answer.findings), (3, vec![]));
}

#[test]
fn a_damaged_cache_refuses_and_is_mended_by_the_next_import() {
    let cache = Cache::filled(&["oras"]);
    let subject = [recorded("manifest")];
    let evidence = cache
        .judge(&keys(), &subject)
        .facts
        .iter()
        .find(|fact| fact.proof.signer.key() == Some("p256"))
        .unwrap()
        .evidence;
    let layer = {
        let manifest = std::fs::read(cache.blob(evidence)).unwrap();
        Manifest::parse(&manifest, oci::MANIFEST).unwrap().layers[0].digest
    };
    let only = [key("p256")];
    type Damage<'a> = (&'a str, &'a dyn Fn(Digest), Digest);
    let whole = std::fs::read(cache.blob(layer)).unwrap();
    let overwrite = |digest| std::fs::write(cache.blob(digest), b"{}").unwrap();
    let flip = |digest: Digest| {
        let mut bytes = std::fs::read(cache.blob(digest)).unwrap();
        bytes[10] ^= 1;
        std::fs::write(cache.blob(digest), bytes).unwrap();
    };
    let remove = |digest| std::fs::remove_file(cache.blob(digest)).unwrap();
    let link = |digest: Digest| {
        std::fs::remove_file(cache.blob(digest)).unwrap();
        std::fs::write(cache.dir.path().join("elsewhere"), &whole).unwrap();
        std::os::unix::fs::symlink("../../elsewhere", cache.blob(digest)).unwrap();
    };
    let linked = cache.dir.path().join("linked");
    std::fs::write(&linked, b"{}").unwrap();
    let hard_link = |digest: Digest| {
        std::fs::remove_file(cache.blob(digest)).unwrap();
        std::fs::hard_link(&linked, cache.blob(digest)).unwrap();
    };
    let damages: [Damage<'_>; 9] = [
        ("evidence-corrupt", &overwrite, layer),
        ("evidence-corrupt", &flip, layer),
        ("evidence-missing", &remove, layer),
        ("evidence-unreadable", &link, layer),
        ("evidence-corrupt", &hard_link, layer),
        ("evidence-corrupt", &hard_link, evidence),
        ("evidence-corrupt", &overwrite, evidence),
        ("evidence-corrupt", &flip, evidence),
        ("evidence-missing", &remove, evidence),
    ];
    for (code, damage, digest) in damages {
        damage(digest);
        let answer = cache.judge(&only, &subject);
        assert_eq!(answer.facts, [], "{code}");
        assert!(codes(&answer).contains(&code), "{code}: {answer:?}");
        cache.import(&["oras"]);
        assert_eq!(cache.judge(&only, &subject).facts.len(), 1, "{code}");
        // What a planted link leads to is never written through it.
        assert_eq!(std::fs::read(&linked).unwrap(), b"{}", "{code}");
    }
    for index in ["", "{", "[]", r#"{"schemaVersion":2,"manifests":[],"manifests":[]}"#] {
        std::fs::write(cache.dir.path().join("index.json"), index).unwrap();
        let answer = cache.judge(&keys(), &subject);
        assert_eq!(
            (answer.facts.len(), codes(&answer)),
            (0, vec!["evidence-cache-unusable"]),
            "{index}"
        );
        let report = cache.import(&["cosign-save"]);
        assert!(report.rebuilt, "{index}");
        assert_eq!(
            std::fs::read_to_string(cache.dir.path().join("index.json.corrupt")).unwrap(),
            index
        );
        assert_eq!(cache.judge(&keys(), &subject).facts.len(), 9, "{index}");
    }
}

#[test]
fn an_empty_cache_is_a_finding() {
    let cache = Cache::new();
    assert_eq!(
        codes(&cache.judge(&keys(), &[recorded("manifest")])),
        ["evidence-cache-empty"]
    );
    cache.index(&[]);
    assert_eq!(
        codes(&cache.judge(&keys(), &[recorded("manifest")])),
        ["evidence-cache-empty"]
    );
}

#[test]
fn a_signature_moved_to_another_image_is_a_finding() {
    let other = recorded("other-manifest");
    let cache = Cache::new();
    let subject = json!({"subject": {"mediaType": oci::MANIFEST, "digest": other, "size": 395}});
    let moved = cache.manifest(BUNDLE, &bundle(), &subject);
    cache.index(std::slice::from_ref(&moved));
    let answer = cache.judge(&keys(), &[other]);
    assert_eq!((answer.facts.len(), codes(&answer)), (0, vec!["subject-mismatch"]));
    assert_eq!(
        answer.findings[0].text,
        format!(
            "it is attached to {other}, but what it signs is {}",
            recorded("manifest")
        )
    );
    // For the image that it does sign it still counts, wherever it is attached.
    assert_eq!(cache.judge(&keys(), &[recorded("manifest")]).facts.len(), 1);

    // The same by tag.
    let mut tagged = cache.manifest(BUNDLE, &bundle(), &json!({}));
    for tag in [format!("sha256-{}", other.hex()), format!("sha256-{}.sig", other.hex())] {
        tagged["annotations"] = json!({REF_NAME: tag});
        cache.index(std::slice::from_ref(&tagged));
        assert_eq!(codes(&cache.judge(&keys(), &[other])), ["subject-mismatch"]);
        assert_eq!(cache.judge(&keys(), &[recorded("manifest")]).facts.len(), 1);
    }
    // By the annotation of the cache itself, which only says where to look.
    tagged["annotations"] = json!({SUBJECTS: other});
    cache.index(&[tagged]);
    assert_eq!(codes(&cache.judge(&keys(), &[other])), ["subject-mismatch"]);
}

#[test]
fn a_genuine_signature_in_the_older_form_is_of_its_own_image_only() {
    let cache = Cache::new();
    let other = recorded("other-manifest");
    let mut moved = simple_signatures(&cache, 0, true);
    for tag in [format!("sha256-{}", other.hex()), format!("sha256-{}.sig", other.hex())] {
        moved["annotations"] = json!({REF_NAME: tag});
        cache.index(std::slice::from_ref(&moved));
        let answer = cache.judge(&keys(), &[other]);
        assert_eq!((answer.facts.len(), codes(&answer)), (0, vec!["subject-mismatch"]));
        assert_eq!(cache.judge(&keys(), &[recorded("manifest")]).facts.len(), 1);
    }
}

/// The bundles that cosign saved, each with the predicate type in its payload.
fn saved_attestations() -> Vec<(String, Vec<u8>)> {
    let genuine = Cache::filled(&["cosign-save"]);
    let facts = genuine.judge(&[key("p256")], &[recorded("manifest")]).facts;
    assert_eq!(facts.len(), 3);
    facts
        .into_iter()
        .map(|fact| {
            let manifest = std::fs::read(genuine.blob(fact.evidence)).unwrap();
            let layer = Manifest::parse(&manifest, oci::MANIFEST).unwrap().layers.remove(0);
            let Claim::Attestation(predicate) = fact.claim else {
                panic!("{fact:?}");
            };
            (predicate, std::fs::read(genuine.blob(layer.digest)).unwrap())
        })
        .collect()
}

#[test]
fn an_attestation_of_one_platforms_image_is_none_of_anothers() {
    let other = recorded("other-manifest");
    let genuine = Cache::filled(&["cosign-save"]);
    assert_eq!(genuine.judge(&keys(), &[other]), Answer::default());
    // Attached to the other platform's manifest, it still says what it is about.
    let cache = Cache::new();
    let subject = json!({"subject": {"mediaType": oci::MANIFEST, "digest": other, "size": 395}});
    let moved: Vec<Value> = saved_attestations()
        .iter()
        .map(|(_, bytes)| cache.manifest(BUNDLE, bytes, &subject))
        .collect();
    cache.index(&moved);
    let answer = cache.judge(&keys(), &[other]);
    assert_eq!((answer.facts.len(), codes(&answer)), (0, vec!["subject-mismatch"; 3]));
    assert_eq!(cache.judge(&keys(), &[recorded("manifest")]).facts.len(), 3);
}

#[test]
fn what_an_annotation_says_of_an_attestation_is_never_believed() {
    const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
    let image_only = [Key {
        r#use: vec![Use::Image],
        ..key("p256")
    }];
    let subject = [recorded("manifest")];
    for (predicate, bytes) in saved_attestations() {
        let cache = Cache::new();
        let digest = Digest::of(&bytes);
        let annotations = json!({
            "dev.sigstore.bundle.content": "dsse-envelope",
            "dev.sigstore.bundle.predicateType": SIGN,
            "predicateType": SIGN,
            "in-toto.io/predicate-type": SIGN,
        });
        let layer = json!({"mediaType": BUNDLE, "digest": digest, "size": bytes.len(), "annotations": annotations});
        let lying = json!({"annotations": annotations, "layers": [layer]});
        let entry = cache.manifest(BUNDLE, &bytes, &lying);
        cache.index(&[entry]);
        let answer = cache.judge(&[key("p256")], &subject);
        assert_eq!(facts(&answer), [("p256".to_owned(), predicate)]);
        let answer = cache.judge(&image_only, &subject);
        assert_eq!((answer.facts.len(), codes(&answer)), (0, vec!["key-use"]));
    }
    // The reverse: a signature of the image does not become an SBOM.
    let cache = Cache::new();
    let lying = json!({"annotations": {"dev.sigstore.bundle.predicateType": "https://spdx.dev/Document"}});
    let entry = cache.manifest(BUNDLE, &bundle(), &lying);
    cache.index(&[entry]);
    let answer = cache.judge(&[key("p256")], &subject);
    assert_eq!(facts(&answer), [("p256".to_owned(), "image".to_owned())]);
}

#[test]
fn an_sbom_under_cosigns_old_tag_for_them_never_counts() {
    let subject = recorded("manifest");
    for media_type in [
        "text/spdx+json",
        "application/vnd.cyclonedx+json",
        "application/spdx+json",
    ] {
        let cache = Cache::new();
        let mut entry = cache.manifest(media_type, br#"{"spdxVersion":"SPDX-2.3"}"#, &json!({}));
        entry["annotations"] = json!({REF_NAME: format!("sha256-{}.sbom", subject.hex())});
        cache.index(&[entry]);
        let answer = cache.judge(&keys(), &[subject]);
        assert_eq!(
            (answer.facts.len(), codes(&answer)),
            (0, vec!["carrier-unsupported"]),
            "{media_type}"
        );
        let report = import(&Cache::new().dir, &[cache.dir.path().to_owned()]).unwrap();
        assert_eq!(report.imported.len(), 0, "{media_type}");
    }
}

#[test]
fn every_blob_is_opened_once_so_what_is_parsed_is_what_was_verified() {
    use rustix::fs::inotify;
    let cache = Cache::filled(&["oras", "cosign-save", "cosign-save-legacy"]);
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, cache.dir.path().join("blobs/sha256"), inotify::WatchFlags::OPEN).unwrap();
    let answer = cache.judge(&keys(), &[recorded("manifest")]);
    assert_eq!(answer.facts.len(), 10);
    let mut opened: Vec<String> = Vec::new();
    let mut space = [std::mem::MaybeUninit::uninit(); 64 << 10];
    let mut events = inotify::Reader::new(&watch, &mut space);
    while let Ok(event) = events.next() {
        opened.extend(event.file_name().map(|name| name.to_str().unwrap().to_owned()));
    }
    // Most pieces of evidence are a manifest and a layer.
    assert!(opened.len() > 15, "{opened:?}");
    let mut once = opened.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), opened.len(), "{opened:?}");
}

#[test]
fn unsigned_and_unknown_attachments_never_count() {
    let subject = json!({"subject": {"mediaType": oci::MANIFEST, "digest": recorded("manifest"), "size": 395}});
    for (media_type, evidence, code) in [
        ("application/vnd.in-toto+json", true, "attestation-unsigned"),
        ("application/jose+json", true, "store-missing"),
        ("application/spdx+json", false, "carrier-unsupported"),
        ("text/plain", false, "carrier-unsupported"),
    ] {
        let cache = Cache::new();
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": recorded("manifest").hex()}}],
            "predicateType": "https://sigstore.dev/cosign/sign/v1",
        });
        let entry = cache.manifest(media_type, statement.to_string().as_bytes(), &subject);
        cache.index(&[entry]);
        let answer = cache.judge(&keys(), &[recorded("manifest")]);
        assert_eq!((answer.facts.len(), codes(&answer)), (0, vec![code]), "{media_type}");
        let other = Cache::new();
        let report = import(&other.dir, &[cache.dir.path().to_owned()]).unwrap();
        let (imported, skipped) = (report.imported.len(), report.skipped.len());
        assert_eq!((imported == 1, skipped == 1), (evidence, !evidence), "{media_type}");
        if evidence {
            assert_eq!(report.imported[0].subjects, [recorded("manifest")]);
        }
        assert_eq!(other.judge(&keys(), &[recorded("manifest")]).facts, []);
    }
}

#[test]
fn manifests_that_could_be_read_in_two_ways_do_not_count() {
    for more in [
        json!({"manifests": []}),
        json!({"mediaType": oci::INDEX}),
        json!({"schemaVersion": 1}),
    ] {
        let cache = Cache::new();
        let entry = cache.manifest(BUNDLE, &bundle(), &more);
        cache.index(std::slice::from_ref(&entry));
        let answer = cache.judge(&keys(), &[recorded("manifest")]);
        assert_eq!(
            (answer.facts.len(), codes(&answer)),
            (0, vec!["evidence-malformed"]),
            "{more}"
        );
        let other = Cache::new();
        let report = import(&other.dir, &[cache.dir.path().to_owned()]).unwrap();
        assert_eq!((report.imported.len(), report.skipped.len()), (0, 1), "{more}");
    }
}

#[test]
fn sizes_that_lie_are_refused() {
    let cache = Cache::new();
    let mut entry = cache.manifest(BUNDLE, &bundle(), &json!({}));
    let size = entry["size"].as_u64().unwrap();
    for (lie, code) in [
        (size - 1, "evidence-corrupt"),
        (size + 1, "evidence-corrupt"),
        (oci::MAX_DOCUMENT + 1, "evidence-too-large"),
    ] {
        entry["size"] = lie.into();
        cache.index(std::slice::from_ref(&entry));
        let answer = cache.judge(&keys(), &[recorded("manifest")]);
        assert_eq!((answer.facts.len(), codes(&answer)), (0, vec![code]), "{lie}");
    }
    // What lies hides nothing and uses nothing up.
    let honest = cache.manifest(BUNDLE, &bundle(), &json!({}));
    entry["size"] = u64::MAX.into();
    cache.index(&[entry, honest]);
    let answer = cache.judge(&keys(), &[recorded("manifest")]);
    assert_eq!((answer.facts.len(), codes(&answer)), (1, vec!["evidence-too-large"]));
    let digest = Digest::of(&bundle());
    for (lie, code) in [
        (1, "evidence-corrupt"),
        (bundle::MAX_BUNDLE + 1, "evidence-too-large"),
        (u64::MAX, "evidence-too-large"),
    ] {
        let layers = json!({"layers": [{"mediaType": BUNDLE, "digest": digest, "size": lie}]});
        let entry = cache.manifest(BUNDLE, &bundle(), &layers);
        cache.index(&[entry]);
        let answer = cache.judge(&keys(), &[recorded("manifest")]);
        assert_eq!((answer.facts.len(), codes(&answer)), (0, vec![code]), "{lie}");
    }
}

#[test]
fn signatures_of_the_notary_project_count_under_the_store_that_holds_their_root() {
    let fixture = |name: &str| {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/notation"));
        std::fs::read(folder.join(name)).unwrap()
    };
    let text = |name: &str| String::from_utf8(fixture(name)).unwrap().trim().to_owned();
    let image: Digest = text("manifest.digest").parse().unwrap();
    let size: u64 = text("manifest.size").parse().unwrap();
    let store = |id: &str, root: &str| {
        let (_, der) = spki::der::pem::decode_vec(&fixture(root)).unwrap();
        TrustStore {
            id: id.to_owned(),
            ca: vec![Der(der)],
            ..TrustStore::default()
        }
    };
    let subject = json!({"subject": {"mediaType": oci::MANIFEST, "digest": image, "size": size}});
    for (name, media_type) in [("p256.jws", notation::JWS), ("rsa3072.cose", notation::COSE)] {
        let cache = Cache::new();
        cache.index(&[cache.manifest(media_type, &fixture(name), &subject)]);
        let ask = |stores: Vec<TrustStore>, about: Digest| {
            let question = Question {
                notation: stores,
                now: text("recorded.time").parse().unwrap(),
                ..question(&[], &[about])
            };
            judge(cache.dir.as_fd(), &question)
        };
        let answer = ask(vec![store("other", "alone.pem"), store("acme", "ca.pem")], image);
        assert_eq!(codes(&answer), ["notation-root-untrusted"], "{name}");
        let [fact] = answer.facts.as_slice() else {
            panic!("{name}: {answer:?}");
        };
        assert_eq!((fact.subject, fact.carrier), (image, Carrier::Notation));
        assert_eq!(fact.claim, Claim::ImageSignature);
        let Signer::Notation(signer) = &fact.proof.signer else {
            panic!("{name}: {fact:?}");
        };
        assert_eq!(signer.store, "acme");
        assert!(
            signer.subject.ends_with("O=Acme\\, Inc,ST=Berlin,C=DE"),
            "{}",
            signer.subject
        );
        assert!(!fact.proof.span.is_always() && !signer.revocation_unknown.is_empty());
        assert_eq!(
            codes(&ask(vec![store("other", "alone.pem")], image)),
            ["notation-root-untrusted"]
        );
        assert!(
            ask(vec![store("acme", "ca.pem")], Digest::of(b"another image"))
                .facts
                .is_empty()
        );
    }
}

#[test]
fn indexes_are_followed_one_level() {
    let cache = Cache::new();
    let entry = cache.manifest(BUNDLE, &bundle(), &json!({}));
    let absent = json!({"mediaType": oci::MANIFEST, "digest": Digest::of(b"not here"), "size": 5});
    let referrers = cache.document(oci::INDEX, &json!({"schemaVersion": 2, "manifests": [absent, entry]}));
    cache.index(std::slice::from_ref(&referrers));
    let answer = cache.judge(&keys(), &[recorded("manifest")]);
    assert_eq!((answer.facts.len(), answer.findings), (1, vec![]));
    let deeper = cache.document(oci::INDEX, &json!({"schemaVersion": 2, "manifests": [referrers]}));
    cache.index(&[deeper]);
    assert_eq!(cache.judge(&keys(), &[recorded("manifest")]), Answer::default());
}

#[test]
fn the_same_signature_counts_once() {
    let cache = Cache::new();
    let entries: Vec<Value> = (0..3)
        .map(|n| cache.manifest(BUNDLE, &bundle(), &json!({"annotations": {"n": n.to_string()}})))
        .collect();
    cache.index(&[entries.clone(), entries].concat());
    assert_eq!(cache.judge(&keys(), &[recorded("manifest")]).facts.len(), 1);
    // Nor does it count more often when the copies differ in what is not signed.
    let mut copies = Vec::new();
    for n in 0..3 {
        let bytes = [&bundle()[..], &b" ".repeat(n)].concat();
        copies.push(cache.manifest(BUNDLE, &bytes, &json!({})));
    }
    cache.index(&copies);
    assert_eq!(cache.judge(&keys(), &[recorded("manifest")]).facts.len(), 1);
}

#[test]
fn entries_about_other_images_are_not_opened() {
    let cache = Cache::new();
    let mut entries: Vec<Value> = (0..5000u32)
        .map(|n| {
            let other = Digest::of(&n.to_le_bytes());
            json!({"mediaType": oci::MANIFEST, "digest": other, "size": 9, "annotations": {SUBJECTS: other}})
        })
        .collect();
    let mut entry = cache.manifest(BUNDLE, &bundle(), &json!({}));
    entry["annotations"] = json!({SUBJECTS: format!("{},{}", recorded("index"), recorded("manifest"))});
    entries.push(entry);
    cache.index(&entries);
    // None of the 5000 exists, so opening one would be a finding.
    let answer = cache.judge(&keys(), &[recorded("manifest")]);
    assert_eq!((answer.facts.len(), answer.findings), (1, vec![]));
}

#[test]
fn a_good_signature_is_found_among_thousands_of_bad_ones() {
    let cache = Cache::new();
    let good = bundle();
    let mut forged: Value = serde_json::from_slice(&good).unwrap();
    let subject = json!({"subject": {"mediaType": oci::MANIFEST, "digest": recorded("manifest"), "size": 395}});
    let mut entries = Vec::new();
    for n in 0..1100 {
        forged["verificationMaterial"]["publicKey"]["hint"] = format!("stranger {n}").into();
        forged["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA".into();
        entries.push(cache.manifest(BUNDLE, forged.to_string().as_bytes(), &subject));
    }
    entries.push(cache.manifest(BUNDLE, &good, &subject));
    cache.index(&entries[entries.len() - 1001..]);
    let answer = cache.judge(&[key("p256")], &[recorded("manifest")]);
    assert_eq!(answer.facts.len(), 1);
    assert_eq!(answer.findings.len(), MAX_FINDINGS + 1);
    assert_eq!(
        answer.findings[MAX_FINDINGS].text,
        format!("{} more findings are not listed", 1000 - MAX_FINDINGS)
    );
    // Beyond the budget the question ends and says so.
    cache.index(&entries);
    let answer = cache.judge(&[key("p256")], &[recorded("manifest")]);
    assert_eq!((answer.facts.len(), codes(&answer).pop()), (1, Some("work-limit")));
    // What the cache's own annotations point at is looked at first, whatever else was put there.
    let mut last = entries.pop().unwrap();
    last["annotations"] = json!({SUBJECTS: recorded("manifest")});
    entries.push(last);
    cache.index(&entries);
    assert_eq!(cache.judge(&[key("p256")], &[recorded("manifest")]).facts.len(), 1);
}

/// A simple-signing manifest with recorded payload and signature in the last layer, behind `bogus` forged ones.
fn simple_signatures(cache: &Cache, bogus: usize, genuine: bool) -> Value {
    let legacy = Cache::filled(&["cosign-save-legacy"]);
    let mut facts = legacy.judge(&[key("p256")], &[recorded("manifest")]).facts;
    facts.retain(|fact| fact.carrier == Carrier::SimpleSigning);
    let fact = facts.remove(0);
    let manifest: Value = serde_json::from_slice(&std::fs::read(legacy.blob(fact.evidence)).unwrap()).unwrap();
    let layer = manifest["layers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|layer| {
            let one = Cache::new();
            let mut only = manifest.clone();
            only["layers"] = json!([layer]);
            one.put(&std::fs::read(legacy.blob(layer["digest"].as_str().unwrap().parse().unwrap())).unwrap());
            let entry = one.document(oci::MANIFEST, &only);
            one.index(&[entry]);
            one.judge(&[key("p256")], &[recorded("manifest")]).facts.len() == 1
        })
        .unwrap()
        .clone();
    let payload = std::fs::read(legacy.blob(layer["digest"].as_str().unwrap().parse().unwrap())).unwrap();
    let mut layers: Vec<Value> = (0..bogus)
        .map(|n| {
            let mut forged = layer.clone();
            let signature = hex::encode(Digest::of(format!("{bogus} {n}").as_bytes()).hex());
            forged["annotations"] = json!({"dev.cosignproject.cosign/signature": signature});
            forged
        })
        .collect();
    if genuine {
        layers.push(layer);
    }
    let layer_type = legacy::SIMPLE_SIGNING;
    cache.manifest(layer_type, &payload, &json!({"layers": layers}))
}

#[test]
fn forged_signatures_without_a_key_starve_no_other() {
    let cache = Cache::new();
    let subject = [recorded("manifest")];
    let annotated = |mut entry: Value| {
        entry["annotations"] = json!({SUBJECTS: recorded("manifest")});
        entry
    };
    let hostile = annotated(simple_signatures(&cache, 1024, false));
    cache.index(std::slice::from_ref(&hostile));
    let answer = cache.judge(&[key("p256")], &subject);
    assert_eq!((answer.facts.len(), codes(&answer)[0]), (0, "key-unknown"));
    // One that names its key is not touched by any number of them.
    let bundle = annotated(cache.manifest(BUNDLE, &bundle(), &json!({})));
    cache.index(&[hostile.clone(), bundle]);
    let answer = cache.judge(&keys(), &subject);
    assert_eq!(facts(&answer), [("p256".to_owned(), "image".to_owned())]);
    assert_eq!(codes(&answer).pop(), Some("work-limit"));
    // Nor is one that names none, when it is in a manifest of its own.
    let simple = annotated(simple_signatures(&cache, 3, true));
    cache.index(&[hostile, simple]);
    let answer = cache.judge(&[key("p256")], &subject);
    assert_eq!(facts(&answer), [("p256".to_owned(), "image".to_owned())]);
    assert_eq!(answer.facts[0].carrier, Carrier::SimpleSigning);
}

#[test]
fn forged_signatures_that_name_a_trusted_key_starve_no_other() {
    let cache = Cache::new();
    let good = bundle();
    let mut forged: Value = serde_json::from_slice(&good).unwrap();
    let mut entries = Vec::new();
    for n in 0..300u32 {
        let signature = hex::encode(n.to_be_bytes());
        forged["dsseEnvelope"]["signatures"][0]["sig"] = signature.into();
        entries.push(cache.manifest(BUNDLE, forged.to_string().as_bytes(), &json!({})));
    }
    entries.push(cache.manifest(BUNDLE, &good, &json!({})));
    cache.index(&entries);
    let answer = cache.judge(&keys(), &[recorded("manifest")]);
    assert_eq!((answer.facts.len(), codes(&answer).pop()), (1, Some("work-limit")));
}

#[test]
fn what_a_manifest_says_does_not_fill_the_index() {
    let source = Cache::new();
    let mut entries = Vec::new();
    for length in [255, 256, 3 << 20] {
        entries.push(source.manifest(BUNDLE, &bundle(), &json!({"artifactType": "x".repeat(length)})));
    }
    source.index(&entries);
    let cache = Cache::new();
    let report = import(&cache.dir, &[source.dir.path().to_owned()]).unwrap();
    assert_eq!(report.imported.len(), 3);
    let kept: Vec<_> = Layout::new(cache.dir.as_fd())
        .index()
        .unwrap()
        .into_iter()
        .filter_map(|entry| entry.artifact_type)
        .collect();
    assert_eq!(kept, ["x".repeat(255)]);
    let report = import(&cache.dir, &[source.dir.path().to_owned()]).unwrap();
    assert_eq!((report.imported.len(), report.present.len()), (0, 3));
}

#[test]
fn a_tar_with_endless_headers_is_refused() {
    let cache = Cache::new();
    for kind in [
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
        tar::EntryType::XHeader,
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(6 << 30);
        header.set_cksum();
        let mut archive = tar::Builder::new(file.as_file());
        archive.append(&header, &b""[..]).unwrap();
        drop(archive);
        file.as_file().set_len((6 << 30) + 4096).unwrap();
        let error = import(&cache.dir, &[file.path().to_owned()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} is not a readable tar: the headers of one file in it have more than 65536 bytes",
                file.path().display()
            )
        );
        assert_eq!(cache.files(), []);
    }
}

#[test]
fn a_tar_with_long_names_of_other_files_is_read() {
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("x".repeat(200)), "x").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut archive = tar::Builder::new(file.as_file());
    archive.append_dir_all("", source.path()).unwrap();
    archive.append_dir_all("", fixtures().join("oras")).unwrap();
    archive.finish().unwrap();
    drop(archive);
    let cache = Cache::new();
    assert_eq!(import(&cache.dir, &[file.path().to_owned()]).unwrap().imported.len(), 7);
}

/// An entry about an image of which nothing else is there.
fn unrelated(number: u32) -> Value {
    let digest = |what: &str| Digest::of(format!("{what} {number}").as_bytes());
    json!({
        "mediaType": oci::MANIFEST,
        "digest": digest("evidence"),
        "size": 900,
        "annotations": {SUBJECTS: digest("image")},
        "artifactType": BUNDLE,
    })
}

fn whole_index(cache: &Cache) -> Vec<Descriptor> {
    Layout::new(cache.dir.as_fd()).index().unwrap()
}

#[test]
fn the_short_cut_leads_to_what_the_whole_index_does() {
    let cache = Cache::filled(&["oras", "cosign-save"]);
    let subjects = ["manifest", "index", "other-manifest"].map(recorded);
    let ask = || subjects.map(|subject| cache.judge(&keys(), &[subject]));
    let short = ask();
    assert!(!rests_on(cache.dir.as_fd(), &subjects).contains(&"index.json".to_owned()));
    std::fs::remove_dir_all(cache.dir.path().join("subjects")).unwrap();
    assert_eq!(rests_on(cache.dir.as_fd(), &subjects), ["index.json"]);
    assert_eq!(ask(), short);
    // The next import makes it anew.
    cache.import(&["oras"]);
    assert!(!rests_on(cache.dir.as_fd(), &subjects).contains(&"index.json".to_owned()));
    assert_eq!(ask(), short);
}

#[test]
fn what_another_tool_puts_into_the_layout_is_seen_at_once() {
    let cache = Cache::filled(&["oras"]);
    let subject = recorded("other-manifest");
    let mut entries = whole_index(&cache);
    let bundle = bundle();
    let added = |cache: &Cache| {
        let attached = json!({"subject": {"mediaType": oci::MANIFEST, "digest": subject, "size": 395}});
        serde_json::from_value(cache.manifest(BUNDLE, &bundle, &attached)).unwrap()
    };
    assert_eq!(cache.judge(&keys(), &[subject]), Answer::default());
    entries.push(added(&cache));
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| serde_json::to_value(entry).unwrap())
        .collect();
    cache.index(&entries);
    assert_eq!(codes(&cache.judge(&keys(), &[subject])), ["subject-mismatch"]);
    // What is in the short cut and not in the index is not believed either.
    cache.import(&["oras"]);
    cache.index(&entries[entries.len() - 1..]);
    assert_eq!(cache.judge(&keys(), &[subject]).findings.len(), 1);
    cache.index(&[]);
    assert_eq!(codes(&cache.judge(&keys(), &[subject])), ["evidence-cache-empty"]);
}

#[test]
fn a_damaged_short_cut_costs_nothing_but_time() {
    let cache = Cache::filled(&["oras"]);
    let whole = cache.judge(&keys(), &[recorded("manifest")]);
    let list = cache
        .dir
        .path()
        .join(&rests_on(cache.dir.as_fd(), &[recorded("manifest")])[0]);
    for bytes in [&b""[..], b"{", b"{\"manifests\":[],\"manifests\":[]}"] {
        std::fs::write(&list, bytes).unwrap();
        assert_eq!(cache.judge(&keys(), &[recorded("manifest")]), whole);
    }
    std::fs::remove_file(&list).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &list).unwrap();
    assert_eq!(cache.judge(&keys(), &[recorded("manifest")]), whole);
}

#[test]
fn evidence_about_other_images_changes_no_list_of_this_one() {
    use crate::store::Stamp;
    let cache = Cache::filled(&["oras"]);
    let subject = [recorded("manifest")];
    let state = || {
        let names = rests_on(cache.dir.as_fd(), &subject);
        names
            .into_iter()
            .map(|name| (Stamp::of(cache.dir.as_fd(), &name), name))
            .collect::<Vec<_>>()
    };
    let before = state();
    assert!(before[0].0.is_some());
    let source = Cache::new();
    let other = Digest::of(b"another image");
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":""}},"image":{{"docker-manifest-digest":"{other}"}},"type":"cosign container image signature"}}}}"#
    );
    let entry = source.manifest(legacy::SIMPLE_SIGNING, payload.as_bytes(), &json!({}));
    source.index(&[entry]);
    assert_eq!(
        import(&cache.dir, &[source.dir.path().to_owned()])
            .unwrap()
            .imported
            .len(),
        1
    );
    assert_eq!(state(), before);
    cache.import(&["cosign-save"]);
    assert_ne!(state(), before);
}

#[test]
fn ten_thousand_other_images_do_not_slow_a_question() {
    let fastest = |cache: &Cache| {
        let ask = || {
            let started = std::time::Instant::now();
            assert_eq!(cache.judge(&keys(), &[recorded("manifest")]).facts.len(), 6);
            started.elapsed()
        };
        (0..20).map(|_| ask()).min().unwrap()
    };
    let small = Cache::filled(&["oras"]);
    let large = Cache::new();
    large.index(&(0..10_000).map(unrelated).collect::<Vec<_>>());
    large.import(&["oras"]);
    assert!(whole_index(&large).len() > 10_000);
    let (alone, among) = (fastest(&small), fastest(&large));
    std::fs::remove_dir_all(large.dir.path().join("subjects")).unwrap();
    let whole = fastest(&large);
    println!("alone {alone:?}, among 10,000 {among:?}, whole index {whole:?}");
    // On a busy machine even the fastest of many differ; reading the whole index takes fifty times as long.
    assert!(
        among < alone * 4 && among * 4 < whole,
        "alone {alone:?}, among 10,000 {among:?}, whole index {whole:?}"
    );
}
