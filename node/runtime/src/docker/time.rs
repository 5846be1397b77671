//! Times as Docker writes them (RFC 3339, in UTC).

use vc_protocol::Millis;

/// Parses a UTC time as Docker writes it, such as `2026-11-02T15:04:05.678901234Z`; `None` for others, and for times
/// before 1970, which stand for "never". Every log line has one: it allocates nothing.
pub(super) fn parse_time(text: &[u8]) -> Option<Millis> {
    let (date, rest) = text.split_at_checked("2026-11-02T15:04:05".len())?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2] =
        *date
    else {
        return None;
    };
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number: i64, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, month, day) = (number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?);
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[n1, n2])?, number(&[s1, s2])?);
    let fraction = match rest {
        b"Z" => b"",
        [b'.', fraction @ .., b'Z'] => fraction,
        _ => return None,
    };
    let mut digits = [b'0'; 3];
    for (digit, written) in digits.iter_mut().zip(fraction) {
        *digit = *written;
    }
    let millis = number(&digits)?;
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
        let parse_time = |text: &str| parse_time(text.as_bytes());
        assert_eq!(parse_time("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse_time("2000-02-29T12:34:56.789123456Z"), Some(951_827_696_789));
        assert_eq!(parse_time("2026-11-02T15:04:05.5Z"), Some(1_793_631_845_500));
        assert_eq!(parse_time("2024-03-01T00:00:00Z"), Some(1_709_251_200_000));
        for never in [
            "0001-01-01T00:00:00Z",
            "",
            "now",
            "2024-13-01T00:00:00Z",
            "2024-03-01",
            "2024-03-01T00:00:00",
            "2024-03-01T00:00:00.xZ",
            "2024-03-01T00:0a:00Z",
            "2024-03-01 00:00:00Z",
            "2024-03-01T00:00:00+01:00",
        ] {
            assert_eq!(parse_time(never), None, "{never}");
        }
    }
}
