//! A node in memory that serves unauthenticated peers: for fuzz targets.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use vc_crdt::{Replica, View};
use vc_protocol::control::Request;
use vc_protocol::token::{NodeRole, issue_certificate};
use vc_protocol::{ClusterId, Keypair, NodeId};

use crate::audit::Audit;
use crate::auth::{AuthMetrics, AuthServer, TokenVerifier};
use crate::credentials::Credentials;
use crate::driver_message::{DRIVER_QUEUE, DriverMessage};
use crate::identity::Membership;
use crate::network::connection_gater::ConnectionGater;
use crate::network::fuzzing::MemoryNode;
use crate::seal::Seal;
use crate::snapshot::Snapshot;
use crate::trust::Admitted;

pub use crate::dns::fuzzing::answer_query;
pub use crate::http::fuzzing::{exchange, websocket};
pub use crate::network::fuzzing::ClientBytes;

/// A server of a cluster whose members and tokens the caller knows, with its network in memory.
pub struct Node {
    runtime: tokio::runtime::Runtime,
    network: MemoryNode,
    gater: ConnectionGater,
    _snapshot: watch::Sender<Snapshot>,
}

impl Node {
    /// Starts the node.
    ///
    /// # Panics
    /// A key is not an Ed25519 key, or no runtime can be made.
    #[expect(clippy::expect_used, reason = "a fuzz target")]
    pub fn start(root: &Keypair, key: &Keypair, now: u64) -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let cluster = ClusterId::of(&root.public()).expect("ed25519");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let certificate =
            issue_certificate(root, node, NodeRole::Server, now).expect("a certificate");
        let knows = vc_crdt::KnownVersions::default();
        let certificates = vec![certificate.clone()];
        let replica = Replica::load(key.clone(), node, cluster, knows, certificates, vec![]);
        let snapshot = Snapshot {
            view: Arc::new(View::of(&replica.expect("a replica").replica)),
            vitals: Arc::default(),
            left: false,
            duplicate: None,
            audit: None,
            watchdog: None,
        };
        let (keep, snapshot) = watch::channel(snapshot);
        let (driver, messages) = mpsc::channel(DRIVER_QUEUE);
        let gater = ConnectionGater::default();
        let (network, streams) = runtime.block_on(MemoryNode::listen(key, cluster, gater.clone()));
        let membership = Membership {
            dir: PathBuf::new(),
            key: key.clone(),
            node,
            cluster,
            credentials: Credentials::new(certificate, Vec::new()),
            root: Some(root.clone()),
            seal: Seal::generate().ok(),
            since: now,
        };
        let (audit, mut records) = Audit::new(node, "fuzzed".to_owned());
        runtime.spawn(async move { records.discard().await });
        let auth = AuthServer {
            membership: Arc::new(membership),
            gater: gater.clone(),
            driver,
            snapshot: snapshot.clone(),
            verifier: TokenVerifier { cluster, snapshot, audit },
            admitted: Admitted::default(),
            metrics: AuthMetrics::default(),
        };
        runtime.spawn(answer(messages));
        runtime.spawn(auth.serve(streams.auth, |_, mut frames| async move {
            while frames.receive::<Request>().await.is_ok() {}
        }));
        Self { runtime, network, gater, _snapshot: keep }
    }

    /// Serves a client that has a key. Returns the members that the node knows afterwards, and forgets them.
    pub fn serve(&mut self, key: &Keypair, bytes: ClientBytes) -> Vec<NodeId> {
        self.runtime.block_on(self.network.serve(key, bytes));
        let members = self.gater.members();
        for peer in &members {
            self.gater.remove(peer);
        }
        members.into_iter().filter_map(|peer| NodeId::try_from(peer).ok()).collect()
    }
}

/// Answers what the driver is asked.
async fn answer(mut messages: mpsc::Receiver<DriverMessage>) {
    while let Some(message) = messages.recv().await {
        if let DriverMessage::Admit { certificate, answer, .. } = message {
            let _ = answer.send(Ok(vec![certificate]));
        }
    }
}
