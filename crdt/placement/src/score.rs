//! How nodes that could take a slot compare.

use vc_protocol::Resources;

use crate::ledger::Account;
use crate::order::Demand;

/// A dimension of [`Resources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dimension {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
}

impl Dimension {
    /// In words.
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

/// The cost of a node for one more replica; the lowest is the best. The number of replicas comes first, and the
/// rest is fixed during a service's turn but for the replicas themselves: so costs on one node only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cost {
    /// Other replicas of the service there.
    pub(crate) replicas: u32,
    /// With a reservation: parts per million of the node left after it, in the dominant dimension. Without: other
    /// instances there.
    pub(crate) fit: u64,
}

/// The cost of a replica on a node that holds `replicas` others of its service.
pub(crate) fn cost(demand: &Demand<'_>, account: &Account<'_>, replicas: u32) -> Cost {
    let fit = if demand.reservation().is_zero() {
        u64::from(account.instances_before).saturating_add(u64::from(replicas))
    } else {
        left(demand, account, replicas, 1_000_000).0
    };
    Cost { replicas, fit }
}

/// How many parts of `parts` of the node are left after a replica, rounded down, and of what: of the dominant
/// dimension, which is the one of which the reservation takes the larger share of this node, CPU if both are equal.
/// What counts as used are the services before this one and `replicas + 1` of this one.
pub(crate) fn left(
    demand: &Demand<'_>,
    account: &Account<'_>,
    replicas: u32,
    parts: u32,
) -> (u64, Dimension) {
    let (ask, capacity) = (demand.reservation(), account.node.capacity);
    // a/b > c/d without a division; all factors are 64 bits wide.
    let memory = u128::from(ask.memory_bytes) * u128::from(capacity.cpu_millis);
    let cpu = u128::from(ask.cpu_millis) * u128::from(capacity.memory_bytes);
    let dimension =
        if ask.cpu_millis == 0 || memory > cpu { Dimension::Memory } else { Dimension::Cpu };
    let own = dimension.of(ask).saturating_mul(u64::from(replicas).saturating_add(1));
    let used = dimension.of(account.before).saturating_add(own);
    let left = u128::from(dimension.of(capacity).saturating_sub(used)) * u128::from(parts);
    let share = left / u128::from(dimension.of(capacity).max(1));
    (u64::try_from(share).unwrap_or(u64::MAX), dimension)
}
