//! UDP forwarding: each client address has a session for each address of this host that it asks, which keeps its instance
//! while that is available.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;
use vc_protocol::ServiceKey;
use vc_protocol::route::MAX_RECORD;

use super::load_balancer::{Ejected, Scope};
use super::record::RecordStream;
use super::router::{Route, Router};
use super::splice::with_scratch;
use super::udp_socket::{Ends, ReplySocket};
use super::upstream::UdpUpstream;
use crate::dns::Admit;

/// Limit of sessions of one port; a new one replaces the one whose client was silent longest.
pub const MAX_SESSIONS: usize = 4096;
/// A session with no datagram in either direction for this long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit of queued datagrams of one session; more are dropped, as a network does under load.
const MAX_QUEUED: usize = 64;
/// Limit of bytes queued for all sessions of one port.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;
/// Limit of unsent bytes of one session's stream; datagrams over it are dropped.
const MAX_UNSENT: usize = 256 * 1024;

// A record holds the largest UDP datagram.
const _: () = assert!(MAX_RECORD >= 65_507);

/// A datagram of a client.
struct Datagram {
    bytes: Vec<u8>,
    /// Permits for its length of [`MAX_QUEUED_BYTES`].
    _permit: OwnedSemaphorePermit,
}

struct Session {
    queue: mpsc::Sender<Datagram>,
    last_received: Instant,
    _task: AbortOnDropHandle<()>,
}

/// Forwards datagrams of a socket whose client address is admitted (`None`: all), for as long as it is polled.
pub(super) async fn serve(
    router: Router,
    socket: UdpSocket,
    service: ServiceKey,
    port: u16,
    scope: Scope,
    admit: Option<Admit>,
) {
    let socket = match ReplySocket::new(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            tracing::error!(%service, port, %error, "cannot serve a UDP port");
            return;
        }
    };
    let queued_bytes = Arc::new(Semaphore::new(MAX_QUEUED_BYTES));
    let mut sessions: HashMap<Ends, Session> = HashMap::new();
    loop {
        let Ok((ends, bytes)) = socket.receive().await else { continue };
        let Ok(length) = u32::try_from(bytes.len()) else { continue };
        let Ok(permit) = Arc::clone(&queued_bytes).try_acquire_many_owned(length) else { continue };
        let mut datagram = Datagram { bytes, _permit: permit };
        if let Some(session) = sessions.get_mut(&ends) {
            session.last_received = Instant::now();
            match session.queue.try_send(datagram) {
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => continue,
                // The session has ended: begin another one.
                Err(mpsc::error::TrySendError::Closed(unsent)) => datagram = unsent,
            }
        }
        sessions.retain(|_, session| !session.queue.is_closed());
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.last_received);
            if let Some(oldest) = oldest.map(|(ends, _)| *ends) {
                sessions.remove(&oldest);
            }
        }
        let (queue, datagrams) = mpsc::channel(MAX_QUEUED);
        // An empty queue accepts it.
        let _ = queue.try_send(datagram);
        let session = run_session(
            router.clone(),
            Arc::clone(&socket),
            ends,
            datagrams,
            (service.clone(), port, scope),
        );
        let admit = admit.clone();
        let session = async move {
            let admitted = match admit {
                Some(admit) => admit(ends.client.ip()).await,
                None => true,
            };
            if admitted {
                session.await;
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(session));
        sessions.insert(ends, Session { queue, last_received: Instant::now(), _task: task });
    }
}

