use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::ZlibEncoder;
use md5::{Digest as _, Md5};
use proptest::prelude::*;
use sha1::Sha1;
use sha2::Sha256;

use super::*;
use crate::digest::Digest;
use crate::sbom::{self, Sbom};

/// An image's files, made for a test.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        let at = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        at
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.at(path), content).unwrap();
        self
    }

    fn program(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        self.file(path, content);
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn link(&self, path: &str, target: &str) -> &Self {
        symlink(target, self.at(path)).unwrap();
        self
    }

    fn tree(&self) -> Tree {
        Tree::scan(fs::File::open(self.0.path()).unwrap().into()).unwrap()
    }
}

fn owner<'i>(inventory: &'i Inventory, path: &str) -> &'i str {
    inventory
        .owner(path)
        .and_then(|id| inventory.package(id))
        .map_or("nobody", |package| package.name.as_str())
}

fn codes(inventory: &Inventory) -> Vec<&str> {
    inventory.findings.iter().map(|finding| finding.code.as_str()).collect()
}

fn md5(content: &str) -> String {
    hex::encode(Md5::digest(content))
}

fn debian() -> Root {
    let root = Root::new();
    root.file("etc/os-release", "PRETTY_NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n")
        .file(
            "var/lib/dpkg/status",
            "Package: mawk\nStatus: install ok installed\nVersion: 1.3.4-1\nArchitecture: amd64\nConffiles:\n /etc/mawk.conf 00 obsolete\nDescription: x\n Package: not-this\n .\n\n\
             Package: libz1\nStatus: install ok installed\nArchitecture: amd64\nMulti-Arch: same\nVersion: 1:1.2-3+b1\n\n\
             Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
             Package: dash\nStatus: install ok half-configured\nArchitecture: all\nVersion: 0.5\n",
        )
        .file("var/lib/dpkg/info/mawk.list", "/.\n/usr\n/usr/bin\n/bin/mawk\n/etc/mawk.conf\n/usr/share/gone\n")
        .file("var/lib/dpkg/info/mawk.md5sums", format!("{}  bin/mawk\n{}  etc/mawk.conf\n", md5("awk"), md5("x")))
        .file("var/lib/dpkg/info/libz1:amd64.list", "/.\n/lib/libz.so.1.2\n/usr/lib/libz.so.1.2\n")
        .file("var/lib/dpkg/info/libz1:amd64.md5sums", format!("{}  lib/libz.so.1.2\n", md5("other")))
        .file("var/lib/dpkg/info/gone.list", "/etc/gone\n")
        .file("var/lib/dpkg/info/dash.list", "/bin/sh\n/etc/passwd/..//../../../up\n")
        .file("var/lib/dpkg/diversions", "/bin/sh\n/bin/sh.distrib\nbash-as-sh\n")
        .link("bin", "usr/bin")
        .link("lib", "usr/lib")
        .program("usr/bin/mawk", "awk")
        .link("usr/bin/awk", "/etc/alternatives/awk")
        .link("etc/alternatives/awk", "/bin/mawk")
        .file("etc/mawk.conf", "changed")
        .file("etc/gone", "")
        .file("usr/lib/libz.so.1.2", "z")
        .link("usr/lib/libz.so.1", "libz.so.1.2")
        .program("usr/bin/sh", "diverter")
        .program("usr/bin/sh.distrib", "dash")
        .program("app/server", "app")
        .link("app/current", "server");
    root
}

#[test]
fn dpkg_owns_what_it_unpacked_wherever_links_put_it() {
    let root = debian();
    let tree = root.tree();
    let inventory = scan(&tree);
    let names: Vec<_> = inventory
        .packages
        .iter()
        .map(|p| (p.name.as_str(), p.version.as_str()))
        .collect();
    assert_eq!(names, [("mawk", "1.3.4-1"), ("libz1", "1:1.2-3+b1"), ("dash", "0.5")]);
    for (path, package) in [
        ("/usr/bin/mawk", "mawk"),
        ("/etc/mawk.conf", "mawk"),
        ("/usr/bin/awk", "mawk"),
        ("/etc/alternatives/awk", "mawk"),
        ("/usr/lib/libz.so.1.2", "libz1"),
        ("/usr/lib/libz.so.1", "libz1"),
        ("/usr/bin/sh", "nobody"),
        ("/usr/bin/sh.distrib", "dash"),
        ("/etc/gone", "nobody"),
        ("/usr/bin", "nobody"),
        ("/app/server", "nobody"),
        ("/app/current", "nobody"),
    ] {
        assert_eq!(owner(&inventory, path), package, "{path}");
    }
    assert_eq!(
        inventory.packages[0].files,
        [
            "/etc/alternatives/awk",
            "/etc/mawk.conf",
            "/usr",
            "/usr/bin",
            "/usr/bin/awk",
            "/usr/bin/mawk"
        ]
    );
    assert_eq!(codes(&inventory), ["path-escapes"], "{:?}", inventory.findings);
    let altered = |path| altered(&tree, &inventory, path).unwrap();
    assert_eq!(altered("/usr/bin/mawk"), Altered::No);
    assert_eq!(altered("/usr/lib/libz.so.1.2"), Altered::Yes);
    assert_eq!(altered("/etc/mawk.conf"), Altered::Unknown, "configuration may change");
    assert_eq!(altered("/app/server"), Altered::Unknown);
}

