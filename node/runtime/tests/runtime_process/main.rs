//! The process runtime, with real processes.

#![allow(clippy::expect_used, reason = "a test states what must not fail")]

mod adoption;
mod logs;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use vc_engine::runtime::{InstanceId, Observed, Phase, RuntimeAction, RuntimeEvent};
use vc_protocol::spec::ContainerSpec;
use vc_protocol::{ClusterId, Keypair, NodeId};
use vc_runtime::process::Config;
use vc_runtime::{
    Config as RuntimeConfig, Identity, LogQuery, LogStream, NoDrain, Runtime, RuntimeError,
    Watchdog,
};

/// Longer than anything takes on a busy host.
const TIMEOUT: Duration = Duration::from_secs(60);

fn identity() -> Identity {
    let key = |byte| Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
    Identity {
        cluster: ClusterId::of(&key(1)).expect("ed25519"),
        node: NodeId::of(&key(2)).expect("ed25519"),
    }
}

/// A runtime on a directory, and its events.
struct Host {
    runtime: Runtime,
    events: mpsc::Receiver<RuntimeEvent>,
}

impl Host {
    async fn on(dir: &Path) -> (Self, Vec<Observed>) {
        let (tx, mut events) = mpsc::channel(64);
        let config = RuntimeConfig::Process(Config { dir: dir.to_owned() });
        let runtime = Runtime::start(config, identity(), Arc::new(NoDrain), Watchdog::none(), tx);
        let first = timeout(TIMEOUT, events.recv()).await.expect("in time").expect("an event");
        let RuntimeEvent::Listed(all) = first else { panic!("the first event is {first:?}") };
        (Self { runtime, events }, all)
    }

    fn start(&self, slot: &str, spec: &ContainerSpec) -> InstanceId {
        let id = InstanceId { slot: slot.parse().expect("a slot"), digest: spec.digest() };
        self.runtime.perform(RuntimeAction::Start {
            id: id.clone(),
            spec: Box::new(spec.clone()),
            epoch: None,
            trace: None,
        });
        id
    }

    fn remove(&self, id: &InstanceId, grace_ms: u64) {
        self.runtime.perform(RuntimeAction::Remove {
            id: id.clone(),
            drain_ms: grace_ms,
            grace_ms,
        });
    }

    /// Returns the next phase of an instance.
    async fn change(&mut self, id: &InstanceId) -> Phase {
        loop {
            let event =
                timeout(TIMEOUT, self.events.recv()).await.expect("in time").expect("an event");
            if let RuntimeEvent::Changed(observed) = event
                && observed.id == *id
            {
                return observed.phase;
            }
        }
    }

    async fn running(&mut self, id: &InstanceId) {
        let phase = self.change(id).await;
        assert!(matches!(phase, Phase::Running { health: None, .. }), "{phase:?}");
    }

    async fn lines(&self, slot: &str, query: LogQuery) -> Vec<(LogStream, String)> {
        let lines = self.runtime.logs(&slot.parse().expect("a slot"), query).await.expect("logs");
        let all = lines.map(|line| (line.stream, line.line)).collect();
        timeout(TIMEOUT, all).await.expect("in time")
    }
}

fn shell(script: &str) -> ContainerSpec {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).into();
    ContainerSpec { command: Some(command), ..ContainerSpec::default() }
}

fn out(line: &str) -> (LogStream, String) {
    (LogStream::Stdout, line.to_owned())
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Creates a pipe. Opening it waits for the other side, which holds a process until the test releases it.
fn pipe(dir: &TempDir) -> String {
    let path = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    path.display().to_string()
}

async fn release(pipe: &str) {
    timeout(TIMEOUT, tokio::fs::write(pipe, "go\n")).await.expect("in time").expect("written");
}

#[tokio::test]
async fn a_process_runs_and_its_exit_code_is_reported() {
    let dir = dir();
    let (mut host, all) = Host::on(dir.path()).await;
    assert_eq!(all, []);
    let id = host.start("shop/web.1", &shell("exit 7"));
    host.running(&id).await;
    assert_eq!(
        host.change(&id).await,
        Phase::Exited { code: 7, output: String::new(), out_of_memory: false }
    );
    host.remove(&id, 1000);
    assert_eq!(host.change(&id).await, Phase::Gone);
    assert_eq!(std::fs::read_dir(dir.path().join("instances")).expect("there").count(), 0);
}

#[tokio::test]
async fn a_process_ended_by_a_signal_has_exit_code_128_plus_the_signal() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start("shop/web.1", &shell("kill -KILL $$"));
    host.running(&id).await;
    assert_eq!(
        host.change(&id).await,
        Phase::Exited { code: 137, output: String::new(), out_of_memory: false }
    );
}

