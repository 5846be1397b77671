//! Requests about events.

use tokio::time::sleep;
use vc_protocol::control::Reply;
use vc_protocol::event::EventQuery;
use vc_protocol::exec::KEEPALIVE_INTERVAL;

use super::{ControlService, scope};
use crate::auth::User;
use crate::frames::{Duplex, FrameError, Frames};

impl ControlService {
    /// Sends the events that a query selects; with `follow` also those to come, until the client closes the stream.
    pub(super) async fn events(
        &self,
        user: &User,
        query: EventQuery,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let mut events = self.events.clone();
        let mut tail = query.tail;
        loop {
            let mut rows = events.take(usize::MAX);
            scope::limit_events(&user.rights, &mut rows);
            rows.retain(|row| query.selects(row));
            if let Some(tail) = tail.take() {
                rows.drain(..rows.len().saturating_sub(tail));
            }
            for row in rows {
                frames.feed(&Reply::Event(row)).await?;
            }
            frames.flush().await?;
            if !query.follow {
                return frames.send(&Reply::End).await;
            }
            tokio::select! {
                changed = events.changed() => if !changed {
                    return frames.send(&Reply::End).await;
                },
                () = sleep(KEEPALIVE_INTERVAL) => frames.send(&Reply::KeepAlive).await?,
                // A client that follows sends nothing: any frame, or the end of the stream, ends it.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            }
        }
    }
}
