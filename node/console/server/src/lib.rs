//! The console of a Virtual Cluster, served to this node's browsers.
//!
//! The files are built into the program. They are the same whoever serves them and hold no secret: the console talks with
//! the cluster by itself, over WebRTC, with a token that its user gives it. All that this server decides is under which
//! names the files appear. `127.0.0.1`, `localhost` and `[::1]` get the console; any `NAME.localhost`, which browsers
//! take for this node, gets the tunnel (`node/console/tunnel`) through which the console shows a service, so that
//! the service has an origin of its own and cannot read the console's. Any other name is refused.

mod answer;
mod files;
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

/// Connections at once; more wait.
const CONNECTIONS: usize = 256;
/// So long may the head of a request take, and a connection be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// So long may a connection live, whoever reads from it or does not. Browsers open another.
const LIFETIME: Duration = Duration::from_secs(300);
/// A pause after the system had no connection for us, for want of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Lets one browser in with a link that nobody else should see: a command line, which would name the link, can be read by
/// every user of a node. Whoever comes first with the path is sent on to the link; from then on it leads nowhere.
#[derive(Debug)]
pub struct Admission {
    path: String,
    link: Mutex<Option<String>>,
}

impl Admission {
    /// From this path, which cannot be guessed, to this link.
    pub fn new(path: String, link: String) -> Self {
        Self { path, link: Mutex::new(Some(link)) }
    }

    /// The link, for the first who asks for the path.
    fn take(&self, method: &Method, path: &str) -> Option<String> {
        if method != Method::GET || path != self.path {
            return None;
        }
        self.link.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the port of a server decides.
#[derive(Debug)]
struct Origin {
    port: u16,
    files: Files,
    admission: Option<Admission>,
}

/// Serves the console on a socket of the loopback interface, for ever. Errors: the socket has no address.
pub async fn serve(listener: TcpListener, admission: Option<Admission>) -> io::Error {
    serve_files(listener, files::built_in, admission).await
}

async fn serve_files(
    listener: TcpListener,
    files: Files,
    admission: Option<Admission>,
) -> io::Error {
    let port = match listener.local_addr() {
        Ok(address) => address.port(),
        Err(error) => return error,
    };
    let origin = Arc::new(Origin { port, files, admission });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { continue };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let origin = Arc::clone(&origin);
        tokio::spawn(async move {
            // Who is slow or speaks something else is let go.
            let _ = timeout(LIFETIME, converse(stream, &origin)).await;
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, origin: &Origin) -> hyper::Result<()> {
    let answer =
        service_fn(|request| async move { Ok::<_, Infallible>(answer::answer(origin, &request)) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}
