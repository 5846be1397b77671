//! Messages to the driver: what other tasks send to the one that owns the engine.

use tokio::sync::oneshot;
use vc_engine::{Input, Mutation};
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::node::ScheduledBackups;
use vc_protocol::{ApiError, Multiaddr, Name, NodeId};

/// Messages that may wait for the driver; senders wait when the queue is full.
pub(crate) const DRIVER_QUEUE: usize = 1024;

/// A message to the driver.
pub(crate) enum DriverMessage {
    /// An input for the engine, passed on as it is.
    Input(Input),
    /// A change that a user asks for, answered once it is durable on this node.
    Mutate {
        /// The user and token, recorded in the signed change.
        by: Subject,
        /// The change.
        mutation: Mutation,
        /// Receives what has changed, or why nothing has.
        answer: oneshot::Sender<Result<Vec<Change>, ApiError>>,
    },
    /// Counts the use of a join token, and adds the node's membership certificate.
    Admit {
        /// The token, and the address that the node joins from.
        by: Subject,
        /// The use of the token, as [`Mutation::Admit`].
        admission: Mutation,
        /// The certificate.
        certificate: String,
        /// Receives the certificates of all members, once the new one is durable on this node.
        answer: oneshot::Sender<Result<Vec<String>, ApiError>>,
    },
    /// The addresses this node publishes have changed.
    Addresses(Vec<Multiaddr>),
    /// Why the audit log of this node is not written; `None` if it is again.
    AuditProblem(Option<String>),
    /// Why the watchdog does not run while an instance needs it; `None` if it does.
    WatchdogProblem(Option<String>),
    /// Why containers of this node cannot resolve services; `None` if they can.
    DnsProblem(Option<String>),
    /// The backups that this node makes.
    Backups(ScheduledBackups),
    /// Two processes have one identity.
    Duplicate(DuplicateFound),
}

/// Two processes with the identity of one node, on copies of a data directory.
#[derive(Debug)]
pub(crate) enum DuplicateFound {
    /// A member is connected to another process of this node.
    Own {
        /// The name that it gives its node.
        name: Name,
        /// Where the member is connected to it.
        address: Multiaddr,
        /// Whether this process is the one that has to stop.
        yields: bool,
    },
    /// Another process of this node has dialled this one at its start, and does not run.
    Refused {
        /// From where it dialled.
        address: Multiaddr,
    },
    /// This node is connected to two processes of a member.
    Member {
        /// The member.
        node: NodeId,
        /// Where they are.
        addresses: [Multiaddr; 2],
    },
}
