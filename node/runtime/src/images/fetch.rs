//! Getting blobs from members: a few at once, each for a part; who falls silent is replaced where he stopped.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use tokio::sync::{mpsc, watch};
use vc_protocol::NodeId;

use super::manifest::Layer;
use super::pipe::{Growth, PIECES};
use super::store::{Partial, Store};
use super::wire::{Answer, Call, Open, Request, WINDOW};

/// Members that a blob is fetched from at a time.
const SOURCES: usize = 3;
/// Parts of a blob that are on their way at a time, each at most [`WINDOW`] in memory.
const WINDOWS: usize = 4;

/// Why a blob did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// Nobody is left who has it. What came is kept.
    #[error("{0}")]
    Nobody(String),
    /// What came is not what it should be. It was thrown away.
    #[error("what came was not what it should be")]
    Wrong,
    /// This node's disk refused.
    #[error("{0}")]
    Disk(String),
}

/// A member that may have a blob.
#[derive(Debug, Clone)]
struct Source {
    node: NodeId,
    name: String,
    /// Requests it is at.
    busy: usize,
    /// Why it is not asked any more.
    lost: Option<String>,
    /// Whether bytes came from it.
    gave: bool,
}

/// The members that an image is fetched from.
pub(super) struct Pool {
    open: Open,
    sources: Mutex<Vec<Source>>,
    /// Members whose bytes were wrong: they are never asked again for this image.
    liars: Mutex<BTreeSet<NodeId>>,
    /// One at a time, after bytes of several were wrong: then it shows whose.
    alone: std::sync::atomic::AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    pub(super) fn new(open: Open) -> Self {
        Self {
            open,
            sources: Mutex::default(),
            liars: Mutex::default(),
            alone: std::sync::atomic::AtomicBool::new(false),
        }
    }

    /// Asks these from now on, the first before the others; but for those that lied.
    pub(super) fn use_only(&self, holders: &[(NodeId, String)]) {
        let liars = lock(&self.liars);
        let honest = holders.iter().filter(|(node, _)| !liars.contains(node));
        *lock(&self.sources) = honest
            .map(|(node, name)| Source {
                node: *node,
                name: name.clone(),
                busy: 0,
                lost: None,
                gave: false,
            })
            .collect();
    }

    /// Never asks this member again.
    pub(super) fn distrust(&self, node: NodeId, name: &str, why: &str) {
        tracing::warn!(%node, name, "a member's image is wrong, and it is not asked again: {why}");
        lock(&self.liars).insert(node);
    }

    /// Whether this member lied.
    pub(super) fn is_liar(&self, node: NodeId) -> bool {
        lock(&self.liars).contains(&node)
    }

    /// The names of those that give.
    pub(super) fn givers(&self) -> String {
        let sources = lock(&self.sources);
        let giving = sources.iter().filter(|it| it.gave && it.lost.is_none());
        giving.map(|it| it.name.clone()).collect::<Vec<_>>().join(", ")
    }

    /// The least busy of the first few that are left.
    fn take(&self) -> Option<(NodeId, String)> {
        let alone = self.alone.load(std::sync::atomic::Ordering::Relaxed);
        let mut sources = lock(&self.sources);
        let left = sources.iter_mut().filter(|it| it.lost.is_none());
        let source = left.take(if alone { 1 } else { SOURCES }).min_by_key(|it| it.busy)?;
        source.busy += 1;
        Some((source.node, source.name.clone()))
    }

    fn give_back(&self, node: NodeId, gave: bool, lost: Option<String>) {
        if let Some(source) = lock(&self.sources).iter_mut().find(|it| it.node == node) {
            source.busy -= 1;
            source.gave |= gave;
            source.lost = source.lost.take().or(lost);
        }
    }

    fn why_nobody(&self) -> String {
        let sources = lock(&self.sources);
        let told =
            sources.iter().filter_map(|it| Some(format!("{}: {}", it.name, it.lost.as_ref()?)));
        told.collect::<Vec<_>>().join("; ")
    }

    /// Bytes of a blob were wrong.
    fn blame(&self) {
        let givers: Vec<Source> =
            lock(&self.sources).iter().filter(|it| it.gave).cloned().collect();
        match givers.as_slice() {
            [one] => {
                self.distrust(
                    one.node,
                    &one.name,
                    "its bytes do not have the hash that they should",
                );
                self.give_back_lost(one.node);
            }
            _ => self.alone.store(true, std::sync::atomic::Ordering::Relaxed),
        }
    }

