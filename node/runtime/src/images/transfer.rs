//! Transferring an image from members into this node's Docker engine, layers being loaded while they arrive.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use vc_protocol::image::{Digest, Layer, Manifest};

use super::blocking::blocking;
use super::docker_images::DockerImages;
use super::error::{FetchError, StoreError, TransferError};
use super::fetch::fetch;
use super::node_images::{Images, PullResult};
use super::peers::Peers;
use super::pipe::{CHANNEL_CHUNKS, GrowingFile, PartialFile, PipeWriter};
use super::singleflight::ProgressSender;
use super::store::Store;
use super::unpack::{UnpackError, unpack};

/// Progress is reported after this many percent or this long, since every report is written to the node's document.
const REPORT_EVERY: (u64, Duration) = (10, Duration::from_secs(5));

impl Images {
    /// Fetches the missing layers into the store and loads the image into Docker meanwhile. Layers that Docker has are
    /// skipped unless `send_all_layers` is set.
    pub(super) async fn transfer(
        &self,
        docker: &DockerImages,
        peers: &Peers,
        manifest: &Arc<Manifest>,
        send_all_layers: bool,
        progress: &ProgressSender<PullResult>,
    ) -> Result<(), TransferError> {
        let diff_ids: Vec<&Digest> = manifest.layers.iter().map(|layer| &layer.diff_id).collect();
        let skip = if send_all_layers { 0 } else { docker.common_layers(&diff_ids).await };
        let missing = {
            let (store, manifest) = (Arc::clone(&self.0.store), Arc::clone(manifest));
            let look = blocking(move || {
                let mut missing: Vec<Layer> = Vec::new();
                for layer in &manifest.layers[skip..] {
                    let twice = missing.iter().any(|it| it.blob == layer.blob);
                    if !twice && !store.has_blob(layer) {
                        missing.push(layer.clone());
                    }
                }
                let space = store.check_space(missing.iter().map(|layer| layer.blob_size).sum());
                store.store_manifest(&manifest)?;
                Ok(space.map(|()| missing))
            });
            let missing = look.await.map_err(StoreError::from).flatten();
            missing.map_err(FetchError::from)?
        };

        let mut partial_files = BTreeMap::new();
        let mut fetches = Vec::new();
        for layer in missing {
            let (writer, reader) = watch::channel(PartialFile::default());
            partial_files.insert(layer.blob.clone(), reader);
            fetches.push((layer, writer));
        }
        let total: u64 = fetches.iter().map(|(layer, _)| layer.blob_size).sum();
        let mut percentage = Percentage::new(total);
        let fetching = async {
            for (layer, writer) in fetches {
                let mut has_begun = false;
                fetch(peers, &self.0.store, &layer, writer, |bytes| {
                    // The first are those that were there.
                    if std::mem::replace(&mut has_begun, true) {
                        self.0.traffic.received(bytes);
                    }
                    if let Some(percent) = percentage.add(bytes) {
                        let megabytes = total.div_ceil(1_000_000);
                        let from = peers.contributors();
                        progress.send(format!("{percent}% of {megabytes} MB from {from}"));
                    }
                })
                .await?;
            }
            progress.send("loading into Docker".to_owned());
            Ok::<(), FetchError>(())
        };

        let (chunks, ready) = mpsc::channel(CHANNEL_CHUNKS);
        let unpacking = {
            let (store, manifest) = (Arc::clone(&self.0.store), Arc::clone(manifest));
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                let mut output = PipeWriter::new(chunks);
                let open = |layer: &Layer| open_blob(&store, layer, &partial_files, &runtime);
                let unpacked = unpack(&manifest, skip, open, &mut output);
                if let Err(error) = &unpacked {
                    output.fail(io::Error::other(error.to_string()));
                }
                unpacked
            })
        };
        let mut feeding = std::pin::pin!(futures::future::join(fetching, unpacking));
        let mut loading = std::pin::pin!(docker.load(manifest, ReceiverStream::new(ready)));
        let mut fed = None;
        let loaded = loop {
            tokio::select! {
                loaded = &mut loading => break loaded,
                result = &mut feeding, if fed.is_none() => fed = Some(result),
            }
        };
        if fed.is_none() && loaded.is_ok() {
            fed = Some(feeding.await);
        }
        match fed {
            Some((Err(error), _)) => return Err(error.into()),
            Some((Ok(()), Ok(Err(UnpackError::WrongLayer { .. })))) => {
                return Err(TransferError::Manifest);
            }
            _ => {}
        }
        if !loaded? {
            return Err(TransferError::OtherId);
        }
        tracing::info!(
            image = manifest.id.short(),
            bytes = total,
            from = peers.contributors(),
            "image loaded into Docker"
        );
        Ok(())
    }

    /// Removes a wrong manifest and its blobs.
    pub(super) async fn discard(&self, manifest: &Arc<Manifest>) {
        let (store, manifest) = (Arc::clone(&self.0.store), Arc::clone(manifest));
        let removed = blocking(move || {
            store.remove_manifest(&manifest.id)?;
            manifest.layers.iter().try_for_each(|layer| store.remove_blob(&layer.blob))
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "cannot remove a wrong image from the store");
        }
    }
}

/// Opens the blob of a layer, from the store or while it is fetched.
fn open_blob(
    store: &Store,
    layer: &Layer,
    partial_files: &BTreeMap<Digest, watch::Receiver<PartialFile>>,
    runtime: &Handle,
) -> io::Result<Box<dyn io::Read>> {
    let Some(state) = partial_files.get(&layer.blob) else {
        return Ok(Box::new(store.blob(&layer.blob)?));
    };
    let mut state = state.clone();
    loop {
        // From the first byte on one of the two files exists: a complete blob is renamed from the second to the first.
        if let Ok(file) = store.blob(&layer.blob) {
            return Ok(Box::new(file));
        }
        let PartialFile { length, complete } = *state.borrow_and_update();
        if length > 0
            && let Ok(file) = std::fs::File::open(store.partial_path(&layer.blob))
        {
            return Ok(Box::new(GrowingFile { file, offset: 0, state, runtime: runtime.clone() }));
        }
        // The fetch has ended: the blob was stored just now, or never will be.
        if state.has_changed().is_err() {
            return Ok(Box::new(store.blob(&layer.blob)?));
        }
        if !complete && length == 0 {
            let changed = runtime.block_on(state.changed());
            changed.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        }
    }
}

/// Decides when progress is reported.
struct Percentage {
    total: u64,
    done: u64,
    reported: Option<(u64, Instant)>,
}

impl Percentage {
    fn new(total: u64) -> Self {
        Self { total, done: 0, reported: None }
    }

    /// Adds received bytes, and returns the percentage when it is to be reported.
    fn add(&mut self, bytes: u64) -> Option<u64> {
        self.done = self.done.saturating_add(bytes);
        if bytes == 0 {
            return None;
        }
        let percent = self.done.saturating_mul(100).checked_div(self.total)?;
        let due = self.reported.is_none_or(|(last, at)| {
            percent >= last + REPORT_EVERY.0 || (percent > last && at.elapsed() >= REPORT_EVERY.1)
        });
        due.then(|| {
            self.reported = Some((percent, Instant::now()));
            percent
        })
    }
}
