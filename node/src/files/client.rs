//! The asking side: opens the contents of an instance's files with this node's key, or asks a server.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libp2p::StreamProtocol;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use vc_crdt::FileKey;
use vc_protocol::NodeId;
use vc_protocol::file::{FileRequest, FileResponse};
use vc_protocol::spec::MAX_FILE_BYTES;
use vc_protocol::wire::FILES_PROTOCOL;
use vc_runtime::docker::OpenFileError;

use super::server::VIEW_TIMEOUT;
use crate::frames::{FrameError, Frames};
use crate::identity::Membership;
use crate::snapshot::Snapshot;

/// How long a server may take to answer, which may hold a request for [`VIEW_TIMEOUT`].
const ANSWER_TIMEOUT: Duration = VIEW_TIMEOUT.saturating_mul(2);
/// How long servers are asked while none answers. The start of the instance fails then, and is retried later.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause before the servers are asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Requests at a time; fewer than a server answers for one node.
const MAX_REQUESTS: usize = 16;
/// The largest frame of an answer, in bytes: a content, or the reason of a refusal.
const MAX_ANSWER: usize = MAX_FILE_BYTES;

/// Why a server did not hand over a content.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("cannot be reached ({0})")]
    Unreachable(#[from] libp2p_stream::OpenStreamError),
    #[error("the stream broke ({0})")]
    Broken(#[from] FrameError),
    #[error("no answer within {} s", ANSWER_TIMEOUT.as_secs())]
    TimedOut,
    #[error("refused: {0}")]
    Refused(String),
}

/// Returns contents of secrets and configs.
pub(crate) struct FileClient {
    membership: Arc<Membership>,
    /// Set once the driver runs.
    snapshot: Arc<OnceLock<watch::Receiver<Snapshot>>>,
    members: libp2p_stream::Control,
    requests: Semaphore,
}

impl FileClient {
    pub(crate) fn new(
        membership: Arc<Membership>,
        snapshot: Arc<OnceLock<watch::Receiver<Snapshot>>>,
        members: libp2p_stream::Control,
    ) -> Self {
        Self { membership, snapshot, members, requests: Semaphore::new(MAX_REQUESTS) }
    }

    /// Returns the content of a file that an instance of this node mounts.
    ///
    /// # Errors
    /// The cluster has no such file, or no server handed it over.
    pub(crate) async fn open(&self, request: FileRequest) -> Result<Vec<u8>, OpenFileError> {
        match self.membership.file_keys() {
            Some(keys) => {
                let FileRequest { instance, file, version } = request;
                let project = instance.slot.service.project;
                let key = FileKey { project, file: file.clone(), version };
                let view = self.snapshot.get().map(|it| Arc::clone(&it.borrow().view));
                let sealed = view.as_ref().and_then(|view| view.cluster.files.get(&key));
                let sealed = sealed.ok_or_else(|| OpenFileError::NotFound(file.clone()))?;
                let opened = keys.open(self.membership.cluster, &key, sealed);
                opened.ok_or(OpenFileError::WrongKey(file))
            }
            None => self.ask(request).await,
        }
    }

    /// Asks one server after another, and again while one of them may yet answer.
    async fn ask(&self, request: FileRequest) -> Result<Vec<u8>, OpenFileError> {
        // The semaphore is never closed.
        let _permit = self.requests.acquire().await;
        let deadline = Instant::now() + ASK_TIMEOUT;
        loop {
            let (mut reasons, mut all_refused) = (Vec::new(), true);
            for (server, name) in self.servers() {
                let asked = timeout(ANSWER_TIMEOUT, self.ask_server(server, &request)).await;
                let error = match asked.unwrap_or(Err(AskError::TimedOut)) {
                    Ok(content) => return Ok(content),
                    Err(error) => error,
                };
                all_refused &= matches!(error, AskError::Refused(_));
                reasons.push(format!("{name} {error}"));
            }
            if reasons.is_empty() {
                (all_refused, reasons) = (false, vec!["none is up".to_owned()]);
            }
            if all_refused || Instant::now() >= deadline {
                let reason = reasons.join("; ");
                return Err(OpenFileError::NoServer { file: request.file, reason });
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn ask_server(&self, server: NodeId, request: &FileRequest) -> Result<Vec<u8>, AskError> {
        let protocol = StreamProtocol::new(FILES_PROTOCOL);
        let stream = self.members.clone().open_stream(server.peer_id(), protocol).await?;
        let mut frames = Frames::new(stream, MAX_ANSWER);
        frames.send(request).await?;
        match frames.receive().await? {
            FileResponse::Content => Ok(frames.receive_bytes().await?.into()),
            FileResponse::Refused(reason) => Err(AskError::Refused(reason)),
        }
    }

    /// Returns the servers that are up, with their names. Each worker begins with the next one after itself, so that they
    /// share the requests.
    fn servers(&self) -> Vec<(NodeId, String)> {
        let Some(snapshot) = self.snapshot.get() else { return Vec::new() };
        let view = Arc::clone(&snapshot.borrow().view);
        let own = self.membership.node;
        let up: BTreeMap<(bool, NodeId), String> =
            view.up_servers().map(|server| ((server < own, server), view.name(server))).collect();
        up.into_iter().map(|((_, server), name)| (server, name)).collect()
    }
}
