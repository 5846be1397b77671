//! The requesting side of the image protocol ([`vc_protocol::image`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::timeout;
use vc_frames::{Duplex, FrameError, Frames};
use vc_protocol::NodeId;
use vc_protocol::image::{Request, Response};
use vc_protocol::wire::MAX_FRAME;

use super::error::PeerError;

/// How long a member may take to send its next frame.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a stream of the image protocol to a member.
pub type OpenStream =
    Arc<dyn Fn(NodeId) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> + Send + Sync>;

/// A request to a member, and the stream of its responses.
pub(super) struct RpcStream(Frames<Box<dyn Duplex>>);

impl RpcStream {
    /// Opens a stream and sends a request.
    pub(super) async fn open(
        open: &OpenStream,
        node: NodeId,
        request: &Request,
    ) -> Result<Self, PeerError> {
        let opened = async {
            let stream = open(node).await.map_err(PeerError::Unreachable)?;
            let mut frames = Frames::new(stream, MAX_FRAME);
            frames.send(request).await?;
            Ok(Self(frames))
        };
        timeout(STALL_TIMEOUT, opened).await.unwrap_or(Err(PeerError::Timeout(STALL_TIMEOUT)))
    }

    /// Receives the next response; [`Response::Error`] is an error.
    pub(super) async fn response(&mut self) -> Result<Response, PeerError> {
        match within(self.0.receive()).await? {
            Response::Error(reason) => Err(PeerError::Refused(reason)),
            response => Ok(response),
        }
    }

    /// Receives the next bytes of a blob.
    pub(super) async fn bytes(&mut self) -> Result<Bytes, PeerError> {
        within(self.0.receive_bytes()).await
    }
}

async fn within<T>(frame: impl Future<Output = Result<T, FrameError>>) -> Result<T, PeerError> {
    match timeout(STALL_TIMEOUT, frame).await {
        Ok(frame) => Ok(frame?),
        Err(_) => Err(PeerError::Timeout(STALL_TIMEOUT)),
    }
}

/// Sends a request that has a single response, and receives it.
pub(super) async fn request(
    open: &OpenStream,
    node: NodeId,
    request: &Request,
) -> Result<Response, PeerError> {
    RpcStream::open(open, node, request).await?.response().await
}
