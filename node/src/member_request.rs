//! Requests to other members: one stream a request, the request and the first reply as JSON frames.

use std::time::Duration;

use libp2p::{Stream, StreamProtocol};
use serde::Serialize;
use tokio::time::timeout;
use vc_protocol::control::Reply;
use vc_protocol::wire::MAX_FRAME;
use vc_protocol::{ApiError, ErrorCode, NodeId};

use crate::frames::{FrameError, Frames};

/// Why another member did not do what it was asked. Nothing was changed unless the code of [`MemberError::Refused`] says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    #[error("the node cannot be reached ({0})")]
    Unreachable(#[from] libp2p_stream::OpenStreamError),
    #[error("the stream to the node broke: {0}")]
    Broken(#[from] FrameError),
    #[error("the node did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the node sent an unexpected reply")]
    Unexpected,
    #[error("{}", .0.message)]
    Refused(ApiError),
}

impl From<MemberError> for ApiError {
    fn from(error: MemberError) -> Self {
        let (code, hint) = match error {
            MemberError::Refused(error) => return error,
            MemberError::Unreachable(_) | MemberError::Broken(_) => {
                (ErrorCode::Unavailable, "see 'vc nodes', or try again")
            }
            MemberError::TimedOut(_) => (ErrorCode::DeadlineExceeded, "try again"),
            MemberError::Unexpected => {
                (ErrorCode::Unimplemented, "upgrade the nodes to the same version")
            }
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

/// Sends a request to a member and returns its first reply, with the stream that carries what follows. An error reply
/// becomes [`MemberError::Refused`].
pub(crate) async fn request(
    mut members: libp2p_stream::Control,
    node: NodeId,
    protocol: &'static str,
    request: &impl Serialize,
    deadline: Duration,
) -> Result<(Reply, Frames<Stream>), MemberError> {
    let exchange = async {
        let stream = members.open_stream(node.peer_id(), StreamProtocol::new(protocol)).await?;
        let mut frames = Frames::new(stream, MAX_FRAME);
        frames.send(request).await?;
        match frames.receive().await? {
            Reply::Error(error) => Err(MemberError::Refused(error)),
            reply => Ok((reply, frames)),
        }
    };
    timeout(deadline, exchange).await.map_err(|_| MemberError::TimedOut(deadline))?
}
