//! What is counted and measured about the copies of this node. A series is there only while the node has the copy.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, EncodeLabelValue, EncodeMetric as _,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::watch;
use vc_engine::WallClocks;
use vc_engine::report::{CopyStatus, copies};
use vc_protocol::{Millis, NodeId, VolumeKey};

use crate::clock;
use crate::disk::Space;
use crate::snapshot::Snapshot;

/// How often the disk of the store is looked at.
const DISK_INTERVAL: Duration = Duration::from_secs(10);
/// Bounds of the pauses of instances, in seconds.
const PAUSES: [f64; 9] = [0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
/// Bounds of the time that a snapshot takes, in seconds.
const SNAPSHOTS: [f64; 9] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VolumeLabels {
    project: String,
    volume: String,
}

impl VolumeLabels {
    fn of(key: &VolumeKey) -> Self {
        Self { project: key.project.to_string(), volume: key.volume.to_string() }
    }
}

/// What is tried again when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// The primary takes a snapshot.
    Snapshot,
    /// A snapshot is got from another node.
    Transfer,
    /// The working directory of a replica is made equal to its newest snapshot.
    Follow,
}

impl Operation {
    const ALL: [Self; 3] = [Self::Snapshot, Self::Transfer, Self::Follow];
}

impl EncodeLabelValue for Operation {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let name = match self {
            Self::Snapshot => "snapshot",
            Self::Transfer => "transfer",
            Self::Follow => "follow",
        };
        name.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    project: String,
    volume: String,
    operation: Operation,
}

impl FailureLabels {
    fn of(key: &VolumeKey, operation: Operation) -> Self {
        let VolumeLabels { project, volume } = VolumeLabels::of(key);
        Self { project, volume, operation }
    }
}

/// The bytes of a volume that go from and to other nodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: Counter,
    pub(crate) received: Counter,
}

type OfVolume<M> = Family<VolumeLabels, M>;

/// What is counted about the copies of this node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct VolumeMetrics {
    failures: Family<FailureLabels, Counter>,
    sent: OfVolume<Counter>,
    received: OfVolume<Counter>,
    pauses: Family<VolumeLabels, Histogram, fn() -> Histogram>,
    taken: Family<VolumeLabels, Histogram, fn() -> Histogram>,
    snapshots: OfVolume<Gauge>,
    free: Gauge<u64, std::sync::atomic::AtomicU64>,
    size: Gauge<u64, std::sync::atomic::AtomicU64>,
}

impl VolumeMetrics {
    pub(super) fn new() -> Self {
        Self {
            failures: Family::default(),
            sent: Family::default(),
            received: Family::default(),
            pauses: Family::new_with_constructor(|| Histogram::new(PAUSES)),
            taken: Family::new_with_constructor(|| Histogram::new(SNAPSHOTS)),
            snapshots: Family::default(),
            free: Gauge::default(),
            size: Gauge::default(),
        }
    }

    /// Makes all this part of what the node serves, with what `node` says of its copies in its document.
    pub(crate) fn register(
        &self,
        node: NodeId,
        snapshot: watch::Receiver<Snapshot>,
        registry: &mut Registry,
    ) {
        let read = move || {
            let Snapshot { view, vitals, .. } = snapshot.borrow().clone();
            let now = clock::now();
            (copies(&view, node, WallClocks { now, vitals: &vitals }), now)
        };
        self.register_with(Copies(Box::new(read)), registry);
    }

    fn register_with(&self, copies: Copies, registry: &mut Registry) {
        registry.register_collector(Box::new(copies));
        registry.register(
            "volume_snapshots",
            "Snapshots of the volume that this node keeps",
            self.snapshots.clone(),
        );
        registry.register(
            "volume_failures",
            "Failures of snapshots, of transfers from other nodes, and to bring a replica up to date; each is tried again",
            self.failures.clone(),
        );
        let (sent, received) = (self.sent.clone(), self.received.clone());
        let help = "Bytes of the volume sent to other nodes";
        registry.register_with_unit("volume_sent", help, Unit::Bytes, sent);
        let help = "Bytes of the volume received from other nodes";
        registry.register_with_unit("volume_received", help, Unit::Bytes, received);
        let help = "Time for which the instances were paused for a snapshot";
        registry.register_with_unit("volume_pause", help, Unit::Seconds, self.pauses.clone());
        let help = "Time that a snapshot took, without those that found nothing new";
        let taken = self.taken.clone();
        registry.register_with_unit("volume_snapshot_duration", help, Unit::Seconds, taken);
        let help = "Free space on the disk of the copies of volumes";
        registry.register_with_unit("volume_store_free", help, Unit::Bytes, self.free.clone());
        let help = "Size of the disk of the copies of volumes";
        registry.register_with_unit("volume_store_size", help, Unit::Bytes, self.size.clone());
    }