/// Forwards the datagrams of one client, to the next instance when its own fails, until the session is idle.
async fn run_session(
    router: Router,
    socket: Arc<ReplySocket>,
    ends: Ends,
    mut datagrams: mpsc::Receiver<Datagram>,
    (service, port, scope): (ServiceKey, u16, Scope),
) {
    loop {
        let Ok(Some(first)) = tokio::time::timeout(IDLE_TIMEOUT, datagrams.recv()).await else {
            return;
        };
        let connected = Box::pin(router.connect::<UdpUpstream>(&service, port, scope)).await;
        let Some(Route { endpoint, mut upstream, permit: _permit, .. }) = connected else {
            continue;
        };
        let mut table = router.table();
        table.mark_changed();
        let mut last_active = Instant::now();
        let mut failed = upstream.send(&first.bytes).is_err();
        drop(first);
        while !failed {
            tokio::select! {
                datagram = datagrams.recv() => {
                    let Some(Datagram { bytes, .. }) = datagram else { return };
                    last_active = Instant::now();
                    failed = upstream.send(&bytes).is_err();
                }
                answer = upstream.receive() => match answer {
                    Ok(answer) => {
                        last_active = Instant::now();
                        // Dropped when the socket's buffer is full.
                        let _ = socket.try_send(&ends, &answer);
                    }
                    Err(_) => failed = true,
                },
                changed = table.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let routes = Arc::clone(&table.borrow_and_update());
                    let available = routes.services.get(&service);
                    let available = available.is_some_and(|it| it.endpoints.contains(&endpoint));
                    if !available || router.inner.connections.is_draining(&endpoint.instance) {
                        break;
                    }
                }
                () = tokio::time::sleep_until((last_active + IDLE_TIMEOUT).into()) => return,
            }
        }
        if failed {
            router.inner.balancer.eject(Ejected::Instance(endpoint.instance), Instant::now());
        }
    }
}

/// Forwards datagrams between an instance on this node and another member's stream, until either closes.
pub(super) async fn forward_records(instance: UdpSocket, mut stream: RecordStream) {
    loop {
        tokio::select! {
            datagram = receive_record(&mut stream) => {
                let Ok(datagram) = datagram else { return };
                if is_refused(&instance.try_send(&datagram)) {
                    return;
                }
            }
            answer = receive(&instance) => {
                let Ok(answer) = answer else { return };
                queue_record(&mut stream, &answer);
            }
        }
    }
}

/// Receives a datagram of a connected socket. Errors: the instance does not listen on the port.
async fn receive(instance: &UdpSocket) -> io::Result<Vec<u8>> {
    instance
        .async_io(tokio::io::Interest::READABLE, || {
            with_scratch(|scratch| {
                let length = instance.try_recv(scratch)?;
                Ok(scratch[..length].to_vec())
            })
        })
        .await
}

/// Returns whether sending failed because the port is closed; other failures lose one datagram.
fn is_refused<T>(sent: &io::Result<T>) -> bool {
    matches!(sent, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Queues a datagram, which [`receive_record`] sends, or drops it when the stream is over [`MAX_UNSENT`].
fn queue_record(stream: &mut RecordStream, datagram: &[u8]) {
    if stream.buffered() + datagram.len() <= MAX_UNSENT {
        stream.queue(datagram);
    }
}

/// Receives a datagram, and sends queued ones meanwhile. Cancel-safe. Errors: the stream closed.
async fn receive_record(stream: &mut RecordStream) -> io::Result<Vec<u8>> {
    std::future::poll_fn(|cx| {
        if let Poll::Ready(sent) = stream.poll_unsent(cx) {
            sent?;
        }
        stream.poll_record(cx)
    })
    .await
}

impl UdpUpstream {
    /// Sends or drops a datagram. Errors: the port is closed.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(socket) => match socket.try_send(datagram) {
                sent if is_refused(&sent) => Err(io::ErrorKind::ConnectionRefused.into()),
                _ => Ok(()),
            },
            Self::Remote(stream) => {
                queue_record(stream, datagram);
                Ok(())
            }
        }
    }

    /// Receives an answer. Cancel-safe. Errors: the port or the stream is closed.
    async fn receive(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Local(socket) => receive(socket).await,
            Self::Remote(stream) => receive_record(stream).await,
        }
    }
}
