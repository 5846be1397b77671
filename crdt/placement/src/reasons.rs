//! Why a slot is where it is, in words. The comparison is the same for a slot that was just placed and for one that is
//! claimed: as if it alone were placed now, with everything else where the plan has it.

use crate::ledger::Account;
use crate::order::Demand;
use crate::score::{Cost, cost, left};

/// The first reason of a slot that is claimed.
pub(crate) const KEEPS: &str = "keeps its place";

/// Compares the node of a slot with the others that could take it.
///
/// `replicas`: how many other replicas of the service the node has. `others`: what one more replica would cost each
/// node, `None` where it does not fit; the entry of the node itself is not looked at.
pub(crate) fn compare(
    demand: &Demand<'_>,
    accounts: &[Account<'_>],
    node: usize,
    replicas: u32,
    others: &[Option<Cost>],
) -> Vec<String> {
    let here = cost(demand, &accounts[node], replicas);
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
            _ if other.fit > here.fit => looser += 1,
            _ => equal += 1,
        }
    }
    let could = 1 + better + fuller + looser + equal;
    if could == 1 {
        return vec![match accounts.len() {
            1 => "the only node".to_owned(),
            all => format!("the only one of {all} nodes that could take it"),
        }];
    }
    let mut reasons = Vec::new();
    if better > 0 {
        reasons.push(format!(
            "{} would suit it better, but nothing moves without need",
            nodes(better)
        ));
    } else {
        if fuller > 0 {
            reasons.push(format!("fewest replicas of {} ({replicas})", demand.key));
        }
        if looser > 0 && demand.reservation().is_zero() {
            reasons.push(format!("fewest instances ({})", here.fit));
        } else if looser > 0 {
            let (percent, dimension) = left(demand, &accounts[node], replicas, 100);
            reasons
                .push(format!("best fit: {percent}% of its {} left after it", dimension.as_str()));
        }
        if equal > 0 {
            reasons.push(format!("as good as {equal} other{}", if equal == 1 { "" } else { "s" }));
        }
    }
    reasons.push(format!("{could} of {} could take it", nodes(accounts.len())));
    reasons
}

fn nodes(count: usize) -> String {
    if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") }
}
