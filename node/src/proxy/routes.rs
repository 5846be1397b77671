//! The routes that follow from the latest view.

use std::sync::Arc;

use tokio::sync::watch;
use vc_engine::routes::Routes;

use crate::snapshot::Snapshot;

/// Derives the routes from each new view and publishes them when they changed. Returns when either channel closes.
pub async fn maintain_routes(
    mut snapshot: watch::Receiver<Snapshot>,
    table: watch::Sender<Arc<Routes>>,
) {
    let mut view = Arc::clone(&snapshot.borrow_and_update().view);
    loop {
        let routes = Routes::of(&view);
        table.send_if_modified(|held| {
            let new = **held != routes;
            if new {
                *held = Arc::new(routes);
            }
            new
        });
        // Snapshots also change with the nodes' usage, which leaves the view as it is.
        loop {
            tokio::select! {
                changed = snapshot.changed() => if changed.is_err() { return },
                () = table.closed() => return,
            }
            let latest = Arc::clone(&snapshot.borrow_and_update().view);
            if !Arc::ptr_eq(&latest, &view) {
                view = latest;
                break;
            }
        }
    }
}
