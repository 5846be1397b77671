//! Logs of processes.

use futures::StreamExt as _;
use tokio::time::timeout;
use vc_engine::runtime::Phase;
use vc_runtime::{LogQuery, LogStream, MAX_LINE, RuntimeError};

use crate::{Host, TIMEOUT, dir, out, pipe, release, shell};

#[tokio::test]
async fn an_exited_process_is_restarted_and_keeps_its_logs() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let spec = shell("echo run; echo trouble >&2");
    // The standard error comes before the standard output.
    for output in ["trouble", "trouble | trouble"] {
        let id = host.start("shop/web.1", &spec);
        host.running(&id).await;
        assert_eq!(
            host.change(&id).await,
            Phase::Exited { code: 0, output: output.to_owned(), out_of_memory: false }
        );
    }
    let trouble = (LogStream::Stderr, "trouble".to_owned());
    let lines = host.lines("shop/web.1", LogQuery::default()).await;
    assert_eq!(lines, [out("run"), out("run"), trouble.clone(), trouble]);
}

#[tokio::test]
async fn logs_are_followed_until_the_process_exits() {
    let dir = dir();
    let pipe = pipe(&dir);
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start(
        "shop/web.1",
        &shell(&format!("echo before; read x <{pipe}; echo after $x; printf end")),
    );
    host.running(&id).await;
    let slot = "shop/web.1".parse().expect("a slot");
    let mut lines = host
        .runtime
        .logs(&slot, LogQuery { follow: true, ..LogQuery::default() })
        .await
        .expect("logs");
    let mut next =
        async || timeout(TIMEOUT, lines.next()).await.expect("in time").map(|line| line.line);
    assert_eq!(next().await.as_deref(), Some("before"));
    release(&pipe).await;
    assert_eq!(next().await.as_deref(), Some("after go"));
    assert_eq!(next().await.as_deref(), Some("end"));
    assert_eq!(next().await, None);
}

#[tokio::test]
async fn the_last_lines_are_read_without_the_others() {
    let dir = dir();
    let (mut host, _) = Host::on(dir.path()).await;
    let id = host.start("shop/web.1", &shell("seq 1 30000; head -c 600000 /dev/zero | tr '\\0' z"));
    host.running(&id).await;
    let Phase::Exited { code: 0, output, .. } = host.change(&id).await else { panic!("it ended") };
    assert_eq!(output, format!("{}…", "z".repeat(300)));
    let tail = |tail| LogQuery { tail: Some(tail), ..LogQuery::default() };
    let last = host.lines("shop/web.1", tail(3)).await;
    assert_eq!(last[..2], [out("29999"), out("30000")]);
    assert!(last[2..].iter().all(|(_, line)| line.len() <= MAX_LINE));
    assert_eq!(last[2..].iter().map(|(_, line)| line.len()).sum::<usize>(), 600_000);
    assert_eq!(host.lines("shop/web.1", tail(0)).await, []);
    assert_eq!(host.lines("shop/web.1", tail(50_000)).await.len(), 30_002);
    let later = LogQuery { since: Some(u64::MAX), ..LogQuery::default() };
    assert_eq!(host.lines("shop/web.1", later).await, []);
}

#[tokio::test]
async fn logs_of_a_slot_without_an_instance_are_refused() {
    let dir = dir();
    let (host, _) = Host::on(dir.path()).await;
    let logs = host.runtime.logs(&"shop/web.1".parse().expect("a slot"), LogQuery::default()).await;
    assert!(matches!(logs.err(), Some(RuntimeError::NoInstance(_))));
}
