//! Times as Docker writes them (RFC 3339, in UTC).

use vc_protocol::Millis;

/// Parses a UTC time as Docker writes it, such as `2026-11-02T15:04:05.678901234Z`; `None` for others, and for times
/// before 1970, which stand for "never".
pub(super) fn parse_time(text: &str) -> Option<Millis> {
    let text = text.strip_suffix('Z')?;
    let (date, time) = text.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let parts = text.split(separator).map(str::parse).collect::<Result<Vec<i64>, _>>().ok()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let millis: i64 =
        fraction.chars().chain("000".chars()).take(3).collect::<String>().parse().ok()?;
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
        return None;
    }
    // Days since 1970-01-01, with years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100
        + day_of_year
        - 719_468;
    Millis::try_from((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_times_are_parsed() {
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_time("2000-02-29T12:34:56.789123456Z"), Some(951_827_696_789));
        assert_eq!(parse_time("2026-11-02T15:04:05.5Z"), Some(1_793_631_845_500));
        assert_eq!(parse_time("2024-03-01T00:00:00Z"), Some(1_709_251_200_000));
        for never in ["0001-01-01T00:00:00Z", "", "now", "2024-13-01T00:00:00Z", "2024-03-01"] {
            assert_eq!(parse_time(never), None, "{never}");
        }
    }
}
