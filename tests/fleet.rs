//! A fleet's policy: packed by Assay, pushed by oras, signed by cosign, taken by nodes from a registry and from files; and
//! what whoever controls the registry or the file can try.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use registry::Registry;

#[path = "dashboard/mod.rs"]
mod dashboard;
#[path = "pki/mod.rs"]
mod pki;
#[allow(dead_code, reason = "only the registry itself is needed")]
#[path = "cosign/registry.rs"]
mod registry;

const EXPIRES: &str = "2199-01-01T00:00:00Z";
const PATIENCE: Duration = Duration::from_secs(60);
const PINNED: &str = "[[key]]\nid = 'fleet'\nfile = 'fleet.pub'\nuse = ['policy']\n";
const RULE: &str =
    "[[rule]]\nname = 'release'\nmatch = { image = ['**'] }\n[[rule.signature]]\nany = [{ key = 'release' }]\n";

/// A security team: keys, a registry, and a folder of policy.
struct Team {
    folder: tempfile::TempDir,
    registry: Registry,
}

impl Team {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::start(folder.path());
        let team = Self { folder, registry };
        for key in ["policy", "release", "stranger", "next"] {
            team.shell(&format!("make_key {}", team.path(key).display()));
        }
        for name in ["fleet/policy.d", "fleet/trust.d"] {
            fs::create_dir_all(team.path(name)).unwrap();
        }
        team.write("fleet/policy.d/50-release.toml", RULE);
        team.write(
            "fleet/trust.d/release.toml",
            "[[key]]\nid = 'release'\nfile = 'release.pub'\nuse = ['image']\n",
        );
        fs::copy(team.path("release.pub"), team.path("fleet/trust.d/release.pub")).unwrap();
        // What every node has of its own.
        fs::create_dir(team.path("own")).unwrap();
        team.write("own/fleet.toml", PINNED);
        fs::copy(team.path("policy.pub"), team.path("own/fleet.pub")).unwrap();
        team.write("config.toml", &format!("trust = \"{}\"\n", team.path("own").display()));
        team
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn name(&self, tag: &str) -> String {
        format!("{}/policy:{tag}", self.registry.address)
    }

