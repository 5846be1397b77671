//! The driver: the task that owns the engine and the store. Feeds the engine inputs and performs its outputs.

mod duplicates;
mod last_observed;
mod metrics;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use vc_crdt::KnownVersions;
use vc_engine::alerts::Delivery;
use vc_engine::{Config, Durable, Engine, HISTORY, Input, Output, Timing};
use vc_protocol::alert::ProblemKind;
use vc_protocol::change::Batch;
use vc_protocol::control::Change;
use vc_protocol::gossip::SyncMessage;
use vc_protocol::lease::LeaseMessage;
use vc_protocol::node::{MAX_NODE_PROBLEMS, NodeInfo, NodeProblem};
use vc_protocol::volume::VolumeCopy;
use vc_protocol::wire::encode;
use vc_protocol::{ApiError, ErrorCode, InstanceId, Millis, Multiaddr, NodeId, VolumeKey};

use self::duplicates::Duplicates;
use self::last_observed::LastObserved;
pub(crate) use self::metrics::DriverMetrics;
use crate::audit::{Audit, Origin};
use crate::disk::{self, Reserve};
use crate::driver_message::DriverMessage;
use crate::identity::Membership;
use crate::network::Command;
use crate::network::connection_gater::ConnectionGater;
use crate::network::message_streams::MessageStreams;
use crate::snapshot::Snapshot;
use crate::volumes::Volumes;
use vc_runtime::{Runtime, Watchdog};
use vc_store::{Store, StoreError};

/// Pause between attempts to recover from a failed disk write.
const RECOVERY_INTERVAL: Duration = Duration::from_secs(2);

/// Time between the news that a node has left and the end of its connections, over which the news reaches that node.
const NOTICE: Duration = Duration::from_millis(500);

/// The handles and constants that the driver works with.
pub(crate) struct DriverContext {
    /// This node's identity.
    pub(crate) membership: Arc<Membership>,
    /// Facts about this node for its document.
    pub(crate) info: NodeInfo,
    /// A random number, drawn at each start; seeds the engine.
    pub(crate) nonce: u64,
    /// Commands to the swarm.
    pub(crate) network: mpsc::Sender<Command>,
    /// Anti-entropy streams to other members.
    pub(crate) sync_streams: MessageStreams<SyncMessage>,
    /// Messages about leases to other members.
    pub(crate) lease_streams: MessageStreams<LeaseMessage>,
    /// The runtime that performs instance actions.
    pub(crate) runtime: Runtime,
    /// The copies of volumes on this node.
    pub(crate) volumes: Volumes,
    /// Ends instances with their leases, whatever this process does.
    pub(crate) watchdog: Watchdog,
    /// The members that connections are accepted from.
    pub(crate) gater: ConnectionGater,
    /// Records what changes did.
    pub(crate) audit: Audit,
    /// Disk space that is kept back.
    pub(crate) reserve: Reserve,
    /// Alerts to send.
    pub(crate) alerts: mpsc::Sender<Delivery>,
    /// What is counted.
    pub(crate) metrics: DriverMetrics,
}

/// The driver; [`run`](Self::run) it as a task.
pub(crate) struct Driver {
    context: DriverContext,
    store: Arc<Store>,
    engine: Engine,
    messages: mpsc::Receiver<DriverMessage>,
    answers: BTreeMap<u64, oneshot::Sender<Result<Vec<Change>, ApiError>>>,
    requests: u64,
    snapshot: watch::Sender<Snapshot>,
    known_addresses: BTreeMap<NodeId, Vec<Multiaddr>>,
    known_up: BTreeSet<NodeId>,
    connected: BTreeSet<NodeId>,
    runtime: LastObserved,
    /// Latest publish errors, by port.
    ports: BTreeMap<String, String>,
    /// Latest copies of volumes.
    copies: BTreeMap<VolumeKey, VolumeCopy>,
    /// Why this node starts nothing, as last reported.
    fault: Option<String>,
    /// When the instances that run under leases must have ended.
    deadlines: BTreeMap<InstanceId, Millis>,
    /// The free bytes with which a write failed last, since the disk has been full.
    failed_with: u64,
    duplicates: Duplicates,
    /// Whether the engine does not know the problems of this process yet.
    new_problems: bool,
}

/// Why the engine could not be built from the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DriverError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The documents cannot be built from the stored changes.
    #[error("cannot load the documents: {0}")]
    Documents(#[from] vc_crdt::DocumentError),
}

