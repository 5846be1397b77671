//! The Docker runtime, with a Docker engine of each test's own. Needs root, dockerd and a static busybox: `scripts/test`
//! installs them.

#![allow(clippy::expect_used, reason = "a test states what must not fail")]

mod engine;
mod files;
mod host;
mod images;
#[path = "../leftovers/mod.rs"]
mod leftovers;
mod networks;
mod settings;
mod volumes;
mod watchdog;

use std::time::Duration;

use futures::StreamExt as _;
use tokio::net::{TcpListener, UnixStream};
use tokio::time::timeout;
use vc_engine::runtime::{Observed, Phase, RuntimeEvent};
use vc_protocol::Slot;
use vc_protocol::spec::{ContainerSpec, Healthcheck};
use vc_runtime::{LogLine, LogQuery, LogStream, RuntimeError};

use engine::Engine;
use host::*;

fn slot() -> Slot {
    "shop/web.1".parse().expect("a slot")
}

#[tokio::test]
async fn a_container_is_started_listed_and_adopted_by_the_next_runtime() {
    let engine = Engine::new();
    let (mut host, all) = Host::on(&engine).await;
    assert_eq!(all, []);
    let mut spec = shell("exec sleep 600");
    spec.labels.insert("tier".to_owned(), "front".to_owned());
    spec.limit.memory_bytes = 64 << 20;
    let id = host.start("shop/web.1", &spec);
    // All at once: each report is a change for all nodes.
    let seen = host.change(&id).await;
    assert!(matches!(seen.phase, Phase::Running { .. }), "{seen:?}");
    assert!(seen.address.parse::<std::net::IpAddr>().is_ok(), "{seen:?}");

    let names =
        engine.run(&["ps", "--format", "{{.Names}} {{.Label \"vc.service\"}} {{.Label \"tier\"}}"]);
    let name = format!("vc-shop.web.1-{}-{}", &id.digest[..8], identity(2).node.short());
    assert_eq!(names, format!("{name} web front"));
    assert_eq!(engine.run(&["inspect", "-f", "{{.HostConfig.Memory}}", &name]), "67108864");

    drop(host);
    let (mut host, all) = Host::on(&engine).await;
    assert_eq!(all, std::slice::from_ref(&seen));
    // Another node on the same engine does not see it.
    assert_eq!(Host::at(engine.host(), 3).listed().await, []);
    // Starting a running instance only reports it.
    host.start("shop/web.1", &spec);
    assert_eq!(host.change(&id).await, seen);
    host.remove(&id, 0).await;
    assert_eq!(engine.run(&["ps", "-aq"]), "");
    host.remove(&id, 0).await;
}

#[tokio::test]
async fn an_exit_is_reported_with_its_code_and_a_restart_keeps_the_container() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let spec = shell("echo run; exit 3");
    let id = host.start("shop/web.1", &spec);
    let expected = Phase::Exited { code: 3, output: "run".to_owned(), out_of_memory: false };
    assert_eq!(host.not_running(&id).await, expected);
    let container = engine.run(&["ps", "-aq"]);
    host.start("shop/web.1", &spec);
    assert!(matches!(host.not_running(&id).await, Phase::Exited { code: 3, .. }));
    assert_eq!(engine.run(&["ps", "-aq"]), container);
    let lines: Vec<LogLine> =
        host.runtime.logs(&slot(), LogQuery::default()).await.expect("logs").collect().await;
    assert_eq!(lines.iter().map(|line| line.line.as_str()).collect::<Vec<_>>(), ["run", "run"]);

    // What other programs do to it is observed.
    engine.run(&["rm", &container]);
    assert_eq!(host.change(&id).await.phase, Phase::Gone);
}

#[tokio::test]
async fn an_exit_is_reported_with_the_last_lines_of_long_output() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let script = "seq 1 100000; seq -s , 1 500000; echo 'no database' >&2; exit 1";
    let id = host.start("shop/web.1", &shell(script));
    let Phase::Exited { code: 1, output, .. } = host.not_running(&id).await else {
        panic!("it ended")
    };
    assert!(output.ends_with("no database"), "{output:?}");
    assert!(output.chars().count() <= 301, "{output}");
    drop(host);
    let (_, all) = Host::on(&engine).await;
    assert_eq!(all[0].phase, Phase::Exited { code: 1, output, out_of_memory: false });
}

#[tokio::test]
async fn an_exit_for_want_of_memory_is_reported_as_such() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let mut spec = shell("x=a; while :; do x=$x$x; done");
    spec.limit.memory_bytes = 16 << 20;
    let id = host.start("shop/web.1", &spec);
    let expected = Phase::Exited { code: 137, output: String::new(), out_of_memory: true };
    assert_eq!(host.not_running(&id).await, expected);
}

