//! Decisions as traces of OpenTelemetry: a span for each, and one in it for each of its phases.
//!
//! Whether, where and how they are sent is said by the environment, as the specification has it:
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. They are made of the decision log,
//! so no container that starts waits for them.

use std::collections::HashMap;
use std::env;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    SdkTracer, SdkTracerProvider, Span as Recorded, SpanData, SpanExporter as _, SpanProcessor,
};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;

use crate::admission::{Decision, Verdict};
use crate::oci::registry::http;

/// Name of the service, unless the environment has another.
const SERVICE: &str = "assay";
/// What the SDK calls a service without a name.
const NAMELESS: &str = "unknown_service";
/// Most spans that wait to be sent.
const MAX_WAITING: usize = 2048;
/// Most spans that are sent at once.
const MAX_BATCH: usize = 512;
/// How long the last ones may take when the agent ends.
const LAST: Duration = Duration::from_secs(2);

/// Makes traces.
#[derive(Debug)]
pub(super) struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    /// What the agent itself is a part of.
    parent: Context,
    sending: JoinHandle<()>,
}

impl Traces {
    /// `None` where the environment does not ask for traces. Inside of an event loop; `warn` is told when they are not
    /// taken.
    pub(super) fn begin(warn: impl Fn(&str) + Send + 'static) -> Result<Option<Self>, String> {
        if !is_wanted(|name| env::var(name).ok())? {
            return Ok(None);
        }
        let client = http().map_err(|error| error.to_string())?;
        let client = client.build().map_err(|error| error.to_string())?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_http_client(client)
            .build()
            .map_err(|error| error.to_string())?;
        let (queue, spans) = channel(MAX_WAITING);
        let resource = resource();
        let mut exporter = exporter;
        exporter.set_resource(&resource);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(Queue(queue))
            .build();
        let variables: HashMap<String, String> = ["traceparent", "tracestate"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), env::var(name.to_ascii_uppercase()).ok()?)))
            .collect();
        Ok(Some(Self {
            tracer: provider.tracer("assay"),
            provider,
            parent: TraceContextPropagator::new().extract(&variables),
            sending: tokio::spawn(send(spans, exporter, warn)),
        }))
    }

    /// The trace of a decision.
    pub(super) fn decided(&self, decision: &Decision) {
        let Ok(begin) = decision.time.parse::<Timestamp>() else {
            return;
        };
        let begin = SystemTime::from(begin);
        let span = (self.tracer.span_builder("assay admit"))
            .with_kind(SpanKind::Internal)
            .with_start_time(begin)
            .with_attributes(attributes(decision));
        let cx = self
            .parent
            .with_span(self.tracer.build_with_context(span, &self.parent));
        // Each begins where the one before ended: there is no time between phases.
        let mut time = begin;
        for (phase, micros) in &decision.phases {
            let span = (self.tracer.span_builder(phase.clone()))
                .with_kind(SpanKind::Internal)
                .with_start_time(time);
            time = time.checked_add(Duration::from_micros(*micros)).unwrap_or(time);
            self.tracer.build_with_context(span, &cx).end_with_timestamp(time);
        }
        if decision.verdict == Verdict::Refuse {
            let why = format!("{}: {}", decision.code, decision.reason);
            cx.span().set_status(Status::error(why));
        }
        cx.span().end_with_timestamp(time);
    }

    /// Sends what waits, and no more.
    pub(super) async fn end(self) {
        // With it goes the queue, and with the queue the end of sending.
        drop((self.tracer, self.provider, self.parent));
        let _ = tokio::time::timeout(LAST, self.sending).await;
    }
}

