//! Waiting until instances have left where they are to leave.

use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::control::{InstanceRow, Request, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::{NodeId, Slot};

use super::{Goal, Standing, Verdict, condition, place, slot};
use vc_client::text::one_line;
use vc_client::{Session, expect_reply};

/// Instances that are to leave, and those that cannot.
pub(in crate::cmd) struct Departure {
    from: Origin,
    /// The slots that were or are to leave.
    slots: BTreeSet<Slot>,
    /// Those among them that were seen on their way.
    ordered: BTreeSet<Slot>,
    /// What cannot leave, as it was seen last, with the reason why not.
    pub(in crate::cmd) stays: Vec<InstanceRow>,
}

/// From where.
enum Origin {
    /// Whatever is on this node.
    Node(NodeId),
    /// Each of these from one node.
    Slots(BTreeMap<Slot, NodeId>),
}

impl Departure {
    /// Everything leaves a node.
    pub(in crate::cmd) fn from_node(node: NodeId) -> Self {
        Self::new(Origin::Node(node), BTreeSet::new())
    }

    /// These leave the node that is named with each.
    pub(in crate::cmd) fn of_slots(slots: BTreeMap<Slot, NodeId>) -> Self {
        let all = slots.keys().cloned().collect();
        Self::new(Origin::Slots(slots), all)
    }

    fn new(from: Origin, slots: BTreeSet<Slot>) -> Self {
        Self { from, slots, ordered: BTreeSet::new(), stays: Vec::new() }
    }

    fn is_there(&self, row: &InstanceRow) -> bool {
        row.node.is_some_and(|node| match &self.from {
            Origin::Node(from) => *from == node,
            Origin::Slots(slots) => slots.get(&slot(row)) == Some(&node),
        })
    }

    /// Why an instance is not going to leave; `None`: it is.
    fn why_it_stays(&mut self, row: &InstanceRow, all: &[InstanceRow]) -> Option<String> {
        if row.state == InstanceState::Stopping {
            return None;
        }
        let slot = slot(row);
        if !row.current {
            self.ordered.insert(slot.clone());
        } else if self.ordered.contains(&slot) {
            return Some("it is wanted there again".to_owned());
        }
        let refused = all.iter().find(|it| it.node.is_none() && super::slot(it) == slot);
        refused.map(|it| it.reason.clone())
    }
}

impl Goal for Departure {
    fn look(&mut self, _: Vec<ServiceRow>, rows: Vec<InstanceRow>) -> Standing {
        let there: Vec<&InstanceRow> = rows.iter().filter(|row| self.is_there(row)).collect();
        self.slots.extend(there.iter().map(|row| slot(row)));
        self.stays.clear();
        let mut remains = BTreeMap::new();
        let mut missing = Vec::new();
        for row in there {
            let text = match self.why_it_stays(row, &rows) {
                Some(reason) => {
                    self.stays.push(InstanceRow { reason, ..row.clone() });
                    format!("{} stays{}", slot(row), place(row))
                }
                None => {
                    let text = leaves(row, &rows);
                    missing.push(text.clone());
                    text
                }
            };
            remains.insert(slot(row), text);
        }
        let count = format!("{} of {} moved", self.slots.len() - remains.len(), self.slots.len());
        let elsewhere = |slot: &Slot| {
            let mut rows = rows.iter().filter(|row| super::slot(row) == *slot && row.current);
            rows.next().map_or_else(
                || format!("{slot} is gone"),
                |row| format!("{slot} is {}{}", condition(row, false), place(row)),
            )
        };
        let text = |slot: &Slot| remains.remove(slot).unwrap_or_else(|| elsewhere(slot));
        let said = self.slots.iter().cloned().zip(self.slots.iter().map(text)).collect();
        let verdict = if missing.is_empty() { Verdict::Done } else { Verdict::Wait };
        Standing { count, missing, said, verdict }
    }
}

/// What an instance that leaves is waiting for.
fn leaves(row: &InstanceRow, all: &[InstanceRow]) -> String {
    let slot = slot(row);
    if row.state == InstanceState::Stopping {
        return format!("{slot} is stopping{}", place(row));
    }
    let taker =
        all.iter().find(|it| super::slot(it) == slot && it.node.is_some() && it.node != row.node);
    match taker {
        Some(taker) => {
            let name = one_line(taker.node_name.as_deref().unwrap_or_default());
            format!("{slot} waits for {name}, where it is {}", condition(taker, false))
        }
        None => {
            format!("{slot} is to leave {}", one_line(row.node_name.as_deref().unwrap_or_default()))
        }
    }
}

/// Says of rows that stay why they do, as far as the member knows: the data that is where they are, else what is wrong
/// with every other node.
pub(in crate::cmd) async fn explain(
    session: &mut Session,
    stays: &mut [InstanceRow],
) -> anyhow::Result<()> {
    let plan = session.ask(&Request::Plan { deployments: Vec::new() }).await?;
    let unplaced = expect_reply!(plan, Plan)?.unplaced;
    let volumes = expect_reply!(session.ask(&Request::Volumes).await?, Volumes)?;
    for row in stays {
        let is_it = |service, replica| row.service == service && row.replica == replica;
        let Some(refused) = unplaced.iter().find(|it| is_it(it.service.clone(), it.replica)) else {
            continue;
        };
        let name = row.node_name.clone().unwrap_or_default();
        let held: Vec<String> = volumes
            .iter()
            .filter(|it| Some(it.node) == row.node && it.services.contains(&row.service))
            .map(|it| it.volume.to_string())
            .collect();
        // What is wrong with the node that it is to leave is that it is to leave it.
        let own = format!("{name}: ");
        let others = refused.reasons.iter().filter(|reason| !reason.starts_with(&own));
        let others: Vec<String> = others.map(|reason| reason.replacen(": ", " ", 1)).collect();
        row.reason = match (held.as_slice(), others.as_slice()) {
            ([], []) => "there is no other node".to_owned(),
            ([], others) => others.join("; "),
            ([volume], _) => format!("{name} holds the data of volume {volume}"),
            (volumes, _) => format!("{name} holds the data of volumes {}", volumes.join(", ")),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::row;
    use super::*;
    use InstanceState::{Pending, Pulling, Running, Stopping};

    const WEB: &str = "shop/web";

    fn looked(goal: &mut Departure, rows: Vec<InstanceRow>) -> (String, Vec<String>, bool) {
        let Standing { count, missing, verdict, .. } = goal.look(Vec::new(), rows);
        (count, missing, matches!(verdict, Verdict::Done))
    }

    fn node() -> NodeId {
        row(WEB, 1, Some(1), Running, true).node.expect("named")
    }

    #[test]
    fn a_node_is_left_when_nothing_remains_that_can_go() {
        let mut goal = Departure::from_node(node());
        let mut pulling = row(WEB, 2, Some(2), Pulling, true);
        pulling.reason = "40%".to_owned();
        let first = vec![
            row(WEB, 1, Some(1), Running, false),
            row(WEB, 2, Some(1), Running, false),
            pulling,
            row(WEB, 3, Some(2), Running, true),
            row("shop/db", 1, None, Pending, true),
            row("shop/db", 1, Some(1), Running, false),
        ];
        let (count, missing, done) = looked(&mut goal, first.clone());
        assert_eq!(count, "0 of 3 moved", "what runs elsewhere is not counted");
        let expected =
            ["shop/web.1 is to leave n1", "shop/web.2 waits for n2, where it is pulling (40%)"];
        assert_eq!((missing.as_slice(), done), (&expected.map(str::to_owned)[..], false));

        let stopping = vec![row(WEB, 2, Some(1), Stopping, false), first[5].clone()];
        let (count, missing, done) = looked(&mut goal, stopping);
        assert_eq!((count.as_str(), done), ("1 of 3 moved", false));
        assert!(missing.contains(&"shop/web.2 is stopping on n1".to_owned()), "{missing:?}");

        let (count, missing, done) = looked(&mut goal, first[4..].to_vec());
        assert_eq!((count.as_str(), missing.len(), done), ("2 of 3 moved", 0, true));
        assert_eq!(goal.stays.len(), 1, "no other can take it: {:?}", goal.stays);
    }

    #[test]
    fn what_is_told_to_stay_after_all_is_not_waited_for() {
        let mut goal = Departure::from_node(node());
        let wanted = |current| vec![row(WEB, 1, Some(1), Running, current)];
        assert!(!looked(&mut goal, wanted(true)).2, "the member may not have heard yet");
        assert!(!looked(&mut goal, wanted(false)).2);
        assert!(looked(&mut goal, wanted(true)).2);
        assert_eq!(goal.stays[0].reason, "it is wanted there again");
    }

    #[test]
    fn ordered_moves_are_done_when_each_has_left_the_node_it_was_on() {
        let slot = Slot { service: WEB.parse().expect("a service"), replica: 2 };
        let mut goal = Departure::of_slots(BTreeMap::from([(slot, node())]));
        let others = row(WEB, 1, Some(1), Running, true);
        let (count, _, done) =
            looked(&mut goal, vec![others.clone(), row(WEB, 2, Some(1), Running, false)]);
        assert_eq!((count.as_str(), done), ("0 of 1 moved", false));
        let (count, _, done) = looked(&mut goal, vec![others, row(WEB, 2, Some(2), Running, true)]);
        assert_eq!((count.as_str(), done), ("1 of 1 moved", true));
    }
}
