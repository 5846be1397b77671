//! An S3 server for tests: buckets in memory, on loopback, over HTTP. It verifies the signature of each request, by AWS Signature
//! Version 4, and fails as it is told.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests")]

mod signature;
mod state;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use state::State;

/// The key that the server knows, and its secret.
pub const KEY_ID: &str = "AKIATEST";
/// The secret of [`KEY_ID`].
pub const SECRET: &str = "wJalrXUtnFEMI/K7MDENG";

/// How requests fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// They are refused with a status and a code of S3.
    Refuse(u16, &'static str),
    /// The connection is closed before there is an answer, after the request has arrived.
    Close,
    /// The connection is closed in the middle of the body of the answer.
    Cut,
}

/// A server, which ends when it is dropped. Its bucket is `backups`.
pub struct S3Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _stop: oneshot::Sender<()>,
}

impl S3Server {
    /// Starts a server on a thread of its own.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, mut stopped) = oneshot::channel::<()>();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("set");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                loop {
                    let (stream, _) = tokio::select! {
                        accepted = listener.accept() => accepted.expect("a connection"),
                        _ = &mut stopped => return,
                    };
                    let state = Arc::clone(&shared);
                    let answering = service_fn(move |request| answer(request, Arc::clone(&state)));
                    tokio::spawn(
                        http1::Builder::new().serve_connection(TokioIo::new(stream), answering),
                    );
                }
            });
        });
        Self { address, state, _stop: stop }
    }

    /// Returns the URL of the server.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address of what is below `prefix` in the bucket, for `--backup-dir`.
    pub fn location(&self, prefix: &str) -> String {
        format!("s3://backups/{prefix}?endpoint={}", self.endpoint())
    }

    /// Returns a file of credentials that the server accepts.
    pub fn credentials_file() -> String {
        format!("[default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n")
    }

    /// Has the next `times` requests fail whose description (as in [`S3Server::requests`]) begins with `request`.
    pub fn fail(&self, request: &str, fault: Fault, times: usize) {
        self.state().faults.push((request.to_owned(), fault, times));
    }

    /// Has no requests fail any more.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Puts an object into the bucket.
    pub fn put(&self, key: &str, content: impl Into<Bytes>) {
        self.state().objects.insert(key.to_owned(), content.into());
    }

    /// Returns the objects of the bucket.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state().objects.clone()
    }

    /// Returns the number of uploads in parts that are neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }

    /// Returns the requests that have arrived: `PUT key`, `COPY key`, `GET key`, `DELETE key`, `LIST prefix`, `CREATE key`,
    /// `PART key`, `COMPLETE key`, `ABORT key`.
    pub fn requests(&self) -> Vec<String> {
        self.state().requests.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

/// Closes the connection: an error of a service does that.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed by the test")
    }
}

impl std::error::Error for Closed {}

type Answer = Response<http_body_util::combinators::BoxBody<Bytes, Closed>>;

async fn answer(request: Request<Incoming>, state: Arc<Mutex<State>>) -> Result<Answer, Closed> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let mut state = state.lock().expect("not poisoned");
    let description = state::describe(&head);
    state.requests.push(description.clone());
    let fault = state.next_fault(&description);
    let answer = match (&fault, signature::verify(&head, &body)) {
        (Some(Fault::Close), _) => return Err(Closed),
        (Some(Fault::Refuse(status, code)), _) => state::refusal(*status, code),
        (_, Err(code)) => state::refusal(403, code),
        (_, Ok(())) => state.answer(&head, body),
    };
    let (head, body) = answer.into_parts();
    let body = match fault {
        Some(Fault::Cut)
            if head.status == StatusCode::OK || head.status == StatusCode::PARTIAL_CONTENT =>
        {
            cut(body).boxed()
        }
        _ => Full::new(body).map_err(|never| match never {}).boxed(),
    };
    Ok(Response::from_parts(head, body))
}

/// Returns the first half of a body, of which the head promises all.
fn cut(body: Bytes) -> impl hyper::body::Body<Data = Bytes, Error = Closed> {
    struct Half(Option<Bytes>);
    impl hyper::body::Body for Half {
        type Data = Bytes;
        type Error = Closed;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Closed>>> {
            let half = self.0.take();
            std::task::Poll::Ready(Some(half.map(hyper::body::Frame::data).ok_or(Closed)))
        }
    }
    let half = body.len() / 2;
    Half(Some(body.slice(..half)))
}
