//! Exclusive services: whatever breaks, at most one container runs, and epochs grow. Each container writes a line every 10 ms into
//! one pipe that the hosts of the lab share: the lines come out in the order in which they were written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::process::Signal;

use crate::harness::command::signal;
use crate::harness::lab::Lab;
use crate::harness::{DEADLINE, measured, until};

/// A pipe that the containers of all hosts write into, and what came out of it.
struct SharedLog {
    pipe: PathBuf,
    turns: Arc<Mutex<Vec<Writer>>>,
}

/// A container that wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Writer {
    epoch: u64,
    container: String,
}

impl SharedLog {
    fn new() -> Self {
        let name = format!("vc-lab-log-{}", std::process::id());
        let pipe = PathBuf::from("/dev/shm").join(name);
        let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        // Open for writing too: the pipe does not end when a container does.
        let file = File::options().read(true).write(true).open(&pipe).expect("the pipe");
        let turns = Arc::<Mutex<Vec<Writer>>>::default();
        let written = Arc::clone(&turns);
        std::thread::spawn(move || {
            for line in BufReader::new(file).lines() {
                let line = line.expect("a line");
                let Some((epoch, container)) = line.split_once(' ') else { return };
                let epoch = epoch.parse().expect("an epoch");
                let writer = Writer { epoch, container: container.to_owned() };
                let mut turns = written.lock().expect("no panic");
                if turns.last() != Some(&writer) {
                    turns.push(writer);
                }
            }
        });
        Self { pipe, turns }
    }

    /// Returns a Compose file of a service that writes into the pipe, on any host.
    fn compose(&self) -> String {
        let pipe = self.pipe.display();
        let script = r#"while :; do echo "$$VC_EPOCH $$(hostname)"; usleep 10000; done >/pipe"#;
        format!(
            "name: shop\nservices:\n  db:\n    image: vc-test:1\n    command: [sh, -c, '{script}']\n    \
             stop_grace_period: 1s\n    volumes: ['{pipe}:/pipe']\n    x-vc: {{on_partition: exclusive}}\n    \
             deploy: {{update_config: {{monitor: 500ms}}}}\n",
        )
    }

    /// Returns the containers in the order in which they wrote, each once for every turn.
    ///
    /// # Panics
    /// Two wrote in turns, or an epoch does not follow the one before it.
    fn writers(&self) -> Vec<Writer> {
        let turns = self.turns.lock().expect("no panic").clone();
        for pair in turns.windows(2) {
            assert!(pair[0].epoch < pair[1].epoch, "no overlap, and epochs grow: {turns:?}");
        }
        turns
    }

    /// Waits until a container with a higher epoch writes.
    fn await_after(&self, epoch: u64, what: &str) -> Writer {
        let start = Instant::now();
        until(what, DEADLINE, || match self.writers().last() {
            Some(writer) if writer.epoch > epoch => Ok(()),
            last => Err(format!("{last:?}")),
        });
        measured(what, start.elapsed());
        self.writers().pop().expect("a writer")
    }
}

impl Drop for SharedLog {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.pipe);
    }
}

/// Returns the host whose container writes, waiting for `vc ps` to say so.
fn holder(lab: &Lab, asked: usize) -> usize {
    let mut found = 0;
    until("vc ps names the node of the instance", DEADLINE, || -> Result<(), String> {
        let rows = lab.rows(asked, &["ps"]);
        let running =
            rows.iter().find(|row| row["service"] == "shop/db" && row["state"] == "running");
        let name = running.and_then(|row| row["node_name"].as_str()).ok_or(format!("{rows:?}"))?;
        found = name.trim_start_matches('h').parse().map_err(|_| name.to_owned())?;
        Ok(())
    });
    found
}

/// Waits until the cluster has this many voters.
fn await_voters(lab: &Lab, count: usize) {
    until("the voters are chosen", DEADLINE, || {
        let rows = lab.rows(1, &["nodes"]);
        let voters = rows.iter().filter(|row| row["votes"] == true).count();
        if voters == count { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

#[test]
fn at_most_one_container_of_an_exclusive_service_writes_at_any_time() {
    let mut lab = Lab::cluster(3);
    lab.expect_errors("the watchdog");
    await_voters(&lab, 3);
    let log = SharedLog::new();
    lab.deploy(1, &log.compose(), &["--wait"]).done();
    let mut last = log.await_after(0, "the service runs");
    let mut at = holder(&lab, 1);
    let other = |at: usize| if at == 1 { 2 } else { 1 };

    // The host of the container is cut off.
    lab.host("cut", at);
    last = log.await_after(last.epoch, "another node runs it after a cut");
    lab.host("heal", at);
    lab.all_up(&[1, 2, 3]);
    at = holder(&lab, other(at));

    // Its host sends and hears nothing.
    let rule = |verb: &str| {
        let host = at.to_string();
        let words =
            ["exec", &host, "--", "iptables", verb, "INPUT", "-s", "10.77.0.0/24", "-j", "DROP"];
        lab.run(&words).done()
    };
    rule("-I");
    last = log.await_after(last.epoch, "another node runs it after a cut in one direction");
    rule("-D");
    lab.all_up(&[1, 2, 3]);
    at = holder(&lab, other(at));

    // Its node hangs: the watchdog ends the container.
    let pid = lab.pid(at, "node.pid");
    signal(pid, Signal::STOP);
    last = log.await_after(last.epoch, "another node runs it when the node hangs");
    signal(pid, Signal::CONT);
    lab.all_up(&[1, 2, 3]);
    at = holder(&lab, other(at));

    // Its node is killed and not back in time.
    lab.host("node-kill", at);
    last = log.await_after(last.epoch, "another node runs it when the node is killed");
    lab.node(at, &["run"]);
    lab.all_up(&[1, 2, 3]);
    at = holder(&lab, other(at));

    // Its node is killed and back at once: the container stays.
    last = log.writers().pop().unwrap_or(last);
    lab.host("node-kill", at);
    lab.node(at, &["run"]);
    lab.all_up(&[1, 2, 3]);
    assert_eq!(holder(&lab, other(at)), at);
    assert_eq!(log.writers().last(), Some(&last), "the same container, in the same epoch");

    // Its host loses power.
    lab.host("kill", at);
    last = log.await_after(last.epoch, "another node runs it when the host dies");
    lab.host("start", at);
    lab.node(at, &["run"]);
    lab.all_up(&[1, 2, 3]);

    // It may go back to the host that has returned.
    lab.settled(&[1, 2, 3], "shop/db", 1);

    // A planned move.
    at = holder(&lab, other(at));
    last = log.writers().pop().unwrap_or(last);
    lab.vc(1, &["drain", &format!("h{at}")]).done();
    let next = log.await_after(last.epoch, "another node runs it after a drain");
    let containers: BTreeMap<_, _> = lab.all_containers(&[1, 2, 3]);
    assert_eq!(containers.values().map(Vec::len).sum::<usize>(), 1, "{containers:?}");
    assert_eq!(log.writers().last(), Some(&next));
}
