//! Why an operation failed, for people.

use std::error::Error;

use hyper::StatusCode;
use vc_https::RequestError;

use crate::address::Address;
use crate::connector::{Refusal, TimedOut};

/// An operation that failed. Displayed with the address, the cause and the fix; no credentials are in it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {address}: {cause}")]
pub struct S3Error {
    /// What was done, as `write to`.
    pub doing: &'static str,
    /// The address.
    pub address: String,
    /// The cause.
    pub cause: Cause,
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// There is no such bucket.
    #[error("there is no bucket '{0}': create it, or correct the address")]
    NoBucket(String),
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// The server does not know the key.
    #[error("the server does not know this access key: correct the credentials")]
    UnknownKey,
    /// The signature does not match.
    #[error("the secret key does not belong to this access key: correct the credentials")]
    WrongSecret,
    /// The credentials were valid for a time.
    #[error("the session token has expired: get new credentials")]
    Expired,
    /// The key has not the right.
    #[error(
        "the key may not do that: allow it to list, read, write and delete objects of the bucket ({0})"
    )]
    Denied(String),
    /// The clock of this host, or of the server, is wrong.
    #[error(
        "the clock of this host differs from that of the server by more than 15 minutes (there it is {0}): set the clock, as 'timedatectl' shows it"
    )]
    Clock(String),
    /// The bucket is elsewhere.
    #[error(
        "the bucket is in another region: name it, as in s3://BUCKET/PREFIX?region=eu-central-1 ({0})"
    )]
    Region(String),
    /// There is no room.
    #[error("there is no room for it: free some, or raise the quota ({0})")]
    Full(String),
    /// The server cannot be reached, or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// The server cannot do it now.
    #[error("the server is overloaded or has failed, and was asked several times ({0})")]
    Busy(String),
    /// More than an object can have.
    #[error("it is larger than {0} parts of {1} MiB")]
    TooLarge(usize, usize),
    /// Another reason.
    #[error("{0}")]
    Other(String),
}

/// Finds an error among the sources of another.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

impl S3Error {
    pub(crate) fn new(doing: &'static str, address: &Address, error: &object_store::Error) -> Self {
        let cause = match (find::<Refusal>(error), find::<RequestError>(error)) {
            (Some(refusal), _) => Cause::of(refusal, address.bucket()),
            (None, Some(error)) => Cause::Unreachable(error.to_string()),
            (None, None) => match find::<TimedOut>(error) {
                Some(late) => Cause::Unreachable(late.to_string()),
                None => Cause::Other(error.to_string()),
            },
        };
        Self { doing, address: address.to_string(), cause }
    }
}

impl Cause {
    fn of(refusal: &Refusal, bucket: &str) -> Self {
        let Refusal { status, code, message, time } = refusal;
        let said = match (code.is_empty(), message.is_empty()) {
            (true, _) => status.to_string(),
            (false, true) => code.clone(),
            (false, false) => format!("{code}: {message}"),
        };
        match (code.as_str(), *status) {
            ("NoSuchBucket", _) => Self::NoBucket(bucket.to_owned()),
            ("NoSuchKey", _) => Self::NotFound,
            ("InvalidAccessKeyId" | "InvalidClientTokenId", _) => Self::UnknownKey,
            ("SignatureDoesNotMatch", _) => Self::WrongSecret,
            ("ExpiredToken", _) => Self::Expired,
            ("RequestTimeTooSkewed", _) => Self::Clock(time.clone()),
            ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) => Self::Region(said),
            ("QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded", _)
            | (_, StatusCode::INSUFFICIENT_STORAGE) => Self::Full(said),
            (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Self::Denied(said),
            (_, StatusCode::NOT_FOUND) if code.is_empty() => Self::NotFound,
            (_, status) if status.is_redirection() => Self::Region(said),
            (_, status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Self::Busy(said)
            }
            _ => Self::Other(format!("the server refused it ({said})")),
        }
    }
}
