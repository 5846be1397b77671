//! Forwards the requests that only a server can answer from a worker to a server, in the name of their user.

use std::time::Duration;

use libp2p::Stream;
use tokio::sync::watch;
use tokio::time::timeout;
use vc_client::handshake::{Accepted, authenticate};
use vc_crdt::View;
use vc_protocol::auth::Credentials;
use vc_protocol::control::{Reply, Request, ServiceRow};
use vc_protocol::spec::ServiceMode;
use vc_protocol::wire::MAX_FRAME;
use vc_protocol::{ApiError, ClusterId, ErrorCode, NodeId};

use crate::auth::User;
use crate::exec;
use crate::frames::{Duplex, FrameError, Frames};
use crate::snapshot::Snapshot;

/// A server opens a session within this time, or the next one is asked.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the reply to a change waits for this node to hear of it.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens sessions with servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Forwarder {
    cluster: ClusterId,
    snapshot: watch::Receiver<Snapshot>,
    auth: libp2p_stream::Control,
}

impl Forwarder {
    pub(crate) fn new(
        cluster: ClusterId,
        snapshot: watch::Receiver<Snapshot>,
        auth: libp2p_stream::Control,
    ) -> Self {
        Self { cluster, snapshot, auth }
    }

    /// Has a server answer a request, and passes its replies on. The server verifies the user's token itself.
    ///
    /// # Errors
    /// The client's stream is closed, or carries nothing after this request.
    pub(super) async fn forward(
        &self,
        user: &User,
        request: &Request,
        client: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let unreachable = "this node is a worker and reaches no server";
        self.forward_to(&self.servers(), unreachable, user, request, client).await
    }

    /// As [`Self::forward`], to the first of these members that opens a session; `unreachable` says that none does.
    pub(super) async fn forward_to(
        &self,
        members: &[NodeId],
        unreachable: &str,
        user: &User,
        request: &Request,
        client: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let (member, mut server) = match self.open(user, members, unreachable).await {
            Ok(opened) => opened,
            Err(error) => {
                client.send(&Reply::Error(error)).await?;
                // A client that was refused a push or an upload still sends it.
                return match request {
                    Request::PushImage(_)
                    | Request::UploadVolume { .. }
                    | Request::ImportVolume { .. } => Err(FrameError::Closed),
                    _ => Ok(()),
                };
            }
        };
        let lost = match self.relay(request, client, member, &mut server).await {
            Ok(()) => return Ok(()),
            Err(Lost::Client(error)) => return Err(error),
            Err(Lost::Server(error)) => error,
        };
        let message = format!("lost the connection to the node that this one forwards to: {lost}");
        let error = ApiError::new(ErrorCode::Unavailable, message)
            .with_hint("see whether the command had an effect, and try again");
        client.send(&Reply::Error(error)).await?;
        Err(FrameError::Closed)
    }

