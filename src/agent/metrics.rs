//! Figures for Prometheus, in OpenMetrics text.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use crate::admission::again::{Reevaluation, Step};
use crate::admission::exec::ExecRecord;
use crate::admission::{Counts, Decision, Verdict};
use crate::policy::{Active, Kept};
use crate::store::StateDir;

/// Upper bounds of a phase of a decision, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.1, 0.3, 1.0, 10.0];
/// Upper bounds of how many system calls a profile allows; containerd's own allows some 320.
const CALLS: [f64; 10] = [25.0, 50.0, 75.0, 100.0, 125.0, 150.0, 200.0, 250.0, 300.0, 400.0];
/// What is cached below the state, by the name of its folder.
const CACHES: [&str; 4] = ["evidence/blobs/sha256", "needs", "profiles", "analysis"];

/// Names and values of labels.
type Labels<const N: usize> = [(&'static str, Cow<'static, str>); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges = Family<Labels<1>, Gauge>;
type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone)]
struct Phase;

impl MetricConstructor<Histogram> for Phase {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
}

/// What is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    decisions: Counters<2>,
    execs: Counters<2>,
    durations: Family<Labels<1>, Histogram, Phase>,
    reevaluations: Counters<2>,
    actions: Counters<2>,
    containers: Gauges,
    view_files: Gauges,
    view_bytes: Gauges,
    allowed_calls: Histogram,
    complaints: Counters<1>,
    entries: Gauges,
    bytes: Gauges,
    evidence_age: Seconds,
    generation: Gauge,
    expiries: Family<Labels<1>, Seconds>,
    refreshes: Counters<2>,
    fleet_version: Gauges,
    fleet_expiry: Family<Labels<1>, Seconds>,
}

/// How the running containers stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standings {
    pub(super) allowed: u64,
    pub(super) refused: u64,
    pub(super) not_judged: u64,
    /// Files of those that have a view: that it shows, and that it hides.
    pub(super) files: (u64, u64),
    /// And their bytes.
    pub(super) bytes: (u64, u64),
}

impl Standings {
    /// Takes in a container that sees its image through a view.
    pub(super) fn view(&mut self, counts: Counts) {
        for (sum, (image, view)) in [(&mut self.files, counts.files), (&mut self.bytes, counts.bytes)] {
            sum.0 = sum.0.saturating_add(view);
            sum.1 = sum.1.saturating_add(image.saturating_sub(view));
        }
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("assay");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The agent", build);
        let to = &mut registry;
        Self {
            decisions: put(
                to,
                "decisions",
                "Decisions about containers that were to be started, since the agent began",
            ),
            execs: put(
                to,
                "execs",
                "Further processes that were asked for in containers, as they are recorded",
            ),
            durations: register(
                to,
                "decision_duration_seconds",
                "Time that each phase of a decision took",
                Family::new_with_constructor(Phase),
            ),
            reevaluations: put(
                to,
                "reevaluations",
                "Running containers whose verdict changed, by what changed it and what the rule wants done",
            ),
            actions: put(to, "reevaluation_actions", "Actions on running containers"),
            containers: put(to, "containers", "Running containers that were started through Assay"),
            view_files: put(
                to,
                "view_files",
                "Files in the images of running containers that have a view: those that it shows, and those that it hides",
            ),
            view_bytes: put(to, "view_bytes", "Bytes of these files"),
            allowed_calls: register(
                to,
                "seccomp_allowed_syscalls",
                "System calls that the profile of a container leaves it, of those that were to be started with one",
                Histogram::new(CALLS),
            ),
            complaints: put(
                to,
                "seccomp_complaints",
                "System calls in complain mode that enforcing would have refused",
            ),
            entries: put(to, "cache_entries", "Files of a cache"),
            bytes: put(to, "cache_bytes", "Bytes of a cache"),
            evidence_age: put(to, "evidence_age_seconds", "Time since the evidence cache changed"),
            generation: put(to, "policy_generation", "Generation of the policy in force"),
            expiries: put(
                to,
                "trust_root_expiry_timestamp_seconds",
                "When a trusted root does not count any more, where it has a max_age",
            ),
            refreshes: put(
                to,
                "refreshes",
                "Fetches of the fleet's policy, of trusted roots and of evidence",
            ),
            fleet_version: put(
                to,
                "fleet_policy_version",
                "Version of the fleet's policy, where there is one",
            ),
            fleet_expiry: put(
                to,
                "fleet_policy_expiry_timestamp_seconds",
                "When the fleet's policy should have been replaced by a newer one",
            ),
            registry,
        }
    }

    pub(super) fn decided(&self, decision: &Decision) {
        self.decisions
            .get_or_create(&said(decision.verdict, &decision.code))
            .inc();
        for (phase, micros) in &decision.phases {
            let time = Duration::from_micros(*micros);
            let phase = [("phase", phase.clone().into())];
            self.durations.get_or_create(&phase).observe(time.as_secs_f64());
        }
        if let Some(syscalls) = &decision.syscalls
            && syscalls.profile.is_some()
        {
            let allowed = u32::try_from(syscalls.counts.result).unwrap_or(u32::MAX);
            self.allowed_calls.observe(allowed.into());
        }
    }

    pub(super) fn executed(&self, record: &ExecRecord) {
        self.execs
            .get_or_create(&said(record.verdict, &record.code))
            .inc_by(record.times);
    }

