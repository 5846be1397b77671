//! Has `object_store` send its requests with the HTTP client of the workspace, and reads what servers refuse with.

use std::error::Error;
use std::sync::LazyLock;

use async_trait::async_trait;
use futures::stream;
use http_body_util::{BodyExt as _, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Method, StatusCode, header};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};
use tokio::time::{Duration, timeout};
use vc_https::{Client, RequestError};

/// How long a server may take to answer, beside what the request needs at [`SLOWEST`], and to send the next bytes of an object.
const DEADLINE: Duration = Duration::from_secs(60);
/// The slowest upload that is waited for, in bytes per second.
const SLOWEST: usize = 16 << 10;
/// The largest answer but an object, in bytes: a page of a list has up to a thousand.
const MAX_ANSWER: usize = 4 << 20;
/// The largest answer to what is refused.
const MAX_REFUSAL: usize = 64 << 10;
/// The longest text of a server that is passed on, in characters.
const MAX_TEXT: usize = 200;

/// One for all buckets: the certificates of the system are read once.
static CLIENT: LazyLock<Client> = LazyLock::new(Client::default);

/// Sends requests, each over a connection of its own, with deadlines and bounded answers.
#[derive(Debug)]
pub(crate) struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self))
    }
}

/// What a server answers that does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it answered {status} {code} {message}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The code of S3, such as `NoSuchBucket`; empty if there is none.
    pub(crate) code: String,
    pub(crate) message: String,
    /// The time there, if it says so.
    pub(crate) time: String,
}

/// Nothing came in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0} s")]
pub(crate) struct TimedOut(u64);

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let is_object = request.method() == Method::GET && request.uri().query().is_none();
        let bytes = request.body().content_length();
        let deadline = DEADLINE + Duration::from_secs((bytes / SLOWEST) as u64);
        let late = |_| HttpError::new(HttpErrorKind::Timeout, TimedOut(deadline.as_secs()));
        let answer = timeout(deadline, CLIENT.send(request)).await.map_err(late)?;
        let (parts, body) = answer.map_err(failed)?.into_parts();
        if parts.status.is_success() {
            let body = match is_object {
                true => HttpResponseBody::new(timed(body)),
                false => {
                    HttpResponseBody::new(Limited::new(timed(body), MAX_ANSWER).map_err(boxed))
                }
            };
            return Ok(HttpResponse::from_parts(parts, body));
        }
        let text = timeout(DEADLINE, Limited::new(body, MAX_REFUSAL).collect()).await;
        let text = text.ok().and_then(Result::ok).map(|it| it.to_bytes()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut time = element(&text, "ServerTime");
        if time.is_empty() {
            let date = parts.headers.get(header::DATE).and_then(|it| it.to_str().ok());
            time = plain(date.unwrap_or_default());
        }
        let (code, message) = (element(&text, "Code"), element(&text, "Message"));
        let is_transient = parts.status.is_server_error()
            || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&parts.status);
        let is_full = parts.status == StatusCode::INSUFFICIENT_STORAGE || code.contains("Full");
        // What is refused for good is not asked again.
        let kind = match is_transient && !is_full {
            true => HttpErrorKind::Request,
            false => HttpErrorKind::Unknown,
        };
        Err(HttpError::new(kind, Refusal { status: parts.status, code, message, time }))
    }
}

fn failed(error: RequestError) -> HttpError {
    let kind = match error {
        RequestError::Connect(..) => HttpErrorKind::Connect,
        // A connection that was lost on its way. Writing a part again changes nothing.
        RequestError::Http(_) => HttpErrorKind::Interrupted,
        RequestError::Url | RequestError::Roots(_) | RequestError::Tls(..) => {
            HttpErrorKind::Unknown
        }
    };
    HttpError::new(kind, error)
}

/// Passes the frames of a body on, each within [`DEADLINE`].
fn timed(body: Incoming) -> impl hyper::body::Body<Data = hyper::body::Bytes, Error = HttpError> {
    StreamBody::new(stream::unfold(Some(body), async |body| {
        let mut body = body?;
        let frame: Result<Frame<_>, _> = match timeout(DEADLINE, body.frame()).await {
            Ok(None) => return None,
            Ok(Some(Ok(frame))) => return Some((Ok(frame), Some(body))),
            Ok(Some(Err(error))) => Err(HttpError::new(HttpErrorKind::Interrupted, error)),
            Err(_) => Err(HttpError::new(HttpErrorKind::Timeout, TimedOut(DEADLINE.as_secs()))),
        };
        Some((frame, None))
    }))
}

fn boxed(error: Box<dyn Error + Send + Sync>) -> HttpError {
    HttpError::new_boxed(HttpErrorKind::Decode, error)
}

/// Returns the text of the first element of a name in the XML of a refusal, which has no nested ones of that name.
fn element(xml: &str, name: &str) -> String {
    let after = xml.split_once(&format!("<{name}>")).map(|(_, after)| after);
    let text = after.and_then(|it| it.split_once(&format!("</{name}>"))).map(|(text, _)| text);
    plain(text.unwrap_or_default())
}

/// Returns a text of a server as it may be shown.
fn plain(text: &str) -> String {
    text.chars().filter(|it| !it.is_control()).take(MAX_TEXT).collect()
}
