//! What this node cannot start because of a fault of its own, for how long that is said, and when it tries again.
//!
//! A fault that one start met is said of its service alone, for a bounded time that doubles each time the fault is met again:
//! others get the slots meanwhile, and the node comes back by itself. A fault of the whole node is tested by the shell.

use std::collections::BTreeMap;

use vc_protocol::node::Faults;
use vc_protocol::{InstanceId, Millis, ServiceKey};

/// How long a node that could not start a service says so, the first time and at most.
const LIFETIME: (Millis, Millis) = (2 * 60_000, 64 * 60_000);

/// A service that could not be started.
#[derive(Debug)]
struct Entry {
    /// Of the container: another one is tried at once.
    digest: String,
    reason: String,
    until: Millis,
    lifetime: Millis,
}

/// The faults of this node.
#[derive(Debug, Default)]
pub(crate) struct NodeFaults {
    node: Option<String>,
    services: BTreeMap<ServiceKey, Entry>,
}

impl NodeFaults {
    /// Takes in why the whole node starts nothing, or that it starts again: what it could not start is tried again then.
    /// Returns whether that is news.
    pub(crate) fn set_node(&mut self, fault: Option<String>) -> bool {
        if self.node == fault {
            return false;
        }
        match &fault {
            Some(reason) => tracing::warn!(reason, "this node starts nothing"),
            None => {
                tracing::info!("this node starts instances again");
                self.services.clear();
            }
        }
        self.node = fault;
        true
    }

    /// Takes in that this node could not start an instance. The end of a fault that is said already does not change.
    pub(crate) fn failed(&mut self, id: &InstanceId, reason: &str, now: Millis) {
        let (first, longest) = LIFETIME;
        let before = self.services.get(&id.slot.service).filter(|it| it.digest == id.digest);
        let lifetime = match before {
            Some(entry) if now < entry.until => return,
            Some(entry) => longest.min(entry.lifetime * 2),
            None => first,
        };
        let service = &id.slot.service;
        tracing::warn!(%service, reason, seconds = lifetime / 1000, "this node cannot start the service");
        let (digest, reason) = (id.digest.clone(), reason.to_owned());
        let entry = Entry { digest, reason, until: now + lifetime, lifetime };
        self.services.insert(service.clone(), entry);
    }

    /// Takes in that an instance runs.
    pub(crate) fn runs(&mut self, id: &InstanceId) {
        if self.services.get(&id.slot.service).is_some_and(|it| it.digest == id.digest) {
            self.services.remove(&id.slot.service);
        }
    }

    /// Forgets services whose container is another one now, and those whose last fault is long over.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&ServiceKey) -> Option<String>, now: Millis) {
        self.services.retain(|key, it| {
            now < it.until + it.lifetime && wanted(key).is_some_and(|digest| digest == it.digest)
        });
    }

    /// Returns what the document says.
    pub(crate) fn current(&self, now: Millis) -> Faults {
        let services = self.services.iter().filter(|(_, it)| now < it.until);
        Faults {
            node: self.node.clone(),
            services: services.map(|(key, it)| (key.clone(), it.reason.clone())).collect(),
        }
    }

    /// Returns when the next fault of a service is over.
    pub(crate) fn poll_timeout(&self, now: Millis) -> Option<Millis> {
        self.services.values().map(|it| it.until).filter(|&until| now < until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digest: &str) -> InstanceId {
        InstanceId { slot: "shop/web.1".parse().expect("a slot"), digest: digest.to_owned() }
    }

    #[test]
    fn a_fault_ends_by_itself_and_lasts_longer_each_time() {
        let mut faults = NodeFaults::default();
        let mut now = 0;
        for minutes in [2, 4, 8, 16, 32, 64, 64] {
            faults.failed(&id("a"), "no space left", now);
            faults.failed(&id("a"), "no space left", now + 60_000);
            assert_eq!(faults.poll_timeout(now), Some(now + minutes * 60_000));
            assert_eq!(faults.current(now).services.len(), 1);
            now += minutes * 60_000;
            assert!(faults.current(now).is_empty());
            faults.retain(|_| Some("a".to_owned()), now);
        }
        faults.runs(&id("b"));
        faults.failed(&id("a"), "no space left", now);
        faults.runs(&id("a"));
        assert!(faults.current(now).is_empty());
    }

    #[test]
    fn another_container_of_the_service_is_tried_at_once() {
        let mut faults = NodeFaults::default();
        faults.failed(&id("a"), "no space left", 0);
        faults.retain(|_| Some("b".to_owned()), 1);
        assert!(faults.current(1).is_empty());
        faults.failed(&id("b"), "no space left", 1);
        faults.retain(|_| None, 2);
        assert!(faults.current(2).is_empty(), "it was removed");
    }

    #[test]
    fn the_end_of_a_fault_of_the_node_ends_those_of_its_services() {
        let mut faults = NodeFaults::default();
        assert!(faults.set_node(Some("full".to_owned())));
        assert!(!faults.set_node(Some("full".to_owned())));
        faults.failed(&id("a"), "no space left", 0);
        assert!(faults.set_node(None));
        assert!(faults.current(1).is_empty());
    }
}
