//! A session: requests and replies, one after another, on the stream that authentication left us.

use std::io;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, Stream, StreamExt as _};
use libp2p::bytes::{Bytes, BytesMut};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vc_protocol::NodeId;
use vc_protocol::control::{Reply, Request};

use super::auth::Frames;
use super::dial::Behaviour;

/// A member answers a request within this time.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest frame of a stream of bytes.
const STREAM_FRAME: usize = 1024 * 1024;
/// So long may a goodbye take. It needs no answer, only the chance to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(50);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// The member says why; nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// The member is gone. Whether it did what was asked is not known.
    #[error("lost the connection to the node before it answered ({0}); try again")]
    Lost(String),
    /// The member says nothing. Whether it did what was asked is not known.
    #[error("the node did not answer within {} s; try again", REPLY_TIMEOUT.as_secs())]
    Silent,
    /// Not an answer to what was asked.
    #[error("the node's answer makes no sense to this version of vc")]
    Unexpected,
    /// More than fits in one request.
    #[error("the request is larger than {} MiB: split the file", vc_protocol::wire::MAX_FRAME >> 20)]
    TooLarge,
}

/// The value of the reply that a request calls for; any other is an error.
macro_rules! expect_reply {
    ($reply:expr, $variant:ident) => {
        match $reply {
            vc_protocol::control::Reply::$variant(value) => Ok(value),
            _ => Err($crate::client::SessionError::Unexpected),
        }
    };
}
pub(crate) use expect_reply;

/// A session with a member.
pub(crate) struct Session {
    frames: Frames,
    address: Multiaddr,
    driver: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Session {
    /// On this stream of the swarm's connection to `node`.
    pub(super) fn new(
        frames: Frames,
        node: NodeId,
        address: Multiaddr,
        swarm: Swarm<Behaviour>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let driver = tokio::spawn(drive(swarm, node, stopped));
        Self { frames, address, driver, stop }
    }

    /// Where the member was reached.
    pub(super) fn address(&self) -> &Multiaddr {
        &self.address
    }

    /// Sends a request that is answered by one reply.
    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Reply, SessionError> {
        self.send(request).await?;
        timeout(REPLY_TIMEOUT, self.next()).await.unwrap_or(Err(SessionError::Silent))
    }

    /// Sends a request that changes something; says what it changed.
    pub(crate) async fn change(&mut self, request: &Request) -> Result<Vec<String>, SessionError> {
        expect_reply!(self.ask(request).await?, Done)
    }

    /// Sends such requests, one after another, and adds what each changed to `lines`. The first refusal ends it.
    pub(crate) async fn change_all(
        &mut self,
        requests: &[Request],
        lines: &mut Vec<String>,
    ) -> Result<(), SessionError> {
        for request in requests {
            lines.extend(self.change(request).await?);
        }
        Ok(())
    }

    /// Sends a request; [`next`](Self::next) gives the replies.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), SessionError> {
        let bytes = serde_json::to_vec(request).map_err(|_| SessionError::Unexpected)?;
        self.frames.send(&bytes[..]).await.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => SessionError::TooLarge,
            kind => SessionError::Lost(kind.to_string()),
        })
    }

    /// The next reply to what takes time, or never ends: the member says from time to time that it is at it.
    pub(crate) async fn patient_reply(&mut self) -> Result<Reply, SessionError> {
        loop {
            match timeout(REPLY_TIMEOUT, self.next()).await.unwrap_or(Err(SessionError::Silent))? {
                Reply::KeepAlive => {}
                reply => return Ok(reply),
            }
        }
    }

    /// Sends these pieces as frames of bytes, and an empty one at the end; gives the reply. One that comes before the
    /// end is a refusal, and ends it. `sent` hears how many bytes went.
    pub(crate) async fn send_stream(
        &mut self,
        pieces: &mut (impl Stream<Item = anyhow::Result<Bytes>> + Unpin),
        mut sent: impl FnMut(u64),
    ) -> anyhow::Result<Reply> {
        let (mut sink, mut replies) = (&mut self.frames).split();
        let send = async {
            let lost = |error: io::Error| SessionError::Lost(error.kind().to_string());
            while let Some(piece) = pieces.next().await {
                // An empty one would be the end; a long one would not pass.
                for part in piece?.chunks(STREAM_FRAME) {
                    sink.send(Bytes::copy_from_slice(part)).await.map_err(lost)?;
                    sent(part.len() as u64);
                }
            }
            sink.send(Bytes::new()).await.map_err(lost)?;
            anyhow::Ok(())
        };
        let early = tokio::select! {
            biased;
            early = replies.next() => Some(early),
            result = send => {
                result?;
                None
            }
        };
        drop((sink, replies));
        match early {
            None => Ok(self.patient_reply().await?),
            Some(early) => Ok(reply_in(early)?),
        }
    }

    /// The next reply.
    pub(crate) async fn next(&mut self) -> Result<Reply, SessionError> {
        reply_in(self.frames.next().await)
    }

    /// Both directions, as frames of bytes: what they are after [`Reply::Ready`].
    pub(crate) fn split(&mut self) -> (FramesOut<'_>, FramesIn<'_>) {
        let (sink, stream) = (&mut self.frames).split();
        (FramesOut(sink), FramesIn(stream))
    }

    /// Says goodbye, so that the member need not wait for us; takes a moment at most. The connection is closed and not
    /// the stream: over QUIC the latter would wait for an acknowledgement.
    pub(crate) async fn close(self) {
        let Self { frames, driver, stop, .. } = self;
        drop(frames);
        // It fails only where the driver has ended; either way there is nobody left to tell.
        let _ = stop.send(());
        let _ = timeout(CLOSE_TIMEOUT, driver).await;
    }
}