#[tokio::test]
async fn starting_a_running_process_only_reports_it() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let spec = shell("echo once; exec sleep 600");
    let id = host.start("shop/web.1", &spec);
    let first = host.change(&id).await;
    host.start("shop/web.1", &spec);
    assert_eq!(host.change(&id).await, first);
    host.remove(&id, 10_000);
    assert_eq!(host.change(&id).await, Phase::Gone);
}

#[tokio::test]
async fn a_process_gets_its_identity_but_not_the_environment_of_the_node() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let mut spec = shell("env; pwd");
    spec.environment = BTreeMap::from([("GREETING".to_owned(), "good day".to_owned())]);
    let id = host.start("shop/web.3", &spec);
    host.running(&id).await;
    assert!(matches!(host.change(&id).await, Phase::Exited { code: 0, .. }));
    let lines = host.lines("shop/web.3", LogQuery::default()).await;
    let node = format!("VC_NODE={}", identity().node);
    for wanted in ["GREETING=good day", "VC_PROJECT=shop", "VC_SERVICE=web", "VC_REPLICA=3", &node]
    {
        assert!(lines.contains(&out(wanted)), "{wanted} in {lines:?}");
    }
    assert!(lines.iter().all(|(_, line)| !line.starts_with("CARGO")), "{lines:?}");
    assert!(
        lines.iter().any(|(_, line)| line.ends_with(&format!("shop.web.3-{}/work", id.digest))),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_with_its_children_after_the_grace_time() {
    let dir = dir();
    let pipe = pipe(&dir);
    let (mut host, _) = Host::on(dir.path()).await;
    // The children hold the pipe open for writing: it ends with the last of them.
    let id = host.start(
        "shop/web.1",
        &shell(&format!("trap '' TERM; (sleep 600 & sleep 600) >{pipe}; sleep 600")),
    );
    host.running(&id).await;
    let mut held =
        timeout(TIMEOUT, tokio::fs::File::open(pipe)).await.expect("in time").expect("opened");
    let slot = "shop/web.1".parse().expect("a slot");
    host.remove(&id, 300);
    assert_eq!(host.change(&id).await, Phase::Gone);
    assert_eq!(timeout(TIMEOUT, held.read(&mut [0])).await.expect("in time").expect("read"), 0);
    assert!(matches!(
        host.runtime.logs(&slot, LogQuery::default()).await.err(),
        Some(RuntimeError::NoInstance(_))
    ));
}

#[tokio::test]
async fn a_process_that_handles_sigterm_ends_before_the_grace_time() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start("shop/web.1", &shell("exec sleep 600"));
    host.running(&id).await;
    host.remove(&id, 3_600_000);
    assert_eq!(host.change(&id).await, Phase::Gone);
}

#[tokio::test]
async fn a_failed_start_is_reported_with_its_reason() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let run = |command: &[&str]| ContainerSpec {
        command: Some(command.iter().map(|&word| word.to_owned()).collect()),
        ..ContainerSpec::default()
    };
    let lost = ContainerSpec { working_dir: Some("/no/where".to_owned()), ..run(&["true"]) };
    let named = ContainerSpec { user: Some("www-data".to_owned()), ..run(&["true"]) };
    for (spec, reason) in [
        (run(&["/no/such/program"]), "cannot run /no/such/program: No such file or directory"),
        (run(&[]), "the process runtime needs a command: set 'command' or 'entrypoint'"),
        (
            ContainerSpec::default(),
            "the process runtime needs a command: set 'command' or 'entrypoint'",
        ),
        (lost, "cannot run true: its working directory /no/where does not exist"),
        (named, "the process runtime needs a numeric user, not 'www-data'"),
    ] {
        let id = host.start("shop/web.1", &spec);
        assert_eq!(host.change(&id).await, Phase::Failed { reason: reason.to_owned() });
        host.remove(&id, 0);
        assert_eq!(host.change(&id).await, Phase::Gone);
    }
}

#[tokio::test]
async fn many_processes_start_and_stop_concurrently() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let spec = shell("trap '' TERM; sleep 600");
    let ids: Vec<_> =
        (1..=20).map(|replica| host.start(&format!("shop/web.{replica}"), &spec)).collect();
    let started = std::time::Instant::now();
    ids.iter().for_each(|id| host.remove(id, 1000));
    let mut left = ids.len();
    while left > 0 {
        let event = timeout(TIMEOUT, host.events.recv()).await.expect("in time").expect("an event");
        if let RuntimeEvent::Changed(Observed { phase: Phase::Gone, .. }) = event {
            left -= 1;
        }
    }
    // One after another, the grace times alone would take 20 s.
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}
