//! Policy and trust read together, with the checks that need more than one file.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::activate::VERSION;
use super::schema::{self, Named, SourcePolicy, SourceRule};
use super::{Active, Deny, Mode, Rule, Sources, Tuning, diags};
use crate::closure::Rules;
use crate::diagnostic::{self, Diagnostic, Place, Severity};
use crate::trust::{self, Builder, Key, Root, SourceFile, Trust, TrustStore};

/// Policy and trust that hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The files they were made from.
    pub sources: Vec<SourceFile>,
    /// Keys of trust.
    pub keys: Vec<Key>,
    /// Builders of trust.
    pub builders: Vec<Builder>,
    /// Trust stores of the Notary Project.
    pub notation: Vec<TrustStore>,
    /// Trusted roots of trust.
    pub roots: Vec<Root>,
    /// The revocation list.
    pub deny: Deny,
    /// Rules in the order in which they are searched.
    pub rules: Vec<Rule>,
    /// Further rules of the closure, file by file: its path and its text.
    pub closure: Vec<(String, String)>,
    /// Tunings of seccomp profiles, none before [`Checked::tuned`].
    pub tunings: Vec<Tuning>,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

impl Checked {
    /// The policy as it would be in force.
    #[must_use]
    pub fn into_active(self, generation: u64, time: Timestamp) -> Active {
        Active {
            closure: self.closure,
            version: VERSION,
            generation,
            time,
            sources: self.sources,
            keys: self.keys,
            roots: self.roots,
            builders: self.builders,
            notation: self.notation,
            deny: self.deny,
            rules: self.rules,
            tunings: self.tunings,
        }
    }
}

/// Reads policy, trust, the closure's rules and the tunings of profiles, and checks everything that can be wrong with them.
///
/// # Errors
/// Everything that is wrong, warnings included.
pub fn check(sources: &Sources) -> Result<Checked, Vec<Diagnostic>> {
    rules(sources)?.tuned(&sources.seccomp, Timestamp::now())
}

/// All but the tunings.
fn rules(places: &Sources) -> Result<Checked, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let trust = match trust::load(&places.trust) {
        Ok(mut trust) => {
            found.append(&mut trust.warnings);
            Some(trust)
        }
        Err(faults) => {
            found.extend(faults);
            None
        }
    };
    let closure = Rules::files(&places.closure)
        .and_then(|files| Rules::with(&files).map(|_| files))
        .unwrap_or_else(|faults| {
            found.extend(faults);
            Vec::new()
        });
    let (read, mut sources) = read(&places.policy, &mut found);
    let readable = found.iter().all(|diagnostic| diagnostic.severity == Severity::Warning);
    if readable && read.rules.is_empty() {
        found.push(diags::no_rules(places.policy.first()));
    }
    check_names(&read.rules, &mut found);
    check_reach(&read.rules, &mut found);
    // Without trust every key would be unknown.
    if let Some(trust) = &trust {
        check_trust(&read, trust, &mut found);
    }
    let errors = found.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match trust {
        Some(trust) if !errors => {
            sources.extend(trust.files);
            sources.extend(
                closure
                    .iter()
                    .map(|(path, text)| SourceFile::new(Path::new(path), text.as_bytes())),
            );
            Ok(Checked {
                sources,
                keys: trust.keys,
                builders: trust.builders,
                notation: trust.notation,
                roots: trust.roots,
                deny: read.deny,
                rules: read.rules.into_iter().map(|read| read.rule).collect(),
                closure,
                tunings: Vec::new(),
                warnings: found,
            })
        }
        _ => Err(found),
    }
}

fn read(places: &[PathBuf], found: &mut Vec<Diagnostic>) -> (SourcePolicy, Vec<SourceFile>) {
    let mut policy = SourcePolicy::default();
    let mut sources = Vec::new();
    for source in diagnostic::sources(places, found) {
        sources.push(SourceFile::new(&source.path, source.text.as_bytes()));
        let (read, faults) = schema::parse(&source);
        found.extend(faults);
        policy.rules.extend(read.rules);
        policy.deny.digest.extend(read.deny.digest);
        policy.deny.key.extend(read.deny.key);
        policy.deny.identity.extend(read.deny.identity);
        policy.deny.email.extend(read.deny.email);
        policy.deny.log.extend(read.deny.log);
        policy.denied_keys.extend(read.denied_keys);
    }
    (policy, sources)
}

fn check_names(rules: &[SourceRule], found: &mut Vec<Diagnostic>) {
    for (i, read) in rules.iter().enumerate() {
        let mut before = rules.iter().take(i);
        if let Some(first) = before.find(|first| first.rule.name == read.rule.name) {
            found.push(diags::duplicate_rule(&read.rule, read.name_at.clone(), &first.name_at));
        }
    }
}

fn check_reach(rules: &[SourceRule], found: &mut Vec<Diagnostic>) {
    // A `match` that could not be read as a whole reaches further or less far than it seems.
    for (i, read) in rules.iter().enumerate().filter(|(_, read)| !read.is_partial) {
        let mut before = rules
            .iter()
            .take(i)
            .filter(|first| first.rule.mode != Mode::Audit && !first.is_partial);
        if let Some(first) = before.find(|first| first.rule.r#match.covers(&read.rule.r#match)) {
            found.push(diags::unreachable(&read.rule, read.at.clone(), &first.rule, &first.at));
        }
    }
}

