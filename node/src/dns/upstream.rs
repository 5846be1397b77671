//! Questions about the rest of the world: passed on, byte for byte, to the resolvers that the node itself asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use resolv_conf::ScopedIp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::virtual_ips::DNS_SERVER_IP;

/// Where a node says whom it asks.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How long one resolver may take. Docker waits four seconds for us.
const ATTEMPT: Duration = Duration::from_millis(1200);
/// How many resolvers are asked, one after another: as many as the C library asks.
const SERVERS: usize = 3;
/// The largest answer in a datagram: what does not fit is asked for again over TCP.
pub(super) const MAX_DATAGRAM: usize = 4096;
/// Where resolvers listen.
const PORT: u16 = 53;

/// The node's resolvers.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    resolv_conf: PathBuf,
}

/// How a question came, and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The node has nobody to ask.
    Nobody,
    /// None of those it asks has answered.
    Silence,
}

impl Upstream {
    pub(super) fn of(resolv_conf: PathBuf) -> Self {
        Self { resolv_conf }
    }

    /// Asks one resolver after another.
    pub(super) async fn ask(
        &self,
        question: &[u8],
        transport: Transport,
    ) -> Result<Vec<u8>, NoAnswer> {
        let servers = servers(&self.resolv_conf);
        if servers.is_empty() {
            return Err(NoAnswer::Nobody);
        }
        for server in servers {
            let asked = async {
                match transport {
                    Transport::Udp => ask_udp(question, server).await,
                    Transport::Tcp => ask_tcp(question, server).await,
                }
            };
            match timeout(ATTEMPT, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a resolver cannot be asked"),
                Err(_) => tracing::debug!(%server, "a resolver does not answer"),
            }
        }
        Err(NoAnswer::Silence)
    }
}

/// The resolvers that a file names. It is small and read for each question, so that a change needs no watching.
fn servers(resolv_conf: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read(resolv_conf).unwrap_or_default();
    let Ok(config) = resolv_conf::Config::parse(text) else { return Vec::new() };
    let address = |server: ScopedIp| match server {
        ScopedIp::V4(ip) => Some(SocketAddr::from((ip, PORT))),
        ScopedIp::V6(ip, None) => Some(SocketAddr::from((ip, PORT))),
        // One that means something on one link only.
        ScopedIp::V6(_, Some(_)) => None,
    };
    config.nameservers.into_iter().filter_map(address).take(SERVERS).collect()
}

/// Returns the DNS servers for a container's `dns` option: this node's DNS server, then the host's resolvers as a
/// fallback for when it is down. Those on the host's loopback are left out, since a container has its own.
pub fn container_servers(resolv_conf: &Path) -> Vec<IpAddr> {
    let host = servers(resolv_conf).into_iter().map(|server| server.ip());
    let host = host.filter(|ip| ip.is_ipv4() && !ip.is_loopback());
    std::iter::once(IpAddr::from(DNS_SERVER_IP)).chain(host).collect()
}

/// From a port of its own, so that an answer cannot be guessed.
async fn ask_udp(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MAX_DATAGRAM];
    loop {
        let bytes = socket.recv(&mut answer).await?;
        // Its id is the question's.
        if bytes >= 2 && answer.get(..2) == question.get(..2) {
            answer.truncate(bytes);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(question: &[u8], server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_framed(&mut stream, question).await?;
    read_framed(&mut stream).await
}

/// Reads one message with its length before it, as DNS over TCP has them.
pub(super) async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message with its length before it.
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
    async fn the_nodes_resolvers_are_read_anew_and_without_any_the_answer_is_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("resolv.conf");
        let upstream = Upstream::of(path.clone());
        assert_eq!(upstream.ask(b"xx", Transport::Udp).await, Err(NoAnswer::Nobody));
        let text = "# made by hand\nsearch lan\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n\
                    nameserver 2001:db8::1\noptions ndots:1\n";
        std::fs::write(&path, text).expect("written");
        let named = ["192.0.2.1:53", "[2001:db8::1]:53"].map(|it| it.parse().expect("one"));
        assert_eq!(servers(&path), named);
        std::fs::write(&path, "nameserver 192.0.2.2\n").expect("written");
        assert_eq!(servers(&path), ["192.0.2.2:53".parse().expect("one")]);
    }

    #[tokio::test]
    async fn an_answer_to_another_question_is_not_taken() {
        let server = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = server.local_addr().expect("bound");
        let answering = async {
            let mut question = [0; 16];
            let (_, from) = server.recv_from(&mut question).await.expect("a question");
            for answer in [b"zz-forged", b"q1-answer"] {
                server.send_to(answer, from).await.expect("sent");
            }
        };
        let (answer, ()) = tokio::join!(ask_udp(b"q1", address), answering);
        assert_eq!(answer.expect("an answer"), b"q1-answer");
    }
}
