//! Policy, trust and evidence: readable, in force, fresh, and enough for what this node has.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Check, Group, Patient};
use crate::admission::Verdict;
use crate::admission::comparison::{self, Change, Comparison, Word};
use crate::cli::count;
use crate::config::Config;
use crate::diagnostic::{Code, Diagnostic, Severity};
use crate::policy::activate::{LoadError, load_active};
use crate::policy::{Active, Checked, Kept};
use crate::store::StateDir;

const POLICY: Group = Group("policy");

/// Warnings about keys and roots that are too old to count, or will be.
const AGE: [Code; 3] = [Code::RootOld, Code::RootDamaged, Code::KeyInactive];

/// The policy in force.
fn active(config: &Config) -> Result<Active, LoadError> {
    if !config.state.exists() {
        return Err(LoadError::Missing);
    }
    let state = StateDir::open(&config.state).map_err(LoadError::State)?;
    load_active(&state).map(|(active, _)| active)
}

/// What an administrator wrote, and whether it is in force.
pub(super) fn sources(config: &Config) -> Vec<Check> {
    let checked = crate::cli::policy::sources(config, &config.policy);
    let active = active(config);
    let mut checks = vec![readable(&checked), in_force(&active)];
    checks.extend(fleet(config));
    if let Ok(checked) = checked {
        checks.push(fresh(&checked.warnings));
        if let Ok(active) = &active {
            checks.push(same(config, checked, active));
        }
    }
    checks
}

fn readable(checked: &Result<Checked, Vec<Diagnostic>>) -> Check {
    const CODE: &str = "policy-sources";
    let fix = "assay policy check";
    match checked {
        Ok(checked) => {
            let mut others = checked.warnings.iter().filter(|warning| !AGE.contains(&warning.code));
            match others.next() {
                Some(first) => POLICY.warn(CODE, first.line(), fix),
                None => POLICY.pass(
                    CODE,
                    format!(
                        "{} and {} are sound",
                        count(checked.rules.len(), "rule"),
                        count(checked.keys.len(), "key")
                    ),
                ),
            }
        }
        Err(faults) => {
            let first = faults.iter().find(|fault| fault.severity == Severity::Error);
            let line = first.or(faults.first()).map(Diagnostic::line).unwrap_or_default();
            POLICY.fail(CODE, line, fix)
        }
    }
}

fn in_force(active: &Result<Active, LoadError>) -> Check {
    const CODE: &str = "policy-active";
    match active {
        Ok(active) => POLICY.pass(
            CODE,
            format!("generation {} is in force since {}", active.generation, active.time),
        ),
        Err(error) => POLICY.fail(CODE, format!("{error}: every container is refused"), error.fix()),
    }
}

/// The policy of this node's fleet: there is a check where it has one, or should.
fn fleet(config: &Config) -> Option<Check> {
    const CODE: &str = "fleet-policy";
    let pull = "assay policy pull";
    match (Kept::read(&config.state), &config.policy_from) {
        (Err(fault), _) => Some(POLICY.fail(CODE, fault.message, pull)),
        (Ok(Some(kept)), _) if kept.expires <= Timestamp::now() => Some(POLICY.fail(
            CODE,
            format!(
                "version {} from {} expired at {} and stays in force: nobody packs a newer one, or it does not arrive",
                kept.version, kept.from, kept.expires
            ),
            pull,
        )),
        (Ok(Some(kept)), _) => Some(POLICY.pass(
            CODE,
            format!(
                "version {} from {}, signed by {}, until {}",
                kept.version, kept.from, kept.signer, kept.expires
            ),
        )),
        (Ok(None), Some(reference)) => {
            Some(POLICY.fail(CODE, format!("nothing was ever taken from {reference}"), pull))
        }
        (Ok(None), None) => None,
    }
}

fn fresh(warnings: &[Diagnostic]) -> Check {
    const CODE: &str = "trust-fresh";
    match warnings.iter().find(|warning| AGE.contains(&warning.code)) {
        Some(first) => POLICY.warn(CODE, first.line(), "assay trust update, then: assay policy apply"),
        None => POLICY.pass(CODE, "keys and trusted roots are current"),
    }
}

