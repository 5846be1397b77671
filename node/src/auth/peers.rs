//! Member addresses for tokens and for authenticated peers.

use vc_crdt::View;
use vc_protocol::{AddressKind, Multiaddr, NodeId};

/// Addresses in a token: enough to reach a member when the issuer is down.
const MAX_ADDRESSES: usize = 12;
/// Addresses in a link or QR code, which have little room.
const MAX_LINK_ADDRESSES: usize = 4;

/// The kind of client that addresses are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// A node that joins.
    Node,
    /// A user of any client.
    User,
    /// A user of a browser, in a link.
    Browser,
}

/// Returns addresses of up members that the audience can dial: this node first, then one address of each member before a
/// second of any.
pub(crate) fn peer_addresses(audience: Audience, view: &View, own: NodeId) -> Vec<Multiaddr> {
    of_members(audience, &addresses(view, own, |id| view.up.contains(&id)))
}

/// Returns addresses that a user can dial, as [`peer_addresses`] does, of the members that are down too: they may be back when
/// the addresses are used.
pub(crate) fn member_addresses(view: &View, own: NodeId) -> Vec<Multiaddr> {
    of_members(Audience::User, &addresses(view, own, |_| true))
}

/// Returns the addresses of some members: those of this node first.
fn addresses(view: &View, own: NodeId, which: impl Fn(NodeId) -> bool) -> Vec<Vec<Multiaddr>> {
    let mut nodes: Vec<_> = view.nodes.iter().filter(|&(&id, _)| which(id)).collect();
    nodes.sort_by_key(|&(&id, _)| (id != own, id));
    let members = nodes.into_iter().map(|(id, state)| {
        let addresses = state.info.iter().flat_map(|info| info.addresses.clone());
        addresses.filter_map(|address| address.with_p2p(id.peer_id()).ok()).collect()
    });
    members.collect()
}

fn of_members(audience: Audience, members: &[Vec<Multiaddr>]) -> Vec<Multiaddr> {
    match audience {
        Audience::Node => interleave(members, AddressKind::Direct).take(MAX_ADDRESSES).collect(),
        Audience::Browser => {
            interleave(members, AddressKind::WebRtc).take(MAX_LINK_ADDRESSES).collect()
        }
        Audience::User => {
            let (mut native, mut browser) = (
                interleave(members, AddressKind::Direct),
                interleave(members, AddressKind::WebRtc),
            );
            // Alternate between the kinds while there are both.
            let pairs = std::iter::from_fn(|| {
                let pair = [native.next(), browser.next()];
                pair.iter().any(Option::is_some).then_some(pair)
            });
            pairs.flatten().flatten().take(MAX_ADDRESSES).collect()
        }
    }
}

/// Returns addresses of one kind: the first of each member, then the second of each, and so on.
fn interleave(members: &[Vec<Multiaddr>], kind: AddressKind) -> impl Iterator<Item = Multiaddr> {
    let mut ranked: Vec<(usize, &Multiaddr)> = members
        .iter()
        .flat_map(|addresses| {
            addresses.iter().filter(move |it| AddressKind::of(it) == Some(kind)).enumerate()
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, address)| address.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A member with one address of each kind, and a circuit through the first member.
    fn member(n: u8) -> Vec<Multiaddr> {
        let hash = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        [
            format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}"),
            format!("/ip4/10.0.0.{n}/tcp/1/p2p/{peer}"),
            format!("/ip4/10.0.0.{n}/udp/1/quic-v1/p2p/{peer}"),
            format!("/ip4/10.0.0.{n}/udp/2/webrtc-direct/certhash/{hash}/p2p/{peer}"),
        ]
        .map(|text| text.parse().expect("an address"))
        .to_vec()
    }

    /// Abbreviated: `1t` is the first member's TCP address, `q` is QUIC, `w` is WebRTC.
    fn chosen(audience: Audience, members: u8) -> Vec<String> {
        let members: Vec<_> = (1..=members).map(member).collect();
        let short = |address: Multiaddr| {
            let text = address.to_string();
            assert!(!text.contains("circuit"), "a circuit is not dialled: {text}");
            let kind = if text.contains("webrtc") {
                'w'
            } else if text.contains("quic") {
                'q'
            } else {
                't'
            };
            let host =
                text.split('/').nth(2).expect("a host").rsplit('.').next().expect("a number");
            format!("{host}{kind}")
        };
        of_members(audience, &members).into_iter().map(short).collect()
    }

    #[test]
    fn each_audience_gets_addresses_it_can_dial_of_as_many_members_as_fit() {
        assert_eq!(chosen(Audience::Node, 2), ["1t", "2t", "1q", "2q"]);
        assert_eq!(chosen(Audience::Browser, 2), ["1w", "2w"]);
        assert_eq!(chosen(Audience::Browser, 9), ["1w", "2w", "3w", "4w"]);
        assert_eq!(chosen(Audience::User, 2), ["1t", "1w", "2t", "2w", "1q", "2q"]);
        let many = chosen(Audience::User, 9);
        assert_eq!(many.len(), MAX_ADDRESSES);
        assert_eq!(many[10..], ["6t", "6w"]);
        assert!(chosen(Audience::User, 0).is_empty());
    }
}
