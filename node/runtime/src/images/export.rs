//! Exporting images from this node's Docker engine into the store.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use vc_protocol::image::{Digest, Manifest};

use super::blocking::blocking;
use super::error::{ExportError, PackError, StoreError, short};
use super::node_images::{ExportResult, Images};
use super::pack::pack;
use super::pipe::{CHANNEL_CHUNKS, Chunk, PipeReader};
use super::singleflight::{ProgressSender, Subscription};

impl Images {
    /// Returns an image's manifest once all its blobs are in the store, exporting it from Docker where necessary.
    pub(super) fn export(&self, id: &Digest) -> Subscription<ExportResult> {
        let (images, id) = (self.clone(), id.clone());
        self.0.exports.join(id.clone().as_str(), |progress| async move {
            images.export_from_docker(&id, progress).await.map(Arc::new).map_err(Arc::new)
        })
    }

    async fn export_from_docker(
        &self,
        id: &Digest,
        progress: ProgressSender<ExportResult>,
    ) -> Result<Manifest, ExportError> {
        let (store, wanted) = (Arc::clone(&self.0.store), id.clone());
        let stored = blocking(move || Ok(store.complete(&wanted))).await;
        if let Some(manifest) = stored.map_err(StoreError::from)? {
            return Ok(manifest);
        }
        let not_found = || ExportError::NotFound(short(id));
        let docker = self.0.docker.as_ref().ok_or_else(not_found)?;
        let size = docker.size(id).await?.ok_or_else(not_found)?;
        let _permit = self.0.export_permits.acquire().await;
        progress.send("exporting from Docker".to_owned());
        let (chunks, received) = mpsc::channel::<Chunk>(CHANNEL_CHUNKS);
        let archive = docker.save(id).await?;
        let forward = async move {
            let mut archive = std::pin::pin!(archive);
            while let Some(chunk) = archive.next().await {
                let refused = chunk.as_ref().err().map(ToString::to_string);
                // An empty chunk would end the archive.
                let empty = chunk.as_ref().is_ok_and(Bytes::is_empty);
                if !empty && chunks.send(chunk).await.is_err() || refused.is_some() {
                    return refused;
                }
            }
            // When the receiver has stopped, it reports why.
            let _ = chunks.send(Ok(Bytes::new())).await;
            None
        };
        let packed = self.pack_archive(id.clone(), received, move |bytes| {
            let percent = bytes.saturating_mul(100).checked_div(size).unwrap_or(0).min(100);
            progress.send(format!("exporting from Docker, {percent}%"));
        });
        let (refused, packed) = tokio::join!(forward, packed);
        match refused {
            Some(reason) => Err(ExportError::Refused(reason)),
            None => packed,
        }
    }

    /// Packs an archive as `docker save` writes it into the store. `progress` is called with the number of bytes of
    /// layers received so far.
    pub(super) async fn pack_archive(
        &self,
        id: Digest,
        chunks: mpsc::Receiver<Chunk>,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<Manifest, ExportError> {
        let store = Arc::clone(&self.0.store);
        let packed =
            blocking(move || Ok(pack(&store, &id, PipeReader::new(chunks), progress))).await;
        match packed.map_err(|_: io::Error| ExportError::Interrupted)? {
            Ok(manifest) => Ok(manifest),
            Err(PackError::Io(error)) => Err(StoreError::from(error).into()),
            Err(error) => Err(error.into()),
        }
    }
}