/// Whether what is written is what is in force.
fn same(config: &Config, checked: Checked, active: &Active) -> Check {
    const CODE: &str = "policy-in-force";
    let written = Active {
        version: active.version,
        ..checked.into_active(active.generation, active.time)
    };
    if written == *active {
        POLICY.pass(CODE, "what policy.d, trust.d, closure.d and seccomp.d say is in force")
    } else {
        POLICY.warn(
            CODE,
            "policy.d, trust.d, closure.d, seccomp.d or a trusted root changed since the policy was put in force",
            format!(
                "assay policy diff active {}, then: assay policy apply",
                config.policy.display()
            ),
        )
    }
}

/// What the policy in force says about the sandbox image and about everything else on this node.
pub(super) fn images(patient: &Patient<'_>) -> Vec<Check> {
    let Ok(active) = active(patient.config) else {
        return Vec::new();
    };
    let address = &patient.node.socket;
    let sandbox = patient
        .reading()
        .sandbox_image()
        .map(|name| (name, comparison::sandbox(patient.config, &active, address, name)));
    let judged = comparison::enforced(patient.config, &active, address).map_err(|error| error.to_string());
    vec![pause(sandbox), evidence(judged)]
}

fn pause(sandbox: Option<(&str, Result<Word, String>)>) -> Check {
    const CODE: &str = "pause-rule";
    let fix = "assay configure, then: assay policy apply";
    match sandbox {
        None => POLICY.warn(
            CODE,
            "containerd names no sandbox image",
            "name one in its configuration",
        ),
        Some((name, Ok(word))) if word.verdict == Verdict::Allow => {
            POLICY.pass(CODE, format!("the sandbox image {name} may start: {}", word.code))
        }
        Some((name, Ok(word))) => POLICY.fail(
            CODE,
            format!(
                "the sandbox image {name}, with which every pod starts, is refused: {}: {}",
                word.code, word.reason
            ),
            fix,
        ),
        Some((name, Err(why))) => POLICY.warn(
            CODE,
            format!("the sandbox image {name} cannot be judged: {why}"),
            format!("pull it (ctr --namespace k8s.io images pull {name}), then: {fix}"),
        ),
    }
}

