//! Receivers that are URLs: one POST request each time, over a connection of its own. Redirects are not followed, and of the answer
//! only the status is looked at.

use std::fmt;

use data_encoding::BASE64;
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use percent_encoding::percent_decode_str;
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
        let mut request = Request::post(format!("{}{}{query}", self.origin(), self.0.path()))
            .header(CONTENT_TYPE, message.content_type)
            .header(USER_AGENT, concat!("vc-node/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = self.authorization() {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(Bytes::from(message.body)))
    }
}

/// Sends a message.
///
/// # Errors
/// The server cannot be reached, or does not answer with success.
pub(super) async fn post(
    url: &WebhookUrl,
    message: Message,
    client: &vc_https::Client,
) -> Result<(), SendError> {
    let status = client.send(url.request(message)?).await?.status();
    if status.is_success() { Ok(()) } else { Err(SendError::Refused(status)) }
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
        assert_eq!(request.uri(), "https://hooks.example:8443/T0/secret?key=1");
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