#[test]
fn distroless_images_have_owners_for_links_that_they_do_not_list() {
    let root = Root::new();
    root.file(
        "var/lib/dpkg/status.d/libssl3",
        "Package: libssl3\nVersion: 3.0-1\nArchitecture: arm64\n",
    )
    .file(
        "var/lib/dpkg/status.d/libssl3.md5sums",
        format!("{}  usr/lib/libssl.so.3.0\n", md5("ssl")),
    )
    .file("var/lib/dpkg/status.d/bare", "Package: bare\nVersion: 1\n")
    .file("var/lib/dpkg/status.d/broken", "Version: 1\n")
    .file("usr/lib/libssl.so.3.0", "ssl")
    .link("usr/lib/libssl.so.3", "libssl.so.3.0");
    let inventory = scan(&root.tree());
    assert_eq!(owner(&inventory, "/usr/lib/libssl.so.3"), "libssl3");
    assert_eq!(codes(&inventory), ["file-list-missing", "database-invalid"]);
}

#[test]
fn apk_owns_its_files_and_the_applets_of_busybox() {
    let root = Root::new();
    let q1 = |content: &str| format!("Q1{}", BASE64_STANDARD.encode(Sha1::digest(content)));
    root.file(
        "usr/lib/apk/db/installed",
        format!(
            "C:Q1x=\nP:busybox\nV:1.36-r0\nA:x86_64\no:busybox\nF:bin\nR:busybox\na:0:0:755\nZ:{}\nF:etc\nR:busybox.conf\nZ:{}\nF:\nR:../x\n\n\
             P:empty\nV:1\n\nF:lost\nR:file\n",
            q1("busy"),
            q1("as it was")
        ),
    )
    .link("lib", "usr/lib")
    .program("bin/busybox", "busy")
    .link("bin/sh", "/bin/busybox")
    .file("etc/busybox.conf", "changed")
    .file("lost/file", "");
    let tree = root.tree();
    let inventory = scan(&tree);
    assert_eq!(inventory.packages.len(), 2);
    for path in ["/bin/busybox", "/bin/sh", "/etc/busybox.conf"] {
        assert_eq!(owner(&inventory, path), "busybox", "{path}");
    }
    assert_eq!(owner(&inventory, "/lost/file"), "nobody");
    assert_eq!(altered(&tree, &inventory, "/bin/busybox").unwrap(), Altered::No);
    assert_eq!(altered(&tree, &inventory, "/etc/busybox.conf").unwrap(), Altered::Yes);
    assert!(
        codes(&inventory).iter().all(|code| *code == "database-invalid"),
        "{:?}",
        inventory.findings
    );
}

/// A database that rpm 4.18 wrote.
fn rpmdb() -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(&include_bytes!("testdata/rpmdb.sqlite.gz")[..])
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// The same headers in the other format.
fn ndb() -> Vec<u8> {
    let mut blobs = Vec::new();
    rpm::sqlite::blobs(&rpmdb(), &mut |blob| blobs.push(blob.to_vec())).unwrap();
    let mut slots = Vec::new();
    let mut data = Vec::new();
    for (number, blob) in (1u32..).zip(&blobs) {
        let offset = u32::try_from((4096 + data.len()) / 16).unwrap();
        slots.extend_from_slice(b"Slot");
        for value in [number, offset, 0] {
            slots.extend_from_slice(&value.to_le_bytes());
        }
        data.extend_from_slice(b"BlbS");
        for value in [number, 0, u32::try_from(blob.len()).unwrap()] {
            data.extend_from_slice(&value.to_le_bytes());
        }
        data.extend_from_slice(blob);
        data.resize(data.len().next_multiple_of(16), 0);
    }
    let mut bytes = b"RpmP".to_vec();
    for value in [0u32, 1, 1, 0, 0, 0, 0] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&slots);
    while bytes.len() < 4096 {
        bytes.extend_from_slice(b"Slot\0\0\0\0\0\0\0\0\0\0\0\0");
    }
    bytes.extend_from_slice(&data);
    bytes
}

