//! A control session: requests and replies, one after another, on the stream that the handshake leaves open.

use std::time::Duration;

use futures::{Stream, StreamExt as _};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::bytes::Bytes;
use vc_protocol::control::{Change, Reply, Request};
use vc_protocol::{ApiError, ErrorCode, NodeId, wire};

use crate::frames::{FrameError, Frames, FramesIn, FramesOut};
use crate::race::Behaviour;

/// The longest time between a request and its reply, or two replies of a run.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest frame of a byte stream that a client sends, in bytes.
const STREAM_FRAME: usize = 1024 * 1024;
/// The longest time that closing the connection takes. The node does not answer; the close only has to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(50);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The node refused it. Nothing has changed unless the code is [`ErrorCode::Aborted`].
    #[error(transparent)]
    Refused(ApiError),
    /// The connection to the node was lost. It is not known whether the request was carried out.
    #[error("lost the connection to the node before it answered ({0})")]
    Lost(String),
    /// The node did not reply in time. It is not known whether the request was carried out.
    #[error("the node did not answer within {} s", REPLY_TIMEOUT.as_secs())]
    TimedOut,
    /// The reply is of the wrong kind or cannot be read.
    #[error("this version of vc does not understand the node's answer")]
    Unexpected,
    /// The request exceeds [`wire::MAX_FRAME`]; it was not sent.
    #[error("the request is larger than {} MiB", wire::MAX_FRAME >> 20)]
    TooLarge,
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        let (code, hint) = match &error {
            SessionError::Refused(refused) => return refused.clone(),
            SessionError::Lost(_) => (ErrorCode::Unavailable, "try again"),
            SessionError::TimedOut => (ErrorCode::DeadlineExceeded, "try again"),
            SessionError::Unexpected => {
                (ErrorCode::Unimplemented, "use the version of vc that the nodes run")
            }
            SessionError::TooLarge => (ErrorCode::InvalidArgument, "split the file"),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

impl From<FrameError> for SessionError {
    fn from(error: FrameError) -> Self {
        match error {
            error if error.is_too_large() => Self::TooLarge,
            FrameError::Io(error) => Self::Lost(error.kind().to_string()),
            FrameError::Closed => Self::Lost("closed by the node".to_owned()),
            FrameError::Json(_) | FrameError::Cbor(_) => Self::Unexpected,
        }
    }
}

/// Why [`Session::send_stream`] failed.
#[derive(Debug, thiserror::Error)]
pub enum SendStreamError<E> {
    /// The source of the bytes failed.
    #[error(transparent)]
    Source(E),
    /// The node refused, or the connection was lost.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Takes the value of the expected [`Reply`] variant; any other reply is [`SessionError::Unexpected`].
#[macro_export]
macro_rules! expect_reply {
    ($reply:expr, $variant:ident) => {
        match $reply {
            vc_protocol::control::Reply::$variant(value) => Ok(value),
            _ => Err($crate::SessionError::Unexpected),
        }
    };
}

/// A control session with one member.
pub struct Session {
    frames: Frames<libp2p::Stream>,
    address: Multiaddr,
    connection: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Session {
    /// Starts a session on this stream of the swarm's connection to `node`.
    pub(crate) fn new(
        frames: Frames<libp2p::Stream>,
        node: NodeId,
        address: Multiaddr,
        swarm: Swarm<Behaviour>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let connection = tokio::spawn(run_connection(swarm, node, stopped));
        Self { frames, address, connection, stop }
    }

    /// Returns the address at which the member was reached, with its peer id.
    pub fn address(&self) -> &Multiaddr {
        &self.address
    }

    /// Sends a request that one reply answers, and waits for that.
    pub async fn ask(&mut self, request: &Request) -> Result<Reply, SessionError> {
        self.send(request).await?;
        self.receive_result().await
    }

    /// Sends a request that changes something; returns what it changed.
    pub async fn change(&mut self, request: &Request) -> Result<Vec<Change>, SessionError> {
        expect_reply!(self.ask(request).await?, Done)
    }

    /// Sends a request; [`receive`](Self::receive) and [`receive_result`](Self::receive_result) return the replies.
    pub async fn send(&mut self, request: &Request) -> Result<(), SessionError> {
        Ok(self.frames.send(request).await?)
    }

    /// Waits for the next reply, without a time limit. [`Reply::Error`] becomes an error.
    pub async fn receive(&mut self) -> Result<Reply, SessionError> {
        refuse_errors(self.frames.receive().await)
    }

    /// Waits for the next reply that is not [`Reply::KeepAlive`], which nodes send while a request takes time.
    pub async fn receive_result(&mut self) -> Result<Reply, SessionError> {
        loop {
            let reply = timeout(REPLY_TIMEOUT, self.receive()).await;
            match reply.unwrap_or(Err(SessionError::TimedOut))? {
                Reply::KeepAlive => {}
                reply => return Ok(reply),
            }
        }
    }

    /// Sends `pieces` as frames of bytes and an empty frame at the end, then returns the reply. A reply that arrives
    /// before the end is an answer too and ends it. Calls `sent` with the size of each frame in bytes.
    pub async fn send_stream<E>(
        &mut self,
        pieces: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
        mut sent: impl FnMut(u64),
    ) -> Result<Reply, SendStreamError<E>> {
        let (mut sink, mut replies) = self.frames.split();
        let send = async {
            while let Some(piece) = pieces.next().await {
                let mut piece = piece.map_err(SendStreamError::Source)?;
                // An empty frame would be the end.
                while !piece.is_empty() {
                    let part = piece.split_to(piece.len().min(STREAM_FRAME));
                    let length = part.len() as u64;
                    sink.send_bytes(part).await.map_err(SessionError::from)?;
                    sent(length);
                }
            }
            sink.send_bytes(Bytes::new()).await.map_err(SessionError::from)?;
            Ok::<_, SendStreamError<E>>(())
        };
        let early = tokio::select! {
            biased;
            early = replies.receive() => Some(early),
            result = send => {
                result?;
                None
            }
        };
        drop((sink, replies));
        match early {
            None => Ok(self.receive_result().await?),
            Some(early) => Ok(refuse_errors(early)?),
        }
    }

    /// Borrows the two directions of the stream, which carry frames of bytes after [`Reply::Ready`].
    pub fn split(&mut self) -> (FramesOut<'_, libp2p::Stream>, FramesIn<'_, libp2p::Stream>) {
        self.frames.split()
    }

    /// Closes the connection, so that the node does not wait for its idle timeout. It is the connection that is closed
    /// and not the stream, which over QUIC would wait for an acknowledgement.
    pub async fn close(self) {
        let Self { frames, connection, stop, .. } = self;
        drop(frames);
        // Both fail only where the connection has ended already.
        let _ = stop.send(());
        let _ = timeout(CLOSE_TIMEOUT, connection).await;
    }
}

fn refuse_errors(reply: Result<Reply, FrameError>) -> Result<Reply, SessionError> {
    match reply? {
        Reply::Error(error) => Err(SessionError::Refused(error)),
        reply => Ok(reply),
    }
}

/// Drives the connection until the session ends, and closes those that lost the race.
async fn run_connection(
    mut swarm: Swarm<Behaviour>,
    node: NodeId,
    mut stopped: oneshot::Receiver<()>,
) {
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
