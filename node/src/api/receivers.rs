//! Requests about receivers of alerts.

use std::collections::BTreeMap;

use vc_crdt::{Receiver, ReceiverTarget, View};
use vc_engine::Mutation;
use vc_engine::alerts::{sender, test_alert};
use vc_engine::report;
use vc_protocol::alert::{AlertFilter, AlertFormat, AlertTarget};
use vc_protocol::control::{Change, Reply};
use vc_protocol::{ApiError, ErrorCode, Name, NodeId};

use super::ControlService;
use crate::alerts::{SendError, WebhookUrl, WebhookUrlError};
use crate::auth::User;
use crate::seal::SealError;

/// Most bytes of a command.
const MAX_COMMAND: usize = 4096;

/// Why a request about a receiver is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiverError {
    /// There is none of this name.
    #[error("there is no receiver {0}")]
    NotFound(Name),
    /// No node sends to it.
    #[error("no node sends alerts to {0}")]
    NoSender(Name),
    /// The URL is malformed.
    #[error(transparent)]
    Url(#[from] WebhookUrlError),
    /// The command is empty, or too long.
    #[error("a command has a program, and at most {MAX_COMMAND} bytes")]
    Command,
    /// A newer client names a format, a kind or a severity that this node does not know.
    #[error("this node does not know the format, a kind or the severity of the receiver")]
    Unknown,
    /// The URL cannot be sealed.
    #[error("cannot seal the URL: {0}")]
    Seal(#[from] SealError),
    /// This server has not the key that seals.
    #[error("this server has not got the present signing key yet")]
    NoKey,
    /// It did not confirm the test.
    #[error("{receiver} has not confirmed a test alert from {node}: {error}")]
    Test {
        /// Its name.
        receiver: Name,
        /// The node that sent it.
        node: String,
        /// Why its delivery failed.
        error: SendError,
    },
}

impl From<ReceiverError> for ApiError {
    fn from(error: ReceiverError) -> Self {
        let (code, hint) = match &error {
            ReceiverError::NotFound(_) => (ErrorCode::NotFound, "see 'vc notify ls'"),
            ReceiverError::NoSender(_) => (
                ErrorCode::FailedPrecondition,
                "let a server run commands of receivers with 'vc-node run --allow-notify-commands'",
            ),
            ReceiverError::Url(_) | ReceiverError::Command => (ErrorCode::InvalidArgument, ""),
            ReceiverError::Unknown => (
                ErrorCode::InvalidArgument,
                "upgrade vc-node on this node, or use a newer node with --peer",
            ),
            ReceiverError::Seal(_) => (ErrorCode::Internal, ""),
            ReceiverError::NoKey => (ErrorCode::Unavailable, "try again in a moment"),
            ReceiverError::Test { .. } => (
                ErrorCode::Unavailable,
                "check the address from that node; 'vc notify rm' and 'vc notify add' change it",
            ),
        };
        let message = error.to_string();
        match hint {
            "" => Self::new(code, message),
            hint => Self::new(code, message).with_hint(hint),
        }
    }
}

impl ControlService {
    /// Lists the receivers.
    pub(super) fn receivers(&self) -> Reply {
        let latest = self.cluster.latest();
        Reply::Receivers(report::receivers(&latest.view))
    }

    /// Adds a receiver. The URL is sealed before it gets into a document.
    pub(super) async fn add_receiver(
        &self,
        user: &User,
        name: Name,
        (target, format, filter): (AlertTarget, AlertFormat, AlertFilter),
    ) -> Result<Reply, ApiError> {
        if format == AlertFormat::Unknown || !filter.is_known() {
            return Err(ReceiverError::Unknown.into());
        }
        let target = match target {
            AlertTarget::Webhook { url } => self.sealed(&name, &url)?,
            AlertTarget::Command { command } => {
                let length: usize = command.iter().map(String::len).sum();
                if command.first().is_none_or(String::is_empty) || length > MAX_COMMAND {
                    return Err(ReceiverError::Command.into());
                }
                ReceiverTarget::Command { command }
            }
        };
        let (added, added_by) = (crate::clock::now(), user.name.clone());
        let receiver = Box::new(Receiver { target, format, filter, added, added_by });
        self.cluster.mutate(user, Mutation::AddReceiver { name, receiver }).await
    }

    fn sealed(&self, name: &Name, url: &str) -> Result<ReceiverTarget, ReceiverError> {
        let origin = WebhookUrl::parse(url)?.origin();
        let membership = self.cluster.membership();
        let keys = membership.file_keys().ok_or(ReceiverError::NoKey)?;
        let present = keys.present.as_ref().ok_or(ReceiverError::NoKey)?;
        let url = present.seal_url(membership.cluster, name, url)?;
        Ok(ReceiverTarget::Webhook { url, origin })
    }

    /// Returns the node that sends to a receiver.
    pub(super) fn receiver_sender(view: &View, name: &Name) -> Result<NodeId, ApiError> {
        let receiver = view.cluster.receivers.get(name);
        let receiver = receiver.ok_or_else(|| ReceiverError::NotFound(name.clone()))?;
        let node = sender(view, name, receiver);
        Ok(node.ok_or_else(|| ReceiverError::NoSender(name.clone()))?)
    }

    /// Sends a test alert, from this node.
    pub(super) async fn test_receiver(&self, name: Name) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        let receivers: &BTreeMap<_, _> = &view.cluster.receivers;
        let receiver = receivers.get(&name).ok_or_else(|| ReceiverError::NotFound(name.clone()))?;
        let membership = self.cluster.membership();
        let node = view.name(membership.node);
        let alert = test_alert(membership.cluster, &node, crate::clock::now());
        match self.alerts.send(&name, receiver, &[alert]).await {
            Ok(()) => {
                let tested = Change::ReceiverTested { receiver: name, node_name: node };
                Ok(Reply::Done(vec![tested]))
            }
            Err(error) => Err(ReceiverError::Test { receiver: name, node, error }.into()),
        }
    }
}
