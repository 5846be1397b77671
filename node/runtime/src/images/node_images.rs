//! The images of a node: the handle that the other files of this folder extend.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use vc_protocol::image::{Digest, Manifest};

use super::blocking::blocking;
use super::docker_images::DockerImages;
use super::engine_ids::EngineIds;
use super::error::{ExportError, PullError};
use super::loaded::Loaded;
use super::peer_set::PeerSet;
use super::reference;
use super::rpc::OpenStream;
use super::singleflight::Group;
use super::store::Store;
use super::traffic::{ImageTraffic, Traffic};
use crate::docker_error::DockerError;

/// How many images are exported from Docker or received from clients at a time.
const MAX_EXPORTS: usize = 4;
/// How long a member may take to say what it has.
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_secs(2);

/// The outcome of a pull, shared by all who wait for it.
pub(super) type PullResult = Result<(), Arc<PullError>>;
/// The outcome of an export, shared by all who wait for it.
pub(super) type ExportResult = Result<Arc<Manifest>, Arc<ExportError>>;

/// The images of a node: its store, its Docker engine and the way to other members. Cheap to clone.
#[derive(Clone)]
pub struct Images(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    /// `None` on nodes without Docker.
    pub(super) docker: Option<DockerImages>,
    pub(super) open: OpenStream,
    pub(super) peers: watch::Sender<PeerSet>,
    pub(super) pulls: Group<PullResult>,
    pub(super) exports: Group<ExportResult>,
    pub(super) export_permits: Arc<Semaphore>,
    pub(super) loaded: Loaded,
    pub(super) traffic: Traffic,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Images").field(&self.0.store).finish()
    }
}

impl Images {
    /// Opens the store in a data directory, without other members. `docker_host` is the address of the Docker engine, if
    /// the node has one.
    ///
    /// # Errors
    /// The directory cannot be created or read.
    pub fn open(dir: &Path, docker_host: Option<&str>) -> io::Result<Self> {
        let no_network = || Err(io::ErrorKind::NetworkUnreachable.into());
        Self::with_peers(dir, docker_host, Arc::new(move |_| Box::pin(async move { no_network() })))
    }

    /// Opens the store as [`open`](Self::open) does; `open` opens image streams to members.
    ///
    /// # Errors
    /// The directory cannot be created or read.
    pub fn with_peers(dir: &Path, docker_host: Option<&str>, open: OpenStream) -> io::Result<Self> {
        let store = Arc::new(Store::open(dir)?);
        let loaded = Loaded::read(&store);
        let docker =
            docker_host.map(|host| DockerImages::new(host, EngineIds::read(Arc::clone(&store))));
        Ok(Self(Arc::new(Shared {
            store,
            docker,
            open,
            peers: watch::Sender::new(PeerSet::default()),
            pulls: Group::new(),
            exports: Group::new(),
            export_permits: Arc::new(Semaphore::new(MAX_EXPORTS)),
            loaded,
            traffic: Traffic::default(),
        })))
    }

    /// Returns what went between this node and other members.
    pub fn traffic(&self) -> ImageTraffic {
        self.0.traffic.counts()
    }

    /// Replaces the peers.
    pub(super) fn set_peers(&self, peers: PeerSet) {
        self.0.peers.send_if_modified(|known| {
            let changed = *known != peers;
            *known = peers;
            changed
        });
    }

    /// Returns those of `ids` that are on this node; `true` for those whose blobs are in the store.
    pub(super) async fn present(&self, ids: Vec<Digest>) -> BTreeMap<Digest, bool> {
        let in_docker: BTreeSet<Digest> = match (&self.0.docker, ids.as_slice()) {
            (Some(docker), [id]) => docker.has(id).await.then(|| id.clone()).into_iter().collect(),
            (Some(docker), _) => docker.all().await.into_iter().collect(),
            (None, _) => BTreeSet::new(),
        };
        let store = Arc::clone(&self.0.store);
        let found = blocking(move || {
            let present = |id: Digest| {
                let packed = store.complete(&id).is_some();
                (packed || in_docker.contains(&id)).then_some((id, packed))
            };
            Ok(ids.into_iter().filter_map(present).collect())
        });
        found.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read the image store");
            BTreeMap::new()
        })
    }

    /// Returns the name under which this node's Docker engine runs an image: of a pinned one what the engine calls it.
    pub(crate) async fn engine_name(
        &self,
        reference: &str,
        pinned: Option<&Digest>,
    ) -> Result<String, DockerError> {
        match (pinned, &self.0.docker) {
            (Some(id), Some(docker)) => Ok(docker.name_of(id).await?.into()),
            (Some(id), None) => Ok(id.to_string()),
            (None, _) => Ok(reference.to_owned()),
        }
    }

    /// Returns the image that a reference names in this node's Docker engine.
    pub(super) async fn local_id(&self, reference: &str) -> Option<Digest> {
        let reference = reference::canonical(reference).ok()?;
        match self.0.docker.as_ref()?.find(&reference).await {
            Ok(found) => found.map(|(id, _)| id),
            Err(error) => {
                tracing::debug!(image = reference, %error, "cannot look up an image in Docker");
                None
            }
        }
    }
}
