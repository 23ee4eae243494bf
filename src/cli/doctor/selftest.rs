//! A pod of the sandbox image through every handler of Assay, as a kubelet would start it, and what was decided.

use toml::{Table, Value};

use super::cri::Cri;
use super::handlers::assay;
use super::{Check, Group, Patient};
use crate::admission::{Decision, Verdict, log};
use crate::config::Config;
use crate::store::StateDir;

const SELFTEST: Group = Group("self-test");
const CODE: &str = "self-test";

/// Where a sandbox goes whose OCI runtime asks systemd for its cgroup.
const SLICE: &str = "system.slice";

/// What came of one handler.
#[derive(Debug, Default)]
struct Outcome {
    /// Why the sandbox did not start.
    refused: Option<String>,
    /// Why the container did not start.
    container_refused: Option<String>,
    /// What was decided about each.
    sandbox: Option<Decision>,
    container: Option<Decision>,
    /// Why the pod could not be taken away again.
    left: Option<String>,
}

pub(super) fn checks(patient: &Patient<'_>) -> Vec<Check> {
    let reading = patient.reading();
    let image = reading.sandbox_image();
    assay(reading)
        .filter(|(name, _)| patient.loaded.handlers.contains_key(*name))
        .map(|(name, handler)| verdict(name, &tried(patient.config, &patient.cri, name, handler, image)))
        .collect()
}

fn tried(config: &Config, cri: &Cri, name: &str, handler: &Table, image: Option<&str>) -> Outcome {
    let systemd = handler.get("options").and_then(|options| options.get("SystemdCgroup"));
    let parent = if systemd.and_then(Value::as_bool) == Some(true) {
        SLICE
    } else {
        ""
    };
    let mut outcome = Outcome::default();
    let trial = match cri.run_sandbox(name, parent) {
        Ok(trial) => trial,
        Err(why) => {
            outcome.refused = Some(why);
            return outcome;
        }
    };
    let mut container = None;
    if let Some(image) = image {
        let started = cri.create(&trial, image).and_then(|id| {
            container = Some(id.clone());
            cri.start(&id)
        });
        outcome.container_refused = started.err();
    }
    outcome.sandbox = decided(config, &trial.sandbox);
    outcome.container = container.and_then(|id| decided(config, &id));
    outcome.left = cri.remove(&trial).err();
    outcome
}

/// The latest decision about a container.
fn decided(config: &Config, id: &str) -> Option<Decision> {
    let state = StateDir::open(&config.state).ok()?;
    let mut found = None;
    log::read(&state, |entry| {
        if entry.decision.container == id {
            found = Some(entry.decision);
        }
    })
    .ok()?;
    found
}

fn verdict(name: &str, outcome: &Outcome) -> Check {
    if let Some(why) = &outcome.refused {
        return SELFTEST.fail(
            CODE,
            format!("no pod starts with the handler {name}: {why}"),
            "do what the message says; if it is not Assay's, see containerd's log",
        );
    }
    let Some(sandbox) = &outcome.sandbox else {
        return SELFTEST.fail(
            CODE,
            format!("a pod of the handler {name} started, and nothing was decided about it: it runs without Assay"),
            "see runtime-path-ignored and configuration-same above",
        );
    };
    if let Some(why) = &outcome.left {
        return SELFTEST.fail(
            CODE,
            format!("the pod of the handler {name} could not be taken away: {why}"),
            "see containerd's log, and remove the pod assay-doctor with crictl",
        );
    }
    let word = |decision: &Decision| {
        let verdict = match decision.verdict {
            Verdict::Allow => "allowed",
            Verdict::Refuse => "refused",
        };
        let rule = decision
            .rule
            .as_deref()
            .map_or_else(String::new, |rule| format!(" by rule \"{rule}\""));
        format!("{verdict}{rule} ({})", decision.code)
    };
    let container = match (&outcome.container, &outcome.container_refused) {
        (Some(decision), Some(_)) if decision.verdict == Verdict::Refuse => word(decision),
        (Some(decision), None) if decision.verdict == Verdict::Allow => word(decision),
        (decision, said) => {
            let decision = decision.as_ref().map_or_else(|| "not decided about".to_owned(), word);
            return SELFTEST.fail(
                CODE,
                format!(
                    "a container of the handler {name} was {decision}, and containerd said: {}",
                    said.as_deref().unwrap_or("it runs")
                ),
                "see containerd's log; report it if the decision and what happened do not agree",
            );
        }
    };
    SELFTEST.pass(
        CODE,
        format!(
            "a pod of the handler {name}: sandbox {}, a container of the same image {container}",
            word(sandbox)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    fn decision(verdict: &str) -> Decision {
        serde_json::from_value(serde_json::json!({
            "version": 1, "time": "2026-01-01T00:00:00Z", "namespace": "k8s.io", "container": "x",
            "verdict": verdict, "code": "digest-listed", "reason": "", "fix": "", "policy": true, "name": "",
            "repeated": false, "phases": [],
        }))
        .unwrap()
    }

    #[test]
    fn what_happened_must_be_what_was_decided() {
        let good = || Outcome {
            sandbox: Some(decision("allow")),
            container: Some(decision("refuse")),
            container_refused: Some("assay refused".to_owned()),
            ..Outcome::default()
        };
        assert_eq!(verdict("assay", &good()).standing, Standing::Pass);
        let bad = [
            // No pod starts.
            Outcome {
                refused: Some("no".to_owned()),
                ..Outcome::default()
            },
            // A pod starts that Assay has never seen.
            Outcome {
                sandbox: None,
                ..good()
            },
            // A container runs that was refused.
            Outcome {
                container_refused: None,
                ..good()
            },
            // One that was allowed does not.
            Outcome {
                container: Some(decision("allow")),
                ..good()
            },
            Outcome {
                container: None,
                ..good()
            },
            Outcome {
                left: Some("busy".to_owned()),
                ..good()
            },
        ];
        for outcome in bad {
            let check = verdict("assay", &outcome);
            assert_eq!(check.standing, Standing::Fail, "{outcome:?}");
            assert!(!check.fix.is_empty());
        }
    }
}
