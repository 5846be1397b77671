//! Messages between members: one long-lived stream in each direction, opened when there is something to say.
//!
//! What does not fit in a queue is dropped: anti-entropy repeats itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use libp2p::{PeerId, StreamProtocol};
use tokio::sync::mpsc;
use vc_engine::Input;
use vc_protocol::NodeId;
use vc_protocol::gossip::SyncMessage;
use vc_protocol::wire::{MAX_FRAME, SYNC_PROTOCOL, encode};

use crate::driver_message::DriverMessage;
use crate::frames::Frames;
use crate::network::inbound::Incoming;

/// Messages that may wait for one peer.
const QUEUE: usize = 64;

/// The outgoing streams, by peer. Cheap to clone.
#[derive(Clone)]
pub struct SyncStreams {
    control: libp2p_stream::Control,
    queues: Arc<Mutex<HashMap<PeerId, mpsc::Sender<SyncMessage>>>>,
}

impl SyncStreams {
    pub(crate) fn new(control: libp2p_stream::Control) -> Self {
        Self { control, queues: Arc::default() }
    }

    /// Sends to a connected member, or drops the message when it does not keep up.
    pub fn send(&self, to: NodeId, message: SyncMessage) {
        let peer = to.peer_id();
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(peer).or_insert_with(|| self.open(peer));
        if let Err(mpsc::error::TrySendError::Closed(message)) = queue.try_send(message) {
            let fresh = self.open(peer);
            // A fresh queue has room.
            let _ = fresh.try_send(message);
            queues.insert(peer, fresh);
        }
    }

    /// Forgets a peer whose connections are gone.
    pub fn close(&self, peer: &PeerId) {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    fn open(&self, peer: PeerId) -> mpsc::Sender<SyncMessage> {
        let (sender, mut receiver) = mpsc::channel(QUEUE);
        let mut control = self.control.clone();
        tokio::spawn(async move {
            let stream = match control.open_stream(peer, StreamProtocol::new(SYNC_PROTOCOL)).await {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::debug!(%peer, %error, "no stream to this peer");
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

/// Takes what other members send, a task a stream.
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
                    Err(crate::frames::FrameError::Cbor(error)) => {
                        tracing::warn!(node = %node, %error, "a member sent garbage; stream closed");
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
    }
}
