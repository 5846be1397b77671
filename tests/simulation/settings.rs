//! What determines a run: the seed, and what of its faults is left out. Written as options of `scripts/simulate`, in
//! `seeds.txt` too.

use std::collections::BTreeSet;
use std::fmt;

use clap::Args;
use vc_protocol::Millis;
use vc_protocol::planted::PlantedBug;

use crate::kind::Kind;

/// The settings of one run. Equal settings give equal runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
pub struct Settings {
    /// Run this seed only
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub seed: u64,
    /// Nodes at the start, instead of the number that the seed draws
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=60))]
    pub nodes: Option<u64>,
    /// Leave out these kinds of faults, besides those that the seed leaves out
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub without: Vec<Kind>,
    /// Inject only these of the seed's events, by their numbers in the trace; `none` for no event
    #[arg(long, value_name = "NUMBER", value_parser = parse_events)]
    pub events: Option<Events>,
    /// End the phase with faults after so many milliseconds, instead of the number that the seed draws
    #[arg(long, value_name = "MS")]
    pub duration: Option<Millis>,
    /// Plant this bug
    #[arg(long, value_name = "BUG", value_parser = PlantedBug::parse, hide = true)]
    pub plant: Option<PlantedBug>,
}

/// Numbers of events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Events(pub BTreeSet<usize>);

fn parse_events(text: &str) -> Result<Events, std::num::ParseIntError> {
    if text == "none" {
        return Ok(Events::default());
    }
    text.split(',').map(str::parse).collect::<Result<_, _>>().map(Events)
}

impl fmt::Display for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let numbers: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&numbers.join(","))
    }
}

impl Settings {
    /// Returns the settings of a seed with all of its faults.
    pub fn seed(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Parses the options of a line of `seeds.txt`. Errors: an option is unknown or malformed.
    pub fn parse(line: &str) -> Result<Self, clap::Error> {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            settings: Settings,
        }
        let words = std::iter::once("simulate").chain(line.split_whitespace());
        <Line as clap::Parser>::try_parse_from(words).map(|line| line.settings)
    }

    /// Returns the command that repeats the run.
    pub fn command(&self) -> String {
        format!("scripts/simulate {self}")
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, without, events, duration, plant } = self;
        write!(f, "--seed {seed}")?;
        if let Some(nodes) = nodes {
            write!(f, " --nodes {nodes}")?;
        }
        if !without.is_empty() {
            let names: Vec<String> = without.iter().map(ToString::to_string).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(events) = events {
            write!(f, " --events {events}")?;
        }
        if let Some(duration) = duration {
            write!(f, " --duration {duration}")?;
        }
        plant.map_or(Ok(()), |bug| write!(f, " --plant {}", bug.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_back_from_their_text() {
        let all = Settings {
            seed: 7,
            nodes: Some(3),
            without: vec![Kind::Loss, Kind::KillHost],
            events: Some(Events(BTreeSet::from([3, 12]))),
            duration: Some(9000),
            plant: PlantedBug::ALL.first().copied(),
        };
        let none = Settings { events: Some(Events::default()), ..Settings::seed(1) };
        for settings in [Settings::seed(u64::MAX), all, none] {
            let read = Settings::parse(&settings.to_string()).expect("valid options");
            assert_eq!(read, settings);
        }
        assert!(Settings::parse("--seed 7 --without a-fault-that-was-removed").is_err());
    }
}