    /// Runs a script with the tools and the functions of tests/setup/signing.sh; answers what it prints.
    fn shell(&self, script: &str) -> String {
        let root = env!("CARGO_MANIFEST_DIR");
        let script = format!(
            "set -euo pipefail; fail() {{ echo \"$*\" >&2; exit 1; }}; TOOLS={root}/target/tools; . {root}/tests/setup/signing.sh\n{script}"
        );
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(self.folder.path())
            .env("WORK", self.folder.path())
            .env("REGISTRY", &self.registry.address)
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Packs the folder and pushes it under the tag `tag`. Answers the digest.
    fn push(&self, version: u64, tag: &str) -> String {
        let number = version.to_string();
        let tar = self.path(&format!("{tag}.tar"));
        let packed = said(
            &Command::new(env!("CARGO_BIN_EXE_assay"))
                .args([
                    "policy",
                    "pack",
                    "fleet",
                    "--version",
                    &number,
                    "--expires",
                    EXPIRES,
                    "--output",
                ])
                .arg(&tar)
                .current_dir(self.folder.path())
                .env("ASSAY_CONFIG", self.path("config.toml"))
                .output()
                .unwrap(),
        );
        assert_eq!(packed.code, 0, "{}{}", packed.out, packed.err);
        self.shell(&format!(
            "oras copy --from-oci-layout --to-plain-http {}:{version} {} >/dev/null",
            tar.display(),
            self.name(tag)
        ));
        let digest = packed.out.split_whitespace().find(|word| word.starts_with("sha256:"));
        digest.unwrap().trim_end_matches(';').to_owned()
    }

    /// Signs what is under the tag and answers a layout with it and its signatures.
    fn sign(&self, key: &str, tag: &str, digest: &str) -> PathBuf {
        let layout = self.path(&format!("{tag}-{}-by-{key}", &digest[7..15]));
        self.shell(&format!(
            "sign {}.key policy:{tag} {digest} {}",
            self.path(key).display(),
            layout.display()
        ));
        layout
    }

    /// Packs, pushes and signs.
    fn publish(&self, version: u64, tag: &str, key: &str) -> PathBuf {
        let digest = self.push(version, tag);
        self.sign(key, tag, &digest)
    }

    /// Pushes an artifact of a policy's type whose layer is `layer`, and signs it. Answers its layout.
    fn forge(&self, tag: &str, version: &str, layer: &Path) -> PathBuf {
        let kind = "application/vnd.assay.policy.v1";
        self.shell(&format!(
            "cd {folder}; oras push --plain-http --artifact-type {kind} --annotation dev.assay.policy.version={version} \
             --annotation dev.assay.policy.expires={EXPIRES} {name} {layer}:{kind}.tar >/dev/null",
            folder = layer.parent().unwrap().display(),
            name = self.name(tag),
            layer = layer.file_name().unwrap().to_str().unwrap(),
        ));
        let digest = self.shell(&format!("oras resolve --plain-http {}", self.name(tag)));
        self.sign("policy", tag, digest.trim())
    }
}

/// A node whose trust is the team's policy key, and a release key of another use.
struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    fn new(team: &Team) -> Self {
        let node = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for name in ["policy.d", "trust.d"] {
            fs::create_dir(node.path(name)).unwrap();
        }
        let setting = |(key, name): (&str, &str)| format!("{key} = \"{}\"\n", node.path(name).display());
        let mut config: String = [
            ("state", "state"),
            ("run", "run"),
            ("policy", "policy.d"),
            ("trust", "trust.d"),
            ("closure", "closure.d"),
            ("seccomp", "seccomp.d"),
        ]
        .map(setting)
        .concat();
        config.push_str(&format!("policy_from = \"{}\"\n", team.name("prod")));
        node.write("config.toml", &config);
        node.write("trust.d/fleet.toml", PINNED);
        fs::copy(team.path("policy.pub"), node.path("trust.d/fleet.pub")).unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command.args(words).env("ASSAY_CONFIG", self.path("config.toml"));
        command.env("DOCKER_CONFIG", self.path("none"));
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        said(&self.command(words).output().unwrap())
    }

    fn from(&self, path: &Path) -> Said {
        self.run(&["policy", "apply", "--from", path.to_str().unwrap()])
    }

    fn pull(&self) -> Said {
        self.run(&["policy", "pull", "--plain-http"])
    }

