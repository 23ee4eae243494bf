//! Side by side with cosign: the same image and the same evidence in the same registry, judged by `cosign verify` or
//! `cosign verify-attestation` and by Assay. Nothing counts that cosign refuses.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use assay::digest::Digest;
use pki::{Entry, Fault, IDENTITY, ISSUER, Key, Layer, Leaf, Name, Signed, Signing, Sigstore, Version};
use registry::{REPOSITORY, Registry};

#[path = "../pki/mod.rs"]
mod pki;
mod profile;
mod registry;

const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const SPDX: &str = "https://spdx.dev/Document";
const VEX: &str = "https://openvex.dev/ns/v0.2.0";

/// What cosign accepts and Assay does not; `docs/conformance.md` says why.
const STRICTER: &[&str] = &[
    "SBOM, no type of statement",
    "SBOM, unknown type of statement",
    "attestation by a key, SignaturesTwo, older layout",
    "attestation by the key, logged, older layout",
    "keyless, EntryOfOtherPayload, older layout",
    "keyless, IndexNegative, older layout",
    "keyless, LeafIsAuthority, bundle",
    "keyless, LeafIsAuthority, older layout",
    "keyless, LeafIssuersDisagree, bundle",
    "keyless, LeafWithTwoNames, bundle",
    "keyless, LeafWithTwoNames, older layout",
    "keyless, LeafWithoutCodeSigning, bundle",
    "keyless, LeafWithoutCodeSigning, older layout",
    "keyless, LeafWithoutDigitalSignature, bundle",
    "keyless, LeafWithoutDigitalSignature, older layout",
    "keyless, LeafWithoutKeyUsage, bundle",
    "keyless, LeafWithoutKeyUsage, older layout",
    "signature asked for, SBOM attested",
    "signature by the key, logged, older layout",
    "signature, payload of another kind, older layout",
];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// `cosign verify`, `[[rule.signature]]`.
    Signature,
    /// `cosign verify-attestation --type spdxjson`, `[[rule.sbom]]`.
    Sbom,
}

/// Who has to have signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// The release key, without any log.
    Key,
    /// The release key, with an entry in a log.
    KeyLogged,
    /// The release workflow, with an entry in a log.
    Keyless,
    /// The release workflow, with a timestamp beside the entry in the log.
    KeylessStamped,
}

/// How the evidence is attached.
#[derive(Debug)]
enum Carried {
    Nothing,
    Bundle(String),
    Layer(Layer),
}

#[derive(Debug)]
struct Case {
    name: String,
    question: Question,
    trust: Trust,
    image: Vec<u8>,
    carried: Carried,
    /// `trusted_root.json`.
    root: String,
    genuine: bool,
}

/// Makes the cases.
struct Bench {
    sigstore: Sigstore,
    release: Key,
    stranger: Key,
    cases: Vec<Case>,
}

/// An image and what statements and payloads about it say.
struct Subject {
    image: Vec<u8>,
    hex: String,
}

impl Subject {
    fn new(name: &str) -> Self {
        let image = registry::image(name);
        let hex = Digest::of(&image).hex();
        Self { image, hex }
    }

    fn statement(&self, predicate: &str) -> String {
        pki::statement(&self.hex, predicate)
    }

    fn payload(&self) -> Vec<u8> {
        pki::simple_signing(&self.hex)
    }
}

impl Bench {
    fn new() -> Self {
        Self {
            sigstore: Sigstore::new(),
            release: Key::new(),
            stranger: Key::new(),
            cases: Vec::new(),
        }
    }

    /// A case; `make` is given the digest of the case's own image and that of another one.
    fn case(
        &mut self,
        name: &str,
        question: Question,
        trust: Trust,
        genuine: bool,
        make: impl FnOnce(&Self, &Subject, &Subject) -> Carried,
    ) {
        let (subject, other) = (Subject::new(name), Subject::new(&format!("not {name}")));
        let carried = make(self, &subject, &other);
        self.cases.push(Case {
            name: name.to_owned(),
            question,
            trust,
            image: subject.image,
            carried,
            root: self.sigstore.trusted_root(),
            genuine,
        });
    }

