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
