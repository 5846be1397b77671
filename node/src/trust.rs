//! The signing key on servers: gets a new one from the server that made it, hands it to other servers, and issues certificates of
//! it for the nodes that the rotation did not know of.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use libp2p::{PeerId, Stream, StreamProtocol};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use vc_crdt::{FileKey, SealedFile, View};
use vc_engine::Mutation;
use vc_protocol::auth::{KeyRequest, KeyResponse, MAX_AUTH_FRAME};
use vc_protocol::change::Subject;
use vc_protocol::token::{NodeRole, Scope, Signer, SigningKey, TokenError};
use vc_protocol::wire::TRUST_PROTOCOL;
use vc_protocol::{ApiError, NodeId};

use crate::driver_message::DriverMessage;
use crate::frames::{FrameError, Frames};
use crate::identity::{IdentityError, KeyError, Membership, decode_key, encode_key};
use crate::network::inbound::Incoming;
use crate::seal::SealError;
use crate::snapshot::Snapshot;

/// Another server answers within this time, or the next one is asked.
const KEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after no server had the key, or the document could not be written.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// Nodes that were admitted lately, whose certificates are issued again.
const MAX_ADMITTED: usize = 1024;

/// Why a server did not give a key.
#[derive(Debug, thiserror::Error)]
enum KeyRequestError {
    #[error("the server cannot be reached ({0})")]
    Unreachable(#[from] libp2p_stream::OpenStreamError),
    #[error("the stream to the server broke: {0}")]
    Broken(#[from] FrameError),
    #[error("the server did not answer in time")]
    TimedOut,
    #[error("the server refused: {0}")]
    Refused(String),
    #[error("the server sent no signing key: {0}")]
    Malformed(#[from] KeyError),
    #[error("the server sent another key")]
    OtherKey,
    #[error(transparent)]
    Save(#[from] IdentityError),
}

/// Why certificates were not issued, or files not sealed.
#[derive(Debug, thiserror::Error)]
enum UpdateError {
    #[error(transparent)]
    Sign(#[from] TokenError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("{0}")]
    Refused(ApiError),
    #[error("this node is stopping")]
    Stopping,
}

/// The nodes that this server has admitted with a token since its start. A rotation on another server that does not know them yet
/// gives them no certificate: this server does. Cheap to clone; clones share the nodes.
#[derive(Clone, Default)]
pub(crate) struct Admitted(Arc<Mutex<BTreeMap<NodeId, NodeRole>>>);

impl Admitted {
    /// Adds a node.
    pub(crate) fn add(&self, node: NodeId, role: NodeRole) {
        let mut admitted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if admitted.len() >= MAX_ADMITTED {
            admitted.pop_first();
        }
        admitted.insert(node, role);
    }

    fn nodes(&self) -> BTreeMap<NodeId, NodeRole> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The signing key of this server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SigningKeys {
    membership: Arc<Membership>,
    snapshot: watch::Receiver<Snapshot>,
    driver: mpsc::Sender<DriverMessage>,
    members: libp2p_stream::Control,
    admitted: Admitted,
}

impl SigningKeys {
    pub(crate) fn new(
        membership: Arc<Membership>,
        snapshot: watch::Receiver<Snapshot>,
        driver: mpsc::Sender<DriverMessage>,
        members: libp2p_stream::Control,
        admitted: Admitted,
    ) -> Self {
        Self { membership, snapshot, driver, members, admitted }
    }

    /// Answers other servers. Runs until the queue of streams is closed.
    pub(crate) async fn serve(self, mut streams: Incoming) {
        while let Some((peer, stream)) = streams.recv().await {
            let keys = self.clone();
            tokio::spawn(async move {
                match timeout(KEY_TIMEOUT, keys.answer(peer, stream)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "key request failed"),
                    Err(_) => tracing::debug!(%peer, "key request timed out"),
                }
            });
        }
    }

    async fn answer(&self, peer: PeerId, stream: Stream) -> Result<(), FrameError> {
        let mut frames = Frames::new(stream, MAX_AUTH_FRAME);
        let KeyRequest { signing_key } = frames.receive().await?;
        let response = self.key_for(peer, signing_key).unwrap_or_else(|reason| {
            tracing::warn!(%peer, reason, "refused to hand over the signing key");
            KeyResponse::Refused { reason: reason.to_owned() }
        });
        frames.send(&response).await?;
        frames.close().await
    }

    /// Returns the keys for a peer that is a server, by a certificate of the signing key that counts.
    fn key_for(&self, peer: PeerId, key: NodeId) -> Result<KeyResponse, &'static str> {
        let view = Arc::clone(&self.snapshot.borrow().view);
        let node = NodeId::try_from(peer).map_err(|_| "only servers get the signing key")?;
        if view.trust.members.get(&node) != Some(&NodeRole::Server) {
            return Err("only servers get the signing key");
        }
        if view.trust.signing.is_none_or(|signing| signing.key != key) {
            return Err("this is not the signing key");
        }
        let held = self.membership.credentials.signing_key(key);
        let signing_key = held.as_ref().and_then(encode_key);
        let signing_key = signing_key.ok_or("this server does not have the key yet")?;
        Ok(KeyResponse::Keys { signing_key })
    }

    /// Gets each new signing key, issues the certificates that are missing, and seals files again. Runs until the node stops.
    pub(crate) async fn run(mut self) {
        let mut sealed = BTreeMap::new();
        loop {
            if !self.update(&mut sealed).await {
                tokio::time::sleep(RETRY_INTERVAL).await;
            } else if self.snapshot.changed().await.is_err() {
                return;
            }
        }
    }

    /// Returns whether nothing is left to be done until the view changes. `sealed` are the files that were looked at last.
    async fn update(&self, sealed: &mut BTreeMap<FileKey, SealedFile>) -> bool {
        let view = Arc::clone(&self.snapshot.borrow().view);
        let own = self.membership.node;
        let Some(signing) = view.trust.signing.filter(|signing| signing.epoch > 0) else {
            return true;
        };
        if view.trust.members.get(&own) != Some(&NodeRole::Server) {
            return true;
        }
        if self.membership.credentials.signing_key(signing.key).is_none()
            && !self.fetch(&view, signing).await
        {
            return false;
        }
        let Some(signer) = self.membership.signer().filter(|it| it.signing() == signing) else {
            return false;
        };
        if let Err(error) = self.certify(&view, &signer).await {
            tracing::warn!(%error, "cannot issue certificates of the new signing key: retrying");
            return false;
        }
        if let Err(error) = self.reseal_urls(&view).await {
            tracing::warn!(%error, "cannot seal URLs of receivers with the new key: retrying");
            return false;
        }
        // The server that has rotated the key does it at once: this is for what is left.
        let is_server = |node: &&NodeId| view.trust.members.get(node) == Some(&NodeRole::Server);
        if view.up.iter().find(is_server) != Some(&own) || *sealed == view.cluster.files {
            return true;
        }
        match self.reseal(&view).await {
            Ok(()) => {
                sealed.clone_from(&view.cluster.files);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "cannot seal secrets and configs with the new key: retrying");
                false
            }
        }
    }

    /// Seals the URLs of receivers of alerts that are sealed with an earlier key. Of several servers that do, one entry stays.
    async fn reseal_urls(&self, view: &View) -> Result<(), UpdateError> {
        let (cluster, receivers) = (self.membership.cluster, &view.cluster.receivers);
        let urls = self.membership.file_keys().map(|keys| keys.reseal_urls(cluster, receivers));
        let urls = urls.transpose()?.unwrap_or_default();
        if urls.is_empty() { Ok(()) } else { self.mutate(Mutation::ResealReceivers(urls)).await }
    }

    /// Seals the files that are sealed with an earlier key.
    async fn reseal(&self, view: &View) -> Result<(), UpdateError> {
        let cluster = self.membership.cluster;
        let batches = self.membership.file_keys().map(|it| it.reseal(cluster, &view.cluster.files));
        for files in batches.transpose()?.into_iter().flatten() {
            tracing::info!(count = files.len(), "sealing secrets and configs with the new key");
            self.mutate(Mutation::Reseal(files)).await?;
        }
        Ok(())
    }

    /// Gets a signing key from another server. Returns whether one had it.
    async fn fetch(&self, view: &View, signing: SigningKey) -> bool {
        let own = self.membership.node;
        let servers = view.trust.members.iter().filter(|(_, role)| **role == NodeRole::Server);
        for (&server, _) in servers.filter(|(node, _)| **node != own && view.up.contains(node)) {
            match self.request(server, signing.key).await {
                Ok(()) => {
                    tracing::info!(epoch = signing.epoch, %server, "got the signing key");
                    return true;
                }
                Err(error) => tracing::debug!(%server, %error, "got no signing key"),
            }
        }
        false
    }

    async fn request(&self, server: NodeId, key: NodeId) -> Result<(), KeyRequestError> {
        let exchange = async {
            let protocol = StreamProtocol::new(TRUST_PROTOCOL);
            let stream = self.members.clone().open_stream(server.peer_id(), protocol).await?;
            let mut frames = Frames::new(stream, MAX_AUTH_FRAME);
            frames.send(&KeyRequest { signing_key: key }).await?;
            Ok::<KeyResponse, KeyRequestError>(frames.receive().await?)
        };
        let response = timeout(KEY_TIMEOUT, exchange).await;
        let signing_key = match response.map_err(|_| KeyRequestError::TimedOut)?? {
            KeyResponse::Keys { signing_key } => decode_key(&signing_key)?,
            KeyResponse::Refused { reason } => return Err(KeyRequestError::Refused(reason)),
        };
        if signing_key.public() != key.public_key() {
            return Err(KeyRequestError::OtherKey);
        }
        Ok(self.membership.add_signing_key(signing_key)?)
    }

    /// Issues certificates for the nodes that this server has admitted, and for those whose changes it has accepted, before it
    /// learnt of the rotation.
    async fn certify(&self, view: &View, signer: &Signer) -> Result<(), UpdateError> {
        let (trust, now) = (&view.trust, crate::clock::now());
        let present = |node: &NodeId| !view.left.contains_key(node);
        let admitted: BTreeMap<NodeId, NodeRole> = self
            .admitted
            .nodes()
            .into_iter()
            .filter(|(node, _)| present(node) && !trust.members.contains_key(node))
            .collect();
        let former = trust
            .authors
            .iter()
            .filter(|(node, _)| !trust.certified.contains(node) && !admitted.contains_key(node));
        let members = admitted.iter().map(|(&node, &role)| (node, Scope::Member(role)));
        let scopes = members.chain(former.map(|(&node, &role)| (node, Scope::Former(role))));
        let signed = scopes.map(|(node, scope)| Ok((node, signer.certify(node, scope, now)?)));
        let certificates: BTreeMap<NodeId, String> = signed.collect::<Result<_, TokenError>>()?;
        if certificates.is_empty() {
            return Ok(());
        }
        tracing::info!(count = certificates.len(), "issuing certificates of the new signing key");
        self.mutate(Mutation::Certify { key: signer.signing().key, certificates }).await
    }

    /// Changes the cluster document in the name of this node.
    async fn mutate(&self, mutation: Mutation) -> Result<(), UpdateError> {
        let name = format!("node {}", self.membership.node);
        let by = Subject { name, token_id: String::new(), address: None };
        let (answer, result) = oneshot::channel();
        let message = DriverMessage::Mutate { by, mutation, answer };
        self.driver.send(message).await.map_err(|_| UpdateError::Stopping)?;
        let result = result.await.map_err(|_| UpdateError::Stopping)?;
        result.map(drop).map_err(UpdateError::Refused)
    }
}
