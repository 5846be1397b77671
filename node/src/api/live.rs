//! Pushes the cluster's state to a client as it changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use vc_protocol::control::{LiveUpdate, Reply};

use super::{ControlService, scope};
use crate::auth::User;
use crate::frames::{Duplex, FrameError, Frames};
use crate::snapshot::Snapshot;

/// Shortest time between two updates: changes within it go in one.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time between two updates: a client takes a longer silence for the loss of this node.
const MAX_INTERVAL: Duration = Duration::from_millis(500);
/// Events in one update; of more, the latest.
const MAX_EVENTS: usize = 200;

impl ControlService {
    /// Sends all sections, then those that change, until the client closes the stream.
    pub(super) async fn live(
        &self,
        user: &User,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let mut snapshot = self.cluster.snapshots().clone();
        let mut sent = Arc::new(LiveUpdate::default());
        let mut events = self.events.clone();
        let mut changed = true;
        loop {
            let at = Instant::now();
            let mut update = LiveUpdate::default();
            if changed {
                let latest = self.latest_reports(user, &mut snapshot);
                update = changes(&sent, &latest);
                sent = latest;
            }
            update.events = events.take(MAX_EVENTS);
            scope::limit_events(&user.rights, &mut update.events);
            frames.send(&Reply::Live(Box::new(update))).await?;
            tokio::select! {
                next = next_update(&mut snapshot, at) => match next {
                    Some(is_new) => changed = is_new,
                    None => return frames.send(&Reply::End).await,
                },
                // A client that watches sends nothing: any frame, or the end of the stream, ends it.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            }
        }
    }

    /// Returns what the reports of the latest snapshot show to a user, and marks it as seen.
    pub(super) fn latest_reports(
        &self,
        user: &User,
        snapshot: &mut watch::Receiver<Snapshot>,
    ) -> Arc<LiveUpdate> {
        // Cloned: the channel's lock must not be held while the reports are computed.
        let latest = snapshot.borrow_and_update().clone();
        self.cluster.reports(&latest, user)
    }
}

/// Waits until the next update after the one sent `at` is due. Returns whether the snapshot is new; `None` when the driver
/// has ended.
pub(super) async fn next_update(
    snapshot: &mut watch::Receiver<Snapshot>,
    at: Instant,
) -> Option<bool> {
    match timeout_at(at + MAX_INTERVAL, snapshot.changed()).await {
        Ok(Err(_)) => None,
        Ok(Ok(())) => {
            sleep_until(at + MIN_INTERVAL).await;
            Some(true)
        }
        Err(_) => Some(false),
    }
}

/// Returns the sections of `latest` that differ from those sent.
fn changes(sent: &LiveUpdate, latest: &LiveUpdate) -> LiveUpdate {
    fn changed<T: PartialEq + Clone>(sent: &Option<T>, latest: &Option<T>) -> Option<T> {
        (sent != latest).then(|| latest.clone()).flatten()
    }
    LiveUpdate {
        status: changed(&sent.status, &latest.status),
        nodes: changed(&sent.nodes, &latest.nodes),
        services: changed(&sent.services, &latest.services),
        instances: changed(&sent.instances, &latest.instances),
        events: Vec::new(),
    }
}
