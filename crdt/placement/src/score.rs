//! The score of feasible nodes.

use vc_protocol::Resources;
use vc_protocol::spec::PlacementPolicy;

use crate::allocation::NodeAllocation;
use crate::order::Service;
use crate::rules::{Fit, Rules};

/// A dimension of [`Resources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    Cpu,
    Memory,
}

impl Dimension {
    /// Returns the display name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Memory => "memory",
        }
    }

    fn of(self, amount: Resources) -> u64 {
        match self {
            Self::Cpu => amount.cpu_millis,
            Self::Memory => amount.memory_bytes,
        }
    }
}

/// The cost of placing one more replica on a node; the lowest wins. While a service is scheduled only its own replicas
/// change the cost, so that the cost of a node never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    /// Other replicas of the service on the node.
    pub(crate) replicas: u32,
    /// What is compared next.
    pub(crate) measure: Measure,
    /// Its value.
    pub(crate) value: u64,
    /// The load, where the value is the same.
    pub(crate) load: u64,
}

/// What is compared between nodes with equally many replicas; a lesser one wins over any value of a greater one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    /// The number of other instances.
    Instances,
    /// Parts per million of the node that small reservations hold, in the dominant dimension of the service's own.
    Small,
    /// Parts per million of the node that are reserved, in the same dimension.
    Load,
    /// Parts per million that are left free (best fit).
    LeftFree,
}

/// A reservation of at most this part of the largest node is *small*.
const SMALL: u64 = 32;
/// Small reservations are spread until they hold this part of a node. More of them would leave room for large ones nowhere.
const SMALL_ALLOWANCE: u64 = 16;

/// Returns whether a reservation is small in a cluster whose largest node has this capacity.
pub(crate) fn is_small(ask: Resources, largest: Resources) -> bool {
    ask.cpu_millis <= largest.cpu_millis / SMALL && ask.memory_bytes <= largest.memory_bytes / SMALL
}

/// Returns the cost of a replica on a node that has `replicas` others of the service.
pub(crate) fn cost(
    rules: Rules,
    service: &Service<'_>,
    allocation: &NodeAllocation<'_>,
    replicas: u32,
) -> Cost {
    let ask = service.reservation();
    let with = |measure, value, load| Cost { replicas, measure, value, load };
    if ask.is_zero() {
        let others = u64::from(allocation.charged_instances);
        return with(Measure::Instances, others.saturating_add(u64::from(replicas)), 0);
    }
    if rules.fit == Fit::Dominant {
        return with(Measure::LeftFree, left_free(service, allocation, replicas, PPM).0, 0);
    }
    let (capacity, largest) = (allocation.node.capacity, allocation.largest);
    let own = ask.times(u64::from(replicas).saturating_add(1));
    let used = allocation.charged.plus(own);
    let dimension = dominant(ask, capacity);
    let share = |used: Resources| part(dimension.of(used), dimension.of(capacity));
    match service.demand.spec.placement {
        PlacementPolicy::Spread => return with(Measure::Load, share(used), 0),
        PlacementPolicy::Auto if is_small(ask, largest) => {
            let small = allocation.charged_small.plus(own);
            let allowance = Resources {
                cpu_millis: capacity.cpu_millis / SMALL_ALLOWANCE,
                memory_bytes: capacity.memory_bytes / SMALL_ALLOWANCE,
            };
            if small.fits(allowance) {
                return with(Measure::Small, share(small), share(used));
            }
        }
        PlacementPolicy::Auto | PlacementPolicy::Pack => {}
    }
    // In units of the largest node: what is left on a small node is worth less.
    let left = capacity.minus(used);
    let cpu = part(left.cpu_millis, largest.cpu_millis);
    let memory = part(left.memory_bytes, largest.memory_bytes);
    with(Measure::LeftFree, cpu.saturating_add(memory), 0)
}

/// The unit of shares: parts per million.
const PPM: u32 = 1_000_000;

/// Returns the larger share of `used` in the dimensions of `all`, in parts per million.
pub(crate) fn share(used: Resources, all: Resources) -> u64 {
    part(used.cpu_millis, all.cpu_millis).max(part(used.memory_bytes, all.memory_bytes))
}

fn part(of: u64, all: u64) -> u64 {
    let parts = u128::from(of) * u128::from(PPM) / u128::from(all.max(1));
    u64::try_from(parts).unwrap_or(u64::MAX)
}

/// Returns how much of the node is left free after one more replica, in units of 1/`parts`, rounded down, and in which
/// dimension: the dominant one. In use are the services scheduled before this one and `replicas + 1` replicas of this one.
pub(crate) fn left_free(
    service: &Service<'_>,
    allocation: &NodeAllocation<'_>,
    replicas: u32,
    parts: u32,
) -> (u64, Dimension) {
    let (ask, capacity) = (service.reservation(), allocation.node.capacity);
    let dimension = dominant(ask, capacity);
    let own = dimension.of(ask).saturating_mul(u64::from(replicas).saturating_add(1));
    let used = dimension.of(allocation.charged).saturating_add(own);
    let left = u128::from(dimension.of(capacity).saturating_sub(used)) * u128::from(parts);
    let share = left / u128::from(dimension.of(capacity).max(1));
    (u64::try_from(share).unwrap_or(u64::MAX), dimension)
}

/// Returns the dimension of which a reservation takes the larger share of the node; CPU if both are equal.
fn dominant(ask: Resources, capacity: Resources) -> Dimension {
    // a/b > c/d without a division; all factors are 64 bits wide.
    let memory = u128::from(ask.memory_bytes) * u128::from(capacity.cpu_millis);
    let cpu = u128::from(ask.cpu_millis) * u128::from(capacity.memory_bytes);
    if ask.cpu_millis == 0 || memory > cpu { Dimension::Memory } else { Dimension::Cpu }
}
