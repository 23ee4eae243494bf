//! What an agent tells those who watch nodes: figures for a dashboard, traces, and Events of pods.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use assay::admission::again::Step;
use assay::admission::{Decision, Verdict};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use rustix::process::Signal;

use crate::agent::{Agent, FROZEN, Node, REPORTED, rule};
use crate::harness::cri::Pod;
use crate::harness::daemon::{COMPLAINING, UNSIGNED, set_up};
use crate::harness::{eventually_within, needs_assay};
use crate::refusals::assert_refusal;
use apiserver::Cluster;

#[path = "../apiserver/mod.rs"]
mod apiserver;
#[path = "../dashboard/mod.rs"]
mod dashboard;

/// An agent looks for new decisions every quarter of a minute, and at what complain mode heard every minute.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn the_agent_has_every_figure_of_the_dashboard() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("dashboard", "1s");
    let home = node.home();
    let config = fs::read_to_string(home.join("config.toml")).unwrap();
    // Nobody answers there.
    let config = format!("{config}policy_from = '127.0.0.1:9/policy:prod'\n");
    fs::write(home.join("config.toml"), config).unwrap();
    fs::write(
        home.join("trust.d/root.toml"),
        "[[root]]\nid = 'public-good'\nbuiltin = 'sigstore'\nmax_age = '3650d'\n",
    )
    .unwrap();
    let complains = "[rule.seccomp]\nmode = 'complain'\ndeny = ['sync']\n";
    let policy = fs::read_to_string(home.join("policy.d/50-tests.toml")).unwrap();
    node.write_policy(&format!("{}{policy}", rule(COMPLAINING, complains)));
    let _agent = Agent::start(&node);
    let frozen = node.start("frozen", FROZEN);
    assert_eq!(frozen.run("exec", "exit 5").status, 5);
    let complaining = node.start("complaining", COMPLAINING);
    assert_eq!(complaining.run("sync", "/bin/busybox sync").status, 0);
    node.assay(&["trust", "distrust-key", "release"]);
    node.assay(&["policy", "apply"]);
    node.wait_for(&frozen, &[Step::Changed, Step::Done]);
    // The fleet's own are looked at where there is a fleet.
    let mut asked = dashboard::figures();
    asked.retain(|name| !name.starts_with("assay_fleet_"));
    eventually_within(PATIENCE, "all figures of the dashboard", || {
        let answered = dashboard::answered(&node.figures());
        let missing: Vec<&String> = asked.difference(&answered).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?}"))
        }
    });
    let figures = node.figures();
    let sync = "assay_seccomp_complaints_total{syscall=\"sync\"} 1";
    assert!(figures.lines().any(|line| line == sync), "{figures}");
}

/// What takes traces, as a collector of OpenTelemetry does.
struct Collector {
    endpoint: String,
    /// Headers and body of each request.
    taken: Receiver<(BTreeMap<String, String>, ExportTraceServiceRequest)>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, taken) = channel();
        // It ends with this process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if sender.send(take(stream.unwrap())).is_err() {
                    return;
                }
            }
        });
        Self { endpoint, taken }
    }
}

/// Answers one request.
fn take(stream: TcpStream) -> (BTreeMap<String, String>, ExportTraceServiceRequest) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    reader
        .into_inner()
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    (headers, ExportTraceServiceRequest::decode(body.as_slice()).unwrap())
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[test]
fn each_decision_is_a_trace_with_its_phases() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("traces", "30s");
    node.write_policy(&rule("assay.test/enforced/**", ""));
    let collector = Collector::start();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = "00f067aa0ba902b7";
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=nodes"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests"),
        ("TRACEPARENT", &format!("00-{trace}-{parent}-01")),
    ];
    let mut agent = Agent::start_with(&node, |command| {
        command.envs(environment);
    });
    let allowed = node.start("allowed", REPORTED);
    let result = node.case.shell("refused", "true").image(&UNSIGNED).create();
    assert_refusal(&node.case, "refused", result, "signature-missing");

    let mut spans: Vec<Span> = Vec::new();
    let decisions =
        [&allowed.id, &node.case.id("refused")].map(|container| node.case.daemon.decisions(container).remove(0));
    let all: usize = decisions.iter().map(|decision| 1 + decision.phases.len()).sum();
    while spans.len() < all {
        let (headers, request) = collector.taken.recv_timeout(PATIENCE).unwrap();
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["x-tenant"], "nodes");
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            assert_eq!(text(&attributes, "service.name"), Some("assay"));
            assert_eq!(text(&attributes, "deployment.environment.name"), Some("tests"));
            spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    assert_eq!(spans.len(), all);
    for decision in &decisions {
        check(decision, &spans, trace, parent);
    }

    // Without a collector it goes on.
    drop(collector);
    let another = node.start("another", REPORTED);
    eventually_within(PATIENCE, "the decision to be counted", || {
        let figures = node.figures();
        let counted = "assay_decisions_total{result=\"allow\",reason=\"signature-verified\"} 2";
        if figures.lines().any(|line| line == counted) {
            Ok(())
        } else {
            Err(figures)
        }
    });
    drop(another);
    assert_eq!(agent.send(Signal::TERM), Some(0));
}

