//! `assay policy`, as an administrator and a pipeline use it.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Command, Output};

    const GOOD: &str =
        "[[rule]]\nname = \"all\"\nmatch = { image = [\"**\"] }\n[[rule.signature]]\nany = [{ key = \"release\" }]\n";
    const BAD: &str =
        "[[rule]]\nname = \"all\"\nmatch = { image = [\"**\"] }\n[[rule.signature]]\nany = [{ key = \"relase\" }]\n";

    /// A node with a configuration of its own.
    struct Node {
        _folder: tempfile::TempDir,
        root: PathBuf,
    }

    impl Node {
        fn new(policy: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            let here = root.display();
            for (name, text) in [
                (
                    "config.toml",
                    format!(
                        "state = \"{here}/state\"\npolicy = \"{here}/policy.toml\"\ntrust = \"{here}/keys.toml\"\n"
                    )
                    .as_str(),
                ),
                (
                    "keys.toml",
                    "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\"]\n",
                ),
                ("release.pub", include_str!("../src/trust/testdata/p256.pem")),
                ("policy.toml", policy),
            ] {
                fs::write(root.join(name), text).unwrap();
            }
            Self { _folder: folder, root }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.root.join(name), text).unwrap();
        }

        fn active(&self) -> Option<Vec<u8>> {
            fs::read(self.root.join("state/active/policy.json")).ok()
        }

        /// Exit code, standard output, standard error; the node's folder is called NODE in both.
        fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
            let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_assay"))
                .args(arguments)
                .env("ASSAY_CONFIG", self.root.join("config.toml"))
                .output()
                .unwrap();
            let text = |bytes| {
                String::from_utf8(bytes)
                    .unwrap()
                    .replace(&self.root.display().to_string(), "NODE")
            };
            (status.code(), text(stdout), text(stderr))
        }
    }

    #[test]
    fn apply_puts_a_policy_in_force_and_a_fault_keeps_it() {
        let node = Node::new(GOOD);
        let (code, out, err) = node.run(&["policy", "apply"]);
        assert_eq!((code, err.as_str()), (Some(0), ""));
        assert_eq!(out, "policy generation 1 with 1 rule and 1 key is active\n");
        let before = node.active();
        assert!(before.is_some());

        node.write("policy.toml", BAD);
        let (code, out, err) = node.run(&["policy", "apply"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        insta::assert_snapshot!(err, @r#"
        error[key-unknown]: trust holds no key `relase`
         --> NODE/policy.toml:5:16
          |
        5 | any = [{ key = "relase" }]
          |                ^^^^^^^^
         help: trust holds release

        nothing was activated; whatever policy was in force before still is
        "#);
        assert_eq!(node.active(), before);

        node.write("policy.toml", GOOD);
        let (code, out, _) = node.run(&["policy", "apply"]);
        assert_eq!(code, Some(0));
        assert_eq!(
            out,
            "policy generation 1 with 1 rule and 1 key is active already, nothing changed\n"
        );
        assert_eq!(node.active(), before);
    }

    #[test]
    fn check_changes_nothing() {
        let node = Node::new(GOOD);
        assert_eq!(
            node.run(&["policy", "check"]),
            (
                Some(0),
                "1 rule and 1 key are sound, 0 warnings\n".to_owned(),
                String::new()
            )
        );
        node.write("policy.toml", BAD);
        let (code, out, err) = node.run(&["policy", "check"]);
        assert_eq!((code, out.as_str()), (Some(1), "1 error and 0 warnings\n"));
        assert!(err.contains("NODE/policy.toml:5:16"), "{err}");
        assert_eq!(node.active(), None);
        assert!(!node.root.join("state").exists());
    }

    #[test]
    fn check_tells_programs_the_same() {
        let node = Node::new(BAD);
        let (code, out, err) = node.run(&["policy", "check", "--output", "json"]);
        assert_eq!((code, err.as_str()), (Some(1), ""));
        insta::assert_snapshot!(out, @r#"
        {
          "sound": false,
          "diagnostics": [
            {
              "code": "key-unknown",
              "severity": "error",
              "message": "trust holds no key `relase`",
              "file": "NODE/policy.toml",
              "line": 5,
              "column": 16,
              "label": "",
              "help": "trust holds release"
            }
          ]
        }
        "#);
        node.write("policy.toml", GOOD);
        let (code, out, _) = node.run(&["policy", "check", "--output", "json"]);
        assert_eq!(code, Some(0));
        insta::assert_snapshot!(out, @r#"
        {
          "sound": true,
          "diagnostics": []
        }
        "#);
    }

    /// Evidence about an image that the key `release` signed, in the cache under this name.
    fn signed(node: &Node, name: &str) {
        let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/evidence");
        fs::copy(fixtures.join("keys/p256.pub"), node.root.join("release.pub")).unwrap();
        fs::write(
            node.root.join("stranger.pub"),
            include_str!("../src/trust/testdata/p256.pem"),
        )
        .unwrap();
        node.write(
            "keys.toml",
            "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\"]\n\
             [[key]]\nid = \"stranger\"\nfile = \"stranger.pub\"\nuse = [\"image\"]\n",
        );
        let (code, _, err) = node.run(&["evidence", "import", fixtures.join("oras").to_str().unwrap()]);
        assert_eq!(code, Some(0), "{err}");
        let index = node.root.join("state/evidence/index.json");
        let mut listed: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
        let digest = fs::read_to_string(fixtures.join("manifest.digest")).unwrap();
        let entries = listed["manifests"].as_array_mut().unwrap();
        let image = entries
            .iter_mut()
            .find(|entry| entry["digest"] == digest.trim())
            .unwrap();
        image["annotations"]["dev.assay.evidence.image"] = name.into();
        fs::write(index, listed.to_string()).unwrap();
    }

    #[test]
    fn a_test_without_readable_evidence_fails_whatever_it_expects() {
        let node = Node::new(GOOD);
        signed(&node, "registry.example/app:1");
        fs::create_dir(node.root.join("empty")).unwrap();
        node.write("file.tar", "no layout");
        let digest = format!("sha256:{}", "0".repeat(64));
        let run = |evidence: &str| {
            node.write(
                "tests.toml",
                &format!(
                    "[[test]]\nname = \"unsigned\"\nimage = \"registry.example/app:2\"\ndigest = \"{digest}\"\n\
                     evidence = \"{evidence}\"\nexpect = \"refuse\"\n"
                ),
            );
            node.run(&["policy", "test", node.root.join("tests.toml").to_str().unwrap()])
        };
        let (code, out, err) = run("state/evidence");
        assert_eq!(code, Some(0), "{out}{err}");
        for evidence in ["empty", "file.tar", "nosuch"] {
            let (code, out, _) = run(evidence);
            assert_eq!(code, Some(1), "{evidence}: {out}");
            assert!(out.starts_with("FAILED  unsigned: ") && out.contains(evidence), "{out}");
        }
    }

    #[test]
    fn diff_says_what_another_policy_would_decide_differently() {
        let node = Node::new(GOOD);
        signed(&node, "registry.example/app:1");
        let strangers = GOOD.replace("release", "stranger").replace("\"all\"", "\"strangers\"");
        node.write("new.toml", &strangers);
        let at = |name: &str| node.root.join(name).display().to_string();
        let (old, new) = (at("policy.toml"), at("new.toml"));
        let diff = |words: &[&str]| node.run(&[&["policy", "diff", "--address", "/nonexistent"], words].concat());
        // Nothing is in force yet.
        let (code, out, err) = diff(&["active", &new]);
        assert_eq!((code, out.as_str()), (Some(7), ""));
        assert!(err.starts_with("error[policy-missing]"), "{err}");

        let (code, out, err) = diff(&[&old, &new]);
        assert_eq!(code, Some(3), "{err}");
        insta::assert_snapshot!(out, @r#"
         WHAT   NAMESPACE  IMAGE                   OLD                                NEW
         image  k8s.io     registry.example/app:1  allow signature-verified by "all"  refuse signer-not-wanted by "strangers"
        0 of 0 containers and 1 of 1 image would be decided on differently; 1 of these may run now and would be refused
        "#);
        assert!(err.starts_with("note: containerd"), "{err}");
        assert!(err.contains("its images and containers were not compared"), "{err}");
        assert_eq!(diff(&[&new, &old]).0, Some(1));
        let (code, out, _) = diff(&[&old, &old]);
        assert_eq!(code, Some(0));
        assert_eq!(
            out,
            "0 of 0 containers and 0 of 1 image would be decided on differently\n"
        );

        assert_eq!(node.run(&["policy", "apply"]).0, Some(0));
        let (code, out, err) = diff(&["active", &new, "-o", "json"]);
        assert_eq!((code, err.as_str()), (Some(3), ""));
        let said: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&said["images"], &said["containers"]), (&1.into(), &0.into()));
        let change = &said["changes"][0];
        assert_eq!(change["image"], "registry.example/app:1");
        assert_eq!(
            (&change["old"]["verdict"], &change["old"]["rule"]),
            (&"allow".into(), &"all".into())
        );
        assert_eq!(change["new"]["code"], "signer-not-wanted");
        assert_eq!(said["not_compared"].as_array().unwrap().len(), 2, "{said}");
        // What only audits changes what would be refused, and nothing that runs.
        let audits = strangers.replace("[[rule.signature]]", "mode = \"audit\"\n[[rule.signature]]");
        node.write("new.toml", &audits);
        let (code, out, _) = diff(&["active", &new]);
        assert_eq!(code, Some(1), "{out}");
        assert!(
            out.contains("allow audit-only, audit \"strangers\" would refuse signer-not-wanted"),
            "{out}"
        );
        // Nothing was recorded, and nothing put in force.
        assert!(!node.root.join("state/decisions.jsonl").exists());

        node.write("new.toml", BAD);
        let (code, out, err) = diff(&["active", &new]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.starts_with("error[key-unknown]"), "{err}");
        let (code, out, err) = diff(&["active", &new, "-o", "json"]);
        assert_eq!((code, err.as_str()), (Some(1), ""));
        assert!(out.contains("\"sound\": false") && out.contains("key-unknown"), "{out}");
        fs::remove_dir_all(node.root.join("state")).unwrap();
        // On a machine that is no node, nothing is made and the rest is still said.
        let (code, out, _) = diff(&[&old, &old]);
        assert_eq!(
            (code, out.as_str()),
            (
                Some(0),
                "0 of 0 containers and 0 of 0 images would be decided on differently\n"
            )
        );
        assert!(!node.root.join("state").exists());
    }

    #[test]
    fn programs_that_read_json_get_json_of_a_broken_configuration() {
        let node = Node::new(GOOD);
        node.write("config.toml", "stat = \"/x\"\n");
        for command in [
            &["policy", "check", "-o", "json"][..],
            &["policy", "check", "--output", "json"],
            &["policy", "diff", "active", "active", "-o", "json"],
        ] {
            let (code, out, err) = node.run(command);
            assert_eq!((code, err.as_str()), (Some(1), ""), "{command:?}");
            let said: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert_eq!(said["sound"], false);
            assert_eq!(said["diagnostics"][0]["code"], "unknown-key");
        }
    }

    #[test]
    fn a_broken_configuration_stops_every_command() {
        let node = Node::new(GOOD);
        node.write("config.toml", "stat = \"/x\"\n");
        let (code, out, err) = node.run(&["policy", "apply"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(
            err.starts_with("error[unknown-key]: config.toml has no key `stat`\n"),
            "{err}"
        );
        fs::remove_file(node.root.join("config.toml")).unwrap();
        let (code, _, err) = node.run(&["policy", "check"]);
        assert_eq!(code, Some(1));
        assert!(err.starts_with("error[unreadable]: NODE/config.toml"), "{err}");
    }

    #[test]
    fn wrong_arguments_are_usage() {
        let node = Node::new(GOOD);
        for arguments in [
            &["policy"][..],
            &["policy", "aply"],
            &["policy", "check", "--output", "xml"],
        ] {
            assert_eq!(node.run(arguments).0, Some(2), "{arguments:?}");
        }
    }
}
