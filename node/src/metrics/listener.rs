//! Serves metrics to other hosts, to clients that have the token.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use tokio::net::TcpListener;
use tokio::time::sleep;
use vc_console::{CheckReadiness, Limits, WriteMetrics, of_process, plain, serve_http};

use super::MetricsToken;

/// Bounds of connections: an idle one may last longer than the usual interval between two scrapes. Prometheus connects again.
const LIMITS: Limits =
    Limits { connections: 32, head: Duration::from_secs(75), age: Duration::from_secs(600) };
/// Pause until it is tried again to listen.
const BIND_INTERVAL: Duration = Duration::from_secs(5);

/// Serves `/metrics`, `/healthz` and `/readyz` over plain HTTP.
pub(crate) struct MetricsListener {
    token: MetricsToken,
    metrics: WriteMetrics,
    readiness: CheckReadiness,
}

impl MetricsListener {
    pub(crate) fn new(
        token: MetricsToken,
        metrics: WriteMetrics,
        readiness: CheckReadiness,
    ) -> Self {
        Self { token, metrics, readiness }
    }

    /// Serves on an address, for ever. Without it the node runs as well: a port that is in use is logged.
    pub(crate) async fn serve(self, address: SocketAddr) {
        let mut is_said = false;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) if !is_said => {
                    is_said = true;
                    tracing::warn!(%error, %address, "metrics not served: cannot listen; free the port, or choose another with --metrics");
                }
                Err(_) => {}
            }
            // The address may be that of a network that is not up yet.
            sleep(BIND_INTERVAL).await;
        };
        tracing::info!(url = %format_args!("http://{address}/metrics"), "metrics started");
        match serve_http(listener, LIMITS, move |request| self.respond(request)).await {}
    }

    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let header = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
        let path = request.uri().path();
        // Whether the process lives is no secret.
        if path != "/healthz" && !self.token.allows(header(AUTHORIZATION)) {
            let why = "The token in metrics.token of the node's data directory is missing.";
            let mut response = plain(StatusCode::UNAUTHORIZED, why);
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            return response;
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are supported.");
        }
        let found = of_process(request, Some(&self.metrics), Some(&self.readiness));
        let missing =
            || plain(StatusCode::NOT_FOUND, "Only /metrics, /healthz and /readyz are here.");
        found.unwrap_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_liveness_needs_the_token() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("metrics.token"), "secret").expect("written");
        let listener = MetricsListener::new(
            MetricsToken::load(dir.path()).expect("read"),
            Box::new(|format| format!("{format:?}")),
            Box::new(|| Some("Docker is away".to_owned())),
        );
        let status = |path: &str, token: Option<&str>| {
            let mut request = Request::get(path);
            if let Some(token) = token {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            listener.respond(&request.body(()).expect("a request")).status().as_u16()
        };
        assert_eq!(status("/healthz", None), 200);
        assert_eq!((status("/metrics", None), status("/readyz", None)), (401, 401));
        assert_eq!((status("/metrics", Some("guess")), status("/x", None)), (401, 401));
        assert_eq!((status("/metrics", Some("secret")), status("/x", Some("secret"))), (200, 404));
        assert_eq!(status("/readyz", Some("secret")), 503);
        let post = Request::post("/metrics").header(AUTHORIZATION, "Bearer secret");
        assert_eq!(listener.respond(&post.body(()).expect("a request")).status().as_u16(), 405);
    }
}
