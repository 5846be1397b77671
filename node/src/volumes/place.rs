//! Where the data of volumes is on this node, as their declarations say.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use vc_crdt::View;
use vc_protocol::volume::VolumeSpec;
use vc_protocol::{NodeId, VolumeKey};
use vc_runtime::docker::{FindVolume, VolumePlace};

use crate::snapshot::Snapshot;

/// Returns what tells the runtime where volumes are, by the latest view; `snapshot` is set once the driver runs.
pub(crate) fn find(
    node: NodeId,
    snapshot: Arc<OnceLock<watch::Receiver<Snapshot>>>,
) -> Arc<FindVolume> {
    Arc::new(move |volume| {
        let view = snapshot.get().map(|it| Arc::clone(&it.borrow().view));
        let spec = view.as_ref().and_then(|view| declaration(view, volume));
        spec.map(|spec| VolumePlace::on(node, spec)).unwrap_or_default()
    })
}

/// Returns how a volume is kept, as the services say that mount it; `None` if none says it.
fn declaration<'a>(view: &'a View, volume: &VolumeKey) -> Option<&'a VolumeSpec> {
    let of_project = view.cluster.services.keys().filter(|it| it.project == volume.project);
    of_project.filter_map(|service| view.spec(service)?.volumes.get(&volume.volume)).next()
}
