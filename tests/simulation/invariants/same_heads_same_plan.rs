//! Nodes with equal version vectors have byte-identical plans, at every moment.

use crate::invariants::Violation;
use std::collections::BTreeMap;

use vc_crdt::View;

use super::Check;

/// The plan of every version vector that any node ever had.
#[derive(Default)]
pub(crate) struct PlanRecorder(BTreeMap<u64, (usize, String, String)>);

impl PlanRecorder {
    /// A node with this fingerprint of its version vector has this view.
    pub(crate) fn record(&mut self, of: usize, fingerprint: u64, view: &View) -> Check {
        let plan = serde_json::to_string(&view.plan).expect("plain data");
        let digest = view.input.digest();
        let known = self.0.entry(fingerprint).or_insert_with(|| (of, digest.clone(), plan.clone()));
        if known.1 != digest || known.2 != plan {
            return Err(Violation(format!(
                "same heads, other plan: m{} had {} {}, m{of} has {digest} {plan}",
                known.0, known.1, known.2
            )));
        }
        Ok(())
    }
}
