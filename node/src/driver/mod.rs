//! The driver: owns the engine, feeds it what happens and carries out what it decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeEvent};
use vc_engine::{Config, Durable, Engine, Input, Output, Timing};
use vc_protocol::change::Batch;
use vc_protocol::gossip::SyncMessage;
use vc_protocol::node::NodeInfo;
use vc_protocol::wire::encode;
use vc_protocol::{Multiaddr, NodeId};

use crate::driver_message::DriverMessage;
use crate::identity::Membership;
use crate::network::Command;
use crate::network::connection_gater::ConnectionGater;
use crate::network::sync_streams::SyncStreams;
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use vc_runtime::Runtime;

/// Between two attempts to go on after the disk failed.
const DISK_PAUSE: Duration = Duration::from_secs(2);

/// What the driver works with.
pub struct DriverContext {
    /// Who we are.
    pub membership: Arc<Membership>,
    /// What we say of ourselves.
    pub info: NodeInfo,
    /// A random number, new at each start.
    pub nonce: u64,
    /// To the swarm.
    pub network: mpsc::Sender<Command>,
    /// To other members.
    pub sync_streams: SyncStreams,
    /// To the runtime.
    pub runtime: Runtime,
    /// Who is a member.
    pub gater: ConnectionGater,
}

/// The driver.
pub struct Driver {
    parts: DriverContext,
    store: Arc<Store>,
    engine: Engine,
    messages: mpsc::Receiver<DriverMessage>,
    answers: BTreeMap<u64, oneshot::Sender<Result<Vec<String>, String>>>,
    requests: u64,
    snapshot: watch::Sender<Snapshot>,
    known_addresses: BTreeMap<NodeId, Vec<Multiaddr>>,
    known_up: BTreeSet<NodeId>,
    connected: BTreeSet<NodeId>,
    runtime: LastSeen,
    /// The ports that could not be published when that was last looked at.
    ports: BTreeMap<String, String>,
}

/// What the runtime said last, for an engine that has to begin anew.
#[derive(Default)]
struct LastSeen {
    instances: BTreeMap<InstanceId, Observed>,
    /// `None`: it has said nothing yet.
    unavailable: Option<Option<String>>,
}

impl LastSeen {
    fn note(&mut self, event: &RuntimeEvent) {
        match event {
            RuntimeEvent::Listed(all) => {
                self.instances = all.iter().map(|seen| (seen.id.clone(), seen.clone())).collect();
                self.unavailable = Some(None);
            }
            RuntimeEvent::Changed(seen) if seen.phase == Phase::Gone => {
                self.instances.remove(&seen.id);
            }
            RuntimeEvent::Changed(seen) => {
                self.instances.insert(seen.id.clone(), seen.clone());
            }
            RuntimeEvent::Unavailable(why) => self.unavailable = Some(Some(why.clone())),
        }
    }

    fn last(&self) -> Option<RuntimeEvent> {
        Some(match self.unavailable.as_ref()? {
            Some(why) => RuntimeEvent::Unavailable(why.clone()),
            None => RuntimeEvent::Listed(self.instances.values().cloned().collect()),
        })
    }
}

fn engine(parts: &DriverContext, store: &Store) -> anyhow::Result<Engine> {
    let durable = store.load()?;
    let config = Config {
        key: parts.membership.key.clone(),
        id: parts.membership.node,
        cluster: parts.membership.cluster,
        info: parts.info.clone(),
        nonce: parts.nonce,
        timing: Timing::default(),
    };
    Ok(Engine::new(config, durable, crate::clock::now())?)
}

