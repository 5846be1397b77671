//! The score of feasible nodes.

use vc_protocol::Resources;

use crate::allocation::NodeAllocation;
use crate::order::Service;

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
    /// With a reservation: parts per million of the node left free, in the dominant dimension (best fit). Without:
    /// the number of other instances.
    pub(crate) fit: u64,
}

/// Returns the cost of a replica on a node that has `replicas` others of the service.
pub(crate) fn cost(service: &Service<'_>, allocation: &NodeAllocation<'_>, replicas: u32) -> Cost {
    let fit = if service.reservation().is_zero() {
        u64::from(allocation.charged_instances).saturating_add(u64::from(replicas))
    } else {
        left_free(service, allocation, replicas, 1_000_000).0
    };
    Cost { replicas, fit }
}

/// Returns how much of the node is left free after one more replica, in units of 1/`parts`, rounded down, and in which
/// dimension: the dominant one, of which the reservation takes the larger share; CPU if both are equal. In use are the
/// services scheduled before this one and `replicas + 1` replicas of this one.
pub(crate) fn left_free(
    service: &Service<'_>,
    allocation: &NodeAllocation<'_>,
    replicas: u32,
    parts: u32,
) -> (u64, Dimension) {
    let (ask, capacity) = (service.reservation(), allocation.node.capacity);
    // a/b > c/d without a division; all factors are 64 bits wide.
    let memory = u128::from(ask.memory_bytes) * u128::from(capacity.cpu_millis);
    let cpu = u128::from(ask.cpu_millis) * u128::from(capacity.memory_bytes);
    let dimension =
        if ask.cpu_millis == 0 || memory > cpu { Dimension::Memory } else { Dimension::Cpu };
    let own = dimension.of(ask).saturating_mul(u64::from(replicas).saturating_add(1));
    let used = dimension.of(allocation.charged).saturating_add(own);
    let left = u128::from(dimension.of(capacity).saturating_sub(used)) * u128::from(parts);
    let share = left / u128::from(dimension.of(capacity).max(1));
    (u64::try_from(share).unwrap_or(u64::MAX), dimension)
}
