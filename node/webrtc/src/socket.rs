//! The UDP socket of a listener: batches datagrams per system call (GSO, GRO) and answers from the address that received.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket};

/// Requested kernel buffer per direction, in bytes. The kernel may grant less (`net.core.rmem_max`).
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;

/// The longest datagram that is received, in bytes: above the MTU of any path from a browser.
const MAX_DATAGRAM: usize = 1600;

/// The address pair that a client's packets travel between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    /// The client's address.
    pub remote: SocketAddr,
    /// The local address, if the system reports it. A browser accepts answers only from the address it sent to.
    pub local: Option<IpAddr>,
}

#[derive(Debug)]
pub(crate) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

/// Buffers for one receive call.
pub(crate) struct Buffers {
    storage: Vec<u8>,
    /// Bytes per message.
    each: usize,
    meta: [RecvMeta; BATCH_SIZE],
    filled: usize,
}

impl Socket {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::DGRAM,
            Some(socket2::Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let io = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new((&io).into())?;
        for granted in [
            state.set_send_buffer_size((&io).into(), KERNEL_BUFFER),
            state.set_recv_buffer_size((&io).into(), KERNEL_BUFFER),
        ] {
            if let Err(error) = granted {
                tracing::debug!(%error, "cannot enlarge the socket buffer");
            }
        }
        Ok(Self { io, state })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    /// Allocates buffers for [`Socket::receive`].
    pub(crate) fn buffers(&self) -> Buffers {
        let each = self.state.gro_segments() * MAX_DATAGRAM;
        Buffers {
            storage: vec![0; each * BATCH_SIZE],
            each,
            meta: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
        }
    }

    /// Waits for datagrams and fills `buffers`.
    pub(crate) async fn receive(&self, buffers: &mut Buffers) -> io::Result<()> {
        buffers.filled = 0;
        let Buffers { storage, each, meta, .. } = buffers;
        let filled = self
            .io
            .async_io(Interest::READABLE, || {
                let mut chunks = storage.chunks_exact_mut(*each);
                let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
                    std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
                self.state.recv((&self.io).into(), &mut slices, meta)
            })
            .await?;
        buffers.filled = filled;
        Ok(())
    }

    /// Sends datagrams of `segment` bytes each (the last may be shorter). Fails with `WouldBlock` if the kernel's buffer is full.
    pub(crate) fn send(&self, path: Path, contents: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: path.remote,
            ecn: None,
            contents,
            segment_size: (segment < contents.len()).then_some(segment),
            src_ip: path.local,
        };
        self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), &transmit))
    }

    /// Waits until the kernel accepts datagrams again.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Returns the maximum number of datagrams per [`Socket::send`].
    pub(crate) fn max_batch(&self) -> usize {
        self.state.max_gso_segments()
    }
}

impl Buffers {
    /// Iterates over the received batches: the path, the bytes, and the length of each datagram in them (the last may be shorter).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Path, &[u8], usize)> {
        let each = self.each;
        self.meta[..self.filled].iter().zip(self.storage.chunks_exact(each)).map(
            move |(meta, bytes)| {
                let path = Path { remote: meta.addr, local: meta.dst_ip };
                (path, &bytes[..meta.len.min(each)], meta.stride.max(1))
            },
        )
    }
}
