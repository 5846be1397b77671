//! Amounts of CPU and memory, as integers, so that nodes agree on every sum.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount of CPU and memory.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Memory in bytes.
    pub memory_bytes: u64,
}

impl Resources {
    /// Returns whether `self` is at most `room` in each dimension.
    pub fn fits(self, room: Self) -> bool {
        self.cpu_millis <= room.cpu_millis && self.memory_bytes <= room.memory_bytes
    }

    /// Returns the sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// Returns the larger of each.
    #[must_use]
    pub fn larger_of_each(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.max(other.cpu_millis),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
        }
    }

    /// Returns the difference, saturating at zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_sub(other.cpu_millis),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }

    /// Returns the resources of `count` of these; at most the largest number.
    pub fn times(self, count: u64) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_mul(count),
            memory_bytes: self.memory_bytes.saturating_mul(count),
        }
    }

    /// Returns whether both amounts are zero.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m CPU, {} MiB", self.cpu_millis, self.memory_bytes >> 20)
    }
}

/// A text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseResourceError {
    /// Not a number of cores.
    #[error("'{0}' is not a number of CPUs: write 0.5 or 2")]
    Cpus(String),
    /// Not a number of bytes.
    #[error("'{0}' is not an amount of memory: write 64M, 1.5g or a number of bytes")]
    Memory(String),
}

/// Parses `whole.fraction` in thousandths, without floats; digits after the third are ignored.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if (whole.is_empty() && fraction.is_empty()) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { digits(whole)? };
    let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
    whole.checked_mul(1000)?.checked_add(fraction.parse().ok()?)
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Parses cores in the syntax of Compose (`0.5`) and returns thousandths.
pub fn parse_cpus(text: &str) -> Result<u64, ParseResourceError> {
    thousandths(text.trim()).ok_or_else(|| ParseResourceError::Cpus(text.to_owned()))
}

/// Parses bytes in the syntax of Compose: a decimal number and a unit (`b`, `k`, `m`, `g`, `t`, optionally followed by `b`
/// or `ib`; powers of 1024). Fails at 2^64 bytes or more.
pub fn parse_memory(text: &str) -> Result<u64, ParseResourceError> {
    let bad = || ParseResourceError::Memory(text.to_owned());
    let lower = text.trim().to_ascii_lowercase();
    let at = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(at);
    let factor: u64 = match unit.trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(bad()),
    };
    let millis = u128::from(thousandths(number).ok_or_else(bad)?);
    u64::try_from(millis * u128::from(factor) / 1000).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_parse_in_the_syntax_of_compose() {
        assert_eq!(parse_cpus("0.5"), Ok(500));
        assert_eq!(parse_cpus("2"), Ok(2000));
        assert_eq!(parse_cpus(".25"), Ok(250));
        assert_eq!(parse_memory("64M"), Ok(64 << 20));
        assert_eq!(parse_memory("1.5gb"), Ok(3 << 29));
        assert_eq!(parse_memory("1024"), Ok(1024));
    }

    #[test]
    fn invalid_amounts_are_rejected() {
        for bad in ["", "-1", "1e3", "one", "0.5.5", "99999999999999999999"] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
        for bad in ["", "-1", "12 parsecs", "m", "99999999999t"] {
            assert!(parse_memory(bad).is_err(), "{bad}");
        }
    }
}
