//! Commands that print rows until they are interrupted: `vc logs` and `vc events`.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use vc_protocol::control::{
    EventLevel, EventRow, LogBatch, LogRequest, LogRow, LogStream, LostLines, Reply, Request,
};
use vc_protocol::event::EventQuery;

use crate::node::{Node, OURS, attached_to, member, node_id};
use crate::{CommandOutput, Home};

fn log(replica: u32, line: &str) -> Reply {
    Reply::Log(LogRow {
        service: "shop/web".parse().expect("a service"),
        replica,
        node: node_id(10),
        time: None,
        stream: LogStream::Stdout,
        line: line.into(),
        lost: None,
    })
}

#[test]
fn logs_are_printed_as_they_were_written() {
    let (home, node) = attached_to(vec![log(1, "one"), log(2, "two"), Reply::End]);
    assert_eq!(home.vc(&["logs", "web", "--tail", "5"]).ok(), "web.1 | one\nweb.2 | two\n");
    let out = home.vc(&["logs", "web", "--output", "json"]).ok();
    assert_eq!(
        out.lines()
            .map(|line| serde_json::from_str::<LogRow>(line).expect("a row").replica)
            .sum::<u32>(),
        3
    );
    home.vc(&["logs", "web.2", "--since", "1h"]).ok();
    let Some(Request::Logs(LogRequest { since, replica, follow, tail, .. })) =
        node.requests().pop()
    else {
        panic!("no request for logs")
    };
    assert_eq!((replica, follow, tail), (Some(2), false, None));
    let hour_ago = crate::node::now() - crate::node::HOUR;
    assert!(hour_ago.abs_diff(since.expect("given")) < 60_000);
}

#[test]
fn a_flood_of_lines_is_printed_whole_and_says_where_lines_are_lost() {
    let row = |n: u32| {
        let Reply::Log(row) = log(1 + n / 3000, &format!("line {n} of a flood")) else {
            panic!("a line")
        };
        let lost = (n == 4000).then_some(LostLines { lines: 7, bytes: 70 });
        LogRow { lost, ..row }
    };
    // Older nodes send each line by itself.
    let single = (0..1000).map(|n| Reply::Log(row(n)));
    let together = (1000..5000).step_by(500).map(|first| {
        let mut batch = LogBatch::for_lines_like(&row(first));
        (first..first + 500).for_each(|n| batch.push(row(n)));
        Reply::Logs(batch)
    });
    let (home, node) = attached_to(single.chain(together).chain([Reply::End]).collect());
    let output = home.vc(&["logs", "-f", "--no-prefix", "web"]);
    let expected: String = (0..5000).map(|n| format!("line {n} of a flood\n")).collect();
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stdout, expected);
    assert_eq!(output.stderr, "web.2: 7 lines lost here: they were read too slowly\n");
    let Some(Request::Logs(request)) = node.requests().pop() else { panic!("no request for logs") };
    assert!(request.batched);
}

#[test]
fn events_are_printed_one_per_line() {
    let row = |level, text: &str| EventRow {
        time: 1_795_446_245_678,
        level,
        subject: "shop/web.2".into(),
        text: text.into(),
    };
    let rows =
        [row(EventLevel::Info, "runs on attic"), row(EventLevel::Error, "failed: \x1b[2Jcode 1")];
    let replies = rows.iter().cloned().map(Reply::Event).chain([Reply::End]);
    let (home, node) = attached_to(replies.collect());
    assert_eq!(
        home.vc(&["events"]).ok(),
        "2026-11-23T15:04:05.678Z shop/web.2: runs on attic\n\
         2026-11-23T15:04:05.678Z shop/web.2: failed: [2Jcode 1\n"
    );
    let out = home.vc(&["events", "-f", "--output", "json"]).ok();
    let shown: Vec<EventRow> =
        out.lines().map(|line| serde_json::from_str(line).expect("a row")).collect();
    assert_eq!(shown, rows);
    let query = |follow| EventQuery { follow, tail: Some(100), ..EventQuery::default() };
    assert_eq!(node.requests(), [false, true].map(|follow| Request::Events(query(follow))));
}

#[test]
fn ctrl_c_ends_following() {
    let mut plan = member(OURS, 10, vec![]);
    plan.answer = Box::new(|_| vec![log(1, "one")]);
    let (home, node) = (Home::new(), Node::start(plan));
    let token = OURS.token(&[&node.address]);
    let mut child =
        home.command(&["--token", &token, "logs", "-f", "web"]).spawn().expect("started");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "web.1 | one\n");
    let pid = child.id().to_string();
    let started = Instant::now();
    std::process::Command::new("kill").args(["-INT", &pid]).status().expect("signalled");
    let out = CommandOutput::from(child.wait_with_output().expect("ended"));
    assert_eq!((out.code, out.stdout.as_str(), out.stderr.as_str()), (Some(130), "", ""));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

#[test]
fn a_closed_output_is_not_an_error() {
    let lines = (0..10_000)
        .map(|n| log(1, &format!("line {n} of many that are not read")))
        .chain([Reply::End]);
    let (home, _node) = attached_to(lines.collect());
    let mut child = home.command(&["logs", "web"]).spawn().expect("started");
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("read");
    let out = CommandOutput::from(child.wait_with_output().expect("ended"));
    assert_eq!((out.code, out.stderr.as_str()), (Some(0), ""));
}
