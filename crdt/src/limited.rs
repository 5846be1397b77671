//! The part of a view that the users of some projects may see.

use std::collections::BTreeSet;
use std::sync::Arc;

use vc_protocol::{Name, ServiceKey};

use crate::state::{ClusterState, NodeState};
use crate::view::View;

impl View {
    /// Returns the view without what belongs to other projects. Nodes stay, with all that is said of them alone.
    ///
    /// It shows what there is; what will be depends on what it lacks: plans and rebalances are computed from the whole.
    #[must_use]
    pub fn limited_to(&self, projects: &BTreeSet<Name>) -> Self {
        let mut view = self.clone();
        let of = |service: &ServiceKey| projects.contains(&service.project);
        cluster(&mut view.cluster, projects);
        for state in view.nodes.values_mut() {
            node(state, projects);
        }
        view.updates.retain(|key, _| of(key));
        view.runs.retain(of);
        view.input.services.retain(|key, _| of(key));
        view.input.volumes.retain(|key, _| projects.contains(&key.project));
        view.copies.retain(|key, _| projects.contains(&key.project));
        view.input.moves.retain(|slot, _| of(&slot.service));
        for node in view.input.nodes.values_mut() {
            node.claims.retain(|slot, _| of(&slot.service));
            node.holds.services.retain(of);
            node.faults.services.retain(|key, _| of(key));
        }
        view.plan.placements.retain(|slot, _| of(&slot.service));
        view.plan.unplaced.retain(|slot, _| of(&slot.service));
        view.plan.moves.retain(|it| of(&it.slot.service));
        view.held.services.retain(|key, _| of(key));
        view
    }
}

fn cluster(state: &mut ClusterState, projects: &BTreeSet<Name>) {
    // Named in full: a change that adds a map says what of it belongs to a project.
    let ClusterState {
        services,
        scale,
        drained: _,
        left: _,
        moves,
        files,
        images,
        tombstones,
        tokens,
        revocations,
        joins,
        projects: policies,
        trust: _,
        voters: _,
        receivers,
        alerts,
        history,
    } = state;
    let of = |service: &ServiceKey| projects.contains(&service.project);
    services.retain(|key, _| of(key));
    scale.retain(|key, _| of(key));
    moves.retain(|slot, _| of(&slot.service));
    files.retain(|key, _| projects.contains(&key.project));
    images.retain(|_, record| {
        record.projects.as_ref().is_some_and(|pushed| !pushed.is_disjoint(projects))
    });
    tombstones.retain(|key, _| projects.contains(&key.project));
    tokens.clear();
    revocations.clear();
    joins.clear();
    receivers.clear();
    alerts.clear();
    policies.retain(|project, _| projects.contains(project));
    Arc::make_mut(history).retain(|key, _| of(&key.service));
}

