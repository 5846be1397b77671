//! Addresses of nodes: what users write, what can be dialled, and how people read it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use vc_protocol::DEFAULT_PORT;

/// The addresses in one `--peer`; VC_PEER may hold several, or none.
#[derive(Debug, Clone)]
pub(crate) struct PeerList(pub(crate) Vec<Multiaddr>);

impl FromStr for PeerList {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts =
            text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
        parts.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// A multiaddr, or for convenience an IP address or host name with or without a port.
fn parse(text: &str) -> Result<Multiaddr, String> {
    let bad =
        || format!("'{text}' is not an address of a node: write /ip4/10.0.0.1/tcp/{DEFAULT_PORT}");
    if text.starts_with('/') {
        let address: Multiaddr = text.parse().map_err(|_| bad())?;
        return if is_dialable(&address) { Ok(address) } else { Err(bad()) };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(tcp(ip.into(), DEFAULT_PORT));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok(tcp(socket.ip().into(), socket.port()));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| bad())?),
        None => (text, DEFAULT_PORT),
    };
    let label = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if !host.trim_end_matches('.').split('.').all(label) {
        return Err(bad());
    }
    Ok(tcp(Protocol::Dns(host.into()), port))
}

fn tcp(host: Protocol<'_>, port: u16) -> Multiaddr {
    Multiaddr::empty().with(host).with(Protocol::Tcp(port))
}

/// The protocol crate reads addresses with another version of the library than libp2p has; the bytes are the same.
pub(super) fn of_protocol(address: &vc_protocol::Multiaddr) -> Option<Multiaddr> {
    Multiaddr::try_from(address.to_vec()).ok()
}

/// The address without the peer id at its end; `None`: this program cannot dial it (browsers' WebRTC, relays).
pub(super) fn without_peer(address: &Multiaddr) -> Option<Multiaddr> {
    is_dialable(address)
        .then(|| address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect())
}

/// Whether it is a host, and TCP or QUIC, and at most a peer id.
fn is_dialable(address: &Multiaddr) -> bool {
    let parts: Vec<_> = address.iter().collect();
    let (host, rest) = match parts.split_first() {
        Some((host, rest)) => (host, rest),
        None => return false,
    };
    matches!(
        host,
        Protocol::Ip4(_)
            | Protocol::Ip6(_)
            | Protocol::Dns(_)
            | Protocol::Dns4(_)
            | Protocol::Dns6(_)
    ) && matches!(
        rest,
        [Protocol::Tcp(_)]
            | [Protocol::Tcp(_), Protocol::P2p(_)]
            | [Protocol::Udp(_), Protocol::QuicV1]
            | [Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(_)]
    )
}

/// `10.0.0.1:4777`: the same for TCP and QUIC, which go to one node.
pub(super) fn label(address: &Multiaddr) -> String {
    let mut host = String::new();
    let mut port = None;
    for part in address {
        match part {
            Protocol::Ip4(ip) => host = ip.to_string(),
            Protocol::Ip6(ip) => host = format!("[{ip}]"),
            Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
                host = name.into_owned()
            }
            Protocol::Tcp(number) | Protocol::Udp(number) => port = Some(number),
            _ => {}
        }
    }
    port.map_or(host.clone(), |port| format!("{host}:{port}"))
}

/// The host name in it that has to be looked up first.
pub(super) fn name(address: &Multiaddr) -> Option<String> {
    match address.iter().next()? {
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            Some(name.into_owned())
        }
        _ => None,
    }
}

/// The addresses behind a host name, asked of the system (so that /etc/hosts counts). Errors: it has none.
pub(super) async fn look_up(address: Multiaddr) -> Result<Vec<Multiaddr>, &'static str> {
    let failed = "no such host";
    let name = name(&address).ok_or(failed)?;
    let first = address.iter().next();
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|_| failed)?;
    let rest: Multiaddr = address.iter().skip(1).collect();
    let addresses: Vec<Multiaddr> = found
        .map(|socket| socket.ip())
        .filter(|ip| match first {
            Some(Protocol::Dns4(_)) => ip.is_ipv4(),
            Some(Protocol::Dns6(_)) => ip.is_ipv6(),
            _ => true,
        })
        .map(|ip| Multiaddr::empty().with(ip.into()).into_iter().chain(&rest).collect())
        .collect();
    if addresses.is_empty() { Err(failed) } else { Ok(addresses) }
}

/// Whether it is QUIC, not TCP.
pub(super) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// Whether nobody can be there: an address that listens everywhere is not one to dial.
pub(super) fn is_unspecified(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => ip == Ipv6Addr::UNSPECIFIED,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn people_may_write_a_peer_in_short() {
        for (text, address) in [
            ("/ip4/10.0.0.1/tcp/1", "/ip4/10.0.0.1/tcp/1"),
            ("/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/udp/1/quic-v1"),
            ("10.0.0.1", "/ip4/10.0.0.1/tcp/4777"),
            ("10.0.0.1:5", "/ip4/10.0.0.1/tcp/5"),
            ("::1", "/ip6/::1/tcp/4777"),
            ("[::1]:5", "/ip6/::1/tcp/5"),
            ("alpha.example", "/dns/alpha.example/tcp/4777"),
            ("alpha:5", "/dns/alpha/tcp/5"),
        ] {
            assert_eq!(parse(text).expect(text).to_string(), address);
        }
        for bad in [
            "/ip4/10.0.0.1",
            "/ip4/10.0.0.1/udp/5",
            "/unix/x",
            "/x",
            "a b",
            "alpha:port",
            "eyJ.a.b:x",
            ":5",
            "a..b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let list: PeerList = "10.0.0.1, 10.0.0.2".parse().expect("two");
        assert_eq!(list.0.len(), 2);
        assert!("".parse::<PeerList>().expect("none").0.is_empty());
    }

    #[test]
    fn only_what_can_be_dialled_is() {
        let plain = |text: &str| without_peer(&text.parse().expect(text)).map(|it| it.to_string());
        let with_peer = format!("/ip4/10.0.0.1/udp/1/quic-v1/p2p/{PEER}");
        assert_eq!(plain(&with_peer), Some("/ip4/10.0.0.1/udp/1/quic-v1".to_owned()));
        assert_eq!(plain("/ip4/10.0.0.1/tcp/1"), Some("/ip4/10.0.0.1/tcp/1".to_owned()));
        for not in [
            "/ip4/10.0.0.1/udp/1/webrtc-direct".to_owned(),
            format!("/ip4/10.0.0.1/tcp/1/p2p/{PEER}/p2p-circuit"),
            format!("/p2p/{PEER}"),
            "/ip4/10.0.0.1/tcp/1/ws".to_owned(),
        ] {
            assert_eq!(plain(&not), None, "{not}");
        }
    }

    #[test]
    fn one_node_has_one_label() {
        let of = |text: &str| label(&text.parse().expect(text));
        assert_eq!(of("/ip4/10.0.0.1/udp/1/quic-v1"), "10.0.0.1:1");
        assert_eq!(of(&format!("/ip6/::1/tcp/1/p2p/{PEER}")), "[::1]:1");
        assert_eq!(of("/dns4/alpha/tcp/1"), "alpha:1");
    }

    #[tokio::test]
    async fn names_are_looked_up() {
        let found =
            look_up("/dns4/localhost/tcp/7".parse().expect("address")).await.expect("known");
        assert_eq!(found, ["/ip4/127.0.0.1/tcp/7".parse::<Multiaddr>().expect("address")]);
        assert!(look_up("/dns/nothing.invalid/tcp/7".parse().expect("address")).await.is_err());
    }
}
