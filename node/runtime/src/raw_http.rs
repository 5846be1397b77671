//! Requests that bollard does not make: those that take over the connection, those of podman's own API, and those over HTTP/1.0.

use std::io;

use bollard::errors::Error;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Builder;
use hyper::{Request, Response, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::one_line::one_line;

/// The longest error text that is read, in bytes.
const MAX_ERROR: usize = 16 * 1024;

/// The longest document that is read, in bytes.
const MAX_DOCUMENT: usize = 1024 * 1024;

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Connects to the engine at `host`.
///
/// # Errors
/// The engine is unreachable.
pub(crate) async fn connect(host: &str) -> io::Result<SendRequest<String>> {
    let socket: Box<dyn Socket> = if let Some(path) = host.strip_prefix("unix://") {
        Box::new(UnixStream::connect(path).await?)
    } else if let Some(address) = host.strip_prefix("tcp://").or(host.strip_prefix("http://")) {
        Box::new(TcpStream::connect(address.trim_end_matches('/')).await?)
    } else {
        return Err(io::Error::other("unsupported address; write unix:///PATH or tcp://HOST:PORT"));
    };
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// Begins a request with a body in JSON.
pub(crate) fn json_post(path: &str) -> Builder {
    Request::post(path).header(HOST, "docker").header(CONTENT_TYPE, "application/json")
}

/// Reads the message of an engine that refuses, as one line.
pub(crate) async fn refusal(response: Response<Incoming>) -> io::Result<String> {
    let body = Limited::new(response.into_body(), MAX_ERROR).collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    let parsed = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let message = parsed.as_ref().and_then(|value| value["message"].as_str());
    let text = String::from_utf8_lossy(&body);
    Ok(one_line(message.unwrap_or(&text)))
}

/// Posts `body` to `path` of the engine at `host`.
///
/// # Errors
/// The engine is unreachable, or refuses.
pub(crate) async fn post(host: &str, path: &str, body: String) -> Result<(), Error> {
    send(host, json_post(path).body(body).map_err(io::Error::other)?).await.map(drop)
}

/// Reads a document in JSON at `path` of the engine at `host`.
///
/// # Errors
/// The engine is unreachable, refuses, or sends something else.
pub(crate) async fn get(host: &str, path: &str) -> Result<serde_json::Value, Error> {
    let request = Request::get(path).header(HOST, "docker").body(String::new());
    let response = send(host, request.map_err(io::Error::other)?).await?;
    let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
    Ok(serde_json::from_slice(&body.map_err(io::Error::other)?.to_bytes())?)
}

/// Opens the document at `path` of the engine at `host`, over HTTP/1.0: its bytes are not sent in chunks.
///
/// # Errors
/// The engine is unreachable, or refuses.
pub(crate) async fn open(host: &str, path: &str) -> Result<Incoming, Error> {
    let request = Request::get(path).version(Version::HTTP_10).header(HOST, "docker");
    let response = send(host, request.body(String::new()).map_err(io::Error::other)?).await?;
    Ok(response.into_body())
}

async fn send(host: &str, request: Request<String>) -> Result<Response<Incoming>, Error> {
    let response = connect(host).await?.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = refusal(response).await?;
    Err(Error::DockerResponseServerError { status_code: status.as_u16(), message })
}