/// Whether variables of the environment ask for traces that can be sent.
fn is_wanted(variable: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let of_traces = |name: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
            .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let has_endpoint = of_traces("ENDPOINT").is_some();
    match variable("OTEL_TRACES_EXPORTER").as_deref() {
        Some("none") => return Ok(false),
        Some("otlp") => {}
        // The specification sends to this machine by default. Nobody who sets no variable asked for that.
        None if has_endpoint => {}
        None => return Ok(false),
        Some(other) => return Err(format!("OTEL_TRACES_EXPORTER is '{other}'; there are otlp and none")),
    }
    match of_traces("PROTOCOL").as_deref() {
        None | Some("http/protobuf") => Ok(true),
        Some(other) => Err(format!(
            "OTEL_EXPORTER_OTLP_PROTOCOL is '{other}'; there is http/protobuf, which collectors take on port 4318"
        )),
    }
}

fn resource() -> Resource {
    let name = Key::from_static_str("service.name");
    let said = Resource::builder().build();
    let is_nameless = |value: opentelemetry::Value| value.as_str().starts_with(NAMELESS);
    if said.get(&name).is_none_or(is_nameless) {
        return Resource::builder().with_service_name(SERVICE).build();
    }
    said
}

/// What is said about a decision, by the names of the semantic conventions where there are some.
fn attributes(decision: &Decision) -> Vec<KeyValue> {
    let verdict = match decision.verdict {
        Verdict::Allow => "allow",
        Verdict::Refuse => "refuse",
    };
    let image = decision.image.as_ref();
    let manifest = image.and_then(|image| image.manifests.first());
    let mut attributes = vec![
        KeyValue::new("assay.verdict", verdict),
        KeyValue::new("assay.code", decision.code.clone()),
        KeyValue::new("assay.repeated", decision.repeated),
        KeyValue::new("assay.namespace", decision.namespace.clone()),
        KeyValue::new("container.id", decision.container.clone()),
        KeyValue::new("container.image.name", decision.name.clone()),
    ];
    let rule = decision.rule.clone().map(|rule| KeyValue::new("assay.rule", rule));
    let manifest = manifest.map(|digest| KeyValue::new("oci.manifest.digest", digest.to_string()));
    attributes.extend(rule.into_iter().chain(manifest));
    if let Some(pod) = &decision.pod {
        attributes.extend([
            KeyValue::new("k8s.namespace.name", pod.namespace.clone()),
            KeyValue::new("k8s.pod.name", pod.name.clone()),
            KeyValue::new("k8s.pod.uid", pod.uid.clone()),
        ]);
        if !pod.container.is_empty() {
            attributes.push(KeyValue::new("k8s.container.name", pod.container.clone()));
        }
    }
    attributes
}

/// Where spans wait to be sent. One that has no room is lost.
#[derive(Debug)]
struct Queue(Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Recorded, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            let _ = self.0.try_send(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends what comes until nothing can come any more.
async fn send(mut spans: Receiver<SpanData>, exporter: SpanExporter, warn: impl Fn(&str)) {
    let mut trouble = false;
    let mut batch = Vec::new();
    while spans.recv_many(&mut batch, MAX_BATCH).await > 0 {
        // It tries again by itself, for as long as OTEL_EXPORTER_OTLP_TIMEOUT says.
        let sent = exporter.export(std::mem::take(&mut batch)).await;
        match (&sent, trouble) {
            (Err(error), false) => warn(&format!("traces are lost: they cannot be sent: {error}")),
            (Ok(()), true) => warn("traces are sent again"),
            _ => {}
        }
        trouble = sent.is_err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_made_where_the_environment_asks_for_them() {
        let wanted = |variables: &[(&str, &str)]| {
            is_wanted(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert_eq!(wanted(&[]), Ok(false));
        assert_eq!(wanted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(false));
        assert_eq!(wanted(&[ENDPOINT]), Ok(true));
        assert_eq!(
            wanted(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/t")]),
            Ok(true)
        );
        assert_eq!(wanted(&[("OTEL_TRACES_EXPORTER", "otlp")]), Ok(true));
        assert_eq!(wanted(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(false));
        assert_eq!(wanted(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(false));
        assert!(wanted(&[("OTEL_TRACES_EXPORTER", "zipkin")]).is_err());
        assert!(wanted(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).is_err());
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert_eq!(
            wanted(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), of_traces]),
            Ok(true)
        );
    }
}
