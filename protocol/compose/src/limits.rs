//! Limits of the container's cgroup: `cpuset`, `mem_swappiness`, `blkio_config` and the like.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::duration;
use super::problem::Problem;
use super::walk::{At, Fields};
use vc_protocol::parse_memory;
use vc_protocol::spec::{Blkio, Cgroup};

/// Takes the limits from a service.
pub(super) fn take(service: &mut Fields<'_>) -> Cgroup {
    let mut text = |key| service.take(key).and_then(|at| at.text()).map(str::to_owned);
    let (parent, cpuset) = (text("cgroup_parent"), text("cpuset"));
    let mut micros = |key| service.take(key).and_then(|at| at.read(microseconds)).unwrap_or(0);
    let [cpu_quota, cpu_period, cpu_rt_runtime, cpu_rt_period] =
        ["cpu_quota", "cpu_period", "cpu_rt_runtime", "cpu_rt_period"].map(&mut micros);
    Cgroup {
        parent,
        cpuset,
        cpu_quota,
        cpu_period,
        cpu_rt_runtime,
        cpu_rt_period,
        cpu_shares: service
            .take("cpu_shares")
            .and_then(|at| at.read(within(0..=i64::MAX)))
            .unwrap_or(0),
        mem_swappiness: service.take("mem_swappiness").and_then(|at| at.read(within(0..=100))),
        oom_kill_disable: service
            .take("oom_kill_disable")
            .and_then(|at| at.bool())
            .unwrap_or(false),
        oom_score_adj: service
            .take("oom_score_adj")
            .and_then(|at| at.read(within(-1000..=1000)))
            .unwrap_or(0),
        blkio: service.take("blkio_config").map(|at| blkio(&at)).unwrap_or_default(),
    }
}

/// Parses microseconds: a number of them, or a duration.
fn microseconds(text: &str) -> Result<i64, Problem> {
    if let Ok(micros) = text.parse::<u32>() {
        return Ok(micros.into());
    }
    let micros = duration::parse(text)?.checked_mul(1000);
    micros.and_then(|micros| i64::try_from(micros).ok()).ok_or_else(|| Problem::new("is too long"))
}

/// Returns a parser of numbers in a range.
fn within<T: FromStr + PartialOrd + Display>(
    range: std::ops::RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, Problem> {
    move |text| {
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            Problem::new(format!(
                "'{text}' is not a number from {} to {}",
                range.start(),
                range.end()
            ))
        })
    }
}

/// Reads `blkio_config`.
fn blkio(at: &At<'_>) -> Blkio {
    let mut fields = at.fields();
    let weight = |at: At<'_>| at.read(within(10..=1000_u16));
    let mut rates = |key, value: &dyn Fn(&At<'_>) -> Option<u64>| {
        fields.take(key).map(|at| by_device(&at, "rate", value)).unwrap_or_default()
    };
    let bytes = |at: &At<'_>| at.read(parse_memory);
    let count = |at: &At<'_>| at.number();
    let found = Blkio {
        device_read_bps: rates("device_read_bps", &bytes),
        device_write_bps: rates("device_write_bps", &bytes),
        device_read_iops: rates("device_read_iops", &count),
        device_write_iops: rates("device_write_iops", &count),
        weight: fields.take("weight").and_then(weight).unwrap_or(0),
        weight_device: fields
            .take("weight_device")
            .map(|at| by_device(&at, "weight", &|at| weight(at.clone())))
            .unwrap_or_default(),
    };
    fields.finish(&[]);
    found
}

/// Reads a list of `{path, KEY}`.
fn by_device<T>(
    at: &At<'_>,
    key: &'static str,
    value: &dyn Fn(&At<'_>) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut found = BTreeMap::new();
    for item in at.items() {
        let mut fields = item.fields();
        let (path, amount) = (fields.take("path"), fields.take(key));
        fields.finish(&[]);
        match (path, amount) {
            (Some(path), Some(amount)) => {
                let path = path.text().map(str::to_owned);
                found.extend(path.zip(value(&amount)));
            }
            _ => item.refuse(format!("needs path and {key}")),
        }
    }
    found
}
