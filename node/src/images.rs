//! Connects the image store to the network and to the driver's view.

use std::io;
use std::sync::Arc;

use libp2p::StreamProtocol;
use tokio::sync::watch;
use vc_crdt::View;
use vc_frames::Duplex;
use vc_protocol::wire::IMAGE_PROTOCOL;
use vc_runtime::images::OpenStream;

use crate::snapshot::Snapshot;

/// Opens image streams to members over libp2p.
pub(crate) fn open_stream(members: libp2p_stream::Control) -> OpenStream {
    Arc::new(move |node| {
        let mut members = members.clone();
        Box::pin(async move {
            let protocol = StreamProtocol::new(IMAGE_PROTOCOL);
            let stream = members.open_stream(node.peer_id(), protocol).await;
            Ok(Box::new(stream.map_err(io::Error::other)?) as Box<dyn Duplex>)
        })
    })
}

/// Copies the view of each snapshot to `views`, until either side is closed.
pub(crate) async fn follow(
    mut snapshot: watch::Receiver<Snapshot>,
    views: watch::Sender<Arc<View>>,
) {
    while snapshot.changed().await.is_ok() && !views.is_closed() {
        let view = Arc::clone(&snapshot.borrow_and_update().view);
        views.send_replace(view);
    }
}
