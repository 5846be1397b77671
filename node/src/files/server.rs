//! The answering side: hands over contents to the nodes that may have them.

use std::sync::Arc;
use std::time::Duration;

use libp2p::{PeerId, Stream};
use tokio::sync::watch;
use tokio::time::timeout;
use vc_crdt::View;
use vc_engine::{FileRefusal, file_access};
use vc_protocol::NodeId;
use vc_protocol::audit::AuditAction;
use vc_protocol::file::{FileRequest, FileResponse, MAX_FILE_REQUEST};
use vc_protocol::spec::FileId;

use crate::audit::{Audit, Origin};
use crate::frames::{Duplex, FrameError, Frames};
use crate::identity::Membership;
use crate::member_server::{self, MaxRequests};
use crate::network::inbound::Incoming;
use crate::snapshot::Snapshot;

/// Requests that are being answered.
const MAX_REQUESTS: MaxRequests = MaxRequests { total: 256, per_member: 32 };
/// Time for a request to arrive, and for its answer to be accepted.
const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request is held that this node's view does not permit: the change that permits it may be on its way.
pub(super) const VIEW_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a node does not get a content.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this node is a worker, which has no key of secrets and configs")]
    Worker,
    #[error("{0} cannot be decrypted with the files.key of this server; deploy it again")]
    WrongKey(FileId),
    #[error(transparent)]
    Access(#[from] FileRefusal),
}

/// Answers requests for contents. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FileServer {
    pub(crate) membership: Arc<Membership>,
    pub(crate) snapshot: watch::Receiver<Snapshot>,
    pub(crate) audit: Audit,
}

impl FileServer {
    /// Answers the requests of other members.
    pub(crate) async fn serve(self, streams: Incoming) {
        let each = |peer: PeerId, stream: Stream| {
            let server = self.clone();
            async move { server.answer(peer, stream).await }
        };
        member_server::serve(streams, MAX_REQUESTS, "secrets and configs", each).await;
    }

    /// Answers the one request of a stream.
    async fn answer(&self, peer: PeerId, stream: Stream) {
        // Only nodes are members, and only members open this protocol.
        let Ok(node) = NodeId::try_from(peer) else { return };
        let mut frames = Frames::new(stream, MAX_FILE_REQUEST);
        let Ok(Ok(request)) = timeout(FRAME_TIMEOUT, frames.receive::<FileRequest>()).await else {
            return;
        };
        let content = self.content(node, &request).await;
        self.record(node, &request, content.as_ref().err());
        if let Ok(Err(error)) = timeout(FRAME_TIMEOUT, send(&mut frames, content)).await {
            tracing::debug!(%node, %error, "the answer to a request for a secret was not received");
        }
    }

    /// Returns the content that a node asks for. A refusal that a later view may lift is held until then, for at most
    /// [`VIEW_TIMEOUT`].
    async fn content(&self, node: NodeId, request: &FileRequest) -> Result<Vec<u8>, Refusal> {
        let keys = self.membership.file_keys().ok_or(Refusal::Worker)?;
        let mut snapshot = self.snapshot.clone();
        let decided = |snapshot: &Snapshot| match file_access(&snapshot.view, node, request) {
            Ok(_) => true,
            Err(refusal) => refusal.is_final(),
        };
        let _ = timeout(VIEW_TIMEOUT, snapshot.wait_for(decided)).await;
        let view: Arc<View> = Arc::clone(&snapshot.borrow().view);
        let key = file_access(&view, node, request)?;
        let sealed = view.cluster.files.get(&key);
        let opened = sealed.and_then(|sealed| keys.open(self.membership.cluster, &key, sealed));
        opened.ok_or(Refusal::WrongKey(key.file))
    }

    /// Records that a node got a content, or was refused it.
    fn record(&self, node: NodeId, request: &FileRequest, refusal: Option<&Refusal>) {
        let FileRequest { instance, file, .. } = request;
        let (slot, service) = (&instance.slot, Some(instance.slot.service.clone()));
        match refusal {
            None => {
                tracing::info!(%node, %instance, %file, "handed over to a worker");
                let to = self.snapshot.borrow().view.name(node);
                let text = format!("handed {file} for {slot} over to {to}");
                let origin = Origin { via: Some(node), ..Origin::default() };
                self.audit.record(AuditAction::SecretHandedOver, origin, service, text);
            }
            Some(error) => {
                tracing::warn!(%node, %instance, %file, %error, "refused to hand over a secret or config");
                let text = format!("was refused {file} for {slot}: {error}");
                let origin = Origin { via: Some(node), ..Origin::default() };
                self.audit.record(AuditAction::Refused, origin, service, text);
            }
        }
    }
}

