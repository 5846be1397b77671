//! What an engine is made of, what comes in and what goes out.

use std::collections::BTreeMap;

use vc_protocol::change::{ChangeRange, DocumentId, SignedChange, Subject};
use vc_protocol::control::Change;
use vc_protocol::gossip::{Gossip, SyncMessage};
use vc_protocol::node::{NodeInfo, Usage};
use vc_protocol::{ClusterId, Keypair, Millis, NodeId, VolumeKey};

use crate::mutation::{Mutation, MutationError};
use crate::runtime::{RuntimeAction, RuntimeEvent};

/// The rhythms of a node, all in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two heartbeats.
    pub heartbeat: Millis,
    /// Between two looks at who is silent.
    pub judgement: Millis,
    /// The shortest silence that is suspect.
    pub suspect: Millis,
    /// The silence that is suspect in one that was never heard.
    pub first_contact: Millis,
    /// Between two comparisons with some peer, whatever gossip brings.
    pub anti_entropy: Millis,
    /// A runtime may be away so long before its instances are given up.
    pub runtime_grace: Millis,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: 500,
            judgement: 250,
            suspect: 2000,
            first_contact: 6000,
            anti_entropy: 10_000,
            runtime_grace: 5000,
        }
    }
}

/// What an engine is made of.
pub struct Config {
    /// The node's key.
    pub key: Keypair,
    /// Its id.
    pub id: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// What it says of itself.
    pub info: NodeInfo,
    /// A random number, new at each start.
    pub nonce: u64,
    /// Its rhythms.
    pub timing: Timing,
}

/// What is kept on disk.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    /// Changes.
    pub changes: Vec<SignedChange>,
    /// Membership certificates.
    pub certificates: Vec<String>,
    /// Documents whose changes are needed no more.
    pub replaced: Vec<DocumentId>,
}

impl Durable {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.certificates.is_empty() && self.replaced.is_empty()
    }
}

/// What happens to a node.
#[derive(Debug, Clone)]
pub enum Input {
    /// The deadline has come.
    Wake,
    /// A member is connected.
    Connected(NodeId),
    /// No connection to it is left.
    Disconnected(NodeId),
    /// A gossip message whose signature says it is from this member.
    Gossip(NodeId, Gossip),
    /// A message on a stream from a connected member.
    Sync(NodeId, SyncMessage),
    /// Something happened in the runtime.
    Runtime(RuntimeEvent),
    /// What this node uses now.
    Usage(Usage),
    /// What this node says of itself has changed, as its addresses do.
    Info(NodeInfo),
    /// The ports that this node cannot publish (`8080/tcp`) now, and why.
    Ports(BTreeMap<String, String>),
    /// A certificate that authentication brought.
    Certificate(String),
    /// A user wants a change; the caller has checked that he may.
    Mutate {
        /// Comes back in [`Output::Answer`].
        request: u64,
        /// Who.
        by: Subject,
        /// What.
        mutation: Mutation,
    },
}

/// What the shell is to do, in this order.
#[derive(Debug, Clone)]
pub enum Output {
    /// Tell the runtime.
    Runtime(RuntimeAction),
    /// Remove the data of a volume.
    RemoveVolume(VolumeKey),
    /// Make this durable before going on. When that fails: perform nothing of what follows, and make a new engine from
    /// what is durable.
    Persist(Durable),
    /// Publish.
    Gossip(Gossip),
    /// Send to a connected member; may be lost.
    Send(NodeId, SyncMessage),
    /// Read these runs of changes from disk and send them to a connected member, in batches; may be lost.
    Replay(NodeId, Vec<ChangeRange>),
    /// Its connections are dead: close them.
    Disconnect(NodeId),
    /// Answer the [`Input::Mutate`] of this number with what has changed, or why nothing has.
    Answer(u64, Result<Vec<Change>, MutationError>),
    /// [`Engine::view`] shows something new.
    ViewChanged,
}
