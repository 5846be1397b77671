//! The answering side of protocols with one request a stream; [`member_request`](crate::member_request) is the asking side.

use libp2p::{PeerId, Stream};

use crate::limiter::Limiter;
use crate::network::inbound::Incoming;

/// Limits of the requests that are being answered at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxRequests {
    pub(crate) total: usize,
    pub(crate) per_member: usize,
}

/// Answers each stream in a task of its own, and closes those over the limits; `what` is asked for, for the log.
pub(crate) async fn serve<A, F>(mut streams: Incoming, limits: MaxRequests, what: &str, answer: A)
where
    A: Fn(PeerId, Stream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let limiter = Limiter::new(limits.total, limits.per_member);
    while let Some((peer, stream)) = streams.recv().await {
        let Some(permit) = limiter.acquire(peer) else {
            tracing::debug!(%peer, what, "request dropped: too many from this node, or in total");
            continue;
        };
        let answered = answer(peer, stream);
        tokio::spawn(async move {
            answered.await;
            drop(permit);
        });
    }
}
