//! Measures the time of one plan for 100 nodes and 2,000 slots: `cargo bench -p vc-placement`.
#![allow(clippy::expect_used, reason = "a benchmark")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use support::{converge, node, node_id, port, service};
use vc_placement::{PlanInput, Rules, plan};

const NODES: u16 = 100;
const ROUNDS: usize = 31;

/// `services` services of `replicas` replicas each.
fn cluster(services: u16, replicas: u32, cpu_millis: u64, mib: u64) -> PlanInput {
    let mut input = PlanInput::default();
    for number in 0..NODES {
        input.nodes.insert(node_id(number), node(&format!("m{number}"), 32_000, 64 * 1024));
    }
    for number in 0..services {
        let mut service = service(replicas, cpu_millis * (1 + u64::from(number) % 4), mib);
        service.revision = u64::from(number);
        let key = format!("p{}/s{number}", number % 10).parse().expect("a service");
        input.services.insert(key, service);
    }
    input
}

fn measure(what: &str, input: &PlanInput) {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(plan(black_box(input), Rules::newest()));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    let result = plan(input, Rules::newest());
    println!(
        "{what:<50} median {:>7.2} ms, slowest {:>7.2} ms ({} placed, {} unplaced, {} moves)",
        times[ROUNDS / 2].as_secs_f64() * 1e3,
        times[ROUNDS - 1].as_secs_f64() * 1e3,
        result.placements.len(),
        result.unplaced.len(),
        result.moves.len(),
    );
}

fn main() {
    let mut services = cluster(200, 10, 100, 128);
    measure("200 services x 10, nothing claimed", &services);
    let converged = plan(&services, Rules::newest());
    converge(&mut services, &converged);
    measure("200 services x 10, converged", &services);
    let fullest =
        (0..NODES).map(node_id).max_by_key(|id| converged.slots_of(*id).count()).expect("a node");
    services.nodes.get_mut(&fullest).expect("a node").up = false;
    measure("200 services x 10, one node died", &services);

    let mut single = cluster(2000, 1, 0, 0);
    measure("2,000 services x 1 without reservation, new", &single);
    let converged = plan(&single, Rules::newest());
    converge(&mut single, &converged);
    measure("2,000 services x 1 without reservation, converged", &single);

    measure("2 services x 1,000, nothing claimed", &cluster(2, 1000, 100, 128));
    let mut ports = cluster(20, 100, 100, 128);
    for (number, service) in (8000..).zip(ports.services.values_mut()) {
        service.spec.ports = vec![port(number)];
    }
    measure("20 services x 100 with a host port each", &ports);
    measure("200 services x 10 that fit nowhere", &cluster(200, 10, 100_000, 128));
}
