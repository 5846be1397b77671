//! Nodes with equal version vectors have byte-identical plans, at any time.

use std::collections::BTreeMap;

use vc_crdt::View;

use crate::check::{Check, Violation};

/// The plan of every version vector that a node has had, by fingerprint: the first node with it, the digest of its
/// placement input, and its plan as JSON.
#[derive(Default)]
pub struct PlanRecorder(BTreeMap<u64, (usize, String, String)>);

impl PlanRecorder {
    /// Records the plan of a node's view. Errors: another node had a different plan with the same version vector.
    pub fn record(&mut self, index: usize, fingerprint: u64, view: &View) -> Check {
        let plan = serde_json::to_string(&view.plan).expect("plain data");
        let digest = view.input.digest();
        let known =
            self.0.entry(fingerprint).or_insert_with(|| (index, digest.clone(), plan.clone()));
        if known.1 != digest || known.2 != plan {
            return Err(Violation(format!(
                "equal versions, different plans: m{} had {} {}, m{index} has {digest} {plan}",
                known.0, known.1, known.2
            )));
        }
        Ok(())
    }
}
