//! Forwards queries for other names, byte for byte, to the container's own DNS servers, or the host's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use resolv_conf::ScopedIp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::virtual_ips::DNS_SERVER_IP;

/// The file that lists the host's resolvers, on Linux.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one resolver may take to answer. Docker's resolver waits for 4 s in all.
const SERVER_TIMEOUT: Duration = Duration::from_millis(1200);
/// Limit of resolvers that are tried, one after another: glibc's `MAXNS`.
const MAX_SERVERS: usize = 3;
/// Largest message in a datagram, in bytes: a query with EDNS may ask for answers of any size.
pub(super) const MAX_DATAGRAM: usize = 65_535;
/// Port of DNS servers.
const PORT: u16 = 53;

/// The host's resolvers.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    resolv_conf: PathBuf,
}

/// The transport of a query, which is kept when it is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A query was not answered by an upstream server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForwardError {
    /// The host has no resolvers.
    #[error("the host's resolv.conf lists no usable resolver")]
    NoServers,
    /// The container's own resolver is the first to ask, which Docker does.
    #[error("the first DNS server of the container is in the container")]
    InContainer,
    /// No resolver answered within [`SERVER_TIMEOUT`].
    #[error("no DNS server answered")]
    NoAnswer,
}

impl Upstream {
    pub(super) fn new(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf }
    }

    /// Forwards a query to one resolver after another until one answers: to the container's `own` ones, if it has any.
    pub(super) async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        own: &[IpAddr],
    ) -> Result<Vec<u8>, ForwardError> {
        let servers = match own {
            [] => servers(&self.resolv_conf),
            own => reachable(own),
        };
        if servers.is_empty() {
            return Err(if own.is_empty() {
                ForwardError::NoServers
            } else {
                ForwardError::InContainer
            });
        }
        for server in servers {
            let exchange = async {
                match transport {
                    Transport::Udp => exchange_udp(query, server).await,
                    Transport::Tcp => exchange_tcp(query, server).await,
                }
            };
            match timeout(SERVER_TIMEOUT, exchange).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "upstream DNS server failed"),
                Err(_) => tracing::debug!(%server, "upstream DNS server timed out"),
            }
        }
        Err(ForwardError::NoAnswer)
    }
}

/// Returns the resolvers that a file lists. It is read for each query, so that changes need no watching.
fn servers(resolv_conf: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read(resolv_conf).unwrap_or_default();
    let Ok(config) = resolv_conf::Config::parse(text) else { return Vec::new() };
    let address = |server: ScopedIp| match server {
        ScopedIp::V4(ip) => Some(SocketAddr::from((ip, PORT))),
        ScopedIp::V6(ip, None) => Some(SocketAddr::from((ip, PORT))),
        // A link-local address with a zone, which containers cannot use.
        ScopedIp::V6(_, Some(_)) => None,
    };
    config.nameservers.into_iter().filter_map(address).take(MAX_SERVERS).collect()
}

/// Returns those of a container's own DNS servers that come before one on its loopback, which only the container reaches.
fn reachable(own: &[IpAddr]) -> Vec<SocketAddr> {
    let here = own.iter().take_while(|ip| !ip.is_loopback() && **ip != IpAddr::V4(DNS_SERVER_IP));
    here.map(|ip| SocketAddr::from((*ip, PORT))).take(MAX_SERVERS).collect()
}

/// Returns the DNS servers for a container's `dns` option: this node's DNS server, then the host's resolvers as a
/// fallback for when it is down. Those on the host's loopback are left out, since a container has its own.
pub fn container_servers(resolv_conf: &Path) -> Vec<IpAddr> {
    let host = servers(resolv_conf).into_iter().map(|server| server.ip());
    let host = host.filter(|ip| ip.is_ipv4() && !ip.is_loopback());
    std::iter::once(IpAddr::from(DNS_SERVER_IP)).chain(host).collect()
}

/// Exchanges datagrams from a port of its own: a forged answer has to guess it (RFC 5452).
async fn exchange_udp(query: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; MAX_DATAGRAM];
    loop {
        let bytes = socket.recv(&mut answer).await?;
        // An answer has the query's id.
        if bytes >= 2 && answer.get(..2) == query.get(..2) {
            answer.truncate(bytes);
            return Ok(answer);
        }
    }
}

async fn exchange_tcp(query: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, query).await?;
    read_framed(&mut stream).await
}

/// Reads a message after its length in 2 bytes, the framing of DNS over TCP (RFC 1035, 4.2.2).
pub(super) async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a message after its length.
pub(super) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn resolv_conf_is_read_for_each_query_and_no_servers_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        let upstream = Upstream::new(path.clone());
        assert_eq!(
            upstream.forward(b"xx", Transport::Udp, &[]).await,
            Err(ForwardError::NoServers)
        );
        let own = ["127.0.0.1", "192.0.2.9"].map(|it| it.parse().expect("an address"));
        let answer = upstream.forward(b"xx", Transport::Udp, &own).await;
        assert_eq!(answer, Err(ForwardError::InContainer));
        let text = "# made by hand\nsearch lan\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1\noptions ndots:1\n";
        std::fs::write(&path, text).expect("written");
        let named = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|it| it.parse().expect("one"));
        assert_eq!(servers(&path), named);
        std::fs::write(&path, "nameserver 192.0.2.2\n").expect("written");
        assert_eq!(servers(&path), ["192.0.2.2:53".parse().expect("one")]);
    }

    #[test]
    fn own_servers_are_asked_up_to_one_that_only_the_container_reaches() {
        let own = |texts: &[&str]| {
            let own: Vec<IpAddr> = texts.iter().map(|it| it.parse().expect("an address")).collect();
            reachable(&own).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(own(&["192.0.2.1", "2001:db8::1"]), ["192.0.2.1:53", "[2001:db8::1]:53"]);
        assert_eq!(own(&["192.0.2.1", "127.0.0.1", "192.0.2.2"]), ["192.0.2.1:53"]);
        assert_eq!(own(&["::1", "192.0.2.1"]), [""; 0]);
    }

    #[tokio::test]
    async fn an_answer_larger_than_most_arrives_whole() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = server.local_addr().expect("bound");
        let large = [b"q1".to_vec(), vec![7; 60_000]].concat();
        let answering = async {
            let (_, from) = server.recv_from(&mut [0; 16]).await.expect("a question");
            server.send_to(&large, from).await.expect("sent");
        };
        let (answer, ()) = tokio::join!(exchange_udp(b"q1", address), answering);
        assert!(answer.expect("an answer") == large);
    }

    #[tokio::test]
    async fn an_answer_with_another_id_is_ignored() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = server.local_addr().expect("bound");
        let answering = async {
            let mut question = [0; 16];
            let (_, from) = server.recv_from(&mut question).await.expect("a question");
            for answer in [b"zz-forged", b"q1-answer"] {
                server.send_to(answer, from).await.expect("sent");
            }
        };
        let (answer, ()) = tokio::join!(exchange_udp(b"q1", address), answering);
        assert_eq!(answer.expect("an answer"), b"q1-answer");
    }
}
