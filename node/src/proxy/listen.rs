//! Sockets for published ports.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use tokio::net::{TcpListener, UdpSocket};

/// Limit of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on a TCP port of one address, or of all IPv4 and IPv6 addresses (`::` is those of IPv6 alone). Errors: the port is in use, or the address
/// is not this host's.
pub(super) fn tcp(address: Option<IpAddr>, port: u16) -> io::Result<TcpListener> {
    let socket = socket(address, port, SocketType::STREAM)?;
    listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Binds a UDP port of one address, or of all IPv4 and IPv6 addresses. Errors: the port is in use, or the address is not
/// this host's.
pub(super) fn udp(address: Option<IpAddr>, port: u16) -> io::Result<UdpSocket> {
    UdpSocket::from_std(socket(address, port, SocketType::DGRAM)?.into())
}

/// Returns whether this host has an address now.
pub(super) fn has_address(address: IpAddr) -> bool {
    let bound = std::net::UdpSocket::bind((address, 0));
    !matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable)
}

fn socket(address: Option<IpAddr>, port: u16, kind: SocketType) -> io::Result<OwnedFd> {
    let Some(address) = address else {
        let none = [io::ErrorKind::AddrNotAvailable, io::ErrorKind::Unsupported];
        return match bound(Ipv6Addr::UNSPECIFIED.into(), port, kind, false) {
            // The host has no IPv6.
            Err(error)
                if none.contains(&error.kind()) || error.raw_os_error() == Some(EAFNOSUPPORT) =>
            {
                bound(Ipv4Addr::UNSPECIFIED.into(), port, kind, true)
            }
            result => result,
        };
    };
    bound(address, port, kind, true)
}

/// Linux' error number for an address family that the host does not support.
const EAFNOSUPPORT: i32 = rustix::io::Errno::AFNOSUPPORT.raw_os_error();

fn bound(
    address: IpAddr,
    port: u16,
    kind: SocketType,
    only_its_family: bool,
) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, only_its_family)?;
    }
    if kind == SocketType::STREAM {
        // Connections in TIME_WAIT do not block the port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &SocketAddr::new(address, port))?;
    Ok(socket)
}
