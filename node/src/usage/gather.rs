//! Asks the nodes what their instances use.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt as _;
use serde::Serialize;
use vc_crdt::View;
use vc_protocol::control::{Reply, UsageRow};
use vc_protocol::wire::USAGE_PROTOCOL;
use vc_protocol::{InstanceId, NodeId, Slot};

use super::Usages;
use crate::member_request::{self, MemberError};

/// Members that are asked at a time.
const CONCURRENT: usize = 32;

/// The request, which selects nothing yet.
#[derive(Serialize)]
struct UsageRequest {}

/// What the instances of several nodes use.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// By slot.
    pub(crate) rows: Vec<UsageRow>,
    /// The nodes that did not answer, with the reason.
    pub(crate) missing: Vec<(NodeId, MemberError)>,
}

impl Usages {
    /// Asks these nodes at once, for at most `deadline`. Returns what the instances use that the view shows on them; nodes without
    /// any are not asked.
    pub(crate) async fn gather(
        &self,
        view: &View,
        nodes: impl IntoIterator<Item = NodeId>,
        deadline: Duration,
    ) -> Gathered {
        let has_claims =
            |node: &NodeId| view.nodes.get(node).is_some_and(|state| !state.claims.is_empty());
        let answers = futures::stream::iter(nodes.into_iter().filter(has_claims))
            .map(|node| async move { (node, self.ask(node, deadline).await) })
            .buffer_unordered(CONCURRENT);
        let mut gathered = Gathered::default();
        futures::pin_mut!(answers);
        while let Some((node, answer)) = answers.next().await {
            match answer {
                Ok(rows) => gathered.rows.extend(shown(view, node, rows)),
                Err(error) => gathered.missing.push((node, error)),
            }
        }
        gathered
            .rows
            .sort_by(|a, b| (&a.service, a.replica, a.node).cmp(&(&b.service, b.replica, b.node)));
        gathered.missing.sort_by_key(|(node, _)| *node);
        gathered
    }

    async fn ask(&self, node: NodeId, deadline: Duration) -> Result<Vec<UsageRow>, MemberError> {
        if node == self.node {
            return Ok(self.ask_own().to_vec());
        }
        let members = self.members.clone();
        let request = UsageRequest {};
        match member_request::request(members, node, USAGE_PROTOCOL, &request, deadline).await? {
            (Reply::Usage(rows), _) => Ok(rows),
            _ => Err(MemberError::Unexpected),
        }
    }
}

/// Returns those rows of a node's answer that are about instances which it has in the view: of each one row.
fn shown(view: &View, node: NodeId, rows: Vec<UsageRow>) -> Vec<UsageRow> {
    let Some(state) = view.nodes.get(&node) else { return Vec::new() };
    let mut left: BTreeSet<&InstanceId> = state.claims.keys().collect();
    let node_name = view.name(node);
    let of = |row: UsageRow| {
        let slot = Slot { service: row.service.clone(), replica: row.replica };
        let is_claimed = left.remove(&InstanceId { slot, digest: row.digest.clone() });
        // The member's word of whose instance it is does not count.
        is_claimed.then(|| UsageRow { node, node_name: node_name.clone(), ..row })
    };
    rows.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{ClusterState, KnownVersions, NodeState};
    use vc_protocol::Keypair;
    use vc_protocol::instance::Claim;
    use vc_protocol::node::NodeInfo;

    use super::*;

    fn id(seed: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn row(slot: &str, digest: &str) -> UsageRow {
        let Slot { service, replica } = slot.parse().expect("a slot");
        UsageRow {
            service,
            replica,
            node: id(9),
            node_name: "another".to_owned(),
            digest: digest.to_owned(),
            container: String::new(),
            cpu_millis: Some(1),
            cpu_limit_millis: 0,
            cpu_ms: 1,
            memory_bytes: 1,
            memory_total_bytes: 1,
            memory_limit_bytes: 0,
            network_received_bytes: None,
            network_sent_bytes: None,
            disk_read_bytes: None,
            disk_written_bytes: None,
            processes: 1,
            started: 1,
            measured: 1,
        }
    }

    #[test]
    fn a_node_is_believed_about_its_own_instances_alone_and_once() {
        let slot: Slot = "shop/web.1".parse().expect("a slot");
        let instance = InstanceId { slot, digest: "a".to_owned() };
        let state = NodeState {
            info: Some(NodeInfo::for_tests("attic")),
            claims: BTreeMap::from([(instance, Claim::for_tests())]),
            ..NodeState::default()
        };
        let nodes = BTreeMap::from([(id(1), state)]);
        let view = View::from_states(ClusterState::default(), nodes, &KnownVersions::default());
        let answer = vec![
            row("shop/web.1", "a"),
            row("shop/web.1", "a"),
            row("shop/web.1", "b"),
            row("bank/db.1", "a"),
        ];
        let rows = shown(&view, id(1), answer);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!((rows[0].node, rows[0].node_name.as_str()), (id(1), "attic"));
        assert_eq!(shown(&view, id(2), vec![row("shop/web.1", "a")]), []);
    }
}
