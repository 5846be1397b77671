//! Stopping an instance without cutting its connections.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use vc_engine::runtime::InstanceId;

/// Who knows the connections to the instances here.
pub trait Drain: Send + Sync {
    /// Lets no new connection to an instance begin, and waits until none is left or `grace` is over.
    fn drain<'a>(&'a self, id: &'a InstanceId, grace: Duration) -> BoxFuture<'a, ()>;

    /// The instance is gone, or wanted again: connections to it may begin when it is back.
    fn forget(&self, id: &InstanceId);
}

/// Nobody is connected to anything: for a runtime that nothing is routed to.
#[derive(Debug, Clone, Copy)]
pub struct Unrouted;

impl Drain for Unrouted {
    fn drain<'a>(&'a self, _: &'a InstanceId, _: Duration) -> BoxFuture<'a, ()> {
        futures::future::ready(()).boxed()
    }

    fn forget(&self, _: &InstanceId) {}
}
