//! The codec of streams between nodes and clients: frames, each preceded by its length in 4 bytes, big endian.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{AsyncRead, AsyncWrite, SinkExt, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use vc_protocol::wire;

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream failed, or the frame exceeds the limit (`InvalidInput` when sending, `InvalidData` when receiving).
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The peer has closed the stream.
    #[error("the peer closed the connection")]
    Closed,
    /// The frame is not the JSON value that was expected.
    #[error("malformed frame: {0}")]
    Json(#[from] serde_json::Error),
    /// The frame is not the CBOR value that was expected.
    #[error(transparent)]
    Cbor(#[from] wire::WireError),
}

impl FrameError {
    /// Returns whether a frame was not sent because it exceeds [`wire::MAX_FRAME`].
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::InvalidInput)
    }
}

/// A bidirectional byte stream: a libp2p stream, or one multiplexed inside it.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Duplex for S {}

/// Two codecs, as the limits of the two directions differ.
struct Codec {
    receive: LengthDelimitedCodec,
    send: LengthDelimitedCodec,
}

impl Decoder for Codec {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        self.receive.decode(bytes)
    }
}

impl Encoder<Bytes> for Codec {
    type Error = io::Error;

    fn encode(&mut self, frame: Bytes, to: &mut BytesMut) -> io::Result<()> {
        self.send.encode(frame, to)
    }
}

/// A stream of frames.
pub struct Frames<S> {
    framed: Framed<Compat<S>, Codec>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Wraps a stream that receives frames of at most `max` bytes and sends frames of at most `max` or
    /// [`wire::MAX_FRAME`] bytes, whichever is larger.
    pub fn new(stream: S, max: usize) -> Self {
        let of = |max| LengthDelimitedCodec::builder().max_frame_length(max).new_codec();
        let codec = Codec { receive: of(max), send: of(max.max(wire::MAX_FRAME)) };
        Self { framed: Framed::new(stream.compat(), codec) }
    }

    /// Returns the stream. Bytes that were buffered and not yet received as frames are lost.
    pub fn into_inner(self) -> S {
        self.framed.into_inner().into_inner()
    }

    /// Limits received frames to `max` bytes from now on; the limit for sending stays.
    pub fn set_max(&mut self, max: usize) {
        self.framed.codec_mut().receive.set_max_frame_length(max);
    }

    /// Sends a value as JSON.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        self.send_bytes(serde_json::to_vec(value)?).await
    }

    /// Buffers a value as JSON; it is sent when the buffer is full or at the next [`flush`](Self::flush).
    pub async fn feed<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        Ok(self.framed.feed(Bytes::from(serde_json::to_vec(value)?)).await?)
    }

    /// Sends what is buffered.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        Ok(SinkExt::<Bytes>::flush(&mut self.framed).await?)
    }

    /// Receives a value as JSON.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        Ok(serde_json::from_slice(&self.receive_bytes().await?)?)
    }

    /// Sends one frame of bytes.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<(), FrameError> {
        Ok(self.framed.send(Bytes::from(bytes)).await?)
    }

    /// Receives one frame of bytes. Cancel safe: no frame is lost when the future is dropped.
    pub async fn receive_bytes(&mut self) -> Result<Bytes, FrameError> {
        Ok(self.framed.next().await.ok_or(FrameError::Closed)??.freeze())
    }

    /// Receives a value as CBOR.
    pub async fn receive_cbor<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        Ok(wire::decode(&self.receive_bytes().await?)?)
    }

    /// Borrows the two directions, so that two tasks can use them at the same time.
    pub fn split(&mut self) -> (FramesOut<'_, S>, FramesIn<'_, S>) {
        let (sink, stream) = (&mut self.framed).split();
        (FramesOut(sink), FramesIn(stream))
    }

    /// Sends what is buffered and closes the sending direction.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        Ok(SinkExt::<Bytes>::close(&mut self.framed).await?)
    }
}

type Inner<'a, S> = &'a mut Framed<Compat<S>, Codec>;

/// The sending direction of [`Frames`].
pub struct FramesOut<'a, S>(SplitSink<Inner<'a, S>, Bytes>);

impl<S: AsyncRead + AsyncWrite + Unpin> FramesOut<'_, S> {
    /// Sends a value as JSON.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        self.send_bytes(serde_json::to_vec(value)?).await
    }

    /// Sends one frame of bytes.
    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) -> Result<(), FrameError> {
        Ok(self.0.send(bytes.into()).await?)
    }

    /// Buffers one frame of bytes; it is sent when the buffer is full or at the next [`flush`](Self::flush).
    pub async fn feed_bytes(&mut self, bytes: impl Into<Bytes>) -> Result<(), FrameError> {
        Ok(self.0.feed(bytes.into()).await?)
    }

    /// Sends what is buffered.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        Ok(self.0.flush().await?)
    }
}

/// The receiving direction of [`Frames`].
pub struct FramesIn<'a, S>(SplitStream<Inner<'a, S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> FramesIn<'_, S> {
    /// Receives a value as JSON.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        Ok(serde_json::from_slice(&self.receive_bytes().await?)?)
    }

    /// Receives one frame of bytes. Cancel safe: no frame is lost when the future is dropped.
    pub async fn receive_bytes(&mut self) -> Result<Bytes, FrameError> {
        Ok(self.0.next().await.ok_or(FrameError::Closed)??.freeze())
    }

    /// Waits until the peer has closed the stream or it failed; discards what it still sends.
    pub async fn closed(&mut self) {
        while self.receive_bytes().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    #[tokio::test]
    async fn the_limit_of_received_frames_does_not_apply_to_sent_frames() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 100), Frames::new(far.compat(), 100_000));
        near.send_bytes(vec![7; 50_000]).await.expect("sent");
        assert_eq!(far.receive_bytes().await.expect("received").len(), 50_000);
        far.send_bytes(vec![7; 101]).await.expect("sent");
        assert!(near.receive_bytes().await.is_err(), "over the limit");
    }

    #[tokio::test]
    async fn a_frame_over_the_limit_is_not_sent() {
        let (near, _far) = tokio::io::duplex(1);
        let mut near = Frames::new(near.compat(), 100);
        let error = near.send_bytes(vec![0; wire::MAX_FRAME + 1]).await.expect_err("refused");
        assert!(error.is_too_large(), "{error}");
    }
}
