//! The versions of placement.

use crate::rendezvous::combine;

/// The rules of one version of placement: what differs between the versions. Nodes plan by the newest ones that every node
/// which is up knows.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The version, from 1.
    pub version: u32,
    /// Weighs a node for a service, by the hashes of both: of equally good nodes the one with the highest weight is chosen.
    pub tie_break: fn(u64, u64) -> u64,
    /// How nodes are compared for a service that reserves resources.
    pub fit: Fit,
    /// Whether nodes get no slots that they cannot start.
    pub faults: bool,
    /// Whether services say when the slots of a node that is down go elsewhere, and which of two instances stays.
    pub disconnect: bool,
    /// Whether volumes have copies on several nodes.
    pub copies: bool,
    /// Whether services with the network of another one run on its node.
    pub joined: bool,
    /// Whether volumes say how long a node with a copy may be down.
    pub volume_lost_after: bool,
    /// Whether services have other slots than those from 1 to their number of replicas. Without it, such a service keeps the slots that
    /// nodes claim and gets no others: nodes that do not know its mode hold it.
    pub modes: bool,
    /// Whether services limit how many of their replicas a node may run. Without it, such a service keeps the slots that nodes claim and
    /// gets no others: nodes that do not know the limit hold it.
    pub max_per_node: bool,
    /// Whether resources are counted that nodes say they have. Without it, a service that takes such keeps the slots that nodes claim and
    /// gets no others, and requests for devices are not counted.
    pub resources: bool,
}

/// How nodes are compared for a service that reserves resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Best fit in the dominant dimension of the reservation.
    Dominant,
    /// As the service says (`x-vc.placement`). With `auto` and `pack` best fit, by what is left free of CPU and memory together;
    /// with `auto` small reservations go to the least loaded node.
    Policy,
}

/// The first version, without anything that came later.
const FIRST: Rules = Rules {
    version: 1,
    tie_break: combine,
    fit: Fit::Dominant,
    faults: false,
    disconnect: false,
    copies: false,
    joined: false,
    volume_lost_after: false,
    modes: false,
    max_per_node: false,
    resources: false,
};
const SECOND: Rules = Rules { version: 2, fit: Fit::Policy, ..FIRST };
const THIRD: Rules = Rules { version: 3, faults: true, ..SECOND };
const FOURTH: Rules = Rules { version: 4, disconnect: true, ..THIRD };
const FIFTH: Rules = Rules { version: 5, copies: true, ..FOURTH };
const SIXTH: Rules =
    Rules { version: 6, joined: true, volume_lost_after: true, modes: true, ..FIFTH };
const SEVENTH: Rules = Rules { version: 7, max_per_node: true, resources: true, ..SIXTH };

/// The rules of all released versions, oldest first. A version that plans differently is appended.
pub const RULES: &[Rules] = &[FIRST, SECOND, THIRD, FOURTH, FIFTH, SIXTH, SEVENTH];

impl Rules {
    /// Returns the newest version.
    pub fn newest() -> Self {
        SEVENTH
    }
}

impl Default for Rules {
    /// The first version.
    fn default() -> Self {
        FIRST
    }
}
