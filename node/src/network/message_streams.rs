//! Messages between members, over one long-lived stream per direction that is opened on demand: anti-entropy, and leases.
//!
//! Messages beyond a full queue are dropped: both repeat.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::{PeerId, StreamProtocol};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use vc_engine::Input;
use vc_protocol::NodeId;
use vc_protocol::wire::{MAX_FRAME, encode};

use crate::driver_message::DriverMessage;
use crate::network::inbound::Incoming;
use vc_client::frames::Frames;

/// Messages that may wait for one peer.
const QUEUE: usize = 64;

/// The outgoing streams of one protocol, by peer. Cheap to clone.
pub(crate) struct MessageStreams<M> {
    control: libp2p_stream::Control,
    protocol: &'static str,
    queues: Arc<Mutex<HashMap<PeerId, mpsc::Sender<M>>>>,
}

impl<M> Clone for MessageStreams<M> {
    fn clone(&self) -> Self {
        let (control, queues) = (self.control.clone(), Arc::clone(&self.queues));
        Self { control, protocol: self.protocol, queues }
    }
}

impl<M: Serialize + Send + Sync + 'static> MessageStreams<M> {
    pub(crate) fn new(control: libp2p_stream::Control, protocol: &'static str) -> Self {
        Self { control, protocol, queues: Arc::default() }
    }

    /// Queues a message for a connected member; drops it when the queue is full.
    pub(crate) fn send(&self, to: NodeId, message: M) {
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

    fn open(&self, peer: PeerId) -> mpsc::Sender<M> {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let (mut control, protocol) = (self.control.clone(), self.protocol);
        tokio::spawn(async move {
            let stream = match control.open_stream(peer, StreamProtocol::new(protocol)).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%peer, protocol, %error, "cannot open a stream");
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

/// Accepts streams, one task each, and passes their messages to the driver.
pub(crate) async fn accept<M: DeserializeOwned + Send + 'static>(
    mut streams: Incoming,
    driver: mpsc::Sender<DriverMessage>,
    input: fn(NodeId, M) -> Input,
) {
    while let Some((peer, stream)) = streams.recv().await {
        let Ok(node) = NodeId::try_from(peer) else { continue };
        let driver = driver.clone();
        tokio::spawn(async move {
            let mut frames = Frames::new(stream, MAX_FRAME);
            loop {
                match frames.receive_cbor::<M>().await {
                    Ok(message) => {
                        let message = DriverMessage::Input(input(node, message));
                        if driver.send(message).await.is_err() {
                            return;
                        }
                    }
                    Err(vc_client::frames::FrameError::Cbor(error)) => {
                        tracing::warn!(node = %node, %error, "stream closed: malformed message");
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
    }
}
