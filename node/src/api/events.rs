//! Requests about events.

use tokio::time::sleep;
use vc_protocol::control::Reply;
use vc_protocol::exec::KEEPALIVE_INTERVAL;

use super::{ControlService, scope};
use crate::auth::User;
use crate::frames::{Duplex, FrameError, Frames};

impl ControlService {
    /// Sends the events that are kept; with `follow` also those to come, until the client closes the stream.
    pub(super) async fn events(
        &self,
        user: &User,
        follow: bool,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let mut events = self.events.clone();
        loop {
            let mut rows = events.take(usize::MAX);
            scope::limit_events(&user.rights, &mut rows);
            for row in rows {
                frames.send(&Reply::Event(row)).await?;
            }
            if !follow {
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
