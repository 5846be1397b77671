//! The members that one image is fetched from.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use vc_protocol::NodeId;
use vc_protocol::image::{Layer, Request, Response};

use super::error::{FetchError, PeerError};
use super::rpc::{OpenStream, RpcStream};

/// How many members one image is fetched from at a time.
const CONCURRENT_PEERS: usize = 3;

/// A member that has the image.
#[derive(Debug, Clone)]
struct Peer {
    node: NodeId,
    name: String,
    /// Requests in flight.
    requests: usize,
    /// Why it is not asked any more.
    failure: Option<String>,
    /// Whether bytes came from it.
    contributed: bool,
}

/// The members that have an image, in order of preference.
pub(super) struct Peers {
    open: OpenStream,
    peers: Mutex<Vec<Peer>>,
    /// Members that sent wrong bytes; they are not asked again for this image.
    untrusted: Mutex<BTreeSet<NodeId>>,
    /// Whether only one member is asked at a time. Set when wrong bytes may have come from any of several, so that the
    /// next attempt shows whose they are.
    one_at_a_time: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    pub(super) fn new(open: OpenStream) -> Self {
        Self {
            open,
            peers: Mutex::default(),
            untrusted: Mutex::default(),
            one_at_a_time: AtomicBool::new(false),
        }
    }

    /// Replaces the members, ordered by preference; untrusted ones are left out.
    pub(super) fn set(&self, peers: &[(NodeId, String)]) {
        let untrusted = lock(&self.untrusted);
        let trusted = peers.iter().filter(|(node, _)| !untrusted.contains(node));
        *lock(&self.peers) = trusted
            .map(|(node, name)| Peer {
                node: *node,
                name: name.clone(),
                requests: 0,
                failure: None,
                contributed: false,
            })
            .collect();
    }

    /// Excludes a member from now on.
    pub(super) fn distrust(&self, node: NodeId, name: &str, reason: &str) {
        tracing::warn!(%node, name, reason, "a member sent a wrong image; it is not asked again");
        lock(&self.untrusted).insert(node);
    }

    /// Reports whether a member was excluded.
    pub(super) fn is_untrusted(&self, node: NodeId) -> bool {
        lock(&self.untrusted).contains(&node)
    }

    /// Returns the names of the members that bytes came from, separated by commas.
    pub(super) fn contributors(&self) -> String {
        let peers = lock(&self.peers);
        let names = peers.iter().filter(|peer| peer.contributed && peer.failure.is_none());
        names.map(|peer| peer.name.clone()).collect::<Vec<_>>().join(", ")
    }

    /// Takes the least loaded of the first [`CONCURRENT_PEERS`] members that have not failed.
    fn acquire(&self) -> Option<(NodeId, String)> {
        let count = if self.one_at_a_time.load(Ordering::Relaxed) { 1 } else { CONCURRENT_PEERS };
        let mut peers = lock(&self.peers);
        let usable = peers.iter_mut().filter(|peer| peer.failure.is_none());
        let peer = usable.take(count).min_by_key(|peer| peer.requests)?;
        peer.requests += 1;
        Some((peer.node, peer.name.clone()))
    }

    fn release(&self, node: NodeId, contributed: bool, failure: Option<String>) {
        if let Some(peer) = lock(&self.peers).iter_mut().find(|peer| peer.node == node) {
            peer.requests -= 1;
            peer.contributed |= contributed;
            peer.failure = peer.failure.take().or(failure);
        }
    }

    fn failures(&self) -> String {
        let peers = lock(&self.peers);
        let failures = peers
            .iter()
            .filter_map(|peer| Some(format!("{}: {}", peer.name, peer.failure.as_ref()?)));
        failures.collect::<Vec<_>>().join("; ")
    }

    /// Handles a blob that does not match its digest: excludes the member that it came from, or makes sure that the next
    /// attempt shows which one it is.
    pub(super) fn report_corrupt(&self) {
        let contributors: Vec<Peer> =
            lock(&self.peers).iter().filter(|peer| peer.contributed).cloned().collect();
        let [one] = contributors.as_slice() else {
            self.one_at_a_time.store(true, Ordering::Relaxed);
            return;
        };
        self.distrust(one.node, &one.name, "its bytes do not match the digest");
        if let Some(peer) = lock(&self.peers).iter_mut().find(|peer| peer.node == one.node) {
            peer.failure = Some("its bytes do not match the digest".to_owned());
        }
    }

    /// Fetches a range of a blob; when a member fails, another one continues where it stopped.
    ///
    /// # Errors
    /// [`FetchError::NoPeers`] when all members have failed.
    pub(super) async fn fetch_range(
        &self,
        layer: &Layer,
        offset: u64,
        length: u64,
    ) -> Result<Vec<Bytes>, FetchError> {
        let (mut chunks, mut received) = (Vec::new(), 0);
        while received < length {
            let (node, name) =
                self.acquire().ok_or_else(|| FetchError::NoPeers(self.failures()))?;
            let request = Request::Blob {
                blob: layer.blob.clone(),
                offset: offset + received,
                length: length - received,
            };
            let before = received;
            let fetched = async {
                let mut stream = RpcStream::open(&self.open, node, &request).await?;
                if stream.response().await? != Response::Blob {
                    return Err(PeerError::Protocol);
                }
                while received < length {
                    let chunk = stream.bytes().await?;
                    if chunk.is_empty() || chunk.len() as u64 > length - received {
                        return Err(PeerError::Protocol);
                    }
                    received += chunk.len() as u64;
                    chunks.push(chunk);
                }
                Ok(())
            };
            let failure = fetched.await.err().map(|error| error.to_string());
            if let Some(error) = &failure {
                tracing::info!(
                    member = name,
                    blob = layer.blob.short(),
                    offset = offset + received,
                    error,
                    "a member failed during a fetch; continuing from another"
                );
            }
            self.release(node, received > before, failure);
        }
        Ok(chunks)
    }
}
