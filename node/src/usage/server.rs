//! Answers members that ask what the instances of this node use. Members see all documents; what of it a user may see is decided by
//! the node that the user is connected to.

use std::time::Duration;

use libp2p::{PeerId, Stream};
use serde::Deserialize;
use tokio::time::timeout;
use vc_protocol::control::Reply;
use vc_protocol::wire::MAX_FRAME;

use super::Usages;
use crate::frames::{FrameError, Frames};
use crate::member_server::{self, MaxRequests};
use crate::network::inbound::Incoming;

/// Requests that are being answered.
const MAX_REQUESTS: MaxRequests = MaxRequests { total: 64, per_member: 8 };
/// Time for a request, with its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The request: fields of later versions are ignored.
#[derive(Deserialize)]
struct UsageRequest {}

/// Answers members.
pub(crate) struct UsageServer {
    pub(crate) usages: Usages,
}

impl UsageServer {
    /// Answers the requests of members.
    pub(crate) async fn serve(self, streams: Incoming) {
        let each = |peer: PeerId, stream: Stream| {
            let usages = self.usages.clone();
            async move {
                if let Ok(Err(error)) = timeout(TIMEOUT, answer(&usages, stream)).await {
                    tracing::debug!(%peer, %error, "the answer to a request for usage was not received");
                }
            }
        };
        member_server::serve(streams, MAX_REQUESTS, "usage", each).await;
    }
}

async fn answer(usages: &Usages, stream: Stream) -> Result<(), FrameError> {
    let mut frames = Frames::new(stream, MAX_FRAME);
    let UsageRequest {} = frames.receive().await?;
    frames.send(&Reply::Usage(usages.ask_own().to_vec())).await
}
