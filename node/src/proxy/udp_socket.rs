//! A UDP socket of any number of addresses that answers from the address that was asked.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::splice::with_scratch;

/// The two ends of a conversation. A client that asks two addresses of this host has two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    /// The address that the client asked, as the kernel described it.
    own: Asked,
}

/// Where a datagram arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asked {
    /// An IPv4 address, in network byte order.
    V4(u32),
    /// An IPv6 address, with the interface where it is link-local.
    V6([u8; 16], u32),
    /// The kernel did not say it: the route decides where answers leave.
    Unknown,
}

/// A bound socket. Its kernel reports the destination of each datagram (RFC 3542, section 6; `IP_PKTINFO` in ip(7)).
pub(super) struct ReplySocket(UdpSocket);

impl ReplySocket {
    /// Prepares a bound socket. Errors: the kernel refuses the option.
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        match socket.local_addr()?.ip() {
            IpAddr::V4(_) => setsockopt(&socket, Ipv4PacketInfo, &true)?,
            // Also for IPv4 where the socket serves both: the address is mapped then.
            IpAddr::V6(_) => setsockopt(&socket, Ipv6RecvPacketInfo, &true)?,
        }
        Ok(Self(socket))
    }

    /// Receives a datagram. Cancel-safe. Errors: an ICMP error for a datagram that was sent before.
    pub(super) async fn receive(&self) -> io::Result<(Ends, Vec<u8>)> {
        self.0
            .async_io(Interest::READABLE, || {
                with_scratch(|scratch| {
                    let mut control = nix::cmsg_space!(in6_pktinfo);
                    let mut parts = [IoSliceMut::new(scratch)];
                    let (fd, flags) = (self.0.as_raw_fd(), MsgFlags::empty());
                    let message =
                        recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags)?;
                    let client = message.address.as_ref().and_then(socket_addr);
                    let client = client.ok_or(io::ErrorKind::InvalidData)?;
                    let own = message.cmsgs()?.find_map(|it| asked(&it)).unwrap_or(Asked::Unknown);
                    let bytes = message.bytes;
                    Ok((Ends { client, own }, scratch[..bytes].to_vec()))
                })
            })
            .await
    }

    /// Sends an answer. Errors: the socket's buffer is full, or the datagram cannot be sent.
    pub(super) fn try_send(&self, ends: &Ends, bytes: &[u8]) -> io::Result<()> {
        let (v4, v6);
        let control = match ends.own {
            Asked::V4(address) => {
                let (any, own) = (in_addr { s_addr: 0 }, in_addr { s_addr: address });
                v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: own, ipi_addr: any };
                &[ControlMessage::Ipv4PacketInfo(&v4)][..]
            }
            Asked::V6(address, interface) => {
                let address = in6_addr { s6_addr: address };
                v6 = in6_pktinfo { ipi6_addr: address, ipi6_ifindex: interface };
                &[ControlMessage::Ipv6PacketInfo(&v6)][..]
            }
            Asked::Unknown => &[],
        };
        let to = SockaddrStorage::from(ends.client);
        self.0.try_io(Interest::WRITABLE, || {
            let parts = [IoSlice::new(bytes)];
            sendmsg(self.0.as_raw_fd(), &parts, control, MsgFlags::empty(), Some(&to))?;
            Ok(())
        })
    }
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|it| SocketAddr::V4((*it).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())))
}

fn asked(control: &ControlMessageOwned) -> Option<Asked> {
    match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(Asked::V4(info.ipi_spec_dst.s_addr)),
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let address = info.ipi6_addr.s6_addr;
            let is_link_local = address[0] == 0xfe && address[1] & 0xc0 == 0x80;
            Some(Asked::V6(address, if is_link_local { info.ipi6_ifindex } else { 0 }))
        }
        _ => None,
    }
}
