//! Places the open slots of one service. The crate's documentation explains why the algorithm is stable.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use vc_protocol::spec::ServiceMode;
use vc_protocol::{ServiceKey, Slot};

use crate::allocation::NodeAllocation;
use crate::claims::Kept;
use crate::decision::{Placement, Plan, Refusal};
use crate::feasibility::{Infeasible, check_new, check_resources, check_volumes};
use crate::order::{Service, Shared};
use crate::ports;
use crate::reasons;
use crate::rendezvous::rendezvous;
use crate::rules::Rules;
use crate::score::{Cost, cost};
use crate::slots::Slots;
use crate::volumes::{VolumeAffinity, Volumes};

/// The state of scheduling one service. Nodes are indexes into the allocations.
pub(crate) struct ServiceScheduler<'s, 'a> {
    service: &'s Service<'a>,
    /// Whether each node may run the service, apart from resources.
    eligible: Vec<bool>,
    /// The other services of the volume group, if this service decides the group's node.
    group: Vec<&'s Service<'a>>,
    /// Bytes that volumes reserve where the next slot goes, because they have no node yet.
    volume_bytes: u64,
    /// Number of the service's replicas on each node.
    replicas: Vec<u32>,
    /// Rendezvous hash of the service.
    hash: u64,
    rules: Rules,
}

