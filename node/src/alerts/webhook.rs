//! Receivers that are URLs: one POST request each time, over a connection of its own. Redirects are not followed, and of the answer
//! only the status is looked at.

use std::fmt;
use std::sync::{Arc, OnceLock};

use data_encoding::BASE64;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;
use vc_engine::alerts::Message;

use super::SendError;

/// Longest URL.
const MAX_URL: usize = 2048;

/// The URL of a webhook. Its path, query and password are not shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct WebhookUrl(Url);

/// Why a text is no URL of a webhook.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WebhookUrlError {
    /// It does not parse.
    #[error("the URL is malformed ({0}): write it as https://host/path")]
    Malformed(#[from] url::ParseError),
    /// It has another scheme.
    #[error("a webhook is an http or https URL, and not {0}:")]
    Scheme(String),
    /// It names no host.
    #[error("the URL names no host: write it as https://host/path")]
    NoHost,
    /// It is too long.
    #[error("the URL is longer than {MAX_URL} bytes")]
    TooLong,
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WebhookUrl").field(&self.origin()).finish()
    }
}

impl WebhookUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// It is malformed, not http or https, without a host, or too long.
    pub(crate) fn parse(text: &str) -> Result<Self, WebhookUrlError> {
        if text.len() > MAX_URL {
            return Err(WebhookUrlError::TooLong);
        }
        let url = Url::parse(text)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(WebhookUrlError::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(WebhookUrlError::NoHost);
        }
        Ok(Self(url))
    }

    /// Returns scheme, host and port, which may be shown.
    pub(crate) fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or_default()
    }

    /// Returns the value of the header `Authorization` for the user and password in the URL.
    fn authorization(&self) -> Option<String> {
        let decoded = |text| percent_decode_str(text).collect::<Vec<u8>>();
        let (user, password) = (self.0.username(), self.0.password());
        let is_there = !user.is_empty() || password.is_some();
        is_there.then(|| {
            let text = [&decoded(user)[..], b":", &decoded(password.unwrap_or_default())].concat();
            format!("Basic {}", BASE64.encode(&text))
        })
    }

    fn request(&self, message: Message) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let query = self.0.query().map(|query| format!("?{query}")).unwrap_or_default();
        let host = self.0.host_str().unwrap_or_default();
        let host = self.0.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::post(format!("{}{query}", self.0.path()))
            .header(HOST, host)
            .header(CONTENT_TYPE, message.content_type)
            .header(USER_AGENT, concat!("vc-node/", env!("CARGO_PKG_VERSION")))
            .header(CONNECTION, "close");
        if let Some(value) = self.authorization() {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(Bytes::from(message.body)))
    }
}

/// How servers are verified: by the certificates of the system, which are read when they are needed first. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Tls(Arc<OnceLock<Arc<ClientConfig>>>);

impl Tls {
    async fn connector(&self) -> Result<TlsConnector, SendError> {
        if let Some(config) = self.0.get() {
            return Ok(Arc::clone(config).into());
        }
        let config = tokio::task::spawn_blocking(system_config).await;
        let config = config.map_err(|error| SendError::Roots(error.to_string()))??;
        Ok(Arc::clone(self.0.get_or_init(|| Arc::new(config))).into())
    }
}

fn system_config() -> Result<ClientConfig, SendError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        return Err(SendError::Roots(
            why.unwrap_or_else(|| "there are none: install the package ca-certificates".to_owned()),
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| SendError::Roots(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Sends a message.
///
/// # Errors
/// The server cannot be reached, or does not answer with success.
pub(super) async fn post(url: &WebhookUrl, message: Message, tls: &Tls) -> Result<(), SendError> {
    let origin = url.origin();
    let stream = TcpStream::connect((url.host(), url.port())).await;
    let stream = stream.map_err(|error| SendError::Connect(origin.clone(), error))?;
    let request = url.request(message)?;
    let status = match url.0.scheme() {
        "https" => {
            let name = ServerName::try_from(url.host().to_owned());
            let name = name.map_err(|_| WebhookUrlError::NoHost)?;
            let connected = tls.connector().await?.connect(name, stream).await;
            exchange(connected.map_err(|error| SendError::Tls(origin, error))?, request).await?
        }
        _ => exchange(stream, request).await?,
    };
    if status.is_success() { Ok(()) } else { Err(SendError::Refused(status)) }
}

/// Sends a request on a connection, and returns the status of the answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<StatusCode, SendError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = sender.send_request(request);
    tokio::pin!(connection, answered);
    // The connection moves the bytes; it may end with the answer, and then that is there.
    let answer = tokio::select! {
        answer = &mut answered => answer,
        _ = &mut connection => answered.await,
    };
    Ok(answer?.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_show_their_origin_alone() {
        let url = WebhookUrl::parse("https://ann:hunter2@hooks.example:8443/T0/secret?key=1");
        let url = url.expect("a URL");
        assert_eq!(url.origin(), "https://hooks.example:8443");
        assert!(!format!("{url:?}").contains("secret"), "{url:?}");
        assert_eq!(url.authorization().as_deref(), Some("Basic YW5uOmh1bnRlcjI="));
        let request = url.request(Message { content_type: "text/plain", body: String::new() });
        let request = request.expect("a request");
        assert_eq!(request.uri(), "/T0/secret?key=1");
        assert_eq!(request.headers()[HOST], "hooks.example:8443");
        assert_eq!(percent_decode_str("a%40b%").collect::<Vec<u8>>(), b"a@b%");
    }

    #[test]
    fn other_urls_are_refused() {
        for (text, why) in [
            ("hooks.example/x", "malformed"),
            ("file:///etc/passwd", "not file:"),
            ("gopher://10.0.0.1/", "not gopher:"),
            ("http://", "malformed"),
        ] {
            let refused = WebhookUrl::parse(text).expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