fn engine(
    context: &DriverContext,
    store: &Store,
    deadlines: BTreeMap<InstanceId, Millis>,
) -> Result<Engine, DriverError> {
    let durable = store.load()?;
    let config = Config {
        key: context.membership.key.clone(),
        id: context.membership.node,
        cluster: context.membership.cluster,
        info: context.info.clone(),
        nonce: context.nonce,
        timing: Timing::default(),
        history: HISTORY,
        knows: KnownVersions::default(),
        audit: context.membership.root.is_some(),
        deadlines,
    };
    Ok(Engine::new(config, durable, crate::clock::monotonic())?)
}

impl Driver {
    /// Builds the engine from the store, and from the deadlines that the watchdog holds. Returns the driver and the channel of its snapshots.
    pub(crate) fn new(
        mut context: DriverContext,
        store: Store,
        messages: mpsc::Receiver<DriverMessage>,
        deadlines: BTreeMap<InstanceId, Millis>,
    ) -> Result<(Self, watch::Receiver<Snapshot>), DriverError> {
        let engine = engine(&context, &store, deadlines.clone())?;
        for node in engine.replica().present_members() {
            context.gater.admit(node.peer_id());
        }
        context.info.addresses.sort();
        let first = Snapshot {
            view: engine.view(),
            vitals: Arc::new(engine.vitals().clone()),
            left: false,
            duplicate: None,
            audit: None,
            watchdog: None,
        };
        let (snapshot, receiver) = watch::channel(first);
        let driver = Self {
            context,
            store: Arc::new(store),
            engine,
            messages,
            answers: BTreeMap::new(),
            requests: 0,
            snapshot,
            known_addresses: BTreeMap::new(),
            known_up: BTreeSet::new(),
            connected: BTreeSet::new(),
            runtime: LastObserved::default(),
            ports: BTreeMap::new(),
            copies: BTreeMap::new(),
            fault: None,
            deadlines,
            failed_with: 0,
            duplicates: Duplicates::new(),
            new_problems: false,
        };
        Ok((driver, receiver))
    }

