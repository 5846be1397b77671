//! Why alerts were not sent.

use std::io;

use super::WebhookUrlError;

/// Why a receiver has not confirmed what was sent to it. The texts are shown to users and name no secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// The URL cannot be decrypted.
    #[error("this node has not the key of its URL yet")]
    NoKey,
    /// A newer version has added the receiver.
    #[error("this node does not know the form of what it gets: upgrade vc-node")]
    Format,
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] WebhookUrlError),
    /// Nothing was confirmed in time.
    #[error("no answer within {0} s")]
    TimedOut(u64),
    /// The server cannot be reached, or does not answer.
    #[error(transparent)]
    Http(#[from] vc_https::RequestError),
    /// The request is malformed.
    #[error("the request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    /// The server refused it.
    #[error("it answered {0}")]
    Refused(hyper::StatusCode),
    /// The operator of the node has not allowed commands.
    #[error(
        "this node runs no commands of receivers: 'vc-node run --allow-notify-commands' lets it"
    )]
    CommandsNotAllowed,
    /// The command cannot be started, or does not take its input.
    #[error("cannot run {0}: {1}")]
    Command(String, io::Error),
    /// The command failed.
    #[error("{0} ended with {1}: see the log of this node")]
    Failed(String, std::process::ExitStatus),
}