fn evidence(judged: Result<Comparison, String>) -> Check {
    const GROUP: Group = Group("evidence");
    const CODE: &str = "evidence-images";
    let fix = "assay rollout says which, why, and what to do";
    let comparison = match judged {
        Ok(comparison) => comparison,
        Err(why) => return GROUP.fail(CODE, why, "mend what it says"),
    };
    let images: BTreeSet<_> = comparison
        .changes
        .iter()
        .filter(|change| change.container.is_none())
        .map(|change| (&change.namespace, &change.image))
        .collect();
    let running = comparison.changes.iter().filter(|change| change.container.is_some());
    let running: Vec<&Change> = running.collect();
    if images.is_empty() && running.is_empty() && comparison.not_compared.is_empty() {
        return GROUP.pass(
            CODE,
            format!(
                "{} and {} meet every rule",
                count(comparison.images, "image"),
                count(comparison.containers, "container")
            ),
        );
    }
    GROUP.warn(
        CODE,
        format!(
            "{} of {} and {} of {} would be refused if every rule were enforced, {} could not be judged",
            images.len(),
            count(comparison.images, "image"),
            running.len(),
            count(comparison.containers, "container"),
            comparison.not_compared.len()
        ),
        fix,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::Standing;
    use super::*;

    fn config(folder: &Path) -> Config {
        for name in ["policy.d", "trust.d"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        Config {
            state: folder.join("state"),
            run: folder.join("run"),
            policy: folder.join("policy.d"),
            trust: folder.join("trust.d"),
            closure: folder.join("closure.d"),
            seccomp: folder.join("seccomp.d"),
            ..Config::default()
        }
    }

    fn standing(config: &Config, code: &str) -> Option<Standing> {
        let checks = sources(config);
        checks
            .iter()
            .find(|check| check.code == code)
            .map(|check| check.standing)
    }

    #[test]
    fn a_fleets_policy_that_never_came_or_has_expired_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        assert_eq!(standing(&config, "fleet-policy"), None);
        config.policy_from = Some("registry.example/ops/policy:prod".parse().unwrap());
        assert_eq!(standing(&config, "fleet-policy"), Some(Standing::Fail));
        let state = StateDir::open(&config.state).unwrap();
        let keep = |expires: &str| {
            let digest = crate::digest::Digest::of(b"");
            let kept = Kept::new(
                digest,
                1,
                expires.parse().unwrap(),
                "fleet".to_owned(),
                "a file".to_owned(),
            );
            kept.write(&state.subdir(crate::policy::FLEET).unwrap()).unwrap();
        };
        keep("2199-01-01T00:00:00Z");
        assert_eq!(standing(&config, "fleet-policy"), Some(Standing::Pass));
        keep("2020-01-01T00:00:00Z");
        assert_eq!(standing(&config, "fleet-policy"), Some(Standing::Fail));
        // A part of the policy that cannot be read is no reason to go on without it.
        let kept = config.state.join("fleet/kept.json");
        fs::write(&kept, "{").unwrap();
        assert_eq!(standing(&config, "fleet-policy"), Some(Standing::Fail));
        assert_eq!(standing(&config, "policy-sources"), Some(Standing::Fail));
    }

    #[test]
    fn policy_that_is_wrong_old_or_not_in_force_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let rule = config.policy.join("50.toml");
        fs::write(&rule, "[[rule]]\nname = 'x'\nmtch = {}\n").unwrap();
        assert_eq!(standing(&config, "policy-sources"), Some(Standing::Fail));
        assert_eq!(standing(&config, "policy-active"), Some(Standing::Fail));
        fs::write(
            &rule,
            "[[rule]]\nname = 'x'\nmatch = { image = ['**'] }\nmode = 'off'\n",
        )
        .unwrap();
        crate::policy::activate::activate(&config).unwrap();
        for code in ["policy-sources", "policy-active", "policy-in-force", "trust-fresh"] {
            assert_eq!(standing(&config, code), Some(Standing::Pass), "{code}");
        }
        fs::write(
            &rule,
            "[[rule]]\nname = 'y'\nmatch = { image = ['**'] }\nmode = 'off'\n",
        )
        .unwrap();
        let checks = sources(&config);
        let changed = checks.iter().find(|check| check.code == "policy-in-force").unwrap();
        assert_eq!(changed.standing, Standing::Warn);
        let diff = format!("policy diff active {}", config.policy.display());
        assert!(changed.fix.contains(&diff), "{}", changed.fix);
        fs::write(config.state.join("active/policy.json"), "{").unwrap();
        assert_eq!(standing(&config, "policy-active"), Some(Standing::Fail));
    }

    #[test]
    fn old_trust_is_found() {
        let mut old = Diagnostic::without_place(Code::RootOld, "the root `x` is 99 days old".to_owned(), "");
        assert_eq!(fresh(&[old.clone()]).standing, Standing::Warn);
        assert_eq!(fresh(&[]).standing, Standing::Pass);
        old.code = Code::RuleUnreachable;
        assert_eq!(fresh(&[old]).standing, Standing::Pass);
    }

    fn word(verdict: Verdict) -> Word {
        Word {
            verdict,
            code: "digest-not-listed".to_owned(),
            rule: None,
            reason: String::new(),
            fix: String::new(),
            audit: Vec::new(),
            policy: true,
            span: crate::verify::Span::default(),
            reevaluate: crate::policy::Reevaluate::default(),
        }
    }

    #[test]
    fn a_sandbox_image_that_an_upgrade_changed_is_found() {
        let of = |said| pause(Some(("registry.k8s.io/pause:3.10", said))).standing;
        assert_eq!(of(Ok(word(Verdict::Allow))), Standing::Pass);
        assert_eq!(of(Ok(word(Verdict::Refuse))), Standing::Fail);
        assert_eq!(of(Err("not pulled".to_owned())), Standing::Warn);
        assert_eq!(pause(None).standing, Standing::Warn);
    }

    #[test]
    fn images_without_evidence_are_found() {
        let mut comparison = Comparison {
            images: 2,
            ..Comparison::default()
        };
        let digest = crate::digest::Digest::of(b"");
        comparison.changes.push(Change {
            container: None,
            namespace: "k8s.io".to_owned(),
            kubernetes_namespace: None,
            image: "example.com/app:1".to_owned(),
            digest,
            old: word(Verdict::Allow),
            new: word(Verdict::Refuse),
        });
        let check = evidence(Ok(comparison));
        assert_eq!(check.standing, Standing::Warn);
        assert!(check.reason.starts_with("1 of 2 images"), "{}", check.reason);
        assert_eq!(evidence(Ok(Comparison::default())).standing, Standing::Pass);
        assert_eq!(evidence(Err("x".to_owned())).standing, Standing::Fail);
    }
}