#[test]
fn rpm_is_read_in_both_of_its_formats() {
    for (name, bytes) in [("rpmdb.sqlite", rpmdb()), ("Packages.db", ndb())] {
        let root = Root::new();
        root.file(&format!("usr/lib/sysimage/rpm/{name}"), bytes)
            .link("var/lib/rpm", "../../usr/lib/sysimage/rpm")
            .program("usr/bin/tool", "tool")
            .link("usr/bin/alias", "tool")
            .program("usr/bin/tool2", "changed")
            .file("etc/fixture.conf", "changed")
            .file("usr/share/fixture/file-with-a-rather-long-name-300", "300")
            .file("usr/share/fixture/other", "");
        let tree = root.tree();
        let inventory = scan(&tree);
        let identities: Vec<String> = inventory
            .packages
            .iter()
            .map(|p| p.identity(None).to_string())
            .collect();
        assert_eq!(
            identities,
            ["pkg:rpm/fixture@4:1.2-3?arch=amd64", "pkg:rpm/second@1.2-3?arch=all"],
            "{name} {:?}",
            inventory.findings
        );
        for path in [
            "/usr/bin/tool",
            "/usr/bin/alias",
            "/etc/fixture.conf",
            "/usr/share/fixture/file-with-a-rather-long-name-300",
        ] {
            assert_eq!(owner(&inventory, path), "fixture", "{name} {path}");
        }
        assert_eq!(owner(&inventory, "/usr/share/fixture/other"), "nobody");
        assert_eq!(altered(&tree, &inventory, "/usr/bin/tool").unwrap(), Altered::No);
        assert_eq!(altered(&tree, &inventory, "/usr/bin/tool2").unwrap(), Altered::Yes);
        assert_eq!(
            altered(&tree, &inventory, "/etc/fixture.conf").unwrap(),
            Altered::Unknown
        );
        assert!(inventory.findings.is_empty(), "{:?}", inventory.findings);
    }
}

#[test]
fn an_rpm_database_that_is_not_read_is_a_finding() {
    let root = Root::new();
    root.file("var/lib/rpm/Packages", "berkeley")
        .file("var/lib/rpm/rpmdb.sqlite", "not a database")
        .file("var/lib/rpm/rpmdb.sqlite-wal", "x");
    let inventory = scan(&root.tree());
    assert_eq!(
        codes(&inventory),
        ["database-invalid", "database-unsettled", "database-unsupported"]
    );
}

#[test]
fn python_distributions_own_what_their_record_says() {
    let root = debian();
    let site = "usr/local/lib/python3.11/site-packages";
    let sha256 = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest("print()"));
    root.file(&format!("{site}/Demo_Pkg-1.0.dist-info/METADATA"), "Metadata-Version: 2.1\nName: Demo.Pkg\nVersion: 1.0\n\nName: no\n")
        .file(
            &format!("{site}/Demo_Pkg-1.0.dist-info/RECORD"),
            format!(
                "demo/__init__.py,sha256={sha256},7\n\"demo/a,\"\"b\"\".py\",,\n../../../bin/demo,,\n../../../../../usr/bin/mawk,,\n\
                 ../../../../../../../../etc/shadow,,\nDemo_Pkg-1.0.dist-info/METADATA,,\n"
            ),
        )
        .file(&format!("{site}/demo/__init__.py"), "print()")
        .file(&format!("{site}/demo/a,\"b\".py"), "")
        .file("usr/local/bin/demo", "")
        .file("etc/shadow", "")
        .file(&format!("{site}/old-2.egg-info/PKG-INFO"), "Name: old\nVersion: 2\n")
        .file(&format!("{site}/old-2.egg-info/top_level.txt"), "old\n..\nsingle\n")
        .file(&format!("{site}/old/deep/x.py"), "")
        .file(&format!("{site}/single.py"), "")
        .file(&format!("{site}/flat-3.egg-info"), "Name: flat\nVersion: 3\n");
    let tree = root.tree();
    let inventory = scan(&tree);
    for (path, package) in [
        (format!("/{site}/demo/__init__.py"), "Demo.Pkg"),
        (format!("/{site}/demo/a,\"b\".py"), "Demo.Pkg"),
        ("/usr/local/bin/demo".to_owned(), "Demo.Pkg"),
        ("/usr/bin/mawk".to_owned(), "mawk"),
        ("/etc/shadow".to_owned(), "nobody"),
        (format!("/{site}/old/deep/x.py"), "old"),
        (format!("/{site}/single.py"), "old"),
        (format!("/{site}/flat-3.egg-info"), "flat"),
    ] {
        assert_eq!(owner(&inventory, &path), package, "{path}");
    }
    assert_eq!(
        altered(&tree, &inventory, &format!("/{site}/demo/__init__.py")).unwrap(),
        Altered::No
    );
    assert_eq!(codes(&inventory), ["path-escapes", "path-escapes"]);
    let demo = inventory
        .packages
        .iter()
        .find(|package| package.name == "Demo.Pkg")
        .unwrap();
    assert_eq!(demo.identity(None).to_string(), "pkg:pypi/demo-pkg@1.0");
    assert!(
        !demo.files.contains(&"/usr/bin/mawk".to_owned()),
        "the distribution's package owns it"
    );
}

