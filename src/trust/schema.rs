//! What may be written in `trust.d`, and how it becomes [`Trust`].

mod builder;
mod notation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use toml::Spanned;

use super::root::{self, Builtin, MAX_ROOTS, Root, RootSource};
use super::{HashAlgorithm, Key, SourceFile, Status, Trust, Use, diags, public_key, update};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{self, Diagnostic, Place, Severity, Source};
use crate::digest::Digest;

const TOP_KEYS: &[&str] = &["key", "root", "builder", "notation"];
const KEY_KEYS: &[&str] = &["id", "file", "hash", "use", "from", "until", "status", "digests"];
const ROOT_KEYS: &[&str] = &["id", "builtin", "file", "max_age"];

pub(super) const HASHES: &[(&str, HashAlgorithm)] = &[
    ("sha256", HashAlgorithm::Sha256),
    ("sha384", HashAlgorithm::Sha384),
    ("sha512", HashAlgorithm::Sha512),
];

pub(super) const USES: &[(&str, Use)] = &[
    ("image", Use::Image),
    ("provenance", Use::Provenance),
    ("sbom", Use::Sbom),
    ("vex", Use::Vex),
    ("policy", Use::Policy),
    ("grant", Use::Grant),
    ("profile", Use::Profile),
];

pub(super) const STATES: &[(&str, Status)] = &[
    ("active", Status::Active),
    ("retired", Status::Retired),
    ("distrusted", Status::Distrusted),
];

const BUILTINS: &[(&str, Builtin)] = &[("sigstore", Builtin::Sigstore), ("github", Builtin::Github)];

/// Longest identifier of a key or root.
const MAX_ID: usize = 64;

/// A key with the places that later checks point at.
struct Entry {
    key: Key,
    id_at: Place,
    file_at: Place,
}

/// What the files hold so far.
#[derive(Default)]
struct Found {
    keys: Vec<Entry>,
    roots: Vec<(Root, Place)>,
    builders: Vec<builder::Entry>,
    notation: Vec<notation::Entry>,
    files: Vec<SourceFile>,
    faults: Vec<Diagnostic>,
}

/// Reads folders (their `*.toml` in the order of their names) or files of trust. A folder that does not exist holds no
/// keys.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(places: &[PathBuf]) -> Result<Trust, Vec<Diagnostic>> {
    if let Some(place) = places.first()
        && places.iter().all(|place| diagnostic::is_missing(place))
    {
        return Ok(Trust {
            warnings: vec![diags::missing(place)],
            ..Trust::default()
        });
    }
    let mut found = Found::default();
    for source in diagnostic::sources(&diagnostic::present(places), &mut found.faults) {
        found.files.push(SourceFile::new(&source.path, source.text.as_bytes()));
        parse(&source, &mut found);
    }
    let Found {
        keys,
        roots,
        builders,
        notation,
        files,
        mut faults,
    } = found;
    check_duplicates(&keys, &mut faults);
    check_roots(&roots, &mut faults);
    let keys: Vec<Key> = keys.into_iter().map(|entry| entry.key).collect();
    let roots: Vec<Root> = roots.into_iter().map(|(root, _)| root).collect();
    builder::check(&builders, &keys, &roots, &mut faults);
    notation::check(&notation, &mut faults);
    if faults.iter().any(|fault| fault.severity == Severity::Error) {
        return Err(faults);
    }
    Ok(Trust {
        keys,
        roots,
        builders: builders.into_iter().map(|entry| entry.builder).collect(),
        notation: notation.into_iter().map(|entry| entry.store).collect(),
        files,
        warnings: faults,
    })
}

fn parse(source: &Arc<Source>, found: &mut Found) {
    let (mut reader, mut top) = match Reader::new(source, "a file of trust") {
        Ok(read) => read,
        Err(syntax) => {
            found.faults.extend(syntax);
            return;
        }
    };
    for mut table in reader.tables(&mut top, "key", "[[key]]") {
        let key = parse_key(&mut reader, &mut table, source, &mut found.files);
        found.keys.extend(key);
        reader.finish(&table, KEY_KEYS, &[]);
    }
    for mut table in reader.tables(&mut top, "root", "[[root]]") {
        let root = parse_root(&mut reader, &mut table, source, &mut found.files);
        found.roots.extend(root);
        reader.finish(&table, ROOT_KEYS, &[]);
    }
    for mut table in reader.tables(&mut top, "builder", "[[builder]]") {
        found.builders.extend(builder::parse(&mut reader, &mut table));
        reader.finish(&table, builder::KEYS, &[]);
    }
    for mut table in reader.tables(&mut top, "notation", "[[notation]]") {
        let store = notation::parse(&mut reader, &mut table, source, &mut found.files);
        found.notation.extend(store);
        reader.finish(&table, notation::KEYS, &[]);
    }
    reader.finish(&top, TOP_KEYS, &[]);
    found.faults.extend(reader.into_faults());
}

