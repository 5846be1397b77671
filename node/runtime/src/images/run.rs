//! The tasks of the image store.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use vc_crdt::View;
use vc_frames::Duplex;
use vc_protocol::{NodeId, PeerId};

use super::node_images::Images;
use super::peer_set::PeerSet;

impl Images {
    /// Serves the streams of other members, follows membership, keeps copies and prunes, until `streams` and `views` are closed.
    pub async fn run<S: Duplex>(
        self,
        own: NodeId,
        streams: mpsc::Receiver<(PeerId, S)>,
        views: watch::Receiver<Arc<View>>,
    ) {
        let mut changes = views.clone();
        let follow = async {
            loop {
                let peers = PeerSet::of(&changes.borrow_and_update(), own);
                self.set_peers(peers);
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let copies = async {
            // A node without Docker runs no images.
            if self.0.docker.is_some() {
                self.keep_copies(own, views.clone()).await;
            }
        };
        tokio::join!(follow, self.serve(streams), copies, self.prune(views.clone()));
    }
}
