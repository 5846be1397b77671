//! Errors of HTTP requests and WebSockets.

use vc_engine::FindError;
use vc_protocol::http::MAX_HEADERS;
use vc_protocol::{ApiError, ErrorCode, InstanceId, ServiceKey};

use super::headers::AmbiguousHeaders;

/// Why a request did not reach an instance, or got no response from it.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Find(#[from] FindError),
    #[error("{0} publishes no TCP port that other hosts can reach")]
    NoPort(ServiceKey),
    #[error("{service} publishes several ports")]
    SeveralPorts { service: ServiceKey, ports: String },
    #[error("{service} does not publish port {port}, but {ports}")]
    NotPublished { service: ServiceKey, port: u16, ports: String },
    #[error("no instance of {0} takes a connection")]
    NoInstance(ServiceKey),
    #[error("{0} refuses connections: the healthchecks of all its instances fail")]
    Unhealthy(ServiceKey),
    #[error("the request has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    #[error("'{0}' is not a header that can be sent")]
    Header(String),
    #[error("the request has {0}")]
    Ambiguous(#[from] AmbiguousHeaders),
    #[error("the response of {instance} has {cause}")]
    AmbiguousResponse { instance: InstanceId, cause: AmbiguousHeaders },
    #[error("the request target '{0}' does not begin with '/'")]
    Target(String),
    #[error("the method CONNECT is not supported")]
    Connect,
    #[error("the request is malformed: {0}")]
    Malformed(String),
    #[error("the connection to {instance} broke before the response: {cause}")]
    Broken { instance: InstanceId, cause: String },
    #[error("{instance} does not accept a WebSocket here: {cause}")]
    Handshake { instance: InstanceId, cause: String },
    #[error("{0} did not answer in time")]
    TimedOut(InstanceId),
}

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        use FetchError as E;
        let message = error.to_string();
        let (code, hint) = match error {
            E::Find(error) => return error.into(),
            E::NoPort(_) => (
                ErrorCode::FailedPrecondition,
                "publish one with 'ports:' in its Compose file".to_owned(),
            ),
            E::SeveralPorts { ports, .. } => {
                (ErrorCode::InvalidArgument, format!("name one of {ports}"))
            }
            E::NoInstance(service) | E::Unhealthy(service) => {
                (ErrorCode::Unavailable, format!("see 'vc ps {service}'"))
            }
            E::Broken { .. } | E::Handshake { .. } | E::AmbiguousResponse { .. } => {
                (ErrorCode::Unavailable, String::new())
            }
            E::TimedOut(_) => (ErrorCode::DeadlineExceeded, String::new()),
            E::NotPublished { .. } => (ErrorCode::NotFound, String::new()),
            E::TooManyHeaders | E::Header(_) | E::Ambiguous(_) | E::Target(_) | E::Malformed(_) => {
                (ErrorCode::InvalidArgument, String::new())
            }
            E::Connect => (ErrorCode::Unimplemented, String::new()),
        };
        Self::new(code, message).with_hint(hint)
    }
}
