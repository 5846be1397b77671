//! What requests need of the cluster: the latest view, and changes through the driver.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use vc_crdt::View;
use vc_engine::{Input, Mutation};
use vc_protocol::control::{LiveUpdate, Reply};
use vc_protocol::{ApiError, ErrorCode, Multiaddr};

use super::reports::ReportCache;
use crate::auth::{Audience, User, peer_addresses};
use crate::driver_message::DriverMessage;
use crate::identity::Membership;
use crate::snapshot::Snapshot;

/// This node's handle on the cluster. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    membership: Arc<Membership>,
    snapshot: watch::Receiver<Snapshot>,
    driver: mpsc::Sender<DriverMessage>,
    reports: ReportCache,
}

/// The error of a request whose answer was lost because the driver ended.
pub(super) fn stopping(_: impl std::error::Error) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "this node is stopping")
        .with_hint("use another node with --peer")
}

impl Cluster {
    pub(crate) fn new(
        membership: Arc<Membership>,
        snapshot: watch::Receiver<Snapshot>,
        driver: mpsc::Sender<DriverMessage>,
    ) -> Self {
        Self { membership, snapshot, driver, reports: ReportCache::default() }
    }

    /// Returns the identity and keys of this node.
    pub(super) fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Returns whether this node may write the cluster document.
    pub(super) fn is_server(&self) -> bool {
        self.membership.root.is_some()
    }

    /// Returns the channel of snapshots.
    pub(super) fn snapshots(&self) -> &watch::Receiver<Snapshot> {
        &self.snapshot
    }

    /// Returns the latest view and usage.
    pub(super) fn latest(&self) -> Snapshot {
        self.snapshot.borrow().clone()
    }

    /// Returns what the latest view shows to a user.
    pub(super) fn view_of(&self, user: &User) -> Arc<View> {
        let view = self.latest().view;
        match user.rights.projects() {
            Some(projects) => Arc::new(view.limited_to(projects)),
            None => view,
        }
    }

    /// Returns what the reports of a snapshot show to a user, computed once for all callers with the same rights.
    pub(super) fn reports(&self, snapshot: &Snapshot, user: &User) -> Arc<LiveUpdate> {
        self.reports.of(snapshot, &user.rights, self.membership.cluster, self.membership.node)
    }

    /// Returns members' addresses that this audience can dial.
    pub(super) fn peer_addresses(&self, audience: Audience) -> Vec<Multiaddr> {
        peer_addresses(audience, &self.latest().view, self.membership.node)
    }

    /// Passes an input to the engine.
    pub(super) async fn input(&self, input: Input) -> Result<(), ApiError> {
        self.driver.send(DriverMessage::Input(input)).await.map_err(stopping)
    }

    /// Applies a change in the user's name. Returns once it is durable on this node.
    pub(super) async fn mutate(&self, user: &User, mutation: Mutation) -> Result<Reply, ApiError> {
        let (answer, result) = oneshot::channel();
        let message = DriverMessage::Mutate { by: user.subject(), mutation, answer };
        self.driver.send(message).await.map_err(stopping)?;
        result.await.map_err(stopping)?.map(Reply::Done)
    }
}
