//! Runs every input that is known, without a fuzzer.
#![allow(clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use vc_fuzz::TARGETS;

/// Returns the inputs of a target that a directory has, in order.
fn inputs(directory: &str, target: &str) -> Vec<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory).join(target);
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|it| it.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn no_known_input_breaks_a_target() {
    // A runtime catches the panics of its tasks.
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        default(panic);
    }));
    for target in TARGETS {
        for seed in (target.seeds)() {
            (target.run)(&seed);
        }
        (target.run)(&[]);
        for path in ["corpus", "crashes"].into_iter().flat_map(|it| inputs(it, target.name)) {
            println!("{}", path.display());
            (target.run)(&fs::read(&path).expect("an input"));
        }
        let panics = PANICS.swap(0, Ordering::Relaxed);
        assert!(panics == 0 || target.catches_panics, "{panics} panics of {}", target.name);
    }
}

#[test]
fn every_directory_of_inputs_and_every_fuzzer_belongs_to_a_target() {
    let is_target = |name: &str| TARGETS.iter().any(|target| target.name == name);
    for directory in ["corpus", "crashes", "libfuzzer/fuzz_targets"] {
        for path in inputs(directory, "") {
            let name = path.file_stem().and_then(|it| it.to_str()).expect("a name");
            assert!(is_target(name), "{}", path.display());
        }
    }
    let fuzzers = inputs("libfuzzer/fuzz_targets", "");
    assert_eq!(fuzzers.len(), TARGETS.len(), "each target has a fuzzer");
}
