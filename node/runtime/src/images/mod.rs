//! Images without a registry: members fetch from one another what they lack, by content.
//!
//! An image is named by its id, the hash of its configuration; the configuration names the layers by the hashes of their
//! tars. A node keeps layers as compressed *blobs* ([`store`]), which are named by the hashes of their own bytes: so parts
//! of one can come from several members, be continued after any interruption, and are checked before anybody relies on
//! them. Whoever has an image only in its Docker takes it out ([`pack`]) when it is first asked for.
//!
//! **Where an instance's image comes from** ([`Images::obtain`]): Docker here; else a member; else a registry, if one
//! answers. A deployment is pinned to an id when it is made ([`catalog`]), so every replica runs the same bytes wherever
//! they come from; without a pin, the references that were pushed count first.
//!
//! While a layer still arrives, what is there of it goes on to Docker ([`fetch`], [`unpack`]): the two take no longer than
//! the slower of them. Docker is told what to make of it at the very end, when everything has proven right.
//!
//! **What is kept** ([`prune`]): blobs of images that a service uses or used before its last update, and of those pushed
//! in the last seven days. Images that we loaded into Docker are removed from it when no service has needed them for
//! seven days; what others put there is never touched.

mod archive;
mod catalog;
pub(crate) mod engine;
mod fetch;
mod flight;
pub mod manifest;
mod obtain;
pub mod pack;
mod pipe;
mod prune;
mod push;
pub mod reference;
mod serve;
pub mod store;
mod transfer;
pub mod unpack;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use vc_crdt::View;
use vc_frames::Duplex;
use vc_protocol::{NodeId, PeerId};

use engine::Engine;
pub(crate) use flight::News;
use flight::{Flights, Waiter};
use manifest::{Digest, Manifest};
pub(crate) use obtain::Want;
use pipe::{PIECES, Piece, PipeReader};
pub use push::Pushed;
use store::Store;
pub use wire::Open;

/// How many images are taken out of Docker, or received from users, at a time.
const PACKS: usize = 4;

/// What a node has to know of its cluster to find images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    /// The other members.
    pub(crate) members: Vec<Member>,
    /// The images that were pushed, by canonical reference.
    pub(crate) pushed: BTreeMap<String, Digest>,
}

/// Another member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its id.
    pub(crate) node: NodeId,
    /// Its name.
    pub(crate) name: String,
    /// Whether it is up.
    pub(crate) up: bool,
}

impl Roster {
    /// As the documents say, for `own`.
    pub(crate) fn of(view: &View, own: NodeId) -> Self {
        let others = view.nodes.keys().filter(|&&node| node != own);
        let members =
            others.map(|&node| Member { node, name: view.name(node), up: view.up.contains(&node) });
        let pushed = view.cluster.images.iter();
        let pushed = pushed
            .filter_map(|(reference, record)| Some((reference.clone(), record.id.parse().ok()?)));
        Self { members: members.collect(), pushed: pushed.collect() }
    }
}

/// The images of a node. Cheap to clone.
#[derive(Clone)]
pub struct Images(Arc<Shared>);

struct Shared {
    store: Arc<Store>,
    engine: Option<Engine>,
    open: Open,
    roster: watch::Sender<Roster>,
    obtaining: Flights<Result<(), String>>,
    packing: Flights<Result<Arc<Manifest>, String>>,
    packs: Arc<Semaphore>,
    /// Images that we loaded into Docker, and when they were needed last.
    loaded: prune::Loaded,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Images").field(&self.0.store).finish()
    }
}

impl Images {
    /// The images in a data directory, and in the Docker engine at `host` if there is one. It knows no members yet: see
    /// [`run`](Self::run). Errors: the disk refuses.
    pub fn open(dir: &Path, host: Option<&str>) -> io::Result<Self> {
        Self::with(
            dir,
            host,
            Arc::new(|_| Box::pin(async { Err("there is no network".to_owned()) })),
        )
    }