    /// The same evidence as a bundle, and in cosign's older layout.
    fn both(
        &mut self,
        name: &str,
        question: Question,
        trust: Trust,
        genuine: bool,
        make: impl Fn(&Self, &Subject, &Subject, bool) -> Signed,
    ) {
        self.case(
            &format!("{name}, bundle"),
            question,
            trust,
            genuine,
            |bench, subject, other| bundle(&make(bench, subject, other, false)),
        );
        self.case(
            &format!("{name}, older layout"),
            question,
            trust,
            genuine,
            |bench, subject, other| Carried::Layer(make(bench, subject, other, true).layer()),
        );
    }

    fn by(&self, key: &Key) -> Signing<'_> {
        self.sigstore.by_key(key).unlogged()
    }

    /// What is signed by a key alone.
    fn keys(&mut self) {
        use Question::{Sbom, Signature};
        let sign = |signing: &Signing<'_>, about: &Subject, older: bool| {
            if older {
                signing.message(&about.payload())
            } else {
                signing.statement(&about.statement(SIGN))
            }
        };
        for (question, what) in [(Signature, "signature"), (Sbom, "attestation")] {
            let make = move |signing: &Signing<'_>, about: &Subject, older: bool| match question {
                Signature => sign(signing, about, older),
                Sbom => signing.statement(&about.statement(SPDX)),
            };
            self.case(&format!("no {what} at all"), question, Trust::Key, false, |_, _, _| {
                Carried::Nothing
            });
            self.both(
                &format!("{what} by the key"),
                question,
                Trust::Key,
                true,
                |bench, subject, _, older| make(&bench.by(&bench.release), subject, older),
            );
            self.both(
                &format!("{what} by a stranger's key"),
                question,
                Trust::Key,
                false,
                |bench, subject, _, older| make(&bench.by(&bench.stranger), subject, older),
            );
            self.both(
                &format!("{what} of another image"),
                question,
                Trust::Key,
                false,
                |bench, _, other, older| make(&bench.by(&bench.release), other, older),
            );
            self.both(
                &format!("{what} by the key, logged"),
                question,
                Trust::KeyLogged,
                true,
                |bench, subject, _, older| make(&bench.sigstore.by_key(&bench.release), subject, older),
            );
            self.both(
                &format!("{what} by the key, not logged"),
                question,
                Trust::KeyLogged,
                false,
                |bench, subject, _, older| make(&bench.by(&bench.release), subject, older),
            );
        }
        for fault in Fault::OF_ENVELOPE {
            self.both(
                &format!("attestation by a key, {fault:?}"),
                Sbom,
                Trust::Key,
                false,
                |bench, subject, _, _| {
                    let broken = bench.sigstore.breaking(fault);
                    broken
                        .by_key(&bench.release)
                        .unlogged()
                        .statement(&subject.statement(SPDX))
                },
            );
        }
        for fault in [Fault::SignatureAltered, Fault::PayloadAltered] {
            self.case(
                &format!("signature by a key, {fault:?}, older layout"),
                Signature,
                Trust::Key,
                false,
                |bench, subject, _| {
                    let broken = bench.sigstore.breaking(fault);
                    Carried::Layer(
                        broken
                            .by_key(&bench.release)
                            .unlogged()
                            .message(&subject.payload())
                            .layer(),
                    )
                },
            );
        }
        self.both(
            "SBOM asked for, VEX attested",
            Sbom,
            Trust::Key,
            false,
            |bench, subject, _, _| bench.by(&bench.release).statement(&subject.statement(VEX)),
        );
        self.case(
            "SBOM asked for, image signed",
            Sbom,
            Trust::Key,
            false,
            |bench, subject, _| bundle(&bench.by(&bench.release).statement(&subject.statement(SIGN))),
        );
        self.case(
            "signature asked for, SBOM attested",
            Signature,
            Trust::Key,
            false,
            |bench, subject, _| bundle(&bench.by(&bench.release).statement(&subject.statement(SPDX))),
        );
        for (name, from, to) in [
            ("no type of statement", "https://in-toto.io/Statement/v1", ""),
            ("unknown type of statement", "Statement/v1", "Statement/v2"),
            ("digest in upper case", "\"sha256\":\"", "\"SHA256\":\""),
        ] {
            self.case(
                &format!("SBOM, {name}"),
                Sbom,
                Trust::Key,
                false,
                |bench, subject, _| {
                    let statement = subject.statement(SPDX);
                    assert!(statement.contains(from));
                    bundle(&bench.by(&bench.release).statement(&statement.replace(from, to)))
                },
            );
        }
        self.case(
            "signature, payload of another kind, older layout",
            Signature,
            Trust::Key,
            false,
            |bench, subject, _| {
                let payload = String::from_utf8(subject.payload()).unwrap();
                let payload = payload.replace("cosign container image signature", "something else");
                Carried::Layer(bench.by(&bench.release).message(payload.as_bytes()).layer())
            },
        );
    }

    /// What is signed with a certificate, right and with each fault there is.
    fn keyless(&mut self) {
        use Question::{Sbom, Signature};
        self.both(
            "keyless signature",
            Signature,
            Trust::Keyless,
            true,
            |bench, subject, _, older| {
                if older {
                    bench.sigstore.keyless().message(&subject.payload())
                } else {
                    bench.sigstore.keyless().statement(&subject.statement(SIGN))
                }
            },
        );
        self.both(
            "keyless attestation",
            Sbom,
            Trust::Keyless,
            true,
            |bench, subject, _, _| bench.sigstore.keyless().statement(&subject.statement(SPDX)),
        );
        self.case(
            "keyless attestation in Rekor 2",
            Sbom,
            Trust::KeylessStamped,
            true,
            |bench, subject, _| bundle(&bench.sigstore.keyless().rekor2().statement(&subject.statement(SPDX))),
        );
        self.case(
            "keyless attestation, intoto entry",
            Sbom,
            Trust::Keyless,
            true,
            |bench, subject, _| {
                bundle(
                    &bench
                        .sigstore
                        .keyless()
                        .entry(Entry::Intoto002)
                        .statement(&subject.statement(SPDX)),
                )
            },
        );
        let leaves = [
            (
                "another workflow",
                Leaf {
                    names: vec![Name::Uri(IDENTITY.replace("release.yml", "test.yml"))],
                    ..Leaf::default()
                },
            ),
            (
                "an identity that only starts right",
                Leaf {
                    names: vec![Name::Uri(format!("{IDENTITY}x"))],
                    ..Leaf::default()
                },
            ),
            (
                "another issuer",
                Leaf {
                    issuer_v1: Some("https://gitlab.com".to_owned()),
                    issuer_v2: Some("https://gitlab.com".to_owned()),
                    ..Leaf::default()
                },
            ),
        ];
        for (name, leaf) in leaves {
            self.both(
                &format!("keyless attestation by {name}"),
                Sbom,
                Trust::Keyless,
                false,
                |bench, subject, _, _| {
                    bench
                        .sigstore
                        .keyless_as(leaf.clone())
                        .statement(&subject.statement(SPDX))
                },
            );
        }
        self.both(
            "keyless attestation of another image",
            Sbom,
            Trust::Keyless,
            false,
            |bench, _, other, _| bench.sigstore.keyless().statement(&other.statement(SPDX)),
        );
        let good = self.sigstore.clone();
        let everywhere = [
            &Fault::OF_CERTIFICATE[..],
            &Fault::OF_ENTRY,
            &Fault::OF_ENVELOPE,
            &Fault::OF_PROMISE,
        ]
        .concat();
        for fault in everywhere {
            self.sigstore = good.breaking(fault);
            self.both(
                &format!("keyless, {fault:?}"),
                Sbom,
                Trust::Keyless,
                false,
                |bench, subject, _, _| bench.sigstore.keyless().statement(&subject.statement(SPDX)),
            );
        }
        for fault in Fault::OF_PROOF {
            self.sigstore = good.breaking(fault);
            self.case(
                &format!("keyless, {fault:?}"),
                Sbom,
                Trust::Keyless,
                false,
                |bench, subject, _| bundle(&bench.sigstore.keyless().statement(&subject.statement(SPDX))),
            );
        }
        for fault in Fault::OF_TIMESTAMP {
            self.sigstore = good.breaking(fault);
            self.case(
                &format!("keyless, {fault:?}"),
                Sbom,
                Trust::KeylessStamped,
                false,
                |bench, subject, _| bundle(&bench.sigstore.keyless().rekor2().statement(&subject.statement(SPDX))),
            );
        }
        self.sigstore = good;
    }
}

