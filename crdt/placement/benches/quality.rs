//! Measures how well services are packed by the first rules and the newest: `cargo bench -p vc-placement --bench quality`.
//! For each set of sizes: the load that small clusters of unlike nodes accept before the first refusal, and the number of equal
//! nodes that 40 services need.
#![allow(clippy::expect_used, reason = "a benchmark")]

#[path = "../tests/support/mod.rs"]
mod support;

use support::{claim, node, node_id, service};
use vc_placement::{PlanInput, Rules, plan};

const CLUSTERS: u64 = 200;
/// Cores and memory of a node of size 1.
const CPU: u64 = 4000;
const MIB: u64 = 8192;

/// A generator of numbers (splitmix64).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Returns shares of a node: CPU and memory.
type Sizes = fn(&mut Rng) -> (f64, f64);

const SETS: [(&str, Sizes); 5] = [
    ("up to half a node", |rng| (rng.unit() / 2.0, rng.unit() / 2.0)),
    ("up to 15% of a node", |rng| (rng.unit() * 0.15, rng.unit() * 0.15)),
    ("1.5 to 70%, more small ones", |rng| {
        let mut size = || 2_f64.powf(-6.0 + 5.5 * rng.unit());
        (size(), size())
    }),
    ("2, 5, 10, 25, 50 or 80%", |rng| {
        const ALL: [f64; 9] = [0.02, 0.02, 0.02, 0.05, 0.05, 0.1, 0.25, 0.5, 0.8];
        let size = ALL[(rng.next() % 9) as usize];
        let mut part = || size * (0.3 + 0.7 * rng.unit());
        (part(), part())
    }),
    ("memory only, 1 to 80%", |rng| (0.0, 2_f64.powf(-7.0 + 6.7 * rng.unit()))),
];

/// Deploys services one after the other. Returns how many are placed before the first that is not, and the sum of their shares.
fn fill(rules: Rules, nodes: &[(f64, f64)], rng: &mut Rng, sizes: Sizes, most: u16) -> (u16, f64) {
    let mut input = PlanInput::default();
    for (number, (cpu, memory)) in (0..).zip(nodes) {
        let node = node("m", (cpu * CPU as f64) as u64, (memory * MIB as f64) as u64);
        input.nodes.insert(node_id(number), node);
    }
    let mut load = 0.0;
    for number in 0..most {
        let (cpu, memory) = sizes(rng);
        let mut service = service(1, (cpu * CPU as f64) as u64, (memory * MIB as f64) as u64);
        service.revision = number.into();
        input.services.insert(format!("p/s{number}").parse().expect("a service"), service);
        let plan = plan(&input, rules);
        if !plan.unplaced.is_empty() {
            return (number, load);
        }
        for (slot, placement) in &plan.placements {
            claim(&mut input, placement.node, slot);
        }
        load += cpu + memory;
    }
    (most, load)
}

/// Returns the mean share of small clusters of unlike nodes that is reserved at the first refusal.
fn accepted(rules: Rules, sizes: Sizes) -> f64 {
    let share = |seed| {
        let mut rng = Rng(seed);
        let count = 3 + rng.next() % 3;
        let nodes = (0..count).map(|_| {
            let size = [0.5, 1.0, 1.0, 2.0][(rng.next() % 4) as usize];
            (size, size * [0.5, 1.0, 1.5][(rng.next() % 3) as usize])
        });
        let nodes: Vec<_> = nodes.collect();
        let capacity: f64 = nodes.iter().map(|(cpu, memory)| cpu + memory).sum();
        fill(rules, &nodes, &mut rng, sizes, u16::MAX).1 / capacity
    };
    (0..CLUSTERS).map(share).sum::<f64>() / CLUSTERS as f64
}

/// Returns the mean number of equal nodes that 40 services need.
fn needed(rules: Rules, sizes: Sizes) -> f64 {
    let count = |seed| {
        let all = |&nodes: &usize| {
            fill(rules, &vec![(1.0, 1.0); nodes], &mut Rng(seed), sizes, 40).0 == 40
        };
        (1..=40).find(all).expect("a node for each")
    };
    (0..CLUSTERS / 4).map(count).sum::<usize>() as f64 / (CLUSTERS / 4) as f64
}

fn main() {
    let all = [Rules::default(), Rules::newest()];
    println!("{:<30} {:>20} {:>20}", "", "accepted load", "nodes for 40");
    let versions = all.map(|rules| format!("rules {}", rules.version));
    println!(
        "{:<30} {:>10}{:>10} {:>10}{:>10}",
        "reservations", versions[0], versions[1], versions[0], versions[1]
    );
    for (name, sizes) in SETS {
        let [a, b] = all.map(|rules| accepted(rules, sizes) * 100.0);
        let [c, d] = all.map(|rules| needed(rules, sizes));
        println!("{name:<30} {a:>9.1}%{b:>9.1}% {c:>10.2}{d:>10.2}");
    }
}