/// Looks for the trace of a decision.
fn check(decision: &Decision, spans: &[Span], trace: &str, parent: &str) {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits: Vec<char> = hex.chars().collect();
        let pairs = digits.chunks(2).map(|pair| pair.iter().collect::<String>());
        pairs.map(|pair| u8::from_str_radix(&pair, 16).unwrap()).collect()
    };
    let about = |span: &&Span| text(&span.attributes, "container.id") == Some(&decision.container);
    let root = spans.iter().find(about).unwrap();
    assert_eq!(root.name, "assay admit");
    assert_eq!(
        (root.trace_id.clone(), root.parent_span_id.clone()),
        (bytes(trace), bytes(parent))
    );
    assert_eq!(text(&root.attributes, "assay.code"), Some(decision.code.as_str()));
    assert_eq!(
        text(&root.attributes, "container.image.name"),
        Some(decision.name.as_str())
    );
    let time: jiff::Timestamp = decision.time.parse().unwrap();
    assert_eq!(i128::from(root.start_time_unix_nano), time.as_nanosecond());
    let spent: u64 = decision.phases.iter().map(|(_, micros)| micros * 1000).sum();
    assert_eq!(root.end_time_unix_nano - root.start_time_unix_nano, spent);
    let status = root.status.clone().unwrap_or_default();
    if decision.verdict == Verdict::Refuse {
        assert_eq!(status.code(), StatusCode::Error);
        assert_eq!(status.message, format!("{}: {}", decision.code, decision.reason));
    } else {
        assert_eq!(status.code(), StatusCode::Unset);
    }
    let phases: Vec<(String, u64)> = spans
        .iter()
        .filter(|span| span.parent_span_id == root.span_id)
        .map(|span| {
            (
                span.name.clone(),
                (span.end_time_unix_nano - span.start_time_unix_nano) / 1000,
            )
        })
        .collect();
    assert_eq!(phases, decision.phases);
}

/// A process that ends with its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The Events that a cluster was sent.
fn events(cluster: &Cluster) -> Vec<serde_json::Value> {
    let log = cluster.log();
    let path = "allowed /apis/events.k8s.io/v1/namespaces/default/events application/json ";
    let bodies = log.lines().map(|line| line.strip_prefix(path).expect(line));
    bodies.map(|body| serde_json::from_str(body).unwrap()).collect()
}

/// Fails where the schema that Kubernetes publishes does not take it.
fn fits_the_schema(event: &serde_json::Value) {
    let mut validate = Command::new("python3");
    validate
        .args(["-m", "kubernetes_validate", "--strict", "-k", "1.37.0", "-"])
        .env("PYTHONPATH", set_up("tools/kubernetes-validate"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut validate = validate.spawn().unwrap();
    validate
        .stdin
        .take()
        .unwrap()
        .write_all(event.to_string().as_bytes())
        .unwrap();
    let output = validate.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_refused_pod_has_an_event() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("events", "30s");
    let policy = fs::read_to_string(node.home().join("policy.d/50-tests.toml")).unwrap();
    node.write_policy(&format!("{}{policy}", rule(&UNSIGNED.name, "")));
    let daemon = node.case.daemon;
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let _agent = Agent::start_with(&node, |command| {
        command.args(["--listen", &address, "--refusals"]);
    });
    let cluster = Cluster::start();
    let mut tells = cluster.step(&format!("events --agent {address}"));
    let said = cluster.folder.path().join("said");
    let _tells = Ends(tells.stderr(fs::File::create(&said).unwrap()).spawn().unwrap());

    let pod = Pod::run(daemon, "events", "").unwrap();
    let running = pod.create("running", REPORTED, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&running).unwrap();
    let refused = pod.create("main", &UNSIGNED.name, &["/bin/true"]).unwrap();
    for _ in 0..3 {
        pod.start(&refused).unwrap_err();
    }
    eventually_within(PATIENCE, "an Event", || {
        if events(&cluster).is_empty() {
            Err(cluster.log())
        } else {
            Ok(())
        }
    });
    let event = events(&cluster).remove(0);
    fits_the_schema(&event);
    let decision = daemon.decisions(&refused).remove(0);
    let of = decision.pod.as_ref().unwrap();
    assert_eq!((of.name.as_str(), of.container.as_str()), ("events", "main"));
    for (place, value) in [
        ("/metadata/namespace", of.namespace.as_str()),
        ("/regarding/kind", "Pod"),
        ("/regarding/name", &of.name),
        ("/regarding/uid", &of.uid),
        ("/type", "Warning"),
        ("/reason", "AssayRefused"),
        ("/reportingInstance", "worker-1.example"),
        ("/note", &format!("container main: {}", decision.line())),
    ] {
        assert_eq!(event.pointer(place).unwrap(), value, "{place}");
    }

    // A cluster in trouble hears of it when it is better; of what it knows, nothing more.
    cluster.answer(Some(503));
    pod.start(&refused).unwrap_err();
    node.assay(&["trust", "distrust-key", "release"]);
    node.assay(&["policy", "apply"]);
    eventually_within(PATIENCE, "a complaint", || {
        let said = fs::read_to_string(&said).unwrap();
        if said.contains("no Events, it is tried again: the API server takes no Event: 503") {
            Ok(())
        } else {
            Err(said)
        }
    });
    assert_eq!(cluster.asked().matches("AssayRefused").count(), 1);
    cluster.answer(None);
    eventually_within(PATIENCE, "another Event", || {
        if events(&cluster).is_empty() {
            Err(cluster.log())
        } else {
            Ok(())
        }
    });
    let event = events(&cluster).remove(0);
    fits_the_schema(&event);
    assert_eq!(event["reason"], "AssayReevaluated");
    let note = event["note"].as_str().unwrap();
    assert!(
        note.starts_with("container running: assay: refused while it runs (was allowed): key-distrusted: "),
        "{note}"
    );
    assert_eq!(cluster.log().matches("AssayRefused").count(), 0);
}
