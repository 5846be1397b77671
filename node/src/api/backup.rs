//! The cluster document with its secrets, for a backup. The client encrypts it: no node learns the passphrase.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use futures::stream;
use libp2p::bytes::Bytes;
use vc_crdt::{FileKey, View};
use vc_protocol::audit::AuditAction;
use vc_protocol::backup::ClusterContent;
use vc_protocol::control::Reply;
use vc_protocol::exec::MAX_EXEC_CHUNK;
use vc_protocol::{ApiError, ErrorCode};

use super::ControlService;
use crate::auth::User;
use crate::clock;
use crate::exec;
use crate::frames::{Duplex, FrameError, Frames};
use crate::identity::Membership;

/// Why this node does not give the content.
#[derive(Debug, thiserror::Error)]
enum ContentError {
    #[error(
        "this node does not read all of the cluster document, which a newer version has written"
    )]
    Held,
    #[error("this node has no key of secrets")]
    NoKey,
    #[error("this node has no key that decrypts {0}")]
    Sealed(FileKey),
    #[error("cannot encode the cluster document: {0}")]
    Encode(#[from] serde_json::Error),
}

impl From<ContentError> for ApiError {
    fn from(error: ContentError) -> Self {
        let (code, hint) = match &error {
            ContentError::Held => {
                (ErrorCode::FailedPrecondition, "use a newer node with --peer, or upgrade this one")
            }
            ContentError::NoKey | ContentError::Sealed(_) => {
                (ErrorCode::FailedPrecondition, "use another server with --peer")
            }
            ContentError::Encode(_) => (ErrorCode::Internal, ""),
        };
        Self::new(code, error.to_string()).with_hint(hint)
    }
}

impl ControlService {
    /// Sends the content of the cluster document.
    ///
    /// # Errors
    /// The stream is closed; always so after the content has begun.
    pub(super) async fn backup(
        &self,
        user: &User,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<(), FrameError> {
        let view = self.cluster.latest().view;
        let encoded = content(&view, self.cluster.membership())
            .and_then(|content| Ok(serde_json::to_vec(&content)?));
        let bytes = match encoded {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) => return frames.send(&Reply::Error(error.into())).await,
        };
        let text = "backed the cluster up, with its secrets".to_owned();
        self.audit.record(AuditAction::BackupTaken, user, None, text);
        let chunks = (0..bytes.len()).step_by(MAX_EXEC_CHUNK).map(move |at| {
            Ok::<_, ApiError>(bytes.slice(at..bytes.len().min(at + MAX_EXEC_CHUNK)))
        });
        exec::send_archive(stream::iter(chunks), frames).await
    }
}

/// Returns the content of the cluster document.
fn content(view: &View, membership: &Membership) -> Result<ClusterContent, ContentError> {
    if !view.held.documents.is_empty() || view.held.has_unreadable {
        return Err(ContentError::Held);
    }
    let keys = membership.file_keys().ok_or(ContentError::NoKey)?;
    let mut files = BTreeMap::new();
    for (key, sealed) in &view.cluster.files {
        let content = keys.open(membership.cluster, key, sealed);
        let content = content.ok_or_else(|| ContentError::Sealed(key.clone()))?;
        files.insert(key.to_string(), BASE64.encode(&content));
    }
    let mut entries = view.cluster.entries();
    entries.remove("files");
    Ok(ClusterContent {
        cluster: membership.cluster,
        node: view.name(membership.node),
        taken: clock::now(),
        version: crate::VERSION.to_owned(),
        entries,
        files,
    })
}
