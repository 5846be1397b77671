//! Runs repeat, and what has failed once stays right.

use vc_simulation::{Settings, run, seeds};

#[test]
fn two_runs_of_a_seed_give_identical_traces() {
    for seed in 0..5 {
        let settings = Settings { nodes: Some(3), ..Settings::seed(seed) };
        let (one, other) = (run(&settings), run(&settings));
        assert_eq!(one.hash, other.hash, "seed {seed}");
        assert!(one.failure.is_none(), "{:?}", one.failure.map(|it| it.message));
    }
}

#[test]
fn seeds_that_have_failed_once_pass() {
    for settings in seeds::parse(include_str!("seeds.txt")).expect("well-formed lines") {
        let failure = run(&settings).failure;
        assert!(failure.is_none(), "{}: {}", settings.command(), failure.expect("one").message);
    }
}