async fn send(
    frames: &mut Frames<impl Duplex>,
    content: Result<Vec<u8>, Refusal>,
) -> Result<(), FrameError> {
    match content {
        Ok(content) => {
            frames.send(&FileResponse::Content).await?;
            frames.send_bytes(content).await?;
        }
        Err(refusal) => frames.send(&FileResponse::Refused(refusal.to_string())).await?,
    }
    frames.close().await
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use futures::FutureExt as _;
    use vc_crdt::{ClusterState, FileKey, KnownVersions, NodeState, ServiceRecord};
    use vc_protocol::node::NodeInfo;
    use vc_protocol::spec::{FileKind, FileMount, ServiceSpec};
    use vc_protocol::{ClusterId, InstanceId, Keypair};

    use super::*;
    use crate::credentials::Credentials;
    use crate::seal::Seal;

    fn key(number: u8) -> Keypair {
        Keypair::ed25519_from_bytes([number; 32]).expect("32 bytes")
    }

    fn node(number: u8) -> NodeId {
        NodeId::of(&key(number).public()).expect("ed25519")
    }

    /// What runs where: node 2 alone can run `shop/web`, which mounts a secret.
    struct Fixture {
        server: FileServer,
        views: watch::Sender<Snapshot>,
        state: ClusterState,
        request: FileRequest,
    }

    fn snapshot(state: &ClusterState) -> Snapshot {
        let worker = NodeState {
            incarnation: 1,
            observed: BTreeSet::from([node(2)]),
            info: Some(NodeInfo::for_tests("attic")),
            ..NodeState::default()
        };
        let nodes = BTreeMap::from([(node(2), worker)]);
        let view = View::from_states(state.clone(), nodes, &KnownVersions::default());
        Snapshot {
            view: Arc::new(view),
            vitals: Arc::default(),
            left: false,
            duplicate: None,
            audit: None,
            watchdog: None,
        }
    }

    fn fixture() -> Fixture {
        let cluster = ClusterId::of(&key(1).public()).expect("ed25519");
        let seal = Seal::generate().expect("random numbers");
        let file = FileId { kind: FileKind::Secret, name: "db".to_owned() };
        let version = "v1".to_owned();
        let mut spec = ServiceSpec::default();
        spec.container.files.push(FileMount {
            file: file.clone(),
            version: version.clone(),
            target: "/run/secrets/db".to_owned(),
            uid: 0,
            gid: 0,
            mode: 0o444,
        });
        let slot = "shop/web.1".parse().expect("a slot");
        let instance = InstanceId { slot, digest: spec.container.digest() };
        let project = instance.slot.service.project.clone();
        let place = FileKey { project, file: file.clone(), version: version.clone() };
        let sealed = seal.seal(cluster, &place, b"hunter2").expect("sealed");
        let record = ServiceRecord {
            spec: spec.into(),
            previous: None,
            revision: 1,
            updated: 0,
            deployed_by: "ada".to_owned(),
            trace: None,
        };
        let state = ClusterState {
            services: BTreeMap::from([(instance.slot.service.clone(), record.into())]),
            files: BTreeMap::from([(place, sealed)]),
            ..ClusterState::default()
        };
        let membership = Membership {
            dir: PathBuf::new(),
            key: key(1),
            node: node(1),
            cluster,
            credentials: Credentials::new(String::new(), Vec::new()),
            root: Some(key(1)),
            seal: Some(seal),
            since: 0,
        };
        let (views, received) = watch::channel(snapshot(&state));
        let (audit, _) = Audit::new(node(1), "server".to_owned());
        let server = FileServer { membership: Arc::new(membership), snapshot: received, audit };
        Fixture { server, views, state, request: FileRequest { instance, file, version } }
    }

    #[tokio::test]
    async fn a_content_goes_to_the_node_that_runs_the_service_and_to_no_other() {
        let Fixture { server, views, mut state, request } = fixture();
        assert_eq!(server.content(node(2), &request).await.expect("handed over"), b"hunter2");
        state.left.insert(node(2), 1);
        views.send_replace(snapshot(&state));
        // At once: no later view permits it.
        let asked = server.content(node(2), &request).now_or_never().expect("decided");
        assert_eq!(
            asked.expect_err("refused").to_string(),
            "the node was removed from the cluster"
        );

        let Fixture { server, views, request, .. } = fixture();
        // No later view comes.
        drop(views);
        let refused = server.content(node(3), &request).await.expect_err("refused");
        assert_eq!(refused.to_string(), "the plan does not give shop/web.1 to the node");
    }

    #[tokio::test]
    async fn a_server_that_has_not_heard_of_a_deployment_waits_for_it() {
        let Fixture { server, views, state, request } = fixture();
        views.send_replace(snapshot(&ClusterState::default()));
        let asked = server.content(node(2), &request);
        let learns = async { views.send_replace(snapshot(&state)) };
        let (content, _) = tokio::join!(asked, learns);
        assert_eq!(content.expect("handed over"), b"hunter2");
    }

    #[tokio::test]
    async fn a_worker_hands_over_nothing() {
        let Fixture { mut server, request, .. } = fixture();
        let membership = Arc::get_mut(&mut server.membership).expect("the only one");
        membership.seal = None;
        let refused = server.content(node(2), &request).await.expect_err("refused");
        assert!(matches!(refused, Refusal::Worker), "{refused}");
    }
}