    /// The document in force, or nothing.
    fn active(&self) -> Option<serde_json::Value> {
        let bytes = fs::read(self.path("state/active/policy.json")).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// Whether taking `path` is refused with this code and leaves everything as it was.
    fn refuses(&self, path: &Path, code: &str) {
        let before = (self.active(), fs::read(self.path("state/fleet/kept.json")).ok());
        let said = self.from(path);
        assert_ne!(said.code, 0, "{}: {}", path.display(), said.out);
        assert!(said.err.contains(&format!("error[{code}]")), "{code}: {}", said.err);
        let after = (self.active(), fs::read(self.path("state/fleet/kept.json")).ok());
        assert!(before == after, "{code}");
        // Nothing of it stays behind.
        let applied = self.run(&["policy", "apply"]);
        assert_eq!(self.active(), before.0, "{}", applied.err);
    }
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn said(output: &Output) -> Said {
    Said {
        code: output.status.code().unwrap(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

fn rules(active: &serde_json::Value) -> Vec<&str> {
    let rules = active["rules"].as_array().unwrap();
    rules.iter().map(|rule| rule["name"].as_str().unwrap()).collect()
}

#[test]
fn a_node_takes_what_its_fleet_signed_from_a_registry_and_from_a_file() {
    let team = Team::new();
    let file = team.publish(1, "prod", "policy");
    let node = Node::new(&team);
    // What belongs to this node alone, in its place among the fleet's.
    node.write(
        "policy.d/10-pause.toml",
        &format!(
            "[[rule]]\nname = 'pause'\nmatch = {{ kind = 'sandbox' }}\ndigest = ['sha256:{}']\n",
            "0".repeat(64)
        ),
    );
    let said = node.pull();
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(
        said.out.contains("version 1") && said.out.contains("signed by fleet"),
        "{}",
        said.out
    );
    let active = node.active().unwrap();
    assert_eq!(rules(&active), ["pause", "release"]);
    let keys: Vec<&str> = active["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["id"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["fleet", "release"]);
    // Again, and as an administrator's own change is put in force: nothing of the fleet's goes.
    let again = node.pull();
    assert!(
        again.out.contains("as before") && again.out.contains("nothing changed"),
        "{}",
        again.out
    );
    assert!(node.run(&["policy", "apply"]).out.contains("nothing changed"));
    assert_eq!(node.active().unwrap(), active);
    // Without a network, by the same artifact.
    let offline = Node::new(&team);
    let said = offline.from(&file);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert_eq!(rules(&offline.active().unwrap()), ["release"]);
    // The state is root's alone.
    let mode = fs::metadata(offline.path("state/fleet")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    // A newer version takes the place of the older one, of which nothing is left.
    let more = RULE
        .replace("'release'\nmatch", "'more'\nmatch")
        .replace("'**'", "'registry.example/**'");
    team.write("fleet/policy.d/40-more.toml", &more);
    let newer = team.publish(2, "prod", "policy");
    assert_eq!(node.pull().code, 0);
    assert_eq!(rules(&node.active().unwrap()), ["pause", "more", "release"]);
    let folders = fs::read_dir(node.path("state/fleet")).unwrap();
    let folders = folders.filter(|entry| entry.as_ref().unwrap().file_name().len() == 64);
    assert_eq!(folders.count(), 1);
    let tar = team.path("newer.tar");
    team.shell(&format!(
        "tar --create --file {} --directory {} .",
        tar.display(),
        newer.display()
    ));
    let said = offline.from(&tar);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
}

#[test]
fn what_is_packed_is_sound_and_always_the_same() {
    let team = Team::new();
    let pack = |expires: &str, output: &str| {
        said(
            &Command::new(env!("CARGO_BIN_EXE_assay"))
                .args([
                    "policy",
                    "pack",
                    "fleet",
                    "--version",
                    "7",
                    "--expires",
                    expires,
                    "--output",
                    output,
                ])
                .current_dir(team.folder.path())
                .env("ASSAY_CONFIG", team.path("config.toml"))
                .output()
                .unwrap(),
        )
    };
    assert_eq!(pack(EXPIRES, "a.tar").code, 0);
    assert_eq!(pack(EXPIRES, "b.tar").code, 0);
    assert_eq!(
        fs::read(team.path("a.tar")).unwrap(),
        fs::read(team.path("b.tar")).unwrap()
    );
    let past = pack("2020-01-01T00:00:00Z", "c.tar");
    assert!(past.code == 1 && past.err.contains("has passed"), "{}", past.err);
    team.write(
        "fleet/policy.d/50-release.toml",
        &RULE.replace("'release' }", "'nobody' }"),
    );
    let wrong = pack(EXPIRES, "c.tar");
    assert!(wrong.code == 1 && wrong.err.contains("key-unknown"), "{}", wrong.err);
    assert!(!team.path("c.tar").exists());
}

#[test]
fn nothing_is_taken_that_the_fleet_did_not_sign() {
    let team = Team::new();
    let node = Node::new(&team);
    // A key that this node trusts, but with images.
    node.write(
        "trust.d/images.toml",
        "[[key]]\nid = 'images'\nfile = 'images.pub'\nuse = ['image', 'provenance', 'sbom', 'vex', 'grant', 'profile']\n",
    );
    fs::copy(team.path("next.pub"), node.path("trust.d/images.pub")).unwrap();
    let digest = team.push(1, "prod");
    let unsigned = team.path("unsigned");
    team.shell(&format!(
        "oras copy --recursive --from-plain-http --to-oci-layout {} {}:1 >/dev/null",
        team.name("prod"),
        unsigned.display()
    ));
    node.refuses(&unsigned, "fleet-unsigned");
    let said = node.pull();
    assert!(
        said.code == 5 && said.err.contains("error[fleet-unsigned]"),
        "{}",
        said.err
    );

    let stranger = team.sign("stranger", "prod", &digest);
    node.refuses(&stranger, "fleet-unsigned");
    assert!(node.pull().err.contains("key-unknown"));
    let other_use = team.sign("next", "prod", &digest);
    node.refuses(&other_use, "fleet-unsigned");
    assert!(node.pull().err.contains("key-use"), "{}", node.pull().err);
    // The other way round: the fleet's key signs no image.
    let signed = team.sign("policy", "prod", &digest);
    assert_eq!(node.from(&signed).code, 0);
    // A signature of one version beside another one.
    team.write(
        "fleet/policy.d/50-release.toml",
        &RULE.replace("'**'", "'registry.example/**'"),
    );
    let next = team.push(2, "second");
    let mixed = team.path("mixed");
    team.shell(&format!(
        "oras copy --from-plain-http --to-oci-layout {} {mixed}:2 >/dev/null; cp --no-clobber {}/blobs/sha256/* {mixed}/blobs/sha256/",
        team.name("second"),
        signed.display(),
        mixed = mixed.display()
    ));
    node.refuses(&mixed, "fleet-unsigned");
    // Denied is denied here too.
    node.write("policy.d/00-deny.toml", "[[deny]]\nkey = ['fleet']\n");
    assert_eq!(node.run(&["policy", "apply"]).code, 0);
    node.refuses(&team.sign("policy", "second", &next), "fleet-unsigned");
}

#[test]
fn nothing_older_and_nothing_else_is_taken() {
    let team = Team::new();
    let node = Node::new(&team);
    let first = team.publish(1, "first", "policy");
    team.write(
        "fleet/policy.d/50-release.toml",
        &RULE.replace("'**'", "'registry.example/**'"),
    );
    let second = team.publish(2, "prod", "policy");
    team.write(
        "fleet/policy.d/50-release.toml",
        &RULE.replace("'**'", "'other.example/**'"),
    );
    let other_second = team.publish(2, "other", "policy");
    let third = team.publish(3, "third", "policy");
    assert_eq!(node.from(&first).code, 0);
    assert_eq!(node.from(&second).code, 0);
    node.refuses(&first, "fleet-rollback");
    node.refuses(&other_second, "fleet-replaced");
    team.shell(&format!("oras tag --plain-http {} prod >/dev/null", team.name("first")));
    let said = node.pull();
    assert!(
        said.code == 3 && said.err.contains("error[fleet-rollback]"),
        "{}",
        said.err
    );

    // Time passes, as this node knows from others: what it keeps stays, and says so; nothing expired is taken anew.
    node.write(
        "state/clock",
        r#"{"version":1,"time":"2200-01-01T00:00:00Z","source":"a test"}"#,
    );
    let active = node.active();
    node.refuses(&third, "fleet-expired");
    let said = node.from(&second);
    assert!(
        said.code == 0 && said.err.contains("has expired"),
        "{}{}",
        said.out,
        said.err
    );
    assert_eq!(node.active(), active);
}

#[test]
fn nothing_broken_is_taken() {
    let team = Team::new();
    let node = Node::new(&team);
    let sound = team.publish(1, "prod", "policy");
    team.write(
        "fleet/policy.d/50-release.toml",
        &RULE.replace("'**'", "'registry.example/**'"),
    );
    let newer = team.publish(2, "second", "policy");
    assert_eq!(node.from(&sound).code, 0);
    // The manifest of one with the layer of another.
    let layer = |layout: &Path| -> PathBuf {
        let largest = fs::read_dir(layout.join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        largest.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
    };
    let mixed = team.path("mixed");
    team.shell(&format!("cp --recursive {} {}", newer.display(), mixed.display()));
    fs::copy(layer(&sound), layer(&mixed)).unwrap();
    node.refuses(&mixed, "fleet-incomplete");
    fs::remove_file(layer(&mixed)).unwrap();
    node.refuses(&mixed, "fleet-incomplete");
    // Cut short, on the way and at its end.
    let tar = team.path("cut.tar");
    team.shell(&format!(
        "tar --create --file {} --directory {} .",
        tar.display(),
        newer.display()
    ));
    let whole = fs::read(&tar).unwrap();
    let content = fs::read(layer(&newer)).unwrap();
    let start = whole.windows(content.len()).position(|bytes| bytes == content).unwrap();
    // Within a file: where one ends, what is missing is a file, not a part of the tar.
    for length in [start + content.len() / 2, 100, 0] {
        fs::write(&tar, &whole[..length]).unwrap();
        node.refuses(&tar, "fleet-unreachable");
    }
    // Two at once, and none.
    let both = team.path("both");
    team.shell(&format!(
        "cp --recursive {} {both}; oras copy --from-oci-layout --to-oci-layout {}:prod {both}:prod >/dev/null",
        newer.display(),
        sound.display(),
        both = both.display()
    ));
    node.refuses(&both, "fleet-artifact");
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/images/busybox");
    node.refuses(&image, "fleet-artifact");

    // Signed by the right key, and nothing that a node would take: the signature protects from others, these checks from
    // accidents, and from whoever got hold of the key a little.
    let folder = team.path("forged");
    fs::create_dir_all(folder.join("policy.d")).unwrap();
    fs::write(folder.join("policy.d/50.toml"), RULE).unwrap();
    let forged = folder.join("layer.tar");
    let make = |script: &str| {
        team.shell(&format!("cd {}; rm -f layer.tar; {script}", folder.display()));
    };
    for (tag, script, code) in [
        ("huge", "head --bytes 17M /dev/zero >layer.tar", "fleet-artifact"),
        ("noise", "head --bytes 4096 /dev/urandom >layer.tar", "fleet-artifact"),
        (
            "climbs",
            "tar --create --absolute-names --transform 's|^policy.d/|policy.d/../|' --file layer.tar policy.d/50.toml",
            "fleet-artifact",
        ),
        (
            "elsewhere",
            "tar --create --transform 's|^policy.d|etc|' --file layer.tar policy.d/50.toml",
            "fleet-artifact",
        ),
        (
            "link",
            "ln -sf /etc/passwd policy.d/link.toml; tar --create --file layer.tar policy.d/link.toml",
            "fleet-artifact",
        ),
        (
            "twice",
            "tar --create --file layer.tar policy.d/50.toml policy.d/50.toml",
            "fleet-artifact",
        ),
        // Its rule names a key that nobody has here.
        (
            "unsound",
            "tar --create --file layer.tar policy.d/50.toml",
            "fleet-faulty",
        ),
    ] {
        make(script);
        node.refuses(&team.forge(tag, "9", &forged), code);
    }
    for (tag, version) in [
        ("zero", "0"),
        ("word", "latest"),
        ("below", "-1"),
        ("large", "99999999999999999999"),
    ] {
        node.refuses(&team.forge(tag, version, &forged), "fleet-artifact");
    }
    // And the sound one is still taken.
    assert_eq!(node.from(&newer).code, 0);
}

#[test]
fn the_next_key_is_one_that_the_last_key_signed() {
    let team = Team::new();
    let node = Node::new(&team);
    assert_eq!(node.from(&team.publish(1, "one", "policy")).code, 0);
    let early = team.publish(2, "two", "next");
    node.refuses(&early, "fleet-unsigned");
    // A policy that brings the key that signs it is not signed by a key that the node had.
    let key = "[[key]]\nid = 'next'\nfile = 'next.pub'\nuse = ['policy']\n";
    team.write("fleet/trust.d/next.toml", key);
    fs::copy(team.path("next.pub"), team.path("fleet/trust.d/next.pub")).unwrap();
    node.refuses(&team.publish(3, "three", "next"), "fleet-unsigned");
    // The old key hands over, then the new one takes the old one away.
    let said = node.from(&team.publish(4, "four", "policy"));
    assert_eq!(said.code, 0, "{}", said.err);
    team.write("fleet/policy.d/00-deny.toml", "[[deny]]\nkey = ['fleet']\n");
    let said = node.from(&team.publish(5, "five", "next"));
    assert_eq!(said.code, 0, "{}", said.err);
    node.refuses(&team.publish(6, "six", "policy"), "fleet-unsigned");
}

/// An agent, which ends with the test.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_agent_fetches_it_over_tls_and_raises_an_alarm_when_it_expires() {
    let team = Team::new();
    team.publish(1, "prod", "policy");
    // The same registry with TLS, and a certificate that only those trust who know its authority.
    team.shell(
        "for name in ca tls; do openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr \
         -subj /CN=$name; done >/dev/null 2>&1
         openssl x509 -req -in ca.csr -key ca.key -out ca.pem -days 2 -extfile <(echo basicConstraints=critical,CA:TRUE) 2>/dev/null
         openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out tls.pem -days 2 \
         -extfile <(echo subjectAltName=DNS:localhost) 2>/dev/null
         sed \"s|secret: tests|secret: tests, tls: {certificate: $WORK/tls.pem, key: $WORK/tls.key}|\" registry.yml >tls.yml",
    );
    let log = fs::File::create(team.path("tls.log")).unwrap();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/registry/bin/docker-registry");
    let tls = Command::new(program)
        .arg("serve")
        .arg(team.path("tls.yml"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let _tls = Agent(tls);
    let port = wait_for(|| {
        let said = fs::read_to_string(team.path("tls.log")).unwrap();
        let (_, after) = said.split_once("listening on 127.0.0.1:")?;
        Some(after.split(|c: char| !c.is_ascii_digit()).next()?.to_owned())
    });
    let node = Node::new(&team);
    let config = fs::read_to_string(node.path("config.toml")).unwrap();
    node.write(
        "config.toml",
        &config.replace(&team.registry.address, &format!("localhost:{port}")),
    );
    let agent = node
        .command(&["agent", "--address", node.path("no-containerd").to_str().unwrap()])
        .env("SSL_CERT_FILE", team.path("ca.pem"))
        .stderr(fs::File::create(node.path("agent.log")).unwrap())
        .spawn()
        .unwrap();
    let _agent = Agent(agent);
    let active = wait_for(|| node.active());
    assert_eq!(rules(&active), ["release"]);
    let figures = || -> String {
        let mut stream = std::os::unix::net::UnixStream::connect(node.path("run/agent.sock")).unwrap();
        std::io::Write::write_all(
            &mut stream,
            b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    wait_for(|| {
        figures()
            .contains("assay_refreshes_total{what=\"policy\",result=\"done\"} 1")
            .then_some(())
    });
    wait_for(|| {
        let version = format!("assay_fleet_policy_version{{from=\"localhost:{port}/policy:prod\"}} 1");
        figures().contains(&version).then_some(())
    });
    // It expires: the policy stays in force, and everybody says so.
    let kept = node.path("state/fleet/kept.json");
    let expired = fs::read_to_string(&kept)
        .unwrap()
        .replace(EXPIRES, "2020-01-01T00:00:00Z");
    fs::write(&kept, expired).unwrap();
    wait_for(|| {
        let said = fs::read_to_string(node.path("agent.log")).unwrap();
        said.contains("version 1, expired at 2020-01-01T00:00:00Z; it stays in force")
            .then_some(())
    });
    let figures = figures();
    let answered = dashboard::answered(&figures);
    let mut asked = dashboard::figures();
    asked.retain(|name| name.starts_with("assay_fleet_"));
    assert!(asked.len() == 2 && asked.is_subset(&answered), "{figures}");
    assert_eq!(node.active().unwrap(), active);
}

fn wait_for<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(since.elapsed() < PATIENCE, "it does not come");
        sleep(Duration::from_millis(100));
    }
}
