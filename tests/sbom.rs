//! `assay sbom` against a Debian system as mmdebstrap leaves it: the root file system of the nginx image that
//! tests/setup/images builds. What dpkg itself says is the measure.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use serde_json::{Value, json};

    fn target(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(path)
    }

    fn output(command: &mut Command) -> String {
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A configuration of its own, so that nothing of this machine counts.
    fn assay(folder: &Path, arguments: &[&str]) -> Command {
        let here = folder.display();
        let config = folder.join("config.toml");
        fs::write(&config, format!("state = \"{here}/state\"\nrun = \"{here}/run\"\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.arg("sbom").args(arguments).env("ASSAY_CONFIG", config);
        command
    }

    /// The one layer of the nginx image, unpacked.
    fn unpack(root: &Path) {
        let layout = target("images/nginx");
        let read =
            |digest: &Value| -> PathBuf { layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/")) };
        let parse = |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let index = parse(layout.join("index.json"));
        let manifest = parse(read(&index["manifests"][0]["digest"]));
        let layer = read(&manifest["layers"][0]["digest"]);
        output(Command::new("tar").arg("-xzpf").arg(layer).arg("-C").arg(root));
    }

    /// What dpkg says is installed, as an SBOM.
    fn sbom(root: &Path, without: &str) -> Value {
        let list = output(
            Command::new("dpkg-query")
                .arg("--admindir")
                .arg(root.join("var/lib/dpkg"))
                .args(["-W", "-f", "${Package} ${Version} ${Architecture}\n"]),
        );
        let components: Vec<Value> = list
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|fields| fields[0] != without)
            .map(|fields| {
                let version = fields[1].replace('+', "%2B");
                let purl = format!(
                    "pkg:deb/debian/{}@{version}?arch={}&distro=debian-12",
                    fields[0], fields[2]
                );
                json!({ "type": "library", "name": fields[0], "purl": purl })
            })
            .collect();
        json!({ "bomFormat": "CycloneDX", "specVersion": "1.6", "components": components })
    }

    /// Every path that a list of dpkg has, with its package, at its place below `root`; what dpkg diverted left out.
    fn listed(root: &Path) -> BTreeMap<String, String> {
        let mut listed = BTreeMap::new();
        let info = root.join("var/lib/dpkg/info");
        for entry in fs::read_dir(&info).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let Some(package) = name.strip_suffix(".list") else {
                continue;
            };
            let package = package.split(':').next().unwrap();
            for file in fs::read_to_string(&path).unwrap().lines() {
                let at = root.join(file.trim_start_matches('/'));
                let Ok(parent) = at.parent().unwrap().canonicalize() else {
                    continue;
                };
                let Ok(metadata) = fs::symlink_metadata(&at) else {
                    continue;
                };
                // What several packages list as a directory, and a merged /usr made a link, is nobody's alone.
                if !metadata.is_dir() && !at.is_dir() {
                    let parent = parent.strip_prefix(root).unwrap();
                    let place = Path::new("/").join(parent).join(at.file_name().unwrap());
                    listed.insert(place.to_str().unwrap().to_owned(), package.to_owned());
                }
            }
        }
        listed
    }

    #[test]
    fn every_file_of_a_debian_system_is_accounted_for() {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can unpack an image and shut a parser in"
        );
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        fs::create_dir(&root).unwrap();
        unpack(&root);
        let look = |document: &Value| -> Value {
            let file = folder.path().join("sbom.json");
            fs::write(&file, document.to_string()).unwrap();
            let arguments = [
                "--rootfs",
                root.to_str().unwrap(),
                "--file",
                file.to_str().unwrap(),
                "-o",
                "json",
            ];
            serde_json::from_str(&output(&mut assay(folder.path(), &arguments))).unwrap()
        };

        let report = look(&sbom(&root, ""));
        let packages = report["packages"].as_array().unwrap();
        assert!(packages.len() > 50, "{}", packages.len());
        for package in packages {
            assert_eq!(package["verdict"], "attested", "{package}");
        }
        assert_eq!(report["findings"], json!([]));
        println!("coverage: {}", report["coverage"]);
        let owners: BTreeMap<&str, &str> = packages
            .iter()
            .flat_map(|package| {
                let name = package["name"].as_str().unwrap();
                let files = package["files"].as_array().unwrap();
                files.iter().map(move |file| (file.as_str().unwrap(), name))
            })
            .collect();
        let listed = listed(&root);
        assert!(listed.len() > 2000, "{}", listed.len());
        for (path, package) in &listed {
            assert_eq!(owners.get(path.as_str()), Some(&package.as_str()), "{path}");
        }
        let files = output(Command::new("find").arg(&root).args(["-xdev", "-type", "f"]));
        let count =
            |kind: &str| -> BTreeMap<String, u64> { serde_json::from_value(report["coverage"][kind].clone()).unwrap() };
        assert_eq!(count("files").values().sum::<u64>(), files.lines().count() as u64);
        // What no list has: the scripts that dpkg keeps about a package, and two files that mmdebstrap leaves executable.
        for path in report["unattested_executables"]["first"].as_array().unwrap() {
            let path = path.as_str().unwrap();
            let is_known =
                path.starts_with("/var/lib/dpkg/info/") || ["/etc/hostname", "/etc/resolv.conf"].contains(&path);
            assert!(is_known, "{path}");
        }
        assert!(count("executables")["attested"] > 300, "{}", report["coverage"]);

        // One package out of the SBOM: its files, and no others.
        let without = look(&sbom(&root, "mawk"));
        let mawk = packages.iter().find(|package| package["name"] == "mawk").unwrap();
        let of_mawk = mawk["files"].as_array().unwrap().iter();
        let of_mawk: BTreeSet<&str> = of_mawk
            .map(|file| file.as_str().unwrap())
            .filter(|file| !fs::symlink_metadata(root.join(&file[1..])).unwrap().is_dir())
            .collect();
        let mut moved = 0;
        for kind in ["files", "links"] {
            let (before, after) = (&report["coverage"][kind], &without["coverage"][kind]);
            let number = |tally: &Value, standing: &str| tally[standing].as_u64().unwrap();
            assert_eq!(number(before, "attributed"), 0);
            let gone = number(before, "attested") - number(after, "attested");
            assert_eq!(gone, number(after, "attributed"));
            assert_eq!(before["unattested"], after["unattested"]);
            moved += gone;
        }
        assert_eq!(moved, of_mawk.len() as u64);
        let programs = without["attributed_executables"]["first"].as_array().unwrap();
        assert!(programs.contains(&json!("/usr/bin/mawk")));
        assert!(
            programs
                .iter()
                .all(|program| of_mawk.contains(program.as_str().unwrap()))
        );
    }

    #[test]
    fn the_answer_says_what_it_rests_on() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for (path, text) in [
            ("etc/os-release", "ID=debian\nVERSION_ID=12\n"),
            (
                "var/lib/dpkg/status",
                "Package: tool\nStatus: install ok installed\nVersion: 1-1\nArchitecture: amd64\n",
            ),
            ("var/lib/dpkg/info/tool.list", "/usr/bin/tool\n/usr/../../etc/shadow\n"),
            (
                "var/lib/dpkg/info/tool.md5sums",
                "d41d8cd98f00b204e9800998ecf8427e  usr/bin/tool\n",
            ),
            ("usr/bin/tool", "changed"),
            ("srv/\u{1b}[2Japp", "app"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            if !path.starts_with(root.join("var")) {
                output(Command::new("chmod").arg("0755").arg(&path));
            }
        }
        let text = output(&mut assay(folder.path(), &["--rootfs", root.to_str().unwrap()]));
        insta::assert_snapshot!(text.replace(folder.path().to_str().unwrap(), "FOLDER"), @r#"
        FOLDER/root
          distribution  debian 12
          packages      derived from the package database: a directory has no attested SBOM

         PACKAGE  VERSION  KIND  FILES  STANDING
         tool     1-1      deb   1      from the package database

                      ALL  ATTESTED  ATTRIBUTED  DATABASE  UNATTESTED
         files        6    0         0           1         5
         executables  3    0         0           1         2
         links        0    0         0           0         0

        executables that no package owns: 2
          /etc/os-release
          /srv/\u{1b}[2Japp

        files that are not what their package installed: 1
          /usr/bin/tool

        1 finding:
          path-escapes: /var/lib/dpkg/info/tool.list: it lists "/usr/../../etc/shadow", which leads above the root of the image; no package owns that
        "#);
        let missing = assay(folder.path(), &["--rootfs", "/no/such"]).output().unwrap();
        assert_eq!(missing.status.code(), Some(1));
        insta::assert_snapshot!(String::from_utf8_lossy(&missing.stderr), @"/no/such cannot be opened: No such file or directory (os error 2)");
        let usage = assay(folder.path(), &[]).output().unwrap();
        assert_eq!(usage.status.code(), Some(2));
    }
}
