//! Nodes that are disconnected: when their slots go elsewhere, and which instance stays when they return. In the words of
//! Nomad's `disconnect` block (developer.hashicorp.com/nomad/docs/job-specification/disconnect).

use serde::{Deserialize, Serialize};

use super::is_default;
use crate::Millis;

/// What happens to the slots of a node that is down, or that does not reach the others. Rules of placement from version 4 on
/// read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisconnectPolicy {
    /// How long a node may be down before its slots go elsewhere.
    #[serde(default, skip_serializing_if = "is_default")]
    pub lost_after_ms: Millis,
    /// Whether the slots of a node that is down go elsewhere at all.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub replace: bool,
    /// The time after which a node that has not reached most of the servers stops its instances; `None` for never.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop_on_client_after_ms: Option<Millis>,
    /// Which of two instances of a slot stays when a node returns.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reconcile: Reconcile,
}

impl Default for DisconnectPolicy {
    fn default() -> Self {
        Self {
            lost_after_ms: 0,
            replace: true,
            stop_on_client_after_ms: None,
            reconcile: Reconcile::default(),
        }
    }
}

impl DisconnectPolicy {
    /// Returns whether a node that is down, and has been silent for this time, keeps its slots.
    pub fn keeps_slots(&self, silent_ms: Millis) -> bool {
        !self.replace || silent_ms < self.lost_after_ms
    }
}

/// Which of two instances of a slot stays when a node returns. One that runs precedes one that does not, and the version in
/// effect an earlier one, whatever is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reconcile {
    /// The one that was claimed first.
    #[default]
    KeepOriginal,
    /// The one that was claimed last.
    KeepReplacement,
    /// The one on the node that placement would choose now.
    BestScore,
    /// The one that has run longest without a restart.
    LongestRunning,
}

impl Reconcile {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::KeepOriginal, Self::KeepReplacement, Self::BestScore, Self::LongestRunning];

    /// Returns the word of specs and Compose files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepOriginal => "keep_original",
            Self::KeepReplacement => "keep_replacement",
            Self::BestScore => "best_score",
            Self::LongestRunning => "longest_running",
        }
    }
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_yes(replace: &bool) -> bool {
    *replace
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_differs_from_the_default_is_written() {
        let policy = DisconnectPolicy::default();
        assert_eq!(serde_json::to_value(&policy).expect("JSON"), json!({}));
        let all = json!({
            "lost_after_ms": 600_000, "replace": false, "stop_on_client_after_ms": 0, "reconcile": "best_score"
        });
        let policy: DisconnectPolicy = serde_json::from_value(all.clone()).expect("readable");
        assert_eq!(serde_json::to_value(&policy).expect("JSON"), all);
        for it in Reconcile::ALL {
            assert_eq!(serde_json::to_value(it).expect("JSON"), json!(it.as_str()));
        }
    }

    #[test]
    fn a_node_keeps_its_slots_until_it_is_lost() {
        let policy = DisconnectPolicy { lost_after_ms: 5000, ..DisconnectPolicy::default() };
        assert!(policy.keeps_slots(4999) && !policy.keeps_slots(5000));
        assert!(!DisconnectPolicy::default().keeps_slots(0));
        let never = DisconnectPolicy { replace: false, ..DisconnectPolicy::default() };
        assert!(never.keeps_slots(u64::MAX));
    }
}
