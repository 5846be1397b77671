//! Draining connections before an instance stops.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use vc_engine::runtime::InstanceId;

/// Drains the connections to instances. Implemented by what routes connections to them.
pub trait Drain: Send + Sync {
    /// Rejects new connections to an instance, and waits until the existing ones have closed or `grace` has passed.
    fn drain<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> BoxFuture<'a, ()>;

    /// Accepts connections to an instance again. Called when it was removed or is to be started.
    fn forget(&self, id: &InstanceId);
}

/// Drains nothing, for a runtime that no connections are routed to.
#[derive(Debug, Clone, Copy)]
pub struct NoDrain;

impl Drain for NoDrain {
    fn drain<'a>(&'a self, _: &'a InstanceId, _: Duration) -> BoxFuture<'a, ()> {
        futures::future::ready(()).boxed()
    }

    fn forget(&self, _: &InstanceId) {}
}