fn parse_root(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    source: &Arc<Source>,
    files: &mut Vec<SourceFile>,
) -> Option<(Root, Place)> {
    let id = reader.required_text(table, "id");
    let id = id.filter(|id| {
        let valid = is_valid_id(id.get_ref());
        if !valid {
            diags::invalid_id(reader, id, "root");
        }
        valid
    });
    let sources = usize::from(table.has("builtin")) + usize::from(table.has("file"));
    if sources != 1 {
        diags::root_source(reader, table, sources);
    }
    let builtin = reader.choice(table, "builtin", BUILTINS);
    let file = reader.text(table, "file");
    let max_age = reader.age(table, "max_age");
    let (name, place) = (id.as_ref()?.get_ref(), reader.at(id.as_ref()?.span()));
    let root = match (builtin, file, sources) {
        (Some(which), None, 1) => Root::builtin(name, which),
        (None, Some(file), 1) => read_root(reader, name, &file, source, files)?,
        _ => return None,
    };
    let as_of = update::as_of(&root);
    Some((root.aging(max_age, as_of), place))
}

/// Reads a trusted root and looks at whether it can be used.
fn read_root(
    reader: &mut Reader<'_>,
    id: &str,
    file: &Spanned<String>,
    source: &Arc<Source>,
    files: &mut Vec<SourceFile>,
) -> Option<Root> {
    let place = reader.at(file.span());
    let (path, bytes) = read_beside(reader, file, source, root::MAX_BYTES, files)?;
    let usable = match root::parse(&bytes) {
        Ok(usable) => usable,
        Err(error) => {
            reader.push(diags::root(&error, file.get_ref(), place));
            return None;
        }
    };
    for left_out in &usable.left_out {
        reader.push(diags::root_entry(left_out, file.get_ref(), place.clone()));
    }
    // What is JSON is UTF-8.
    let json = String::from_utf8(bytes).ok()?;
    Some(Root::new(id, RootSource::File(path), json))
}

fn parse_key(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    source: &Arc<Source>,
    files: &mut Vec<SourceFile>,
) -> Option<Entry> {
    let id = reader.required_text(table, "id");
    let file = reader.required_text(table, "file");
    let hash = reader.choice(table, "hash", HASHES).unwrap_or(HashAlgorithm::Sha256);
    reader.require(table, "use");
    let uses = reader.choices(table, "use", USES);
    let status = reader.choice(table, "status", STATES).unwrap_or(Status::Active);
    let from = parse_time(reader, table, "from").map(|(_, time)| time);
    let until = parse_time(reader, table, "until");
    let digests = parse_digests(reader, table, status);
    if let (Some(from), Some((text, until))) = (from, &until)
        && *until <= from
    {
        diags::empty_window(reader, text);
    }
    let id = id.filter(|id| {
        let valid = is_valid_id(id.get_ref());
        if !valid {
            diags::invalid_id(reader, id, "key");
        }
        valid
    });
    let spki = file
        .as_ref()
        .and_then(|file| read_key(reader, file, hash, source, files));
    let (id, file, spki) = (id?, file?, spki?);
    Some(Entry {
        id_at: reader.at(id.span()),
        file_at: reader.at(file.span()),
        key: Key {
            id: id.into_inner(),
            spki,
            hash,
            r#use: uses,
            from,
            until: until.map(|(_, time)| time),
            status,
            digests,
        },
    })
}

/// Digests for which a retired key still counts.
fn parse_digests(reader: &mut Reader<'_>, table: &mut Table<'_>, status: Status) -> Vec<Digest> {
    let texts = reader.texts(table, "digests");
    if let (Some(first), Status::Active | Status::Distrusted) = (texts.first(), status) {
        diags::digests_without_retirement(reader, first);
    }
    texts
        .iter()
        .filter_map(|text| {
            let digest = text.get_ref().parse().ok();
            if digest.is_none() {
                diags::invalid_digest(reader, text);
            }
            digest
        })
        .collect()
}

