//! Answers members that ask for the events of the past.

use std::time::Duration;

use libp2p::{PeerId, Stream};
use tokio::time::timeout;
use vc_protocol::control::Reply;
use vc_protocol::event::EventQuery;
use vc_protocol::wire::MAX_FRAME;

use super::log::Events;
use crate::frames::{FrameError, Frames};
use crate::member_server::{self, MaxRequests};
use crate::network::inbound::Incoming;

/// Requests that are being answered.
const MAX_REQUESTS: MaxRequests = MaxRequests { total: 16, per_member: 2 };
/// Time for a request, with its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Hands over what this node has seen. Every member has the documents that the events are derived from.
pub(crate) struct EventServer {
    pub(crate) events: Events,
}

impl EventServer {
    /// Answers the requests of members.
    pub(crate) async fn serve(self, streams: Incoming) {
        let each = |peer: PeerId, stream: Stream| {
            let events = self.events.clone();
            async move {
                if let Ok(Err(error)) = timeout(TIMEOUT, answer(events, stream)).await {
                    tracing::debug!(%peer, %error, "the answer to a request for events was not received");
                }
            }
        };
        member_server::serve(streams, MAX_REQUESTS, "events", each).await;
    }
}

async fn answer(mut events: Events, stream: Stream) -> Result<(), FrameError> {
    let mut frames = Frames::new(stream, MAX_FRAME);
    let query: EventQuery = frames.receive().await?;
    for row in events.take(usize::MAX).into_iter().filter(|row| query.selects(row)) {
        frames.feed(&Reply::Event(row)).await?;
    }
    frames.send(&Reply::End).await
}
