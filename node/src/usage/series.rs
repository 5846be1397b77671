//! Rates, as the differences between successive measurements.

use std::collections::BTreeMap;

use tokio::time::Instant;
use vc_protocol::control::UsageRow;
use vc_protocol::{InstanceId, Millis, NodeId};
use vc_runtime::InstanceUsage;

/// The last measurement of each instance.
#[derive(Debug, Default)]
pub(super) struct Series(BTreeMap<InstanceId, Last>);

#[derive(Debug)]
struct Last {
    started: Millis,
    at: Instant,
    cpu_ns: u64,
}

impl Series {
    /// Takes a measurement of all instances of a node, at `now`, and returns their rows. Counters of one run never go back.
    pub(super) fn update(
        &mut self,
        node: NodeId,
        measured: Vec<InstanceUsage>,
        now: Millis,
    ) -> Vec<UsageRow> {
        let mut next = BTreeMap::new();
        let mut rows = Vec::with_capacity(measured.len());
        for mut usage in measured {
            let last = self.0.remove(&usage.id).filter(|last| last.started == usage.started);
            if let Some(last) = &last {
                usage.cpu_ns = usage.cpu_ns.max(last.cpu_ns);
            }
            let cpu_millis = last.and_then(|last| rate(&last, &usage));
            let last = Last { started: usage.started, at: usage.at, cpu_ns: usage.cpu_ns };
            next.insert(usage.id.clone(), last);
            rows.push(row(node, usage, cpu_millis, now));
        }
        self.0 = next;
        rows
    }
}

/// Returns the CPU in use since a measurement, in thousandths of a core; `None` if no time has passed.
fn rate(last: &Last, usage: &InstanceUsage) -> Option<u64> {
    let elapsed = usage.at.saturating_duration_since(last.at).as_nanos();
    let used = u128::from(usage.cpu_ns.saturating_sub(last.cpu_ns));
    u64::try_from((used * 1000).checked_div(elapsed)?).ok()
}

fn row(node: NodeId, usage: InstanceUsage, cpu_millis: Option<u64>, now: Millis) -> UsageRow {
    UsageRow {
        service: usage.id.slot.service,
        replica: usage.id.slot.replica,
        node,
        node_name: String::new(),
        digest: usage.id.digest,
        container: usage.container,
        cpu_millis,
        cpu_limit_millis: usage.limits.cpu_millis,
        cpu_ms: usage.cpu_ns / 1_000_000,
        memory_bytes: usage.working_set_bytes,
        memory_total_bytes: usage.memory_bytes,
        memory_limit_bytes: usage.limits.memory_bytes,
        network_received_bytes: usage.network.map(|it| it.received),
        network_sent_bytes: usage.network.map(|it| it.sent),
        disk_read_bytes: usage.disk.map(|it| it.read),
        disk_written_bytes: usage.disk.map(|it| it.written),
        processes: usage.processes,
        started: usage.started,
        measured: now,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vc_protocol::Keypair;
    use vc_runtime::Limits;

    use super::*;

    #[test]
    fn cpu_in_use_is_what_was_used_since_the_last_measurement_of_the_same_run() {
        let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
        let node = NodeId::of(&key.public()).expect("ed25519");
        let start = Instant::now();
        let measured = |seconds: u64, started: Millis, cpu_ms: u64| InstanceUsage {
            id: InstanceId { slot: "shop/web.1".parse().expect("a slot"), digest: "0".to_owned() },
            container: String::new(),
            started,
            at: start + Duration::from_secs(seconds),
            cpu_ns: cpu_ms * 1_000_000,
            working_set_bytes: 1,
            memory_bytes: 2,
            limits: Limits::default(),
            network: None,
            disk: None,
            processes: 1,
        };
        let mut series = Series::default();
        let mut cpu = |usage: InstanceUsage| {
            let rows = series.update(node, vec![usage], 7);
            (rows[0].cpu_millis, rows[0].cpu_ms)
        };
        assert_eq!(cpu(measured(0, 10, 5000)), (None, 5000), "nothing to compare with");
        assert_eq!(cpu(measured(2, 10, 6000)), (Some(500), 6000), "half a core");
        assert_eq!(cpu(measured(2, 10, 6000)), (None, 6000), "no time has passed");
        assert_eq!(cpu(measured(4, 10, 4000)), (Some(0), 6000), "a process of it has ended");
        assert_eq!(cpu(measured(6, 50, 100)), (None, 100), "it was started again");
        assert_eq!(series.update(node, Vec::new(), 8), [], "it has ended");
        assert!(series.0.is_empty());
    }
}
