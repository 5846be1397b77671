//! The kernel's table of tracked connections, over netlink (`nf_conntrack_netlink`): counts the connections that NAT rules have
//! redirected, and removes what the table remembers of UDP, which would outlive the rules.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Protocol,
    Status, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use vc_protocol::spec::PortProtocol;

/// The states of a TCP connection (`enum tcp_conntrack`) from which on no side sends more data: `LAST_ACK` and later.
const TCP_CLOSED: u8 = 6;

/// A tracked connection, or exchange of datagrams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) protocol: PortProtocol,
    /// What the client sends to.
    pub(super) asked: SocketAddrV4,
    /// What answers: another address than `asked` if a rule has redirected it.
    pub(super) answers: SocketAddrV4,
    /// Whether data may still be sent.
    pub(super) is_open: bool,
    /// Identifies it in a request.
    original: Vec<Tuple>,
}

/// Returns the tracked IPv4 connections. Blocks. Errors: the kernel has no `nf_conntrack_netlink`, or the process may not.
pub(super) fn flows() -> io::Result<Vec<Flow>> {
    let mut flows = Vec::new();
    request(ConntrackMessage::Get(Vec::new()), NLM_F_DUMP, |attributes| {
        flows.extend(flow(attributes));
    })?;
    Ok(flows)
}

/// Returns the number of open TCP connections that rules have redirected to an address; 0 if the kernel does not say it.
pub(super) async fn open_connections(address: Ipv4Addr) -> usize {
    let flows = tokio::task::spawn_blocking(flows).await.map_err(io::Error::other);
    match flows.and_then(|flows| flows) {
        Ok(flows) => flows.iter().filter(|flow| flow.is_open_at(address)).count(),
        Err(error) => {
            tracing::debug!(%error, "cannot read the table of tracked connections");
            0
        }
    }
}

impl Flow {
    fn is_open_at(&self, address: Ipv4Addr) -> bool {
        let is_redirected = *self.answers.ip() == address && self.asked != self.answers;
        is_redirected && self.is_open && self.protocol == PortProtocol::Tcp
    }
}

/// Makes the kernel forget a flow, so that the rules decide about its next packet. Blocks. Errors: it may not; one that is
/// not there is no error.
pub(super) fn forget(flow: &Flow) -> io::Result<()> {
    let attributes = vec![ConntrackAttribute::CtaTupleOrig(flow.original.clone())];
    match request(ConntrackMessage::Delete(attributes), NLM_F_ACK, |_| {}) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// Sends a request and passes the attributes of each answer to `take`.
fn request(
    message: ConntrackMessage,
    flags: u16,
    mut take: impl FnMut(&[ConntrackAttribute]),
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let message =
        NetfilterMessage::new(NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0), message);
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (received, _) = socket.recv_from_full()?;
        let mut rest = received.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest);
            let message = message.map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                }
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)),
                    ..
                }) => take(&attributes),
                _ => {}
            }
            // Messages are aligned to 4 bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn flow(attributes: &[ConntrackAttribute]) -> Option<Flow> {
    let (mut original, mut reply, mut state) = (None, None, None);
    for attribute in attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(tuple),
            ConntrackAttribute::CtaStatus(status) if status.contains(Status::Dying) => return None,
            ConntrackAttribute::CtaProtoInfo(infos) => {
                state = infos.iter().find_map(|info| match info {
                    ProtoInfo::TCP(values) => values.iter().find_map(|value| match value {
                        ProtoInfoTCP::State(state) => Some(*state),
                        _ => None,
                    }),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let (original, reply) = (original?, reply?);
    let protocol = match protocol(original)? {
        Protocol::Tcp => PortProtocol::Tcp,
        Protocol::Udp => PortProtocol::Udp,
        _ => return None,
    };
    Some(Flow {
        protocol,
        asked: ends(original)?.1,
        answers: ends(reply)?.0,
        is_open: state.is_none_or(|state| state < TCP_CLOSED),
        original: original.clone(),
    })
}

fn protocol(tuple: &[Tuple]) -> Option<Protocol> {
    tuple.iter().find_map(|part| match part {
        Tuple::Proto(values) => values.iter().find_map(|value| match value {
            ProtoTuple::Protocol(protocol) => Some(*protocol),
            _ => None,
        }),
        _ => None,
    })
}

/// Returns source and destination.
fn ends(tuple: &[Tuple]) -> Option<(SocketAddrV4, SocketAddrV4)> {
    let mut ends =
        (SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    for part in tuple {
        match part {
            Tuple::Ip(values) => {
                for value in values {
                    match value {
                        IPTuple::SourceAddress(IpAddr::V4(ip)) => ends.0.set_ip(*ip),
                        IPTuple::DestinationAddress(IpAddr::V4(ip)) => ends.1.set_ip(*ip),
                        _ => return None,
                    }
                }
            }
            Tuple::Proto(values) => {
                for value in values {
                    match value {
                        ProtoTuple::SourcePort(port) => ends.0.set_port(*port),
                        ProtoTuple::DestinationPort(port) => ends.1.set_port(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Flow {
        /// Returns a UDP flow.
        pub(in crate::proxy) fn udp(asked: SocketAddrV4, answers: SocketAddrV4) -> Self {
            let protocol = PortProtocol::Udp;
            Self { protocol, asked, answers, is_open: true, original: Vec::new() }
        }
    }

    fn tuple(protocol: Protocol, from: &str, to: &str) -> Vec<Tuple> {
        let [from, to] = [from, to].map(|it| it.parse::<SocketAddrV4>().expect("an address"));
        vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(IpAddr::V4(*from.ip())),
                IPTuple::DestinationAddress(IpAddr::V4(*to.ip())),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(protocol),
                ProtoTuple::SourcePort(from.port()),
                ProtoTuple::DestinationPort(to.port()),
            ]),
        ]
    }

    #[test]
    fn open_connections_are_those_that_a_rule_redirected_and_no_side_has_closed() {
        let open = |protocol, answers: &str, state: u8| {
            let (client, asked) = ("192.0.2.7:4000", "10.0.0.1:80");
            let flow = flow(&[
                ConntrackAttribute::CtaTupleOrig(tuple(protocol, client, asked)),
                ConntrackAttribute::CtaTupleReply(tuple(protocol, answers, client)),
                ConntrackAttribute::CtaProtoInfo(vec![ProtoInfo::TCP(vec![ProtoInfoTCP::State(
                    state,
                )])]),
            ]);
            flow.expect("a flow").is_open_at(Ipv4Addr::new(172, 20, 0, 2))
        };
        let (established, close_wait, time_wait) = (3, 5, 7);
        assert!(open(Protocol::Tcp, "172.20.0.2:8080", established));
        assert!(open(Protocol::Tcp, "172.20.0.2:8080", close_wait));
        assert!(!open(Protocol::Tcp, "172.20.0.2:8080", time_wait));
        assert!(!open(Protocol::Tcp, "172.20.0.3:8080", established), "another instance's");
        assert!(!open(Protocol::Tcp, "10.0.0.1:80", established), "the listener's");
        assert!(!open(Protocol::Udp, "172.20.0.2:8080", established));
    }
}
