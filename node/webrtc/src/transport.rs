//! The [`Transport`] of libp2p: listeners, their addresses, and the connections that came in.

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
    admission::Limits,
    certificate::{Certificate, Fingerprint},
    connection::Connection,
    driver::{Established, Shared},
    link::LinkConfig,
    listener::Listener,
    socket::Socket,
};

/// Connections that wait for the swarm to take them; beyond that they are dropped.
const ACCEPTED: usize = 64;

/// What a [`Transport`] needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this node is.
    pub key: Keypair,
    /// The certificate that its addresses name.
    pub certificate: Certificate,
    /// What it takes from strangers.
    pub limits: Limits,
}

/// Why the transport cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket, or the watch over the node's addresses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The certificate does not do for DTLS.
    #[error("cannot set up DTLS: {0}")]
    Dtls(#[from] dimpl::Error),
}

/// Accepts browsers on `/ip4|ip6/…/udp/PORT/webrtc-direct`. It dials nobody.
///
/// Its sockets and connections live in tasks of the tokio runtime in which [`listen_on`](libp2p::Transport::listen_on) is
/// called. Removing a listener closes the connections that came in by it, for they share its socket.
#[derive(Debug)]
pub struct Transport {
    config: Config,
    fingerprint: Fingerprint,
    listeners: Vec<Listening>,
    events: VecDeque<Event>,
    waker: Option<Waker>,
}

type Upgrade = future::Ready<Result<(PeerId, Connection), Error>>;
type Event = TransportEvent<Upgrade, Error>;

#[derive(Debug)]
struct Listening {
    id: ListenerId,
    address: SocketAddr,
    accepted: mpsc::Receiver<Established>,
    /// For a socket that listens on all addresses of the node.
    interfaces: Option<IfWatcher>,
    task: AbortHandle,
}

impl Transport {
    /// A transport without listeners.
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
            link: LinkConfig::new(self.config.certificate.clone(), limits.handshake)?,
            key: self.config.key.clone(),
            fingerprint: self.fingerprint,
            handshake: limits.handshake,
            silence: limits.silence,
        });
        let (sender, accepted) = mpsc::channel(ACCEPTED);
        let task = tokio::spawn(Listener::new(shared, limits, sender).run()).abort_handle();
        if interfaces.is_none() {
            let listen_addr = address::dialled(address, &self.fingerprint);
            self.events.push_back(TransportEvent::NewAddress { listener_id: id, listen_addr });
        }
        self.listeners.push(Listening { id, address, accepted, interfaces, task });
        Ok(())
    }
}

impl Listening {
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
                    local_addr: address::dialled(local, fingerprint),
                    send_back_addr: address::multiaddr(remote),
                })
            }
            // The task ends only with the transport.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_interfaces(&mut self, fingerprint: &Fingerprint, cx: &mut Context<'_>) -> Poll<Event> {
        let Some(interfaces) = &mut self.interfaces else { return Poll::Pending };
        while let Poll::Ready(event) = interfaces.poll_if_event(cx) {
            let listener_id = self.id;
            let ours = |ip: IpAddr| ip.is_ipv4() == self.address.is_ipv4();
            let dialled =
                |ip| address::dialled(SocketAddr::new(ip, self.address.port()), fingerprint);
            match event {
                Ok(IfEvent::Up(net)) if ours(net.addr()) => {
                    let listen_addr = dialled(net.addr());
                    return Poll::Ready(TransportEvent::NewAddress { listener_id, listen_addr });
                }
                Ok(IfEvent::Down(net)) if ours(net.addr()) => {
                    let listen_addr = dialled(net.addr());
                    return Poll::Ready(TransportEvent::AddressExpired {
                        listener_id,
                        listen_addr,
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    // The socket serves on; new addresses of the node stay unknown.
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

impl Drop for Listening {
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
        let Some(at) = self.listeners.iter().position(|listening| listening.id == id) else {
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
        for listening in listeners {
            if let Poll::Ready(event) = listening.poll(fingerprint, cx) {
                return Poll::Ready(event);
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