    /// As [`open`](Self::open), with the way to other members.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn with(dir: &Path, host: Option<&str>, open: Open) -> io::Result<Self> {
        let store = Arc::new(Store::open(dir)?);
        let loaded = prune::Loaded::read(&store);
        Ok(Self(Arc::new(Shared {
            store,
            engine: host.map(Engine::new),
            open,
            roster: watch::Sender::new(Roster::default()),
            obtaining: Flights::new(),
            packing: Flights::new(),
            packs: Arc::new(Semaphore::new(PACKS)),
            loaded,
        })))
    }

    /// Serves other members, follows who they are, and prunes; for ever.
    pub async fn run<S: Duplex>(
        self,
        own: NodeId,
        streams: mpsc::Receiver<(PeerId, S)>,
        views: watch::Receiver<Arc<View>>,
    ) {
        let mut changing = views.clone();
        let follow = async {
            loop {
                let roster = Roster::of(&changing.borrow_and_update(), own);
                self.meet(roster);
                if changing.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(follow, self.serve(streams), self.prune(views));
    }

    /// Knows these members from now on.
    pub(crate) fn meet(&self, roster: Roster) {
        self.0.roster.send_if_modified(|known| {
            let news = *known != roster;
            *known = roster;
            news
        });
    }

    /// Which of these are here, and whether their blobs are at hand.
    async fn here(&self, ids: Vec<Digest>) -> BTreeMap<Digest, bool> {
        let in_docker: BTreeSet<Digest> = match (&self.0.engine, ids.as_slice()) {
            (Some(engine), [id]) => engine.has(id).await.then(|| id.clone()).into_iter().collect(),
            (Some(engine), _) => engine.all().await.into_iter().collect(),
            (None, _) => BTreeSet::new(),
        };
        let store = Arc::clone(&self.0.store);
        let found = fetch::blocking(move || {
            let here = |id: Digest| {
                let packed = store.complete(&id).is_some();
                (packed || in_docker.contains(&id)).then_some((id, packed))
            };
            Ok(ids.into_iter().filter_map(here).collect())
        });
        found.await.unwrap_or_default()
    }

    /// The image that a reference names in Docker here.
    async fn local_id(&self, reference: &str) -> Option<Digest> {
        let reference = reference::canonical(reference).ok()?;
        let found = self.0.engine.as_ref()?.find(&reference).await.ok()??;
        Some(found.0)
    }

    /// An image's manifest, with all its blobs at hand: taken out of Docker where that has not happened yet.
    fn pack(&self, id: &Digest) -> Waiter<Result<Arc<Manifest>, String>> {
        let (images, id) = (self.clone(), id.clone());
        self.0.packing.join(id.clone().as_str(), |teller| async move {
            let store = Arc::clone(&images.0.store);
            let sought = id.clone();
            let known = fetch::blocking(move || Ok(store.complete(&sought))).await;
            if let Ok(Some(manifest)) = known {
                return Ok(Arc::new(manifest));
            }
            let absent = || format!("image {} is not here", id.short());
            let engine = images.0.engine.as_ref().ok_or_else(absent)?;
            let (_, size) = engine.find(id.as_str()).await?.ok_or_else(absent)?;
            let _permit = images.0.packs.acquire().await;
            teller.tell("taking it out of Docker".to_owned());
            let (pieces, arriving) = mpsc::channel::<Piece>(PIECES);
            let saved = engine.save(&id)?;
            let forward = async move {
                let mut saved = std::pin::pin!(saved);
                while let Some(piece) = futures::StreamExt::next(&mut saved).await {
                    let empty = piece.as_ref().is_ok_and(|piece| piece.is_empty());
                    if !empty && pieces.send(piece).await.is_err() {
                        return;
                    }
                }
                // Who has gone knows why.
                let _ = pieces.send(Ok(bytes::Bytes::new())).await;
            };
            let packed = images.pack_from(id.clone(), arriving, move |bytes| {
                let percent = bytes.saturating_mul(100).checked_div(size).unwrap_or(0).min(100);
                teller.tell(format!("taking it out of Docker, {percent}%"));
            });
            let ((), packed) = tokio::join!(forward, packed);
            packed.map(Arc::new)
        })
    }

    /// Packs what arrives.
    async fn pack_from(
        &self,
        id: Digest,
        arriving: mpsc::Receiver<Piece>,
        tell: impl FnMut(u64) + Send + 'static,
    ) -> Result<Manifest, String> {
        let store = Arc::clone(&self.0.store);
        let packed = fetch::blocking(move || {
            Ok(pack::pack(&store, &id, PipeReader::new(arriving), tell).map_err(
                |error| match error {
                    pack::PackError::Io(error) => fetch::disk_refused(&error),
                    error => error.to_string(),
                },
            ))
        });
        packed.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// As people write sizes of images.
fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}

/// How long a member may take to say what it has.
const QUESTION: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
