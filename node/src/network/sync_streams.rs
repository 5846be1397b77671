//! Anti-entropy messages between members, over one long-lived stream per direction that is opened on demand.
//!
//! Messages beyond a full queue are dropped: anti-entropy repeats.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::{PeerId, StreamProtocol};
use tokio::sync::mpsc;
use vc_engine::Input;
use vc_protocol::NodeId;
use vc_protocol::gossip::SyncMessage;
use vc_protocol::wire::{MAX_FRAME, SYNC_PROTOCOL, encode};

use crate::driver_message::DriverMessage;
use crate::network::inbound::Incoming;
use vc_client::frames::Frames;

/// Messages that may wait for one peer.
const QUEUE: usize = 64;

/// The outgoing streams, by peer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SyncStreams {
    control: libp2p_stream::Control,
    queues: Arc<Mutex<HashMap<PeerId, mpsc::Sender<SyncMessage>>>>,
}

impl SyncStreams {
    pub(crate) fn new(control: libp2p_stream::Control) -> Self {
        Self { control, queues: Arc::default() }
    }

    /// Queues a message for a connected member; drops it when the queue is full.
    pub(crate) fn send(&self, to: NodeId, message: SyncMessage) {
        let peer = to.peer_id();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(peer).or_insert_with(|| self.open(peer));
        if let Err(mpsc::error::TrySendError::Closed(message)) = queue.try_send(message) {
            let fresh = self.open(peer);
            let _ = fresh.try_send(message);
            queues.insert(peer, fresh);
        }
    }

    /// Removes the stream of a disconnected peer.
    pub(crate) fn close(&self, peer: &PeerId) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    fn open(&self, peer: PeerId) -> mpsc::Sender<SyncMessage> {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let mut control = self.control.clone();
        tokio::spawn(async move {
            let stream = match control.open_stream(peer, StreamProtocol::new(SYNC_PROTOCOL)).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%peer, %error, "cannot open a sync stream");
                    return;
                }
            };
            let mut frames = Frames::new(stream, MAX_FRAME);
            while let Some(message) = receiver.recv().await {
                if frames.send_bytes(encode(&message)).await.is_err() {
                    return;
                }
            }
            let _ = frames.close().await;
        });
        sender
    }
}

/// Accepts sync streams, one task each, and passes their messages to the driver.
pub(crate) async fn accept(mut streams: Incoming, driver: mpsc::Sender<DriverMessage>) {
    while let Some((peer, stream)) = streams.recv().await {
        let Ok(node) = NodeId::try_from(peer) else { continue };
        let driver = driver.clone();
        tokio::spawn(async move {
            let mut frames = Frames::new(stream, MAX_FRAME);
            loop {
                match frames.receive_cbor::<SyncMessage>().await {
                    Ok(message) => {
                        if driver
                            .send(DriverMessage::Input(Input::Sync(node, message)))
                            .await
                            .is_err()
                        {
                            return;
                        }
                    }
                    Err(vc_client::frames::FrameError::Cbor(error)) => {
                        tracing::warn!(node = %node, %error, "sync stream closed: malformed message");
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
    }
}
