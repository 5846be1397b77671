//! Prepares a restart of the node, so that it loses no connection and moves no instance: announces it to the other nodes, lets
//! connections finish, and leaves the listening sockets to a socket holder.

use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use vc_engine::Input;

use crate::dns::DnsServer;
use crate::driver_message::DriverMessage;
use crate::handover::{self, Sockets};
use crate::proxy::{HostPorts, Router};

/// How long the announcement may take to reach the other nodes: two heartbeats, since anti-entropy repeats after the first what
/// gossip has lost.
const ANNOUNCEMENT: Duration = Duration::from_secs(1);

/// What receives and forwards the clients' connections.
pub(crate) struct Traffic {
    pub(crate) router: Router,
    /// `None`: the runtime needs no DNS server.
    pub(crate) names: Option<DnsServer>,
    /// Stops the ingress, and receives its sockets then; `None`: the instances bind their ports themselves.
    pub(crate) ingress: Option<(CancellationToken, oneshot::Receiver<Sockets>)>,
    /// The NAT rules for ports of this node's own instances, which stay in place during a restart.
    pub(crate) host_ports: Option<HostPorts>,
}

/// Returns the sockets that the process before has left for this one. Logs why they cannot be taken.
pub(crate) async fn take_sockets(dir: &Path) -> Sockets {
    let dir = dir.to_owned();
    let taken = tokio::task::spawn_blocking(move || handover::take(&dir)).await;
    let taken = taken.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    taken.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot take the sockets of the process before: opening new ones");
        Sockets::default()
    })
}

/// Announces a restart if there are `others`, lets connections over streams finish, and leaves the sockets and the connections to
/// instances on this node to a socket holder. Takes at most about 6 s.
pub(crate) async fn prepare(
    dir: &Path,
    driver: mpsc::Sender<DriverMessage>,
    others: bool,
    traffic: Traffic,
) {
    let Traffic { router, names, ingress, host_ports: _host_ports } = traffic;
    if others {
        let _ = driver.send(DriverMessage::Input(Input::Restart)).await;
        tokio::join!(tokio::time::sleep(ANNOUNCEMENT), router.drain());
    }
    let mut sockets = Sockets::default();
    if let Some((stop, stopped)) = ingress {
        stop.cancel();
        sockets.extend(stopped.await.unwrap_or_default());
    }
    let mut servers = Vec::new();
    if let Some(names) = names {
        let (left, accepting) = names.hand_over().await;
        sockets.extend(left);
        servers.extend(accepting);
    }
    let connections = router.detach(ended(servers)).await;
    if sockets.is_empty() {
        return;
    }
    let dir = dir.to_owned();
    let count = connections.len();
    let left =
        tokio::task::spawn_blocking(move || handover::leave(&dir, sockets, connections)).await;
    match left.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
        Ok(()) => tracing::info!(connections = count, "sockets left to the next process"),
        Err(error) => tracing::warn!(%error, "cannot leave the sockets to the next process"),
    }
}

/// Completes when all tasks have ended.
async fn ended(tasks: Vec<AbortOnDropHandle<()>>) {
    for task in tasks {
        let _ = task.await;
    }
}