fn check_trust(policy: &SourcePolicy, trust: &Trust, found: &mut Vec<Diagnostic>) {
    let find = |id: &str| trust.keys.iter().find(|key| key.id == id);
    let unknown = |id: &str, place: &Place| diags::unknown_key(id, place.clone(), &trust.keys);
    let builders: Vec<&str> = trust.builders.iter().map(|builder| builder.name.as_str()).collect();
    let roots: Vec<&str> = trust.roots.iter().map(|root| root.id.as_str()).collect();
    let stores: Vec<&str> = trust.notation.iter().map(|store| store.id.as_str()).collect();
    for mention in policy.rules.iter().flat_map(|read| &read.mentions) {
        let (id, place) = (mention.id.as_str(), &mention.place);
        let missing = |what: &str, known: &[&str]| {
            let is_known = known.contains(&id);
            (!is_known).then(|| diags::trust_unknown(what, id, place.clone(), known))
        };
        match mention.what {
            Named::Key(family) => match find(id) {
                None => found.push(unknown(id, place)),
                Some(key) if !key.r#use.contains(&family.needs()) => {
                    found.push(diags::key_use(id, place.clone(), family));
                }
                Some(key) => found.extend(diags::key_inactive(key, place, !roots.is_empty())),
            },
            Named::Logs if roots.is_empty() => found.push(diags::root_needed(id, place.clone())),
            Named::Times if roots.is_empty() && trust.notation.iter().all(|store| store.tsa.is_empty()) => {
                found.push(diags::root_needed(id, place.clone()));
            }
            Named::Logs | Named::Times => {}
            Named::Root => found.extend(missing("[[root]]", &roots)),
            Named::Builder => found.extend(missing("[[builder]]", &builders)),
            Named::Store => found.extend(missing("[[notation]]", &stores)),
        }
    }
    for named in &policy.denied_keys {
        let (id, place) = named;
        match find(id) {
            None => found.push(unknown(id, place)),
            Some(key) => found.extend(diags::denied_key_inactive(key, place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;
    use crate::diagnostic::Code;
    use crate::policy::{Action, Exec, ExecMode, Reevaluate};

    const TRUST: &str = r#"
        [[key]]
        id = "release"
        file = "release.pem"
        use = ["image"]

        [[key]]
        id = "old"
        file = "old.pem"
        use = ["image"]
        status = "retired"

        [[key]]
        id = "windowed"
        file = "windowed.pem"
        use = ["image"]
        until = "2099-01-01T00:00:00Z"

        [[key]]
        id = "sbom-only"
        file = "sbom.pem"
        use = ["sbom"]
    "#;

    /// A folder with `policy.d` and `trust.d`.
    fn folder(policies: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (policy, trust) = (folder.path().join("policy.d"), folder.path().join("trust.d"));
        for (path, files) in [
            (&policy, policies),
            (
                &trust,
                &[
                    ("keys.toml", TRUST),
                    ("release.pem", include_str!("../trust/testdata/p256.pem")),
                    ("old.pem", include_str!("../trust/testdata/ed25519.pem")),
                    ("windowed.pem", include_str!("../trust/testdata/rsa2048.pem")),
                    ("sbom.pem", include_str!("../trust/testdata/p384.pem")),
                ],
            ),
        ] {
            fs::create_dir(path).unwrap();
            for (name, text) in files {
                fs::write(path.join(name), text).unwrap();
            }
        }
        folder
    }

    fn check_in(folder: &tempfile::TempDir) -> Result<Checked, Vec<Diagnostic>> {
        check(&Sources::default().and(folder.path()))
    }

    fn check_files(policies: &[(&str, &str)]) -> Result<Checked, Vec<Diagnostic>> {
        check_in(&folder(policies))
    }

    fn show(folder: &tempfile::TempDir, found: &[Diagnostic]) -> String {
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        shown
            .join("\n\n")
            .replace(&folder.path().display().to_string(), "/etc/assay")
    }

    /// What is said about one file.
    fn said(text: &str) -> String {
        let folder = folder(&[("50.toml", text)]);
        match check_in(&folder) {
            Ok(checked) => show(&folder, &checked.warnings),
            Err(found) => show(&folder, &found),
        }
    }

    /// A rule that is right, with these lines added.
    fn rule(lines: &str) -> String {
        format!("[[rule]]\nname = \"a\"\nmatch = {{ image = [\"**\"] }}\nmode = \"enforce\"\n{lines}\n")
    }

    const SIGNED: &str = "[[rule.signature]]\nany = [{ key = \"release\" }]";

    #[test]
    fn a_pattern_that_cannot_be_read_makes_no_other_rule_unreachable() {
        let rules = |first: &str, second: &str| {
            format!(
                "[[rule]]\nname = 'first'\nmatch.image = [{first}]\nmode = 'off'\n\
                 [[rule]]\nname = 'second'\nmatch.image = [{second}]\nmode = 'off'\n"
            )
        };
        // What is left of a list without the pattern that is wrong reaches less far, or further, than was meant.
        for text in [
            rules("'registry.example/a'", "'registry.example/a', 'nginx*'"),
            rules("'nginx*'", "'registry.example/a'"),
        ] {
            let folder = folder(&[("50.toml", &text)]);
            let codes: Vec<Code> = check_in(&folder).unwrap_err().iter().map(|found| found.code).collect();
            assert_eq!(codes, [Code::InvalidPattern], "{text}");
        }
        let folder = folder(&[("50.toml", &rules("'registry.example/*'", "'registry.example/a'"))]);
        let codes: Vec<Code> = check_in(&folder).unwrap_err().iter().map(|found| found.code).collect();
        assert_eq!(codes, [Code::RuleUnreachable]);
    }

    #[test]
    fn a_whole_policy_is_read() {
        let digest = crate::digest::Digest::of(b"pause");
        let text = format!(
            r#"
            [[rule]]
            name = "release images"
            match = {{ image = ["registry.example/prod/**"], namespace = ["prod-*"], containerd_namespace = ["k8s.io"], kind = "container", digest = ["{digest}"] }}
            mode = "enforce"
            digest = ["{digest}"]

            [[rule.signature]]
            any = [{{ key = "release" }}, {{ key = "old" }}]
            threshold = 2
            subject = "index"

            [[rule.signature]]
            any = [{{ key = "release" }}]

            [rule.runtime]
            restart = "allow"

            [[rule]]
            name = "rest"
            match = {{ image = ["**"] }}
            mode = "off"

            [[deny]]
            digest = ["{digest}"]
            key = ["old"]
            "#
        );
        let checked = check_files(&[("50.toml", &text)]).unwrap();
        let [release, rest] = checked.rules.as_slice() else {
            panic!("{checked:?}")
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(release).unwrap(), @r#"
        {
          "name": "release images",
          "match": {
            "image": [
              "registry.example/prod/**"
            ],
            "namespace": [
              "prod-*"
            ],
            "containerd_namespace": [
              "k8s.io"
            ],
            "kind": "container",
            "digest": [
              "sha256:6210c0bf05396716df932f0729df69de0533933e5ad9871fd07b61811c4c28df"
            ]
          },
          "mode": "enforce",
          "tables": [
            {
              "asks": "signature",
              "any": [
                {
                  "key": "release"
                },
                {
                  "key": "old"
                }
              ],
              "threshold": 2,
              "subject": "index"
            },
            {
              "asks": "signature",
              "any": [
                {
                  "key": "release"
                }
              ],
              "threshold": 1,
              "subject": "either"
            }
          ],
          "digest": [
            "sha256:6210c0bf05396716df932f0729df69de0533933e5ad9871fd07b61811c4c28df"
          ],
          "runtime": {
            "restart": "allow"
          }
        }
        "#);
        insta::assert_snapshot!(serde_json::to_string_pretty(rest).unwrap(), @r#"
        {
          "name": "rest",
          "match": {
            "image": [
              "**"
            ]
          },
          "mode": "off"
        }
        "#);
        assert_eq!(
            checked.deny,
            Deny {
                digest: vec![digest],
                key: vec!["old".to_owned()],
                ..Deny::default()
            }
        );
        assert_eq!(checked.keys.len(), 4);
        let names: Vec<_> = checked
            .sources
            .iter()
            .filter_map(|file| file.path.rsplit('/').next())
            .collect();
        assert_eq!(
            names,
            [
                "50.toml",
                "keys.toml",
                "release.pem",
                "old.pem",
                "windowed.pem",
                "sbom.pem"
            ]
        );
        // The stored form reads back as what was checked.
        let stored = serde_json::to_string(&checked.rules).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Rule>>(&stored).unwrap(), checked.rules);
    }

    #[test]
    fn rules_stand_in_the_order_of_file_name_and_place() {
        let one =
            |name: &str, image: &str| format!("[[rule]]\nname = '{name}'\nmatch.image = ['{image}']\nmode = 'off'\n");
        let checked = check_files(&[
            ("20-b.toml", &one("third", "c")),
            ("10-a.toml", &(one("first", "a") + &one("second", "b"))),
            ("9.toml", &one("last", "d")),
            ("README", "not read"),
            (".hidden.toml", "not read"),
        ])
        .unwrap();
        let names: Vec<_> = checked.rules.iter().map(|rule| rule.name.as_str()).collect();
        assert_eq!(names, ["first", "second", "third", "last"]);
    }

    #[test]
    fn nothing_to_decide_by() {
        let empty = folder(&[]);
        insta::assert_snapshot!(show(&empty, &check_in(&empty).unwrap_err()), @"
        error[no-rules]: /etc/assay/policy.d holds no rule, and without a rule every container is refused
         help: write a [[rule]] in a .toml file there
        ");
        insta::assert_snapshot!(said("# nothing yet\n"), @"
        error[no-rules]: /etc/assay/policy.d holds no rule, and without a rule every container is refused
         help: write a [[rule]] in a .toml file there
        ");
        let folder = folder(&[]);
        fs::remove_dir(folder.path().join("policy.d")).unwrap();
        insta::assert_snapshot!(show(&folder, &check_in(&folder).unwrap_err()), @"
        error[unreadable]: /etc/assay/policy.d cannot be read: No such file or directory (os error 2)
         help: check the path, or create it; where no argument names it, config.toml does
        ");
    }

    #[test]
    fn what_is_not_understood() {
        insta::assert_snapshot!(said("[[rule]\n"), @"
        error[syntax]: unclosed array table, expected `]`
         --> /etc/assay/policy.d/50.toml:1:8
          |
        1 | [[rule]
          |        ^
        ");
        insta::assert_snapshot!(said(&rule(&format!("mode = \"off\"\n{SIGNED}"))), @r#"
        error[duplicate-key]: `mode` appears twice
         --> /etc/assay/policy.d/50.toml:5:1
          |
        5 | mode = "off"
          | ^^^^
         help: keep one of the two
        "#);
        insta::assert_snapshot!(said(&rule(&format!("mood = \"calm\"\n{SIGNED}\nkeys = []"))), @r#"
        error[unknown-key]: [[rule]] has no key `mood`
         --> /etc/assay/policy.d/50.toml:5:1
          |
        5 | mood = "calm"
          | ^^^^ not a key of it
         help: its keys are `name`, `match`, `mode`, `signature`, `provenance`, `vsa`, `sbom`, `vex`, `profile`, `digest`, `runtime`, `filesystem`, `seccomp`, `exec` and `reevaluate`

        error[unknown-key]: [[rule.signature]] has no key `keys`
         --> /etc/assay/policy.d/50.toml:8:1
          |
        8 | keys = []
          | ^^^^ not a key of it
         help: its keys are `any`, `threshold`, `subject`, `log`, `logs`, `max_age` and `where`
        "#);
        insta::assert_snapshot!(said("[[rules]]\nname = \"a\"\n[[key]]\nid = \"x\"\n"), @"
        error[unknown-key]: a file of policy has no key `rules`
         --> /etc/assay/policy.d/50.toml:1:3
          |
        1 | [[rules]]
          |   ^^^^^ not a key of it
         help: its keys are `rule` and `deny`

        error[unknown-key]: a file of policy has no key `key`
         --> /etc/assay/policy.d/50.toml:3:3
          |
        3 | [[key]]
          |   ^^^ not a key of it
         help: its keys are `rule` and `deny`
        ");
        insta::assert_snapshot!(said("[[rule]]\nname = \"a\"\nmatch = { imgae = [\"**\"], labels = [\"team=x\"] }\nmode = \"off\""), @r#"
        error[unknown-key]: `match` has no key `imgae`
         --> /etc/assay/policy.d/50.toml:3:11
          |
        3 | match = { imgae = ["**"], labels = ["team=x"] }
          |           ^^^^^ not a key of it
         help: its keys are `image`, `namespace`, `containerd_namespace`, `kind` and `digest`

        error[unknown-key]: `labels` never select a rule
         --> /etc/assay/policy.d/50.toml:3:27
          |
        3 | match = { imgae = ["**"], labels = ["team=x"] }
          |                           ^^^^^^
         help: image and pod authors write them; match by image, namespace, containerd_namespace, kind or digest
        "#);
        insta::assert_snapshot!(said("[[rule]]\nname = 1\nmatch = \"**\"\nmode = \"warn\"\nsignature = {}\nruntime = []"), @r#"
        error[wrong-type]: `name` must be a string, not a number
         --> /etc/assay/policy.d/50.toml:2:8
          |
        2 | name = 1
          |        ^ expected a string

        error[wrong-type]: `match` must be a table, not a string
         --> /etc/assay/policy.d/50.toml:3:9
          |
        3 | match = "**"
          |         ^^^^ expected a table

        error[invalid-value]: `warn` is no value of `mode`
         --> /etc/assay/policy.d/50.toml:4:8
          |
        4 | mode = "warn"
          |        ^^^^^^
         help: one of: enforce, audit, off

        error[wrong-type]: `signature` must be a list of tables, not a table
         --> /etc/assay/policy.d/50.toml:5:13
          |
        5 | signature = {}
          |             ^^ expected a list of tables
         help: write it as [[rule.signature]]

        error[wrong-type]: `runtime` must be a table, not a list
         --> /etc/assay/policy.d/50.toml:6:11
          |
        6 | runtime = []
          |           ^^ expected a table
        "#);
    }

    #[test]
    fn tables_of_later_versions_say_so() {
        insta::assert_snapshot!(said(&rule("[[rule.provenance]]\nbuilder = [\"x\"]\n[[rule.sbom]]\nany = []")), @r#"
        error[empty]: `any` is an empty list
         --> /etc/assay/policy.d/50.toml:8:7
          |
        8 | any = []
          |       ^^
         help: name at least one

        error[trust-unknown]: trust holds no [[builder]] `x`
         --> /etc/assay/policy.d/50.toml:6:12
          |
        6 | builder = ["x"]
          |            ^^^
         help: trust holds no [[builder]] yet: add one to trust.d
        "#);
        insta::assert_snapshot!(
            said(&rule("[[rule.signature]]\nany = [{ identity = \"https://x/*\", issuer = \"https://y\", root = \"z\" }]\nlog = \"required\"\nmax_age = \"90d\"")),
            @r#"
        error[invalid-pattern]: `https://x/*` cannot be used here: it does not spell out host and owner
         --> /etc/assay/policy.d/50.toml:6:21
          |
        6 | any = [{ identity = "https://x/*", issuer = "https://y", root = "z" }]
          |                     ^^^^^^^^^^^^^
         help: write it as in https://github.com/acme/*, so that nobody else's identity on the same host matches

        error[trust-unknown]: trust holds no [[root]] `z`
         --> /etc/assay/policy.d/50.toml:6:65
          |
        6 | any = [{ identity = "https://x/*", issuer = "https://y", root = "z" }]
          |                                                                 ^^^
         help: trust holds no [[root]] yet: add one to trust.d

        warning[root-needed]: no evidence meets `log`: trust.d has no root by which a log entry or a timestamp could be verified
         --> /etc/assay/policy.d/50.toml:7:7
          |
        7 | log = "required"
          |       ^^^^^^^^^^
         help: add a [[root]] to trust.d, or remove the key from the rule

        warning[root-needed]: no evidence meets `max_age`: trust.d has no root by which a log entry or a timestamp could be verified
         --> /etc/assay/policy.d/50.toml:8:11
          |
        8 | max_age = "90d"
          |           ^^^^^
         help: add a [[root]] to trust.d, or remove the key from the rule
        "#
        );
        insta::assert_snapshot!(said(&format!("{}\n[[deny]]\nidentity = [\"x\"]", rule(SIGNED))), @"");
    }

    #[test]
    fn system_calls_are_named_as_the_kernel_names_them_and_once() {
        let seccomp =
            "[rule.seccomp]\nincomplete = \"ask\"\nallow = [\"ptrace\", \"opennat\"]\ndeny = [\"ptrace\", \"bpf\"]\n";
        insta::assert_snapshot!(said(&rule(&format!("{SIGNED}\n{seccomp}"))), @r#"
        error[invalid-value]: `ask` is no value of `incomplete`
         --> /etc/assay/policy.d/50.toml:8:14
          |
        8 | incomplete = "ask"
          |              ^^^^^
         help: one of: fallback, refuse

        error[invalid-value]: no machine has a system call `opennat`
         --> /etc/assay/policy.d/50.toml:9:20
          |
        9 | allow = ["ptrace", "opennat"]
          |                    ^^^^^^^^^
         help: a name of the kernel's own table, openat for example: see syscalls(2)

        error[invalid-value]: `ptrace` is allowed and denied
          --> /etc/assay/policy.d/50.toml:10:9
           |
        10 | deny = ["ptrace", "bpf"]
           |         ^^^^^^^^ allowed above
         help: keep it in one of the two lists
        "#);
    }

    #[test]
    fn tables_that_take_something_away_are_read_strictly() {
        let read = |text: &str| {
            let checked = check_files(&[("50.toml", &rule(&format!("{SIGNED}\n{text}")))]).unwrap();
            checked.rules[0].clone()
        };
        let runtime = read("[rule.runtime]\nuser = 'non-root'\nread_only_root = true\nnoexec_mounts = false").runtime;
        assert!(runtime.non_root && runtime.read_only_root && !runtime.noexec_mounts && !runtime.no_new_privileges);
        let filesystem = read("[rule.filesystem]\nexec = ['/bin/probe']\nkeep = ['/usr/share/zoneinfo/**']").filesystem;
        assert_eq!(filesystem.mode, Mode::Enforce);
        assert_eq!(read("").filesystem.mode, Mode::Off);
        assert_eq!(read("[rule.filesystem]\nmode = 'audit'").filesystem.mode, Mode::Audit);
        let wrong = "[rule.filesystem]\nmode = 'watch'\nexec = ['probe', '/bin/../sh']\nkeep = ['/a[']\nlevels = 1";
        insta::assert_snapshot!(said(&rule(&format!("{SIGNED}\n{wrong}"))), @r#"
        error[invalid-value]: `watch` is no value of `mode`
         --> /etc/assay/policy.d/50.toml:8:8
          |
        8 | mode = 'watch'
          |        ^^^^^^^
         help: one of: enforce, audit, off

        error[invalid-value]: `probe` cannot be a path in an image: it does not begin with /
         --> /etc/assay/policy.d/50.toml:9:9
          |
        9 | exec = ['probe', '/bin/../sh']
          |         ^^^^^^^
         help: an absolute path as the container sees it, /usr/bin/env for example

        error[invalid-value]: `/bin/../sh` cannot be a path in an image: it has an empty component, . or ..
         --> /etc/assay/policy.d/50.toml:9:18
          |
        9 | exec = ['probe', '/bin/../sh']
          |                  ^^^^^^^^^^^^
         help: an absolute path as the container sees it, /usr/bin/env for example

        error[invalid-value]: `/a[` cannot be a path in an image: a bracket in it opens no set of characters
          --> /etc/assay/policy.d/50.toml:10:9
           |
        10 | keep = ['/a[']
           |         ^^^^^
         help: an absolute path as the container sees it, /usr/bin/env for example

        error[unknown-key]: [rule.filesystem] has no key `levels`
          --> /etc/assay/policy.d/50.toml:11:1
           |
        11 | levels = 1
           | ^^^^^^ not a key of it
         help: its keys are `mode`, `level`, `keep`, `exec`, `exec_annotation`, `unattested` and `unavailable`
        "#);
    }

    #[test]
    fn which_further_processes_may_be_started_is_read_with_its_place() {
        let read = |table: &str| {
            let checked = check_files(&[("50.toml", &rule(&format!("{SIGNED}\n{table}")))]).unwrap();
            checked.rules[0].exec.clone()
        };
        assert_eq!(read(""), Exec::default());
        let denied = read("[rule.exec]\nmode = 'deny'");
        assert_eq!(denied.mode, ExecMode::Deny);
        assert!(denied.at.ends_with("/policy.d/50.toml:7"), "{}", denied.at);
        let closure = read("[rule.filesystem]\nmode = 'enforce'\n[rule.exec]\nmode = 'closure'");
        assert_eq!(closure.mode, ExecMode::Closure);
        let wrong = "[rule.exec]\nmode = 'closure'\nprograms = 1";
        insta::assert_snapshot!(said(&rule(&format!("{SIGNED}\n{wrong}"))), @r#"
        error[closure-without-view]: [rule.exec] has mode = "closure", and the rule has no view that shows only the closure
         --> /etc/assay/policy.d/50.toml:7:1
          |
        7 | [rule.exec]
          | ^^^^^^^^^^^ without [rule.filesystem] every program of the image is one of its own
         help: add [rule.filesystem] with mode = "enforce" to the rule, or write mode = "deny" here

        error[unknown-key]: [rule.exec] has no key `programs`
         --> /etc/assay/policy.d/50.toml:9:1
          |
        9 | programs = 1
          | ^^^^^^^^ not a key of it
         help: its keys are `mode`
        "#);
        let other = "[rule.exec]\nmode = 'shell'";
        insta::assert_snapshot!(said(&rule(&format!("{SIGNED}\n{other}"))), @r#"
        error[invalid-value]: `shell` is no value of `mode`
         --> /etc/assay/policy.d/50.toml:8:8
          |
        8 | mode = 'shell'
          |        ^^^^^^^
         help: one of: allow, closure, deny
        "#);
    }

    #[test]
    fn what_becomes_of_a_container_that_is_refused_while_it_runs_is_read() {
        let read = |table: &str| {
            let checked = check_files(&[("50.toml", &rule(&format!("{SIGNED}\n{table}")))]).unwrap();
            checked.rules[0].reevaluate
        };
        let reevaluate = |action, grace| Reevaluate { action, grace };
        assert_eq!(read(""), reevaluate(Action::Report, 30));
        assert_eq!(read("[rule.reevaluate]\naction = 'stop'"), reevaluate(Action::Stop, 30));
        assert_eq!(
            read("[rule.reevaluate]\naction = 'freeze'\ngrace = '5m'"),
            reevaluate(Action::Freeze, 300)
        );
        let wrong = "[rule.reevaluate]\naction = 'kill'\ngrace = '0s'\nafter = 1";
        insta::assert_snapshot!(said(&rule(&format!("{SIGNED}\n{wrong}"))), @r#"
        error[invalid-value]: `kill` is no value of `action`
         --> /etc/assay/policy.d/50.toml:8:10
          |
        8 | action = 'kill'
          |          ^^^^^^
         help: one of: report, deny-exec, freeze, stop

        error[invalid-time]: `0s` is no `grace`
         --> /etc/assay/policy.d/50.toml:9:9
          |
        9 | grace = '0s'
          |         ^^^^
         help: weeks, days, hours, minutes or seconds: "90d", "12h", "1w 2d"

        error[unknown-key]: [rule.reevaluate] has no key `after`
          --> /etc/assay/policy.d/50.toml:10:1
           |
        10 | after = 1
           | ^^^^^ not a key of it
         help: its keys are `action` and `grace`
        "#);
    }

    #[test]
    fn rules_that_forget_something() {
        insta::assert_snapshot!(said("[[rule]]\n"), @"
        error[empty]: [[rule]] is empty
         --> /etc/assay/policy.d/50.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ nothing in it
         help: write the rule, or remove its header
        ");
        insta::assert_snapshot!(said("[[rule]]\nmode = \"off\""), @r#"
        error[missing-key]: [[rule]] has no `name`
         --> /etc/assay/policy.d/50.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ `name` is missing

        error[missing-key]: [[rule]] has no `match`
         --> /etc/assay/policy.d/50.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ `match` is missing
         help: write match = { image = ["**"] } for every container
        "#);
        insta::assert_snapshot!(said("[[rule]]\nname = \"a\"\nmatch = {}\nmode = \"off\""), @r#"
        error[empty]: `match` is empty
         --> /etc/assay/policy.d/50.toml:3:9
          |
        3 | match = {}
          |         ^^ nothing in it
         help: write match = { image = ["**"] } for every container
        "#);
        insta::assert_snapshot!(said("[[rule]]\nname = \"a\"\nmatch = { image = [] }\nmode = \"off\""), @"
        error[empty]: `image` is an empty list
         --> /etc/assay/policy.d/50.toml:3:19
          |
        3 | match = { image = [] }
          |                   ^^
         help: name at least one, or leave the key out
        ");
        insta::assert_snapshot!(said(&rule("")), @r#"
        error[rule-requires-nothing]: rule `a` enforces nothing: it would allow every image that it matches
         --> /etc/assay/policy.d/50.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ neither signature, provenance, vsa nor digest
         help: add [[rule.signature]], [[rule.provenance]], [[rule.vsa]] or digest = ["sha256:…"]; to run unchecked write mode = "off"
        "#);
        // It says what is in the image, and allows nothing for that.
        insta::assert_snapshot!(said(&rule("[[rule.sbom]]\nany = [{ key = \"sbom-only\" }]")), @r#"
        error[rule-requires-nothing]: rule `a` allows nothing: an SBOM or a VEX document alone does not say that an image may run
         --> /etc/assay/policy.d/50.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ neither signature, provenance, vsa nor digest
         help: add [[rule.signature]], [[rule.provenance]], [[rule.vsa]] or digest = ["sha256:…"]; to run unchecked write mode = "off"
        "#);
        // A slip of the pen is that alone.
        let slip = rule(&SIGNED.replace("rule.signature", "rule.signatures"));
        assert!(said(&slip).starts_with("error[unknown-key]") && !said(&slip).contains("requires-nothing"));
        // Without a mode a rule enforces.
        insta::assert_snapshot!(said("[[rule]]\nname = \"a\"\nmatch.kind = \"sandbox\""), @r#"
        error[rule-requires-nothing]: rule `a` enforces nothing: it would allow every image that it matches
         --> /etc/assay/policy.d/50.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ neither signature, provenance, vsa nor digest
         help: add [[rule.signature]], [[rule.provenance]], [[rule.vsa]] or digest = ["sha256:…"]; to run unchecked write mode = "off"
        "#);
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nthreshold = 1")), @"
        error[missing-key]: [[rule.signature]] has no `any`
         --> /etc/assay/policy.d/50.toml:5:1
          |
        5 | [[rule.signature]]
          | ^^^^^^^^^^^^^^^^^^ `any` is missing
        ");
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nany = [{}]")), @"
        error[invalid-signer]: a signer says nobody who could sign
         --> /etc/assay/policy.d/50.toml:6:8
          |
        6 | any = [{}]
          |        ^^ nobody
         help: one of { key }, { identity, issuer, root }, { email, issuer, root } and { x509_subject, store }
        ");
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nany = []")), @"
        error[empty]: `any` is an empty list
         --> /etc/assay/policy.d/50.toml:6:7
          |
        6 | any = []
          |       ^^
         help: name at least one
        ");
        insta::assert_snapshot!(said(&rule(&format!("{SIGNED}\n[rule.runtime]"))), @"
        error[empty]: [rule.runtime] is empty
         --> /etc/assay/policy.d/50.toml:7:1
          |
        7 | [rule.runtime]
          | ^^^^^^^^^^^^^^ nothing in it
         help: write restart, or remove its header
        ");
        insta::assert_snapshot!(said(&format!("{}\n[[deny]]", rule(SIGNED))), @"
        error[empty]: [[deny]] is empty
         --> /etc/assay/policy.d/50.toml:8:1
          |
        8 | [[deny]]
          | ^^^^^^^^ nothing in it
         help: list what is revoked, or remove its header
        ");
    }

    #[test]
    fn an_audit_rule_without_requirements_is_a_warning() {
        insta::assert_snapshot!(said("[[rule]]\nname = \"a\"\nmatch = { image = [\"**\"] }\nmode = \"audit\""), @"
        warning[audit-requires-nothing]: audit rule `a` has nothing to check, so that it cannot say what enforce would do
         --> /etc/assay/policy.d/50.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ neither signature, provenance, vsa nor digest
         help: add what it shall check
        ");
    }

    #[test]
    fn values_that_cannot_be_meant() {
        insta::assert_snapshot!(said("[[rule]]\nname = \"a\\u001b[2J\"\nmatch = { image = [\"**\"] }\nmode = \"off\""), @r#"
        error[invalid-name]: a rule cannot have this name
         --> /etc/assay/policy.d/50.toml:2:8
          |
        2 | name = "a\u001b[2J"
          |        ^^^^^^^^^^^^
         help: up to 128 characters, none of them invisible
        "#);
        insta::assert_snapshot!(
            said("[[rule]]\nname = \"a\"\nmatch = { image = [\"*\", \"registry.example\"], namespace = [\"a/b\"], kind = \"pod\", digest = [\"sha256:00\"] }\nmode = \"off\""),
            @r#"
        error[invalid-pattern]: `*` cannot be a pattern: it does not spell out the registry
         --> /etc/assay/policy.d/50.toml:3:20
          |
        3 | match = { image = ["*", "registry.example"], namespace = ["a/b"], kind = "pod", digest = ["sha256:00"] }
          |                    ^^^
         help: write it as in `registry.example/**`; `**` alone is every image

        error[invalid-pattern]: `registry.example` cannot be a pattern: it names a registry and no repository
         --> /etc/assay/policy.d/50.toml:3:25
          |
        3 | match = { image = ["*", "registry.example"], namespace = ["a/b"], kind = "pod", digest = ["sha256:00"] }
          |                         ^^^^^^^^^^^^^^^^^^
         help: for everything in that registry write `registry.example/**`

        error[invalid-pattern]: `a/b` cannot be a pattern: no namespace looks like that
         --> /etc/assay/policy.d/50.toml:3:59
          |
        3 | match = { image = ["*", "registry.example"], namespace = ["a/b"], kind = "pod", digest = ["sha256:00"] }
          |                                                           ^^^^^
         help: letters, digits, . _ and -; `*` is the only wildcard

        error[invalid-value]: `pod` is no value of `kind`
         --> /etc/assay/policy.d/50.toml:3:74
          |
        3 | match = { image = ["*", "registry.example"], namespace = ["a/b"], kind = "pod", digest = ["sha256:00"] }
          |                                                                          ^^^^^
         help: one of: sandbox, container, volume

        error[invalid-digest]: 'sha256:00' is not a digest: expected sha256: and 64 lower-case hexadecimal digits
         --> /etc/assay/policy.d/50.toml:3:91
          |
        3 | match = { image = ["*", "registry.example"], namespace = ["a/b"], kind = "pod", digest = ["sha256:00"] }
          |                                                                                           ^^^^^^^^^^^
         help: the digest of a manifest, an index or an image configuration
        "#
        );
        insta::assert_snapshot!(said(&rule("digest = [\"latest\"]")), @r#"
        error[invalid-digest]: 'latest' is not a digest: expected sha256: and 64 lower-case hexadecimal digits
         --> /etc/assay/policy.d/50.toml:5:11
          |
        5 | digest = ["latest"]
          |           ^^^^^^^^
         help: the digest of a manifest, an index or an image configuration
        "#);
        insta::assert_snapshot!(
            said(&rule("[[rule.signature]]\nany = [{ key = \"release\" }, { key = \"release\" }]\nthreshold = 2\nsubject = \"layer\"")),
            @r#"
        error[repeated]: release appears twice in `any`
         --> /etc/assay/policy.d/50.toml:6:29
          |
        6 | any = [{ key = "release" }, { key = "release" }]
          |                             ^^^^^^^^^^^^^^^^^^^ already listed
         help: remove one of the two; a signer counts once

        error[threshold]: 2 signers are asked for and `any` lists 1
         --> /etc/assay/policy.d/50.toml:7:13
          |
        7 | threshold = 2
          |             ^ can never be met
         help: list more signers or lower the threshold

        error[invalid-value]: `layer` is no value of `subject`
         --> /etc/assay/policy.d/50.toml:8:11
          |
        8 | subject = "layer"
          |           ^^^^^^^
         help: one of: platform, index, either
        "#
        );
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nany = [{ key = \"release\" }]\nthreshold = 0")), @"
        error[invalid-value]: `threshold` is out of range
         --> /etc/assay/policy.d/50.toml:7:13
          |
        7 | threshold = 0
          |             ^
         help: a whole number from 1 to 64
        ");
    }

    #[test]
    fn keys_that_cannot_count() {
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nany = [{ key = \"relaese\" }]")), @r#"
        error[key-unknown]: trust holds no key `relaese`
         --> /etc/assay/policy.d/50.toml:6:16
          |
        6 | any = [{ key = "relaese" }]
          |                ^^^^^^^^^
         help: trust holds release, old, windowed, sbom-only
        "#);
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nany = [{ key = \"sbom-only\" }]")), @r#"
        error[key-use]: trust does not allow key `sbom-only` for image signatures
         --> /etc/assay/policy.d/50.toml:6:16
          |
        6 | any = [{ key = "sbom-only" }]
          |                ^^^^^^^^^^^
         help: add "image" to its `use` in trust.d, if that is what it signs
        "#);
        // Only logs and timestamps say when it signed.
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nany = [{ key = \"windowed\" }]")), @r#"
        warning[key-inactive]: no signature by key `windowed` counts: it has a window, and trust.d has no [[root]] by which a time could be trusted
         --> /etc/assay/policy.d/50.toml:6:16
          |
        6 | any = [{ key = "windowed" }]
          |                ^^^^^^^^^^
         help: remove it from the rule, or change the key in trust.d
        "#);
        insta::assert_snapshot!(said(&rule("[[rule.signature]]\nany = [{ key = \"old\" }]")), @r#"
        warning[key-inactive]: no signature by key `old` counts: it is retired, and neither `until` nor `digests` says what it signed before
         --> /etc/assay/policy.d/50.toml:6:16
          |
        6 | any = [{ key = "old" }]
          |                ^^^^^
         help: remove it from the rule, or change the key in trust.d
        "#);
        insta::assert_snapshot!(said(&format!("{}\n[[deny]]\nkey = [\"old\"]", rule(SIGNED))), @r#"
        warning[key-inactive]: [[deny]] does not see all that key `old` signed: it is retired, and only what counted before is seen
         --> /etc/assay/policy.d/50.toml:9:8
          |
        9 | key = ["old"]
          |        ^^^^^
         help: to refuse what it signed, keep it active in trust.d; it cannot allow anything while it is denied
        "#);
        insta::assert_snapshot!(said(&format!("{}\n[[deny]]\nkey = [\"stolen\"]", rule(SIGNED))), @r#"
        error[key-unknown]: trust holds no key `stolen`
         --> /etc/assay/policy.d/50.toml:9:8
          |
        9 | key = ["stolen"]
          |        ^^^^^^^^
         help: trust holds release, old, windowed, sbom-only
        "#);
        let folder = folder(&[("50.toml", &rule(SIGNED))]);
        fs::remove_dir_all(folder.path().join("trust.d")).unwrap();
        insta::assert_snapshot!(show(&folder, &check_in(&folder).unwrap_err()), @r#"
        warning[unreadable]: /etc/assay/trust.d does not exist, so that nobody is trusted
         help: create it, or correct `trust` in config.toml

        error[key-unknown]: trust holds no key `release`
         --> /etc/assay/policy.d/50.toml:6:16
          |
        6 | any = [{ key = "release" }]
          |                ^^^^^^^^^
         help: trust holds no key yet: add a [[key]] to trust.d
        "#);
        // Broken trust is one fault, not one for each key that it does not give.
        fs::create_dir(folder.path().join("trust.d")).unwrap();
        fs::write(folder.path().join("trust.d/keys.toml"), "[[key]").unwrap();
        let codes: Vec<_> = check_in(&folder).unwrap_err().iter().map(|found| found.code).collect();
        assert_eq!(codes, [Code::Syntax]);
    }

    #[test]
    fn names_are_unique_over_all_files() {
        let folder = folder(&[
            (
                "10.toml",
                "[[rule]]\nname = \"a\"\nmatch.image = [\"nginx\"]\nmode = \"off\"",
            ),
            (
                "20.toml",
                "[[rule]]\nname = \"a\"\nmatch.image = [\"redis\"]\nmode = \"off\"",
            ),
        ]);
        insta::assert_snapshot!(show(&folder, &check_in(&folder).unwrap_err()), @r#"
        error[rule-duplicate]: `a` is already the name of another rule
         --> /etc/assay/policy.d/20.toml:2:8
          |
        2 | name = "a"
          |        ^^^ first used at /etc/assay/policy.d/10.toml:2:8
         help: give each rule a name of its own; decisions are logged by it
        "#);
    }

    #[test]
    fn a_rule_that_is_never_reached() {
        let folder = folder(&[
            (
                "10.toml",
                "[[rule]]\nname = \"all\"\nmatch.image = [\"registry.example/**\"]\nmode = \"off\"",
            ),
            (
                "20.toml",
                &format!("[[rule]]\nname = \"web\"\nmatch.image = [\"registry.example/web:1\"]\n{SIGNED}"),
            ),
        ]);
        insta::assert_snapshot!(show(&folder, &check_in(&folder).unwrap_err()), @"
        error[rule-unreachable]: rule `web` can never be reached
         --> /etc/assay/policy.d/20.toml:1:1
          |
        1 | [[rule]]
          | ^^^^^^^^ rule `all` at /etc/assay/policy.d/10.toml:1:1 decides all that it matches
         help: move it up, narrow the earlier rule, or remove it
        ");
    }

    #[test]
    fn reach_is_judged_by_every_selector() {
        let unreachable = |wide: &str, narrow: &str| {
            let text =
                format!("[[rule]]\nname = 'a'\n{wide}\nmode = 'off'\n[[rule]]\nname = 'b'\n{narrow}\nmode = 'off'\n");
            match check_files(&[("a.toml", &text)]) {
                Ok(_) => false,
                Err(found) => {
                    assert!(
                        found.iter().all(|found| found.code == Code::RuleUnreachable),
                        "{found:?}"
                    );
                    true
                }
            }
        };
        let digest = format!("sha256:{}", "0".repeat(64));
        for (wide, narrow) in [
            ("match.image = ['**']", "match.image = ['**']"),
            ("match.image = ['**']", "match.kind = 'sandbox'"),
            ("match.image = ['**']", "match.namespace = ['prod']"),
            (
                "match.kind = 'container'",
                "match = { kind = 'container', image = ['nginx'] }",
            ),
            (
                "match.namespace = ['prod-*', 'x']",
                "match.namespace = ['prod-eu', 'x']",
            ),
            (
                "match.containerd_namespace = ['*']",
                "match.containerd_namespace = ['k8s.io']",
            ),
            (
                &format!("match.digest = ['{digest}']"),
                &format!("match = {{ digest = ['{digest}'], kind = 'sandbox' }}"),
            ),
        ] {
            assert!(unreachable(wide, narrow), "{wide} | {narrow}");
        }
        for (wide, narrow) in [
            // Image volumes need a rule of their own, so that nothing else shadows one.
            ("match.image = ['**']", "match = { image = ['**'], kind = 'volume' }"),
            ("match.kind = 'sandbox'", "match.image = ['**']"),
            ("match.namespace = ['*']", "match.image = ['**']"),
            ("match.namespace = ['prod']", "match.namespace = ['prod', 'test']"),
            ("match.image = ['nginx']", "match.kind = 'sandbox'"),
            (
                "match = { image = ['**'], namespace = ['prod'] }",
                "match = { image = ['nginx'], containerd_namespace = ['k8s.io'] }",
            ),
        ] {
            assert!(!unreachable(wide, narrow), "{wide} | {narrow}");
        }
        // An audit rule does not end the search.
        let text = format!(
            "[[rule]]\nname = 'a'\nmatch.image = ['**']\nmode = 'audit'\n{SIGNED}\n[[rule]]\nname = 'b'\nmatch.image = ['**']\nmode = 'off'"
        );
        assert!(check_files(&[("a.toml", &text)]).is_ok());
    }

    #[test]
    fn sources_that_others_can_write_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = folder(&[("50.toml", &rule(SIGNED))]);
        check_in(&folder).unwrap();
        for path in [
            "policy.d",
            "policy.d/50.toml",
            "trust.d",
            "trust.d/keys.toml",
            "trust.d/release.pem",
        ] {
            let path = folder.path().join(path);
            let mode = fs::metadata(&path).unwrap().permissions();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            let codes: BTreeSet<_> = check_in(&folder).unwrap_err().iter().map(|found| found.code).collect();
            assert_eq!(codes, BTreeSet::from([Code::Permissions]), "{}", path.display());
            fs::set_permissions(&path, mode).unwrap();
        }
        check_in(&folder).unwrap();
    }

    const PAGE: &str = include_str!("../../docs/policy.md");

    /// The page's examples of this kind: what stands between "```toml KIND" and "```".
    fn examples(kind: &str) -> Vec<&'static str> {
        let opening = format!("```toml {kind}\n");
        PAGE.split(opening.as_str())
            .skip(1)
            .filter_map(|rest| rest.split("```").next())
            .collect()
    }

    #[test]
    fn every_example_of_the_page_is_right() {
        let trust = examples("trust");
        assert_eq!(trust.len(), 2);
        let all = trust.concat();
        let policies = examples("policy");
        assert_eq!(policies.len() + trust.len(), PAGE.matches("```toml").count());
        assert!(policies.len() >= 4);
        for example in policies {
            let folder = folder(&[("50.toml", example)]);
            let keys = folder.path().join("trust.d");
            fs::write(keys.join("keys.toml"), &all).unwrap();
            for (name, pem) in [
                ("release-2026.pub", include_str!("../trust/testdata/p256.pem")),
                ("release-2025.pub", include_str!("../trust/testdata/rsa2048.pem")),
                ("security-team.pub", include_str!("../trust/testdata/ed25519.pem")),
                ("dhi-2.pub", include_str!("../trust/testdata/p384.pem")),
                ("acme-root.pem", include_str!("../trust/testdata/notation-ca.pem")),
            ] {
                fs::write(keys.join(name), pem).unwrap();
            }
            let checked = check_in(&folder).unwrap_or_else(|found| panic!("{}", show(&folder, &found)));
            // The page shows an audit rule without requirements once, as the last of a first policy.
            assert!(
                checked
                    .warnings
                    .iter()
                    .all(|warning| warning.code == Code::AuditRequiresNothing),
                "{}",
                show(&folder, &checked.warnings)
            );
        }
    }

    #[test]
    fn the_patterns_of_the_page_match_as_it_says() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let rows = PAGE.lines().skip_while(|line| !line.starts_with("| pattern |")).skip(2);
        let quoted = |cell: &str| -> Vec<String> {
            let odd = cell.split('`').skip(1).step_by(2);
            odd.map(|name| name.replace("sha256:…", &digest)).collect()
        };
        let mut count = 0;
        for row in rows.take_while(|line| line.starts_with('|')) {
            let cells: Vec<_> = row.split('|').map(quoted).collect();
            let [_, pattern, hits, misses, _] = cells.as_slice() else {
                panic!("{row}")
            };
            let pattern = crate::policy::ImagePattern::try_from(pattern[0].clone()).unwrap();
            for (names, expected) in [(hits, true), (misses, false)] {
                for name in names {
                    let name_read = crate::policy::ImageName::parse(name);
                    assert!(name_read.is_some(), "{name}");
                    assert_eq!(pattern.matches(name_read.as_ref()), expected, "{pattern} {name}");
                    count += 1;
                }
            }
        }
        assert!(count >= 12, "{count}");
    }

    #[test]
    fn the_page_lists_every_code() {
        for code in Code::ALL {
            assert!(
                PAGE.contains(&format!("`{code}`")),
                "{code} is missing in docs/policy.md"
            );
        }
    }
}