#[test]
fn a_language_package_that_the_distribution_installed_is_the_distributions() {
    let root = debian();
    let list = fs::read_to_string(root.at("var/lib/dpkg/info/mawk.list")).unwrap();
    root.file(
        "usr/lib/python3/dist-packages/x-1.dist-info/METADATA",
        "Name: x\nVersion: 1\n",
    )
    .file(
        "var/lib/dpkg/info/mawk.list",
        format!("{list}/usr/lib/python3/dist-packages/x-1.dist-info/METADATA\n"),
    );
    let inventory = scan(&root.tree());
    assert!(
        inventory
            .packages
            .iter()
            .all(|package| package.ecosystem == Ecosystem::Dpkg)
    );
}

#[test]
fn node_packages_and_gems_own_their_directories() {
    let root = Root::new();
    root.file(
        "app/node_modules/@scope/a/package.json",
        r#"{"name":"@scope/a","version":"1.0.0","type":"module"}"#,
    )
    .file("app/node_modules/@scope/a/dist/package.json", r#"{"type":"module"}"#)
    .file(
        "app/node_modules/@scope/a/node_modules/b/package.json",
        r#"{"name":"b","version":"2.0.0"}"#,
    )
    .file("app/node_modules/@scope/a/node_modules/b/lib/index.js", "")
    .file("app/node_modules/@scope/a/node_modules/.cache/x", "")
    .file("app/node_modules/broken/package.json", "{")
    .file("app/node_modules/.bin/readme", "")
    .link("app/node_modules/.bin/b", "../@scope/a/node_modules/b/lib/index.js")
    .file("app/package.json", r#"{"name":"app","version":"1.0.0"}"#)
    .file(
        "usr/local/bundle/specifications/rack-2.2.4.gemspec",
        "Gem::Specification.new do |s|\n  s.name = \"rack\".freeze\n  s.version = \"2.2.4\"\nend\n",
    )
    .file("usr/local/bundle/gems/rack-2.2.4/lib/rack.rb", "")
    .file("usr/local/bundle/extensions/x86_64-linux/3.1.0/rack-2.2.4/rack.so", "")
    .file("usr/local/bundle/gems/rack-2.2.40/lib/rack.rb", "")
    .file("usr/local/bundle/specifications/odd-1.gemspec", "s.name = ENV['x']\n");
    let inventory = scan(&root.tree());
    for (path, package) in [
        ("/app/node_modules/@scope/a/dist/package.json", "@scope/a"),
        ("/app/node_modules/@scope/a/node_modules/b/lib/index.js", "b"),
        ("/app/node_modules/@scope/a/node_modules/.cache/x", "@scope/a"),
        ("/app/node_modules/.bin/b", "b"),
        ("/app/node_modules/.bin/readme", "nobody"),
        ("/app/package.json", "nobody"),
        ("/usr/local/bundle/gems/rack-2.2.4/lib/rack.rb", "rack"),
        (
            "/usr/local/bundle/extensions/x86_64-linux/3.1.0/rack-2.2.4/rack.so",
            "rack",
        ),
        ("/usr/local/bundle/gems/rack-2.2.40/lib/rack.rb", "nobody"),
    ] {
        assert_eq!(owner(&inventory, path), package, "{path}");
    }
    assert_eq!(codes(&inventory), ["database-invalid", "database-invalid"]);
    let scoped = inventory
        .packages
        .iter()
        .find(|package| package.name == "@scope/a")
        .unwrap();
    assert_eq!(scoped.identity(None), "pkg:npm/%40scope/a@1.0.0".parse().unwrap());
}

/// A 64-bit ELF file of nothing but sections.
fn elf(sections: &[(&str, &[u8])]) -> Vec<u8> {
    let mut names = b"\0.shstrtab\0".to_vec();
    let mut data = Vec::new();
    let mut headers = vec![0u8; 64];
    let mut add = |name: usize, kind: u32, at: usize, length: usize| {
        headers.extend_from_slice(&u32::try_from(name).unwrap().to_le_bytes());
        headers.extend_from_slice(&kind.to_le_bytes());
        headers.extend_from_slice(&[0; 16]);
        headers.extend_from_slice(&(at as u64).to_le_bytes());
        headers.extend_from_slice(&(length as u64).to_le_bytes());
        headers.extend_from_slice(&[0; 24]);
    };
    for (name, content) in sections {
        add(names.len(), 1, 64 + data.len(), content.len());
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        data.extend_from_slice(content);
    }
    add(1, 3, 64 + data.len(), names.len());
    data.extend_from_slice(&names);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&(64 + data.len() as u64).to_le_bytes());
    file.extend_from_slice(&[0; 4]);
    let count = u16::try_from(sections.len() + 2).unwrap();
    for value in [64, 56, 0, 64, count, count - 1] {
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.extend_from_slice(&data);
    file.extend_from_slice(&headers);
    file
}

fn buildinfo(modules: &str) -> Vec<u8> {
    let mut section = b"\xff Go buildinf:\x08\x02".to_vec();
    section.resize(32, 0);
    for text in ["go1.22.1".to_owned(), format!("{0}{modules}{0}", "s".repeat(16))] {
        let length = text.len();
        assert!(length < 1 << 14);
        if length < 128 {
            section.push(u8::try_from(length).unwrap());
        } else {
            section.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            section.push(u8::try_from(length >> 7).unwrap());
        }
        section.extend_from_slice(text.as_bytes());
    }
    section
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn programs_say_what_they_were_built_from() {
    let root = Root::new();
    let go = "path\tgithub.com/Acme/tool/cmd/tool\nmod\tgithub.com/Acme/tool\t(devel)\t\ndep\tgithub.com/x/y/v2\tv2.1.0\th1:=\ndep\tgithub.com/z\tv1.0.0\n=>\tgithub.com/fork/z\tv1.0.1\th1:=\nbuild\tCGO_ENABLED=0\n";
    let rust = r#"{"packages":[{"name":"app","version":"0.1.0","source":"local","root":true,"dependencies":[1]},{"name":"serde","version":"1.0.0","source":"crates.io"},{"name":"cc","version":"1.0.0","source":"crates.io","kind":"build"}]}"#;
    root.program("usr/bin/tool", elf(&[(".go.buildinfo", &buildinfo(go))]))
        .program("usr/bin/app", elf(&[(".dep-v0", &zlib(rust.as_bytes()))]))
        .program(
            "usr/bin/old",
            elf(&[(".go.buildinfo", b"\xff Go buildinf:\x08\x00aaaaaaaaaaaaaaaabbbbbbbb")]),
        )
        .program("usr/bin/bomb", elf(&[(".dep-v0", &zlib(&vec![b' '; 9 << 20]))]))
        .program("usr/bin/lying", &elf(&[(".go.buildinfo", &buildinfo(go))])[..200])
        .file("usr/lib/not-executable", elf(&[(".go.buildinfo", &buildinfo(go))]));
    let tree = root.tree();
    let inventory = scan(&tree);
    let purls: Vec<String> = inventory
        .packages
        .iter()
        .map(|p| p.identity(None).to_string())
        .collect();
    assert_eq!(
        purls,
        [
            "pkg:cargo/app@0.1.0",
            "pkg:cargo/serde@1.0.0",
            "pkg:golang/github.com/acme/tool",
            "pkg:golang/github.com/x/y/v2@2.1.0",
            "pkg:golang/github.com/fork/z@1.0.1",
        ]
    );
    assert_eq!(owner(&inventory, "/usr/bin/tool"), "github.com/Acme/tool");
    assert_eq!(owner(&inventory, "/usr/bin/app"), "app");
    assert_eq!(owner(&inventory, "/usr/bin/old"), "nobody");
    assert_eq!(codes(&inventory), ["database-invalid", "database-unsupported"]);
    // What was built from no release is compared by name.
    let listed = sbom_of(&["pkg:golang/github.com/acme/tool@v0.0.0-2024".to_owned()]);
    assert_eq!(
        standing(&inventory, Some(&listed)).file(&tree, "/usr/bin/tool"),
        Some(Standing::Attested)
    );
    let other = sbom_of(&["pkg:golang/github.com/other/tool@v1".to_owned()]);
    assert_eq!(
        standing(&inventory, Some(&other)).file(&tree, "/usr/bin/tool"),
        Some(Standing::Attributed)
    );
}

fn jar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn java_archives_say_what_they_are_and_what_is_in_them() {
    let root = Root::new();
    let pom = |artifact: &str| format!("#x\ngroupId=org.acme\nartifactId={artifact}\nversion=1.0\n");
    let inner = jar(&[("META-INF/maven/org.acme/inner/pom.properties", pom("inner").as_bytes())]);
    let outer = jar(&[
        ("META-INF/MANIFEST.MF", b"Implementation-Version: 9\r\n"),
        (
            "META-INF/maven/org.acme/shaded/pom.properties",
            pom("shaded").as_bytes(),
        ),
        ("META-INF/maven/org.acme/app/pom.properties", pom("app").as_bytes()),
        ("BOOT-INF/lib/inner-1.0.jar", &inner),
    ]);
    root.file("app/app-1.0.jar", outer)
        .file(
            "app/plain-2.5.jar",
            jar(&[("META-INF/MANIFEST.MF", b"Bundle-Version: 2.5\n")]),
        )
        .file("app/nothing.jar", jar(&[("x", b"")]))
        .file("app/broken.jar", "PK\x03\x04")
        .file(
            "app/bomb.jar",
            jar(&[("META-INF/maven/a/b/pom.properties", &vec![b' '; 2 << 20])]),
        );
    let tree = root.tree();
    let inventory = scan(&tree);
    let mut purls: Vec<String> = inventory
        .packages
        .iter()
        .map(|p| p.identity(None).to_string())
        .collect();
    purls.sort();
    assert_eq!(
        purls,
        [
            "pkg:maven/org.acme/app@1.0",
            "pkg:maven/org.acme/inner@1.0",
            "pkg:maven/org.acme/shaded@1.0",
            "pkg:maven/plain@2.5",
        ]
    );
    assert_eq!(owner(&inventory, "/app/app-1.0.jar"), "org.acme:app");
    assert_eq!(owner(&inventory, "/app/nothing.jar"), "nobody");
    assert_eq!(codes(&inventory), ["database-invalid", "database-invalid"]);
    let listed = sbom_of(&["pkg:maven/com.example/plain@2.5".to_owned()]);
    assert_eq!(
        standing(&inventory, Some(&listed)).file(&tree, "/app/plain-2.5.jar"),
        Some(Standing::Attested)
    );
}

/// An SBOM of nothing but packages.
fn sbom_of(purls: &[String]) -> Sbom {
    let components: Vec<_> = purls
        .iter()
        .map(|purl| serde_json::json!({ "type": "library", "name": "x", "purl": purl }))
        .collect();
    let document = serde_json::json!({ "bomFormat": "CycloneDX", "specVersion": "1.6", "components": components });
    sbom::read(document.to_string().as_bytes()).unwrap()
}

#[test]
fn the_sbom_decides_how_a_package_and_its_files_stand() {
    let root = debian();
    let tree = root.tree();
    let inventory = scan(&tree);
    let app = hex::encode(Sha256::digest("app"));
    let document = |version: &str| {
        let document = format!(
            r#"{{"spdxVersion":"SPDX-2.3","packages":[
            {{"externalRefs":[{{"referenceType":"purl","referenceLocator":"pkg:deb/debian/mawk@1.3.4-1?arch=amd64&distro=debian-12"}}]}},
            {{"externalRefs":[{{"referenceType":"purl","referenceLocator":"pkg:deb/debian/libz1@{version}?arch=amd64"}}]}},
            {{"externalRefs":[{{"referenceType":"purl","referenceLocator":"pkg:deb/ubuntu/dash@0.5?arch=all"}}]}}],
            "files":[{{"fileName":"app/server","checksums":[{{"algorithm":"SHA256","checksumValue":"{app}"}}]}},
            {{"fileName":"usr/bin/sh","checksums":[{{"algorithm":"SHA256","checksumValue":"{app}"}}]}},
            {{"fileName":"usr/bin/sh.distrib","checksums":[{{"algorithm":"SHA256","checksumValue":"{}"}}]}}]}}"#,
            hex::encode(Sha256::digest("dash"))
        );
        sbom::read(document.as_bytes()).unwrap()
    };
    let sbom = document("1.2-3%2Bb1&epoch=1".replace("&epoch=1", "").as_str());
    let standings = standing(&inventory, Some(&sbom));
    let verdicts: Vec<_> = (0..3).map(|id| standings.package(id).unwrap().clone()).collect();
    assert_eq!(
        verdicts,
        [
            Verdict::Attested,
            Verdict::Drift(vec!["pkg:deb/debian/libz1@1.2-3%2Bb1?arch=amd64".to_owned()]),
            Verdict::Drift(vec!["pkg:deb/ubuntu/dash@0.5?arch=all".to_owned()]),
        ]
    );
    for (path, expected) in [
        ("/usr/bin/mawk", Some(Standing::Attested)),
        ("/usr/bin/awk", Some(Standing::Attested)),
        ("/usr/lib/libz.so.1", Some(Standing::Attributed)),
        ("/app/server", Some(Standing::Attested)),
        ("/app/current", Some(Standing::Attested)),
        // Listed with another digest.
        ("/usr/bin/sh", Some(Standing::Unattested)),
        // Listed by its digest, but its package is not.
        ("/usr/bin/sh.distrib", Some(Standing::Attributed)),
        ("/usr", None),
        ("/no/such", None),
    ] {
        assert_eq!(standings.file(&tree, path), expected, "{path}");
    }
    let sbom = document("1%3A1.2-3%2Bb1");
    assert_eq!(standing(&inventory, Some(&sbom)).package(1), Some(&Verdict::Attested));
    let standings = standing(&inventory, None);
    assert_eq!(standings.package(0), Some(&Verdict::Database));
    assert_eq!(standings.file(&tree, "/usr/bin/mawk"), Some(Standing::Database));
    assert_eq!(standings.file(&tree, "/app/server"), Some(Standing::Unattested));
    let coverage = standings.coverage(&tree);
    assert_eq!((coverage.executables.database, coverage.executables.unattested), (2, 2));
    assert_eq!((coverage.links.database, coverage.links.unattested), (3, 3));
}

