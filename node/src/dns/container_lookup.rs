//! Who has which address: asked of Docker, and believed for a moment.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore};

use super::table::Querier;
use vc_runtime::docker::Docker;

/// For how long an answer of Docker's is believed. Only within it can the address of a container that is gone pass to
/// another one, and that one is of the same project: a network lingers for longer than that.
const FRESH: Duration = Duration::from_secs(5);
/// For how long it is believed that nobody of ours has an address. (Docker knows a container's address before the
/// container's program begins.)
const UNKNOWN: Duration = Duration::from_secs(1);
/// VirtualIps that are remembered: more than the containers of a node.
const MAX_KNOWN: usize = 4096;
/// Questions that may wait for Docker's answer; it gets one at a time.
const MAX_WAITING: usize = 64;

/// Knows containers by their addresses.
pub(super) struct ContainerLookup {
    docker: Docker,
    known: Lock<BTreeMap<Ipv4Addr, Known>>,
    asking: Mutex<()>,
    waiting: Semaphore,
}

#[derive(Clone)]
struct Known {
    /// `None`: none of ours.
    querier: Option<Arc<Querier>>,
    since: Instant,
}

impl Known {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < if self.querier.is_some() { FRESH } else { UNKNOWN }
    }
}

impl ContainerLookup {
    pub(super) fn new(docker: Docker) -> Self {
        Self {
            docker,
            known: Lock::default(),
            asking: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// The container that has this address; `None`: none of ours. While Docker does not answer, what was known stays
    /// true. Errors: it is not known.
    pub(super) async fn of(&self, address: Ipv4Addr) -> Result<Option<Arc<Querier>>, String> {
        if let Some(known) = self.remembered(address).filter(Known::is_fresh) {
            return Ok(known.querier);
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| "too many ask at once")?;
        let _asking = self.asking.lock().await;
        // Whoever asked meanwhile may have brought it along.
        let known = self.remembered(address);
        if let Some(known) = known.as_ref().filter(|known| known.is_fresh()) {
            return Ok(known.querier.clone());
        }
        match (self.docker.containers_near(address).await, known) {
            (Ok(containers), _) => {
                let since = Instant::now();
                let mut found: BTreeMap<Ipv4Addr, Known> = containers
                    .into_iter()
                    .map(|it| {
                        let querier = Querier { project: it.project, networks: it.networks };
                        (it.address, Known { querier: Some(Arc::new(querier)), since })
                    })
                    .collect();
                let own = found.entry(address).or_insert(Known { querier: None, since });
                let querier = own.querier.clone();
                self.remember(found);
                Ok(querier)
            }
            (Err(_), Some(Known { querier: Some(querier), .. })) => Ok(Some(querier)),
            (Err(error), _) => Err(error.to_string()),
        }
    }

    fn remembered(&self, address: Ipv4Addr) -> Option<Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    fn remember(&self, found: BTreeMap<Ipv4Addr, Known>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() + found.len() > MAX_KNOWN {
            known.retain(|_, it| it.is_fresh());
        }
        if known.len() + found.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(found);
    }
}
