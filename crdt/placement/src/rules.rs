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

/// The rules of all released versions, oldest first. A version that plans differently is appended.
pub const RULES: &[Rules] = &[
    Rules {
        version: 1,
        tie_break: combine,
        fit: Fit::Dominant,
        faults: false,
        disconnect: false,
        copies: false,
        joined: false,
        volume_lost_after: false,
        modes: false,
    },
    Rules {
        version: 2,
        tie_break: combine,
        fit: Fit::Policy,
        faults: false,
        disconnect: false,
        copies: false,
        joined: false,
        volume_lost_after: false,
        modes: false,
    },
    Rules {
        version: 3,
        tie_break: combine,
        fit: Fit::Policy,
        faults: true,
        disconnect: false,
        copies: false,
        joined: false,
        volume_lost_after: false,
        modes: false,
    },
    Rules {
        version: 4,
        tie_break: combine,
        fit: Fit::Policy,
        faults: true,
        disconnect: true,
        copies: false,
        joined: false,
        volume_lost_after: false,
        modes: false,
    },
    Rules {
        version: 5,
        tie_break: combine,
        fit: Fit::Policy,
        faults: true,
        disconnect: true,
        copies: true,
        joined: false,
        volume_lost_after: false,
        modes: false,
    },
    Rules {
        version: 6,
        tie_break: combine,
        fit: Fit::Policy,
        faults: true,
        disconnect: true,
        copies: true,
        joined: true,
        volume_lost_after: true,
        modes: true,
    },
];

impl Rules {
    /// Returns the newest version.
    pub fn newest() -> Self {
        RULES[RULES.len() - 1]
    }
}

impl Default for Rules {
    /// The first version.
    fn default() -> Self {
        RULES[0]
    }
}
