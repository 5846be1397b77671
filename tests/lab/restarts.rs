//! A rolling restart of all nodes under load.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::harness::fixtures::{web, with};
use crate::harness::lab::Lab;
use crate::harness::load::Load;
use crate::harness::{DEADLINE, until};

/// Asks `web` by its name on each host, and prints whether it answers. (The image's wget cannot resolve names.)
const PROBE: &str = r#"  probe:
    image: vc-test:1
    scale: 3
    command:
      - sh
      - -c
      - |
        while sleep 0.2; do
          address=$$(nslookup -type=a web | sed -n '/^Name:/,$$s/^Address: *//p')
          printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 $$address 80 | grep -q vc-test && echo answered || echo "no answer of '$$address'"
        done
    stop_grace_period: 1s
    depends_on: [web]
    deploy: {update_config: {monitor: 500ms}}
"#;

/// A connection that stays open: a client that sends a line, and the next one after its answer.
struct KeptAlive {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<usize>>,
}

impl KeptAlive {
    fn to(host: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect((Lab::ip(host), 9000))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let mut answers = BufReader::new(stream.try_clone()?).lines();
            let mut count = 0;
            while !stopped.load(Ordering::Acquire) {
                writeln!(stream, "request {count}")?;
                let answer = answers.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
                assert_eq!(answer, format!("request {count}"));
                count += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok(count)
        });
        Self { stop, thread }
    }

    /// Ends the client. Returns how many requests were answered, all on one connection.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("no panic").expect("the connection stays open")
    }
}

#[test]
fn a_rolling_restart_fails_no_request_and_moves_nothing() {
    let lab = Lab::cluster_and_operator(3);
    // Not on h3, which forwards to the others.
    let elsewhere =
        "    ports: ['8080:80']\n    deploy: {placement: {constraints: [node.name != h3]}}\n";
    let shop = web("shop", "web", 2, elsewhere) + PROBE;
    lab.deploy(1, &shop, &["--wait"]).done();
    // One instance on each host, which its own node prefers.
    let echo = with("shop", "echo", 3, "    ports: ['9000:9000']\n")
        .replace("name: shop", "name: talk")
        .replace("[sleep, '900']", "[nc, -ll, -p, '9000', -e, cat]");
    lab.deploy(1, &echo, &["--wait"]).done();
    let before = lab.settled(&[1, 2, 3], "talk/echo", 3);
    assert!(before.values().all(|of| of.iter().any(|it| it.service() == "talk/echo")));

    let loads =
        [1, 2, 3].map(|host| Load::requests(&lab, 4, &format!("{}:8080", Lab::ip(host)), 17));
    let kept_alive = [1, 2, 3].map(KeptAlive::to);
    for host in 1..=3 {
        lab.run(&["node-restart", &host.to_string(), "--log-format", "json"]).done();
        until("every node has all nodes up again", DEADLINE, || {
            let up = |row: &Value| row["state"] == "up" && row["restarting"] == false;
            for host in 1..=3 {
                // On a busy computer a node that has just started may answer late.
                let output = lab.vc(host, &["--output", "json", "nodes"]);
                let rows: Vec<Value> = serde_json::from_str(&output.out).unwrap_or_default();
                if rows.len() != 3 || !rows.iter().all(up) {
                    return Err(format!("h{host}: {output:?}"));
                }
            }
            Ok(())
        });
    }
    for load in loads {
        load.await_answers(100);
        load.end_requests().all_answered(100);
    }
    for connection in kept_alive {
        println!("measured: {} requests on one connection", connection.end());
    }
    let probes = lab.log_rows(1, &["probe"]);
    let failed: Vec<&Value> = probes.iter().filter(|row| row["line"] != "answered").collect();
    assert!(
        failed.is_empty() && probes.len() > 100,
        "{} of {}: {failed:?}",
        failed.len(),
        probes.len()
    );
    assert_eq!(lab.all_containers(&[1, 2, 3]), before, "nothing was restarted or moved");
    for host in 1..=3 {
        assert_eq!(lab.problems(host), [] as [&str; 0], "h{host}");
    }
}