fn bundle(signed: &Signed) -> Carried {
    Carried::Bundle(signed.bundle(Version::V03).to_string())
}

/// Both verdicts on a case.
struct Judge<'a> {
    registry: &'a Registry,
    folder: PathBuf,
}

impl Judge<'_> {
    fn judge(&self, number: usize, case: &Case, release: &str) -> (bool, bool, String) {
        let folder = self.folder.join(number.to_string());
        for name in ["", "home", "policy", "trust", "docker"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        let image = self.registry.image(&case.image);
        match &case.carried {
            Carried::Nothing => {}
            Carried::Bundle(bundle) => self.registry.attach(image, std::slice::from_ref(bundle)),
            Carried::Layer(layer) => self.registry.tag(image, layer),
        }
        fs::write(folder.join("trust/release.pub"), release).unwrap();
        fs::write(folder.join("trust/root.json"), &case.root).unwrap();
        let (cosign, cosign_said) = self.cosign(&folder, case, image);
        let (assay, assay_said) = self.assay(&folder, case, image);
        (cosign, assay, format!("cosign: {cosign_said}\nassay: {assay_said}"))
    }

    fn cosign(&self, folder: &Path, case: &Case, image: Digest) -> (bool, String) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/cosign/bin/cosign");
        let mut command = Command::new(program);
        match case.question {
            Question::Signature => command.arg("verify"),
            Question::Sbom => command.args(["verify-attestation", "--type", "spdxjson"]),
        };
        match case.trust {
            Trust::Key => command.args(["--key", "trust/release.pub", "--insecure-ignore-tlog=true"]),
            Trust::KeyLogged => command.args(["--key", "trust/release.pub"]),
            Trust::Keyless => command.args(["--certificate-identity", IDENTITY, "--certificate-oidc-issuer", ISSUER]),
            Trust::KeylessStamped => command.args([
                "--certificate-identity",
                IDENTITY,
                "--certificate-oidc-issuer",
                ISSUER,
                "--use-signed-timestamps",
            ]),
        };
        command
            .args(["--trusted-root", "trust/root.json", "--allow-http-registry"])
            .arg(format!("{}/{REPOSITORY}@{image}", self.registry.address))
            .current_dir(folder)
            .env_clear()
            .env("HOME", folder.join("home"));
        verdict(&command.output().unwrap())
    }

    fn assay(&self, folder: &Path, case: &Case, image: Digest) -> (bool, String) {
        let signer = match case.trust {
            Trust::Key | Trust::KeyLogged => "{ key = \"release\" }".to_owned(),
            Trust::Keyless | Trust::KeylessStamped => {
                format!("{{ identity = \"{IDENTITY}\", issuer = \"{ISSUER}\", root = \"ours\" }}")
            }
        };
        let table = match case.question {
            Question::Signature => "signature",
            Question::Sbom => "sbom",
        };
        // The older layout holds no proof of inclusion, only the log's promise. Assay verifies it, and does not take it for
        // inclusion where a rule asks for that.
        let log = match (case.trust, &case.carried) {
            (Trust::Key, _) | (Trust::Keyless, Carried::Layer(_)) => "optional",
            _ => "required",
        };
        // A rule must ask for more than an SBOM: that the image is this one goes without saying here.
        let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
        write(
            "policy/rules.toml",
            &format!(
                "[[rule]]\nname = \"all\"\nmatch = {{ image = [\"**\"] }}\nmode = \"enforce\"\ndigest = [\"{image}\"]\n\
                 [[rule.{table}]]\nany = [{signer}]\nlog = \"{log}\"\n"
            ),
        );
        write(
            "trust/trust.toml",
            "[[key]]\nid = \"release\"\nfile = \"release.pub\"\nuse = [\"image\", \"sbom\"]\n
[[root]]\nid = \"ours\"\nfile = \"root.json\"\n",
        );
        let here = folder.canonicalize().unwrap();
        let setting = |name: &str| format!("{name} = \"{}/{name}\"\n", here.display());
        write(
            "config.toml",
            &["state", "run", "policy", "trust"].map(setting).concat(),
        );
        let name = format!("{}/{REPOSITORY}@{image}", self.registry.address);
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
            command
                .args(arguments)
                .env_clear()
                .env("ASSAY_CONFIG", folder.join("config.toml"))
                .env("DOCKER_CONFIG", folder.join("docker"));
            verdict(&command.output().unwrap())
        };
        let (_, pulled) = run(&["evidence", "pull", "--plain-http", &name]);
        if !folder.join("state/evidence/index.json").exists() {
            return (false, pulled);
        }
        write(
            "test.toml",
            &format!(
                "[[test]]\nname = \"it\"\nimage = \"{name}\"\ndigest = \"{image}\"\nevidence = \"state/evidence\"\n\
                 expect = \"allow\"\n"
            ),
        );
        let (accepted, said) = run(&["policy", "test", folder.join("test.toml").to_str().unwrap()]);
        // Anything else than a verdict is a fault of this test.
        assert!(
            said.contains(" it: allow ") || said.contains(" it: refuse "),
            "{said}{pulled}"
        );
        (accepted, said)
    }
}