#[test]
fn what_an_sbom_leaves_out_is_no_contradiction_and_what_it_says_is() {
    let root = debian();
    let tree = root.tree();
    let inventory = scan(&tree);
    let verdict = |inventory: &Inventory, purl: &str| {
        let sbom = sbom_of(&[purl.to_owned()]);
        standing(inventory, Some(&sbom)).package(1).cloned().unwrap()
    };
    for purl in [
        "pkg:deb/debian/libz1@1.2-3%2Bb1?epoch=1",
        "pkg:deb/libz1@1:1.2-3%2Bb1?arch=amd64",
        "pkg:deb/libz1@1:1.2-3%2Bb1",
        "pkg:deb/debian/libz1@1:1.2-3%2Bb1?arch=x86_64&upstream=zlib",
    ] {
        assert_eq!(verdict(&inventory, purl), Verdict::Attested, "{purl}");
    }
    for purl in [
        "pkg:deb/debian/libz1@1:1.2-3%2Bb1?arch=all",
        "pkg:deb/debian/libz1@1:1.2-3",
        "pkg:deb/debian/libz1",
        "pkg:deb/ubuntu/libz1@1:1.2-3%2Bb1",
    ] {
        assert!(matches!(verdict(&inventory, purl), Verdict::Drift(_)), "{purl}");
    }
    assert_eq!(
        verdict(&inventory, "pkg:deb/debian/libz2@1:1.2-3%2Bb1"),
        Verdict::Missing
    );
    // An image that does not say which distribution it is.
    fs::remove_file(root.at("etc/os-release")).unwrap();
    let inventory = scan(&root.tree());
    assert_eq!(
        verdict(&inventory, "pkg:deb/ubuntu/libz1@1:1.2-3%2Bb1?arch=amd64"),
        Verdict::Attested
    );
}

