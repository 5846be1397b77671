//! Why a slot is where it is, in words. The comparison is the same for a slot that was just placed and for one that is
//! claimed: as if it alone were placed now, with everything else where the plan has it.

use crate::ledger::Account;
use crate::order::Demand;
use crate::score::{Cost, cost, left};

/// The first reason of a slot that is claimed.
pub(crate) const KEEPS: &str = "keeps its place";

/// Compares the machine of a slot with the others that could take it.
///
/// `replicas`: how many other replicas of the service the machine has. `others`: what one more replica would cost each
/// machine, `None` where it does not fit; the entry of the machine itself is not looked at.
pub(crate) fn compare(
    demand: &Demand<'_>,
    accounts: &[Account<'_>],
    machine: usize,
    replicas: u32,
    others: &[Option<Cost>],
) -> Vec<String> {
    let here = cost(demand, &accounts[machine], replicas);
    let (mut better, mut fuller, mut looser, mut equal) = (0_usize, 0_usize, 0_usize, 0_usize);
    for other in others
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != machine)
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
            1 => "the only machine".to_owned(),
            all => format!("the only one of {all} machines that could take it"),
        }];
    }
    let mut reasons = Vec::new();
    if better > 0 {
        reasons.push(format!(
            "{} would suit it better, but nothing moves without need",
            machines(better)
        ));
    } else {
        if fuller > 0 {
            reasons.push(format!("fewest replicas of {} ({replicas})", demand.key));
        }
        if looser > 0 && demand.reservation().is_zero() {
            reasons.push(format!("fewest instances ({})", here.fit));
        } else if looser > 0 {
            let (percent, dimension) = left(demand, &accounts[machine], replicas, 100);
            reasons
                .push(format!("best fit: {percent}% of its {} left after it", dimension.as_str()));
        }
        if equal > 0 {
            reasons.push(format!("as good as {equal} other{}", if equal == 1 { "" } else { "s" }));
        }
    }
    reasons.push(format!("{could} of {} could take it", machines(accounts.len())));
    reasons
}

fn machines(count: usize) -> String {
    if count == 1 { "1 machine".to_owned() } else { format!("{count} machines") }
}