impl Driver {
    /// A driver with what is on disk. Errors: the disk cannot be read.
    pub fn new(
        mut parts: DriverContext,
        store: Store,
        messages: mpsc::Receiver<DriverMessage>,
    ) -> anyhow::Result<(Self, watch::Receiver<Snapshot>)> {
        let engine = engine(&parts, &store)?;
        for node in engine.replica().members() {
            parts.gater.admit(node.peer_id());
        }
        parts.info.addresses.sort();
        let first =
            Snapshot { view: engine.view(), usage: Arc::new(engine.usage().clone()), left: false };
        let (snapshot, receiver) = watch::channel(first);
        let driver = Self {
            parts,
            store: Arc::new(store),
            engine,
            messages,
            answers: BTreeMap::new(),
            requests: 0,
            snapshot,
            known_addresses: BTreeMap::new(),
            known_up: BTreeSet::new(),
            connected: BTreeSet::new(),
            runtime: LastSeen::default(),
            ports: BTreeMap::new(),
        };
        Ok((driver, receiver))
    }

    /// Runs until every sender of events is gone.
    pub async fn run(mut self) {
        self.tell_network();
        loop {
            let (due, _) = self.engine.deadline();
            let wait = Duration::from_millis(due.saturating_sub(crate::clock::now()));
            let message = tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(message) => message,
                    None => return,
                },
                () = tokio::time::sleep(wait) => DriverMessage::Input(Input::Wake),
            };
            self.handle(message).await;
            // Many events must not keep the engine from looking at its clock.
            if crate::clock::now() >= self.engine.deadline().0 && !self.messages.is_empty() {
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
            DriverMessage::Admit { certificate, answer } => {
                let known =
                    Durable { certificates: vec![certificate.clone()], ..Durable::default() };
                match self.persist(known).await {
                    Ok(()) => {
                        self.step(Input::Certificate(certificate)).await;
                        let _ = answer.send(Ok(self.engine.replica().certificates()));
                    }
                    Err(error) => {
                        let _ = answer.send(Err(disk_failed(&error)));
                        self.recover().await;
                    }
                }
            }
            DriverMessage::Addresses(mut addresses) => {
                addresses.sort();
                if addresses != self.parts.info.addresses && !addresses.is_empty() {
                    tracing::info!(?addresses, "this node's addresses changed");
                    self.parts.info.addresses = addresses;
                    self.step(Input::Info(self.parts.info.clone())).await;
                }
            }
        }
    }

    async fn step(&mut self, input: Input) {
        match &input {
            Input::Connected(node) => {
                self.connected.insert(*node);
            }
            Input::Disconnected(node) => {
                self.connected.remove(node);
                self.parts.sync_streams.close(&node.peer_id());
            }
            Input::Runtime(event) => self.runtime.note(event),
            Input::Ports(problems) => self.ports.clone_from(problems),
            _ => {}
        }
        let volatile = matches!(input, Input::Usage(_) | Input::Gossip(..));
        let outputs = VecDeque::from(self.engine.handle(crate::clock::now(), input));
        if let Err(error) = self.perform(outputs).await {
            if matches!(error, StoreError::Stopping) {
                return;
            }
            tracing::error!(%error, "cannot write to the disk; going on from what is on it");
            let reason = disk_failed(&error);
            for (_, answer) in std::mem::take(&mut self.answers) {
                let _ = answer.send(Err(reason.clone()));
            }
            self.recover().await;
        }
        if volatile && *self.snapshot.borrow().usage != *self.engine.usage() {
            let usage = Arc::new(self.engine.usage().clone());
            self.snapshot.send_modify(|snapshot| snapshot.usage = usage);
        }
    }

    async fn perform(&mut self, mut outputs: VecDeque<Output>) -> Result<(), StoreError> {
        let mut shown = false;
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Runtime(action) => {
                    // It may need what has just come, as a secret.
                    if !shown {
                        self.show_view();
                        shown = true;
                    }
                    self.parts.runtime.perform(action);
                }
                Output::RemoveVolume(volume) => self.parts.runtime.remove_volume(volume),
                Output::Persist(durable) => {
                    let members = !durable.certificates.is_empty();
                    self.persist(durable).await?;
                    if members {
                        for node in self.engine.replica().members() {
                            self.parts.gater.admit(node.peer_id());
                        }
                    }
                }
                Output::Gossip(gossip) => {
                    self.network(Command::Publish(encode(&gossip)));
                }
                Output::Send(to, message) => self.parts.sync_streams.send(to, message),
                Output::Replay(to, runs) => {
                    let store = Arc::clone(&self.store);
                    let certificates = self.engine.replica().certificates();
                    let sync_streams = self.parts.sync_streams.clone();
                    // Reading and sending a long history must not hold up the heartbeat.
                    tokio::task::spawn_blocking(move || match store.replay(&runs) {
                        Ok(batches) => {
                            for changes in batches {
                                let batch = Batch { certificates: certificates.clone(), changes };
                                sync_streams.send(to, SyncMessage::Changes(batch));
                            }
                        }
                        Err(error) => tracing::warn!(%error, "cannot read changes for a peer"),
                    });
                }
                Output::Disconnect(node) => {
                    self.parts.sync_streams.close(&node.peer_id());
                    self.network(Command::Disconnect(node));
                }
                Output::Answer(request, result) => {
                    // Who has the answer finds the change in whatever he asks next.
                    if result.is_ok() {
                        self.show_view();
                    }
                    if let Some(answer) = self.answers.remove(&request) {
                        let _ = answer.send(result);
                    }
                }
                Output::ViewChanged => {
                    self.show_view();
                    self.tell_network();
                }
            }
        }
        Ok(())
    }

    /// Lets all others see what the engine makes of the documents.
    fn show_view(&self) {
        let view = self.engine.view();
        let left = self.engine.has_left();
        self.snapshot.send_modify(|snapshot| {
            snapshot.view = view;
            snapshot.left = left;
        });
    }

    async fn persist(&self, durable: Durable) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.persist(&durable))
            .await
            .unwrap_or(Err(StoreError::Stopping))
    }

    /// Goes on from what is durable, as after a crash: what the disk did not take has not happened.
    async fn recover(&mut self) {
        loop {
            tokio::time::sleep(DISK_PAUSE).await;
            if let Err(error) = self.reopen() {
                tracing::error!(%error, "the disk still fails; trying again");
                continue;
            }
            // The new engine has seen nothing yet of what the old one saw.
            let connected = self.connected.iter().copied().map(Input::Connected);
            let ports = Input::Ports(self.ports.clone());
            let inputs: Vec<Input> =
                connected.chain(self.runtime.last().map(Input::Runtime)).chain([ports]).collect();
            let mut failed = false;
            for input in inputs {
                let outputs = VecDeque::from(self.engine.handle(crate::clock::now(), input));
                failed |= self.perform(outputs).await.is_err();
            }
            if !failed {
                return;
            }
        }
    }

    fn reopen(&mut self) -> anyhow::Result<()> {
        self.store.reopen()?;
        self.engine = engine(&self.parts, &self.store)?;
        Ok(())
    }

    /// Tells the swarm where the members are, and which are up.
    fn tell_network(&mut self) {
        let view = self.engine.view();
        if self.known_up != view.up && self.network(Command::Up(view.up.clone())) {
            self.known_up.clone_from(&view.up);
        }
        for (&node, state) in &view.nodes {
            let Some(info) = &state.info else { continue };
            let known = self.known_addresses.get(&node) == Some(&info.addresses);
            if known || node == self.parts.membership.node {
                continue;
            }
            if self.network(Command::Addresses(node, info.addresses.clone())) {
                self.known_addresses.insert(node, info.addresses.clone());
            }
        }
    }

    /// Tells the swarm, unless it is so far behind that it has no room; `false` then. Never waits: the swarm may be
    /// waiting for us.
    fn network(&self, command: Command) -> bool {
        let told = self.parts.network.try_send(command).is_ok();
        if !told {
            tracing::warn!("the network is behind: a command was dropped");
        }
        told
    }
}

fn disk_failed(error: &StoreError) -> String {
    format!(
        "this node cannot write to its disk, so nothing was changed ({error}): free some space or use another node with --peer"
    )
}
