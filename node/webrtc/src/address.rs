//! Conversion between `/ip4|ip6/…/udp/PORT/webrtc-direct` multiaddrs and socket addresses.

use std::net::{IpAddr, SocketAddr};

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::certificate::Fingerprint;

/// Returns the socket address of a `webrtc-direct` multiaddr, or `None` for another transport. `/certhash` and `/p2p` after
/// `/webrtc-direct` are ignored.
pub(crate) fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Protocol::Udp(port) = parts.next()? else { return None };
    let Protocol::WebRTCDirect = parts.next()? else { return None };
    parts
        .all(|part| matches!(part, Protocol::Certhash(_) | Protocol::P2p(_)))
        .then_some(SocketAddr::new(ip, port))
}

/// Returns the multiaddr of a socket address, without a certificate hash.
pub(crate) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty()
        .with(address.ip().into())
        .with(Protocol::Udp(address.port()))
        .with(Protocol::WebRTCDirect)
}

/// Returns the multiaddr that clients dial: the socket address and the hash of the certificate they must be shown.
pub(crate) fn dialable(address: SocketAddr, fingerprint: &Fingerprint) -> Multiaddr {
    multiaddr(address).with(fingerprint.certhash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_round_trips_through_a_multiaddr() {
        for text in ["127.0.0.1:4778", "[::1]:4778", "0.0.0.0:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_address(&multiaddr(address)), Some(address));
            assert_eq!(
                socket_address(&dialable(address, &Fingerprint::of(b"certificate"))),
                Some(address)
            );
        }
    }

    #[test]
    fn addresses_of_other_transports_are_rejected() {
        for text in [
            "/ip4/127.0.0.1/tcp/4777",
            "/ip4/127.0.0.1/udp/4777/quic-v1",
            "/ip4/127.0.0.1/udp/4777",
            "/dns4/example.org/udp/4777/webrtc-direct",
            "/ip4/127.0.0.1/udp/4777/webrtc-direct/p2p-circuit",
        ] {
            assert_eq!(socket_address(&text.parse().unwrap()), None, "{text}");
        }
    }
}
