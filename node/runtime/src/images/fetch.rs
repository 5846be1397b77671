//! Fetching blobs from members into the store: several ranges at a time, resuming after what is there.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tokio::sync::{mpsc, watch};
use vc_protocol::image::{Layer, MAX_RANGE};

use super::blob::PartialBlob;
use super::blocking::blocking;
use super::error::{FetchError, StoreError};
use super::peers::Peers;
use super::pipe::{CHANNEL_CHUNKS, PartialFile};
use super::store::Store;

/// How many ranges of a blob are in flight at a time, each at most [`MAX_RANGE`] bytes in memory.
const CONCURRENT_RANGES: usize = 4;

/// Fetches the blob of a layer into the store. `file` follows its length, for readers of the incomplete file; `received`
/// is called with the bytes that were there already and then with those of each chunk.
pub(super) async fn fetch(
    peers: &Peers,
    store: &Arc<Store>,
    layer: &Layer,
    file: watch::Sender<PartialFile>,
    mut received: impl FnMut(u64),
) -> Result<(), FetchError> {
    let partial = {
        let (store, layer) = (Arc::clone(store), layer.clone());
        blocking(move || PartialBlob::open(&store, &layer)).await.map_err(StoreError::from)?
    };
    let start = partial.length;
    file.send_replace(PartialFile { length: start, complete: false });
    received(start);

    let (chunks, queued) = mpsc::channel(CHANNEL_CHUNKS);
    let writer = {
        let (store, layer) = (Arc::clone(store), layer.clone());
        tokio::task::spawn_blocking(move || write(&store, &layer, partial, queued, &file))
    };
    let offsets =
        (start..layer.blob_size).step_by(usize::try_from(MAX_RANGE).unwrap_or(usize::MAX));
    let ranges = offsets
        .map(|offset| peers.fetch_range(layer, offset, MAX_RANGE.min(layer.blob_size - offset)));
    let mut ranges = stream::iter(ranges).buffered(CONCURRENT_RANGES);
    let mut fetched = Ok(());
    'ranges: while let Some(range) = ranges.next().await {
        match range {
            Ok(range) => {
                for chunk in range {
                    let length = chunk.len() as u64;
                    // The writer has stopped, and its result says why.
                    if chunks.send(chunk).await.is_err() {
                        break 'ranges;
                    }
                    received(length);
                }
            }
            Err(error) => {
                fetched = Err(error);
                break;
            }
        }
    }
    drop(ranges);
    drop(chunks);
    let written = writer.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    fetched?;
    if written.map_err(StoreError::from)? {
        return Ok(());
    }
    peers.report_corrupt();
    Err(FetchError::Corrupt { blob: layer.blob.short().to_owned() })
}

/// Writes the chunks in order and stores the blob; false when it does not match its digest, and was removed.
fn write(
    store: &Store,
    layer: &Layer,
    mut partial: PartialBlob,
    mut chunks: mpsc::Receiver<Bytes>,
    file: &watch::Sender<PartialFile>,
) -> io::Result<bool> {
    while let Some(chunk) = chunks.blocking_recv() {
        if let Err(error) = partial.write(&chunk) {
            partial.remove();
            return Err(error);
        }
        file.send_replace(PartialFile { length: partial.length, complete: false });
    }
    if !partial.verify(layer) {
        return Ok(false);
    }
    // Readers need not wait for the sync.
    file.send_replace(PartialFile { length: partial.length, complete: true });
    partial.store(store, layer)?;
    Ok(true)
}
