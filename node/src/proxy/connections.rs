//! Counts the connections through this node to each instance, and drains instances.
//!
//! Instances on this node are reached through this node only, so the count is complete for them: the runtime
//! [drains](Connections::drain) an instance before it stops it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::{Notify, watch};
use vc_protocol::InstanceId;
use vc_runtime::Drain;

use super::conntrack;

/// Interval at which the kernel is asked whether connections that NAT rules have redirected are still open.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A handle to the connection counts of this node. Cheap to clone; clones share the counts.
#[derive(Clone, Default)]
pub struct Connections {
    instances: Arc<Mutex<BTreeMap<InstanceId, Entry>>>,
    /// Signals that an instance has begun or ceased to drain.
    drains: watch::Sender<()>,
    redirected: watch::Sender<Redirected>,
}

/// The instances to which NAT rules redirect clients, past this process.
#[derive(Default)]
struct Redirected {
    /// Those that new clients are redirected to.
    now: BTreeMap<InstanceId, Ipv4Addr>,
    /// Those that may have open connections: all of `now`, and others until they are forgotten.
    ever: BTreeMap<InstanceId, Ipv4Addr>,
}

#[derive(Default)]
struct Entry {
    draining: bool,
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct Traffic {
    active: AtomicUsize,
    /// Notified when `active` becomes 0.
    idle: Notify,
}

/// Counts one connection to an instance while it lives.
pub struct Connection {
    traffic: Arc<Traffic>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.traffic.active.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.traffic.idle.notify_waiters();
        }
    }
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Entry>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new connection; `None`: the instance is draining.
    pub fn begin(&self, instance: &InstanceId) -> Option<Connection> {
        let mut instances = self.lock();
        let entry = match instances.get(instance) {
            Some(entry) => entry,
            None => instances.entry(instance.clone()).or_default(),
        };
        if entry.draining {
            return None;
        }
        entry.traffic.active.fetch_add(1, Ordering::AcqRel);
        Some(Connection { traffic: Arc::clone(&entry.traffic) })
    }

    /// Returns the number of open connections to an instance.
    pub fn active(&self, instance: &InstanceId) -> usize {
        self.lock().get(instance).map_or(0, |entry| entry.traffic.active.load(Ordering::Acquire))
    }

    /// Returns whether an instance is draining: it gets no new connections.
    pub fn is_draining(&self, instance: &InstanceId) -> bool {
        self.lock().get(instance).is_some_and(|entry| entry.draining)
    }

    /// Gives an instance no new connections until [`forget`](Self::forget) is called for it.
    pub fn start_draining(&self, instance: &InstanceId) {
        self.lock().entry(instance.clone()).or_default().draining = true;
        self.drains.send_replace(());
    }

    /// Returns a channel that signals that an instance has begun or ceased to drain.
    pub(super) fn drains(&self) -> watch::Receiver<()> {
        self.drains.subscribe()
    }

    /// Sets the instances to which NAT rules redirect new clients, with their addresses.
    pub(super) fn set_redirected(&self, instances: &BTreeMap<InstanceId, Ipv4Addr>) {
        self.redirected.send_if_modified(|redirected| {
            redirected.ever.extend(instances.clone());
            let changed = redirected.now != *instances;
            redirected.now.clone_from(instances);
            changed
        });
    }

    /// Completes when NAT rules redirect no client to an instance and no connection that they have redirected is open.
    async fn redirected_closed(&self, instance: &InstanceId) {
        let mut redirected = self.redirected.subscribe();
        let address = {
            let ended = redirected.wait_for(|it| !it.now.contains_key(instance)).await;
            ended.ok().and_then(|it| it.ever.get(instance).copied())
        };
        let Some(address) = address else { return };
        while conntrack::open_connections(address).await > 0 {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until no connection to an instance is open, at most for `grace`.
    pub async fn drained(&self, instance: &InstanceId, grace: Duration) {
        let traffic = self.lock().get(instance).map(|entry| Arc::clone(&entry.traffic));
        let idle = async {
            while let Some(traffic) = &traffic {
                let notified = traffic.idle.notified();
                tokio::pin!(notified);
                // Registered before the count is read, so that no notification is missed.
                notified.as_mut().enable();
                if traffic.active.load(Ordering::Acquire) == 0 {
                    break;
                }
                notified.await;
            }
            self.redirected_closed(instance).await;
        };
        let _ = tokio::time::timeout(grace, idle).await;
    }

    /// Drains an instance: gives it no new connections and waits for open ones to close, at most for `grace`.
    pub async fn drain(&self, instance: &InstanceId, grace: Duration) {
        self.start_draining(instance);
        self.drained(instance, grace).await;
    }

    /// Ends the draining of an instance that was removed or is wanted again.
    pub fn forget(&self, instance: &InstanceId) {
        if let Some(entry) = self.lock().get_mut(instance) {
            entry.draining = false;
        }
        self.drains.send_replace(());
        self.redirected.send_if_modified(|redirected| {
            if !redirected.now.contains_key(instance) {
                redirected.ever.remove(instance);
            }
            false
        });
        self.sweep();
    }

    /// Drops the entries of instances that have no connections and are not draining.
    pub(crate) fn sweep(&self) {
        self.lock()
            .retain(|_, entry| entry.draining || entry.traffic.active.load(Ordering::Acquire) > 0);
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
    async fn a_drain_waits_for_the_last_connection_and_refuses_new_ones() {
        let connections = Connections::default();
        let first = connections.begin(&instance()).expect("it takes connections");
        let second = connections.begin(&instance()).expect("it takes connections");
        assert_eq!(connections.active(&instance()), 2);
        let draining = connections.clone();
        let mut drain = tokio::spawn(async move {
            draining.drain(&instance(), Duration::from_secs(60)).await;
        });
        while !connections.is_draining(&instance()) {
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
    async fn a_drain_ends_with_the_grace_period() {
        let connections = Connections::default();
        let _held = connections.begin(&instance()).expect("it takes connections");
        let before = std::time::Instant::now();
        connections.drain(&instance(), Duration::from_millis(50)).await;
        assert!(before.elapsed() >= Duration::from_millis(50));
        assert_eq!(connections.active(&instance()), 1);
    }

    #[tokio::test]
    async fn a_drain_waits_until_clients_are_no_longer_redirected() {
        let connections = Connections::default();
        let mut drains = connections.drains();
        // Of this range there is no connection (RFC 5737).
        let address = Ipv4Addr::new(192, 0, 2, 1);
        connections.set_redirected(&BTreeMap::from([(instance(), address)]));
        let id = instance();
        let mut drain = Box::pin(connections.drain(&id, Duration::from_secs(60)));
        assert!(futures::poll!(&mut drain).is_pending());
        drains.changed().await.expect("it has begun");
        assert!(connections.is_draining(&instance()));
        connections.set_redirected(&BTreeMap::new());
        drain.await;
        connections.forget(&instance());
        assert!(connections.redirected.borrow().ever.is_empty());
    }

    #[test]
    fn sweep_drops_instances_without_connections() {
        let connections = Connections::default();
        drop(connections.begin(&instance()));
        connections.sweep();
        assert!(connections.lock().is_empty());
    }
}
