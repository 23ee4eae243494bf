//! `assay grant` as an administrator uses it: with a key that cosign made, on another machine, and wrongly.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    const POLICY: &str =
        "[[rule]]\nname = \"all\"\nmatch = { image = [\"**\"] }\n[[rule.signature]]\nany = [{ key = \"release\" }]\n";
    const DIGEST: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";

    /// A node that trusts a key of cosign's for grants.
    struct Node {
        _folder: tempfile::TempDir,
        root: PathBuf,
    }

    impl Node {
        fn new() -> Self {
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
            let cosign = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cosign/bin/cosign");
            let made = Command::new(cosign)
                .args(["generate-key-pair", "--output-key-prefix", "ops"])
                .current_dir(&node.root)
                .env("COSIGN_PASSWORD", "secret")
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            fs::copy(node.root.join("ops.pub"), node.root.join("trust.d/ops.pub")).unwrap();
            let keys = "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\"]\n\
                        [[key]]\nid = \"ops\"\nfile = \"ops.pub\"\nuse = [\"grant\"]\n";
            for (name, text) in [
                ("config.toml", config.as_str()),
                ("trust.d/keys.toml", keys),
                ("trust.d/release.pub", include_str!("../src/trust/testdata/p256.pem")),
                ("policy.d/50.toml", POLICY),
            ] {
                fs::write(node.root.join(name), text).unwrap();
            }
            assert_eq!(node.run(&["policy", "apply"], "").0, Some(0));
            node
        }

        /// Exit code, standard output, standard error.
        fn run(&self, arguments: &[&str], password: &str) -> (Option<i32>, String, String) {
            let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_assay"))
                .args(arguments)
                .current_dir(&self.root)
                .env("ASSAY_CONFIG", self.root.join("config.toml"))
                .env("COSIGN_PASSWORD", password)
                .output()
                .unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (status.code(), text(stdout), text(stderr))
        }

        fn grant(&self, more: &[&str], password: &str) -> (Option<i32>, String, String) {
            let what = [
                "grant",
                "--image",
                DIGEST,
                "--for",
                "30m",
                "--reason",
                "the mirror is down",
            ];
            self.run(&[what.as_slice(), more].concat(), password)
        }

        fn listed(&self) -> serde_json::Value {
            serde_json::from_str(&self.run(&["grant", "ls", "-o", "json"], "").1).unwrap()
        }
    }

    #[test]
    fn a_key_of_cosigns_signs_with_its_password_and_not_without() {
        let node = Node::new();
        let (code, _, said) = node.grant(&["--key", "ops.key"], "wrong");
        assert_eq!(code, Some(1));
        assert!(said.contains("the password does not open ops.key"), "{said}");
        let (code, out, said) = node.grant(&["--key", "ops.key"], "secret");
        assert_eq!(code, Some(0), "{said}");
        assert!(
            out.contains("opens start of image sha256:") && out.contains(", until 2"),
            "{out}"
        );
        let listed = node.listed();
        let field = |name: &str| listed[0][name].as_str();
        assert_eq!((field("state"), field("key")), (Some("active"), Some("ops")));
        let (_, told, _) = node.run(&["decisions"], "");
        assert!(
            told.contains("added: start of image") && told.contains("the mirror is down"),
            "{told}"
        );
    }

    #[test]
    fn what_was_signed_on_another_machine_is_added_on_the_nodes_it_is_for() {
        let node = Node::new();
        for (name, scope) in [("fleet", &["--fleet"][..]), ("other", &["--node", "elsewhere"][..])] {
            let more = [&["--key", "ops.key", "-o", name][..], scope].concat();
            let (code, _, said) = node.grant(&more, "secret");
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("assay grant add "), "{said}");
        }
        assert_eq!(node.listed(), serde_json::json!([]));
        let (code, _, said) = node.run(&["grant", "add", "other"], "");
        assert_eq!(code, Some(1));
        assert!(said.contains("error[grant-node]: it is for node 'elsewhere'"), "{said}");
        assert_eq!(node.run(&["grant", "add", "fleet"], "").0, Some(0));
        let (code, _, said) = node.run(&["grant", "add", "fleet"], "");
        assert_eq!(code, Some(1));
        assert!(said.contains("error[grant-present]"), "{said}");

        // By a key that never leaves its device.
        let (code, _, said) = node.grant(&["--unsigned", "-o", "message"], "");
        assert_eq!(code, Some(0), "{said}");
        let cosign = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cosign/bin/cosign");
        let signed = Command::new(cosign)
            .args([
                "sign-blob",
                "--key",
                "ops.key",
                "--yes",
                "--tlog-upload=false",
                "--use-signing-config=false",
            ])
            .args([
                "--new-bundle-format=false",
                "--output-signature",
                "signature",
                "message",
            ])
            .current_dir(&node.root)
            .env("COSIGN_PASSWORD", "secret")
            .output()
            .unwrap();
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        let (code, _, said) = node.run(&["grant", "add", "message", "--signature", "signature"], "");
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(node.listed().as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_command_line_that_leaves_something_open_is_not_run() {
        let node = Node::new();
        let all = ["--image", DIGEST, "--for", "30m", "--reason", "why", "--key", "ops.key"];
        for (missing, pair) in [("--image", 0), ("--for", 2), ("--reason", 4), ("--key", 6)] {
            let mut arguments = vec!["grant"];
            arguments.extend(
                all.iter()
                    .enumerate()
                    .filter(|(at, _)| at / 2 != pair / 2)
                    .map(|(_, word)| *word),
            );
            let (code, _, said) = node.run(&arguments, "secret");
            assert_eq!(code, Some(2), "{missing}: {said}");
        }
        for (option, value) in [("--for", "25h"), ("--for", "soon"), ("--for", "0s"), ("--for", "-5m")] {
            let arguments = [
                "grant", "--image", DIGEST, "--reason", "why", "--key", "ops.key", option, value,
            ];
            assert_eq!(node.run(&arguments, "secret").0, Some(2), "{value}");
        }
        assert_eq!(node.run(&["grant"], "").0, Some(2));
        let (code, _, said) = node.run(&["grant", "revoke", "0123"], "");
        assert_eq!(code, Some(7), "{said}");
        assert_eq!(node.listed(), serde_json::json!([]));
    }
}
