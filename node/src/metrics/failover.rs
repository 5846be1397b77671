//! Measures how long a node was silent before it counted as down, and how long its slots were without an instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;
use vc_crdt::View;
use vc_engine::Vitals;
use vc_protocol::{Millis, NodeId, Slot};

use crate::clock;
use crate::snapshot::Snapshot;

/// Bounds of the time until a death is noticed, in seconds.
const DETECTIONS: [f64; 8] = [1.0, 1.8, 2.0, 2.5, 3.0, 5.0, 10.0, 30.0];
/// Bounds of the time until slots have instances again, in seconds.
const FAILOVERS: [f64; 10] = [0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// What is measured. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct FailoverMetrics {
    detections: Histogram,
    failovers: Histogram,
}

impl FailoverMetrics {
    pub(crate) fn new() -> Self {
        Self { detections: Histogram::new(DETECTIONS), failovers: Histogram::new(FAILOVERS) }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let help =
            "For how long this node had received no heartbeat of a node that is down by then";
        let detections = self.detections.clone();
        registry.register_with_unit("detection_duration", help, Unit::Seconds, detections);
        let help = "For how long a slot whose node went down had no running instance";
        let failovers = self.failovers.clone();
        registry.register_with_unit("failover_duration", help, Unit::Seconds, failovers);
    }

    /// Measures until the driver ends.
    pub(crate) async fn watch(self, mut snapshot: watch::Receiver<Snapshot>) {
        let mut deaths = Deaths::default();
        let mut view = Arc::clone(&snapshot.borrow_and_update().view);
        while snapshot.changed().await.is_ok() {
            let latest = snapshot.borrow_and_update().clone();
            let now = clock::monotonic();
            let ended = deaths.update(&view, &latest.view, &latest.vitals, now);
            view = latest.view;
            let seconds = |millis: Millis| Duration::from_millis(millis).as_secs_f64();
            ended.silent.into_iter().for_each(|it| self.detections.observe(seconds(it)));
            ended.without.into_iter().for_each(|it| self.failovers.observe(seconds(it)));
        }
    }
}

/// The nodes that went down and the slots that they had.
#[derive(Debug, Default)]
struct Deaths {
    /// Slots without a running instance, and since when.
    slots: BTreeMap<Slot, Millis>,
    /// Nodes of which it is not known yet how long they were silent.
    nodes: BTreeSet<NodeId>,
}

/// Times in milliseconds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ended {
    /// For how long each node was silent that is down.
    silent: Vec<Millis>,
    /// For how long each slot was without an instance that has one again.
    without: Vec<Millis>,
}

impl Deaths {
    /// Compares two views that follow each other.
    fn update(
        &mut self,
        before: &View,
        after: &View,
        vitals: &BTreeMap<NodeId, Vitals>,
        now: Millis,
    ) -> Ended {
        let is_down = |node: &NodeId| after.nodes.contains_key(node) && !after.up.contains(node);
        for node in before.up.difference(&after.up).filter(|node| is_down(node)) {
            self.nodes.insert(*node);
            let claims = before.nodes.get(node).into_iter().flat_map(|state| &state.claims);
            let running = claims.filter(|(_, claim)| claim.state.is_running());
            for (id, _) in running {
                self.slots.entry(id.slot.clone()).or_insert(now);
            }
        }
        let mut ended = Ended::default();
        self.nodes.retain(|node| {
            let silent = vitals.get(node).map_or(0, |vitals| vitals.silent_ms);
            if is_down(node) && silent > 0 {
                ended.silent.push(silent);
            }
            is_down(node) && silent == 0
        });
        self.slots.retain(|slot, since| {
            let up = after.nodes.iter().filter(|(node, _)| after.up.contains(node));
            let mut claims = up.flat_map(|(_, state)| &state.claims);
            let runs = claims.any(|(id, claim)| id.slot == *slot && claim.state.is_running());
            if runs {
                ended.without.push(now.saturating_sub(*since));
            }
            // One that was removed meanwhile is to have none.
            !runs && after.plan.has_slot(slot)
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use vc_crdt::{ClusterState, KnownVersions, NodeState, ServiceRecord};
    use vc_protocol::instance::Claim;
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::ServiceSpec;
    use vc_protocol::{InstanceId, Keypair};

    use super::*;

    fn id(seed: u8) -> NodeId {
        let key = Keypair::ed25519_from_bytes([seed; 32]).expect("32 bytes");
        NodeId::of(&key.public()).expect("ed25519")
    }

    /// A view with one replica of a service, which runs on these nodes; `down` are down.
    fn view(runs_on: &[u8], down: &[u8]) -> View {
        let mut cluster = ClusterState::default();
        let (spec, deployed_by) = (ServiceSpec::default().into(), "ada".to_owned());
        let record = ServiceRecord {
            spec,
            previous: None,
            revision: 1,
            updated: 1,
            deployed_by,
            trace: None,
        };
        let service: vc_protocol::ServiceKey = "shop/web".parse().expect("a service");
        cluster.services.insert(service.clone(), record.into());
        cluster.scale.insert(service.clone(), 1);
        let all = [1, 2, 3];
        let state = |seed: u8| {
            let slot = Slot { service: service.clone(), replica: 1 };
            let instance = InstanceId { slot, digest: "0".to_owned() };
            let here = runs_on.iter().filter(|&&it| it == seed);
            let claims = here.map(|_| (instance.clone(), Claim::for_tests()));
            let accuses = down.iter().filter(|&&it| it != seed && !down.contains(&seed));
            NodeState {
                incarnation: 1,
                observed: all.map(id).into(),
                unreachable: accuses.map(|&it| (id(it), 1)).collect(),
                info: Some(NodeInfo::for_tests("n")),
                claims: claims.collect(),
                ..NodeState::default()
            }
        };
        let nodes = all.into_iter().map(|seed| (id(seed), state(seed))).collect();
        View::from_states(cluster, nodes, &KnownVersions::default())
    }

    #[test]
    fn a_death_is_measured_until_it_is_noticed_and_until_the_slot_runs_again() {
        let silent =
            |millis| BTreeMap::from([(id(3), Vitals { silent_ms: millis, ..Vitals::default() })]);
        let (healthy, dead) = (view(&[3], &[]), view(&[3], &[3]));
        assert!(!dead.up.contains(&id(3)) && healthy.up.contains(&id(3)));
        let mut deaths = Deaths::default();
        assert_eq!(deaths.update(&healthy, &healthy, &silent(0), 1000), Ended::default());
        assert_eq!(deaths.update(&healthy, &dead, &silent(0), 5000), Ended::default());
        let noticed = Ended { silent: vec![1900], without: vec![] };
        assert_eq!(deaths.update(&dead, &dead, &silent(1900), 5100), noticed);
        let moved = view(&[1, 3], &[3]);
        let runs = Ended { silent: vec![], without: vec![1200] };
        assert_eq!(deaths.update(&dead, &moved, &silent(1900), 6200), runs);
        assert_eq!(deaths.update(&moved, &moved, &silent(1900), 7000), Ended::default());
    }
}
