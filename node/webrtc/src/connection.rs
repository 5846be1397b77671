//! A connection as libp2p sees it: who is at the other end, and streams.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::FutureExt;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::sync::{mpsc, oneshot};

use crate::stream::Stream;

/// Why a connection is over.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// The peer said good-bye, or this side closed.
    #[error("the connection is closed")]
    Closed,
    /// Nothing was heard of the peer for a while.
    #[error("nothing was heard of the browser for {0} s")]
    Silent(u64),
    /// The peer broke the rules of a protocol, or ran into a limit.
    #[error("the connection failed: {0}")]
    Failed(String),
}

/// A connection that a browser made. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    inbound: mpsc::Receiver<Stream>,
    open: mpsc::Sender<oneshot::Sender<Stream>>,
    opening: Option<oneshot::Receiver<Stream>>,
    close: Option<oneshot::Sender<()>>,
    end: oneshot::Receiver<ConnectionError>,
    ended: Option<ConnectionError>,
}

/// The task's side of a [`Connection`].
#[derive(Debug)]
pub(crate) struct Handle {
    pub inbound: mpsc::Sender<Stream>,
    pub open: mpsc::Receiver<oneshot::Sender<Stream>>,
    /// Resolves when the connection is to be closed.
    pub close: oneshot::Receiver<()>,
    pub end: Option<oneshot::Sender<ConnectionError>>,
}

/// The two sides. At most `streams` wait for the application to take them.
pub(crate) fn connection(streams: usize) -> (Connection, Handle) {
    let (inbound_sender, inbound) = mpsc::channel(streams);
    // The application asks for one stream after the other.
    let (open, open_receiver) = mpsc::channel(1);
    let (close, close_receiver) = oneshot::channel();
    let (end_sender, end) = oneshot::channel();
    let connection =
        Connection { inbound, open, opening: None, close: Some(close), end, ended: None };
    let handle = Handle {
        inbound: inbound_sender,
        open: open_receiver,
        close: close_receiver,
        end: Some(end_sender),
    };
    (connection, handle)
}

impl Connection {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionError> {
        if self.ended.is_none() {
            self.ended = Some(ready!(self.end.poll_unpin(cx)).unwrap_or(ConnectionError::Closed));
        }
        Poll::Ready(self.ended.clone().unwrap_or(ConnectionError::Closed))
    }
}

impl StreamMuxer for Connection {
    type Substream = Stream;
    type Error = ConnectionError;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        match ready!(self.inbound.poll_recv(cx)) {
            Some(stream) => Poll::Ready(Ok(stream)),
            None => self.poll_end(cx).map(Err),
        }
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Stream, ConnectionError>> {
        loop {
            if let Some(opening) = &mut self.opening {
                let opened = ready!(opening.poll_unpin(cx));
                self.opening = None;
                return match opened {
                    Ok(stream) => Poll::Ready(Ok(stream)),
                    Err(_) => self.poll_end(cx).map(Err),
                };
            }
            let (sender, receiver) = oneshot::channel();
            if self.open.try_send(sender).is_err() {
                return self.poll_end(cx).map(Err);
            }
            self.opening = Some(receiver);
        }
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ConnectionError>> {
        self.close = None;
        self.poll_end(cx).map(|_| Ok(()))
    }

    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<StreamMuxerEvent, ConnectionError>> {
        self.poll_end(cx).map(Err)
    }
}
