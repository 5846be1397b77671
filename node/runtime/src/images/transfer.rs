//! The way of an image's layers from members into Docker here.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::engine::Engine;
use super::fetch::{FetchError, Pool, blocking, fetch};
use super::flight::Teller;
use super::manifest::{Digest, Layer, Manifest};
use super::pipe::{Growing, Growth, PIECES, PipeWriter};
use super::store::Store;
use super::unpack::{UnpackError, unpack};
use super::{Images, megabytes};

/// News for people are told after so many percent, or so long: each is written to the node's document.
const NEWS: (u64, Duration) = (10, Duration::from_secs(5));

/// Why a transfer did not end well.
pub(super) enum Broken {
    /// A blob did not come.
    Fetch(FetchError),
    /// The manifest is wrong.
    Manifest,
    /// Docker refused.
    Docker(String),
}

impl Images {
    /// Fetches what is missing, and loads it into Docker as it comes.
    pub(super) async fn transfer(
        &self,
        engine: &Engine,
        pool: &Pool,
        manifest: &Arc<Manifest>,
        send_all: bool,
        teller: &Teller<Result<(), String>>,
    ) -> Result<(), Broken> {
        let diff_ids: Vec<&Digest> = manifest.layers.iter().map(|layer| &layer.diff_id).collect();
        let skip = if send_all { 0 } else { engine.shared(&diff_ids).await };
        let disk = |why: String| Broken::Fetch(FetchError::Disk(why));
        let missing = {
            let (store, manifest) = (Arc::clone(&self.0.store), Arc::clone(manifest));
            let look = blocking(move || {
                let mut missing: Vec<Layer> = Vec::new();
                for layer in &manifest.layers[skip..] {
                    let twice = missing.iter().any(|it| it.blob == layer.blob);
                    if !twice && !store.holds(layer) {
                        missing.push(layer.clone());
                    }
                }
                let room = store.room_for(missing.iter().map(|layer| layer.blob_size).sum());
                store.keep(&manifest)?;
                Ok(room.map(|()| missing))
            });
            look.await.map_err(|error| disk(super::fetch::disk_refused(&error)))?.map_err(disk)?
        };

        let mut growing = BTreeMap::new();
        let mut sinks = Vec::new();
        for layer in missing {
            let (sink, growth) = watch::channel(Growth::default());
            growing.insert(layer.blob.clone(), growth);
            sinks.push((layer, sink));
        }
        let total: u64 = sinks.iter().map(|(layer, _)| layer.blob_size).sum();
        let mut news = Progress::new(total);
        let fetching = async {
            for (layer, sink) in sinks {
                fetch(pool, &self.0.store, &layer, sink, |bytes| {
                    if let Some(percent) = news.add(bytes) {
                        let from = pool.givers();
                        teller.tell(format!("{percent}% of {} from {from}", megabytes(total)));
                    }
                })
                .await?;
            }
            teller.tell("loading it into Docker".to_owned());
            Ok::<(), FetchError>(())
        };

        let (pieces, ready) = mpsc::channel(PIECES);
        let unpacking = {
            let (store, manifest) = (Arc::clone(&self.0.store), Arc::clone(manifest));
            let runtime = Handle::current();
            tokio::task::spawn_blocking(move || {
                let mut output = PipeWriter::new(pieces);
                let open = |layer: &Layer| open_blob(&store, layer, &growing, &runtime);
                let unpacked = unpack(&manifest, skip, open, &mut output);
                if let Err(error) = &unpacked {
                    output.fail(io::Error::other(error.to_string()));
                }
                unpacked
            })
        };
        let mut feeding = std::pin::pin!(futures::future::join(fetching, unpacking));
        let mut loading = std::pin::pin!(engine.load(ReceiverStream::new(ready)));
        let mut fed = None;
        let loaded = loop {
            tokio::select! {
                loaded = &mut loading => break loaded,
                outcome = &mut feeding, if fed.is_none() => fed = Some(outcome),
            }
        };
        if fed.is_none() && loaded.is_ok() {
            fed = Some(feeding.await);
        }
        match fed {
            Some((Err(error), _)) => return Err(Broken::Fetch(error)),
            Some((Ok(()), Ok(Err(UnpackError::Wrong { .. })))) => return Err(Broken::Manifest),
            _ => {}
        }
        loaded.map_err(Broken::Docker)?;
        if !engine.has(&manifest.id).await {
            return Err(Broken::Docker("it took it for something else".to_owned()));
        }
        tracing::info!(
            image = manifest.id.short(),
            bytes = total,
            from = pool.givers(),
            "image loaded"
        );
        Ok(())
    }

    /// Throws away the blobs of a manifest that is wrong.
    pub(super) async fn discard(&self, manifest: &Arc<Manifest>) {
        let (store, manifest) = (Arc::clone(&self.0.store), Arc::clone(manifest));
        let removed = blocking(move || {
            store.forget(&manifest.id)?;
            manifest.layers.iter().try_for_each(|layer| store.discard(&layer.blob))
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, "cannot remove what is wrong");
        }
    }
}

/// A layer's blob: whole from the store, or as it arrives.
fn open_blob(
    store: &Store,
    layer: &Layer,
    growing: &BTreeMap<Digest, watch::Receiver<Growth>>,
    runtime: &Handle,
) -> io::Result<Box<dyn io::Read>> {
    let Some(growth) = growing.get(&layer.blob) else {
        return Ok(Box::new(store.blob(&layer.blob)?));
    };
    let mut growth = growth.clone();
    loop {
        // One of the two is there from the first byte on: a whole blob moves from the second to the first.
        if let Ok(file) = store.blob(&layer.blob) {
            return Ok(Box::new(file));
        }
        let Growth { length, whole } = *growth.borrow_and_update();
        if length > 0
            && let Ok(file) = std::fs::File::open(store.partial_path(&layer.blob))
        {
            return Ok(Box::new(Growing { file, at: 0, growth, runtime: runtime.clone() }));
        }
        // Who wrote it has gone: either it has just got its name, or it never will.
        if growth.has_changed().is_err() {
            return Ok(Box::new(store.blob(&layer.blob)?));
        }
        if !whole && length == 0 {
            let changed = runtime.block_on(growth.changed());
            changed.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        }
    }
}

/// Decides when there is news for people.
struct Progress {
    total: u64,
    done: u64,
    told: Option<(u64, Instant)>,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { total, done: 0, told: None }
    }

    /// So many more bytes: the percentage, when it is time to tell it.
    fn add(&mut self, bytes: u64) -> Option<u64> {
        self.done = self.done.saturating_add(bytes);
        if bytes == 0 {
            return None;
        }
        let percent = self.done.saturating_mul(100).checked_div(self.total)?;
        let due = self.told.is_none_or(|(told, at)| {
            percent >= told + NEWS.0 || (percent > told && at.elapsed() >= NEWS.1)
        });
        due.then(|| {
            self.told = Some((percent, Instant::now()));
            percent
        })
    }
}
