//! Exports the spans of deployments to an OpenTelemetry collector, by OTLP over HTTP with protobuf (feature `otlp`).
//!
//! The variables of the OpenTelemetry specification decide whether and where. The trace is the id that `vc deploy` chose and the logs
//! name, so nodes need not pass contexts on: each knows the trace of what it does, and the span at its root, the request at the node
//! that the client is connected to, has an id that follows from that of the trace.
//!
//! Spans that have ended wait in a bounded queue for a thread of their own, which a collector that is slow or away may hold up. What
//! finds the queue full is dropped, and counted by the SDK.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response};
use opentelemetry::trace::{SpanContext, SpanId, TraceId, TraceState, TracerProvider as _};
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter as Export};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;
use url::Url;

/// The spans that are exported, if they have a field `trace`.
const SPANS: [&str; 3] = ["request", "deployment", "instance"];
/// The one at the root of a trace.
const ROOT: &str = "request";
/// How long a collector may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer of a collector, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// How long the end of the process waits for a collector to take the last spans, and for the thread that sends them.
const FLUSH_DEADLINE: Duration = Duration::from_millis(300);
const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(500);
/// Where a collector is, for all signals and for traces alone.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// What the spans of this process say of it. Nothing is exported before.
static RESOURCE: OnceLock<Resource> = OnceLock::new();

/// Says which node this is.
pub(crate) fn identify(node: &vc_protocol::NodeId, name: &str, cluster: &vc_protocol::ClusterId) {
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.version", crate::VERSION),
        KeyValue::new("service.instance.id", node.to_string()),
        KeyValue::new("vc.node", name.to_owned()),
        KeyValue::new("vc.cluster", cluster.to_string()),
    ]);
    if variable("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("vc-node");
    }
    // The first one stays: a process is one node.
    let _ = RESOURCE.set(resource.build());
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|it| !it.is_empty())
}

/// Exports until it is dropped, and waits then for at most half a second.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
    /// When requests to the collector end, whatever it does.
    end: watch::Sender<Option<Instant>>,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.end.send_replace(Some(Instant::now() + FLUSH_DEADLINE));
        if let Err(error) = self.provider.shutdown_with_timeout(SHUTDOWN_DEADLINE) {
            tracing::debug!(%error, "the last traces may not have been exported");
        }
    }
}

/// Returns the layer that exports spans, as the environment says; `None` if it names no collector, or disables it.
#[must_use]
pub fn from_environment<S>() -> Option<(Box<dyn Layer<S> + Send + Sync>, Exporter)>
where
    S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
{
    let is_disabled = variable("OTEL_SDK_DISABLED")
        .is_some_and(|it| it.eq_ignore_ascii_case("true"))
        || variable("OTEL_TRACES_EXPORTER").is_some_and(|it| it != "otlp");
    let endpoint = ENDPOINTS.into_iter().find_map(variable).filter(|_| !is_disabled)?;
    let (end, ending) = watch::channel(None);
    let exporter = Deployments {
        endpoint: origin(&endpoint),
        ending,
        inner: OnceLock::new(),
        lost: AtomicU64::new(0),
    };
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("vc-node"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        .with_filter(filter_fn(|it| {
            it.target().starts_with("vc_") && (it.is_event() || SPANS.contains(&it.name()))
        }));
    Some((layer.boxed(), Exporter { provider, end }))
}

/// Exports the spans of deployments, under the trace of each.
#[derive(Debug)]
struct Deployments {
    /// Its origin, for the log.
    endpoint: String,
    ending: watch::Receiver<Option<Instant>>,
    /// Made on the thread that exports, when it is known which node this is; `None` if the environment is wrong.
    inner: OnceLock<Option<SpanExporter>>,
    /// Spans that were not exported since the last that were.
    lost: AtomicU64,
}

impl Export for Deployments {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Some(resource) = RESOURCE.get() else { return Ok(()) };
        let spans: Vec<SpanData> = batch.into_iter().filter_map(of_deployment).collect();
        let inner = self.inner.get_or_init(|| self.connect(resource));
        let (Some(inner), false) = (inner, spans.is_empty()) else { return Ok(()) };
        let count = spans.len() as u64;
        match inner.export(spans).await {
            Ok(()) => {
                let lost = self.lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::info!(lost, endpoint = self.endpoint, "traces are exported again");
                }
            }
            // Once, and not for each batch.
            Err(error) => {
                if self.lost.fetch_add(count, Ordering::Relaxed) == 0 {
                    tracing::warn!(%error, endpoint = self.endpoint, "cannot export traces: they are lost until the collector answers");
                }
            }
        }
        Ok(())
    }

    fn shutdown_with_timeout(&self, deadline: Duration) -> OTelSdkResult {
        match self.inner.get() {
            Some(Some(inner)) => inner.shutdown_with_timeout(deadline),
            _ => Ok(()),
        }
    }
}

