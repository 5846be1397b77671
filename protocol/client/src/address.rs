//! Addresses of nodes: reads what users write, tells what can be dialled, and resolves host names.

use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use vc_protocol::{AddressKind, DEFAULT_PORT};

/// The text is not an address of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an address of a node: write /ip4/10.0.0.1/tcp/{DEFAULT_PORT} or 10.0.0.1[:{DEFAULT_PORT}]"
)]
pub struct AddressError(String);

/// The host name in an address has no IP addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such host")]
pub struct LookupError;

/// Parses a multiaddr, or an IP address or host name with or without a port (default [`DEFAULT_PORT`], TCP).
pub fn parse(text: &str) -> Result<Multiaddr, AddressError> {
    let bad = || AddressError(text.to_owned());
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
    let is_label = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if !host.trim_end_matches('.').split('.').all(is_label) {
        return Err(bad());
    }
    Ok(tcp(Protocol::Dns(host.into()), port))
}

fn tcp(host: Protocol<'_>, port: u16) -> Multiaddr {
    Multiaddr::empty().with(host).with(Protocol::Tcp(port))
}

/// Returns the address without its peer id; `None` when this program cannot dial it (WebRTC, relayed, not a host).
pub fn without_peer(address: &Multiaddr) -> Option<Multiaddr> {
    is_dialable(address)
        .then(|| address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect())
}

/// Returns whether it is a host, then TCP or QUIC, then at most a peer id.
fn is_dialable(address: &Multiaddr) -> bool {
    let host = matches!(
        address.iter().next(),
        Some(
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
        )
    );
    host && AddressKind::of(address) == Some(AddressKind::Direct)
}

/// Returns host and port, `10.0.0.1:4777`: the same for TCP and QUIC, which lead to one node.
pub fn label(address: &Multiaddr) -> String {
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

/// Returns the host name that has to be resolved before the address can be dialled.
pub(crate) fn host_name(address: &Multiaddr) -> Option<String> {
    match address.iter().next()? {
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            Some(name.into_owned())
        }
        _ => None,
    }
}

/// Resolves the host name of an address with the system's resolver, so that /etc/hosts counts.
pub(crate) async fn look_up(address: Multiaddr) -> Result<Vec<Multiaddr>, LookupError> {
    let name = host_name(&address).ok_or(LookupError)?;
    let first = address.iter().next();
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|_| LookupError)?;
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
    if addresses.is_empty() { Err(LookupError) } else { Ok(addresses) }
}

/// Returns whether the address is QUIC.
pub(crate) fn is_quic(address: &Multiaddr) -> bool {
    address.iter().any(|part| matches!(part, Protocol::QuicV1))
}

/// Returns whether it is `0.0.0.0` or `::`, where a node can listen but not be dialled.
pub fn is_unspecified(address: &Multiaddr) -> bool {
    match address.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_unspecified(),
        Some(Protocol::Ip6(ip)) => ip.is_unspecified(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    #[test]
    fn short_forms_of_addresses_are_parsed() {
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
    }

    #[test]
    fn only_dialable_addresses_are_kept() {
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
    fn tcp_and_quic_of_one_node_have_one_label() {
        let of = |text: &str| label(&text.parse().expect(text));
        assert_eq!(of("/ip4/10.0.0.1/udp/1/quic-v1"), "10.0.0.1:1");
        assert_eq!(of(&format!("/ip6/::1/tcp/1/p2p/{PEER}")), "[::1]:1");
        assert_eq!(of("/dns4/alpha/tcp/1"), "alpha:1");
    }

    #[tokio::test]
    async fn host_names_are_resolved() {
        let found =
            look_up("/dns4/localhost/tcp/7".parse().expect("address")).await.expect("known");
        assert_eq!(found, ["/ip4/127.0.0.1/tcp/7".parse::<Multiaddr>().expect("address")]);
        assert!(look_up("/dns/nothing.invalid/tcp/7".parse().expect("address")).await.is_err());
    }
}
