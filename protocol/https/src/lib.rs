//! HTTP/1.1 requests to servers outside of the cluster, over a connection of its own each. `https` servers are verified by the
//! certificates of the system. Redirects are not followed, and nothing is retried.

use std::io;
use std::sync::{Arc, OnceLock};

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsConnector;

/// How long a host may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Why there is no answer. The texts name the server by scheme, host and port, and nothing else of the URL.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The URL has another scheme, or names no host.
    #[error("a request needs an http or https URL with a host")]
    Url,
    /// The host cannot be reached.
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    /// The certificates of the system cannot be used.
    #[error("the certificates of this system cannot be used: {0}")]
    Roots(String),
    /// The TLS handshake failed.
    #[error("no TLS connection to {0}: {1}")]
    Tls(String, io::Error),
    /// The connection was lost, or what the server sends is no HTTP.
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
}

/// Sends requests. Cheap to clone; the certificates of the system are read when they are needed first.
#[derive(Debug, Clone, Default)]
pub struct Client {
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Client {
    /// Sends a request with an absolute URL, and returns the answer when its head is there. Sets the headers `Host` (unless there is
    /// one) and `Connection`. Has no deadline: the caller has one. A request that is dropped before its answer ends the connection.
    ///
    /// # Errors
    /// The server cannot be reached, or does not answer.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Incoming>, RequestError>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let (mut parts, body) = request.into_parts();
        let is_https = match parts.uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(RequestError::Url),
        };
        let authority = parts.uri.authority().ok_or(RequestError::Url)?.clone();
        let path = parts.uri.path_and_query().cloned();
        // The authority is the server's; a proxy alone would need it in the request line.
        parts.uri = path.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
        if !parts.headers.contains_key(HOST) {
            parts.headers.insert(HOST, host_header(&authority)?);
        }
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let request = Request::from_parts(parts, body);
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let origin = origin(is_https, &authority);
        let connecting = timeout(CONNECT_DEADLINE, TcpStream::connect((host, port)));
        let stream = connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = stream.map_err(|error| RequestError::Connect(origin.clone(), error))?;
        if !is_https {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| RequestError::Url)?;
        let connected = self.connector().await?.connect(name, stream).await;
        exchange(connected.map_err(|error| RequestError::Tls(origin, error))?, request).await
    }

    async fn connector(&self) -> Result<TlsConnector, RequestError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config).into());
        }
        let config = tokio::task::spawn_blocking(system_config).await;
        let config = config.map_err(|error| RequestError::Roots(error.to_string()))??;
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))).into())
    }
}

/// Returns the authority without a user and a password.
fn host_header(authority: &Authority) -> Result<HeaderValue, RequestError> {
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    HeaderValue::from_str(host).map_err(|_| RequestError::Url)
}

fn origin(is_https: bool, authority: &Authority) -> String {
    let scheme = if is_https { "https" } else { "http" };
    let port = authority.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{scheme}://{}{port}", authority.host())
}

fn system_config() -> Result<ClientConfig, RequestError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        return Err(RequestError::Roots(
            why.unwrap_or_else(|| "there are none: install the package ca-certificates".to_owned()),
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| RequestError::Roots(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Sends a request on a connection, which a task drives until the body of the answer has been read or dropped.
async fn exchange<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<B>,
) -> Result<Response<Incoming>, RequestError>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // What goes wrong with it, the request or the body says.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
