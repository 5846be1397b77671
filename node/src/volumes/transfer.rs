//! Snapshots between members: a stream each.
//!
//! The receiver sends a [`VolumeRequest`], the sender answers with a [`VolumeAnswer`], both as JSON frames; after a manifest follow the
//! bytes of `vc_volumes`, in both directions, beginning with the receiver's.

use std::time::Duration;

use libp2p::{PeerId, Stream, StreamProtocol};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::compat::FuturesAsyncReadCompatExt as _;
use vc_protocol::volume::SnapshotId;
use vc_protocol::wire::VOLUME_PROTOCOL;
use vc_protocol::{NodeId, VolumeKey};
use vc_volumes::{Manifest, Store, Volume};

use super::Volumes;
use super::error::TransferError;
use crate::frames::{FrameError, Frames};
use crate::member_server::{self, MaxRequests};
use crate::network::inbound::Incoming;

/// Snapshots that are being sent.
const MAX_REQUESTS: MaxRequests = MaxRequests { total: 8, per_member: 4 };
/// Time for a request to arrive, and for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest request or answer, in bytes.
const MAX_HEADER: usize = 16 * 1024;

/// A request for a snapshot.
#[derive(Debug, Serialize, Deserialize)]
struct VolumeRequest {
    volume: VolumeKey,
    /// The snapshot, or a later one.
    snapshot: SnapshotId,
}

/// The answer to a [`VolumeRequest`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VolumeAnswer {
    /// The snapshot that follows.
    Snapshot(Manifest),
    /// Why there is none, for people.
    Refused(String),
}

/// Gets a snapshot, or a later one, from another member. Returns its id. `progress` is called now and then with the bytes that
/// have arrived, and the size of the volume.
pub(super) async fn fetch(
    mut members: libp2p_stream::Control,
    from: NodeId,
    volume: &Volume,
    snapshot: SnapshotId,
    volumes: &Volumes,
    mut progress: impl FnMut(u64, u64) + Send,
) -> Result<SnapshotId, TransferError> {
    let asked = async {
        let protocol = StreamProtocol::new(VOLUME_PROTOCOL);
        let stream = members.open_stream(from.peer_id(), protocol).await?;
        let mut frames = Frames::new(stream, MAX_HEADER);
        frames.send(&VolumeRequest { volume: volume.key().clone(), snapshot }).await?;
        match frames.receive().await? {
            // The sender sends nothing more before it is asked.
            VolumeAnswer::Snapshot(manifest) => Ok((manifest, frames.into_inner())),
            VolumeAnswer::Refused(reason) => Err(TransferError::Refused(reason)),
        }
    };
    let asked = timeout(ANSWER_TIMEOUT, asked).await;
    let (manifest, stream) =
        asked.map_err(|_| TransferError::TimedOut(ANSWER_TIMEOUT.as_secs()))??;
    if manifest.id < snapshot {
        return Err(TransferError::Refused(format!("it has only snapshot {}", manifest.id)));
    }
    let stream = volumes.metered(volume.key(), stream.compat());
    volume.receive(&manifest, stream, |received| progress(received, manifest.bytes)).await?;
    Ok(manifest.id)
}

/// Sends snapshots to other members. Cheap to clone.
#[derive(Clone)]
pub(crate) struct VolumeServer {
    pub(crate) volumes: Volumes,
}

impl VolumeServer {
    /// Answers the requests of members.
    pub(crate) async fn serve(self, streams: Incoming) {
        let each = |peer: PeerId, stream: Stream| {
            let volumes = self.volumes.clone();
            async move { answer(&volumes, peer, stream).await }
        };
        member_server::serve(streams, MAX_REQUESTS, "snapshots of volumes", each).await;
    }
}

/// Answers the one request of a stream.
async fn answer(volumes: &Volumes, peer: PeerId, stream: Stream) {
    let mut frames = Frames::new(stream, MAX_HEADER);
    let asked = async {
        let request: VolumeRequest = frames.receive().await?;
        let found = match volumes.store() {
            Some(store) => newest(&store, &request).await,
            None => Err("the node has just started; it is tried again".to_owned()),
        };
        let header = match &found {
            Ok((_, manifest)) => VolumeAnswer::Snapshot(manifest.clone()),
            Err(reason) => VolumeAnswer::Refused(reason.clone()),
        };
        frames.send(&header).await?;
        Ok::<_, FrameError>((request, found))
    };
    let (request, (volume, manifest)) = match timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok((request, Ok(found)))) => (request, found),
        Ok(Ok((request, Err(reason)))) => {
            return tracing::debug!(%peer, volume = %request.volume, reason, "no snapshot is sent");
        }
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "no request for a snapshot"),
        Err(_) => return,
    };
    let stream = volumes.metered(&request.volume, frames.into_inner().compat());
    let sent = volume.send(manifest.id, stream).await;
    if let Err(error) = sent {
        tracing::debug!(%peer, volume = %request.volume, %error, "a snapshot was not sent");
    }
}

/// Returns the newest snapshot of a volume, if it is the requested one or later. Errors: why there is none.
async fn newest(store: &Store, request: &VolumeRequest) -> Result<(Volume, Manifest), String> {
    let volume = store.volume(&request.volume);
    let read = volume.clone();
    let found = tokio::task::spawn_blocking(move || read.snapshots()).await;
    let mut found = match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("the node is stopping".to_owned()),
    };
    let newest = found.pop().filter(|manifest| manifest.id >= request.snapshot);
    let missing = || format!("it has no snapshot {} of {}", request.snapshot, request.volume);
    Ok((volume, newest.ok_or_else(missing)?))
}
