//! Whether this node can do its work: what `/readyz` says.

use std::collections::BTreeMap;

use vc_crdt::View;
use vc_engine::{Vitals, report};
use vc_protocol::NodeId;
use vc_protocol::control::NodeStatus;

/// Returns why the node cannot run instances or is cut off, in one line; `None` if it is ready.
pub(crate) fn problem(
    view: &View,
    vitals: &BTreeMap<NodeId, Vitals>,
    node: NodeId,
) -> Option<String> {
    let rows = report::nodes(view, vitals);
    let Some(row) = rows.into_iter().find(|row| row.id == node) else {
        return Some("this node is not in the documents of the cluster yet".to_owned());
    };
    match row.state {
        NodeStatus::Left => Some("this node has left the cluster".to_owned()),
        NodeStatus::Down => Some("most other nodes do not reach this one".to_owned()),
        NodeStatus::Up => Some(row.problem).filter(|problem| !problem.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, NodeState};
    use vc_protocol::Keypair;
    use vc_protocol::node::NodeInfo;

    use super::*;

    #[test]
    fn a_node_is_ready_while_others_reach_it_and_its_runtime_answers() {
        let id = |seed: u8| {
            let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        let ids = [id(1), id(2), id(3)];
        let problem_with = |reached: bool, runtime_error: Option<&str>| {
            let state = |&node: &NodeId| {
                let unreachable = match reached || node == ids[0] {
                    true => BTreeMap::new(),
                    false => [(ids[0], 1)].into(),
                };
                let own = NodeState {
                    incarnation: 1,
                    observed: ids.into(),
                    unreachable,
                    info: Some(NodeInfo::for_tests("desk")),
                    runtime_error: runtime_error.map(str::to_owned),
                    ..NodeState::default()
                };
                (node, own)
            };
            let nodes = ids.iter().map(state).collect();
            let view = View::from_states(ClusterState::default(), nodes, &KnownVersions::default());
            problem(&view, &BTreeMap::new(), ids[0])
        };
        assert_eq!(problem_with(true, None), None);
        assert_eq!(
            problem_with(false, None).as_deref(),
            Some("most other nodes do not reach this one")
        );
        assert_eq!(problem_with(true, Some("Docker is away")).as_deref(), Some("Docker is away"));
    }
}
