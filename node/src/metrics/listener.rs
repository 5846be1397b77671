//! Serves metrics to other hosts, to clients that have the token.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use vc_console::{CheckReadiness, MetricsFormat, WriteMetrics};

use super::MetricsToken;

/// Concurrent connections; more wait in the accept backlog.
const MAX_CONNECTIONS: usize = 32;
/// Time limit for the head of a request, and for an idle connection: longer than the usual interval between two scrapes.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Time limit for a connection. Prometheus connects again.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(600);
/// Pause after a failed accept, for example without a free file descriptor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
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
        let this = Arc::new(self);
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { continue };
            let Ok((stream, _)) = listener.accept().await else {
                sleep(ACCEPT_BACKOFF).await;
                continue;
            };
            let this = Arc::clone(&this);
            tokio::spawn(async move {
                // Timeouts and protocol errors only close the connection.
                let _ = timeout(MAX_CONNECTION_AGE, this.serve_connection(stream)).await;
                drop(permit);
            });
        }
    }

    async fn serve_connection(&self, stream: TcpStream) -> hyper::Result<()> {
        let service = service_fn(|request: Request<Incoming>| async move {
            Ok::<_, Infallible>(self.respond(&request))
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
            .await
    }

    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let header = |name| request.headers().get(name).and_then(|it| it.to_str().ok());
        let path = request.uri().path();
        // Whether the process lives is no secret.
        if path != "/healthz" && !self.token.allows(header(AUTHORIZATION)) {
            let why = "The token in metrics.token of the node's data directory is missing.\n";
            let mut response = plain(StatusCode::UNAUTHORIZED, why);
            let scheme = hyper::header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            return response;
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are supported.\n");
        }
        match path {
            "/metrics" => {
                let format = MetricsFormat::accepted(header(ACCEPT).unwrap_or_default());
                let mut response = Response::new(Full::from((self.metrics)(format)));
                let kind = hyper::header::HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" => match (self.readiness)() {
                None => plain(StatusCode::OK, "ok\n"),
                Some(problem) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("{problem}\n")),
            },
            _ => plain(StatusCode::NOT_FOUND, "Only /metrics, /healthz and /readyz are here.\n"),
        }
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_owned()));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
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
