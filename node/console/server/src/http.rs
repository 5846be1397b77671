//! Accepting and answering HTTP connections, with bounds.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Pause after a failed accept, for example without a free file descriptor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Bounds of a listener.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent connections; more wait in the accept backlog.
    pub connections: usize,
    /// Time limit for the head of a request, and for an idle connection.
    pub head: Duration,
    /// Time limit for a connection, even one whose client reads slowly.
    pub age: Duration,
}

/// Answers the requests of a listener with `respond`, for ever. Bodies of requests are not read.
pub async fn serve_http(
    listener: TcpListener,
    limits: Limits,
    respond: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
) -> Infallible {
    let respond = Arc::new(respond);
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { continue };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_BACKOFF).await;
            continue;
        };
        let respond = Arc::clone(&respond);
        tokio::spawn(async move {
            // Timeouts and protocol errors only close the connection.
            let _ = timeout(limits.age, serve_connection(stream, limits.head, &*respond)).await;
            drop(permit);
        });
    }
}

async fn serve_connection(
    stream: TcpStream,
    head: Duration,
    respond: &(impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Sync),
) -> hyper::Result<()> {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(respond(&request)) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), service)
        .await
}