    pub(super) fn recorded(&self, record: &Reevaluation) {
        let action = || ("action", record.action.as_str().into());
        let result = match record.step {
            Step::Changed => {
                for cause in &record.cause {
                    let judged = [("trigger", cause.as_str().into()), action()];
                    self.reevaluations.get_or_create(&judged).inc();
                }
                return;
            }
            Step::Done => "done",
            Step::Failed => "failed",
            Step::Dropped => "dropped",
            Step::Announced | Step::NotJudged => return,
        };
        self.actions.get_or_create(&[action(), ("result", result.into())]).inc();
    }

    /// Calls that a container made in complain mode.
    pub(super) fn complained(&self, call: &'static str, times: u64) {
        self.complaints.get_or_create(&[("syscall", call.into())]).inc_by(times);
    }

    pub(super) fn stand(&self, standings: Standings) {
        for (gauges, state, count) in [
            (&self.containers, "allowed", standings.allowed),
            (&self.containers, "refused", standings.refused),
            (&self.containers, "not_judged", standings.not_judged),
            (&self.view_files, "kept", standings.files.0),
            (&self.view_files, "hidden", standings.files.1),
            (&self.view_bytes, "kept", standings.bytes.0),
            (&self.view_bytes, "hidden", standings.bytes.1),
        ] {
            gauges.get_or_create(&[("state", state.into())]).set(number(count));
        }
    }

    pub(super) fn in_force(&self, active: &Active) {
        self.generation.set(number(active.generation));
        self.expiries.clear();
        for root in &active.roots {
            if let Some(until) = root.until() {
                let id = [("root", root.id.clone().into())];
                self.expiries.get_or_create(&id).set(until.as_duration().as_secs_f64());
            }
        }
    }

    pub(super) fn refreshed(&self, what: &'static str, is_done: bool) {
        let result = if is_done { "done" } else { "failed" };
        let fetched = [("what", what.into()), ("result", result.into())];
        self.refreshes.get_or_create(&fetched).inc();
    }

    /// The fleet's policy that the node keeps.
    pub(super) fn keep(&self, kept: Option<&Kept>) {
        self.fleet_version.clear();
        self.fleet_expiry.clear();
        if let Some(kept) = kept {
            let origin = [("from", kept.from.clone().into())];
            self.fleet_version.get_or_create(&origin).set(number(kept.version));
            let expiry = kept.expires.as_duration().as_secs_f64();
            self.fleet_expiry.get_or_create(&origin).set(expiry);
        }
    }

    /// Looks at the caches.
    pub(super) fn look(&self, state: &StateDir) {
        for name in CACHES {
            let (mut entries, mut bytes) = (0, 0);
            // What is not there is empty.
            for entry in std::fs::read_dir(state.path().join(name))
                .into_iter()
                .flatten()
                .flatten()
            {
                entries += 1;
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
            let kind = [("kind", name.split('/').next().unwrap_or(name).into())];
            self.bytes.get_or_create(&kind).set(number(bytes));
            self.entries.get_or_create(&kind).set(entries);
        }
        let index = std::fs::metadata(state.path().join("evidence/index.json"));
        let age = index
            .and_then(|index| index.modified())
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if let Some(age) = age {
            self.evidence_age.set(age.as_secs_f64());
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A metric that is a part of the registry from now on.
fn put<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    register(registry, name, help, M::default())
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Labels of what was decided.
fn said(verdict: Verdict, code: &str) -> Labels<2> {
    let result = match verdict {
        Verdict::Allow => "allow",
        Verdict::Refuse => "refuse",
    };
    [("result", result.into()), ("reason", code.to_owned().into())]
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::again::{Cause, Said};
    use crate::admission::{Request, reject};
    use crate::policy::Action;

    #[test]
    fn figures_are_what_prometheus_reads() {
        let metrics = Metrics::new();
        let decision = Decision {
            phases: vec![("evidence".to_owned(), 3000)],
            ..reject(&Request::parse(b"{").unwrap_err())
        };
        metrics.decided(&decision);
        metrics.decided(&decision);
        let mut standings = Standings {
            allowed: 3,
            refused: 1,
            ..Standings::default()
        };
        for _ in 0..2 {
            standings.view(Counts {
                files: (100, 30),
                bytes: (5000, 2000),
                ..Counts::default()
            });
        }
        metrics.stand(standings);
        metrics.complained("ptrace", 2);
        let said = Said::from(&decision);
        let record = |step| Reevaluation {
            cause: vec![Cause::Trust],
            ..Reevaluation::new(&decision, step, said.clone(), said.clone(), Action::Stop)
        };
        metrics.recorded(&record(Step::Changed));
        metrics.recorded(&record(Step::Done));
        let text = metrics.text();
        for line in [
            "assay_build_info{version=\"0.1.0\"} 1",
            "assay_decisions_total{result=\"refuse\",reason=\"request-invalid\"} 2",
            "assay_decision_duration_seconds_bucket{le=\"0.002\",phase=\"evidence\"} 0",
            "assay_decision_duration_seconds_bucket{le=\"0.004\",phase=\"evidence\"} 2",
            "assay_reevaluations_total{trigger=\"trust\",action=\"stop\"} 1",
            "assay_reevaluation_actions_total{action=\"stop\",result=\"done\"} 1",
            "assay_containers{state=\"allowed\"} 3",
            "assay_view_files{state=\"kept\"} 60",
            "assay_view_files{state=\"hidden\"} 140",
            "assay_view_bytes{state=\"hidden\"} 6000",
            "assay_seccomp_complaints_total{syscall=\"ptrace\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\n{text}");
        }
    }
}
