//! Whose instances a runtime manages.

use vc_protocol::{ClusterId, NodeId};

/// The cluster and node that a runtime runs instances for. It sees and touches no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The id of the cluster.
    pub cluster: ClusterId,
    /// The id of this node.
    pub node: NodeId,
}