impl<'s, 'a> ServiceScheduler<'s, 'a> {
    /// Prepares scheduling of `services[index]`, of which the slots `kept` have a node already.
    pub(crate) fn new(
        rules: Rules,
        index: usize,
        services: &'s [Service<'a>],
        allocations: &[NodeAllocation<'a>],
        volumes: &Volumes<'_>,
        kept: &BTreeMap<u32, Kept>,
    ) -> Self {
        let service = &services[index];
        let mut replicas = vec![0; allocations.len()];
        for place in kept.values() {
            replicas[place.node] += 1;
        }
        let is_eligible = |allocation: &NodeAllocation<'a>| {
            check_volumes(service, allocation, volumes).is_ok()
                && check_new(service, allocation).is_ok()
        };
        let mut scheduler = Self {
            service,
            eligible: allocations.iter().map(is_eligible).collect(),
            group: Vec::new(),
            volume_bytes: volumes.unassigned_bytes(service),
            replicas,
            hash: rendezvous(&[&service.key.to_string()]),
            rules,
        };
        if volumes.affinity(service) == VolumeAffinity::Any {
            scheduler.group = volumes.group_members(index).map(|other| &services[other]).collect();
            for (node, allocation) in allocations.iter().enumerate() {
                scheduler.eligible[node] &= scheduler.ineligible_member(allocation).is_none();
            }
        }
        scheduler
    }

    /// Returns the first service of the volume group that the node may not run.
    fn ineligible_member(&self, allocation: &NodeAllocation<'a>) -> Option<&'a ServiceKey> {
        let found = self.group.iter().find(|other| check_new(other, allocation).is_err());
        found.map(|other| other.key)
    }

    /// Places the open slots, and reserves the resources, except for ports. Returns their nodes by number.
    pub(crate) fn place(
        &mut self,
        open: &[u32],
        allocations: &mut [NodeAllocation<'a>],
        volumes: &mut Volumes<'_>,
    ) -> BTreeMap<u32, usize> {
        if self.unknown_to_older().is_some() {
            return BTreeMap::new();
        }
        let mut placed = BTreeMap::new();
        let is_bound = |&number: &u32| self.service.slots.node_of(number).is_some();
        let (bound, free): (Vec<u32>, Vec<u32>) = open.iter().copied().partition(is_bound);
        for number in bound {
            let Some(node) = self.index_of(number, allocations) else { continue };
            let allocation = &mut allocations[node];
            if check_volumes(self.service, allocation, volumes).is_ok()
                && self.fits(node, allocation, 1)
            {
                volumes.assign(self.service, allocation.id);
                allocation.reserve_volumes(std::mem::take(&mut self.volume_bytes));
                allocation.reserve(self.service);
                self.replicas[node] += 1;
                placed.insert(number, node);
            }
        }
        let chosen = self.choose(free.len(), allocations, volumes);
        placed.extend(free.into_iter().zip(chosen));
        placed
    }

    /// Returns what nodes that are up do not know of the service; if there is such, it gets no more slots.
    fn unknown_to_older(&self) -> Option<&'static str> {
        let spec = &self.service.demand.spec;
        (!self.rules.modes && spec.mode != ServiceMode::Replicated).then_some("mode")
    }

    /// Returns the index of the only node that may run a slot.
    fn index_of(&self, number: u32, allocations: &[NodeAllocation<'a>]) -> Option<usize> {
        let node = self.service.slots.node_of(number)?;
        allocations.binary_search_by(|allocation| allocation.id.cmp(&node)).ok()
    }

    /// Chooses nodes for up to `count` slots, fewer if no more fit, and reserves the resources, except for ports. The
    /// result is in the order in which the open slots take the nodes.
    fn choose(
        &mut self,
        count: usize,
        allocations: &mut [NodeAllocation<'a>],
        volumes: &mut Volumes<'_>,
    ) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let decides_volumes = !self.service.shared.is_empty()
                && volumes.affinity(self.service) == VolumeAffinity::Any;
            // All replicas follow the volume, so a node with room for all of them is preferred.
            let for_all = if decides_volumes { self.cheapest(allocations, count) } else { None };
            let Some(node) = for_all.or_else(|| self.cheapest(allocations, 1)) else { break };
            volumes.assign(self.service, allocations[node].id);
            allocations[node].reserve_volumes(std::mem::take(&mut self.volume_bytes));
            if decides_volumes {
                for (index, eligible) in self.eligible.iter_mut().enumerate() {
                    *eligible = index == node;
                }
            }
            allocations[node].reserve(self.service);
            self.replicas[node] += 1;
            chosen.push(node);
        }
        if chosen.len() > 1 {
            chosen.sort_by_cached_key(|&node| (Reverse(self.weight(node, allocations)), node));
        }
        chosen
    }

    /// Returns the node with the lowest cost for one more replica among those where `count` more fit; among equals, the
    /// one with the highest weight.
    fn cheapest(&self, allocations: &[NodeAllocation<'a>], count: usize) -> Option<usize> {
        let mut best: Option<(usize, Cost)> = None;
        for (node, allocation) in allocations.iter().enumerate() {
            // The replica count alone rules most nodes out.
            if best.is_some_and(|(_, lowest)| self.replicas[node] > lowest.replicas)
                || !self.fits(node, allocation, count)
            {
                continue;
            }
            let cost = cost(self.rules, self.service, allocation, self.replicas[node]);
            let better = match best {
                None => true,
                Some((other, lowest)) if cost == lowest => {
                    self.weight(node, allocations) > self.weight(other, allocations)
                }
                Some((_, lowest)) => cost < lowest,
            };
            if better {
                best = Some((node, cost));
            }
        }
        best.map(|(node, _)| node)
    }

    /// Returns whether `count` more replicas fit. Replicas chosen here have no ports reserved yet, so a service with
    /// host ports gets at most one per node.
    fn fits(&self, node: usize, allocation: &NodeAllocation<'a>, count: usize) -> bool {
        let alone = self.replicas[node] == 0 && count == 1;
        let runtime = allocation.node.runtime;
        self.eligible[node]
            && check_resources(self.service, allocation, self.volume_bytes).is_ok()
            && (count == 1 || allocation.fits(self.service, count as u64))
            && (alone || ports::bound_ports(self.service.ports(), runtime).next().is_none())
    }

    /// Returns the weight of service and node.
    fn weight(&self, node: usize, allocations: &[NodeAllocation<'a>]) -> u64 {
        (self.rules.tie_break)(self.hash, allocations[node].hash)
    }

    /// Writes all slots of the service into the plan, with reasons.
    pub(crate) fn record(
        &self,
        allocations: &[NodeAllocation<'a>],
        volumes: &Volumes<'_>,
        kept: &BTreeMap<u32, Kept>,
        placed: &BTreeMap<u32, usize>,
        waiting: &BTreeMap<u32, Vec<usize>>,
        plan: &mut Plan,
    ) {
        let slot = |replica| Slot { service: self.service.key.clone(), replica };
        let others: Vec<Option<Cost>> = allocations
            .iter()
            .enumerate()
            .map(|(node, allocation)| {
                self.fits(node, allocation, 1)
                    .then(|| cost(self.rules, self.service, allocation, self.replicas[node]))
            })
            .collect();
        let mut by_node: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let kept_slots = kept.iter().map(|(&replica, place)| {
            let reason = match place.from {
                None => reasons::KEEPS.to_owned(),
                Some(from) => format!("takes it over from {}", allocations[from].node.name),
            };
            (replica, place.node, Some(reason))
        });
        let new_slots = placed.iter().map(|(&replica, &node)| (replica, node, None));
        for (replica, node, first) in kept_slots.chain(new_slots) {
            let compared = by_node.entry(node).or_insert_with(|| {
                if let Slots::PerNode(_) = self.service.slots {
                    return vec![reasons::PER_NODE.to_owned()];
                }
                match volumes.affinity(self.service) {
                    VolumeAffinity::Node(Shared::Volume(volume), holder) => {
                        let verb = if holder.has_data { "holds" } else { "creates" };
                        return vec![format!("{verb} volume {volume}")];
                    }
                    VolumeAffinity::Node(Shared::Network(owner), _)
                        if owner != self.service.key =>
                    {
                        return vec![format!("runs {owner}, whose network it has")];
                    }
                    _ => {}
                }
                reasons::compare(
                    self.rules,
                    self.service,
                    allocations,
                    node,
                    self.replicas[node].saturating_sub(1),
                    &others,
                )
            });
            let reasons = first.into_iter().chain(compared.iter().cloned()).collect();
            let placement = Placement { node: allocations[node].id, reasons };
            plan.placements.insert(slot(replica), placement);
        }
        for (&replica, nodes) in waiting {
            let reason = Infeasible::Awaited(&self.service.demand.spec.disconnect).to_string();
            let refusal =
                |&node: &usize| Refusal { node: allocations[node].id, reason: reason.clone() };
            plan.unplaced.insert(slot(replica), nodes.iter().map(refusal).collect());
        }
        let is_open = |replica: &u32| {
            let has_node = kept.contains_key(replica) || placed.contains_key(replica);
            !has_node && !waiting.contains_key(replica)
        };
        let mut refusals: Option<Vec<Refusal>> = None;
        for replica in self.service.slots.numbers().filter(is_open) {
            let refusals = match self.index_of(replica, allocations) {
                Some(node) => self.refusals(&allocations[node..=node], volumes),
                None => refusals.get_or_insert_with(|| self.refusals(allocations, volumes)).clone(),
            };
            plan.unplaced.insert(slot(replica), refusals);
        }
    }

    /// Returns why each of these nodes cannot take one more replica.
    fn refusals(&self, allocations: &[NodeAllocation<'a>], volumes: &Volumes<'_>) -> Vec<Refusal> {
        let check_known = || match self.unknown_to_older() {
            Some(what) => Err(Infeasible::OlderMembers(what)),
            None => Ok(()),
        };
        let refuse = |allocation: &NodeAllocation<'a>| {
            let check_group = || match self.ineligible_member(allocation) {
                Some(service) => Err(Infeasible::GroupMember { service }),
                None => Ok(()),
            };
            let infeasible = check_volumes(self.service, allocation, volumes)
                .and_then(|()| check_new(self.service, allocation))
                .and_then(|()| check_group())
                .and_then(|()| check_known())
                .and_then(|()| check_resources(self.service, allocation, self.volume_bytes))
                .err()?;
            let reason = match volumes.data_on(self.service, allocation.id) {
                Some(volume) if !matches!(infeasible, Infeasible::VolumesSplit { .. }) => {
                    format!("{infeasible} (it holds volume {volume})")
                }
                _ => infeasible.to_string(),
            };
            Some(Refusal { node: allocation.id, reason })
        };
        allocations.iter().filter_map(refuse).collect()
    }
}
