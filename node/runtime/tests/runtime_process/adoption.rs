//! Adoption of processes that an earlier run of the node started.

use std::path::Path;

use vc_engine::runtime::{InstanceId, Observed, Phase};
use vc_runtime::LogQuery;
use vc_runtime::process::UNKNOWN_CODE;

use crate::{Host, dir, out, pipe, release, shell};

#[tokio::test]
async fn processes_outlive_the_runtime_and_are_adopted_by_the_next() {
    let dir = dir();
    let pipe = pipe(&dir);
    let (mut host, _) = Host::on(dir.path()).await;
    let stays =
        host.start("shop/web.1", &shell(&format!("echo first; read x <{pipe}; echo second")));
    let Phase::Running { started, .. } = host.change(&stays).await else {
        panic!("it does not run")
    };
    let ended = host.start("shop/web.2", &shell("exit 3"));
    host.running(&ended).await;
    assert_eq!(
        host.change(&ended).await,
        Phase::Exited { code: 3, output: String::new(), out_of_memory: false }
    );
    drop(host);

    let (mut host, mut all) = Host::on(dir.path()).await;
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let seen = |id: &InstanceId, phase| Observed {
        id: id.clone(),
        phase,
        address: "127.0.0.1".to_owned(),
    };
    let running = Phase::Running { health: None, started, said: String::new() };
    assert_eq!(
        all,
        [
            seen(&stays, running),
            seen(&ended, Phase::Exited { code: 3, output: String::new(), out_of_memory: false })
        ]
    );
    release(&pipe).await;
    assert_eq!(
        host.change(&stays).await,
        Phase::Exited {
            code: UNKNOWN_CODE,
            output: "first | second".to_owned(),
            out_of_memory: false
        }
    );
    assert_eq!(host.lines("shop/web.1", LogQuery::default()).await, [out("first"), out("second")]);
}

#[tokio::test]
async fn an_adopted_process_is_stopped_like_any_other() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start("shop/web.1", &shell("trap '' TERM; while :; do sleep 600; done"));
    host.running(&id).await;
    drop(host);
    let (mut host, all) = Host::on(dir.path()).await;
    assert_eq!(all.len(), 1);
    host.remove(&id, 100);
    loop {
        if host.change(&id).await == Phase::Gone {
            break;
        }
    }
}

/// Rewrites the status of `shop/web.1` in its state file.
fn write_status(dir: &Path, id: &InstanceId, status: serde_json::Value) {
    let state = dir.join(format!("instances/shop.web.1-{}/state.json", id.digest));
    let mut written: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&state).expect("read")).expect("JSON");
    written["status"] = status;
    std::fs::write(&state, written.to_string()).expect("written");
}

#[tokio::test]
async fn another_process_with_the_recorded_id_is_not_adopted_or_signalled() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start("shop/web.1", &shell("exit 0"));
    host.running(&id).await;
    assert_eq!(
        host.change(&id).await,
        Phase::Exited { code: 0, output: String::new(), out_of_memory: false }
    );
    drop(host);
    // As if the node had missed the exit, and this test's process had got the id since.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
    let mark =
        serde_json::json!({ "pid": std::process::id(), "start_ticks": 1, "boot": boot.trim() });
    write_status(dir.path(), &id, serde_json::json!({ "running": mark }));

    let (mut host, all) = Host::on(dir.path()).await;
    assert_eq!(
        all[0].phase,
        Phase::Exited { code: UNKNOWN_CODE, output: String::new(), out_of_memory: false }
    );
    host.remove(&id, 0);
    assert_eq!(host.change(&id).await, Phase::Gone);
}

#[tokio::test]
async fn a_process_that_was_started_but_not_recorded_is_adopted() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start("shop/web.1", &shell("exec sleep 600"));
    host.running(&id).await;
    drop(host);
    write_status(dir.path(), &id, "starting".into());

    let (mut host, all) = Host::on(dir.path()).await;
    assert!(matches!(all[0].phase, Phase::Running { .. }), "{all:?}");
    host.remove(&id, 10_000);
    loop {
        if host.change(&id).await == Phase::Gone {
            break;
        }
    }
}

#[tokio::test]
async fn a_start_interrupted_by_a_crash_is_not_a_failure() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start("shop/web.1", &shell("exit 0"));
    while !matches!(host.change(&id).await, Phase::Exited { .. }) {}
    drop(host);
    write_status(dir.path(), &id, "starting".into());

    let (_host, all) = Host::on(dir.path()).await;
    assert!(all.is_empty(), "there is nothing to adopt: {all:?}");
}
