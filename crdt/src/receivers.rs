//! The entries of the cluster document about receivers of alerts, and what was sent to them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vc_protocol::alert::{AlertFilter, AlertFormat, ProblemKind};
use vc_protocol::{Millis, Name, NodeId};

use crate::state::SealedFile;

/// A receiver of alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver {
    /// Where alerts go.
    #[serde(flatten)]
    pub target: ReceiverTarget,
    /// The form of what is sent.
    #[serde(default)]
    pub format: AlertFormat,
    /// Which problems are sent.
    #[serde(default)]
    pub filter: AlertFilter,
    /// When it was added, by the clock of the node that took the command; for display.
    pub added: Millis,
    /// Name of the user that added it.
    pub added_by: String,
}

/// Where a receiver's alerts go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum ReceiverTarget {
    /// To a URL, which is sealed like a secret.
    Webhook {
        /// The URL.
        url: SealedFile,
        /// Scheme, host and port of it, which may be shown.
        origin: String,
    },
    /// To a program on the node that sends.
    Command {
        /// The program with its arguments.
        command: Vec<String>,
    },
}

/// Identifies an alert that a receiver has: `RECEIVER/FINGERPRINT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertKey {
    /// Name of the receiver.
    pub receiver: Name,
    /// Identifies the problem, on every node alike.
    pub fingerprint: String,
}

impl Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.receiver, self.fingerprint)
    }
}

/// The text is not an [`AlertKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the key of an alert: expected RECEIVER/FINGERPRINT")]
pub struct ParseAlertKeyError(String);

impl FromStr for AlertKey {
    type Err = ParseAlertKeyError;
    fn from_str(text: &str) -> Result<Self, ParseAlertKeyError> {
        let parsed = text.split_once('/').and_then(|(receiver, fingerprint)| {
            Some(Self { receiver: receiver.parse().ok()?, fingerprint: fingerprint.to_owned() })
        });
        parsed.ok_or_else(|| ParseAlertKeyError(text.to_owned()))
    }
}

/// An alert that a receiver has confirmed, and whose end it has not: what the node needs that sends the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// The kind of the problem.
    pub kind: ProblemKind,
    /// What identifies it to people and receivers.
    pub labels: BTreeMap<String, String>,
    /// What was said of it.
    pub summary: String,
    /// When it began, by the clock of the node that sent it.
    pub started: Millis,
    /// The node that sent it.
    pub by: NodeId,
}
