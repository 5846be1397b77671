//! What members ask one another about images: one request a stream. Answers are JSON frames; the bytes of a blob follow as
//! frames of bytes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use vc_protocol::NodeId;
use vc_protocol::wire::MAX_FRAME;

use super::manifest::{Digest, Manifest};
use vc_frames::{Duplex, Frames};

/// The longest part of a blob that is asked for at a time, in bytes.
pub(super) const WINDOW: u64 = 4 * 1024 * 1024;
/// Bytes of a blob in one frame.
pub(super) const FRAME: usize = 256 * 1024;
/// Images that one request asks for.
pub(super) const MAX_IDS: usize = 1000;
/// A member that says nothing for so long is not waited for.
pub(super) const STALL: Duration = Duration::from_secs(5);

/// What a member asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Which of these do you have?
    Have(Vec<Digest>),
    /// Which image does this reference name in your Docker?
    Resolve(String),
    /// What is this image made of? Who does not know, and has it in his Docker, takes it out for that.
    Manifest(Digest),
    /// A part of a blob, at most [`WINDOW`] bytes.
    Blob {
        /// Which.
        blob: Digest,
        /// From here on.
        offset: u64,
        /// So many bytes.
        length: u64,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// Those that are here, and whether their blobs are at hand.
    Have(BTreeMap<Digest, bool>),
    /// The image; `None`: there is none.
    Image(Option<Digest>),
    /// It takes time: so far it is.
    Working(String),
    /// What it is made of.
    Manifest(Box<Manifest>),
    /// The bytes follow.
    Bytes,
    /// It cannot be had here, and why.
    No(String),
}

/// Opens a stream to a member; errors are for people.
pub type Open =
    Arc<dyn Fn(NodeId) -> BoxFuture<'static, Result<Box<dyn Duplex>, String>> + Send + Sync>;

/// A question to a member, and its answers.
pub(super) struct Call(Frames<Box<dyn Duplex>>);

impl Call {
    /// Asks. Errors: it cannot be reached.
    pub(super) async fn new(open: &Open, node: NodeId, request: &Request) -> Result<Self, String> {
        let ask = async {
            let mut frames = Frames::new(open(node).await?, MAX_FRAME);
            frames.send(request).await.map_err(|error| error.to_string())?;
            Ok(Self(frames))
        };
        timeout(STALL, ask).await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }

    /// The next answer. Errors: none within [`STALL`].
    pub(super) async fn answer(&mut self) -> Result<Answer, String> {
        match timeout(STALL, self.0.receive()).await {
            Ok(Ok(Answer::No(why))) => Err(why),
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        }
    }

    /// The next bytes. Errors: none within [`STALL`].
    pub(super) async fn bytes(&mut self) -> Result<Bytes, String> {
        match timeout(STALL, self.0.receive_bytes()).await {
            Ok(bytes) => bytes.map_err(|error| error.to_string()),
            Err(_) => Err("it says nothing any more".to_owned()),
        }
    }
}

/// Asks for one answer.
pub(super) async fn ask(open: &Open, node: NodeId, request: &Request) -> Result<Answer, String> {
    Call::new(open, node, request).await?.answer().await
}
