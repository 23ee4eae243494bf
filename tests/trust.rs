//! `assay trust`, `assay explain` and `assay verify`, as an administrator and a pipeline use them.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::{Command, Output};

    const POLICY: &str =
        "[[rule]]\nname = \"all\"\nmatch = { image = [\"**\"] }\n[[rule.signature]]\nany = [{ key = \"release\" }]\n";
    const KEYS: &str = "# our keys\n[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\"]\n";
    const ROOT: &str = "[[root]]\nid = \"public-good\"\nbuiltin = \"sigstore\"\n";
    const MANIFEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";

    /// A node with a configuration of its own.
    struct Node {
        _folder: tempfile::TempDir,
        root: PathBuf,
    }

    impl Node {
        fn new(roots: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            let node = Self { _folder: folder, root };
            let here = node.root.display();
            for name in ["trust.d", "policy.d"] {
                fs::create_dir(node.root.join(name)).unwrap();
            }
            let config = format!(
                "state = \"{here}/state\"\nrun = \"{here}/run\"\npolicy = \"{here}/policy.d\"\ntrust = \"{here}/trust.d\"\n"
            );
            node.write("config.toml", &config);
            node.write("trust.d/keys.toml", &format!("{KEYS}{roots}"));
            node.write("trust.d/release.pub", include_str!("../src/trust/testdata/p256.pem"));
            node.write("new.pub", include_str!("../src/trust/testdata/ed25519.pem"));
            node.write("policy.d/50.toml", POLICY);
            node
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.root.join(name), text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.root.join(name)).unwrap()
        }

        /// Writes decisions into the log, as `assay admit` does.
        fn log(&self, decisions: &[serde_json::Value]) {
            let text: Vec<_> = decisions.iter().map(|decision| format!("{decision}\n")).collect();
            self.write("state/decisions.jsonl", &text.concat());
        }

        /// Exit code, standard output, standard error; the node's folder is called NODE in both.
        fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
            let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_assay"))
                .args(arguments)
                .current_dir(&self.root)
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

        /// Standard output of what must succeed.
        fn done(&self, arguments: &[&str]) -> String {
            let (code, out, err) = self.run(arguments);
            assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
            out
        }
    }

    fn decision(container: &str, verdict: &str, code: &str) -> serde_json::Value {
        let digest = MANIFEST;
        serde_json::json!({
            "version": 1, "time": "2026-11-22T05:16:20.327630335Z", "namespace": "k8s.io", "container": container,
            "verdict": verdict, "code": code, "reason": "signed by release", "fix": "", "policy": true,
            "name": "registry.example/prod/web:1.4",
            "image": {
                "name": "registry.example/prod/web:1.4", "config": digest, "manifests": [digest], "indexes": [],
                "chain_id": digest,
            },
            "rule": "all",
            "evidence": [{
                "evidence": digest, "carrier": "bundle-key", "subject": digest, "claim": "image-signature",
                "proof": {
                    "signer": { "key": "release" },
                    "logs": [{ "log": "c0d23d6a", "index": 42, "included": true }],
                    "times": [{ "source": "log", "authority": "c0d23d6a", "time": "2026-01-02T03:04:05Z" }],
                },
            }],
            "repeated": false, "phases": [],
            "basis": {
                "generation": 1, "policy": digest, "kind": "container", "kubernetes_namespace": "prod-a",
                "upper": "/var/lib/containerd/snapshots/7/fs", "blobs": [digest],
            },
        })
    }

    #[test]
    fn a_root_that_is_not_there_is_told_from_one_that_is_no_built_in() {
        let node = Node::new(ROOT);
        let (code, _, err) = node.run(&["trust", "update", "--root", "nope"]);
        assert_eq!(
            (code, err.as_str()),
            (Some(7), "trust.d has no root 'nope'; it has: public-good\n")
        );
    }

    #[test]
    fn who_may_not_read_the_state_is_told_that_root_can() {
        use std::os::unix::fs::PermissionsExt as _;
        use std::os::unix::process::CommandExt as _;
        let node = Node::new("");
        node.done(&["policy", "apply"]);
        fs::set_permissions(&node.root, fs::Permissions::from_mode(0o755)).unwrap();
        let as_nobody = |arguments: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_assay"))
                .args(arguments)
                .current_dir("/")
                .env("ASSAY_CONFIG", node.root.join("config.toml"))
                .uid(65534)
                .gid(65534)
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
        };
        let said = as_nobody(&["trust", "show"]);
        assert!(
            said.contains("only root can see") && !said.contains("policy apply"),
            "{said}"
        );
        for arguments in [&["evidence", "ls"][..], &["policy", "apply"], &["trust", "clock"]] {
            let said = as_nobody(arguments);
            assert!(said.contains("run it as root"), "{arguments:?}: {said}");
        }
    }

    #[test]
    fn keys_come_and_go_and_the_rest_of_the_file_stays() {
        let node = Node::new("");
        node.done(&["policy", "apply"]);
        let out = node.done(&["trust", "add-key", "new", "new.pub", "--use", "image,sbom"]);
        assert_eq!(
            out,
            "key 'new' is in NODE/trust.d/keys.toml\nit is not in force yet; to put it in force: assay policy apply\n"
        );
        assert!(node.read("trust.d/keys.toml").starts_with(KEYS));
        assert_eq!(node.read("trust.d/new.pub"), node.read("new.pub"));
        assert!(node.done(&["trust", "show"]).contains("this is not what is in force"));
        node.done(&["policy", "apply"]);
        assert!(
            node.done(&["trust", "show"])
                .contains("the active policy holds the same")
        );

        let (code, out, err) = node.run(&["trust", "add-key", "new", "new.pub", "--use", "image"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert_eq!(
            err,
            "error: trust has a key 'new' already; choose another id\nnothing was changed\n"
        );
        for arguments in [
            &["trust", "add-key", "x", "new.pub"][..],
            &["trust", "add-key", "x", "new.pub", "--use", "images"],
            &["trust", "add-key", "x", "new.pub", "--use", "image", "--hash", "md5"],
            &["trust", "retire-key", "release", "--digest", "sha256:00"],
            &["trust"],
        ] {
            assert_eq!(node.run(arguments).0, Some(2), "{arguments:?}");
        }

        node.log(&[
            decision("web", "allow", "signature-verified"),
            decision("other", "refuse", "no-rule"),
        ]);
        let out = node.done(&["trust", "retire-key", "release"]);
        assert!(
            out.contains("count for 1 digest that this node allowed or you named"),
            "{out}"
        );
        assert!(node.read("trust.d/keys.toml").contains(MANIFEST));
        let out = node.done(&["trust", "distrust-key", "release"]);
        assert!(
            out.starts_with("key 'release' is distrusted in NODE/trust.d/keys.toml\n"),
            "{out}"
        );
        assert!(!node.read("trust.d/keys.toml").contains(MANIFEST));
        assert!(node.read("trust.d/keys.toml").starts_with("# our keys\n"));
        assert_eq!(node.run(&["trust", "distrust-key", "release"]).0, Some(1));
        assert_eq!(node.run(&["trust", "distrust-key", "nobody"]).0, Some(7));
    }

    #[test]
    fn trust_is_shown_to_people_and_programs() {
        let node = Node::new(ROOT);
        let out = node.done(&["trust", "show"]);
        for part in [
            "KEY",
            "release",
            "active",
            "always",
            "ROOT public-good  builtin sigstore",
            "days old",
            "transparency log",
            "https://rekor.sigstore.dev",
            "certificate authority",
            "timestamp authority",
        ] {
            assert!(out.contains(part), "{part} is not in\n{out}");
        }
        let shown: serde_json::Value = serde_json::from_str(&node.done(&["trust", "show", "-o", "json"])).unwrap();
        assert_eq!(shown["in_force"], false);
        assert_eq!(shown["keys"][0]["id"], "release");
        assert_eq!(shown["roots"][0]["as_of"], "2026-10-23T00:00:00Z");
        assert!(shown["roots"][0]["entries"].as_array().unwrap().len() >= 7);
        node.write("trust.d/keys.toml", "[[key]]\n");
        assert_eq!(node.run(&["trust", "show"]).0, Some(1));
    }

    #[test]
    fn the_clock_is_shown_and_reset() {
        let node = Node::new("");
        let out = node.done(&["trust", "clock"]);
        assert!(out.starts_with("this node's clock "), "{out}");
        node.write(
            "state/clock",
            r#"{"version":1,"time":"2999-01-01T00:00:00Z","source":"a log \u001b[2J"}"#,
        );
        let (code, out, err) = node.run(&["trust", "clock"]);
        assert_eq!(code, Some(1));
        assert!(out.contains(r"2999-01-01T00:00:00Z (a log \u{1b}[2J)"), "{out}");
        assert!(
            err.contains("the clock is behind") && err.contains("assay trust clock --reset"),
            "{err}"
        );
        let out = node.done(&["trust", "clock", "--reset"]);
        assert!(out.starts_with("forgot that 2999-01-01T00:00:00Z"), "{out}");
        node.done(&["trust", "clock"]);
        node.write("state/clock", "{");
        assert_eq!(node.run(&["trust", "clock"]).0, Some(8));
        let out = node.done(&["trust", "clock", "--reset"]);
        assert!(
            out.starts_with("removed the record of the latest known time: "),
            "{out}"
        );
    }

    #[test]
    fn an_update_that_fails_leaves_everything_as_it_was() {
        let node = Node::new(ROOT);
        node.done(&["policy", "apply"]);
        let before = node.read("state/active/policy.json");
        fs::create_dir(node.root.join("empty")).unwrap();
        let (code, out, err) = node.run(&["trust", "update", "--from", "empty"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert_eq!(
            err,
            "error[tuf-unreachable]: root 'public-good': the TUF repository cannot be read: empty holds no \
             timestamp.json: it is no copy of a TUF repository\nroot 'public-good' stays as it was\n"
        );
        assert_eq!(node.read("state/active/policy.json"), before);
        assert_eq!(
            node.run(&["trust", "update", "--from", "empty", "--root", "other"]).0,
            Some(7)
        );
        let without = Node::new("");
        assert_eq!(without.run(&["trust", "update"]).0, Some(7));
        let two = Node::new(&format!("{ROOT}[[root]]\nid = \"github\"\nbuiltin = \"github\"\n"));
        assert_eq!(two.run(&["trust", "update", "--from", "empty"]).0, Some(2));
    }

    #[test]
    fn a_decision_is_explained_and_checked_again() {
        let node = Node::new("");
        node.done(&["policy", "apply"]);
        assert_eq!(node.done(&["explain"]), "nothing was decided on this node yet\n");
        node.log(&[
            decision("web", "refuse", "no-rule"),
            decision("web", "allow", "signature-verified"),
        ]);
        let list = node.done(&["explain"]);
        let id = list.lines().last().unwrap().split(' ').next().unwrap().to_owned();
        assert_eq!(id.len(), 12);
        let text = node.done(&["explain", "web"]);
        assert_eq!(node.done(&["explain", &id]), text);
        let shown = text
            .replace(&id, "ID")
            .replace(MANIFEST, "DIGEST")
            .replace(&MANIFEST[7..], "HEX");
        insta::assert_snapshot!(shown, @r#"
        decision ID of 2026-11-22T05:16:20.327630335Z
        allowed: signature-verified: signed by release
          container       k8s.io/web
          asked for       registry.example/prod/web:1.4
          rule            "all"
          policy          generation 1 (DIGEST)
          image signature
            carried by    bundle-key DIGEST
            signed by     key release
            log entry     42 in log c0d23d6a, included
            signed at     2026-01-02T03:04:05Z says log c0d23d6a
            subject       DIGEST
          manifest        DIGEST
          configuration   DIGEST
          layers          chain DIGEST
          writes go to    /var/lib/containerd/snapshots/7/fs
        checked again now, without containerd:
          evidence        0 of 1 blobs are there, unchanged
                          DIGEST: cannot open blobs/sha256/HEX: No such file or directory (os error 2)
          policy          another one was activated since
          verdict         it would be refused today: evidence-cache-empty: a signature by release of DIGEST is required, and the evidence cache is empty
          to fix          assay evidence pull IMAGE, or: assay evidence import PATH, with a PATH that holds such a signature
        "#);
        let json: serde_json::Value = serde_json::from_str(&node.done(&["explain", &id, "-o", "json"])).unwrap();
        assert_eq!(json["id"], id.as_str());
        assert_eq!(json["decision"]["code"], "signature-verified");
        assert_eq!(json["recheck"]["decision"]["verdict"], "refuse");
        assert_eq!(json["recheck"]["lost"].as_array().unwrap().len(), 1);
        let (code, _, err) = node.run(&["explain", "nobody"]);
        assert_eq!(code, Some(7));
        assert!(err.contains("is neither a code nor a line or container"), "{err}");
    }

    #[test]
    fn a_log_that_someone_wrote_into_commands_no_terminal() {
        let node = Node::new("");
        node.done(&["policy", "apply"]);
        let mut forged = decision("web", "refuse", "no-rule");
        for field in ["name", "reason", "fix", "rule", "container", "time"] {
            forged[field] = "a\u{1b}]0;owned\u{7}\n\u{202e}allowed".into();
        }
        forged["evidence"][0]["claim"] = serde_json::json!({ "attestation": "\u{1b}[2J" });
        node.log(&[decision("web", "refuse", "no-rule"), forged]);
        node.write(
            "state/decisions.jsonl.1",
            &format!("half a line\n{}\n", "x".repeat(3 << 20)),
        );
        let (code, list, err) = node.run(&["explain"]);
        assert_eq!(code, Some(0));
        assert!(err.contains("2 lines of the decision log are no decisions"), "{err}");
        let id = list.lines().last().unwrap().split(' ').next().unwrap().to_owned();
        let text = node.done(&["explain", &id]);
        for shown in [&list, &text, &err] {
            assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{shown:?}");
        }
    }

    #[test]
    fn a_code_is_explained_without_a_log() {
        let node = Node::new("");
        assert_eq!(
            node.done(&["explain", "clock-unreadable"]),
            "clock-unreadable (The node): the record of the latest known time is damaged\n  to fix: `assay trust clock --reset`\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&node.done(&["explain", "threshold", "-o", "json"])).unwrap();
        assert_eq!(json["about"], "What `check` and `apply` complain about");
        // One of many in a row, one with a digit in it, one of an allow, of a check of the node and of an inventory.
        for code in [
            "bundle-malformed",
            "not-utf8",
            "digest-listed",
            "pause-rule",
            "database-invalid",
        ] {
            let said = node.done(&["explain", code]);
            assert!(said.starts_with(&format!("{code} (")) && said.len() < 400, "{said}");
        }
        assert!(
            node.done(&["explain", "evidence-malformed"])
                .contains("import the evidence again")
        );
        assert!(!node.root.join("state").exists());
    }

    #[test]
    fn verify_says_what_is_wrong_with_its_own_arguments_and_configuration() {
        let node = Node::new("");
        for arguments in [
            &["verify"][..],
            &["verify", ""],
            &["verify", "--namespace", "", "web"],
            &["verify", "--address", "containerd.sock", "web"],
        ] {
            let (code, _, err) = node.run(arguments);
            assert_eq!(code, Some(2), "{arguments:?}");
            assert!(!err.is_empty());
        }
        node.write("config.toml", "stat = \"/x\"\n");
        let (code, out, err) = node.run(&["verify", "-o", "json", "web"]);
        assert_eq!((code, err.as_str()), (Some(1), ""));
        let decision: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&decision["code"], &decision["verdict"]),
            (&"config-invalid".into(), &"refuse".into())
        );
        let (code, out, err) = node.run(&["verify", "web"]);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.starts_with("error[unknown-key]"), "{err}");
    }
}