    fn give_back_lost(&self, node: NodeId) {
        if let Some(source) = lock(&self.sources).iter_mut().find(|it| it.node == node) {
            source.lost = Some("its bytes were wrong".to_owned());
        }
    }

    /// A part of a blob, from whoever has it: who stops on the way is followed by another. Errors: nobody is left.
    async fn window(
        &self,
        layer: &Layer,
        offset: u64,
        length: u64,
    ) -> Result<Vec<Bytes>, FetchError> {
        let (mut pieces, mut got) = (Vec::new(), 0);
        while got < length {
            let (node, name) = self.take().ok_or_else(|| FetchError::Nobody(self.why_nobody()))?;
            let request = Request::Blob {
                blob: layer.blob.clone(),
                offset: offset + got,
                length: length - got,
            };
            let before = got;
            let outcome = async {
                let mut call = Call::new(&self.open, node, &request).await?;
                match call.answer().await? {
                    Answer::Bytes => {}
                    _ => return Err("it answers something else".to_owned()),
                }
                while got < length {
                    let piece = call.bytes().await?;
                    if piece.is_empty() || piece.len() as u64 > length - got {
                        return Err("it sends something else".to_owned());
                    }
                    got += piece.len() as u64;
                    pieces.push(piece);
                }
                Ok(())
            };
            let lost = outcome.await.err();
            if let Some(why) = &lost {
                tracing::info!(
                    source = name,
                    blob = layer.blob.short(),
                    at = offset + got,
                    "another goes on: {why}"
                );
            }
            self.give_back(node, got > before, lost);
        }
        Ok(pieces)
    }
}

/// Fetches the blob of a layer into the store; goes on from what is there. `growth` follows, for whoever reads it
/// meanwhile; `tell` hears how many bytes more have come.
pub(super) async fn fetch(
    pool: &Pool,
    store: &Arc<Store>,
    layer: &Layer,
    growth: watch::Sender<Growth>,
    mut tell: impl FnMut(u64),
) -> Result<(), FetchError> {
    let disk = |error: io::Error| FetchError::Disk(disk_refused(&error));
    let partial = {
        let (store, layer) = (Arc::clone(store), layer.clone());
        blocking(move || Partial::open(&store, &layer)).await.map_err(disk)?
    };
    let start = partial.length;
    growth.send_replace(Growth { length: start, whole: false });
    tell(start);

    let (pieces, arriving) = mpsc::channel(PIECES);
    let writer = {
        let (store, layer) = (Arc::clone(store), layer.clone());
        tokio::task::spawn_blocking(move || write(&store, &layer, partial, arriving, &growth))
    };
    let offsets = (start..layer.blob_size).step_by(usize::try_from(WINDOW).unwrap_or(usize::MAX));
    let windows =
        offsets.map(|offset| pool.window(layer, offset, WINDOW.min(layer.blob_size - offset)));
    let mut windows = stream::iter(windows).buffered(WINDOWS);
    let mut outcome = Ok(());
    'windows: while let Some(window) = windows.next().await {
        match window {
            Ok(window) => {
                for piece in window {
                    let length = piece.len() as u64;
                    // The writer has ended: it says why.
                    if pieces.send(piece).await.is_err() {
                        break 'windows;
                    }
                    tell(length);
                }
            }
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    drop(windows);
    drop(pieces);
    let written = writer.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    outcome?;
    match written {
        Ok(true) => Ok(()),
        Ok(false) => {
            pool.blame();
            Err(FetchError::Wrong)
        }
        Err(error) => Err(disk(error)),
    }
}

/// Writes what arrives; `false`: it is not what it should be.
fn write(
    store: &Store,
    layer: &Layer,
    mut partial: Partial,
    mut arriving: mpsc::Receiver<Bytes>,
    growth: &watch::Sender<Growth>,
) -> io::Result<bool> {
    while let Some(piece) = arriving.blocking_recv() {
        if let Err(error) = partial.put(&piece) {
            partial.remove();
            return Err(error);
        }
        growth.send_replace(Growth { length: partial.length, whole: false });
    }
    if !partial.is_right(layer) {
        return Ok(false);
    }
    // Who reads it need not wait for the disk.
    growth.send_replace(Growth { length: partial.length, whole: true });
    partial.keep(store, layer)?;
    Ok(true)
}

/// What a disk's refusal means to people.
pub(super) fn disk_refused(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "this node's disk is full: free some space".to_owned()
        }
        _ => format!("this node's disk refuses: {error}"),
    }
}

/// Does what blocks on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
