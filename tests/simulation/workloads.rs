//! What operators do beside [`Operators`](Kind::Operators): a kind of its own for each workload, so that a run may have it or not.

use vc_engine::Mutation;
use vc_protocol::VolumeKey;
use vc_protocol::spec::{Deployment, FailureAction, Mount, OnPartition};
use vc_protocol::volume::VolumeSpec;

use crate::kind::Kind;
use crate::rng::Rng;
use crate::services::{deploy, resources, service, version};

/// Returns the next mutation of a workload; `None` if the kind is none. `nodes`: how many nodes have joined.
pub fn mutation(kind: Kind, rng: &mut Rng, nodes: usize) -> Option<Mutation> {
    match kind {
        Kind::Exclusive => Some(exclusive(rng)),
        Kind::Volumes => Some(volumes(rng, nodes)),
        Kind::Voters => Some(voters(rng, nodes)),
        _ => None,
    }
}

/// Returns whether nothing of these kinds runs without leases.
pub fn needs_voters(kind: Kind) -> bool {
    matches!(kind, Kind::Exclusive | Kind::Volumes | Kind::Voters)
}

fn exclusive(rng: &mut Rng) -> Mutation {
    let name = rng.pick(&["ledger", "queue"]);
    match rng.index(8) {
        0..=4 => {
            let mut one = version(service(name, 1), rng.within((1, 3)));
            one.replicas = rng.permille(700).then(|| rng.within((1, 3)) as u32);
            one.spec.on_partition = Some(OnPartition::Exclusive);
            one.spec.container.image = rng.pick(&["steady", "steady-2", "flaky"]).to_owned();
            one.spec.container.reservation = resources(rng.pick(&[100, 500]), 64);
            deploy(one)
        }
        5 | 6 => {
            Mutation::Scale { service: format!("shop/{name}"), replicas: rng.within((0, 4)) as u32 }
        }
        _ => Mutation::Remove(format!("shop/{name}")),
    }
}

/// The volume of the service that [`Kind::Volumes`] deploys.
pub fn volume() -> VolumeKey {
    "shop/data".parse().expect("a volume")
}

/// Returns a service that writes to [`volume`].
pub fn database(kept: VolumeSpec) -> Deployment {
    let mut deployment = service("db", 1);
    let name = volume().volume;
    deployment.spec.container.mounts = vec![Mount::volume(name.clone(), "/data", false)];
    if kept != VolumeSpec::default() {
        deployment.spec.volumes.insert(name, kept);
    }
    deployment
}

fn volumes(rng: &mut Rng, nodes: usize) -> Mutation {
    match rng.index(10) {
        0..=4 => {
            let replicas = rng.pick(&[None, None, Some(3)]);
            let one = database(VolumeSpec { replicas, ..VolumeSpec::default() });
            deploy(version(one, rng.within((1, 2))))
        }
        5..=7 => Mutation::MoveVolume { volume: volume(), to: format!("m{}", rng.index(nodes)) },
        8 => Mutation::Scale { service: "shop/db".to_owned(), replicas: rng.within((0, 1)) as u32 },
        _ => Mutation::Remove("shop/db".to_owned()),
    }
}

/// Returns the deployment of a version that works, and that of one whose instances end at once until the faults have ended. All
/// instances are updated at the same time.
pub fn failing_update(rng: &mut Rng) -> [Mutation; 2] {
    let mut works = version(service("front", rng.within((2, 6)) as u32), rng.within((1, 3)));
    works.spec.update.parallelism = 0;
    works.spec.update.monitor_ms = 1000;
    works.spec.update.failure_action = FailureAction::Rollback;
    let mut fails = works.clone();
    fails.spec.container.image = "faulty".to_owned();
    [works, fails].map(deploy)
}

fn voters(rng: &mut Rng, nodes: usize) -> Mutation {
    let node = format!("m{}", rng.index(nodes));
    Mutation::SetVoter { node, votes: rng.pick(&[Some(true), Some(false), None]) }
}
