//! Looks up containers by their addresses: asks Docker, and caches its answers.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Semaphore};
use vc_runtime::docker::Docker;

use super::error::LookupError;
use super::table::Querier;

/// How long a found container is cached. Within this time the address of a removed container can only pass to another
/// one of the same project, because unused networks are kept for longer.
const FOUND_TTL: Duration = Duration::from_secs(5);
/// How long an unknown address is cached. Docker reports a container's address before its program starts.
const UNKNOWN_TTL: Duration = Duration::from_secs(1);
/// Limit of cached addresses: more than a node has containers.
const MAX_CACHED: usize = 4096;
/// Limit of lookups that wait for Docker, which is asked one at a time.
const MAX_WAITING: usize = 64;

/// Finds containers by address.
pub(super) struct ContainerLookup {
    docker: Docker,
    cache: Lock<BTreeMap<Ipv4Addr, Cached>>,
    asking: Mutex<()>,
    waiting: Semaphore,
}

#[derive(Clone)]
struct Cached {
    /// `None`: no container of this node has the address.
    querier: Option<Arc<Querier>>,
    since: Instant,
}

impl Cached {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < if self.querier.is_some() { FOUND_TTL } else { UNKNOWN_TTL }
    }
}

impl ContainerLookup {
    pub(super) fn new(docker: Docker) -> Self {
        Self {
            docker,
            cache: Lock::default(),
            asking: Mutex::default(),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }

    /// Returns the container that has an address; `None`: none of this node. While Docker does not answer, an expired
    /// entry is used. Errors: Docker does not answer and nothing is cached, or too many lookups wait.
    pub(super) async fn find(
        &self,
        address: Ipv4Addr,
    ) -> Result<Option<Arc<Querier>>, LookupError> {
        if let Some(cached) = self.cached(address).filter(Cached::is_fresh) {
            return Ok(cached.querier);
        }
        let waiting = self.waiting.try_acquire();
        let _waiting = waiting.map_err(|_| LookupError::Overloaded { limit: MAX_WAITING })?;
        let _asking = self.asking.lock().await;
        // Another lookup may have brought it meanwhile.
        let cached = self.cached(address);
        if let Some(cached) = cached.as_ref().filter(|cached| cached.is_fresh()) {
            return Ok(cached.querier.clone());
        }
        match (self.docker.containers_near(address).await, cached) {
            (Ok(containers), _) => {
                let since = Instant::now();
                let mut found: BTreeMap<Ipv4Addr, Cached> = containers
                    .into_iter()
                    .map(|it| {
                        let querier = Querier { project: it.project, networks: it.networks };
                        (it.address, Cached { querier: Some(Arc::new(querier)), since })
                    })
                    .collect();
                let own = found.entry(address).or_insert(Cached { querier: None, since });
                let querier = own.querier.clone();
                self.insert(found);
                Ok(querier)
            }
            (Err(_), Some(Cached { querier: Some(querier), .. })) => Ok(Some(querier)),
            (Err(error), _) => Err(error.into()),
        }
    }

    fn cached(&self, address: Ipv4Addr) -> Option<Cached> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&address).cloned()
    }

    fn insert(&self, found: BTreeMap<Ipv4Addr, Cached>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() + found.len() > MAX_CACHED {
            cache.retain(|_, it| it.is_fresh());
        }
        if cache.len() + found.len() > MAX_CACHED {
            cache.clear();
        }
        cache.extend(found);
    }
}
