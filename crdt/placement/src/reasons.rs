//! Display reasons for placements. A new slot and a claimed one are compared in the same way: as if it alone were placed
//! now, with everything else where the plan has it.

use crate::allocation::NodeAllocation;
use crate::order::Service;
use crate::rules::Rules;
use crate::score::{Cost, Measure, cost, left_free};

/// The first reason of a slot that is claimed.
pub(crate) const KEEPS: &str = "keeps its node";
/// The reason of a slot of a service that has one for each node.
pub(crate) const PER_NODE: &str = "has one on each node that suits it";

/// Compares the node of a slot with the others that could take it.
///
/// `replicas` is the number of other replicas of the service on the node; `others` is the cost of one more replica on
/// each node, `None` where it does not fit. The entry of the node itself is ignored.
pub(crate) fn compare(
    rules: Rules,
    service: &Service<'_>,
    allocations: &[NodeAllocation<'_>],
    node: usize,
    replicas: u32,
    others: &[Option<Cost>],
) -> Vec<String> {
    let here = cost(rules, service, &allocations[node], replicas);
    let (mut better, mut fuller, mut looser, mut equal) = (0_usize, 0_usize, 0_usize, 0_usize);
    for other in others
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != node)
        .filter_map(|(_, cost)| *cost)
    {
        match other {
            _ if other < here => better += 1,
            _ if other.replicas > here.replicas => fuller += 1,
            _ if other > here => looser += 1,
            _ => equal += 1,
        }
    }
    let could = 1 + better + fuller + looser + equal;
    if could == 1 {
        return vec![match allocations.len() {
            1 => "the only node".to_owned(),
            all => format!("the only feasible one of {all} nodes"),
        }];
    }
    let mut reasons = Vec::new();
    if better > 0 {
        reasons.push(format!(
            "{} would be a better fit, but running instances are not moved",
            nodes(better)
        ));
    } else {
        if fuller > 0 {
            reasons.push(format!("fewest replicas of {} ({replicas})", service.key));
        }
        if looser > 0 {
            reasons.push(match here.measure {
                Measure::Instances => format!("fewest instances ({})", here.value),
                Measure::Small => {
                    format!("spread: small services reserve {} of it", percent(here.value))
                }
                Measure::Load => format!("least loaded: {} of it reserved", percent(here.value)),
                Measure::LeftFree => {
                    let (left, dimension) = left_free(service, &allocations[node], replicas, 100);
                    format!("best fit: {left}% of its {} left free", dimension.as_str())
                }
            });
        }
        if equal > 0 {
            reasons.push(format!("equal to {equal} other{}", if equal == 1 { "" } else { "s" }));
        }
    }
    reasons.push(format!("{could} of {} feasible", nodes(allocations.len())));
    reasons
}

/// Writes parts per million as a percentage with one decimal.
fn percent(parts: u64) -> String {
    format!("{}.{}%", parts / 10_000, parts % 10_000 / 1000)
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}