/// The outgoing direction of a session.
pub(crate) struct FramesOut<'a>(SplitSink<&'a mut Frames, Bytes>);

impl FramesOut<'_> {
    /// Sends one frame, once there is room for it.
    pub(crate) async fn send(&mut self, bytes: Vec<u8>) -> Result<(), SessionError> {
        self.0
            .send(bytes.into())
            .await
            .map_err(|error| SessionError::Lost(error.kind().to_string()))
    }
}

/// The incoming direction of a session.
pub(crate) struct FramesIn<'a>(SplitStream<&'a mut Frames>);

impl FramesIn<'_> {
    /// The next frame.
    pub(crate) async fn receive(&mut self) -> Result<BytesMut, SessionError> {
        match self.0.next().await {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(error)) => Err(SessionError::Lost(error.kind().to_string())),
            None => Err(SessionError::Lost("closed by the node".to_owned())),
        }
    }
}

/// The reply in a frame.
fn reply_in(frame: Option<io::Result<BytesMut>>) -> Result<Reply, SessionError> {
    let bytes = match frame {
        Some(Ok(bytes)) => bytes,
        Some(Err(error)) => return Err(SessionError::Lost(error.kind().to_string())),
        None => return Err(SessionError::Lost("closed by the node".to_owned())),
    };
    match serde_json::from_slice(&bytes) {
        Ok(Reply::Error(error)) => Err(SessionError::Refused(error.to_string())),
        Ok(reply) => Ok(reply),
        Err(_) => Err(SessionError::Unexpected),
    }
}

/// Lets the connection work until the session ends, and drops those that lost the race.
async fn drive(mut swarm: Swarm<Behaviour>, node: NodeId, mut stopped: oneshot::Receiver<()>) {
    let node = node.peer_id();
    let others: Vec<_> = swarm.connected_peers().copied().filter(|peer| *peer != node).collect();
    for peer in others {
        let _ = swarm.disconnect_peer_id(peer);
    }
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                    swarm.close_connection(connection_id);
                }
            }
            _ = &mut stopped => break,
        }
    }
    if swarm.disconnect_peer_id(node).is_ok() {
        while swarm.is_connected(&node) {
            swarm.select_next_some().await;
        }
    }
}