pub(super) fn is_valid_id(id: &str) -> bool {
    id.len() <= MAX_ID && id.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

fn parse_time(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Option<(Spanned<String>, Timestamp)> {
    let text = reader.text(table, key)?;
    match text.get_ref().parse::<Timestamp>() {
        Ok(time) => Some((text, time)),
        Err(_) => {
            diags::invalid_time(reader, key, &text);
            None
        }
    }
}

fn read_key(
    reader: &mut Reader<'_>,
    file: &Spanned<String>,
    hash: HashAlgorithm,
    source: &Arc<Source>,
    files: &mut Vec<SourceFile>,
) -> Option<Vec<u8>> {
    let place = reader.at(file.span());
    let (_, bytes) = read_beside(reader, file, source, public_key::MAX_BYTES, files)?;
    match public_key::from_pem(&bytes, hash) {
        Ok(spki) => Some(spki),
        Err(fault) => {
            reader.push(diags::key(&fault, file.get_ref(), place));
            None
        }
    }
}

/// Reads a file that lies beside the one that names it; answers its path and its bytes.
fn read_beside(
    reader: &mut Reader<'_>,
    file: &Spanned<String>,
    source: &Arc<Source>,
    limit: u64,
    files: &mut Vec<SourceFile>,
) -> Option<(String, Vec<u8>)> {
    let name = file.get_ref();
    // A name that starts with a dot is the folder itself, the one above, or hidden.
    if name.starts_with('.') || name.contains(['/', '\0']) {
        diags::file_name(reader, file);
        return None;
    }
    let place = reader.at(file.span());
    let path = source.path.parent().unwrap_or(Path::new("/")).join(name);
    match diagnostic::read_file(&path, limit) {
        Ok(bytes) => {
            let read = SourceFile::new(&path, &bytes);
            let path = read.path.clone();
            files.push(read);
            Some((path, bytes))
        }
        Err(fault) => {
            reader.push(diags::file(fault, place));
            None
        }
    }
}

fn check_roots(roots: &[(Root, Place)], faults: &mut Vec<Diagnostic>) {
    for (i, (root, place)) in roots.iter().enumerate() {
        let mut before = roots.iter().take(i);
        if let Some((_, first)) = before.find(|(first, _)| first.id == root.id) {
            faults.push(diags::duplicate_root(&root.id, place.clone(), first));
        }
    }
    if let Some((_, place)) = roots.get(MAX_ROOTS) {
        faults.push(diags::too_many_roots(place.clone()));
    }
}

fn check_duplicates(entries: &[Entry], faults: &mut Vec<Diagnostic>) {
    for (i, entry) in entries.iter().enumerate() {
        let before = entries.get(..i).unwrap_or_default();
        if let Some(first) = before.iter().find(|first| first.key.id == entry.key.id) {
            faults.push(diags::duplicate_id(&entry.key.id, entry.id_at.clone(), &first.id_at));
        } else if let Some(first) = before.iter().find(|first| first.key.spki == entry.key.spki) {
            faults.push(diags::duplicate_key(
                &entry.key.id,
                &first.key.id,
                entry.file_at.clone(),
                &first.file_at,
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder of trust with these files and the test keys.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("p256.pem", include_str!("testdata/p256.pem")),
            ("ed25519.pem", include_str!("testdata/ed25519.pem")),
            ("rsa1024.pem", include_str!("testdata/rsa1024.pem")),
            ("ed448.pem", include_str!("testdata/ed448.pem")),
            ("pkcs1.pem", include_str!("testdata/rsa-pkcs1.pem")),
            (
                "cut.pem",
                "-----BEGIN PUBLIC KEY-----\nMFkA\n-----END PUBLIC KEY-----\n",
            ),
            (
                "cert.pem",
                "-----BEGIN CERTIFICATE-----\nMFkA\n-----END CERTIFICATE-----\n",
            ),
            ("private.pem", "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n"),
            ("empty.pem", ""),
        ]
        .iter()
        .chain(files)
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn faults(text: &str) -> String {
        let folder = folder(&[("keys.toml", text)]);
        let faults = load(&[folder.path().to_owned()]).unwrap_err();
        let shown: Vec<_> = faults.iter().map(ToString::to_string).collect();
        shown
            .join("\n")
            .replace(&folder.path().display().to_string(), "/etc/assay/trust.d")
    }

    #[test]
    fn a_root_may_say_how_old_it_may_become() {
        let folder = folder(&[(
            "roots.toml",
            "[[root]]\nid = 'aging'\nbuiltin = 'sigstore'\nmax_age = '30d'\n[[root]]\nid = 'ageless'\nbuiltin = 'github'",
        )]);
        let trust = load(&[folder.path().to_owned()]).unwrap();
        let aging = &trust.roots[0];
        assert_eq!(
            (aging.max_age, aging.as_of),
            (Some(30 * 24 * 3600), update::as_of(aging))
        );
        assert!(aging.as_of.is_some() && aging.until() > aging.as_of);
        let ageless = &trust.roots[1];
        assert_eq!((ageless.max_age, ageless.as_of, ageless.until()), (None, None, None));
        insta::assert_snapshot!(faults("[[root]]\nid = 'a'\nbuiltin = 'sigstore'\nmax_age = '2 months'"), @r#"
        error[invalid-time]: `2 months` is no `max_age`
         --> /etc/assay/trust.d/keys.toml:4:11
          |
        4 | max_age = '2 months'
          |           ^^^^^^^^^^
         help: weeks, days, hours, minutes or seconds: "90d", "12h", "1w 2d"
        "#);
    }

    #[test]
    fn keys_are_read_with_their_defaults() {
        let folder = folder(&[
            (
                "b.toml",
                "[[key]]\nid = 'second'\nfile = 'ed25519.pem'\nuse = ['sbom', 'vex']\nstatus = 'retired'\n\
                        hash = 'sha512'\nfrom = '2026-01-01T00:00:00Z'\nuntil = '2027-01-01T01:00:00+01:00'",
            ),
            ("a.toml", "[[key]]\nid = 'first'\nfile = 'p256.pem'\nuse = ['image']"),
            ("c.toml.off", "nonsense"),
        ]);
        let trust = load(&[folder.path().to_owned()]).unwrap();
        let [first, second] = trust.keys.as_slice() else {
            panic!("{trust:?}")
        };
        assert_eq!(
            (first.id.as_str(), first.hash, first.status, first.from, first.until),
            ("first", HashAlgorithm::Sha256, Status::Active, None, None)
        );
        assert_eq!(first.r#use, [Use::Image]);
        assert_eq!(
            (second.id.as_str(), second.hash, second.status),
            ("second", HashAlgorithm::Sha512, Status::Retired)
        );
        assert_eq!(second.r#use, [Use::Sbom, Use::Vex]);
        assert_eq!(second.from, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!(second.until, Some("2027-01-01T00:00:00Z".parse().unwrap()));
        let names: Vec<_> = trust
            .files
            .iter()
            .filter_map(|file| file.path.rsplit('/').next())
            .collect();
        assert_eq!(names, ["a.toml", "p256.pem", "b.toml", "ed25519.pem"]);
    }

    #[test]
    fn no_folder_holds_no_keys_but_a_broken_one_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let none = load(&[folder.path().join("none")]).unwrap();
        assert!(none.keys.is_empty() && none.roots.is_empty());
        assert_eq!(none.warnings.len(), 1);
        assert_eq!(load(&[folder.path().to_owned()]), Ok(Trust::default()));
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        assert!(load(&[folder.path().join("link")]).is_err());
    }

    #[test]
    fn keys_that_are_incomplete_or_wrong() {
        insta::assert_snapshot!(faults("[[key]]\n"), @"
        error[missing-key]: [[key]] has no `id`
         --> /etc/assay/trust.d/keys.toml:1:1
          |
        1 | [[key]]
          | ^^^^^^^ `id` is missing
        error[missing-key]: [[key]] has no `file`
         --> /etc/assay/trust.d/keys.toml:1:1
          |
        1 | [[key]]
          | ^^^^^^^ `file` is missing
        error[missing-key]: [[key]] has no `use`
         --> /etc/assay/trust.d/keys.toml:1:1
          |
        1 | [[key]]
          | ^^^^^^^ `use` is missing
        ");
        insta::assert_snapshot!(
            faults("[[key]]\nid = 'a b'\nfile = 'p256.pem'\nuse = ['images']\nhash = 'md5'\nstatus = 'off'\nusage = 1"),
            @"
        error[invalid-name]: `a b` cannot be the `id` of a key
         --> /etc/assay/trust.d/keys.toml:2:6
          |
        2 | id = 'a b'
          |      ^^^^^
         help: up to 64 of the characters a-z A-Z 0-9 . _ -
        error[invalid-value]: `images` is no value of `use`
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | use = ['images']
          |        ^^^^^^^^
         help: one of: image, provenance, sbom, vex, policy, grant, profile
        error[invalid-value]: `md5` is no value of `hash`
         --> /etc/assay/trust.d/keys.toml:5:8
          |
        5 | hash = 'md5'
          |        ^^^^^
         help: one of: sha256, sha384, sha512
        error[invalid-value]: `off` is no value of `status`
         --> /etc/assay/trust.d/keys.toml:6:10
          |
        6 | status = 'off'
          |          ^^^^^
         help: one of: active, retired, distrusted
        error[unknown-key]: [[key]] has no key `usage`
         --> /etc/assay/trust.d/keys.toml:7:1
          |
        7 | usage = 1
          | ^^^^^ not a key of it
         help: its keys are `id`, `file`, `hash`, `use`, `from`, `until`, `status` and `digests`
        "
        );
        insta::assert_snapshot!(
            faults("[[key]]\nid = 'a'\nfile = 'p256.pem'\nuse = ['image']\nfrom = '2026-01-01'\nuntil = 2027-01-01T00:00:00Z"),
            @r#"
        error[invalid-time]: `2026-01-01` is no time for `from`
         --> /etc/assay/trust.d/keys.toml:5:8
          |
        5 | from = '2026-01-01'
          |        ^^^^^^^^^^^^
         help: RFC 3339 with a time zone, "2027-01-01T00:00:00Z" for example
        error[wrong-type]: `until` must be a string, not a time without quotes
         --> /etc/assay/trust.d/keys.toml:6:9
          |
        6 | until = 2027-01-01T00:00:00Z
          |         ^^^^^^^^^^^^^^^^^^^^ expected a string
         help: put it in quotes
        "#
        );
        insta::assert_snapshot!(
            faults("[[key]]\nid = 'a'\nfile = 'p256.pem'\nuse = ['image']\nfrom = '2026-01-02T00:00:00Z'\nuntil = '2026-01-02T00:00:00Z'"),
            @"
        error[empty-window]: the key's window ends before it starts
         --> /etc/assay/trust.d/keys.toml:6:9
          |
        6 | until = '2026-01-02T00:00:00Z'
          |         ^^^^^^^^^^^^^^^^^^^^^^ not after `from`
         help: set `until` after `from`
        "
        );
    }

    #[test]
    fn files_that_are_no_keys() {
        let text = |file: &str| faults(&format!("[[key]]\nid = 'a'\nuse = ['image']\nfile = '{file}'"));
        insta::assert_snapshot!(text("../p256.pem"), @"
        error[key-file-name]: `../p256.pem` is not the name of a file beside this one
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = '../p256.pem'
          |        ^^^^^^^^^^^^^
         help: put the file in this folder and write its name, without a path
        ");
        insta::assert_snapshot!(text("none.pem"), @"
        error[unreadable]: /etc/assay/trust.d/none.pem cannot be read: No such file or directory (os error 2)
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'none.pem'
          |        ^^^^^^^^^^
         help: check the path, or run as root
        ");
        insta::assert_snapshot!(text("empty.pem"), @"
        error[key-not-pem]: empty.pem is not a PEM file with one public key: it has no -----BEGIN line
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'empty.pem'
          |        ^^^^^^^^^^^
         help: a file that starts with -----BEGIN PUBLIC KEY-----, as cosign and openssl write it
        ");
        insta::assert_snapshot!(text("private.pem"), @"
        error[key-private]: private.pem holds a private key; put only the public key on a node
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'private.pem'
          |        ^^^^^^^^^^^^^
         help: take the file off this node; the public half: cosign public-key --key …, or openssl pkey -pubout
        ");
        insta::assert_snapshot!(text("rsa1024.pem"), @"
        error[key-size]: rsa1024.pem holds an RSA key of 1024 bits; 2048 to 8192 are accepted
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'rsa1024.pem'
          |        ^^^^^^^^^^^^^
         help: sign with a key of an accepted size
        ");
        insta::assert_snapshot!(text("ed448.pem"), @"
        error[key-algorithm]: ed448.pem holds a key of Ed448, which Assay does not verify
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'ed448.pem'
          |        ^^^^^^^^^^^
         help: P-256, P-384, P-521, Ed25519, RSA and RSASSA-PSS keys are verified
        ");
        insta::assert_snapshot!(text("pkcs1.pem"), @"
        error[key-invalid]: pkcs1.pem holds a `RSA PUBLIC KEY`, not a `PUBLIC KEY`
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'pkcs1.pem'
          |        ^^^^^^^^^^^
         help: convert it: openssl rsa -RSAPublicKey_in -pubout -in pkcs1.pem
        ");
        insta::assert_snapshot!(text("cert.pem"), @"
        error[key-invalid]: cert.pem holds a `CERTIFICATE`, not a `PUBLIC KEY`
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'cert.pem'
          |        ^^^^^^^^^^
         help: openssl x509 -pubkey -noout -in cert.pem prints the key of a certificate
        ");
        insta::assert_snapshot!(text("cut.pem"), @"
        error[key-invalid]: cut.pem does not hold a valid PKIX public key
         --> /etc/assay/trust.d/keys.toml:4:8
          |
        4 | file = 'cut.pem'
          |        ^^^^^^^^^
         help: export it again, and check that it was copied whole
        ");
        for path in ["/etc/passwd", "sub/p256.pem", "..", ".", ".hidden", "p256.pem/"] {
            assert!(text(path).starts_with("error[key-file-name]"), "{path}");
        }
    }

    #[test]
    fn a_key_counts_once() {
        insta::assert_snapshot!(
            faults("[[key]]\nid = 'a'\nfile = 'p256.pem'\nuse = ['image']\n[[key]]\nid = 'a'\nfile = 'ed25519.pem'\nuse = ['image']"),
            @"
        error[key-id-duplicate]: `a` is already the `id` of another key
         --> /etc/assay/trust.d/keys.toml:6:6
          |
        6 | id = 'a'
          |      ^^^ first used at /etc/assay/trust.d/keys.toml:2:6
         help: give each key an id of its own
        "
        );
        insta::assert_snapshot!(
            faults("[[key]]\nid = 'a'\nfile = 'p256.pem'\nuse = ['image']\n[[key]]\nid = 'b'\nfile = 'p256.pem'\nuse = ['sbom']"),
            @"
        error[key-duplicate]: `b` and `a` are the same key, which could count twice
         --> /etc/assay/trust.d/keys.toml:7:8
          |
        7 | file = 'p256.pem'
          |        ^^^^^^^^^^ `a` is at /etc/assay/trust.d/keys.toml:3:8
         help: keep one entry and give it every `use`
        "
        );
    }

    #[test]
    fn what_no_file_of_trust_has() {
        insta::assert_snapshot!(faults("[[keys]]\nid = 'x'"), @"
        error[unknown-key]: a file of trust has no key `keys`
         --> /etc/assay/trust.d/keys.toml:1:3
          |
        1 | [[keys]]
          |   ^^^^ not a key of it
         help: its keys are `key`, `root`, `builder` and `notation`
        ");
    }

    #[test]
    fn a_retired_key_can_have_digests_that_stay_valid() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let key = |status: &str, digests: &str| {
            format!("[[key]]\nid = 'a'\nfile = 'p256.pem'\nuse = ['image']\nstatus = '{status}'\ndigests = {digests}")
        };
        let folder = folder(&[("keys.toml", &key("retired", &format!("['{digest}']")))]);
        let trust = load(&[folder.path().to_owned()]).unwrap();
        assert_eq!(trust.keys[0].digests, [digest.parse().unwrap()]);
        insta::assert_snapshot!(faults(&key("active", &format!("['{digest}']"))), @r#"
        error[invalid-value]: `digests` says for what a retired key still counts, and this key is not retired
         --> /etc/assay/trust.d/keys.toml:6:12
          |
        6 | digests = ['sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a']
          |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
         help: write status = "retired", or remove `digests`
        "#);
        insta::assert_snapshot!(faults(&key("retired", "['sha256:0A']")), @"
        error[invalid-digest]: `sha256:0A` is not a digest
         --> /etc/assay/trust.d/keys.toml:6:12
          |
        6 | digests = ['sha256:0A']
          |            ^^^^^^^^^^^
         help: sha256: and 64 lower-case hexadecimal digits
        ");
    }

    #[test]
    fn roots_are_built_in_or_read_from_a_file() {
        let folder = folder(&[
            (
                "roots.toml",
                "[[root]]\nid = 'public-good'\nbuiltin = 'sigstore'\n[[root]]\nid = 'gh'\nbuiltin = 'github'\n\
                 [[root]]\nid = 'ours'\nfile = 'trusted_root.json'",
            ),
            ("trusted_root.json", &Root::builtin("", Builtin::Staging).json),
        ]);
        let trust = load(&[folder.path().to_owned()]).unwrap();
        let ids: Vec<_> = trust.roots.iter().map(|root| root.id.as_str()).collect();
        assert_eq!(ids, ["public-good", "gh", "ours"]);
        assert_eq!(trust.warnings, []);
        let path = folder.path().join("trusted_root.json").display().to_string();
        let [public_good, github, ours] = trust.roots.as_slice() else {
            panic!("{trust:?}")
        };
        assert_eq!(ours.source, RootSource::File(path.clone()));
        assert_eq!(ours.json, Root::builtin("", Builtin::Staging).json);
        assert_eq!(ours.digest, crate::digest::Digest::of(ours.json.as_bytes()));
        assert_eq!(public_good.source, RootSource::Builtin(Builtin::Sigstore));
        assert_ne!(public_good.json, github.json);
        assert!(
            trust
                .files
                .iter()
                .any(|file| file.path == path && file.digest == ours.digest)
        );
    }

    #[test]
    fn roots_that_are_incomplete_or_wrong() {
        insta::assert_snapshot!(
            faults("[[root]]\nid = 'a b'\nbuiltin = 'staging'\n[[root]]\nid = 'c'\n[[root]]\nid = 'd'\nbuiltin = 'github'\nfile = 'x'\nurl = 'x'"),
            @"
        error[invalid-name]: `a b` cannot be the `id` of a root
         --> /etc/assay/trust.d/keys.toml:2:6
          |
        2 | id = 'a b'
          |      ^^^^^
         help: up to 64 of the characters a-z A-Z 0-9 . _ -
        error[invalid-value]: `staging` is no value of `builtin`
         --> /etc/assay/trust.d/keys.toml:3:11
          |
        3 | builtin = 'staging'
          |           ^^^^^^^^^
         help: one of: sigstore, github
        error[root-source]: [[root]] has neither `builtin` nor `file`
         --> /etc/assay/trust.d/keys.toml:4:1
          |
        4 | [[root]]
          | ^^^^^^^^ one of the two is needed
         help: builtin = \"sigstore\", builtin = \"github\" or file = \"trusted_root.json\"
        error[root-source]: [[root]] has both `builtin` and `file`
         --> /etc/assay/trust.d/keys.toml:6:1
          |
        6 | [[root]]
          | ^^^^^^^^ one of the two is needed
         help: builtin = \"sigstore\", builtin = \"github\" or file = \"trusted_root.json\"
        error[unknown-key]: [[root]] has no key `url`
          --> /etc/assay/trust.d/keys.toml:10:1
           |
        10 | url = 'x'
           | ^^^ not a key of it
         help: its keys are `id`, `builtin`, `file` and `max_age`
        "
        );
        insta::assert_snapshot!(
            faults("[[root]]\nid = 'a'\nbuiltin = 'sigstore'\n[[root]]\nid = 'a'\nbuiltin = 'github'"),
            @"
        error[root-id-duplicate]: `a` is already the `id` of another root
         --> /etc/assay/trust.d/keys.toml:5:6
          |
        5 | id = 'a'
          |      ^^^ first used at /etc/assay/trust.d/keys.toml:2:6
         help: give each root an id of its own
        "
        );
        let many: String = (0..=MAX_ROOTS)
            .map(|n| format!("[[root]]\nid = 'r{n}'\nbuiltin = 'sigstore'\n"))
            .collect();
        insta::assert_snapshot!(faults(&many), @"
        error[root-limit]: there are more than 16 roots
          --> /etc/assay/trust.d/keys.toml:50:6
           |
        50 | id = 'r16'
           |      ^^^^^ one too many
         help: each costs time when an image is judged: keep those that policy names
        ");
    }

    /// What is said about a trusted root in a file.
    fn of_root(json: &str) -> (bool, String) {
        let folder = folder(&[
            ("keys.toml", "[[root]]\nid = 'a'\nfile = 'root.json'"),
            ("root.json", json),
        ]);
        let (sound, said) = match load(&[folder.path().to_owned()]) {
            Ok(trust) => (true, trust.warnings),
            Err(faults) => (false, faults),
        };
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        let place = folder.path().display().to_string();
        (sound, said.join("\n").replace(&place, "/etc/assay/trust.d"))
    }

    #[test]
    fn files_that_are_no_roots() {
        let refused = |json: &str| {
            let (sound, said) = of_root(json);
            assert!(!sound);
            said
        };
        insta::assert_snapshot!(refused("{"), @"
        error[root-invalid]: root.json is no trusted root that can be used: not acceptable JSON: EOF while parsing an object at line 1 column 1
         --> /etc/assay/trust.d/keys.toml:3:8
          |
        3 | file = 'root.json'
          |        ^^^^^^^^^^^
         help: the trusted_root.json of a Sigstore instance, as its TUF repository or cosign trusted-root create gives it
        ");
        insta::assert_snapshot!(refused(r#"{"mediaType":"application/json","tlogs":[]}"#), @"
        error[root-invalid]: root.json is no trusted root that can be used: its mediaType is 'application/json', expected a Sigstore trusted root of version 0.1 or 0.2
         --> /etc/assay/trust.d/keys.toml:3:8
          |
        3 | file = 'root.json'
          |        ^^^^^^^^^^^
         help: the trusted_root.json of a Sigstore instance, as its TUF repository or cosign trusted-root create gives it
        ");
        insta::assert_snapshot!(refused(r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","tlogs":[]}"#), @"
        error[root-invalid]: root.json is no trusted root that can be used: none of its entries can be used
         --> /etc/assay/trust.d/keys.toml:3:8
          |
        3 | file = 'root.json'
          |        ^^^^^^^^^^^
         help: check that it is the right file and that it was copied whole
        ");
        let twice = Root::builtin("", Builtin::Sigstore)
            .json
            .replacen("\"tlogs\"", "\"ctlogs\"", 1);
        assert!(refused(&twice).contains("appears twice"));
    }

    #[test]
    fn what_a_root_lists_and_the_verifier_does_not_support_is_a_warning() {
        let mut root: serde_json::Value = serde_json::from_str(&Root::builtin("", Builtin::Sigstore).json).unwrap();
        let (_, p521) = spki::der::Document::from_pem(include_str!("testdata/p521.pem")).unwrap();
        let logs = root["tlogs"].as_array_mut().unwrap();
        let again = logs[0].clone();
        let mut p521_log = logs[1].clone();
        p521_log["publicKey"]["rawBytes"] = {
            use base64::Engine as _;
            base64::prelude::BASE64_STANDARD.encode(p521.as_bytes()).into()
        };
        p521_log["baseUrl"] = "https://p521.example".into();
        p521_log["logId"]["keyId"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into();
        logs.extend([again, p521_log]);
        root["certificateAuthorities"][0]["certChain"]["certificates"][0]["rawBytes"] = "AAAA".into();
        root["timestampAuthorities"][0]["validFor"] = serde_json::json!({ "end": "2030-01-01T00:00:00Z" });
        let (sound, said) = of_root(&root.to_string());
        assert!(sound);
        insta::assert_snapshot!(said, @"
        warning[root-entry]: root.json: its transparency log 3 (https://rekor.sigstore.dev) is left out: an entry before it has the same identifier
         --> /etc/assay/trust.d/keys.toml:3:8
          |
        3 | file = 'root.json'
          |        ^^^^^^^^^^^
         help: signatures that need it do not count; the rest of the root does
        warning[root-entry]: root.json: its transparency log 4 (https://p521.example) is left out: its key is of ECDSA P-521, which is verified for the keys of trust.d only
         --> /etc/assay/trust.d/keys.toml:3:8
          |
        3 | file = 'root.json'
          |        ^^^^^^^^^^^
         help: signatures that need it do not count; the rest of the root does
        warning[root-entry]: root.json: its certificate authority 1 (https://fulcio.sigstore.dev) is left out: not a certificate: unknown/unsupported ASN.1 DER tag: 0x00
         --> /etc/assay/trust.d/keys.toml:3:8
          |
        3 | file = 'root.json'
          |        ^^^^^^^^^^^
         help: signatures that need it do not count; the rest of the root does
        warning[root-entry]: root.json: its timestamp authority 1 (https://timestamp.sigstore.dev/api/v1/timestamp) is left out: missing field `start`
         --> /etc/assay/trust.d/keys.toml:3:8
          |
        3 | file = 'root.json'
          |        ^^^^^^^^^^^
         help: signatures that need it do not count; the rest of the root does
        ");
    }

    #[test]
    fn every_fault_of_every_file_is_told() {
        let folder = folder(&[
            ("a.toml", "[[key]\n"),
            ("b.toml", "[[key]]\nid = 'a'\nfile = 'empty.pem'\nuse = ['image']\n"),
        ]);
        let faults = load(&[folder.path().to_owned()]).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
    }
}
