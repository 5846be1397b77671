//! Serves the web console to browsers on this host.
//!
//! The files are embedded in the binary and contain no secrets: the console connects to the cluster over WebRTC with the
//! token that its user enters. This server only selects files by host name. `127.0.0.1`, `localhost` and `[::1]` serve the
//! console. `NAME.localhost`, which browsers resolve to the loopback interface, serves the tunnel (`node/console/tunnel`)
//! in which the console opens a service: each service has an origin of its own and cannot read the console's. Requests
//! for any other host name are rejected, to prevent DNS rebinding. A node serves its metrics here, too, to every program on the host.

mod files;
mod http;
mod response;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::Method;
use tokio::net::TcpListener;

use files::Files;
pub use http::{Limits, serve_http};
pub use response::{of_process, plain};

/// Bounds of connections. Browsers reconnect.
const LIMITS: Limits =
    Limits { connections: 256, head: Duration::from_secs(10), age: Duration::from_secs(300) };

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
    let server = Server { port, files, extras };
    match serve_http(listener, LIMITS, move |request| response::respond(&server, request)).await {}
}
