//! Runs ranges of seeds on several threads, until a time is over or a number of runs has failed.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::marks::{Mark, missing};
use crate::runner::{Failure, run};
use crate::settings::Settings;

/// What to run.
#[derive(Debug, Clone)]
pub struct Exploration {
    /// Applied to every seed.
    pub settings: Settings,
    /// Seeds that are run first.
    pub first: Vec<u64>,
    /// Seeds that are run at most besides, from that of the settings on.
    pub seeds: u64,
    /// After this time no seed is begun, unless a mark is missing: after three times this time then.
    pub time: Duration,
    /// Whether all marks are to be reached.
    pub wants_marks: bool,
    /// Schedules that run at the same time, each on a thread.
    pub jobs: usize,
    /// After so many failed runs no seed is begun.
    pub failures: usize,
}

/// What came of all runs together.
#[derive(Debug, Default)]
pub struct Totals {
    /// Runs that have ended.
    pub runs: u64,
    /// Milliseconds of virtual time.
    pub simulated: u64,
    /// What was reached.
    pub marks: BTreeSet<Mark>,
    /// The runs that failed, in the order of their seeds.
    pub failed: Vec<(Settings, Failure)>,
}

impl Exploration {
    /// Returns the seed of a run; `None` after the last.
    fn seed(&self, run: u64) -> Option<u64> {
        let first = usize::try_from(run).ok().and_then(|run| self.first.get(run)).copied();
        let number = run.saturating_sub(self.first.len() as u64);
        first.or_else(|| (number < self.seeds).then(|| self.settings.seed.wrapping_add(number)))
    }

    /// Runs the seeds. `finished` is called after each with the totals so far, and the time since the start.
    pub fn run(&self, finished: impl Fn(&Totals, Duration) + Sync) -> Totals {
        let started = Instant::now();
        let (next, totals) = (AtomicU64::new(0), Mutex::new(Totals::default()));
        let has_failed = || locked(&totals).failed.len() >= self.failures;
        let is_over = || {
            let is_missing = self.wants_marks && {
                let totals = locked(&totals);
                !missing(&totals.marks, totals.runs).is_empty()
            };
            started.elapsed() > if is_missing { 3 * self.time } else { self.time }
        };
        let work = || {
            while !is_over() && !has_failed() {
                let Some(seed) = self.seed(next.fetch_add(1, Ordering::Relaxed)) else { return };
                let settings = Settings { seed, ..self.settings.clone() };
                let outcome = run(&settings);
                let mut totals = locked(&totals);
                totals.runs += 1;
                totals.simulated += outcome.simulated;
                totals.marks.extend(outcome.marks);
                totals.failed.extend(outcome.failure.map(|failure| (settings, failure)));
                finished(&totals, started.elapsed());
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(work);
            }
        });
        let mut totals = totals.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        totals.failed.sort_by_key(|(settings, _)| settings.seed);
        totals
    }
}

fn locked(totals: &Mutex<Totals>) -> std::sync::MutexGuard<'_, Totals> {
    totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