fn verdict(output: &Output) -> (bool, String) {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), said)
}

#[test]
fn nothing_counts_that_cosign_refuses() {
    let mut bench = Bench::new();
    bench.keys();
    bench.keyless();
    let keep = tempfile::tempdir().unwrap();
    let registry = Registry::start(keep.path());
    let folder = keep.path().join("cases");
    fs::create_dir(&folder).unwrap();
    let judge = Judge {
        registry: &registry,
        folder,
    };
    let release = bench.release.pem();
    let left = Mutex::new(bench.cases.iter().enumerate());
    let judged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((number, case)) = left.lock().unwrap().next() else {
                        return;
                    };
                    let (cosign, assay, said) = judge.judge(number, case, &release);
                    judged.lock().unwrap().push((case, cosign, assay, said));
                }
            });
        }
    });
    let judged = judged.into_inner().unwrap();
    let mut wrong = Vec::new();
    let mut stricter = BTreeSet::new();
    for (case, cosign, assay, said) in &judged {
        if *cosign && !assay {
            stricter.insert(case.name.as_str());
        }
        if case.genuine && !(*cosign && *assay) && !STRICTER.contains(&case.name.as_str()) {
            wrong.push(format!("{}: refused, and it is genuine: {said}", case.name));
        } else if *assay && !case.genuine {
            wrong.push(format!("{}: accepted (by cosign: {cosign}): {said}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(stricter, STRICTER.iter().copied().collect(), "what only cosign accepts");
    let both = judged.iter().filter(|(_, cosign, assay, _)| *cosign && *assay).count();
    println!(
        "{} cases, {both} accepted by both, {} by cosign alone",
        judged.len(),
        stricter.len()
    );
}
