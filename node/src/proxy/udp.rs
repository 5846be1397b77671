//! DatagramStream: each client of a port has a session, which keeps to one instance as long as that is there.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use libp2p::Stream;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::compat::Compat;
use tokio_util::task::AbortOnDropHandle;
use vc_protocol::ServiceKey;
use vc_protocol::route::MAX_RECORD;
use vc_protocol::spec::PortProtocol;

use super::connect::{Route, Upstream};
use super::load_balancer::Ejected;
use super::splice::with_scratch;
use super::{Router, Scope};
use crate::dns::Admit;

/// Clients of one port at once; for one more, the one that was silent longest is forgotten.
pub const MAX_SESSIONS: usize = 4096;
/// A client that is silent so long, and hears nothing, is forgotten.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// DatagramStream of one client that may wait; what comes beyond is dropped, as the network itself would.
const MAX_QUEUED: usize = 64;
/// Bytes that may wait for all sessions of one port.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// Bytes that may wait for a stream that does not keep up.
const MAX_UNSENT: usize = 256 * 1024;

/// What a client sent.
struct Datagram {
    bytes: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

struct Session {
    queue: mpsc::Sender<Datagram>,
    spoke: Instant,
    _task: AbortOnDropHandle<()>,
}

/// Forwards what comes to a socket from those who are admitted (`None`: all), as long as it is polled.
pub(super) async fn serve(
    router: Router,
    socket: UdpSocket,
    service: ServiceKey,
    port: u16,
    scope: Scope,
    admit: Option<Admit>,
) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(MAX_QUEUED_BYTES));
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    loop {
        let Ok((client, bytes)) = receive(&socket).await else { continue };
        let Ok(length) = u32::try_from(bytes.len()) else { continue };
        let Ok(room) = Arc::clone(&room).try_acquire_many_owned(length) else { continue };
        let mut datagram = Datagram { bytes, _room: room };
        if let Some(session) = sessions.get_mut(&client) {
            session.spoke = Instant::now();
            match session.queue.try_send(datagram) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => continue,
                // Its session has ended.
                Err(mpsc::error::TrySendError::Closed(back)) => datagram = back,
            }
        }
        sessions.retain(|_, session| !session.queue.is_closed());
        if sessions.len() >= MAX_SESSIONS {
            let silent = sessions.iter().min_by_key(|(_, session)| session.spoke);
            if let Some(client) = silent.map(|(client, _)| *client) {
                sessions.remove(&client);
            }
        }
        let (queue, datagrams) = mpsc::channel(MAX_QUEUED);
        // A fresh queue has room.
        let _ = queue.try_send(datagram);
        let session = session(
            router.clone(),
            Arc::clone(&socket),
            client,
            datagrams,
            (service.clone(), port, scope),
        );
        let admit = admit.clone();
        let session = async move {
            // It is asked once a session.
            let admitted = match admit {
                Some(admit) => admit(client.ip()).await,
                None => true,
            };
            if admitted {
                session.await;
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(session));
        sessions.insert(client, Session { queue, spoke: Instant::now(), _task: task });
    }
}

/// The next datagram and who sent it. Errors are of the past: of an answer that did not arrive.
async fn receive(socket: &UdpSocket) -> io::Result<(SocketAddr, Vec<u8>)> {
    socket
        .async_io(tokio::io::Interest::READABLE, || {
            with_scratch(|scratch| {
                let (length, client) = socket.try_recv_from(scratch)?;
                Ok((client, scratch[..length].to_vec()))
            })
        })
        .await
}