impl Deployments {
    fn connect(&self, resource: &Resource) -> Option<SpanExporter> {
        let made = Collector::new(self.ending.clone())
            .map_err(|error| OTelSdkError::InternalFailure(error.to_string()));
        let made = made.and_then(|client| {
            // Later attempts would sleep on the thread, also while the process ends.
            let retry = RetryPolicy::disabled();
            let exporter = SpanExporter::builder().with_http().with_http_client(client);
            let exporter = exporter.with_retry_policy(retry);
            exporter.build().map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
        });
        match made {
            Ok(mut exporter) => {
                exporter.set_resource(resource);
                tracing::info!(endpoint = self.endpoint, "exporting traces of deployments");
                Some(exporter)
            }
            Err(error) => {
                tracing::warn!(%error, "traces are not exported: correct the variables OTEL_…");
                None
            }
        }
    }
}

/// Returns the scheme, host and port of a URL: the rest may have credentials.
fn origin(url: &str) -> String {
    url.parse().map_or_else(|_| "no URL".to_owned(), |url: Url| url.origin().ascii_serialization())
}

/// Returns a span under the trace of its deployment; `None` if it is of none.
fn of_deployment(mut span: SpanData) -> Option<SpanData> {
    let value = |key: &str| {
        let key = Key::from(key.to_owned());
        span.attributes.iter().find(|it| it.key == key).map(|it| it.value.as_str())
    };
    let trace = TraceId::from_hex(&value("trace")?).ok().filter(|it| *it != TraceId::INVALID)?;
    // A request that a worker has passed on is below the one there.
    let is_root = span.name == ROOT && value("via").is_none();
    let root = root_of(trace);
    let (id, parent) = match is_root {
        true => (root, SpanId::INVALID),
        false => (span.span_context.span_id(), root),
    };
    let flags = span.span_context.trace_flags();
    span.span_context = SpanContext::new(trace, id, flags, false, TraceState::default());
    span.parent_span_id = parent;
    span.parent_span_is_remote = !is_root;
    span.attributes.retain(|it| it.key.as_str() != "trace");
    Some(span)
}

/// Returns the id of the span at the root of a trace, which all nodes know without being told.
fn root_of(trace: TraceId) -> SpanId {
    let bytes = trace.to_bytes();
    let half = |at: usize| <[u8; 8]>::try_from(&bytes[at..at + 8]).unwrap_or_default();
    let first = SpanId::from_bytes(half(0));
    if first == SpanId::INVALID { SpanId::from_bytes(half(8)) } else { first }
}

/// Sends requests to the collector, on the thread that calls it.
#[derive(Debug)]
struct Collector {
    runtime: Runtime,
    client: vc_https::Client,
    ending: watch::Receiver<Option<Instant>>,
}

impl Collector {
    fn new(ending: watch::Receiver<Option<Instant>>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, client: vc_https::Client::default(), ending })
    }

    /// Returns when this process waits for no answer any more.
    async fn end(&self) {
        let mut ending = self.ending.clone();
        let end = ending.wait_for(Option::is_some).await.ok().and_then(|end| *end);
        if let Some(end) = end {
            sleep_until(end).await;
        }
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, Full::new(body));
        let (head, body) = self.client.send(request).await?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The SDK polls this on a thread of its own, which is not one of a runtime.
        self.runtime.block_on(async {
            tokio::select! {
                sent = self.send(request) => sent,
                () = sleep(DEADLINE) => Err(format!("no answer within {} s", DEADLINE.as_secs()).into()),
                () = self.end() => Err("the node is stopping".into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanKind, Status, TraceFlags};

    use super::*;

    #[test]
    fn what_is_logged_of_an_endpoint_has_no_credentials() {
        for (url, expected) in [
            ("https://ada:pass@otel.example:4318/v1?api-key=k", "https://otel.example:4318"),
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://otel.example?key=a@b", "http://otel.example"),
        ] {
            assert_eq!(origin(url), expected);
        }
    }

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn span(name: &'static str, fields: &[(&'static str, &'static str)]) -> SpanData {
        let (trace, id) = (TraceId::from_bytes([7; 16]), SpanId::from_bytes([9; 8]));
        let flags = TraceFlags::SAMPLED;
        SpanData {
            span_context: SpanContext::new(trace, id, flags, false, TraceState::default()),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: name.into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: fields.iter().map(|(key, value)| KeyValue::new(*key, *value)).collect(),
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }

    #[test]
    fn the_spans_of_all_nodes_are_below_the_request_at_the_first() {
        let exported = |name, fields: &[_]| {
            let span = of_deployment(span(name, fields)).expect("of a deployment");
            assert_eq!(span.span_context.trace_id().to_string(), TRACE);
            (span.span_context.span_id().to_string(), span.parent_span_id.to_string())
        };
        let (root, own, none) = ("0af7651916cd43dd", "0909090909090909", "0000000000000000");
        let ids = |id: &str, parent: &str| (id.to_owned(), parent.to_owned());
        assert_eq!(exported("request", &[("op", "deploy"), ("trace", TRACE)]), ids(root, none));
        assert_eq!(exported("request", &[("trace", TRACE), ("via", "12D3")]), ids(own, root));
        assert_eq!(exported("instance", &[("trace", TRACE)]), ids(own, root));
    }

    #[test]
    fn what_is_of_no_deployment_is_not_exported() {
        for fields in [&[][..], &[("trace", "")], &[("trace", "x")]] {
            assert!(of_deployment(span("instance", fields)).is_none(), "{fields:?}");
        }
        let zeros = [("trace", "00000000000000000000000000000000")];
        assert!(of_deployment(span("instance", &zeros)).is_none());
    }
}
