//! The PROXY protocol: a header at the beginning of a connection to an instance that names the client, which the instance would
//! otherwise not see (haproxy.org/download/3.2/doc/proxy-protocol.txt).
//!
//! The node that accepted the client writes it, also over a stream to another node, for which it is the first bytes of the
//! connection. So nodes of earlier versions forward it.

use std::io;
use std::net::SocketAddr;

use ppp::v1;
use ppp::v2::{Addresses, Builder, Command, Protocol, Version};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use vc_protocol::spec::ProxyProtocol;

use super::record;
use super::upstream::TcpUpstream;

/// Returns the header of a connection from `client` to `own`; without both, or if they are of two families, it says that the
/// client is not known.
pub(super) fn header(
    version: ProxyProtocol,
    client: Option<SocketAddr>,
    own: Option<SocketAddr>,
) -> io::Result<Vec<u8>> {
    // A socket of both families has IPv4 addresses mapped into IPv6.
    let plain = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let ends = client.map(plain).zip(own.map(plain));
    match version {
        ProxyProtocol::V1 => {
            let addresses = ends.map_or(v1::Addresses::Unknown, v1::Addresses::from);
            Ok(addresses.to_string().into_bytes())
        }
        ProxyProtocol::V2 => match ends.map_or(Addresses::Unspecified, Addresses::from) {
            Addresses::Unspecified => {
                let (command, protocol) = (Command::Local, Protocol::Unspecified);
                Builder::with_addresses(Version::Two | command, protocol, Addresses::Unspecified)
            }
            ends => Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, ends),
        }
        .build(),
    }
}

/// Sends an instance the header of a client's connection. Errors: the connection to the instance is closed.
pub(super) async fn send_header(
    version: ProxyProtocol,
    client: &TcpStream,
    instance: &mut TcpUpstream,
) -> io::Result<()> {
    instance.send_first(&header(version, client.peer_addr().ok(), client.local_addr().ok())?).await
}

impl TcpUpstream {
    /// Sends the first bytes of a connection. Errors: it is closed.
    pub(super) async fn send_first(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(stream) => stream.write_all(bytes).await,
            Self::Remote(stream) => {
                stream.write_all(&[&record::header(bytes.len()), bytes].concat()).await?;
                stream.flush().await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn headers_are_as_the_specification_has_them() {
        let signature = *b"\r\n\r\n\0\r\nQUIT\n";
        let v2 = |client, own| header(ProxyProtocol::V2, client, own).expect("a header");
        let v1 = |client, own| {
            let text = header(ProxyProtocol::V1, client, own).expect("a header");
            String::from_utf8(text).expect("text")
        };
        let v4 = (address("192.0.2.7:4000"), address("10.0.0.1:80"));
        let ends = [192, 0, 2, 7, 10, 0, 0, 1, 0x0f, 0xa0, 0, 80];
        let expected = [&signature[..], &[0x21, 0x11, 0, 12], &ends].concat();
        assert_eq!(v2(v4.0, v4.1), expected);
        assert_eq!(v1(v4.0, v4.1), "PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\r\n");
        // As a socket of both families has them.
        let mapped = (address("[::ffff:192.0.2.7]:4000"), address("[::ffff:10.0.0.1]:80"));
        assert_eq!(v2(mapped.0, mapped.1), expected);
        let v6 = (address("[2001:db8::7]:4000"), address("[fd00::1]:80"));
        assert_eq!(v2(v6.0, v6.1)[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(v1(v6.0, v6.1), "PROXY TCP6 2001:db8::7 fd00::1 4000 80\r\n");
        for (client, own) in [(None, v4.1), (v4.0, v6.1)] {
            assert_eq!(v2(client, own), [&signature[..], &[0x20, 0, 0, 0]].concat());
            assert_eq!(v1(client, own), "PROXY UNKNOWN\r\n");
        }
    }
}