/// One client: from an instance to the next, until it has nothing to say.
async fn session(
    router: Router,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    mut datagrams: mpsc::Receiver<Datagram>,
    (service, port, scope): (ServiceKey, u16, Scope),
) {
    loop {
        // Who says nothing needs no instance.
        let Ok(Some(first)) = tokio::time::timeout(IDLE_TIMEOUT, datagrams.recv()).await else {
            return;
        };
        let found = Box::pin(router.connect_by(PortProtocol::Udp, &service, port, scope)).await;
        let Some(Route { endpoint, upstream, place: _place, .. }) = found else { continue };
        let mut way = match upstream {
            Upstream::Udp(socket) => UdpUpstream::Local(socket),
            Upstream::Stream(stream) => UdpUpstream::Remote(DatagramStream::new(stream)),
            // Nobody asked for that.
            Upstream::Tcp(_) => return,
        };
        let mut table = router.table();
        table.mark_changed();
        let mut spoke = Instant::now();
        let mut failed = way.send(&first.bytes).is_err();
        drop(first);
        while !failed {
            tokio::select! {
                datagram = datagrams.recv() => {
                    let Some(Datagram { bytes, .. }) = datagram else { return };
                    spoke = Instant::now();
                    failed = way.send(&bytes).is_err();
                }
                answer = way.receive() => match answer {
                    Ok(answer) => {
                        spoke = Instant::now();
                        // As from the network, an answer may be lost.
                        let _ = socket.try_send_to(&answer, client);
                    }
                    Err(_) => failed = true,
                },
                changed = table.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let routes = Arc::clone(&table.borrow_and_update());
                    let there = routes.services.get(&service);
                    let there = there.is_some_and(|routes| routes.endpoints.contains(&endpoint));
                    if !there || router.inner.connections.is_leaving(&endpoint.instance) {
                        break;
                    }
                }
                () = tokio::time::sleep_until((spoke + IDLE_TIMEOUT).into()) => return,
            }
        }
        if failed {
            let suspect = Ejected::Instance(endpoint.instance);
            router.inner.balancer.eject(suspect, Instant::now());
        }
    }
}

/// Copies between an instance here and the stream of another member, until the stream or the instance ends.
pub(super) async fn records(instance: UdpSocket, stream: Compat<Stream>) {
    let mut stream = DatagramStream::new(stream);
    loop {
        tokio::select! {
            asked = stream.receive() => {
                let Ok(asked) = asked else { return };
                if broken(&instance.try_send(&asked)) {
                    return;
                }
            }
            answer = answer(&instance) => {
                let Ok(answer) = answer else { return };
                if stream.send(&answer).is_err() {
                    return;
                }
            }
        }
    }
}

/// The next datagram of the instance at the other end. Errors: it does not listen.
async fn answer(instance: &UdpSocket) -> io::Result<Vec<u8>> {
    instance
        .async_io(tokio::io::Interest::READABLE, || {
            with_scratch(|scratch| {
                let length = instance.try_recv(scratch)?;
                Ok(scratch[..length].to_vec())
            })
        })
        .await
}

/// Whether a datagram was not just lost.
fn broken<T>(sent: &io::Result<T>) -> bool {
    matches!(sent, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

enum UdpUpstream {
    Local(UdpSocket),
    Remote(DatagramStream),
}

impl UdpUpstream {
    /// Sends, or loses the datagram. Errors: the way is broken.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(socket) => match socket.try_send(bytes) {
                sent if broken(&sent) => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(()),
            },
            Self::Remote(stream) => stream.send(bytes),
        }
    }

    /// The next answer. Loses none when it is dropped. Errors: the way is broken.
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Local(socket) => answer(socket).await,
            Self::Remote(stream) => stream.receive().await,
        }
    }
}

/// DatagramStream as records on a stream.
struct DatagramStream {
    stream: Compat<Stream>,
    /// RecordStream that are not written yet; `written` bytes of them are.
    behind: Vec<u8>,
    written: usize,
    /// The beginning of a record.
    begun: Vec<u8>,
}

impl DatagramStream {
    fn new(stream: Compat<Stream>) -> Self {
        Self { stream, behind: Vec::new(), written: 0, begun: Vec::new() }
    }

    /// Has a datagram sent by the next [`Self::receive`], or drops it when too many wait. Errors: it is no datagram.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
        if self.behind.len() + bytes.len() <= MAX_UNSENT {
            self.behind.extend(length.to_be_bytes());
            self.behind.extend(bytes);
        }
        Ok(())
    }

    /// The next datagram; sends meanwhile. Loses none when it is dropped. Errors: the stream broke or ended.
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        std::future::poll_fn(|cx| {
            self.poll_send(cx)?;
            loop {
                if let Some(datagram) = self.next() {
                    return Poll::Ready(Ok(datagram));
                }
                ready!(self.poll_read(cx))?;
            }
        })
        .await
    }

    /// Writes what the stream takes now. Errors: it broke.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.written < self.behind.len() {
            let rest = &self.behind[self.written..];
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.written += written?,
            }
        }
        if self.written > 0 {
            (self.behind, self.written) = (Vec::new(), 0);
        }
        if let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx) {
            flushed?;
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_scratch(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.begun.extend(buffer.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Takes a whole record from what was read.
    fn next(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.begun.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let datagram = rest.get(..length)?.to_vec();
        self.begun.drain(..2 + length);
        if self.begun.is_empty() {
            self.begun = Vec::new();
        }
        Some(datagram)
    }
}

// A record holds every datagram there is.
const _: () = assert!(MAX_RECORD >= 65_507);
