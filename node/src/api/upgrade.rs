//! Requests about the program of this node.

use tokio_util::sync::CancellationToken;
use vc_crdt::{KnownVersions, View};
use vc_protocol::audit::AuditAction;
use vc_protocol::control::{Change, ProgramId, ProgramRow, Reply};
use vc_protocol::{ApiError, Supports};

use super::ControlService;
use super::service::{Next, keep_alive};
use super::volume_archives::{Chunks, Received, receive};
use crate::VERSION;
use crate::auth::User;
use crate::frames::{Duplex, FrameError, Frames};
use crate::upgrade::{Staged, UpgradeError};

/// How long a client may send nothing of a program.
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(60);

impl ControlService {
    /// Says what runs this node.
    pub(super) async fn program(&self) -> Result<Reply, ApiError> {
        let node = self.cluster.membership().node;
        let upgrades = &self.upgrades;
        let refuses = match upgrades.permit() {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        Ok(Reply::Program(Box::new(ProgramRow {
            node,
            node_name: self.cluster.latest().view.name(node),
            version: VERSION.to_owned(),
            digest: upgrades.running().await?.digest.clone(),
            path: upgrades.path().display().to_string(),
            package: upgrades.package().unwrap_or_default().to_owned(),
            previous: upgrades.previous().await,
            refuses,
            failed: upgrades.failed().cloned(),
        })))
    }

    /// Receives a program and has this node restart with it.
    ///
    /// # Errors
    /// The stream is closed, or the program was refused before its end: what the client still sends is no request.
    pub(super) async fn upgrade(
        &self,
        user: &User,
        program: ProgramId,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Next, FrameError> {
        let answered = CancellationToken::new();
        // The node restarts when this is dropped, whether or not the client has the answer.
        let _restarts = answered.clone().drop_guard();
        let upgrades = &self.upgrades;
        if upgrades.running().await.is_ok_and(|it| it.digest == program.digest) {
            return self.answer_upgrade(user, Ok(Reply::Done(Vec::new())), frames).await;
        }
        if upgrades.previous().await.is_some_and(|it| it.digest == program.digest) {
            let switched = async {
                let staged = Staged::of_previous(upgrades, program).await?;
                self.switch(user, staged, answered).await
            };
            let reply = keep_alive(frames, true, switched).await?;
            return self.answer_upgrade(user, reply, frames).await;
        }
        let (staged, file) = match Staged::create(upgrades, program) {
            Ok(created) => created,
            Err(error) => return self.answer_upgrade(user, Err(error), frames).await,
        };
        frames.send(&Reply::Ready).await?;
        let (service, user) = (self.clone(), user.clone());
        let receiving = async move |chunks: Chunks| {
            let switched = async {
                staged.receive(file, chunks).await?;
                service.switch(&user, staged, answered).await
            };
            switched.await.map_err(|error| service.refuse_upgrade(&user, error))
        };
        match receive(frames, IDLE_TIMEOUT, receiving).await? {
            Received::Whole(reply) => {
                frames.send(&reply.unwrap_or_else(Reply::Error)).await?;
                Ok(Next::Request)
            }
            Received::Part(error) => {
                frames.send(&Reply::Error(error)).await?;
                Err(FrameError::Closed)
            }
        }
    }

    async fn answer_upgrade(
        &self,
        user: &User,
        reply: Result<Reply, UpgradeError>,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Next, FrameError> {
        let reply = reply.unwrap_or_else(|error| Reply::Error(self.refuse_upgrade(user, error)));
        frames.send(&reply).await.map(|()| Next::Request)
    }

    /// Records that a node was not upgraded, and returns the answer.
    fn refuse_upgrade(&self, user: &User, error: UpgradeError) -> ApiError {
        self.audit.refused(user, &error.to_string());
        error.into()
    }

    /// Checks a program and has the node restart with it once the client is answered.
    async fn switch(
        &self,
        user: &User,
        staged: Staged,
        answered: CancellationToken,
    ) -> Result<Reply, UpgradeError> {
        let view = self.cluster.latest().view;
        let running = self.upgrades.running().await?.digest.clone();
        // The program runs as this node does, before anything is known of it: the record is written first.
        let text = format!("had this node run the program {}, to check it", staged.digest());
        self.audit.record(AuditAction::ProgramChecked, user, None, text);
        self.audit.flush().await;
        let switch = staged.check(&self.upgrades, common(&view)).await?;
        let (version, digest) = (switch.version().to_owned(), switch.digest().to_owned());
        let text = format!(
            "had vc-node {VERSION} ({running}) of this node replaced by vc-node {version} ({digest})"
        );
        self.audit.record(AuditAction::NodeUpgraded, user, None, text);
        self.upgrades.switch(switch, answered).await?;
        let node = self.cluster.membership().node;
        Ok(Reply::Done(vec![Change::Upgrading {
            node,
            node_name: view.name(node),
            from: VERSION.to_owned(),
            to: version,
            digest,
        }]))
    }
}

/// Returns what all members support: the cluster may use that.
fn common(view: &View) -> Supports {
    let infos = view.nodes.values().filter_map(|state| state.info.as_ref());
    infos.fold(KnownVersions::default().supports(), |common, info| common.and(info.supports))
}
