//! Where the data of volumes is on this node, as their declarations say.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use vc_placement::volume_spec;
use vc_protocol::NodeId;
use vc_runtime::docker::{FindVolume, VolumePlace};

use crate::snapshot::Snapshot;

/// Returns what tells the runtime where volumes are, by the latest view; `snapshot` is set once the driver runs.
pub(crate) fn find(
    node: NodeId,
    snapshot: Arc<OnceLock<watch::Receiver<Snapshot>>>,
) -> Arc<FindVolume> {
    Arc::new(move |volume| {
        let view = snapshot.get().map(|it| Arc::clone(&it.borrow().view));
        view.map(|view| VolumePlace::on(node, &volume_spec(&view.input, volume)))
            .unwrap_or_default()
    })
}
