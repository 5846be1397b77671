//! Answers members that ask for the events of the past.

use std::time::Duration;

use libp2p::Stream;
use tokio::time::timeout;
use vc_protocol::control::Reply;
use vc_protocol::event::EventQuery;
use vc_protocol::wire::MAX_FRAME;

use super::log::Events;
use crate::frames::{FrameError, Frames};
use crate::limiter::Limiter;
use crate::network::inbound::Incoming;

/// Limit of requests that are being answered, in total and per member.
const MAX_REQUESTS: (usize, usize) = (16, 2);
/// Time for a request, with its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Hands over what this node has seen. Every member has the documents that the events are derived from.
pub(crate) struct EventServer {
    pub(crate) events: Events,
}

impl EventServer {
    /// Answers the requests of members.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        let limiter = Limiter::new(MAX_REQUESTS.0, MAX_REQUESTS.1);
        while let Some((peer, stream)) = streams.recv().await {
            let Some(permit) = limiter.acquire(peer) else {
                tracing::debug!(%peer, "request for events dropped: too many from this node");
                continue;
            };
            let events = self.events.clone();
            tokio::spawn(async move {
                let _permit = permit;
                if let Ok(Err(error)) = timeout(TIMEOUT, answer(events, stream)).await {
                    tracing::debug!(%peer, %error, "the answer to a request for events was not received");
                }
            });
        }
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
