//! Sends sockets to another process on this host (`SCM_RIGHTS`).
//!
//! Sequenced packets, one for each [`Item`] with its sockets; the end of the direction ends the list. The first byte of a packet is
//! the kind: `s` and the name of a socket, or `c`, the length of the bytes for the instance (4 bytes, big endian), these bytes,
//! and those for the client.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    socket_with,
};

use super::sockets::Connection;

/// Name of the Unix socket in the data directory.
const SOCKET: &str = "handover.sock";
/// The longest packet: the bytes that a connection keeps are at most one record in each direction.
const MAX_PACKET: usize = 192 * 1024;
const KIND_SOCKET: u8 = b's';
const KIND_CONNECTION: u8 = b'c';

/// What is sent.
#[derive(Debug)]
pub(crate) enum Item {
    /// A listening or bound socket with its name.
    Socket(String, OwnedFd),
    /// An established connection.
    Connection(Connection),
}

/// Listens on the Unix socket of a data directory, in place of any process before.
pub(crate) fn bind(dir: &Path) -> io::Result<OwnedFd> {
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = unix_socket()?;
    with_address(dir, |address| Ok(rustix::net::bind(&socket, address)?))?;
    rustix::net::listen(&socket, 1)?;
    Ok(socket)
}

/// Connects to the Unix socket of a data directory; `None`: no process listens.
pub(super) fn connect(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let socket = unix_socket()?;
    match with_address(dir, |address| Ok(rustix::net::connect(&socket, address)?)) {
        Ok(()) => Ok(Some(socket)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

fn unix_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Calls `f` with the address of the socket. It leads over a descriptor of the directory: an address has at most 107 bytes.
fn with_address(dir: &Path, f: impl FnOnce(&SocketAddrUnix) -> io::Result<()>) -> io::Result<()> {
    let dir = File::open(dir)?;
    f(&SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()))?)
}

/// Sends an item. The caller may close its sockets then: they arrive nevertheless.
pub(crate) fn send(to: impl AsFd, item: Item) -> io::Result<()> {
    match &item {
        Item::Socket(name, socket) => {
            send_packet(to, &[&[KIND_SOCKET], name.as_bytes()], &[socket.as_fd()])
        }
        Item::Connection(Connection { client, instance, to_instance, to_client }) => {
            let length = u32::try_from(to_instance.len()).map_err(io::Error::other)?.to_be_bytes();
            let sockets = [client.as_fd(), instance.as_fd()];
            send_packet(to, &[&[KIND_CONNECTION], &length, to_instance, to_client], &sockets)
        }
    }
}

fn send_packet(to: impl AsFd, parts: &[&[u8]], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    rustix::net::sendmsg(to, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives the next item; `None`: that was all.
pub(crate) fn receive(from: impl AsFd) -> io::Result<Option<Item>> {
    let mut packet = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        from,
        &mut [IoSliceMut::new(&mut packet)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut sockets = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    packet.truncate(received.bytes);
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed handover packet");
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(malformed());
    }
    let (kind, content) = packet.split_first().ok_or_else(malformed)?;
    let mut socket = || sockets.next().ok_or_else(malformed);
    match *kind {
        KIND_SOCKET => {
            let name = String::from_utf8(content.to_vec()).map_err(|_| malformed())?;
            Ok(Some(Item::Socket(name, socket()?)))
        }
        KIND_CONNECTION => {
            let (length, bytes) = content.split_first_chunk().ok_or_else(malformed)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
            let (to_instance, to_client) = bytes.split_at_checked(length).ok_or_else(malformed)?;
            let (to_instance, to_client) = (to_instance.to_vec(), to_client.to_vec());
            let (client, instance) = (socket()?, socket()?);
            Ok(Some(Item::Connection(Connection { client, instance, to_instance, to_client })))
        }
        _ => Err(malformed()),
    }
}