/// A Debian image of `count` packages with a program each, and their package URLs.
fn many(count: usize) -> (Root, Vec<String>) {
    let root = Root::new();
    let mut status = String::new();
    let mut purls = Vec::new();
    root.file("etc/os-release", "ID=debian\n");
    for n in 0..count {
        status += &format!("Package: p{n}\nStatus: install ok installed\nVersion: {n}:1-{n}\nArchitecture: amd64\n\n");
        root.file(
            &format!("var/lib/dpkg/info/p{n}.list"),
            format!("/.\n/usr\n/usr/bin/p{n}\n/usr/share/p{n}/a\n/usr/share/p{n}/b\n"),
        )
        .program(&format!("usr/bin/p{n}"), format!("{n}"))
        .file(&format!("usr/share/p{n}/a"), "")
        .link(&format!("usr/share/p{n}/b"), "a")
        .link(&format!("usr/share/p{n}/c"), "b");
        purls.push(format!("pkg:deb/debian/p{n}@1-{n}?arch=amd64&epoch={n}"));
    }
    root.file("var/lib/dpkg/status", status).program("usr/bin/own", "own");
    (root, purls)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_package_taken_out_of_the_sbom_takes_exactly_its_files_with_it(kept in prop::collection::vec(any::<bool>(), 12)) {
        thread_local! {
            static IMAGE: (Root, Vec<String>) = many(12);
        }
        IMAGE.with(|(root, purls)| {
            let tree = root.tree();
            let inventory = scan(&tree);
            let listed: Vec<String> = purls.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(purl, _)| purl.clone()).collect();
            let sbom = sbom_of(&listed);
            let standings = standing(&inventory, Some(&sbom));
            for (path, node) in tree.nodes().filter(|(_, node)| !node.is_directory()) {
                let number = path.strip_prefix("/usr/bin/p").or(path.strip_prefix("/usr/share/p"));
                let number: Option<usize> = number.and_then(|rest| rest.split('/').next()?.parse().ok());
                let expected = match number {
                    Some(number) if kept[number] => Standing::Attested,
                    Some(_) => Standing::Attributed,
                    None => Standing::Unattested,
                };
                assert_eq!(standings.file(&tree, path), Some(expected), "{path} {node:?}");
            }
        });
    }

    #[test]
    fn no_database_makes_a_reader_panic(bytes: Vec<u8>, cut in 0usize..400_000, at in 0usize..400_000, byte: u8) {
        let mut sqlite = rpmdb();
        let mut other = ndb();
        for database in [&mut sqlite, &mut other] {
            let at = at % database.len();
            database[at] = byte;
            database.truncate(database.len().max(1) - cut % database.len());
        }
        let root = Root::new();
        root.file("var/lib/dpkg/status", &bytes)
            .file("var/lib/dpkg/diversions", &bytes)
            .file("var/lib/dpkg/status.d/x", &bytes)
            .file("lib/apk/db/installed", &bytes)
            .file("var/lib/rpm/rpmdb.sqlite", sqlite)
            .file("var/lib/rpm/Packages.db", other)
            .file("x-1.dist-info/METADATA", "Name: x\nVersion: 1\n")
            .file("x-1.dist-info/RECORD", &bytes)
            .file("node_modules/x/package.json", &bytes)
            .file("specifications/x.gemspec", &bytes)
            .program("program", elf(&[(".go.buildinfo", &[b"\xff Go buildinf:\x08\x02", &bytes[..]].concat()), (".dep-v0", &zlib(&bytes))]))
            .file("x.jar", &bytes);
        let _ = scan(&root.tree());
    }
}

