//! The cluster, or some services of it, pushed as it changes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use vc_compose::MAX_SERVICES;
use vc_engine::report;
use vc_protocol::ServiceKey;
use vc_protocol::control::{LiveUpdate, Reply};
use vc_protocol::{ApiError, ErrorCode};

use super::Session;
use crate::driver::Snapshot;
use crate::frames::{Duplex, FrameError, Frames};

/// Between two turns at least: what changes together is told together.
const PACE: Duration = Duration::from_millis(100);
/// Between two turns at most, so that whoever watches can tell silence from quiet.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);
/// Events in one turn: of more the last.
const MAX_EVENTS: usize = 200;

impl Session {
    /// Everything now, and what changes, until the user goes.
    pub(super) async fn live(&self, frames: &mut Frames<impl Duplex>) -> Result<(), FrameError> {
        let mut snapshot = self.snapshot.clone();
        let mut told = Arc::new(LiveUpdate::default());
        let mut events = self.events.clone();
        let mut changed = true;
        loop {
            let at = Instant::now();
            let mut update = LiveUpdate::default();
            if changed {
                // Cloned, so that nobody who has something new waits for the reports.
                let latest = snapshot.borrow_and_update().clone();
                let now = self.now(&latest);
                update = changes(&told, &now);
                told = now;
            }
            update.events = events.take(MAX_EVENTS);
            frames.send(&Reply::Live(Box::new(update))).await?;
            tokio::select! {
                next = next(&mut snapshot, at) => match next {
                    Some(is_new) => changed = is_new,
                    None => return frames.send(&Reply::End).await,
                },
                // A user who watches says nothing more: a frame or the end of the stream ends it.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            }
        }
    }

    /// The instances of these services, of all when there are none, now and whenever they change, until the user goes.
    pub(super) async fn watch(
        &self,
        services: Vec<ServiceKey>,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        if services.len() > MAX_SERVICES {
            let reason = format!("watch at most {MAX_SERVICES} services, or all");
            return frames
                .send(&Reply::Error(ApiError::new(ErrorCode::FailedPrecondition, reason)))
                .await;
        }
        let services: BTreeSet<ServiceKey> = services.into_iter().collect();
        let watched = |key: &ServiceKey| services.is_empty() || services.contains(key);
        let mut snapshot = self.snapshot.clone();
        let mut last = None;
        let mut changed = true;
        loop {
            let at = Instant::now();
            if changed {
                let latest = snapshot.borrow_and_update().clone();
                let now = self.now(&latest);
                let services = now.services.iter().flatten().filter(|row| watched(&row.service));
                let instances = now.instances.iter().flatten().filter(|row| watched(&row.service));
                let turn = Reply::Watched {
                    services: services.cloned().collect(),
                    instances: instances.cloned().collect(),
                };
                if last.as_ref() != Some(&turn) {
                    frames.send(&turn).await?;
                    last = Some(turn);
                }
            }
            tokio::select! {
                next = next(&mut snapshot, at) => match next {
                    Some(is_new) => changed = is_new,
                    None => return frames.send(&Reply::End).await,
                },
                // A user who watches says nothing more: a frame or the end of the stream ends it.
                _ = frames.receive::<serde_json::Value>() => return Err(FrameError::Closed),
            }
        }
    }

    /// Everything in a snapshot. Whoever looks at the same one is shown the same, so that many who look cost what one does.
    fn now(&self, snapshot: &Snapshot) -> Arc<LiveUpdate> {
        let mut latest = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, reports)) = &*latest
            && Arc::ptr_eq(&of.view, &snapshot.view)
            && Arc::ptr_eq(&of.usage, &snapshot.usage)
        {
            return Arc::clone(reports);
        }
        let Snapshot { view, usage, .. } = snapshot;
        let (cluster, node) = (self.membership.cluster, self.membership.node);
        let reports = Arc::new(LiveUpdate {
            status: Some(report::status(view, usage, cluster, node)),
            nodes: Some(report::nodes(view, usage)),
            services: Some(report::services(view)),
            instances: Some(report::instances(view)),
            events: Vec::new(),
        });
        *latest = Some((snapshot.clone(), Arc::clone(&reports)));
        reports
    }
}

/// What was last pushed, and the snapshot that it is of.
pub(crate) type Reports = Arc<Mutex<Option<(Snapshot, Arc<LiveUpdate>)>>>;

/// Waits for the next turn after the one `at`, and says whether anything is new; `None`: there will be none.
async fn next(snapshot: &mut watch::Receiver<Snapshot>, at: Instant) -> Option<bool> {
    match timeout_at(at + SIGN_OF_LIFE, snapshot.changed()).await {
        Ok(Err(_)) => None,
        Ok(Ok(())) => {
            sleep_until(at + PACE).await;
            Some(true)
        }
        Err(_) => Some(false),
    }
}

/// The sections that are not as they were told.
fn changes(told: &LiveUpdate, now: &LiveUpdate) -> LiveUpdate {
    fn changed<T: PartialEq + Clone>(told: &Option<T>, now: &Option<T>) -> Option<T> {
        (told != now).then(|| now.clone()).flatten()
    }
    LiveUpdate {
        status: changed(&told.status, &now.status),
        nodes: changed(&told.nodes, &now.nodes),
        services: changed(&told.services, &now.services),
        instances: changed(&told.instances, &now.instances),
        events: Vec::new(),
    }
}
