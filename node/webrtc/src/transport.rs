//! The libp2p [`Transport`]: listeners, their addresses and incoming connections.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::future;
use if_watch::{IfEvent, tokio::IfWatcher};
use libp2p::{
    Multiaddr, PeerId,
    core::transport::{DialOpts, ListenerId, TransportError, TransportEvent},
    identity::Keypair,
};
use tokio::{sync::mpsc, task::AbortHandle};

use crate::{
    address,
    association::AssociationConfig,
    certificate::{Certificate, Fingerprint},
    connection::Connection,
    driver::{Established, Shared},
    limiter::Limits,
    listener::Listener,
    socket::Socket,
};

/// Authenticated connections waiting for the swarm; more are dropped.
const ACCEPT_QUEUE: usize = 64;

/// Configuration of a [`Transport`].
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's identity.
    pub key: Keypair,
    /// The DTLS certificate, whose hash the node's addresses contain.
    pub certificate: Certificate,
    /// Limits of each listener.
    pub limits: Limits,
}

/// A failure to listen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket or the interface watcher failed.
    #[error("cannot listen for WebRTC: {0}")]
    Io(#[from] io::Error),
    /// The DTLS configuration is invalid.
    #[error("cannot configure DTLS: {0}")]
    Dtls(#[from] dimpl::Error),
}

/// Accepts browsers on `/ip4|ip6/…/udp/PORT/webrtc-direct`. Cannot dial.
///
/// Runs its sockets and connections as tasks of the tokio runtime in which [`listen_on`](libp2p::Transport::listen_on) is called.
/// Removing a listener closes its connections, which share its socket.
#[derive(Debug)]
pub struct Transport {
    config: Config,
    fingerprint: Fingerprint,
    listeners: Vec<ListenerHandle>,
    events: VecDeque<Event>,
    waker: Option<Waker>,
}

type Upgrade = future::Ready<Result<(PeerId, Connection), Error>>;
type Event = TransportEvent<Upgrade, Error>;

#[derive(Debug)]
struct ListenerHandle {
    id: ListenerId,
    address: SocketAddr,
    accepted: mpsc::Receiver<Established>,
    /// Reports the host's addresses, for a socket bound to all of them.
    interfaces: Option<IfWatcher>,
    task: AbortHandle,
}

impl Transport {
    /// Creates a transport without listeners.
    pub fn new(config: Config) -> Self {
        let fingerprint = config.certificate.fingerprint();
        Self { config, fingerprint, listeners: Vec::new(), events: VecDeque::new(), waker: None }
    }

    fn listen(&mut self, id: ListenerId, address: SocketAddr) -> Result<(), Error> {
        let limits = self.config.limits;
        let socket = Socket::bind(address)?;
        let address = socket.local_addr()?;
        let interfaces = address.ip().is_unspecified().then(IfWatcher::new).transpose()?;
        let shared = Arc::new(Shared {
            socket,
            association: AssociationConfig::new(
                self.config.certificate.clone(),
                limits.handshake_timeout,
            )?,
            key: self.config.key.clone(),
            fingerprint: self.fingerprint,
            handshake_timeout: limits.handshake_timeout,
            idle_timeout: limits.idle_timeout,
        });
        let (sender, accepted) = mpsc::channel(ACCEPT_QUEUE);
        let task = tokio::spawn(Listener::new(shared, limits, sender).run()).abort_handle();
        if interfaces.is_none() {
            let listen_addr = address::dialable(address, &self.fingerprint);
            self.events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr });
        }
        self.listeners.push(ListenerHandle { id, address, accepted, interfaces, task });
        Ok(())
    }
}

impl ListenerHandle {
    fn poll(&mut self, fingerprint: &Fingerprint, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(event) = self.poll_interfaces(fingerprint, cx) {
            return Poll::Ready(event);
        }
        match self.accepted.poll_recv(cx) {
            Poll::Ready(Some(Established { peer, connection, remote, local })) => {
                let local =
                    SocketAddr::new(local.unwrap_or(self.address.ip()), self.address.port());
                Poll::Ready(TransportEvent::Incoming {
                    listener_id: self.id,
                    upgrade: future::ready(Ok((peer, connection))),
                    local_addr: address::dialable(local, fingerprint),
                    send_back_addr: address::multiaddr(remote),
                })
            }
            // The listener's task ends only with the transport.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_interfaces(&mut self, fingerprint: &Fingerprint, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(interfaces) = &mut self.interfaces else { return Poll::Pending };
        while let Poll::Ready(event) = interfaces.poll_if_event(cx) {
            let listener_id = self.id;
            let same_family = |ip: IpAddr| ip.is_ipv4() == self.address.is_ipv4();
            let dialable =
                |ip| address::dialable(SocketAddr::new(ip, self.address.port()), fingerprint);
            match event {
                Ok(IfEvent::Up(net)) if same_family(net.addr()) => {
                    let listen_addr = dialable(net.addr());
                    return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
                }
                Ok(IfEvent::Down(net)) if same_family(net.addr()) => {
                    let listen_addr = dialable(net.addr());
                    return Poll::Ready(TransportEvent::AddressExpired {
                        listener_id,
                        listen_addr,
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    // The socket keeps working; later addresses of the host are not announced.
                    self.interfaces = None;
                    return Poll::Ready(TransportEvent::ListenerError {
                        listener_id,
                        error: error.into(),
                    });
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for ListenerHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl libp2p::Transport for Transport {
    type Output = (PeerId, Connection);
    type Error = Error;
    type ListenerUpgrade = Upgrade;
    type Dial = future::Pending<Result<Self::Output, Error>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Error>> {
        let Some(socket) = address::socket_address(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        self.listen(id, socket).map_err(TransportError::Other)?;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(at) = self.listeners.iter().position(|listener| listener.id == id) else {
            return false;
        };
        self.listeners.remove(at);
        self.events.push_back(TransportEvent::ListenerClosed { listener_id: id, reason: Ok(()) });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        true
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<Error>> {
        Err(TransportError::MultiaddrNotSupported(address))
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Event> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        let Self { listeners, fingerprint, .. } = &mut *self;
        for listener in listeners {
            if let Poll::Ready(event) = listener.poll(fingerprint, cx) {
                return Poll::Ready(event);
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
