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
}

/// The rules of all released versions, oldest first. A version that plans differently is appended.
pub const RULES: &[Rules] = &[RULES_1];

const RULES_1: Rules = Rules { version: 1, tie_break: combine };

impl Default for Rules {
    /// The first version.
    fn default() -> Self {
        RULES_1
    }
}
