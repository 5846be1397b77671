//! The spans of a deployment are exported to an OpenTelemetry collector. Only where vc-node has its feature `otlp`.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use crate::harness::cluster::Cluster;
use crate::harness::{DEADLINE, sleeping_service, until};

/// A span, with the name of the node that has sent it.
#[derive(Debug, Clone)]
struct Received {
    node: String,
    service: String,
    span: Span,
}

/// What a collector has received.
type Spans = Arc<Mutex<Vec<Received>>>;

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|it| it.key == key);
    match found.and_then(|it| it.value.clone()?.value) {
        Some(Value::StringValue(text)) => text,
        _ => String::new(),
    }
}

/// Answers exports at a listener, until the process ends.
fn collect(listener: TcpListener) -> Spans {
    let spans = Spans::default();
    let shared = Arc::clone(&spans);
    listener.set_nonblocking(true).expect("set");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let spans = Arc::clone(&shared);
                let answer = service_fn(move |request| export(request, Arc::clone(&spans)));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        });
    });
    spans
}

async fn export(
    request: Request<Incoming>,
    spans: Spans,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/v1/traces"));
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    assert_eq!(head.headers["x-team"], "attic");
    let body = body.collect().await.expect("a body").to_bytes();
    let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
    for of in request.resource_spans {
        let resource = of.resource.expect("a resource").attributes;
        let (node, service) = (text(&resource, "vc.node"), text(&resource, "service.name"));
        assert!(!text(&resource, "vc.cluster").is_empty() && !node.is_empty(), "{resource:?}");
        let all = of.scope_spans.into_iter().flat_map(|it| it.spans);
        let received =
            all.map(|span| Received { node: node.clone(), service: service.clone(), span });
        spans.lock().expect("not poisoned").extend(received);
    }
    Ok(Response::new(Full::new(ExportTraceServiceResponse::default().encode_to_vec().into())))
}

/// Has all nodes export to a port of this host.
fn export_to(cluster: &mut Cluster, port: u16) {
    for node in &mut cluster.nodes {
        node.stop();
        let endpoint = format!("http://127.0.0.1:{port}");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=attic"),
            ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ] {
            node.env.push((name.to_owned(), value.to_owned()));
        }
        node.rerun(&[]);
    }
    cluster.all_up();
}

/// Deploys a service with an instance on each node. Returns the trace.
fn deploy(cluster: &Cluster, at: usize, name: &str) -> String {
    let count = u32::try_from(cluster.nodes.len()).expect("few");
    let file = cluster.file("compose.yaml", &sleeping_service("shop", name, count));
    let changes = cluster.vc(at, &["deploy", &file, "--output", "json"]).json();
    let last = changes.as_array().and_then(|it| it.last()).expect("changes");
    last["trace"].as_str().expect("an id").to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

#[test]
fn a_deployment_is_one_trace_with_spans_of_all_nodes_under_the_id_in_their_logs() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let spans = collect(listener);
    let mut cluster = Cluster::of(2);
    cluster.join(0, &["worker"]);
    export_to(&mut cluster, port);
    // A worker passes it on to a server.
    let trace = deploy(&cluster, 2, "web");
    let received = until("the spans of all nodes have arrived", DEADLINE, || {
        let all = spans.lock().expect("not poisoned").clone();
        let nodes = |name: &str| {
            let of = all.iter().filter(|it| it.span.name == name);
            of.map(|it| it.node.clone()).collect::<BTreeSet<_>>().len()
        };
        let counts = (nodes("request"), nodes("deployment"), nodes("instance"));
        if counts == (2, 3, 3) { Ok(all) } else { Err(counts) }
    })
    .0;
    let ids: BTreeSet<String> = received.iter().map(|it| hex(&it.span.trace_id)).collect();
    assert_eq!(ids, BTreeSet::from([trace.clone()]), "nothing else is exported");
    assert!(received.iter().all(|it| it.service == "vc-node"));
    let (roots, others): (Vec<_>, Vec<_>) =
        received.iter().partition(|it| it.span.parent_span_id.is_empty());
    let root = &roots[0];
    assert_eq!((roots.len(), root.node.as_str(), root.span.name.as_str()), (1, "n3", "request"));
    assert!(others.iter().all(|it| it.span.parent_span_id == root.span.span_id), "{others:#?}");
    assert!(others.iter().all(|it| it.span.span_id != root.span.span_id));
    let instance = others.iter().find(|it| it.span.name == "instance").expect("one");
    assert!(text(&instance.span.attributes, "instance").starts_with("shop/web."), "{instance:?}");
    for node in &cluster.nodes {
        assert!(node.log().contains(&trace));
    }
}

#[test]
fn a_collector_that_is_away_holds_nothing_up_and_is_logged_once() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let mut cluster = Cluster::found();
    export_to(&mut cluster, address.port());
    let lines = |cluster: &Cluster, text: &str| cluster.nodes[0].log().matches(text).count();
    for name in ["one", "two", "three"] {
        deploy(&cluster, 0, name);
    }
    until("the node says that it cannot export", DEADLINE, || {
        if lines(&cluster, "cannot export traces") == 1 { Ok(()) } else { Err(()) }
    });
    let spans = collect(TcpListener::bind(address).expect("the port"));
    let trace = deploy(&cluster, 0, "four");
    until("it exports again", DEADLINE, || {
        let all = spans.lock().expect("not poisoned");
        let arrived = all.iter().any(|it| hex(&it.span.trace_id) == trace);
        if arrived && lines(&cluster, "traces are exported again") == 1 { Ok(()) } else { Err(()) }
    });
    assert_eq!(lines(&cluster, "cannot export traces"), 1);
}

#[test]
fn a_collector_that_never_answers_holds_nothing_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let mut cluster = Cluster::found();
    export_to(&mut cluster, listener.local_addr().expect("an address").port());
    deploy(&cluster, 0, "one");
    // The export is under way.
    let _connection = listener.accept().expect("a connection");
    deploy(&cluster, 0, "two");
    cluster.nodes[0].stop();
}