fn node(state: &mut NodeState, projects: &BTreeSet<Name>) {
    let NodeState {
        incarnation: _,
        uptime: _,
        info: _,
        runtime_error: _,
        holds,
        faults,
        orphans,
        claims,
        volumes,
        update_results,
        runs,
        due,
        ports: _,
        unsent_alerts,
        unreachable: _,
        silent: _,
        observed: _,
        restarting: _,
    } = state;
    let of = |service: &ServiceKey| projects.contains(&service.project);
    unsent_alerts.clear();
    holds.services.retain(of);
    faults.services.retain(|key, _| of(key));
    for left in orphans.values_mut() {
        left.volumes.retain(|key| projects.contains(&key.project));
    }
    claims.retain(|id, _| of(&id.slot.service));
    volumes.retain(|key, _| projects.contains(&key.project));
    update_results.retain(|key, _| of(key));
    runs.retain(|id, _| of(&id.slot.service));
    due.retain(|slot, _| of(&slot.service));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use vc_protocol::instance::{Claim, InstanceState};
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::ServiceSpec;
    use vc_protocol::{Keypair, NodeId, Stored};

    use super::*;
    use crate::{
        ImageRecord, KnownVersions, MoveOrder, SealedFile, ServiceRecord, Tombstone, UpdateResult,
        VersionKey, VersionRecord, VolumeRecord,
    };

    /// Returns a view in which everything that can belong to a project belongs to one of two.
    fn view() -> View {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let id = NodeId::of(&key.public()).expect("ed25519");
        let mut cluster = ClusterState::default();
        let info = Some(NodeInfo::for_tests("n1"));
        let mut state = NodeState { info, incarnation: 1, ..NodeState::default() };
        for project in ["bank", "shop"] {
            for service in ["web", "api"] {
                let key: ServiceKey = format!("{project}/{service}").parse().expect("a service");
                let mut spec = ServiceSpec::default();
                spec.container.environment.insert("OF".to_owned(), project.to_owned());
                spec.container.reservation.cpu_millis = u64::from(service == "api") << 40;
                let spec: Stored<ServiceSpec> = spec.into();
                let digest = spec.container_digest();
                let record = ServiceRecord {
                    previous: Some(spec.clone()),
                    spec,
                    revision: 1,
                    updated: 1,
                    deployed_by: format!("of-{project}"),
                    trace: None,
                };
                let slot: vc_protocol::Slot = format!("{key}.1").parse().expect("a slot");
                let claim = Claim {
                    state: InstanceState::Running,
                    reason: format!("of {project}"),
                    address: String::new(),
                    restarts: 0,
                    lamport: 1,
                    started: 0,
                    since: 1,
                    available: true,
                    prepared: false,
                    restarted_unhealthy: false,
                    epoch: None,
                    terminal: false,
                };
                let order = MoveOrder { from: id, to: id, lamport: 2 };
                cluster.moves.insert(slot.clone(), order);
                if service == "web" {
                    let id = vc_protocol::InstanceId { slot, digest: digest.clone() };
                    state.claims.insert(id, claim);
                }
                let result =
                    UpdateResult { revision: 1, digest, failed: Some(format!("of {project}")) };
                state.update_results.insert(key.clone(), result);
                state.holds.services.insert(key.clone());
                state.faults.services.insert(key.clone(), format!("of {project}"));
                let left = state.orphans.entry(id).or_default();
                left.volumes.insert(format!("{project}/data").parse().expect("a volume"));
                cluster.scale.insert(key.clone(), 1);
                let version = VersionRecord {
                    number: 1,
                    spec: ServiceSpec::default().into(),
                    deployed: 1,
                    deployed_by: format!("of-{project}"),
                    complete: true,
                    failed: None,
                    rolled_back: false,
                };
                let version_key = VersionKey { service: key.clone(), revision: 1 };
                Arc::make_mut(&mut cluster.history).insert(version_key, version.into());
                cluster.services.insert(key, record.into());
            }
            let volume: vc_protocol::VolumeKey =
                format!("{project}/data").parse().expect("a volume");
            let name: Name = project.parse().expect("a name");
            cluster.projects.insert(name, vc_protocol::spec::ProjectPolicy::default().into());
            cluster
                .tombstones
                .insert(volume.clone(), Tombstone { lamport: 1, at: 1, forgotten: false });
            state
                .volumes
                .insert(volume, VolumeRecord { lamport: 2, since: 1, begun: 0, copy: None }.into());
            let file = format!("{project}/secret/v/key").parse().expect("a file");
            cluster.files.insert(file, SealedFile { sealed: project.to_owned() });
            let projects = Some(BTreeSet::from([project.parse().expect("a name")]));
            let image = ImageRecord { id: String::new(), size: 0, pushed: 0, projects };
            cluster.images.insert(format!("{project}:1"), image);
        }
        let token = serde_json::from_value(json!({"name": "bank", "scope": {"user": "viewer"},
            "issued_by": "ada", "issued": 0, "expires": 1}));
        cluster.tokens.insert("1".to_owned(), token.expect("a record"));
        View::from_states(cluster, BTreeMap::from([(id, state)]), &KnownVersions::default())
    }

    #[test]
    fn a_limited_view_says_nothing_of_other_projects_and_everything_of_its_own() {
        let view = view();
        let of = |project: &str| BTreeSet::from([project.parse::<Name>().expect("a name")]);
        let count = |view: &View, word: &str| format!("{view:?}").matches(word).count();
        assert!(count(&view, "bank") > 20 && count(&view, "shop") > 20, "{view:?}");
        for (project, other) in [("shop", "bank"), ("bank", "shop")] {
            let limited = view.limited_to(&of(project));
            assert_eq!(count(&limited, other), 0, "{limited:?}");
            // The token is named after one of them.
            let tokens = usize::from(project == "bank");
            assert_eq!(count(&limited, project), count(&view, project) - tokens, "{limited:?}");
            assert_eq!(limited.nodes.len(), 1);
        }
    }
}