#[tokio::test]
async fn a_container_that_ignores_sigterm_is_killed_after_its_grace_and_removed() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let id = host.start("shop/web.1", &shell("trap '' TERM; echo up; while :; do sleep 1; done"));
    host.running(&id).await;
    let follow = LogQuery { follow: true, ..LogQuery::default() };
    let mut lines = host.runtime.logs(&slot(), follow).await.expect("logs");
    assert_eq!(timeout(TIMEOUT, lines.next()).await.expect("in time").expect("a line").line, "up");
    let asked = std::time::Instant::now();
    host.remove(&id, 1000).await;
    assert!(asked.elapsed() >= Duration::from_secs(1));
    assert_eq!(engine.run(&["ps", "-aq"]), "");
    assert_eq!(timeout(TIMEOUT, lines.next()).await.expect("in time"), None);
    let logs = host.runtime.logs(&slot(), LogQuery::default()).await;
    assert!(matches!(logs.err(), Some(RuntimeError::NoInstance(_))));
}

#[tokio::test]
async fn a_failed_start_is_reported_with_its_reason() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let failed = |phase| match phase {
        Phase::Failed { reason } => reason,
        phase => panic!("{phase:?}"),
    };

    let absent = ContainerSpec { image: "127.0.0.1:1/absent:1".to_owned(), ..shell("exit 0") };
    let id = host.start("shop/web.1", &absent);
    let reason = loop {
        match host.change(&id).await.phase {
            Phase::Pulling { .. } => {}
            Phase::NoImage { reason } => break reason,
            phase => panic!("{phase:?}"),
        }
    };
    let expected = "image 127.0.0.1:1/absent:1 not found on any node or registry: not in Docker on this node; registry: ";
    assert!(reason.starts_with(expected) && !reason.contains('\n'), "{reason}");

    let mut nameless = shell("exit 0");
    nameless.command = Some(vec!["/no/such/program".to_owned()]);
    let id = host.start("shop/web.2", &nameless);
    let reason = failed(host.change(&id).await.phase);
    assert!(
        reason.starts_with("Docker cannot start the container: ")
            && reason.contains("/no/such/program"),
        "{reason}"
    );
    // The container is created, but the reason of its failure is kept.
    drop(host);
    let (mut host, all) = Host::on(&engine).await;
    let left = all.iter().find(|seen| seen.id == id).expect("what is left");
    assert!(failed(left.phase.clone()).contains("/no/such/program"), "{left:?}");
    host.remove(&id, 0).await;

    let spec = shell("exit 0");
    let name = format!("vc-shop.web.3-{}-{}", &spec.digest()[..8], identity(2).node.short());
    engine.run(&["create", "--name", &name, IMAGE, "sh"]);
    let id = host.start("shop/web.3", &spec);
    let reason = failed(host.change(&id).await.phase);
    assert_eq!(
        reason,
        format!(
            "the name {name} is taken by a container of another owner; remove it with 'docker rm {name}'"
        )
    );
    host.remove(&id, 0).await;
    assert_eq!(engine.run(&["ps", "-a", "--format", "{{.Names}}"]), name);
}

#[tokio::test]
async fn a_healthcheck_sets_the_health_in_the_phase() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let check = Healthcheck {
        test: ["CMD-SHELL", "test -e /ready"].map(str::to_owned).into(),
        interval_ms: Some(200),
        timeout_ms: None,
        retries: Some(1),
        start_period_ms: None,
        start_interval_ms: None,
    };
    let spec = ContainerSpec { healthcheck: Some(check), ..shell("exec sleep 600") };
    let id = host.start("shop/web.1", &spec);
    let mut health = async |wanted| {
        while !matches!(host.change(&id).await.phase, Phase::Running { health: Some(health), .. } if health == wanted)
        {
        }
    };
    health(false).await;
    let container = engine.run(&["ps", "-q"]);
    engine.run(&["exec", &container, "sh", "-c", ">/ready"]);
    health(true).await;
}

#[tokio::test]
async fn logs_have_streams_and_times_and_are_followed_until_the_exit() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let script =
        "mkfifo /a /b; seq 1 5; read x </a; echo trouble >&2; read x </b; echo end; exec sleep 600";
    let id = host.start("shop/web.1", &shell(script));
    host.running(&id).await;
    let query = LogQuery { follow: true, ..LogQuery::default() };
    let mut lines = host.runtime.logs(&slot(), query).await.expect("logs");
    let mut next = async || timeout(TIMEOUT, lines.next()).await.expect("in time");
    for number in 1..=5 {
        let line = next().await.expect("a line");
        assert_eq!((line.line, line.stream), (number.to_string(), LogStream::Stdout));
    }
    let container = engine.run(&["ps", "-q"]);
    engine.run(&["exec", &container, "sh", "-c", "echo go >/a"]);
    let trouble = next().await.expect("a line");
    assert_eq!((trouble.line.as_str(), trouble.stream), ("trouble", LogStream::Stderr));
    engine.run(&["exec", &container, "sh", "-c", "echo go >/b"]);
    let end = next().await.expect("a line");
    assert_eq!((end.line.as_str(), end.stream), ("end", LogStream::Stdout));
    engine.run(&["kill", &container]);
    assert_eq!(next().await, None);

    let tail = LogQuery { tail: Some(2), ..LogQuery::default() };
    let last: Vec<LogLine> = host.runtime.logs(&slot(), tail).await.expect("logs").collect().await;
    assert_eq!(last, [trouble, end.clone()]);
    let ended = end.time.expect("a time");
    let since = LogQuery { since: Some(ended), ..LogQuery::default() };
    let late: Vec<LogLine> = host.runtime.logs(&slot(), since).await.expect("logs").collect().await;
    assert_eq!(late, [end]);
}

