//! Instances of the process runtime that run under a lease.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_engine::runtime::{InstanceId, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{ClusterId, Keypair, NodeId};
use vc_runtime::process::Config;
use vc_runtime::watchdog::boottime;
use vc_runtime::{Config as RuntimeConfig, Identity, NoDrain, Runtime, Watchdog};

use crate::{LATE, SOON, TIMEOUT, dir, roles};

struct Host {
    runtime: Runtime,
    watchdog: Watchdog,
    events: mpsc::Receiver<RuntimeEvent>,
}

impl Host {
    fn on(dir: &Path, watchdog: Watchdog) -> Self {
        let (tx, events) = mpsc::channel(64);
        let key = |byte| Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
        let (cluster, node) = (ClusterId::of(&key(1)), NodeId::of(&key(2)));
        let identity =
            Identity { cluster: cluster.expect("ed25519"), node: node.expect("ed25519") };
        let config = RuntimeConfig::Process(Config { dir: dir.to_owned() });
        let runtime = Runtime::start(config, identity, Arc::new(NoDrain), watchdog.clone(), tx);
        Self { runtime, watchdog, events }
    }

    fn deadline(&self, id: &InstanceId, time: u64) {
        self.watchdog.deadlines(&BTreeMap::from([(id.clone(), boottime() + time)]));
    }

    fn start(&self, id: &InstanceId, script: &str, epoch: u64) {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).into();
        let spec = ContainerSpec { command: Some(command), ..ContainerSpec::default() };
        let (id, spec) = (id.clone(), Box::new(spec));
        self.runtime.perform(RuntimeAction::Start { id, spec, epoch: Some(epoch), trace: None });
    }

    /// Returns the next phase of an instance.
    async fn change(&mut self, id: &InstanceId) -> Phase {
        loop {
            let event = timeout(TIMEOUT, self.events.recv()).await.expect("in time");
            match event.expect("an event") {
                RuntimeEvent::Changed(observed) if observed.id == *id => return observed.phase,
                _ => {}
            }
        }
    }

    async fn running(&mut self, id: &InstanceId) {
        let phase = self.change(id).await;
        assert!(matches!(phase, Phase::Running { .. }), "{phase:?}");
    }
}

fn id() -> InstanceId {
    InstanceId { slot: "shop/db.1".parse().expect("a slot"), digest: "ab".to_owned() }
}

#[tokio::test]
async fn an_instance_knows_its_epoch_and_is_killed_at_its_deadline() {
    let dir = dir();
    let mut host = Host::on(dir.path(), Watchdog::start(roles::config(dir.path(), "1")));
    host.deadline(&id(), SOON);
    host.start(&id(), "echo $VC_EPOCH; trap '' TERM; sleep 600 & sleep 600", 7);
    host.running(&id()).await;
    assert_eq!(
        host.change(&id()).await,
        Phase::Exited { code: 137, output: "7".to_owned(), out_of_memory: false }
    );
    // Under the next epoch it runs until the deadline of that.
    host.deadline(&id(), LATE);
    host.start(&id(), "echo $VC_EPOCH", 8);
    host.running(&id()).await;
    assert_eq!(
        host.change(&id()).await,
        Phase::Exited { code: 0, output: "7 | 8".to_owned(), out_of_memory: false }
    );
}

#[tokio::test]
async fn an_instance_of_another_epoch_is_started_anew() {
    let dir = dir();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("a pipe");
    let script = format!("echo epoch $VC_EPOCH >{}; exec sleep 600", pipe.display());
    let said = async || {
        let text = timeout(TIMEOUT, tokio::fs::read_to_string(&pipe)).await.expect("in time");
        text.expect("read")
    };
    let mut host = Host::on(dir.path(), Watchdog::start(roles::config(dir.path(), "1")));
    host.deadline(&id(), LATE);
    host.start(&id(), &script, 7);
    host.running(&id()).await;
    assert_eq!(said().await, "epoch 7\n");
    drop(host);
    // An adopted process has its epoch still, and goes on.
    let mut host = Host::on(dir.path(), Watchdog::start(roles::config(dir.path(), "1")));
    host.deadline(&id(), LATE);
    host.start(&id(), &script, 7);
    host.running(&id()).await;
    host.start(&id(), &script, 8);
    host.running(&id()).await;
    assert_eq!(said().await, "epoch 8\n");
    host.deadline(&id(), 0);
    assert!(matches!(host.change(&id()).await, Phase::Exited { code: 137, .. }));
}

#[tokio::test]
async fn nothing_is_started_under_a_lease_without_a_watchdog() {
    let dir = dir();
    let ran = dir.path().join("ran");
    let mut host = Host::on(dir.path(), Watchdog::none());
    host.start(&id(), &format!("touch {}", ran.display()), 7);
    let reason = "the watchdog does not run: this process has none".to_owned();
    assert_eq!(host.change(&id()).await, Phase::NodeFault { reason });
    assert!(!ran.exists());
}
