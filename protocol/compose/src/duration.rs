//! Durations as Compose writes them.

use super::problem::Problem;

use vc_protocol::Millis;
use vc_protocol::spec::validate::MAX_DURATION;

/// Parses `1m30s`, `2.5s`, `500ms` or `0` into milliseconds, rounded up. Units: `us`, `ms`, `s`, `m`, `h`, `d`.
pub(super) fn parse(text: &str) -> Result<Millis, Problem> {
    let bad = || Problem::new(format!("'{text}' is not a duration: write 10s, 1m30s or 500ms"));
    if text == "0" {
        return Ok(0);
    }
    let (mut rest, mut micros) = (text, 0_u128);
    while !rest.is_empty() {
        let at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(at);
        let at = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(at);
        let unit: u128 = match unit {
            "us" => 1,
            "ms" => 1000,
            "s" => 1_000_000,
            "m" => 60 * 1_000_000,
            "h" => 3600 * 1_000_000,
            "d" => 24 * 3600 * 1_000_000,
            _ => return Err(bad()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Ten digits on each side keep the sums far from overflow.
        if number.matches('.').count() > 1
            || whole.is_empty()
            || whole.len() > 10
            || fraction.len() > 10
        {
            return Err(bad());
        }
        let scale = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| bad())?);
        let digits: u128 = format!("{whole}{fraction}").parse().map_err(|_| bad())?;
        micros += (digits * unit).div_ceil(scale);
        rest = tail;
    }
    match micros.div_ceil(1000) {
        _ if text.is_empty() => Err(bad()),
        millis if millis > u128::from(MAX_DURATION) => {
            Err(Problem::new(format!("'{text}' is too long: write a year at most")))
        }
        millis => Millis::try_from(millis).map_err(|_| bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations_are_parsed() {
        for (text, millis) in [
            ("10s", 10_000),
            ("1m30s", 90_000),
            ("2.5s", 2500),
            ("500ms", 500),
            ("1h2m3s4ms", 3_723_004),
            ("1us", 1),
            ("0s", 0),
            ("0", 0),
            ("1d", 86_400_000),
            ("0.1m", 6000),
        ] {
            assert_eq!(parse(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn invalid_durations_are_refused() {
        for text in [
            "",
            "10",
            "s",
            "1x",
            "-1s",
            "1..5s",
            ".s",
            ".5s",
            "1 s",
            "99999999999s",
            "9999999999h",
            "1s 2s",
            "é",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
