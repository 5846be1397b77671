//! Classification of node addresses.

use multiaddr::{Multiaddr, Protocol};

/// TCP and QUIC port of a node unless configured otherwise.
pub const DEFAULT_PORT: u16 = 4777;

/// The kind of a node address, by the transport that dials it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// TCP or QUIC: dialled by nodes and the CLI.
    Direct,
    /// WebRTC-direct: dialled by browsers.
    WebRtc,
    /// Circuit relay: dialled by nodes through another member.
    Relayed,
}

impl AddressKind {
    /// Returns the kind of an address, or `None` if nothing in this project can dial it.
    pub fn of(address: &Multiaddr) -> Option<Self> {
        let has = |wanted: Protocol| address.iter().any(|part| part == wanted);
        if has(Protocol::P2pCircuit) {
            Some(Self::Relayed)
        } else if has(Protocol::WebRTCDirect) {
            Some(Self::WebRtc)
        } else {
            // The first part is the host; a peer id may follow the transport.
            let parts: Vec<_> = address.iter().skip(1).collect();
            matches!(
                parts.as_slice(),
                [Protocol::Tcp(_)]
                    | [Protocol::Tcp(_), Protocol::P2p(_)]
                    | [Protocol::Udp(_), Protocol::QuicV1]
                    | [Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(_)]
            )
            .then_some(Self::Direct)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_classified_by_transport() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        let hash = "uEiDDq4_xNyDorZBH3TlGazyJdOWSwvo4PUo5YHFMrvDE8g";
        for (address, kind) in [
            ("/ip4/10.0.0.1/tcp/1".to_owned(), Some(AddressKind::Direct)),
            (format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}"), Some(AddressKind::Direct)),
            (format!("/ip6/::1/udp/1/quic-v1/p2p/{peer}"), Some(AddressKind::Direct)),
            (
                format!("/ip4/10.0.0.1/udp/2/webrtc-direct/certhash/{hash}"),
                Some(AddressKind::WebRtc),
            ),
            (
                format!("/ip4/10.0.0.1/udp/2/webrtc-direct/certhash/{hash}/p2p/{peer}"),
                Some(AddressKind::WebRtc),
            ),
            (
                format!("/ip4/10.0.0.1/tcp/1/p2p/{peer}/p2p-circuit/p2p/{peer}"),
                Some(AddressKind::Relayed),
            ),
            ("/ip4/10.0.0.1/tcp/1/ws".to_owned(), None),
            ("/ip4/10.0.0.1/udp/1".to_owned(), None),
            (format!("/p2p/{peer}"), None),
        ] {
            assert_eq!(AddressKind::of(&address.parse().expect("an address")), kind, "{address}");
        }
    }
}
