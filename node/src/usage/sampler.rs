//! Measures at an interval.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use vc_protocol::NodeId;
use vc_protocol::control::UsageRow;
use vc_runtime::Runtime;

use super::Usages;
use super::series::Series;
use crate::clock;

/// Time between two measurements without a request.
const IDLE_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two measurements while requests come.
const ACTIVE_INTERVAL: Duration = Duration::from_secs(2);
/// For how long a request makes the interval shorter.
const ATTENTION: Duration = Duration::from_secs(15);

/// Measures what the instances of this node use. [`run`](Self::run) it as a task.
pub(crate) struct Sampler {
    node: NodeId,
    runtime: Runtime,
    latest: watch::Sender<Arc<Vec<UsageRow>>>,
    asked: watch::Receiver<Option<Instant>>,
}

impl Sampler {
    /// A sampler of these values.
    pub(crate) fn new(usages: &Usages, runtime: Runtime) -> Self {
        let (latest, asked) = (usages.latest.clone(), usages.asked.subscribe());
        Self { node: usages.node, runtime, latest, asked }
    }

    /// Runs until the handles of the values are dropped. Instances that cannot be measured have no values.
    pub(crate) async fn run(mut self) {
        let mut series = Series::default();
        loop {
            let began = Instant::now();
            let measured = self.runtime.usage().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "cannot measure what instances use");
                Vec::new()
            });
            let rows = series.update(self.node, measured, clock::now());
            self.latest.send_replace(Arc::new(rows));
            loop {
                let asked = *self.asked.borrow_and_update();
                let is_active = asked.is_some_and(|at| at.elapsed() < ATTENTION);
                let interval = if is_active { ACTIVE_INTERVAL } else { IDLE_INTERVAL };
                tokio::select! {
                    () = sleep_until(began + interval) => break,
                    changed = self.asked.changed() => if changed.is_err() {
                        return;
                    },
                }
            }
        }
    }
}