    /// Runs until every sender of messages is dropped.
    pub(crate) async fn run(mut self) {
        self.update_network();
        loop {
            let (due, _) = self.engine.poll_timeout();
            let wait = Duration::from_millis(due.saturating_sub(crate::clock::monotonic()));
            let message = tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(message) => message,
                    None => return,
                },
                () = tokio::time::sleep(wait) => DriverMessage::Input(Input::Wake),
            };
            self.handle(message).await;
            self.expire_duplicates();
            if std::mem::take(&mut self.new_problems) {
                self.publish_problems().await;
            }
            // A full queue must not delay the engine's timers.
            if crate::clock::monotonic() >= self.engine.poll_timeout().0
                && !self.messages.is_empty()
            {
                self.step(Input::Wake).await;
            }
        }
    }

    async fn handle(&mut self, message: DriverMessage) {
        match message {
            DriverMessage::Input(input) => self.step(input).await,
            DriverMessage::Mutate { by, mutation, answer } => {
                self.requests += 1;
                self.answers.insert(self.requests, answer);
                self.step(Input::Mutate { request: self.requests, by, mutation }).await;
            }
            DriverMessage::Admit { by, admission, certificate, answer } => {
                // The use first: a crash in between admits no node, and this one can join again with the token.
                let (counted, mut count) = oneshot::channel();
                self.requests += 1;
                self.answers.insert(self.requests, counted);
                self.step(Input::Mutate { request: self.requests, by, mutation: admission }).await;
                match count.try_recv() {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        let _ = answer.send(Err(error));
                        return;
                    }
                    Err(_) => return,
                }
                let known =
                    Durable { certificates: vec![certificate.clone()], ..Durable::default() };
                match self.persist(known).await {
                    Ok(()) => {
                        self.step(Input::Certificate(certificate.clone())).await;
                        let certificates = self.engine.replica().certificates();
                        let counts = certificates.contains(&certificate);
                        let _ = answer.send(if counts { Ok(certificates) } else { Err(rotated()) });
                    }
                    Err(error) => {
                        let _ = answer.send(Err(disk_failed(&error)));
                        self.recover(&error).await;
                    }
                }
            }
            DriverMessage::Addresses(mut addresses) => {
                addresses.sort();
                if addresses != self.context.info.addresses && !addresses.is_empty() {
                    tracing::info!(?addresses, "own addresses changed");
                    self.context.info.addresses = addresses;
                    self.step(Input::Info(self.context.info.clone())).await;
                }
            }
            DriverMessage::AuditProblem(problem) => {
                let problem = problem.map(Arc::from);
                self.snapshot.send_modify(|snapshot| snapshot.audit = problem);
                self.new_problems = true;
            }
            DriverMessage::WatchdogProblem(problem) => {
                let problem = problem.map(Arc::from);
                self.snapshot.send_modify(|snapshot| snapshot.watchdog = problem);
                self.new_problems = true;
            }
            DriverMessage::DnsProblem(problem) => {
                let problem = problem.unwrap_or_default();
                if problem != self.context.info.dns_problem {
                    self.context.info.dns_problem = problem;
                    self.step(Input::Info(self.context.info.clone())).await;
                }
            }
            DriverMessage::Backups(state) => {
                if self.context.info.backups.as_ref() != Some(&state) {
                    self.context.info.backups = Some(state);
                    self.step(Input::Info(self.context.info.clone())).await;
                }
            }
            DriverMessage::Duplicate(found) => self.found_duplicate(found),
        }
    }

    /// Tells the engine, and by the document of this node the others, what this process alone sees.
    async fn publish_problems(&mut self) {
        let own = self.own_problems();
        self.step(Input::OwnProblems(own.clone())).await;
        let duplicates = self.duplicates.iter().map(|(&node, (_, text))| NodeProblem {
            kind: ProblemKind::Duplicate,
            node,
            text: text.clone(),
        });
        let all: Vec<_> = own.into_iter().chain(duplicates).take(MAX_NODE_PROBLEMS).collect();
        if all != self.context.info.problems {
            self.context.info.problems = all;
            self.step(Input::Info(self.context.info.clone())).await;
        }
    }

    fn own_problems(&self) -> Vec<NodeProblem> {
        self.snapshot.borrow().own_problems(self.context.membership.node)
    }

    async fn step(&mut self, input: Input) {
        match &input {
            Input::Connected(node) => {
                self.connected.insert(*node);
            }
            Input::Disconnected(node) => {
                self.connected.remove(node);
                self.context.sync_streams.close(&node.peer_id());
                self.context.lease_streams.close(&node.peer_id());
            }
            Input::Runtime(event) => self.runtime.update(event),
            Input::Ports(problems) => self.ports.clone_from(problems),
            Input::Volume(volume, copy) => {
                self.copies.insert(volume.clone(), copy.clone());
            }
            Input::Fault(fault) => {
                if fault.is_none() {
                    self.failed_with = 0;
                }
                self.fault.clone_from(fault);
            }
            _ => {}
        }
        let volatile = matches!(input, Input::Usage(_) | Input::Gossip(..));
        let began = Instant::now();
        let outputs = VecDeque::from(self.engine.handle(crate::clock::both(), input));
        if outputs.iter().any(|output| matches!(output, Output::ViewChanged)) {
            self.context.metrics.planned(began.elapsed());
        }
        if let Err(error) = self.perform(outputs).await {
            if matches!(error, StoreError::Stopping) {
                return;
            }
            tracing::error!(%error, "store write failed: rebuilding the engine from disk");
            let reason = disk_failed(&error);
            for (_, answer) in std::mem::take(&mut self.answers) {
                let _ = answer.send(Err(reason.clone()));
            }
            self.recover(&error).await;
        }
        if volatile && *self.snapshot.borrow().vitals != *self.engine.vitals() {
            let vitals = Arc::new(self.engine.vitals().clone());
            self.snapshot.send_modify(|snapshot| snapshot.vitals = vitals);
        }
    }

    async fn perform(&mut self, mut outputs: VecDeque<Output>) -> Result<(), StoreError> {
        let mut published = false;
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Runtime(action) => {
                    // The action may need what was just received, such as a secret.
                    if !published {
                        self.publish_view();
                        published = true;
                    }
                    self.context.runtime.perform(action);
                }
                Output::Deadlines(deadlines) => {
                    self.context.watchdog.deadlines(&deadlines);
                    self.context.metrics.set_leases(&deadlines);
                    self.deadlines = deadlines;
                }
                Output::Lease(to, message) => self.context.lease_streams.send(to, message),
                Output::RemoveVolume { volume, decided } => {
                    self.copies.remove(&volume);
                    self.context.volumes.remove(volume, decided);
                }
                Output::ForgetVolume { volume, decided } => {
                    self.copies.remove(&volume);
                    self.context.volumes.forget(volume, decided);
                }
                Output::Volumes(tasks) => self.context.volumes.keep(tasks),
                Output::Persist(durable) => {
                    let members = !durable.certificates.is_empty();
                    self.persist(durable).await?;
                    if members {
                        for node in self.engine.replica().present_members() {
                            self.context.gater.admit(node.peer_id());
                        }
                    }
                }
                Output::Audit(rows) => self.context.audit.changes(rows).await,
                Output::Rejected(via, error) => {
                    let origin = Origin { via, ..Origin::default() };
                    self.context.audit.refused(origin, &format!("rejected a change: {error}"));
                }
                Output::Gossip(gossip) => {
                    self.network(Command::Publish(encode(&gossip)));
                }
                Output::Send(to, message) => self.context.sync_streams.send(to, message),
                Output::Replay(to, runs) => {
                    let store = Arc::clone(&self.store);
                    let certificates = self.engine.replica().certificates();
                    let sync_streams = self.context.sync_streams.clone();
                    // Reading a long history must not delay heartbeats.
                    tokio::task::spawn_blocking(move || match store.replay(&runs) {
                        Ok(batches) => {
                            for changes in batches {
                                let batch = Batch { certificates: certificates.clone(), changes };
                                sync_streams.send(to, SyncMessage::Changes(batch));
                            }
                        }
                        Err(error) => {
                            tracing::warn!(%error, "cannot read changes for anti-entropy")
                        }
                    });
                }
                Output::Disconnect(node) => {
                    self.context.sync_streams.close(&node.peer_id());
                    self.context.lease_streams.close(&node.peer_id());
                    self.network(Command::Disconnect(node));
                }
                Output::Answer(request, result) => {
                    // A client that has the answer must see the change in its next request.
                    if result.is_ok() {
                        self.publish_view();
                    }
                    if let Some(answer) = self.answers.remove(&request) {
                        let _ = answer.send(result.map_err(ApiError::from));
                    }
                }
                Output::Notify(delivery) => {
                    // The engine sends it again.
                    if let Err(error) = self.context.alerts.try_send(delivery) {
                        tracing::warn!(%error, "alerts not sent: too many wait");
                    }
                }
                Output::Stop(reason) => self.stop(&reason),
                Output::ViewChanged => {
                    self.publish_view();
                    self.update_network();
                    self.update_gater();
                }
            }
        }
        Ok(())
    }

    /// Makes the node stop, because another process runs with its identity.
    fn stop(&self, reason: &str) {
        self.snapshot.send_modify(|snapshot| snapshot.duplicate = Some(Arc::from(reason)));
    }

    /// Lets the members in, and shuts out the nodes that are none any more, once the news had time to reach them.
    fn update_gater(&self) {
        let (view, own) = (self.engine.view(), self.engine.replica().id());
        for node in view.trust.members.keys() {
            self.context.gater.admit(node.peer_id());
        }
        for peer in self.context.gater.members() {
            let Ok(node) = NodeId::try_from(peer) else { continue };
            if node == own || view.trust.members.contains_key(&node) {
                continue;
            }
            let (gater, network) = (self.context.gater.clone(), self.context.network.clone());
            let latest = self.snapshot.subscribe();
            tokio::spawn(async move {
                tokio::time::sleep(NOTICE).await;
                // It may have been given a certificate of the new signing key.
                let is_member = latest.borrow().view.trust.members.contains_key(&node);
                if !is_member && gater.remove(&peer) {
                    let _ = network.send(Command::Disconnect(node)).await;
                }
            });
        }
    }

    /// Uses the certificate that a rotation of the signing key has given this node.
    fn update_certificate(&self) {
        let membership = &self.context.membership;
        let Some(certificate) = self.engine.replica().own_certificate() else { return };
        if certificate == membership.credentials.certificate() {
            return;
        }
        tracing::info!("this node has a new membership certificate");
        if let Err(error) = membership.replace_certificate(certificate) {
            tracing::error!(%error, "cannot save the new certificate: it is taken from the documents at the next start");
        }
    }

    /// Publishes the engine's view to the other tasks.
    fn publish_view(&self) {
        self.update_certificate();
        let view = self.engine.view();
        let left = self.engine.has_left();
        self.snapshot.send_modify(|snapshot| {
            snapshot.view = view;
            snapshot.left = left;
        });
    }

    async fn persist(&self, durable: Durable) -> Result<(), StoreError> {
        let (store, metrics) = (Arc::clone(&self.store), self.context.metrics.clone());
        let persisted = tokio::task::spawn_blocking(move || {
            store.persist(&durable)?;
            metrics.persisted(&durable);
            Ok(())
        });
        persisted.await.unwrap_or(Err(StoreError::Stopping))
    }

    /// Rebuilds the engine from the store, as after a crash: what was not durable did not happen. A full disk gets the reserve, and
    /// the node says that it starts nothing. Without a reserve, nothing is written until there is more room than the last write
    /// had: a node that comes back for one small write each time only makes the others move instances.
    async fn recover(&mut self, error: &StoreError) {
        let is_full = matches!(error, StoreError::Full(_));
        let mut released = is_full && self.context.reserve.release();
        if let StoreError::Full(path) = error {
            self.fault = Some(disk::full(path.parent().unwrap_or(path)));
            if !released {
                self.failed_with = self.context.reserve.needed(self.failed_with).0;
            }
        }
        let mut waits = false;
        loop {
            if !std::mem::take(&mut released) {
                tokio::time::sleep(RECOVERY_INTERVAL).await;
                let (free, needed) = self.context.reserve.needed(self.failed_with);
                if is_full && free < needed {
                    if !std::mem::replace(&mut waits, true) {
                        tracing::error!(
                            free,
                            needed,
                            "the disk is full: this node is silent until there is room"
                        );
                    }
                    continue;
                }
            }
            if let Err(error) = self.reopen() {
                tracing::error!(%error, "store still fails: retrying");
                continue;
            }
            // Replay what the old engine had observed.
            let connected = self.connected.iter().copied().map(Input::Connected);
            let last = [
                Input::Ports(self.ports.clone()),
                Input::Fault(self.fault.clone()),
                Input::OwnProblems(self.own_problems()),
            ];
            let copies = self.copies.clone().into_iter();
            let copies = copies.map(|(volume, copy)| Input::Volume(volume, copy));
            let inputs: Vec<Input> = connected
                .chain(last)
                .chain(copies)
                .chain(self.runtime.last().map(Input::Runtime))
                .collect();
            let mut failed = false;
            for input in inputs {
                let outputs = VecDeque::from(self.engine.handle(crate::clock::both(), input));
                failed |= self.perform(outputs).await.is_err();
            }
            if !failed {
                return;
            }
        }
    }

    fn reopen(&mut self) -> Result<(), DriverError> {
        self.store.reopen()?;
        self.engine = engine(&self.context, &self.store, self.deadlines.clone())?;
        Ok(())
    }

    /// Sends changed member addresses and the set of up nodes to the network task.
    fn update_network(&mut self) {
        let view = self.engine.view();
        if self.known_up != view.up && self.network(Command::Up(view.up.clone())) {
            self.known_up.clone_from(&view.up);
        }
        for (&node, state) in &view.nodes {
            let Some(info) = &state.info else { continue };
            let known = self.known_addresses.get(&node) == Some(&info.addresses);
            if known || node == self.context.membership.node {
                continue;
            }
            if self.network(Command::Addresses(node, info.addresses.clone())) {
                self.known_addresses.insert(node, info.addresses.clone());
            }
        }
    }

    /// Sends a command to the network task. Returns `false` when its queue is full. Never waits, because the network task
    /// may be waiting for this one.
    fn network(&self, command: Command) -> bool {
        let sent = self.context.network.try_send(command).is_ok();
        if !sent {
            tracing::warn!("network queue full: command dropped");
        }
        sent
    }
}