#[test]
fn databases_cut_short_anywhere_end_in_findings() {
    for whole in [rpmdb(), ndb()] {
        for part in [0, 1, 50, 100, 4095, 4096, 20_000, whole.len() - 1] {
            let root = Root::new();
            let name = if whole.starts_with(b"RpmP") {
                "Packages.db"
            } else {
                "rpmdb.sqlite"
            };
            root.file(&format!("var/lib/rpm/{name}"), &whole[..part]);
            let inventory = scan(&root.tree());
            assert!(!inventory.findings.is_empty(), "{name} {part}");
        }
    }
}

#[test]
fn a_database_that_is_no_file_is_a_finding() {
    for at in ["var/lib/dpkg/status", "lib/apk/db/installed"] {
        let root = Root::new();
        root.file(&format!("{at}/x"), "");
        assert_eq!(codes(&scan(&root.tree())), ["database-unreadable"], "{at}");
        let root = Root::new();
        root.link(at, "loop")
            .link(&at.replace(at.rsplit('/').next().unwrap(), "loop"), "loop");
        assert_eq!(codes(&scan(&root.tree())), ["database-unreadable"], "{at}");
    }
}

#[test]
fn links_in_a_circle_end() {
    let root = debian();
    for n in 0..1000 {
        root.link(&format!("srv/l{n}"), &format!("l{}", (n + 1) % 1000));
    }
    root.link("srv/up", "..")
        .link("srv/one", "/srv/two")
        .link("srv/two", "/srv/one");
    let mut list = "/srv/up/srv/up/usr/bin/mawk\n/srv/one/x\n".to_owned();
    for n in 0..1000 {
        list += &format!("/srv/l{n}/x\n{}usr/bin/x\n", "/srv/up/".repeat(n));
    }
    root.file("var/lib/dpkg/info/mawk.list", list);
    let inventory = scan(&root.tree());
    assert_eq!(owner(&inventory, "/usr/bin/mawk"), "mawk");
    assert_eq!(owner(&inventory, "/srv/l0"), "nobody");
}

