//! The addresses that a race dials.

use libp2p::Multiaddr;

use crate::address;

/// Addresses at which members may be listening.
#[derive(Debug, Clone)]
pub struct Candidates {
    pub(crate) addresses: Vec<Multiaddr>,
    /// Whether to ask the local network (mDNS) when these addresses do not answer.
    pub(crate) discover: bool,
}

impl Candidates {
    /// Returns candidates beyond which no other address is tried: those that a user named.
    pub fn only(addresses: Vec<Multiaddr>) -> Self {
        Self { addresses, discover: false }
    }

    /// Returns candidates that members are believed to have, best first; the local network is asked last. Which member
    /// answers at an address does not matter, and a node may have a new identity, so their peer ids are dropped.
    pub fn known(addresses: impl IntoIterator<Item = Multiaddr>) -> Self {
        let addresses = addresses.into_iter().filter_map(|it| address::without_peer(&it));
        Self { addresses: addresses.collect(), discover: true }
    }
}