fn rotated() -> ApiError {
    let message = "the cluster's signing key was rotated while the node joined";
    ApiError::new(ErrorCode::Aborted, message).with_hint("try again")
}

fn disk_failed(error: &StoreError) -> ApiError {
    let message = format!("this node cannot write to its disk, nothing was changed: {error}");
    let (code, hint) = match error {
        StoreError::Full(_) => {
            (ErrorCode::ResourceExhausted, "free some space, or use another node with --peer")
        }
        StoreError::Stopping => (ErrorCode::Unavailable, "use another node with --peer"),
        _ => (ErrorCode::Internal, "use another node with --peer"),
    };
    ApiError::new(code, message).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_answers_resource_exhausted() {
        let path = std::path::PathBuf::from("/data/state.redb");
        let damaged = StoreError::Redb {
            path: path.clone(),
            source: Box::new(redb::Error::Corrupted("a page".to_owned())),
        };
        assert_eq!(disk_failed(&damaged).code, ErrorCode::Internal);
        assert_eq!(disk_failed(&StoreError::Stopping).code, ErrorCode::Unavailable);
        let full = disk_failed(&StoreError::Full(path));
        assert_eq!(full.code, ErrorCode::ResourceExhausted);
        assert_eq!(
            full.to_string(),
            "this node cannot write to its disk, nothing was changed: /data/state.redb: no space left on the disk: free \
             some space, or use another node with --peer"
        );
    }
}