    /// Counts a snapshot, with how long it took and for how long the instances were paused.
    pub(crate) fn taken(&self, volume: &VolumeKey, duration: Duration, paused: Duration) {
        let labels = VolumeLabels::of(volume);
        self.taken.get_or_create(&labels).observe(duration.as_secs_f64());
        self.pauses.get_or_create(&labels).observe(paused.as_secs_f64());
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, volume: &VolumeKey, operation: Operation) {
        self.failures.get_or_create(&FailureLabels::of(volume, operation)).inc();
    }

    /// Says how many snapshots there are.
    pub(crate) fn set_snapshots(&self, volume: &VolumeKey, snapshots: usize) {
        let snapshots = i64::try_from(snapshots).unwrap_or(i64::MAX);
        self.snapshots.get_or_create(&VolumeLabels::of(volume)).set(snapshots);
    }

    /// Returns the counters of the bytes of a volume.
    pub(crate) fn traffic(&self, volume: &VolumeKey) -> Traffic {
        let labels = VolumeLabels::of(volume);
        let of = |family: &OfVolume<Counter>| family.get_or_create_owned(&labels);
        Traffic { sent: of(&self.sent), received: of(&self.received) }
    }

    /// Drops the series of a copy that is not there any more.
    pub(super) fn forget(&self, volume: &VolumeKey) {
        let labels = VolumeLabels::of(volume);
        for operation in Operation::ALL {
            self.failures.remove(&FailureLabels::of(volume, operation));
        }
        self.sent.remove(&labels);
        self.received.remove(&labels);
        self.pauses.remove(&labels);
        self.taken.remove(&labels);
        self.snapshots.remove(&labels);
    }
}

/// Measures the disk of the copies, for ever.
pub(super) async fn watch_disk(dir: PathBuf, metrics: VolumeMetrics) {
    loop {
        let at = dir.clone();
        // A file system may hang.
        let space = tokio::task::spawn_blocking(move || Space::of(&at)).await;
        if let Ok(Ok(space)) = space {
            metrics.free.set(space.free);
            metrics.size.set(space.total);
        }
        tokio::time::sleep(DISK_INTERVAL).await;
    }
}

/// Reads the copies of this node, and the time.
type ReadCopies = dyn Fn() -> (Vec<CopyStatus>, Millis) + Send + Sync;

/// Writes what the node says of its copies.
struct Copies(Box<ReadCopies>);

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Copies")
    }
}

impl Collector for Copies {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (copies, now) = (self.0)();
        let seconds = |millis: Millis| Duration::from_millis(millis).as_secs_f64();
        let mut gauges = Gauges { encoder: &mut encoder, copies: &copies };
        let help = "1 where the services of the volume write it, 0 at a replica";
        gauges.write("primary", help, None, |it| Some(u64::from(it.primary)))?;
        let help = "Of how much time the writes are missing from the newest snapshot here, at most";
        gauges.write("lag", help, Some(&Unit::Seconds), |it| it.lag_ms.map(seconds))?;
        let help = "Age of the newest snapshot here; no more are taken while nothing is written";
        gauges.write("snapshot_age", help, Some(&Unit::Seconds), |it| {
            it.copy.snapshot.map(|_| seconds(now.saturating_sub(it.copy.taken)))
        })?;
        let help = "Size of the files of the volume, as of the newest snapshot here";
        gauges.write("size", help, Some(&Unit::Bytes), |it| Some(it.copy.bytes))?;
        let help = "Contents kept aside here, because another node's writes have replaced them";
        gauges.write("conflicts", help, None, |it| Some(u64::from(it.copy.conflicts)))?;
        let help = "1 while the copy cannot be brought up to date";
        gauges.write("failing", help, None, |it| Some(u64::from(it.copy.error.is_some())))
    }
}

