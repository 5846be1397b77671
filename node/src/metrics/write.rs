//! Writing metrics whose values are read when they are scraped.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeMetric as _, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Writes a gauge with the values of a series of labels; without any, nothing.
pub(super) fn write<L: EncodeLabelSet, N: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (L, N)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Writes a gauge without labels.
pub(super) fn write_one<N: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: N,
) -> Result<(), fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

/// Writes a counter with the values of a series of labels. `_total` is added to the name.
pub(super) fn count<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    values: impl IntoIterator<Item = (L, f64)>,
) -> Result<(), fmt::Error> {
    let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
    for (labels, value) in values {
        encode_count(family.encode_family(&labels)?, value)?;
    }
    Ok(())
}

/// Writes a counter without labels.
pub(super) fn count_one(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    value: f64,
) -> Result<(), fmt::Error> {
    encode_count(encoder.encode_descriptor(name, help, unit, MetricType::Counter)?, value)
}

fn encode_count(encoder: MetricEncoder<'_>, value: f64) -> Result<(), fmt::Error> {
    ConstCounter::new(value).encode(encoder)
}

/// Returns an integer as a metric has it.
#[expect(clippy::cast_precision_loss, reason = "a metric")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}
