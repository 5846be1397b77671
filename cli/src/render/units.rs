//! Formats amounts and times.

use vc_protocol::Millis;

/// Formats bytes as `512 B` or `1.5 GiB`: at most one digit after the point.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    // Tenths of the unit, rounded, without floats.
    let mut tenths = u128::from(bytes) * 10;
    while unit + 1 < UNITS.len() && (tenths + 5) / 10 >= 1024 {
        unit += 1;
        tenths = (u128::from(bytes) * 10 + (1 << (10 * unit - 1))) >> (10 * unit);
    }
    let text = decimal(tenths, 10);
    format!("{text} {}", UNITS[unit])
}

/// Formats thousandths of a core as cores: `0.5`, `12`.
pub(crate) fn cores(millis: u64) -> String {
    decimal(u128::from(millis), 1000)
}

/// Formats thousandths as `12.5%`; thousandths of a core are of one core.
pub(crate) fn percent(thousandths: u64) -> String {
    format!("{}.{}%", thousandths / 10, thousandths % 10)
}

/// Formats measured thousandths of a core as cores, rounded to a hundredth.
pub(crate) fn cores_used(millis: u64) -> String {
    decimal((u128::from(millis) + 5) / 10, 100)
}

/// Formats `value / scale`, where `scale` is a power of ten, without trailing zeros.
fn decimal(value: u128, scale: u128) -> String {
    let (whole, rest) = (value / scale, value % scale);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = scale.ilog10() as usize;
    let text = format!("{whole}.{rest:0digits$}");
    text.trim_end_matches('0').to_owned()
}

/// Formats a past time as `3m ago`. A time in the future, by the clock of another node, is `now`; 0 is never, `-`.
pub(crate) fn ago(now: Millis, then: Millis) -> String {
    match now.saturating_sub(then) {
        _ if then == 0 => "-".to_owned(),
        0..1000 => "now".to_owned(),
        millis => format!("{} ago", short_duration(millis)),
    }
}

/// Formats a time as `2026-11-23T15:04:05.678Z`, in UTC (RFC 3339).
pub(super) fn timestamp(time: Millis) -> String {
    let (days, millis) = (time / 86_400_000, time % 86_400_000);
    // Years begin in March, so that the leap day is the last, in eras of 400 years of equal length.
    // https://howardhinnant.github.io/date_algorithms.html#civil_from_days
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        0..10 => (era * 400 + year, month + 3),
        _ => (era * 400 + year + 1, month - 9),
    };
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// Formats a time as `2026-11-23 15:04 UTC`.
pub(crate) fn minute(time: Millis) -> String {
    let text = timestamp(time);
    let (day, rest) = text.split_once('T').unwrap_or((&text, ""));
    format!("{day} {} UTC", rest.get(..5).unwrap_or(rest))
}

/// Formats a duration in its largest unit, from two of them on, so that `90s` is not `1m`.
pub(crate) fn short_duration(millis: Millis) -> String {
    let seconds = millis / 1000;
    let (amount, unit) = match seconds {
        0 => (millis, "ms"),
        1..120 => (seconds, "s"),
        120..7200 => (seconds / 60, "m"),
        7200..172_800 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    format!("{amount}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_formatted_in_utc() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (1_795_446_245_678, "2026-11-23T15:04:05.678Z"),
        ] {
            assert_eq!(timestamp(time), text);
        }
        assert_eq!(minute(1_795_446_245_678), "2026-11-23 15:04 UTC");
    }

    #[test]
    fn amounts_are_formatted_in_the_largest_unit() {
        for (amount, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1 MiB"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            (8_242_049_024, "7.7 GiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
        for (millis, text) in [(0, "0"), (500, "0.5"), (1250, "1.25"), (12_000, "12"), (1, "0.001")]
        {
            assert_eq!(cores(millis), text);
        }
        assert_eq!(cores_used(1088), "1.09");
        assert_eq!(cores_used(1), "0");
        assert_eq!(
            (percent(0), percent(999), percent(2345)),
            ("0.0%".into(), "99.9%".into(), "234.5%".into())
        );
    }

    #[test]
    fn ages_count_from_now() {
        let now = 1_800_000_000_000;
        for (seconds, text) in [
            (0, "now"),
            (12, "12s ago"),
            (119, "119s ago"),
            (200, "3m ago"),
            (7200, "2h ago"),
            (86_400, "24h ago"),
            (200_000, "2d ago"),
        ] {
            assert_eq!(ago(now, now - seconds * 1000), text);
        }
        assert_eq!(ago(now, now + 5000), "now", "another node's clock is ahead");
        assert_eq!(ago(now, 0), "-");
    }
}
