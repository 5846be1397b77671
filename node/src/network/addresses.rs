//! The addresses this node publishes, and the address book of the other members.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use vc_protocol::AddressKind;
use vc_webrtc::Source;

use super::backoff::Backoff;

/// Addresses kept per member, and published by this node.
const MAX_ADDRESSES: usize = 16;

/// Returns the addresses to publish: those listened on, except loopback, link-local and `internal` ones, which other
/// hosts cannot reach; all of them if none remains. With `advertise`, that IP with the ports listened on instead.
pub(crate) fn publishable(
    listening: &BTreeSet<Multiaddr>,
    internal: &BTreeSet<IpAddr>,
    advertise: Option<IpAddr>,
) -> Vec<Multiaddr> {
    let usable = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified(),
    };
    let addresses: Vec<(IpAddr, &Multiaddr)> =
        listening.iter().filter_map(|address| Some((ip(address)?, address))).collect();
    if let Some(ip) = advertise {
        let with_ip = addresses.iter().map(|(_, address)| {
            let rest = address.iter().skip(1);
            std::iter::once(Protocol::from(ip)).chain(rest).collect::<Multiaddr>()
        });
        return with_ip.collect::<BTreeSet<_>>().into_iter().collect();
    }
    let real = |(ip, _): &&(IpAddr, &Multiaddr)| {
        usable(*ip) && !ip.is_loopback() && !internal.contains(ip)
    };
    let mut chosen: Vec<Multiaddr> =
        addresses.iter().filter(real).map(|(_, address)| (*address).clone()).collect();
    if chosen.is_empty() {
        chosen = addresses.iter().map(|(_, address)| (*address).clone()).collect();
    }
    chosen.truncate(MAX_ADDRESSES);
    chosen
}

/// Returns the IP address that an address starts with.
pub(crate) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// Returns whether members dial an address directly: neither WebRTC-direct, which is for browsers, nor a circuit.
pub(crate) fn is_direct(address: &Multiaddr) -> bool {
    AddressKind::of(address) == Some(AddressKind::Direct)
}

/// The entry of a member.
#[derive(Debug, Default)]
struct Entry {
    addresses: Vec<Multiaddr>,
    /// Where its latest direct connection came from, or led to. Behind NAT it is none of the above.
    remote: Option<IpAddr>,
    backoff: Backoff,
}

/// The known addresses of members, and when to dial each again.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    entries: BTreeMap<PeerId, Entry>,
}

impl AddressBook {
    /// Adds direct addresses of a member, the newest first.
    pub(crate) fn learn(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        let entry = self.entries.entry(peer).or_default();
        for address in addresses.into_iter().filter(is_direct) {
            let address = address.with_p2p(peer).unwrap_or_else(|address| address);
            if entry.addresses.first() != Some(&address) {
                entry.addresses.retain(|known| *known != address);
                entry.addresses.insert(0, address);
                // Dial a new address at once.
                entry.backoff.reset();
            }
        }
        entry.addresses.truncate(MAX_ADDRESSES);
    }

    /// Records the remote address of a direct connection.
    pub(crate) fn connected(&mut self, peer: PeerId, remote: &Multiaddr) {
        self.entries.entry(peer).or_default().remote = ip(remote);
    }

    /// Returns the sources of the members' connections.
    pub(crate) fn sources(&self) -> impl Iterator<Item = Source> {
        let of = |entry: &Entry| {
            let ips = entry.addresses.iter().filter_map(ip);
            ips.chain(entry.remote).map(Source::of).collect::<Vec<_>>()
        };
        self.entries.values().flat_map(of)
    }

    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.entries.get(peer).map(|entry| entry.addresses.clone()).unwrap_or_default()
    }

    /// Returns whether a member is to be dialled now, and if so counts the attempt. `longest` limits the backoff.
    pub(crate) fn is_due(&mut self, peer: PeerId, now: Instant, longest: Duration) -> bool {
        self.entries.entry(peer).or_default().backoff.is_due(now, longest)
    }

    /// Resets the backoff of a member that was reached.
    pub(crate) fn reached(&mut self, peer: &PeerId) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> BTreeSet<Multiaddr> {
        addresses.iter().map(|a| a.parse().expect("an address")).collect()
    }

    #[test]
    fn loopback_is_published_only_without_other_addresses() {
        let lan = set(&[
            "/ip4/127.0.0.1/tcp/4777",
            "/ip4/10.1.2.3/tcp/4777",
            "/ip4/169.254.0.9/tcp/4777",
        ]);
        assert_eq!(
            publishable(&lan, &BTreeSet::new(), None),
            vec!["/ip4/10.1.2.3/tcp/4777".parse().expect("an address")]
        );
        let alone = set(&["/ip4/127.0.0.1/tcp/4777"]);
        assert_eq!(publishable(&alone, &BTreeSet::new(), None).len(), 1);
    }

    #[test]
    fn addresses_on_internal_bridges_are_not_published() {
        let lan = set(&["/ip4/10.1.2.3/tcp/4777", "/ip4/172.18.0.1/tcp/4777"]);
        let internal = BTreeSet::from([IpAddr::from([172, 18, 0, 1])]);
        let texts = |internal| -> Vec<String> {
            publishable(&lan, internal, None).iter().map(ToString::to_string).collect()
        };
        assert_eq!(texts(&internal), ["/ip4/10.1.2.3/tcp/4777"]);
        assert_eq!(texts(&BTreeSet::new()).len(), 2);
    }

    #[test]
    fn an_advertised_address_replaces_all_others() {
        let lan = set(&[
            "/ip4/10.1.2.3/tcp/4777",
            "/ip4/10.1.2.3/udp/4777/quic-v1",
            "/ip4/10.9.9.9/tcp/4777",
        ]);
        let addresses =
            publishable(&lan, &BTreeSet::new(), Some("203.0.113.7".parse().expect("an ip")));
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["/ip4/203.0.113.7/tcp/4777", "/ip4/203.0.113.7/udp/4777/quic-v1"]);
    }
}
