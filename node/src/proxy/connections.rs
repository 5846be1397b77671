//! How many connections go through this node to each instance, and which instances take no more.
//!
//! For what runs here that is all there is: containers are reached through their node alone. So whoever stops one first
//! [drains](Connections::drain) it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::Notify;
use vc_protocol::InstanceId;

use vc_runtime::Drain;

/// The connections of this node. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Connections {
    instances: Arc<Mutex<BTreeMap<InstanceId, Entry>>>,
}

#[derive(Default)]
struct Entry {
    leaving: bool,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct Traffic {
    active: AtomicUsize,
    /// Told when the last connection ends.
    over: Notify,
}

/// A connection to an instance; it counts as long as this lives.
pub struct Connection {
    traffic: Arc<Traffic>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.traffic.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.traffic.over.notify_waiters();
        }
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Entry>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection that is about to begin; `None`: the instance is leaving and takes no more.
    pub fn begin(&self, instance: &InstanceId) -> Option<Connection> {
        let mut instances = self.lock();
        let entry = match instances.get(instance) {
            Some(entry) => entry,
            None => instances.entry(instance.clone()).or_default(),
        };
        if entry.leaving {
            return None;
        }
        entry.traffic.active.fetch_add(1, Ordering::AcqRel);
        Some(Connection { traffic: Arc::clone(&entry.traffic) })
    }

    /// Connections that go to an instance now.
    pub fn active(&self, instance: &InstanceId) -> usize {
        self.lock().get(instance).map_or(0, |entry| entry.traffic.active.load(Ordering::Acquire))
    }

    /// Whether an instance takes no new connections.
    pub fn is_leaving(&self, instance: &InstanceId) -> bool {
        self.lock().get(instance).is_some_and(|entry| entry.leaving)
    }

    /// From now on an instance takes no new connections, until it is [forgotten](Self::forget).
    pub fn leaving(&self, instance: &InstanceId) {
        self.lock().entry(instance.clone()).or_default().leaving = true;
    }

    /// Waits until no connection to an instance is left, or `grace` is over.
    pub async fn drained(&self, instance: &InstanceId, grace: Duration) {
        let Some(traffic) = self.lock().get(instance).map(|entry| Arc::clone(&entry.traffic))
        else {
            return;
        };
        let none_left = async {
            loop {
                let over = traffic.over.notified();
                tokio::pin!(over);
                // From here on no end is missed.
                over.as_mut().enable();
                if traffic.active.load(Ordering::Acquire) == 0 {
                    return;
                }
                over.await;
            }
        };
        let _ = tokio::time::timeout(grace, none_left).await;
    }

    /// Both: no new connections, and waits for those that are there to end, at most for `grace`.
    pub async fn drain(&self, instance: &InstanceId, grace: Duration) {
        self.leaving(instance);
        self.drained(instance, grace).await;
    }

    /// The instance is gone, or is wanted again: it may take connections when it is back.
    pub fn forget(&self, instance: &InstanceId) {
        if let Some(entry) = self.lock().get_mut(instance) {
            entry.leaving = false;
        }
        self.sweep();
    }

    /// Drops what is known of instances that have no connections and are not leaving.
    pub(crate) fn sweep(&self) {
        self.lock()
            .retain(|_, entry| entry.leaving || entry.traffic.active.load(Ordering::Acquire) > 0);
    }
}

impl Drain for Connections {
    fn drain<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> BoxFuture<'a, ()> {
        self.drain(id, grace).boxed()
    }

    fn forget(&self, id: &InstanceId) {
        self.forget(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> InstanceId {
        "shop/web.1@0123456789abcdef".parse().expect("an instance")
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_last_connection_and_lets_no_new_one_in() {
        let connections = Connections::default();
        let first = connections.begin(&instance()).expect("it takes connections");
        let second = connections.begin(&instance()).expect("it takes connections");
        assert_eq!(connections.active(&instance()), 2);
        let draining = connections.clone();
        let mut drain = tokio::spawn(async move {
            draining.drain(&instance(), Duration::from_secs(60)).await;
        });
        while !connections.is_leaving(&instance()) {
            tokio::task::yield_now().await;
        }
        assert!(connections.begin(&instance()).is_none());
        drop(first);
        tokio::task::yield_now().await;
        assert!(futures::poll!(&mut drain).is_pending());
        drop(second);
        drain.await.expect("drained");
        connections.forget(&instance());
        assert!(connections.begin(&instance()).is_some());
    }

    #[tokio::test]
    async fn a_drain_waits_no_longer_than_the_grace() {
        let connections = Connections::default();
        let _held = connections.begin(&instance()).expect("it takes connections");
        let before = std::time::Instant::now();
        connections.drain(&instance(), Duration::from_millis(50)).await;
        assert!(before.elapsed() >= Duration::from_millis(50));
        assert_eq!(connections.active(&instance()), 1);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let connections = Connections::default();
        drop(connections.begin(&instance()));
        connections.sweep();
        assert!(connections.lock().is_empty());
    }
}