/// Writes gauges with a value for each copy.
struct Gauges<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
    copies: &'a [CopyStatus],
}

impl Gauges<'_, '_> {
    fn write<N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        value: impl Fn(&CopyStatus) -> Option<N>,
    ) -> Result<(), fmt::Error> {
        let name = format!("volume_{name}");
        let kind = MetricType::Gauge;
        let mut family = self.encoder.encode_descriptor(&name, help, unit, kind)?;
        for copy in self.copies {
            if let Some(value) = value(copy) {
                let labels = VolumeLabels::of(&copy.volume);
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::volume::{SnapshotId, VolumeCopy};

    use super::*;
    use crate::metrics;

    fn status(volume: &str, primary: bool, copy: VolumeCopy, lag_ms: Option<Millis>) -> CopyStatus {
        CopyStatus { volume: volume.parse().expect("a volume"), primary, copy, lag_ms }
    }

    #[test]
    fn every_copy_has_its_series_until_it_is_gone() {
        let db: VolumeKey = "shop/data".parse().expect("a volume");
        let copy = VolumeCopy {
            snapshot: Some(SnapshotId { epoch: 3, number: 7 }),
            taken: 1000,
            bytes: 4096,
            conflicts: 1,
            ..VolumeCopy::default()
        };
        let failing = VolumeCopy { error: Some("full".to_owned()), ..VolumeCopy::default() };
        let read = move || {
            let web = status("shop/files", false, failing.clone(), None);
            (vec![status("shop/data", true, copy.clone(), Some(2500)), web], 5000)
        };
        let mut registry = Registry::with_prefix("vc");
        let counted = VolumeMetrics::new();
        counted.register_with(Copies(Box::new(read)), &mut registry);
        counted.taken(&db, Duration::from_millis(400), Duration::from_millis(40));
        counted.failed(&db, Operation::Transfer);
        counted.set_snapshots(&db, 5);
        counted.traffic(&db).sent.inc_by(100);
        counted.traffic(&db).sent.inc_by(23);
        counted.free.set(1 << 30);
        let text = metrics::text(std::slice::from_ref(&registry));
        for line in [
            r#"vc_volume_primary{project="shop",volume="data"} 1"#,
            r#"vc_volume_primary{project="shop",volume="files"} 0"#,
            r#"vc_volume_lag_seconds{project="shop",volume="data"} 2.5"#,
            r#"vc_volume_snapshot_age_seconds{project="shop",volume="data"} 4.0"#,
            r#"vc_volume_size_bytes{project="shop",volume="data"} 4096"#,
            r#"vc_volume_conflicts{project="shop",volume="data"} 1"#,
            r#"vc_volume_failing{project="shop",volume="files"} 1"#,
            r#"vc_volume_snapshots{project="shop",volume="data"} 5"#,
            r#"vc_volume_failures_total{project="shop",volume="data",operation="transfer"} 1"#,
            r#"vc_volume_sent_bytes_total{project="shop",volume="data"} 123"#,
            r#"vc_volume_received_bytes_total{project="shop",volume="data"} 0"#,
            r#"vc_volume_pause_seconds_bucket{le="0.03",project="shop",volume="data"} 0"#,
            r#"vc_volume_pause_seconds_bucket{le="0.05",project="shop",volume="data"} 1"#,
            r#"vc_volume_snapshot_duration_seconds_sum{project="shop",volume="data"} 0.4"#,
            "vc_volume_store_free_bytes 1073741824",
            "# UNIT vc_volume_lag_seconds seconds",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains(r#"lag_seconds{project="shop",volume="files"}"#), "it has none");
        assert!(text.ends_with("# EOF\n"));

        counted.forget(&db);
        let text = metrics::text(std::slice::from_ref(&registry));
        let left = text.lines().filter(|it| it.contains(r#"volume="data""#));
        let of_document = ["primary", "lag", "snapshot_age", "size", "conflicts", "failing"];
        assert_eq!(left.count(), of_document.len(), "what was counted is gone:\n{text}");
    }
}
