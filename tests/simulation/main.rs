//! `scripts/simulate`: runs random schedules of faults until a time is over.

use std::io::Write as _;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use vc_simulation::{
    Exploration, Failure, MANY_RUNS, Settings, Totals, missing, run, seeds, shrink,
};

const EXAMPLES: &str = "\
Examples:
  scripts/simulate                          ten minutes of new seeds on all cores
  scripts/simulate --minutes 60 --jobs 4    an hour on four cores
  scripts/simulate --seed 417               one seed, with the end of its trace if it fails
  scripts/simulate --seed 417 --trace       the same, with the whole trace
  scripts/simulate --seed 417 --nodes 3 --without loss,join --events 3,7
                                            a smaller run, as a failure prints it
  scripts/simulate --plant same-epoch --from 0 --seeds 200
                                            which of 200 seeds finds a bug of protocol/src/planted.rs

Runs that fail are made smaller and written to tests/simulation/seeds.txt, those that find planted bugs to planted.txt; tests
replay both. Traces are in target/simulation. Exit code 1: a run has failed, or a state was never reached.";

/// Simulates clusters under random faults: production engines, virtual time, everything drawn from a seed
#[derive(Parser)]
#[command(name = "scripts/simulate", after_help = EXAMPLES, max_term_width = 120)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Minutes after which no run is begun
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,
    /// Runs at the same time; all cores by default
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// First seed of many; by the clock by default
    #[arg(long, value_name = "S", conflicts_with = "seed")]
    from: Option<u64>,
    /// Runs at most
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    seeds: u64,
    /// Seeds to run before those
    #[arg(long, value_name = "S", value_delimiter = ',')]
    first: Vec<u64>,
    /// Print the whole trace of the seed
    #[arg(long)]
    trace: bool,
    /// Failed runs after which no run is begun
    #[arg(long, value_name = "N", default_value_t = 3)]
    failures: usize,
    /// Leave failing runs as they are
    #[arg(long)]
    no_shrink: bool,
    /// Do not fail when a state was never reached
    #[arg(long)]
    allow_missing: bool,
    /// Fail when a state was never reached, however few the runs: for seeds that are known to reach all
    #[arg(long, conflicts_with = "allow_missing")]
    expect_all: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let has_seed = std::env::args().any(|it| it == "--seed" || it.starts_with("--seed="));
    let is_successful = if has_seed { one(&arguments) } else { many(&arguments) };
    if is_successful { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(line: &str) {
    // A closed pipe is no reason to stop.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// Runs one seed.
fn one(arguments: &Arguments) -> bool {
    vc_simulation::print_trace(arguments.trace);
    let started = Instant::now();
    let outcome = run(&arguments.settings);
    let seconds = outcome.simulated as f64 / 1000.0;
    say(&format!(
        "{}: {seconds:.1} simulated seconds in {:.1} s, trace {:016x}",
        arguments.settings,
        started.elapsed().as_secs_f64(),
        outcome.hash
    ));
    outcome.marks.iter().for_each(|mark| say(&format!("reached: {}", mark.name())));
    let Some(failure) = outcome.failure else { return true };
    show_failure(&arguments.settings, &failure, if arguments.trace { 0 } else { 60 });
    false
}

fn show_failure(settings: &Settings, failure: &Failure, lines: usize) {
    let skipped = failure.trace.len().saturating_sub(lines);
    failure.trace.iter().skip(skipped).for_each(|line| say(line));
    say(&format!("FAILED: {}", failure.message));
    match write_trace(settings, failure) {
        Ok(path) => say(&format!("trace: {}", path.display())),
        Err(error) => say(&format!("cannot write the trace: {error}")),
    }
    say(&format!("repeat with: {}", settings.command()));
}

fn write_trace(settings: &Settings, failure: &Failure) -> std::io::Result<PathBuf> {
    let folder = PathBuf::from("target/simulation");
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(format!("seed-{}.trace", settings.seed));
    std::fs::write(&path, failure.trace.join("\n") + "\n" + &failure.message + "\n")?;
    Ok(path)
}

fn exploration(arguments: &Arguments) -> Exploration {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let from = arguments.from.unwrap_or_else(|| clock.map_or(0, |time| time.as_secs()) << 20);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    Exploration {
        settings: Settings { seed: from, ..arguments.settings.clone() },
        first: arguments.first.clone(),
        seeds: arguments.seeds,
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        wants_marks: !arguments.allow_missing,
        jobs: arguments.jobs.unwrap_or(cores),
        failures: arguments.failures,
    }
}

/// Runs seeds until the time is over.
fn many(arguments: &Arguments) -> bool {
    let exploration = exploration(arguments);
    say(&format!("seeds from {} on, {} at a time", exploration.settings.seed, exploration.jobs));
    let (started, said) = (Instant::now(), Mutex::new(Instant::now()));
    let totals = exploration.run(|totals, elapsed| {
        let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.elapsed() >= Duration::from_secs(20) {
            *said = Instant::now();
            say(&rates(totals, elapsed));
        }
    });
    let Totals { marks, failed, .. } = &totals;
    let mut is_successful = failed.is_empty();
    let runs = if arguments.expect_all { totals.runs.max(MANY_RUNS) } else { totals.runs };
    let missing = missing(marks, runs);
    say(&rates(&totals, started.elapsed()));
    for (settings, failure) in failed.iter() {
        if arguments.no_shrink {
            say(&format!("FAILED: {settings}: {}", failure.message));
            continue;
        }
        say(&format!("\nFAILED: {}\nmaking it smaller: {}", failure.message, settings.command()));
        let known = Failure { message: failure.message.clone(), trace: failure.trace.clone() };
        let (settings, failure) = shrink(settings, known, Duration::from_secs(60));
        show_failure(&settings, &failure, 60);
        let path = seeds::path_of(&settings);
        if let Err(error) = seeds::append(&path, &settings, &failure.message) {
            say(&format!("cannot write {}: {error}", path.display()));
        }
    }
    if is_successful && !missing.is_empty() {
        is_successful = arguments.allow_missing;
        missing.iter().for_each(|mark| say(&format!("never reached: {}", mark.name())));
    }
    is_successful
}

fn rates(totals: &Totals, elapsed: Duration) -> String {
    let minutes = elapsed.as_secs_f64() / 60.0;
    let hours = totals.simulated as f64 / 3_600_000.0;
    format!(
        "{} schedules, {hours:.1} simulated hours in {minutes:.1} min: {:.0} schedules, {:.1} hours a minute; {} failed",
        totals.runs,
        totals.runs as f64 / minutes,
        hours / minutes,
        totals.failed.len()
    )
}
