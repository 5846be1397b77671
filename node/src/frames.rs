//! Length-prefixed frames on a stream.

use std::io;

use futures::stream::{SplitSink, SplitStream};
use futures::{AsyncRead, AsyncWrite, SinkExt, StreamExt as _};
use libp2p::bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};
use vc_protocol::wire;

/// Why a frame did not pass.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream broke, or the frame was too large.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// The other side has closed the stream.
    #[error("the other side closed the connection")]
    Closed,
    /// Not what was expected.
    #[error("malformed frame: {0}")]
    Json(#[from] serde_json::Error),
    /// Not what was expected.
    #[error(transparent)]
    Cbor(#[from] wire::WireError),
}

/// A stream that bytes go both ways on: libp2p's, or one inside of another.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Duplex for S {}

/// What the other side may send is bounded by who it is; what this side has to say is not.
struct Codec {
    taken: LengthDelimitedCodec,
    sent: LengthDelimitedCodec,
}

impl Decoder for Codec {
    type Item = BytesMut;
    type Error = io::Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        self.taken.decode(bytes)
    }
}

impl Encoder<Bytes> for Codec {
    type Error = io::Error;

    fn encode(&mut self, frame: Bytes, to: &mut BytesMut) -> io::Result<()> {
        self.sent.encode(frame, to)
    }
}

/// A stream of frames, each behind its length as 4 bytes, big endian.
pub struct Frames<S> {
    framed: Framed<Compat<S>, Codec>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Takes frames of at most `max` bytes.
    pub fn new(stream: S, max: usize) -> Self {
        let of = |max| LengthDelimitedCodec::builder().max_frame_length(max).new_codec();
        let codec = Codec { taken: of(max), sent: of(max.max(wire::MAX_FRAME)) };
        Self { framed: Framed::new(stream.compat(), codec) }
    }

    /// The stream itself. What was received of it and not asked for is lost.
    pub(crate) fn into_inner(self) -> S {
        self.framed.into_inner().into_inner()
    }

    /// Takes frames of at most so many bytes from now on. What is sent is no less for that.
    pub fn set_max(&mut self, max: usize) {
        self.framed.codec_mut().taken.set_max_frame_length(max);
    }

    /// Sends a value as JSON.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        self.send_bytes(serde_json::to_vec(value)?).await
    }

    /// Sends a value as JSON, together with what follows, once there is enough of it or with [`flush`](Self::flush).
    pub async fn feed<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        Ok(self.framed.feed(Bytes::from(serde_json::to_vec(value)?)).await?)
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        Ok(SinkExt::<Bytes>::flush(&mut self.framed).await?)
    }

    /// Receives a value as JSON. Errors: closed, broken, or not a `T`.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        let frame = self.framed.next().await.ok_or(FrameError::Closed)??;
        Ok(serde_json::from_slice(&frame)?)
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: Vec<u8>) -> Result<(), FrameError> {
        Ok(self.framed.send(Bytes::from(bytes)).await?)
    }

    /// Receives bytes. Errors: closed, or broken.
    pub async fn receive_bytes(&mut self) -> Result<Bytes, FrameError> {
        Ok(self.framed.next().await.ok_or(FrameError::Closed)??.freeze())
    }

    /// Receives a value as CBOR. Errors: closed, broken, or not a `T`.
    pub async fn receive_cbor<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        let frame = self.framed.next().await.ok_or(FrameError::Closed)??;
        Ok(wire::decode(&frame)?)
    }

    /// Both directions, each for a task of its own.
    pub fn split(&mut self) -> (FramesOut<'_, S>, FramesIn<'_, S>) {
        let (sink, stream) = (&mut self.framed).split();
        (FramesOut(sink), FramesIn(stream))
    }

    /// Says that nothing more comes.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        Ok(SinkExt::<Bytes>::close(&mut self.framed).await?)
    }
}

type Inner<'a, S> = &'a mut Framed<Compat<S>, Codec>;

/// The outgoing direction of [`Frames`].
pub struct FramesOut<'a, S>(SplitSink<Inner<'a, S>, Bytes>);

impl<S: AsyncRead + AsyncWrite + Unpin> FramesOut<'_, S> {
    /// Sends a value as JSON.
    pub async fn send<T: Serialize>(&mut self, value: &T) -> Result<(), FrameError> {
        self.send_bytes(serde_json::to_vec(value)?).await
    }

    /// Sends bytes.
    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) -> Result<(), FrameError> {
        Ok(self.0.send(bytes.into()).await?)
    }

    /// Sends bytes together with what follows, once there is enough of it or with [`flush`](Self::flush).
    pub async fn feed_bytes(&mut self, bytes: impl Into<Bytes>) -> Result<(), FrameError> {
        Ok(self.0.feed(bytes.into()).await?)
    }

    /// Sends what was fed.
    pub async fn flush(&mut self) -> Result<(), FrameError> {
        Ok(self.0.flush().await?)
    }
}

/// The incoming direction of [`Frames`].
pub struct FramesIn<'a, S>(SplitStream<Inner<'a, S>>);

impl<S: AsyncRead + AsyncWrite + Unpin> FramesIn<'_, S> {
    /// Receives bytes; nothing is lost when this is dropped before it is done. Errors: closed or broken.
    pub async fn receive_bytes(&mut self) -> Result<Bytes, FrameError> {
        Ok(self.0.next().await.ok_or(FrameError::Closed)??.freeze())
    }

    /// Waits until the other side has closed the stream; what it still sends is dropped.
    pub async fn closed(&mut self) {
        while self.receive_bytes().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::compat::TokioAsyncReadCompatExt as _;

    use super::*;

    #[tokio::test]
    async fn who_may_say_little_is_told_much_all_the_same() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (mut near, mut far) =
            (Frames::new(near.compat(), 100), Frames::new(far.compat(), 100_000));
        near.send_bytes(vec![7; 50_000]).await.expect("it leaves");
        assert_eq!(far.receive_bytes().await.expect("it arrives").len(), 50_000);
        far.send_bytes(vec![7; 101]).await.expect("it leaves");
        assert!(near.receive_bytes().await.is_err(), "it is too much");
    }
}
