//! Says in words what a partition, and the death of a node, do to a service.

use vc_protocol::lease::LEASE_MS;
use vc_protocol::spec::{OnPartition, ServiceSpec};
use vc_protocol::{Millis, in_words};

/// Time from the end of a lease to the start of the next holder's instance, at most.
const HANDOVER: Millis = 2000;

/// Returns the behaviour of a service during a partition, said or by default.
pub(crate) fn behaviour(spec: &ServiceSpec) -> OnPartition {
    match spec.is_exclusive() {
        true => OnPartition::Exclusive,
        false => OnPartition::Available,
    }
}

/// Returns what the behaviour is: `exclusive: stops where it cannot reach most voters; starts elsewhere after at most 8 s`.
pub(crate) fn effect(spec: &ServiceSpec) -> String {
    let (behaviour, disconnect) = (behaviour(spec), &spec.disconnect);
    let what = match behaviour {
        OnPartition::Exclusive => "stops where it cannot reach most voters",
        OnPartition::Available => "each side of a partition runs it",
    };
    let elsewhere = match (disconnect.lost_after_ms, behaviour) {
        _ if !disconnect.replace => "; starts nowhere else while its node is only down".to_owned(),
        (0, OnPartition::Available) => String::new(),
        (0, OnPartition::Exclusive) => {
            format!("; starts elsewhere after at most {}", in_words(LEASE_MS + HANDOVER))
        }
        (time, _) => format!("; starts elsewhere once its node was down for {}", in_words(time)),
    };
    let mut text = format!("{}: {what}{elsewhere}", behaviour.as_str());
    if let Some(time) = disconnect.stop_on_client_after_ms {
        let time = in_words(time);
        text += &format!("; stops on a node that has not reached most servers for {time}");
    }
    text
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_effect_names_what_happens_where_and_when() {
        let effect = |on: &str, disconnect: serde_json::Value| {
            let spec = json!({"container": {"image": "web"}, "on_partition": on, "disconnect": disconnect});
            effect(&serde_json::from_value(spec).expect("a spec"))
        };
        assert_eq!(effect("available", json!({})), "available: each side of a partition runs it");
        assert_eq!(
            effect("exclusive", json!({})),
            "exclusive: stops where it cannot reach most voters; starts elsewhere after at most 8 s"
        );
        assert_eq!(
            effect("exclusive", json!({"replace": false})),
            "exclusive: stops where it cannot reach most voters; starts nowhere else while its node is only down"
        );
        assert_eq!(
            effect(
                "available",
                json!({"lost_after_ms": 600_000, "stop_on_client_after_ms": 90_000})
            ),
            "available: each side of a partition runs it; starts elsewhere once its node was down for 10 min; stops on a node \
             that has not reached most servers for 1 min 30 s"
        );
    }
}
