//! Where this node can be dialled, and where others were.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use vc_protocol::AddressKind;

use super::backoff::Backoff;

/// Addresses kept for one member.
const MAX_ADDRESSES: usize = 16;

/// The addresses to publish: those listened on, without the loopback and the bridges of container engines, which mean
/// another node (or none) to everybody else; or just `advertise` with the ports listened on.
pub(crate) fn publishable(
    listening: &BTreeSet<Multiaddr>,
    advertise: Option<IpAddr>,
) -> Vec<Multiaddr> {
    let bridges = bridge_addresses();
    let ip_of = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => Some(IpAddr::V4(ip)),
        Some(Protocol::Ip6(ip)) => Some(IpAddr::V6(ip)),
        _ => None,
    };
    let usable = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified(),
    };
    let addresses: Vec<(IpAddr, &Multiaddr)> =
        listening.iter().filter_map(|address| Some((ip_of(address)?, address))).collect();
    if let Some(ip) = advertise {
        let with_ip = addresses.iter().map(|(_, address)| {
            let rest = address.iter().skip(1);
            std::iter::once(Protocol::from(ip)).chain(rest).collect::<Multiaddr>()
        });
        return with_ip.collect::<BTreeSet<_>>().into_iter().collect();
    }
    let real =
        |(ip, _): &&(IpAddr, &Multiaddr)| usable(*ip) && !ip.is_loopback() && !bridges.contains(ip);
    let mut chosen: Vec<Multiaddr> =
        addresses.iter().filter(real).map(|(_, address)| (*address).clone()).collect();
    if chosen.is_empty() {
        chosen = addresses.iter().map(|(_, address)| (*address).clone()).collect();
    }
    chosen.truncate(MAX_ADDRESSES);
    chosen
}

/// Whether members dial it as it is: where browsers get in, only browsers do, and circuits are a matter of their own.
pub(crate) fn is_dialled(address: &Multiaddr) -> bool {
    AddressKind::of(address) == Some(AddressKind::Direct)
}

/// The node's own addresses on bridges that container engines made.
fn bridge_addresses() -> BTreeSet<IpAddr> {
    let is_bridge = |name: &str| {
        ["docker", "br-", "veth", "virbr", "cni", "podman", "lxc"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.into_iter().filter(|i| is_bridge(&i.name)).map(|i| i.ip()).collect()
}

/// A member that should be connected.
#[derive(Debug, Default)]
struct Contact {
    addresses: Vec<Multiaddr>,
    backoff: Backoff,
}

/// Where members were last known, and when to try them again.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    address_book: BTreeMap<PeerId, Contact>,
}

impl AddressBook {
    /// Addresses of a member, but for circuits; the newest word counts most.
    pub(crate) fn learn(&mut self, peer: PeerId, addresses: impl IntoIterator<Item = Multiaddr>) {
        let contact = self.address_book.entry(peer).or_default();
        for address in addresses.into_iter().filter(is_dialled) {
            let address = address.with_p2p(peer).unwrap_or_else(|address| address);
            if contact.addresses.first() != Some(&address) {
                contact.addresses.retain(|known| *known != address);
                contact.addresses.insert(0, address);
                // A new address is worth trying at once.
                contact.backoff.reset();
            }
        }
        contact.addresses.truncate(MAX_ADDRESSES);
    }

    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<Multiaddr> {
        self.address_book.get(peer).map(|contact| contact.addresses.clone()).unwrap_or_default()
    }

    /// Whether it is time to dial a member, with no pause longer than `longest`. Takes the attempt as made.
    pub(crate) fn is_due(&mut self, peer: PeerId, now: Instant, longest: Duration) -> bool {
        self.address_book.entry(peer).or_default().backoff.is_due(now, longest)
    }

    /// It was reached.
    pub(crate) fn reached(&mut self, peer: &PeerId) {
        if let Some(contact) = self.address_book.get_mut(peer) {
            contact.backoff.reset();
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
    fn loopback_is_published_only_when_there_is_nothing_else() {
        let lan = set(&[
            "/ip4/127.0.0.1/tcp/4777",
            "/ip4/10.1.2.3/tcp/4777",
            "/ip4/169.254.0.9/tcp/4777",
        ]);
        assert_eq!(
            publishable(&lan, None),
            vec!["/ip4/10.1.2.3/tcp/4777".parse().expect("an address")]
        );
        let alone = set(&["/ip4/127.0.0.1/tcp/4777"]);
        assert_eq!(publishable(&alone, None).len(), 1);
    }

    #[test]
    fn an_advertised_address_replaces_all_others() {
        let lan = set(&[
            "/ip4/10.1.2.3/tcp/4777",
            "/ip4/10.1.2.3/udp/4777/quic-v1",
            "/ip4/10.9.9.9/tcp/4777",
        ]);
        let addresses = publishable(&lan, Some("203.0.113.7".parse().expect("an ip")));
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["/ip4/203.0.113.7/tcp/4777", "/ip4/203.0.113.7/udp/4777/quic-v1"]);
    }
}
