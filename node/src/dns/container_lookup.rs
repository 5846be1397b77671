//! Looks up containers by their addresses, in a table of all containers in this node's networks. Docker is asked for it again
//! after its events say that containers started or ended, and for unknown addresses: an event may come after the first query.
//! Where one is missed, an address can only pass to another container of the same network until Docker is listed anyway, because
//! unused networks are kept for longer.
//!
//! All lookups share the table, so that a container that forges many sources makes Docker list its containers as often as
//! one that forges none.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until};
use vc_runtime::DockerError;
use vc_runtime::docker::{ContainerByIp, Docker};

use super::error::LookupError;
use super::table::Querier;

/// Interval between lists for the sake of unknown addresses.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(200);
/// Limit of lookups of unknown addresses that wait for a list: few of the queries that the resolver takes at a time.
const MAX_UNKNOWN: usize = 64;

/// Lists the containers of this node.
pub(super) trait ListContainers: Send + Sync + 'static {
    /// Returns the containers, once for each of their addresses.
    fn list(&self) -> impl Future<Output = Result<Vec<ContainerByIp>, DockerError>> + Send;

    /// Returns a number that grows whenever containers may have started or ended.
    fn changes(&self) -> u64;
}

impl ListContainers for Docker {
    async fn list(&self) -> Result<Vec<ContainerByIp>, DockerError> {
        self.containers_by_ip().await
    }

    fn changes(&self) -> u64 {
        Self::changes(self)
    }
}

/// Finds containers by address.
pub(super) struct ContainerLookup<D = Docker> {
    docker: D,
    listed: Lock<Option<Listed>>,
    listing: Mutex<()>,
    unknown: Semaphore,
}

/// The containers in a list.
#[derive(Clone)]
struct Listed {
    queriers: Arc<BTreeMap<Ipv4Addr, Arc<Querier>>>,
    /// When the list was requested.
    since: Instant,
    /// [`ListContainers::changes`] at that time.
    changes: u64,
}

impl<D: ListContainers> ContainerLookup<D> {
    pub(super) fn new(docker: D) -> Self {
        Self {
            docker,
            listed: Lock::default(),
            listing: Mutex::default(),
            unknown: Semaphore::new(MAX_UNKNOWN),
        }
    }

    /// Returns the container that has an address; `None`: none of this node. While Docker does not answer, an old entry is
    /// used. Errors: Docker does not answer, or too many lookups of unknown addresses wait.
    pub(super) async fn find(
        &self,
        address: Ipv4Addr,
    ) -> Result<Option<Arc<Querier>>, LookupError> {
        let asked = Instant::now();
        let (known, last) = self.known(address);
        if let (Some(querier), Some((_, changes))) = (&known, last)
            && changes == self.docker.changes()
        {
            return Ok(Some(Arc::clone(querier)));
        }
        // Docker reports a container's address before its program starts: a list requested from now on has it.
        let _permit = match &known {
            Some(_) => None,
            None => {
                let permit = self.unknown.try_acquire();
                Some(permit.map_err(|_| LookupError::Overloaded { limit: MAX_UNKNOWN })?)
            }
        };
        let _listing = self.listing.lock().await;
        let (current, last) = self.known(address);
        if last.is_some_and(|(since, _)| since >= asked) {
            return Ok(current);
        }
        if let (None, Some((since, _))) = (&known, last) {
            sleep_until(since + UNKNOWN_INTERVAL).await;
        }
        let (since, changes) = (Instant::now(), self.docker.changes());
        match (self.docker.list().await, current) {
            (Ok(containers), _) => {
                let queriers = containers.into_iter().map(|it| {
                    let ContainerByIp { networks, is_isolated, dns, .. } = it;
                    let querier = Querier { networks, is_isolated, dns };
                    (it.address, Arc::new(querier))
                });
                let queriers = Arc::new(queriers.collect::<BTreeMap<_, _>>());
                let found = queriers.get(&address).cloned();
                *self.listed.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Listed { queriers, since, changes });
                Ok(found)
            }
            (Err(_), Some(querier)) => Ok(Some(querier)),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Returns the container that the table has for an address; and when the table was listed, with the number of changes then.
    fn known(&self, address: Ipv4Addr) -> (Option<Arc<Querier>>, Option<(Instant, u64)>) {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Listed { queriers, since, changes }) = listed else { return (None, None) };
        (queriers.get(&address).cloned(), Some((since, changes)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use futures::FutureExt as _;

    use super::*;

    /// Answers each list when a permit is added.
    struct Lists {
        permits: Semaphore,
        count: AtomicUsize,
        changes: AtomicU64,
    }

    impl ListContainers for Arc<Lists> {
        async fn list(&self) -> Result<Vec<ContainerByIp>, DockerError> {
            self.count.fetch_add(1, Ordering::Relaxed);
            self.permits.acquire().await.expect("never closed").forget();
            let (networks, is_isolated) = ([].into(), false);
            Ok(vec![ContainerByIp { address: OWN, networks, is_isolated, dns: Vec::new() }])
        }

        fn changes(&self) -> u64 {
            self.changes.load(Ordering::Relaxed)
        }
    }

    fn lists(permits: usize) -> Arc<Lists> {
        let permits = Semaphore::new(permits);
        Arc::new(Lists { permits, count: AtomicUsize::new(0), changes: AtomicU64::new(0) })
    }

    const OWN: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);

    fn forged(number: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + u32::try_from(number).expect("few"))
    }

    #[tokio::test]
    async fn docker_is_asked_again_after_its_events_alone() {
        let lists = lists(2);
        let lookup = ContainerLookup::new(Arc::clone(&lists));
        for asked in [1, 1, 2, 2] {
            if lists.count.load(Ordering::Relaxed) < asked {
                lists.changes.fetch_add(1, Ordering::Relaxed);
            }
            assert!(lookup.find(OWN).await.expect("listed").is_some());
            assert_eq!(lists.count.load(Ordering::Relaxed), asked);
        }
    }

    #[tokio::test]
    async fn lookups_of_forged_sources_share_a_list_and_do_not_delay_known_containers() {
        let lists = lists(1);
        let lookup = ContainerLookup::new(Arc::clone(&lists));
        assert!(lookup.find(OWN).await.expect("listed").is_some());
        let mut waiting: Vec<_> =
            (0..MAX_UNKNOWN).map(|it| Box::pin(lookup.find(forged(it)))).collect();
        assert!(waiting.iter_mut().all(|it| it.now_or_never().is_none()));
        // Over the limit they are refused at once, while a known container is found without a list.
        assert!(lookup.find(forged(MAX_UNKNOWN)).await.is_err());
        assert!(lookup.find(OWN).now_or_never().expect("at once").expect("known").is_some());
        lists.permits.add_permits(1);
        for found in futures::future::join_all(waiting).await {
            assert!(found.expect("listed").is_none());
        }
        assert_eq!(lists.count.load(Ordering::Relaxed), 2);
    }
}
