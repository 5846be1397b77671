//! Makes a failing run smaller: fewer kinds of faults, fewer events, fewer nodes, a shorter time.

use std::time::{Duration, Instant};

use crate::kind::Kind;
use crate::plan::Plan;
use crate::runner::{Failure, run};
use crate::settings::{Events, Settings};

/// Returns smaller settings that fail as well, not necessarily of the same invariant, and how. Tries until `time` is over.
pub fn shrink(failing: &Settings, failure: Failure, time: Duration) -> (Settings, Failure) {
    let started = Instant::now();
    let mut best = (failing.clone(), failure);
    let attempt = |best: &mut (Settings, Failure), settings: Settings| {
        if started.elapsed() > time || settings == best.0 {
            return false;
        }
        let Some(failure) = run(&settings).failure else { return false };
        *best = (settings, failure);
        true
    };
    loop {
        let before = best.0.clone();
        let nodes = Plan::new(&best.0).nodes;
        for fewer in [1, 2, 3, 5, 8, 13, 21].into_iter().filter(|&fewer| fewer < nodes) {
            if attempt(&mut best, Settings { nodes: Some(fewer), ..before.clone() }) {
                break;
            }
        }
        shrink_events(&mut best, &attempt);
        let kinds: Vec<Kind> = Plan::new(&best.0).kinds.into_iter().collect();
        for kind in kinds {
            let mut settings = best.0.clone();
            settings.without.push(kind);
            attempt(&mut best, settings);
        }
        let settings = best.0.clone();
        let duration = Plan::new(&settings).duration;
        for shorter in [duration / 8, duration / 4, duration / 2, duration * 3 / 4] {
            if attempt(&mut best, Settings { duration: Some(shorter), ..settings.clone() }) {
                break;
            }
        }
        if best.0 == before || started.elapsed() > time {
            return best;
        }
    }
}

/// Removes events: halves first, then smaller parts (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing
/// input", 2002).
fn shrink_events(
    best: &mut (Settings, Failure),
    attempt: &impl Fn(&mut (Settings, Failure), Settings) -> bool,
) {
    let numbers = |settings: &Settings| -> Vec<usize> {
        Plan::new(settings).events.iter().map(|it| it.number).collect()
    };
    let mut part = numbers(&best.0).len().div_ceil(2);
    while part > 0 {
        let events = numbers(&best.0);
        let mut removed = false;
        for chunk in events.chunks(part) {
            let kept = numbers(&best.0).into_iter().filter(|number| !chunk.contains(number));
            let settings = Settings { events: Some(Events(kept.collect())), ..best.0.clone() };
            removed |= attempt(best, settings);
        }
        if part == 1 && !removed {
            return;
        }
        part = if part == 1 { 1 } else { part / 2 };
        if numbers(&best.0).is_empty() {
            return;
        }
    }
}
