//! Time.

use jiff::Timestamp;

/// Milliseconds; as a point in time, since the Unix epoch. All durations and times in the workspace use this unit.
pub type Millis = u64;

/// A Lamport timestamp (Lamport 1978): one more than the highest that the node has seen in any document. It orders what
/// depends on each other, whatever the clocks of the nodes say; of two that are equal neither has seen the other.
pub type Lamport = u64;

/// Returns a point in time as RFC 3339 writes it, in UTC: `2026-11-30T06:38:00.5Z`. Times that no calendar has are those of the epoch.
pub fn rfc3339(time: Millis) -> String {
    let time = i64::try_from(time).ok().and_then(|it| Timestamp::from_millisecond(it).ok());
    time.unwrap_or_default().to_string()
}

/// Returns a duration for people, in its two largest units: `40 s`, `10 min`, `1 h 30 min`, `1 s 500 ms`.
pub fn in_words(duration: Millis) -> String {
    const UNITS: [(Millis, &str); 5] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms")];
    let largest = UNITS.iter().position(|(unit, _)| duration >= *unit);
    let Some(largest) = largest else { return "0 s".to_owned() };
    let mut rest = duration;
    let mut words = Vec::new();
    for (unit, name) in UNITS.iter().skip(largest).take(2) {
        if rest >= *unit {
            words.push(format!("{} {name}", rest / unit));
            rest %= unit;
        }
    }
    words.join(" ")
}

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a duration: write 90s, 1h30m or 7d")]
pub struct DurationError(String);

/// Parses a duration: numbers with the units ms, s, m, h, d and w, as in `90s`, `1h30m` or `7d`.
///
/// # Errors
/// It is none.
pub fn parse_duration(text: &str) -> Result<Millis, DurationError> {
    let bad = || DurationError(text.to_owned());
    let mut millis: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let factor: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        millis =
            number.checked_mul(factor).and_then(|part| millis.checked_add(part)).ok_or_else(bad)?;
        rest = tail;
    }
    Ok(millis)
}

#[cfg(test)]
mod tests {
    use super::{Millis, in_words, rfc3339};

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(rfc3339(1_796_020_680_500), "2026-11-30T06:38:00.5Z");
        assert_eq!(rfc3339(Millis::MAX), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn durations_are_written_in_their_two_largest_units() {
        let cases = [
            (0, "0 s"),
            (1, "1 ms"),
            (1500, "1 s 500 ms"),
            (40_000, "40 s"),
            (90_500, "1 min 30 s"),
            (600_000, "10 min"),
            (5_400_000, "1 h 30 min"),
            (3_605_000, "1 h"),
            (180_000_000, "2 d 2 h"),
        ];
        for (duration, words) in cases {
            assert_eq!(in_words(duration), words);
        }
    }
}
