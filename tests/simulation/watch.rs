//! Watches what each node sees change: verdicts on others, and the marks that show in views.

use std::collections::{BTreeMap, BTreeSet};

use vc_crdt::{UpdateStatus, View};
use vc_protocol::{Lamport, Millis, NodeId, ServiceKey};

use crate::invariants::{no_wrongful_verdict, older_members_are_respected};
use crate::marks::Mark;
use crate::world::World;

/// Why an update failed, as nodes say.
type Reasons = BTreeSet<String>;

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// The nodes that each node considered up.
    up: BTreeMap<usize, BTreeSet<NodeId>>,
    /// Whether links were cut and restored.
    pub healed: bool,
    /// When a node last joined, left or died.
    pub membership_changed: Option<Millis>,
    /// Whether the schema of the next version is in effect.
    pub newer_schema: bool,
    /// Nodes whose clock stands still.
    pub stopped_clocks: BTreeSet<usize>,
    /// When clocks that stood still went on.
    pub started_clocks: BTreeMap<usize, Millis>,
    /// Whether a disk has lost what its node had promised as a voter.
    pub lost_votes: bool,
    /// Updates, by the revision of the service, that two nodes which could not hear of each other have rolled back, and for what
    /// reasons each.
    failed_apart: BTreeMap<(ServiceKey, Lamport), [Reasons; 2]>,
    /// The number of the newest set of voters that a node knew.
    voters: u64,
}

impl World {
    /// Looks at the view of a node after it has changed.
    pub fn watch_view(&mut self, index: usize) {
        let view = self.engine(index).view();
        let mut in_effect = self.watch.newer_schema;
        let engine = self.engine(index);
        self.require(older_members_are_respected::check(engine, &mut in_effect));
        self.watch.newer_schema = in_effect;
        let before = self.watch.up.insert(index, view.up.clone()).unwrap_or_default();
        for node in before.difference(&view.up) {
            let victim = self.node_of(*node);
            self.require(no_wrongful_verdict::check(self, index, victim));
            let stands_still = self.watch.stopped_clocks.contains(&victim);
            self.mark_if(stands_still, Mark::ClockStoodStill);
            self.watch.membership_changed = Some(self.now);
        }
        self.mark_if(self.watch.healed && claims_meet(&view), Mark::ClaimsMet);
        if let Some(set) = view.cluster.voter_set().filter(|set| set.number > self.watch.voters) {
            self.mark_if(set.number > 1 && !set.forced, Mark::VotersChanged);
            self.mark_if(set.number > 1 && self.network.is_cut(), Mark::VotersChangedUnderCut);
            self.mark_if(set.forced, Mark::VotersForced);
            self.watch.voters = set.number;
        }
        let is_drained = |index: &usize| {
            let node = &self.nodes[*index];
            view.cluster.drained.get(&node.id) == Some(&true) && node.runtime.containers.is_empty()
        };
        let some_drained = self.running().iter().any(is_drained);
        self.mark_if(some_drained, Mark::DrainedNode);
        let fails = |node: &vc_crdt::NodeState| node.runtime_error.is_some();
        self.mark_if(view.nodes.values().any(fails), Mark::RuntimeOutage);
        self.mark_if(!view.plan.unplaced.is_empty(), Mark::Unplaced);
        self.mark_if(!view.held.documents.is_empty(), Mark::OlderMemberHolds);
        let failed: Vec<&ServiceKey> = view
            .updates
            .iter()
            .filter(|(_, status)| matches!(status, UpdateStatus::Failed(_)))
            .map(|(key, _)| key)
            .collect();
        self.mark_if(!failed.is_empty(), Mark::UpdateFailed);
        self.mark_if(failed.iter().any(|key| view.is_rolled_back(key)), Mark::RolledBack);
        for key in failed {
            let Some((revision, results)) = results(&view, key) else { continue };
            let update = (key.clone(), revision);
            if view.is_rolled_back(key)
                && let Some(reasons) = self.failed_apart(index, &update, &results)
            {
                self.watch.failed_apart.insert(update.clone(), reasons);
            }
            let heard = |side: &Reasons| side.iter().any(|it| results.contains(&Some(it.as_str())));
            let sides = self.watch.failed_apart.get(&update);
            let met = sides.is_some_and(|sides| sides.iter().all(heard));
            self.mark_if(met && view.is_rolled_back(key), Mark::RollbackOnBothSides);
            let differ = results.len() > 1 && results.contains(&None);
            self.mark_if(differ, Mark::ResultsDiffer);
        }
    }

    /// Returns the reasons for which this node has rolled an update back, and those of another one, if it has other reasons and
    /// neither can hear of the other.
    fn failed_apart(
        &self,
        index: usize,
        (service, revision): &(ServiceKey, Lamport),
        here: &BTreeSet<Option<&str>>,
    ) -> Option<[Reasons; 2]> {
        let reasons = |results: &BTreeSet<Option<&str>>| -> Reasons {
            results.iter().flatten().map(|it| (*it).to_owned()).collect()
        };
        let here = reasons(here);
        let others = self.network.apart_from(index, &self.running());
        others.into_iter().find_map(|other| {
            let view = self.engine(other).view();
            let (newest, there) = results(&view, service)?;
            let there = reasons(&there);
            let is_other = newest == *revision && !there.is_empty() && here.is_disjoint(&there);
            (is_other && view.is_rolled_back(service)).then(|| [here.clone(), there])
        })
    }
}

/// Returns the revision of the last update of a service, and how nodes say that it ended: why it failed, or `None`. Each node that sees an
/// instance fail says why; others copy what it says.
fn results<'a>(
    view: &'a View,
    service: &ServiceKey,
) -> Option<(Lamport, BTreeSet<Option<&'a str>>)> {
    let states = || view.nodes.values();
    let results = || states().filter_map(|state| state.update_results.get(service));
    let newest = results().map(|it| it.revision).max()?;
    let of_newest = results().filter(|it| it.revision == newest);
    Some((newest, of_newest.map(|it| it.failed.as_deref()).collect()))
}

/// Returns whether two nodes that are up run an instance in one slot.
fn claims_meet(view: &View) -> bool {
    view.plan.placements.keys().any(|slot| {
        let running = view.claims_on(slot).filter(|(.., claim)| claim.state.is_running());
        running.map(|(node, ..)| node).collect::<BTreeSet<_>>().len() > 1
    })
}