#[tokio::test]
async fn long_lines_are_whole_and_counted_as_one() {
    let engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    // Docker's log entries end at 16 KiB.
    let script = "long() { head -c $1 /dev/zero | tr '\\0' $2; echo; }
        seq 3; long 20000 a; long 120000 b; echo c; echo d >&2; long 40000 e; exec sleep 600";
    let id = host.start("shop/web.1", &shell(script));
    host.running(&id).await;
    let lines = async |tail, follow| {
        let query = LogQuery { tail, follow, ..LogQuery::default() };
        host.runtime.logs(&slot(), query).await.expect("logs")
    };
    let all = async || {
        let lines: Vec<LogLine> = lines(None, true).await.take(8).collect().await;
        lines.into_iter().map(|it| it.line).collect::<Vec<_>>()
    };
    let written = timeout(TIMEOUT, all()).await.expect("in time");
    // The order between the two outputs is Docker's.
    let mut sorted = written.clone();
    sorted.sort();
    let long = |length: usize, letter: &str| letter.repeat(length);
    let (a, b, e) = (long(20_000, "a"), long(120_000, "b"), long(40_000, "e"));
    assert_eq!(sorted, ["1", "2", "3", &a, &b, "c", "d", &e]);

    for tail in 1..=10 {
        let expected = &written[written.len().saturating_sub(tail)..];
        let tail = u32::try_from(tail).expect("small");
        let last: Vec<LogLine> = lines(Some(tail), false).await.collect().await;
        let last: Vec<String> = last.into_iter().map(|it| it.line).collect();
        assert!(
            last == expected,
            "the last {tail}: {:?}",
            last.iter().map(String::len).collect::<Vec<_>>()
        );
        let mut followed = lines(Some(tail), true).await;
        for line in expected {
            let next = timeout(TIMEOUT, followed.next()).await.expect("in time");
            assert!(next.is_some_and(|it| it.line == *line), "the last {tail}, followed");
        }
    }
}

#[tokio::test]
async fn an_outage_of_the_engine_is_reported_once_and_followed_by_a_list() {
    let mut engine = Engine::new();
    let (mut host, _) = Host::on(&engine).await;
    let id = host.start("shop/web.1", &shell("exec sleep 600"));
    host.running(&id).await;

    engine.kill();
    let why = loop {
        if let RuntimeEvent::Unavailable(why) = host.event().await {
            break why;
        }
    };
    assert!(why.starts_with(&format!("Docker at {} does not answer: ", engine.host())), "{why}");
    // Actions do not fail meanwhile: they wait for the engine.
    let asked = host.start("shop/web.2", &shell("exec sleep 600"));

    engine.boot_again();
    let all = match host.event().await {
        RuntimeEvent::Listed(all) => all,
        event => panic!("{event:?}"),
    };
    // A restarted engine ends the containers of the previous one.
    assert!(matches!(all[..], [Observed { phase: Phase::Exited { .. }, .. }]), "{all:?}");
    assert_eq!(all[0].id, id);
    host.running(&asked).await;
    host.start("shop/web.1", &shell("exec sleep 600"));
    host.running(&id).await;
}

#[tokio::test]
async fn an_engine_is_reached_over_tcp() {
    let engine = Engine::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let socket = engine.dir.path().join("sock");
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = listener.accept().await {
            let mut inside = UnixStream::connect(&socket).await.expect("the engine");
            tokio::spawn(
                async move { tokio::io::copy_bidirectional(&mut outside, &mut inside).await },
            );
        }
    });
    let mut host = Host::at(format!("tcp://{address}"), 2);
    assert_eq!(host.listed().await, []);
    let id = host.start("shop/web.1", &shell("exit 0"));
    assert_eq!(
        host.not_running(&id).await,
        Phase::Exited { code: 0, output: String::new(), out_of_memory: false }
    );
}

#[tokio::test]
async fn a_missing_engine_is_reported_once_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("unix://{}/sock", dir.path().display());
    let mut host = Host::at(url.clone(), 2);
    let why = format!(
        "Docker at {url} does not answer: the socket does not exist; start Docker, or name another socket with --docker-host"
    );
    assert_eq!(host.event().await, RuntimeEvent::Unavailable(why));
    let mut host = Host::at("ssh://elsewhere".to_owned(), 2);
    let why = "Docker at ssh://elsewhere does not answer: unsupported address; write unix:///PATH or tcp://HOST:PORT"
        .to_owned();
    assert_eq!(host.event().await, RuntimeEvent::Unavailable(why));
}
