//! Figures for Prometheus, in OpenMetrics text: on a socket of root's, and on a port of this machine alone where that is
//! asked for.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::refresh::What;
use crate::admission::again::{Reevaluation, Step};
use crate::admission::exec::ExecRecord;
use crate::admission::{Decision, Verdict};
use crate::policy::{Active, Kept};
use crate::store::StateDir;

/// Name of the socket below `run`.
const SOCKET: &str = "agent.sock";
/// Most requests that are answered at once.
const MAX_CONNECTIONS: usize = 8;
/// Longest time for one connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Upper bounds of a phase of a decision, in seconds.
const BUCKETS: [f64; 10] = [0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.1, 0.3, 1.0, 10.0];
/// What is cached below the state, by the name of its folder.
const CACHES: [&str; 4] = ["evidence/blobs/sha256", "needs", "profiles", "analysis"];
/// As Prometheus asks for it.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    result: &'static str,
    reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Judged {
    trigger: &'static str,
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    action: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fetched {
    what: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Origin {
    from: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Root {
    root: String,
}

#[derive(Debug, Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

type Seconds = Gauge<f64, AtomicU64>;

/// What is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    decisions: Family<Decided, Counter>,
    execs: Family<Decided, Counter>,
    durations: Family<Phase, Histogram, Buckets>,
    reevaluations: Family<Judged, Counter>,
    actions: Family<Done, Counter>,
    containers: Family<State, Gauge>,
    entries: Family<Kind, Gauge>,
    bytes: Family<Kind, Gauge>,
    evidence_age: Seconds,
    generation: Gauge,
    expiries: Family<Root, Seconds>,
    refreshes: Family<Fetched, Counter>,
    fleet_version: Family<Origin, Gauge>,
    fleet_expiry: Family<Origin, Seconds>,
}

/// How many running containers stand how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standings {
    pub(super) allowed: usize,
    pub(super) refused: usize,
    pub(super) not_judged: usize,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("assay"),
            decisions: Family::default(),
            execs: Family::default(),
            durations: Family::new_with_constructor(Buckets),
            reevaluations: Family::default(),
            actions: Family::default(),
            containers: Family::default(),
            entries: Family::default(),
            bytes: Family::default(),
            evidence_age: Seconds::default(),
            generation: Gauge::default(),
            expiries: Family::default(),
            refreshes: Family::default(),
            fleet_version: Family::default(),
            fleet_expiry: Family::default(),
        };
        let registry = &mut metrics.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The agent", build);
        registry.register(
            "decisions",
            "Decisions about containers that were to be started, since the agent began",
            metrics.decisions.clone(),
        );
        registry.register(
            "execs",
            "Further processes that were asked for in containers, as they are recorded",
            metrics.execs.clone(),
        );
        registry.register(
            "decision_duration_seconds",
            "Time that each phase of a decision took",
            metrics.durations.clone(),
        );
        registry.register(
            "reevaluations",
            "Running containers whose verdict changed, by what changed it and what the rule wants done",
            metrics.reevaluations.clone(),
        );
        registry.register(
            "reevaluation_actions",
            "Actions on running containers",
            metrics.actions.clone(),
        );
        registry.register(
            "containers",
            "Running containers that were started through Assay",
            metrics.containers.clone(),
        );
        registry.register("cache_entries", "Files of a cache", metrics.entries.clone());
        registry.register("cache_bytes", "Bytes of a cache", metrics.bytes.clone());
        registry.register(
            "evidence_age_seconds",
            "Time since the evidence cache changed",
            metrics.evidence_age.clone(),
        );
        registry.register(
            "policy_generation",
            "Generation of the policy in force",
            metrics.generation.clone(),
        );
        registry.register(
            "trust_root_expiry_timestamp_seconds",
            "When a trusted root does not count any more, where it has a max_age",
            metrics.expiries.clone(),
        );
        registry.register(
            "refreshes",
            "Fetches of the fleet's policy and of trusted roots",
            metrics.refreshes.clone(),
        );
        registry.register(
            "fleet_policy_version",
            "Version of the fleet's policy, where there is one",
            metrics.fleet_version.clone(),
        );
        registry.register(
            "fleet_policy_expiry_timestamp_seconds",
            "When the fleet's policy should have been replaced by a newer one",
            metrics.fleet_expiry.clone(),
        );
        metrics
    }

    pub(super) fn decided(&self, decision: &Decision) {
        let result = result(decision.verdict);
        let reason = decision.code.clone();
        self.decisions.get_or_create(&Decided { result, reason }).inc();
        for (phase, micros) in &decision.phases {
            let phase = Phase { phase: phase.clone() };
            let time = Duration::from_micros(*micros);
            self.durations.get_or_create(&phase).observe(time.as_secs_f64());
        }
    }

    pub(super) fn executed(&self, record: &ExecRecord) {
        let result = result(record.verdict);
        let reason = record.code.clone();
        self.execs
            .get_or_create(&Decided { result, reason })
            .inc_by(record.times);
    }

    pub(super) fn recorded(&self, record: &Reevaluation) {
        let action = record.action.as_str();
        let result = match record.step {
            Step::Changed => {
                for trigger in record.cause.iter().map(|cause| cause.as_str()) {
                    self.reevaluations.get_or_create(&Judged { trigger, action }).inc();
                }
                return;
            }
            Step::Done => "done",
            Step::Failed => "failed",
            Step::Dropped => "dropped",
            Step::Announced | Step::NotJudged => return,
        };
        self.actions.get_or_create(&Done { action, result }).inc();
    }

    pub(super) fn stand(&self, standings: Standings) {
        let Standings {
            allowed,
            refused,
            not_judged,
        } = standings;
        for (state, count) in [("allowed", allowed), ("refused", refused), ("not_judged", not_judged)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.containers.get_or_create(&State { state }).set(count);
        }
    }

    pub(super) fn in_force(&self, active: &Active) {
        self.generation
            .set(i64::try_from(active.generation).unwrap_or(i64::MAX));
        self.expiries.clear();
        for root in &active.roots {
            if let Some(until) = root.until() {
                let id = Root { root: root.id.clone() };
                self.expiries.get_or_create(&id).set(until.as_duration().as_secs_f64());
            }
        }
    }

    pub(super) fn refreshed(&self, what: What, is_done: bool) {
        let fetched = Fetched {
            what: what.as_str(),
            result: if is_done { "done" } else { "failed" },
        };
        self.refreshes.get_or_create(&fetched).inc();
    }

    /// The fleet's policy that the node keeps.
    pub(super) fn keep(&self, kept: Option<&Kept>) {
        self.fleet_version.clear();
        self.fleet_expiry.clear();
        if let Some(kept) = kept {
            let origin = Origin {
                from: kept.from.clone(),
            };
            let version = i64::try_from(kept.version).unwrap_or(i64::MAX);
            self.fleet_version.get_or_create(&origin).set(version);
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
            let kind = name.split('/').next().unwrap_or(name).to_owned();
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            self.bytes.get_or_create(&Kind { kind: kind.clone() }).set(bytes);
            self.entries.get_or_create(&Kind { kind }).set(entries);
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

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Answers requests until the event loop ends. `run` is the directory of the socket.
    pub(super) fn serve(self: &Arc<Self>, run: &StateDir, port: Option<SocketAddr>) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let socket = listen(&run.path().join(SOCKET))?;
        let (metrics, places) = (Arc::clone(self), Arc::clone(&room));
        tokio::spawn(async move {
            loop {
                match socket.accept().await {
                    Ok((stream, _)) => answer(&metrics, &places, stream),
                    Err(_) => tokio::time::sleep(PATIENCE).await,
                }
            }
        });
        let Some(port) = port else {
            return Ok(());
        };
        let listener = std::net::TcpListener::bind(port)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let metrics = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => answer(&metrics, &room, stream),
                    Err(_) => tokio::time::sleep(PATIENCE).await,
                }
            }
        });
        Ok(())
    }
}

/// A socket that only its owner reaches. The directory is private, so nobody reaches it before its mode is set either.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers the requests of one connection; one too many is closed.
fn answer(metrics: &Arc<Metrics>, room: &Arc<Semaphore>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let Ok(place) = Arc::clone(room).try_acquire_owned() else {
        return;
    };
    let metrics = Arc::clone(metrics);
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let response = respond(&metrics, &request);
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        // Whoever asked went away, or did not ask as HTTP asks.
        let _ = tokio::time::timeout(PATIENCE, http.serve_connection(TokioIo::new(stream), service)).await;
        drop(place);
    });
}

fn respond(metrics: &Metrics, request: &Request<Incoming>) -> Response<String> {
    let mut response = Response::new(String::new());
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            *response.body_mut() = metrics.text();
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
        }
        (_, "/metrics") => *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

fn result(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Refuse => "refuse",
    }
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
        metrics.stand(Standings {
            allowed: 3,
            refused: 1,
            not_judged: 0,
        });
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
            "# EOF",
        ] {
            assert!(text.lines().any(|written| written == line), "{line}\n{text}");
        }
    }
}
