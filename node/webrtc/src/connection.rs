//! A connection as libp2p sees it: a stream muxer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::FutureExt;
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use tokio::sync::{mpsc, oneshot};

use crate::{error::ConnectionError, stream::Stream};

/// A connection that a browser opened. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    inbound: mpsc::Receiver<Stream>,
    open: mpsc::Sender<oneshot::Sender<Stream>>,
    opening: Option<oneshot::Receiver<Stream>>,
    close: Option<oneshot::Sender<()>>,
    end: oneshot::Receiver<ConnectionError>,
    /// The result of `end`, which can be received only once.
    ended: Option<ConnectionError>,
}

/// The task's side of a [`Connection`].
#[derive(Debug)]
pub(crate) struct Handle {
    /// The application's requests for outbound streams.
    pub open: mpsc::Receiver<oneshot::Sender<Stream>>,
    /// Completes when the application closes the connection.
    pub close: oneshot::Receiver<()>,
    /// Takes the reason when the connection ends.
    pub end: Option<oneshot::Sender<ConnectionError>>,
}

/// Creates a connection, the sender of its inbound streams, and the task's handle. At most `streams` wait for the application.
pub(crate) fn connection(streams: usize) -> (Connection, mpsc::Sender<Stream>, Handle) {
    let (inbound_sender, inbound) = mpsc::channel(streams);
    // `poll_outbound` requests one stream at a time.
    let (open, open_receiver) = mpsc::channel(1);
    let (close, close_receiver) = oneshot::channel();
    let (end_sender, end) = oneshot::channel();
    let connection =
        Connection { inbound, open, opening: None, close: Some(close), end, ended: None };
    let handle = Handle { open: open_receiver, close: close_receiver, end: Some(end_sender) };
    (connection, inbound_sender, handle)
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
