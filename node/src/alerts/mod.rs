//! Sends alerts to receivers outside the cluster, as the engine decides (`vc_engine::alerts`).

mod command;
mod error;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use vc_crdt::{Receiver, ReceiverTarget};
use vc_engine::alerts::{Alert, Delivery, MAX_BATCH, message};
use vc_engine::{Input, MAX_RECEIVERS};
use vc_protocol::Name;

use crate::driver_message::DriverMessage;
use crate::identity::Membership;
use crate::snapshot::Snapshot;

pub(crate) use error::SendError;
pub(crate) use webhook::{WebhookUrl, WebhookUrlError};

/// Deliveries that may wait for the task: one of each receiver, and those of an engine that was built anew meanwhile.
pub(crate) const DELIVERIES: usize = 2 * MAX_RECEIVERS;
/// A delivery that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(15);

/// Sends alerts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AlertSender {
    membership: Arc<Membership>,
    snapshot: watch::Receiver<Snapshot>,
    /// Whether the operator of this node lets receivers run commands.
    allows_commands: bool,
    client: vc_https::Client,
}

impl AlertSender {
    pub(crate) fn new(
        membership: Arc<Membership>,
        snapshot: watch::Receiver<Snapshot>,
        allows_commands: bool,
    ) -> Self {
        Self { membership, snapshot, allows_commands, client: vc_https::Client::default() }
    }

    /// Sends what comes from the engine, to several receivers at a time, and reports how that ended. Runs until the driver ends.
    pub(crate) async fn run(
        self,
        mut deliveries: mpsc::Receiver<Delivery>,
        driver: mpsc::Sender<DriverMessage>,
    ) {
        while let Some(Delivery { receiver, alerts }) = deliveries.recv().await {
            debug_assert!(alerts.len() <= MAX_BATCH);
            let (sender, driver) = (self.clone(), driver.clone());
            tokio::spawn(async move {
                let found = sender.snapshot.borrow().view.cluster.receivers.get(&receiver).cloned();
                // One that was removed meanwhile needs no answer.
                let Some(found) = found else { return };
                let sent = sender.send(&receiver, &found, &alerts).await;
                let result = sent.map_err(|error| {
                    tracing::warn!(%error, %receiver, count = alerts.len(), "cannot send alerts: retrying");
                    error.to_string()
                });
                if result.is_ok() {
                    tracing::info!(%receiver, count = alerts.len(), "alerts sent");
                }
                let input = Input::Delivered(receiver, result);
                let _ = driver.send(DriverMessage::Input(input)).await;
            });
        }
    }

    /// Sends alerts to a receiver.
    ///
    /// # Errors
    /// It did not confirm them. No error names the path or the query of a URL.
    pub(crate) async fn send(
        &self,
        name: &Name,
        receiver: &Receiver,
        alerts: &[Alert],
    ) -> Result<(), SendError> {
        let cluster = self.membership.cluster;
        let message = message(receiver.format, cluster, name, alerts).ok_or(SendError::Format)?;
        let sent = async {
            match &receiver.target {
                ReceiverTarget::Webhook { url, .. } => {
                    let keys = self.membership.file_keys().ok_or(SendError::NoKey)?;
                    let url = keys.open_url(cluster, name, url).ok_or(SendError::NoKey)?;
                    webhook::post(&WebhookUrl::parse(&url)?, message, &self.client).await
                }
                ReceiverTarget::Command { .. } if !self.allows_commands => {
                    Err(SendError::CommandsNotAllowed)
                }
                ReceiverTarget::Command { command } => command::run(command, message).await,
            }
        };
        timeout(DEADLINE, sent).await.map_err(|_| SendError::TimedOut(DEADLINE.as_secs()))?
    }
}