#[test]
fn lists_without_end_are_given_up_on() {
    let root = Root::new();
    let line = "/usr/share/a-file-that-is-not-there\n/../../etc/passwd\n/.\n";
    root.file(
        "var/lib/dpkg/status",
        "Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n",
    )
    .file("var/lib/dpkg/info/a.list", line.repeat(MAX_OWNED / 2 + 1))
    .program("usr/bin/x", "");
    let started = Instant::now();
    let inventory = scan(&root.tree());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(codes(&inventory), ["path-escapes", "files-too-many"]);
    assert!(inventory.omitted > 0);
    assert_eq!(owner(&inventory, "/usr/bin/x"), "nobody");
}

/// The image of which syft 1.18 wrote the SBOMs in `testdata`.
fn scanned() -> Root {
    let root = Root::new();
    let site = "usr/local/lib/python3.11/site-packages";
    root.file("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n")
        .file(
            "var/lib/dpkg/status",
            "Package: mawk\nStatus: install ok installed\nVersion: 1.3.4-1\nArchitecture: amd64\n\n\
             Package: libz1\nStatus: install ok installed\nSource: zlib\nArchitecture: amd64\nMulti-Arch: same\nVersion: 1:1.2-3+b1\n\n\
             Package: dash\nStatus: install ok installed\nArchitecture: all\nVersion: 0.5\n",
        )
        .file("var/lib/dpkg/info/mawk.list", "/usr/bin/mawk\n")
        .file("var/lib/dpkg/info/libz1:amd64.list", "/usr/lib/libz.so.1\n")
        .file("var/lib/dpkg/info/dash.list", "/usr/bin/dash\n")
        .program("usr/bin/mawk", "awk")
        .program("usr/bin/dash", "dash")
        .file("usr/lib/libz.so.1", "z")
        .file(&format!("{site}/Demo_Pkg-1.0.dist-info/METADATA"), "Name: Demo.Pkg\nVersion: 1.0\n")
        .file(&format!("{site}/Demo_Pkg-1.0.dist-info/RECORD"), "demo/__init__.py,,\n")
        .file(&format!("{site}/demo/__init__.py"), "");
    root
}

#[test]
fn what_syft_writes_in_any_format_attests_what_it_scanned() {
    let root = scanned();
    let tree = root.tree();
    let inventory = scan(&tree);
    for (document, files) in [
        (include_str!("testdata/syft.spdx.json"), 9),
        (include_str!("testdata/syft.cyclonedx.json"), 0),
        (include_str!("testdata/syft.json"), 9),
    ] {
        let sbom = sbom::read(document.as_bytes()).unwrap();
        let standings = standing(&inventory, Some(&sbom));
        for (id, package) in inventory.packages.iter().enumerate() {
            assert_eq!(
                standings.package(id),
                Some(&Verdict::Attested),
                "{package:?} {}",
                sbom.format
            );
        }
        assert_eq!(inventory.packages.len(), 4);
        assert_eq!(sbom.file_count(), files, "{}", sbom.format);
        assert_eq!(
            sbom.has_file("/usr/bin/mawk", &Digest::of(b"awk")),
            files > 0,
            "{}",
            sbom.format
        );
    }
}
