//! Containers that run under a lease.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Pid, Signal};
use vc_engine::runtime::{InstanceId, Phase};
use vc_runtime::Watchdog;
use vc_runtime::watchdog::{Config, boottime};

use crate::engine::Engine;
use crate::host::{Host, TIMEOUT, shell};
use crate::leftovers::{belongs_to_test, end_with_test};

/// The variable of the process that is the watchdog, with its data directory.
const WATCHDOG: &str = "VC_TEST_WATCHDOG";
/// A deadline that is far enough for all that a test does before it, and one after the end of any test.
const SOON: u64 = 8_000;
const LATE: u64 = 600_000;

/// Not a test: runs the watchdog, if this is its process.
#[test]
fn role() {
    if let Ok(dir) = std::env::var(WATCHDOG) {
        end_with_test();
        vc_watchdog::run(Path::new(&dir), "1").expect("it runs");
    }
}

/// Returns a runtime with a watchdog.
async fn host(engine: &Engine) -> (Host, Watchdog) {
    let dir = tempfile::tempdir().expect("a directory");
    let of = dir.path().to_owned();
    let command = move || {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["watchdog::role", "--exact", "--nocapture"]).env(WATCHDOG, &of);
        belongs_to_test(&mut command);
        command
    };
    let config =
        Config { dir: dir.path().to_owned(), version: "1".to_owned(), command: Arc::new(command) };
    let watchdog = Watchdog::start(config);
    let mut host = Host::watched(engine.host(), dir, watchdog.clone());
    assert_eq!(host.listed().await, []);
    (host, watchdog)
}

/// Sets deadlines, in milliseconds from now.
fn set(watchdog: &Watchdog, all: &[(&InstanceId, u64)]) {
    let at = |&(id, time): &(&InstanceId, u64)| (id.clone(), boottime() + time);
    watchdog.deadlines(&all.iter().map(at).collect::<BTreeMap<_, _>>());
}

fn id_of(slot: &str, digest: String) -> InstanceId {
    InstanceId { slot: slot.parse().expect("a slot"), digest }
}

/// Returns the processes whose command line, or whose control groups, contain a text.
fn processes(file: &str, text: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("mounted").flatten();
    let pids = entries.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let content = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&content).contains(text)
    };
    pids.filter(has).filter_map(Pid::from_raw).collect()
}

/// Stops the engine with all its helpers until the returned value is dropped.
struct Hung(Vec<Pid>);

impl Hung {
    fn new(engine: &Engine) -> Self {
        let all = processes("cmdline", &engine.dir.path().display().to_string());
        let daemons = all.into_iter().filter(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            ["dockerd", "containerd", "containerd-shim"]
                .iter()
                .any(|it| name.trim_end().starts_with(it))
        });
        let daemons: Vec<Pid> = daemons.collect();
        assert!(daemons.len() >= 3, "{daemons:?}");
        for &pid in &daemons {
            rustix::process::kill_process(pid, Signal::STOP).expect("it runs");
        }
        Self(daemons)
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        for &pid in &self.0 {
            let _ = rustix::process::kill_process(pid, Signal::CONT);
        }
    }
}

/// Waits until no process is left in a container.
async fn nothing_left(container: &str) {
    let gone = async {
        for pid in processes("cgroup", container) {
            let flags = rustix::process::PidfdFlags::empty();
            let Ok(fd) = rustix::process::pidfd_open(pid, flags) else { continue };
            let wait = move || {
                let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None)
            };
            tokio::task::spawn_blocking(wait).await.expect("no panic").expect("polled");
        }
    };
    tokio::time::timeout(TIMEOUT, gone).await.expect("in time");
}

#[tokio::test]
async fn of_two_containers_the_one_that_is_due_is_killed_while_docker_hangs() {
    let engine = Engine::new();
    let (mut host, watchdog) = host(&engine).await;
    let spec = shell("trap '' TERM; sleep 600 & sleep 600");
    let (db, web) = (id_of("shop/db.1", spec.digest()), id_of("shop/web.1", spec.digest()));
    set(&watchdog, &[(&db, SOON), (&web, LATE)]);
    for id in [&db, &web] {
        host.start_under(Some(7), &id.slot.to_string(), &spec);
        host.running(id).await;
    }
    let container = |id: &InstanceId| {
        let service = format!("label=vc.service={}", id.slot.service.service);
        engine.run(&["ps", "-q", "--no-trunc", "--filter", &service])
    };
    let (of_db, of_web) = (container(&db), container(&web));
    let hung = Hung::new(&engine);
    nothing_left(&of_db).await;
    assert!(!processes("cgroup", &of_web).is_empty());
    drop(hung);
    assert!(matches!(host.not_running(&db).await, Phase::Exited { code: 137, .. }));
    // What the engine starts late does not stay. It may be killed before the engine has finished the start, which fails then.
    let _ = engine.docker(&["start", &of_db]).output().expect("the docker CLI");
    nothing_left(&of_db).await;
    assert_ne!(engine.run(&["wait", &of_db]), "0");
    assert!(!processes("cgroup", &of_web).is_empty());
}

#[tokio::test]
async fn a_container_knows_its_epoch_and_one_of_another_epoch_is_created_anew() {
    let engine = Engine::new();
    let (mut host, watchdog) = host(&engine).await;
    let spec = shell("echo $VC_EPOCH; exec sleep 600");
    let id = id_of("shop/db.1", spec.digest());
    set(&watchdog, &[(&id, LATE)]);
    let ids = || engine.run(&["ps", "-aq", "--filter", "label=vc.service=db"]);
    let labels = || engine.run(&["ps", "--format", "{{.Label \"vc.epoch\"}}"]);
    // One without a lease goes on.
    host.start("shop/db.1", &spec);
    host.running(&id).await;
    let first = ids();
    host.start_under(Some(7), "shop/db.1", &spec);
    host.running(&id).await;
    assert_eq!((ids(), labels().as_str()), (first.clone(), ""));
    host.remove(&id, 0).await;
    for epoch in [7, 8, 8] {
        host.start_under(Some(epoch), "shop/db.1", &spec);
        // Its address is reported last: nothing of it is left for the next one to be taken for.
        while host.change(&id).await.address.is_empty() || labels() != epoch.to_string() {}
        let environment = engine.run(&["inspect", "-f", "{{.Config.Env}}", &ids()]);
        assert!(environment.contains(&format!("VC_EPOCH={epoch}")), "{environment}");
    }
    // The deadline is of the last one.
    set(&watchdog, &[(&id, 0)]);
    let phase = host.not_running(&id).await;
    assert!(matches!(phase, Phase::Exited { code: 137, .. }), "{phase:?}");
}

#[tokio::test]
async fn no_container_is_started_under_a_lease_without_a_watchdog() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let id = host.start_under(Some(7), "shop/db.1", &shell("exec sleep 600"));
    let reason = "the watchdog does not run: this process has none".to_owned();
    assert_eq!(host.not_running(&id).await, Phase::NodeFault { reason });
    assert_eq!(engine.run(&["ps", "-q"]), "");
}
