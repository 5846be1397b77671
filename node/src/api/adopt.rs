//! Taking over what a former node has left on the host of a member.

use std::collections::BTreeSet;

use vc_crdt::View;
use vc_engine::Input;
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Change, Reply};
use vc_protocol::{ApiError, ErrorCode, NodeId, VolumeKey};
use vc_runtime::Runtime;

use super::ControlService;
use crate::auth::User;

/// Why nothing is taken over.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error("no node that is up has anything of a former node '{0}' on its host")]
    Nothing(String),
    #[error("several former nodes are called '{0}'")]
    Ambiguous(String),
    #[error("{name} ({id}) is a node of the cluster, which is down")]
    Member { name: String, id: String },
    #[error("{0}")]
    Failed(String),
}

impl From<AdoptError> for ApiError {
    fn from(error: AdoptError) -> Self {
        let (code, hint) = match &error {
            AdoptError::Nothing(_) => (ErrorCode::NotFound, "see 'vc status'".to_owned()),
            AdoptError::Ambiguous(_) => {
                (ErrorCode::InvalidArgument, "use the id from 'vc status'".to_owned())
            }
            AdoptError::Member { id, .. } => (
                ErrorCode::FailedPrecondition,
                format!("if it is gone for good, remove it first: 'vc leave {id} --force'"),
            ),
            AdoptError::Failed(_) => (ErrorCode::Unavailable, "try again".to_owned()),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// Returns the former node that a text names, and the member on whose host it has left something.
///
/// # Errors
/// There is none, or there are several.
pub(super) fn find(view: &View, text: &str) -> Result<(NodeId, NodeId), ApiError> {
    let up = view.nodes.iter().filter(|(node, _)| view.up.contains(node));
    let all = up.flat_map(|(&at, state)| state.orphans.keys().map(move |&former| (former, at)));
    let is_it = |id: NodeId| id.to_string() == text || id.short() == text || view.name(id) == text;
    let mut found = all.filter(|(former, _)| is_it(*former));
    let Some((former, at)) = found.next() else {
        return Err(AdoptError::Nothing(text.to_owned()).into());
    };
    if found.any(|(other, _)| other != former) {
        return Err(AdoptError::Ambiguous(text.to_owned()).into());
    }
    if view.nodes.contains_key(&former) {
        let member = AdoptError::Member { name: view.name(former), id: former.short() };
        return Err(member.into());
    }
    Ok((former, at))
}

/// Returns which volumes of a former node `own` can take over, and which not: another node holds their data by now.
fn divide(
    view: &View,
    own: NodeId,
    volumes: BTreeSet<VolumeKey>,
) -> (BTreeSet<VolumeKey>, BTreeSet<VolumeKey>) {
    let is_free = |key: &VolumeKey| view.input.volumes.get(key).is_none_or(|holder| *holder == own);
    volumes.into_iter().partition(is_free)
}

impl ControlService {
    /// Stops what a former node has left on this host and, unless `stop`, takes over the data of its volumes.
    pub(super) async fn adopt(
        &self,
        user: &User,
        former: NodeId,
        stop: bool,
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        let own = self.cluster.membership().node;
        let orphans = view.nodes.get(&own).and_then(|state| state.orphans.get(&former));
        let all = orphans.map(|left| left.volumes.clone()).unwrap_or_default();
        let (volumes, left) = if stop { (BTreeSet::new(), all) } else { divide(&view, own, all) };
        let Runtime::Docker(docker) = &self.runtime else {
            return Err(AdoptError::Nothing(former.short()).into());
        };
        let containers = docker
            .adopt(former, &volumes)
            .await
            .map_err(|error| AdoptError::Failed(error.to_string()))?;
        self.cluster.input(Input::Adopted(volumes.clone())).await?;
        let change = Change::Adopted {
            node: own,
            node_name: view.name(own),
            former,
            containers,
            volumes: volumes.into_iter().collect(),
            left: left.into_iter().collect(),
        };
        let text = format!("had what {} has left taken over: {change}", former.short());
        self.audit.record(AuditAction::NodeAdopted, user, None, text);
        Ok(Reply::Done(vec![change]))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{ClusterState, KnownVersions, NodeState, VolumeRecord};
    use vc_protocol::Keypair;
    use vc_protocol::node::{NodeInfo, Orphans};

    use super::*;

    fn id(number: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    fn volume(name: &str) -> VolumeKey {
        format!("shop/{name}").parse().expect("a volume")
    }

    /// Returns a cluster of two nodes. The first has orphans of node 3 on its host, the second holds volume `there`.
    fn view(left: bool) -> View {
        let volumes = BTreeSet::from([volume("data"), volume("there")]);
        let orphans = BTreeMap::from([(id(3), Orphans { containers: 1, volumes })]);
        let record = VolumeRecord { lamport: 1, since: 1, begun: 0, copy: None };
        let node = |name: &str| NodeState {
            info: Some(NodeInfo::for_tests(name)),
            incarnation: 1,
            ..NodeState::default()
        };
        let first = NodeState { orphans, ..node("attic") };
        let held = BTreeMap::from([(volume("there"), record.into())]);
        let second = NodeState { volumes: held, ..node("desk") };
        let mut nodes = BTreeMap::from([(id(1), first), (id(2), second), (id(3), node("old"))]);
        let mut cluster = ClusterState::default();
        if left {
            cluster.left.insert(id(3), 1);
        }
        for by in [1, 2] {
            nodes.get_mut(&id(by)).expect("there").unreachable.insert(id(3), 1);
        }
        View::from_states(cluster, nodes, &KnownVersions::default())
    }

    #[test]
    fn what_a_node_that_has_left_has_on_a_host_is_found_by_its_name_or_id() {
        let view = view(true);
        for text in ["old", &id(3).short(), &id(3).to_string()] {
            assert_eq!(find(&view, text).expect("found"), (id(3), id(1)));
        }
        assert_eq!(find(&view, "desk").expect_err("it is up").code, ErrorCode::NotFound);
        let (free, taken) = divide(&view, id(1), [volume("data"), volume("there")].into());
        assert_eq!((free, taken), ([volume("data")].into(), [volume("there")].into()));
    }

    #[test]
    fn what_a_member_that_is_down_has_is_not_taken_over() {
        let refused = find(&view(false), "old").expect_err("a member");
        assert_eq!(refused.code, ErrorCode::FailedPrecondition);
        assert!(refused.hint.contains("vc leave"), "{refused}");
    }
}
