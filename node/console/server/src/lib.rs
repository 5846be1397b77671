//! Serves the web console to browsers on this host.
//!
//! The files are embedded in the binary and contain no secrets: the console connects to the cluster over WebRTC with the
//! token that its user enters. This server only selects files by host name. `127.0.0.1`, `localhost` and `[::1]` serve the
//! console. `NAME.localhost`, which browsers resolve to the loopback interface, serves the tunnel (`node/console/tunnel`)
//! in which the console opens a service: each service has an origin of its own and cannot read the console's. Requests
//! for any other host name are rejected, to prevent DNS rebinding. A node serves its metrics here, too, to every program on the host.

mod files;
mod response;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use files::Files;

/// Concurrent connections; more wait in the accept backlog.
const MAX_CONNECTIONS: usize = 256;
/// Time limit for the head of a request, and for an idle connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a connection, even one whose client reads slowly. Browsers reconnect.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// Pause after a failed accept, for example without a free file descriptor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// A path that redirects to a secret link once, and is not found from then on.
///
/// It allows a browser to be started with a link that contains a token: a file that only its user can read contains the path,
/// which any user could read on the browser's command line.
pub struct OneTimeLink {
    path: String,
    link: Mutex<Option<(String, Guard)>>,
}

/// Dropped when the link is used.
type Guard = Box<dyn Send>;

impl std::fmt::Debug for OneTimeLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneTimeLink")
    }
}

impl OneTimeLink {
    /// Redirects `path`, which must not be guessable and has no leading slash, to `link`. Drops `guard` when that is done, or
    /// the server ends.
    pub fn new(path: String, link: String, guard: impl Send + 'static) -> Self {
        Self { path, link: Mutex::new(Some((link, Box::new(guard)))) }
    }

    /// Returns the link for the first GET request of the path.
    fn take(&self, method: &Method, path: &str) -> Option<String> {
        if method != Method::GET || path != self.path {
            return None;
        }
        let taken = self.link.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.map(|(link, _)| link)
    }
}

/// Writes the metrics of this process. Must not block.
pub type WriteMetrics = Box<dyn Fn(MetricsFormat) -> String + Send + Sync>;

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsFormat {
    /// [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/), which Prometheus asks for.
    OpenMetrics,
    /// The older text format of Prometheus.
    Text,
}

impl MetricsFormat {
    /// Returns the format for a client with this `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// Returns the value of the `Content-Type` header.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Says why this process cannot do its work now, in one line; `None` if it can. Must not block.
pub type CheckReadiness = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What is served beside the files of the console.
#[derive(Default)]
pub struct Extras {
    /// A link to start a browser with.
    pub one_time_link: Option<OneTimeLink>,
    /// What `/metrics` serves; not found without it.
    pub metrics: Option<WriteMetrics>,
    /// What `/readyz` says; it and `/healthz` are not found without it.
    pub readiness: Option<CheckReadiness>,
}

struct Server {
    port: u16,
    files: Files,
    extras: Extras,
}

/// Serves the console on a listener of the loopback interface. Returns only if the listener has no local address.
pub async fn serve(listener: TcpListener, extras: Extras) -> io::Error {
    serve_files(listener, files::embedded, extras).await
}

async fn serve_files(listener: TcpListener, files: Files, extras: Extras) -> io::Error {
    let port = match listener.local_addr() {
        Ok(address) => address.port(),
        Err(error) => return error,
    };
    let server = Arc::new(Server { port, files, extras });
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { continue };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            // Timeouts and protocol errors only close the connection.
            let _ = timeout(MAX_CONNECTION_AGE, serve_connection(stream, &server)).await;
            drop(permit);
        });
    }
}

async fn serve_connection(stream: TcpStream, server: &Server) -> hyper::Result<()> {
    let service =
        service_fn(
            |request| async move { Ok::<_, Infallible>(response::respond(server, &request)) },
        );
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
