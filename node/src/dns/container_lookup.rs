//! Looks up containers by their addresses, in a table of all containers in this node's networks.
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

/// Age at which the table is listed anew. Within this time the address of a removed container can only pass to another
/// one of the same project, because unused networks are kept for longer.
const MAX_AGE: Duration = Duration::from_secs(5);
/// Interval between lists for the sake of unknown addresses.
const UNKNOWN_INTERVAL: Duration = Duration::from_millis(200);
/// Limit of lookups of unknown addresses that wait for a list: few of the queries that the resolver takes at a time.
const MAX_UNKNOWN: usize = 64;

/// Lists the containers of this node.
pub(super) trait ListContainers: Send + Sync + 'static {
    /// Returns the containers, once for each of their addresses.
    fn list(&self) -> impl Future<Output = Result<Vec<ContainerByIp>, DockerError>> + Send;
}

impl ListContainers for Docker {
    async fn list(&self) -> Result<Vec<ContainerByIp>, DockerError> {
        self.containers_by_ip().await
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
        let (known, _) = self.known(address);
        if let Some((querier, since)) = &known
            && since.elapsed() < MAX_AGE
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
        if last.is_some_and(|since| since >= asked) {
            return Ok(current.map(|(querier, _)| querier));
        }
        if let (None, Some(last)) = (&known, last) {
            sleep_until(last + UNKNOWN_INTERVAL).await;
        }
        let since = Instant::now();
        match (self.docker.list().await, current) {
            (Ok(containers), _) => {
                let queriers = containers.into_iter().map(|it| {
                    let querier = Querier { project: it.project, networks: it.networks };
                    (it.address, Arc::new(querier))
                });
                let queriers = Arc::new(queriers.collect::<BTreeMap<_, _>>());
                let found = queriers.get(&address).cloned();
                *self.listed.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(Listed { queriers, since });
                Ok(found)
            }
            (Err(_), Some((querier, _))) => Ok(Some(querier)),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// Returns the container that the table has for an address, with the time of the list; and that time alone.
    fn known(&self, address: Ipv4Addr) -> (Option<(Arc<Querier>, Instant)>, Option<Instant>) {
        let listed = self.listed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Listed { queriers, since }) = listed else { return (None, None) };
        (queriers.get(&address).map(|it| (Arc::clone(it), since)), Some(since))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;

    use super::*;

    /// Answers each list when a permit is added.
    struct Lists {
        permits: Semaphore,
        count: AtomicUsize,
    }

    impl ListContainers for Arc<Lists> {
        async fn list(&self) -> Result<Vec<ContainerByIp>, DockerError> {
            self.count.fetch_add(1, Ordering::Relaxed);
            self.permits.acquire().await.expect("never closed").forget();
            let project = "shop".parse().expect("a name");
            Ok(vec![ContainerByIp { address: OWN, project, networks: [].into() }])
        }
    }

    const OWN: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);

    fn forged(number: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + u32::try_from(number).expect("few"))
    }

    #[tokio::test]
    async fn lookups_of_forged_sources_share_a_list_and_do_not_delay_known_containers() {
        let lists = Arc::new(Lists { permits: Semaphore::new(1), count: AtomicUsize::new(0) });
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
