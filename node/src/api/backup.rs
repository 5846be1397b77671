//! The cluster document with its secrets, for a backup. The client encrypts it: no node learns the passphrase.

use std::collections::BTreeMap;
use std::io;

use data_encoding::BASE64;
use futures::stream;
use libp2p::bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use vc_crdt::{FileKey, View};
use vc_protocol::audit::AuditAction;
use vc_protocol::backup::{ClusterContent, MAX_CLUSTER_CONTENT};
use vc_protocol::control::Reply;
use vc_protocol::exec::MAX_EXEC_CHUNK;
use vc_protocol::{ApiError, ClusterId, ErrorCode, NodeId};

use super::ControlService;
use crate::auth::User;
use crate::clock;
use crate::exec;
use crate::frames::{Duplex, FrameError, Frames};
use crate::seal::FileKeys;

/// Contents that are decrypted and encoded at a time: each is in memory as a whole.
const MAX_CONTENTS: usize = 1;
static CONTENTS: Semaphore = Semaphore::const_new(MAX_CONTENTS);

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
    #[error("the cluster document and its files have more than {0} bytes, the most of a backup")]
    TooLarge(usize),
    #[error("this node is stopping")]
    Stopping,
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
            ContentError::TooLarge(_) => {
                (ErrorCode::FailedPrecondition, "delete secrets and configs that no service uses")
            }
            ContentError::Stopping => (ErrorCode::Unavailable, "use another node with --peer"),
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
        let bytes = match self.content().await {
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

    /// Returns the content of the cluster document as JSON, made on a thread that may block.
    async fn content(&self) -> Result<Vec<u8>, ContentError> {
        // Goes with the work, which goes on when the client has gone.
        let permit = CONTENTS.acquire().await.map_err(|_| ContentError::Stopping)?;
        let view = self.cluster.latest().view;
        let membership = self.cluster.membership();
        let (cluster, node) = (membership.cluster, membership.node);
        let keys = membership.file_keys().ok_or(ContentError::NoKey)?;
        let encoding = spawn_blocking(move || {
            let _permit = permit;
            encode(
                &content(&view, (cluster, node), &keys, MAX_CLUSTER_CONTENT)?,
                MAX_CLUSTER_CONTENT,
            )
        });
        encoding.await.map_err(|_| ContentError::Stopping)?
    }
}

/// Returns the content of the cluster document, as `node` has it. Its files have at most `limit` bytes in base64.
fn content(
    view: &View,
    (cluster, node): (ClusterId, NodeId),
    keys: &FileKeys,
    limit: usize,
) -> Result<ClusterContent, ContentError> {
    if !view.held.documents.is_empty() || view.held.has_unreadable {
        return Err(ContentError::Held);
    }
    let (mut files, mut size) = (BTreeMap::new(), 0);
    for (key, sealed) in &view.cluster.files {
        let content = keys.open(cluster, key, sealed);
        let content = content.ok_or_else(|| ContentError::Sealed(key.clone()))?;
        let content = BASE64.encode(&content);
        size += content.len();
        if size > limit {
            return Err(ContentError::TooLarge(limit));
        }
        files.insert(key.to_string(), content);
    }
    let mut entries = view.cluster.entries();
    entries.remove("files");
    Ok(ClusterContent {
        cluster,
        node: view.name(node),
        taken: clock::now(),
        version: crate::VERSION.to_owned(),
        entries,
        files,
    })
}

/// Encodes a content as JSON of at most `limit` bytes.
fn encode(content: &ClusterContent, limit: usize) -> Result<Vec<u8>, ContentError> {
    let mut bytes = Limited { bytes: Vec::new(), limit };
    match serde_json::to_writer(&mut bytes, content) {
        Err(error) if error.is_io() => Err(ContentError::TooLarge(limit)),
        encoded => encoded.map(|()| bytes.bytes).map_err(ContentError::Encode),
    }
}

/// Bytes in memory, at most `limit`.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::Keypair;

    use super::*;

    #[test]
    fn a_content_over_the_limit_is_refused() {
        let key = Keypair::generate_ed25519().public();
        let content = ClusterContent {
            cluster: ClusterId::of(&key).expect("an id"),
            node: "attic".to_owned(),
            taken: 7,
            version: "1".to_owned(),
            entries: BTreeMap::new(),
            files: BTreeMap::from([("shop/secret/db/1".to_owned(), "aHVudGVyMg==".to_owned())]),
        };
        let whole = serde_json::to_vec(&content).expect("JSON");
        assert_eq!(encode(&content, whole.len()).expect("encoded"), whole);
        let error = encode(&content, whole.len() - 1).expect_err("refused");
        assert!(matches!(error, ContentError::TooLarge(_)), "{error}");
    }
}
