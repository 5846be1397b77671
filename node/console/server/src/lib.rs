//! The console of a Virtual Cluster, served to this machine's browsers.
//!
//! The files are built into the program. They are the same whoever serves them and hold no secret: the console talks with
//! the cluster by itself, over WebRTC, with a token that its user gives it. All that this server decides is under which
//! names the files appear. `127.0.0.1`, `localhost` and `[::1]` get the console; any `NAME.localhost`, which browsers
//! resolve to this machine, gets the tunnel (`node/console/tunnel`) through which the console shows a service, so that
//! the service has an origin of its own and cannot read the console's. Any other name is refused.

mod answer;
mod files;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use files::Files;

/// Connections at once; more wait.
const CONNECTIONS: usize = 256;
/// So long may the head of a request take, and a connection be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// So long may a connection live, whoever reads from it or does not. Browsers open another.
const LIFETIME: Duration = Duration::from_secs(300);
/// A pause after the system had no connection for us, for want of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the console on a socket of the loopback interface, for ever. Errors: the socket has no address.
pub async fn serve(listener: TcpListener) -> io::Error {
    serve_files(listener, files::built_in).await
}

async fn serve_files(listener: TcpListener, files: Files) -> io::Error {
    let port = match listener.local_addr() {
        Ok(address) => address.port(),
        Err(error) => return error,
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { continue };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        tokio::spawn(async move {
            // Who is slow or speaks something else is let go.
            let _ = timeout(LIFETIME, converse(stream, files, port)).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, files: Files, port: u16) -> hyper::Result<()> {
    let answer =
        service_fn(
            |request| async move { Ok::<_, Infallible>(answer::answer(files, port, &request)) },
        );
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}
