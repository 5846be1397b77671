//! Schedules: the times at which a service runs.

use std::fmt;

use croner::Cron;
use croner::parser::CronParser;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use super::is_default;
use crate::Millis;

/// The most runs of a service that are remembered.
pub const MAX_KEPT_RUNS: u32 = 100;
/// How many runs of a service are remembered by default.
const KEPT_RUNS: u32 = 10;
/// The longest expression, in bytes.
const MAX_EXPRESSION: usize = 256;

/// When a service runs, and what happens to runs that are late, overlap, or fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// A cron expression of five fields, or of six with seconds first, as croner reads it.
    pub expression: String,
    /// The time zone in which it is read, a name of the IANA database; empty for UTC.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_zone: String,
    /// What happens at a time while an earlier run has not ended.
    #[serde(default, skip_serializing_if = "is_default")]
    pub overlap: Overlap,
    /// How late a run may begin of which the time passed while no node was there; 0 for not at all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub catch_up_ms: Millis,
    /// Time after which a run is stopped and counts as failed; 0 for none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeout_ms: Millis,
    /// How many runs are remembered, at most [`MAX_KEPT_RUNS`].
    #[serde(default = "kept", skip_serializing_if = "is_kept")]
    pub keep: u32,
    /// Whether nothing runs twice for one time, so that a run whose node dies is lost.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub at_most_once: bool,
}

fn kept() -> u32 {
    KEPT_RUNS
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_kept(number: &u32) -> bool {
    *number == KEPT_RUNS
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_yes(said: &bool) -> bool {
    *said
}

/// What happens at a time of the schedule while an earlier run has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The time is skipped.
    #[default]
    Forbid,
    /// Both run.
    Allow,
    /// The earlier run is stopped.
    Replace,
}

impl Overlap {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Forbid, Self::Allow, Self::Replace];

    /// Returns the word of specs and Compose files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbid => "forbid",
            Self::Allow => "allow",
            Self::Replace => "replace",
        }
    }
}

/// Why a schedule has no times.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not a cron expression.
    #[error(
        "'{0}' is not a schedule: {1}; write minute, hour, day, month and weekday, as in 0 3 * * *"
    )]
    Expression(String, String),
    /// Not a time zone.
    #[error("'{0}' is not a time zone: write a name such as Europe/Vienna")]
    TimeZone(String),
}

impl Schedule {
    /// Returns a schedule by this expression in UTC, with the defaults.
    pub fn new(expression: &str) -> Self {
        Self {
            expression: expression.to_owned(),
            time_zone: String::new(),
            overlap: Overlap::Forbid,
            catch_up_ms: 0,
            timeout_ms: 0,
            keep: KEPT_RUNS,
            at_most_once: true,
        }
    }

    /// Returns its times.
    ///
    /// # Errors
    /// The expression or the time zone is not known, or no time ever matches.
    pub fn timetable(&self) -> Result<Timetable, ScheduleError> {
        let bad = |why: String| ScheduleError::Expression(self.expression.clone(), why);
        if self.expression.len() > MAX_EXPRESSION {
            return Err(bad(format!("it has more than {MAX_EXPRESSION} characters")));
        }
        let parser = CronParser::builder().build();
        let cron = parser.parse(&self.expression).map_err(|error| bad(error.to_string()))?;
        let zone = match self.time_zone.as_str() {
            "" => TimeZone::UTC,
            name => {
                TimeZone::get(name).map_err(|_| ScheduleError::TimeZone(self.time_zone.clone()))?
            }
        };
        let table = Timetable { cron: Box::new(cron), zone };
        // The time of the check does not matter: leap days come back within its reach.
        match table.next(0) {
            Some(_) => Ok(table),
            None => Err(bad("no time matches it".to_owned())),
        }
    }
}

/// The times of a schedule, in seconds since 1970.
#[derive(Clone)]
pub struct Timetable {
    cron: Box<Cron>,
    zone: TimeZone,
}

impl fmt::Debug for Timetable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timetable({})", self.cron.as_str())
    }
}

impl Timetable {
    /// Returns the first time after this one; `None` if there is none, or none that fits the number.
    pub fn next(&self, after: u32) -> Option<u32> {
        seconds(&self.cron.find_next_occurrence(&self.zoned(after)?, false).ok()?)
    }

    /// Returns the last time up to this one; `None` if there is none.
    pub fn latest(&self, until: u32) -> Option<u32> {
        seconds(&self.cron.find_previous_occurrence(&self.zoned(until)?, true).ok()?)
    }

    fn zoned(&self, seconds: u32) -> Option<Zoned> {
        Some(Timestamp::from_second(seconds.into()).ok()?.to_zoned(self.zone.clone()))
    }
}

fn seconds(time: &Zoned) -> Option<u32> {
    u32::try_from(time.timestamp().as_second()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(expression: &str, zone: &str) -> Timetable {
        let schedule = Schedule { time_zone: zone.to_owned(), ..Schedule::new(expression) };
        schedule.timetable().expect("a schedule")
    }

    fn at(text: &str) -> u32 {
        let time: Timestamp = text.parse().expect("a time");
        u32::try_from(time.as_second()).expect("in range")
    }

    #[test]
    fn times_are_those_of_the_time_zone_also_where_its_clocks_change() {
        let vienna = table("30 2 * * *", "Europe/Vienna");
        assert_eq!(vienna.next(at("2026-01-10T12:00:00Z")), Some(at("2026-01-11T01:30:00Z")));
        // 02:30 does not exist on the day on which the clocks go forward, and is twice there on the other one.
        let spring = vienna.next(at("2026-03-28T12:00:00Z")).expect("a time");
        assert!((at("2026-03-29T00:30:00Z")..=at("2026-03-29T01:30:00Z")).contains(&spring));
        let autumn = vienna.next(at("2026-10-24T12:00:00Z")).expect("a time");
        assert_eq!(autumn, at("2026-10-25T00:30:00Z"));
        assert_eq!(vienna.next(autumn), Some(at("2026-10-26T01:30:00Z")), "once on that day");
        let utc = table("*/15 * * * *", "");
        assert_eq!(utc.latest(at("2026-01-10T12:14:59Z")), Some(at("2026-01-10T12:00:00Z")));
        assert_eq!(utc.latest(at("2026-01-10T12:15:00Z")), Some(at("2026-01-10T12:15:00Z")));
        assert_eq!(utc.next(at("2026-01-10T12:15:00Z")), Some(at("2026-01-10T12:30:00Z")));
        let seconds = table("*/10 * * * * *", "");
        assert_eq!(seconds.next(at("2026-01-10T12:00:01Z")), Some(at("2026-01-10T12:00:10Z")));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "soon", "61 * * * *", "0 0 31 2 *", &"* ".repeat(200)] {
            assert!(Schedule::new(text).timetable().is_err(), "{text}");
        }
        let nowhere = Schedule { time_zone: "Mars/Base".to_owned(), ..Schedule::new("@daily") };
        let expected = ScheduleError::TimeZone("Mars/Base".to_owned());
        assert_eq!(nowhere.timetable().err(), Some(expected));
    }
}