    /// Opens a session with one of these members.
    async fn open(
        &self,
        user: &User,
        members: &[NodeId],
        unreachable: &str,
    ) -> Result<(NodeId, Frames<Stream>), ApiError> {
        let credentials =
            Credentials::User { token: user.credential.to_string(), address: user.address.clone() };
        let mut last = "none is up".to_owned();
        for &server in members {
            let peer = server.peer_id();
            let opened = authenticate(self.auth.clone(), peer, self.cluster, &credentials);
            match timeout(OPEN_TIMEOUT, opened).await {
                Ok(Ok(Accepted { mut frames, .. })) => {
                    frames.set_max(MAX_FRAME);
                    return Ok((server, frames));
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = "no answer".to_owned(),
            }
        }
        let message = format!("{unreachable}: {last}");
        Err(ApiError::new(ErrorCode::Unavailable, message)
            .with_hint("use another node with --peer, a server if you can; see 'vc nodes'"))
    }

    /// Sends a request to the server, and passes frames on until its last reply.
    async fn relay(
        &self,
        request: &Request,
        client: &mut Frames<impl Duplex>,
        member: NodeId,
        server: &mut Frames<Stream>,
    ) -> Result<(), Lost> {
        server.send(request).await.map_err(Lost::Server)?;
        loop {
            let reply: Reply = server.receive().await.map_err(Lost::Server)?;
            if let Reply::Done(_) = reply {
                // The change is durable, whether or not this node hears of it soon.
                let _ = timeout(CATCH_UP_TIMEOUT, self.catch_up(server)).await;
            }
            client.send(&reply).await.map_err(Lost::Client)?;
            match reply {
                Reply::KeepAlive | Reply::Note(_) => {}
                Reply::Files(list) if list.more => {}
                Reply::Ready
                    if matches!(request, Request::ExportVolume { .. } | Request::Backup) =>
                {
                    let name = self.snapshot.borrow().view.name(member);
                    let down = exec::node_down(self.snapshot.clone(), member);
                    let relayed = exec::relay(client, server, down, &name).await;
                    return relayed.map_err(Lost::Client);
                }
                Reply::Ready => return push(client, server).await,
                _ => return Ok(()),
            }
        }
    }

    /// Waits until this node knows the services as the server does: the client is about to look at them here.
    async fn catch_up(&self, server: &mut Frames<Stream>) -> Result<(), FrameError> {
        server.send(&Request::Services).await?;
        let rows = loop {
            match server.receive().await? {
                Reply::Services(rows) => break rows,
                Reply::KeepAlive => {}
                _ => return Ok(()),
            }
        };
        // An error means that the node is stopping.
        let _ = self.snapshot.clone().wait_for(|it| knows(&it.view, &rows)).await;
        Ok(())
    }

    fn servers(&self) -> Vec<NodeId> {
        self.snapshot.borrow().view.up_servers().collect()
    }
}

/// Returns whether a view has these services, or later revisions of them.
fn knows(view: &View, rows: &[ServiceRow]) -> bool {
    rows.iter().all(|row| match view.cluster.services.get(&row.service) {
        Some(held) if held.revision == row.revision => {
            row.mode != ServiceMode::Replicated || view.replicas(&row.service) == row.replicas
        }
        Some(held) => held.revision > row.revision,
        None => false,
    })
}

/// The side whose stream failed.
enum Lost {
    Client(FrameError),
    Server(FrameError),
}

/// Passes the frames of a push on, up to the empty one, and the server's replies.
async fn push(client: &mut Frames<impl Duplex>, server: &mut Frames<Stream>) -> Result<(), Lost> {
    let (mut to_server, mut from_server) = server.split();
    let (mut to_client, mut from_client) = client.split();
    let upload = async {
        loop {
            let bytes = from_client.receive_bytes().await.map_err(Lost::Client)?;
            let last = bytes.is_empty();
            // The server may refuse the image before its end: its reply says why.
            if last || to_server.send_bytes(bytes).await.is_err() {
                return to_server.send_bytes(Vec::new()).await.map_err(Lost::Server);
            }
        }
    };
    tokio::pin!(upload);
    let mut uploaded = false;
    loop {
        let reply = {
            let receive = from_server.receive::<Reply>();
            tokio::pin!(receive);
            loop {
                tokio::select! {
                    sent = &mut upload, if !uploaded => {
                        uploaded = true;
                        if let Err(error @ Lost::Client(_)) = sent {
                            return Err(error);
                        }
                    }
                    reply = &mut receive => break reply.map_err(Lost::Server)?,
                }
            }
        };
        to_client.send(&reply).await.map_err(Lost::Client)?;
        match reply {
            Reply::KeepAlive | Reply::Note(_) => {}
            _ if uploaded => return Ok(()),
            _ => return Err(Lost::Client(FrameError::Closed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{ClusterState, KnownVersions, ServiceRecord};
    use vc_engine::report;
    use vc_protocol::spec::ServiceSpec;

    use super::*;

    fn view(revision: u64, replicas: u32) -> View {
        let (spec, deployed_by) = (ServiceSpec::default().into(), "ada".to_owned());
        let record =
            ServiceRecord { spec, previous: None, revision, updated: 1, deployed_by, trace: None };
        let mut cluster = ClusterState::default();
        let service: vc_protocol::ServiceKey = "shop/web".parse().expect("a service");
        cluster.services.insert(service.clone(), record.into());
        cluster.scale.insert(service, replicas);
        View::from_states(cluster, BTreeMap::new(), &KnownVersions::default())
    }

    #[test]
    fn a_view_knows_what_the_server_has_changed_once_it_has_it() {
        let rows = report::services(&view(7, 2));
        assert!(knows(&view(7, 2), &rows) && knows(&view(8, 1), &rows));
        assert!(!knows(&view(6, 2), &rows), "the deployment is missing");
        assert!(!knows(&view(7, 1), &rows), "the scale is missing");
        let empty =
            View::from_states(ClusterState::default(), BTreeMap::new(), &KnownVersions::default());
        assert!(!knows(&empty, &rows) && knows(&empty, &[]));
    }
}
