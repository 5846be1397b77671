//! Waits until instances have left their node, and those that were ordered to move run elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use vc_client::text::one_line;
use vc_client::{Session, expect_reply};
use vc_protocol::control::{InstanceRow, Request, ServiceRow};
use vc_protocol::instance::InstanceState;
use vc_protocol::{NodeId, Slot};

use super::progress::{Condition, Progress, Status, describe_state, on_node, slot};
use crate::error::Result;

/// Is met when all instances that can move have left their node; single slots, when they run elsewhere, too.
pub(in crate::cmd) struct Departure {
    from: Origin,
    /// The slots that are, or were when the wait began, on the node.
    slots: BTreeSet<Slot>,
    /// Those whose move the node has confirmed.
    ordered: BTreeSet<Slot>,
    /// The instances that cannot move, with the reason.
    pub(in crate::cmd) stays: Vec<InstanceRow>,
    /// For how long no instance of a slot ran, as seen from here: since when, and for how long once one does.
    down: BTreeMap<Slot, (Instant, Option<Duration>)>,
}

/// The node that instances leave.
enum Origin {
    /// All instances of this node leave it.
    Node(NodeId),
    /// Each of these slots leaves the given node.
    Slots(BTreeMap<Slot, NodeId>),
}

impl Departure {
    /// Returns the condition that all instances have left a node.
    pub(in crate::cmd) fn from_node(node: NodeId) -> Self {
        Self::new(Origin::Node(node), BTreeSet::new())
    }

    /// Returns the condition that each slot has left the given node.
    pub(in crate::cmd) fn of_slots(slots: BTreeMap<Slot, NodeId>) -> Self {
        let all = slots.keys().cloned().collect();
        Self::new(Origin::Slots(slots), all)
    }

    fn new(from: Origin, slots: BTreeSet<Slot>) -> Self {
        let (ordered, stays, down) = (BTreeSet::new(), Vec::new(), BTreeMap::new());
        Self { from, slots, ordered, stays, down }
    }

    /// Returns for how long each slot that moved had no running instance.
    pub(in crate::cmd) fn downtimes(&self) -> impl Iterator<Item = (&Slot, Duration)> {
        self.down.iter().filter_map(|(slot, (_, duration))| Some((slot, (*duration)?)))
    }

    /// Notes which slots have a running instance at `now`.
    fn observe(&mut self, rows: &[InstanceRow], now: Instant) {
        for slot in &self.slots {
            let runs = rows.iter().any(|row| self::slot(row) == *slot && row.state.is_running());
            match self.down.get_mut(slot) {
                None if !runs => drop(self.down.insert(slot.clone(), (now, None))),
                Some((since, duration @ None)) if runs => *duration = Some(now - *since),
                _ => {}
            }
        }
    }

    /// Returns what a slot that has left its node waits for until it runs elsewhere.
    fn arriving(&self, slot: &Slot, rows: &[InstanceRow]) -> Option<String> {
        let Origin::Slots(_) = self.from else { return None };
        let mut of_slot = rows.iter().filter(|row| self::slot(row) == *slot && row.current);
        let row = of_slot.next()?;
        let waits = !row.state.is_running() && !row.terminal;
        waits.then(|| format!("{slot} is {}{}", describe_state(row), on_node(row)))
    }

    fn is_there(&self, row: &InstanceRow) -> bool {
        // What has ended stays where it is.
        !row.ended
            && row.node.is_some_and(|node| match &self.from {
                Origin::Node(from) => *from == node,
                Origin::Slots(slots) => slots.get(&slot(row)) == Some(&node),
            })
    }

    /// Returns why an instance will not move; `None` when it will.
    fn reason_to_stay(&mut self, row: &InstanceRow, all: &[InstanceRow]) -> Option<String> {
        if row.state == InstanceState::Stopping {
            return None;
        }
        let slot = slot(row);
        if !row.current {
            self.ordered.insert(slot.clone());
        } else if self.ordered.contains(&slot) {
            return Some("the plan places it there again".to_owned());
        }
        let refused = all.iter().find(|it| it.node.is_none() && self::slot(it) == slot);
        refused.map(|it| it.reason.clone())
    }
}

impl Condition for Departure {
    fn evaluate(&mut self, _: Vec<ServiceRow>, rows: Vec<InstanceRow>) -> Progress {
        self.observe(&rows, Instant::now());
        let there: Vec<&InstanceRow> = rows.iter().filter(|row| self.is_there(row)).collect();
        self.slots.extend(there.iter().map(|row| slot(row)));
        self.stays.clear();
        let mut remains = BTreeMap::new();
        let mut missing = Vec::new();
        for row in there {
            let text = match self.reason_to_stay(row, &rows) {
                Some(reason) => {
                    self.stays.push(InstanceRow { reason, ..row.clone() });
                    format!("{} stays{}", slot(row), on_node(row))
                }
                None => {
                    let text = describe_leaving(row, &rows);
                    missing.push(text.clone());
                    text
                }
            };
            remains.insert(slot(row), text);
        }
        for slot in &self.slots {
            if !remains.contains_key(slot)
                && let Some(text) = self.arriving(slot, &rows)
            {
                missing.push(text.clone());
                remains.insert(slot.clone(), text);
            }
        }
        let count = format!("{} of {} moved", self.slots.len() - remains.len(), self.slots.len());
        let elsewhere = |slot: &Slot| {
            let mut rows = rows.iter().filter(|row| self::slot(row) == *slot && row.current);
            rows.next().map_or_else(
                || format!("{slot} is removed"),
                |row| format!("{slot} is {}{}", describe_state(row), on_node(row)),
            )
        };
        let text = |slot: &Slot| remains.remove(slot).unwrap_or_else(|| elsewhere(slot));
        let states = self.slots.iter().cloned().zip(self.slots.iter().map(text)).collect();
        let status = if missing.is_empty() { Status::Done } else { Status::Wait };
        Progress { count, missing, states, status }
    }
}

/// Describes what an instance that leaves is waiting for.
fn describe_leaving(row: &InstanceRow, all: &[InstanceRow]) -> String {
    let slot = slot(row);
    if row.state == InstanceState::Stopping {
        return format!("{slot} is stopping{}", on_node(row));
    }
    let taker =
        all.iter().find(|it| self::slot(it) == slot && it.node.is_some() && it.node != row.node);
    match taker {
        Some(taker) => {
            let name = one_line(taker.node_name.as_deref().unwrap_or_default());
            format!("{slot} waits for {name}, where it is {}", describe_state(taker))
        }
        None => {
            format!("{slot} leaves {}", one_line(row.node_name.as_deref().unwrap_or_default()))
        }
    }
}

/// Sets the reason of rows that stay: the volume data on their node, else why each other node cannot run them.
pub(in crate::cmd) async fn explain(session: &mut Session, stays: &mut [InstanceRow]) -> Result {
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
        // Its own node is infeasible only because it is being drained.
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

    fn evaluate(condition: &mut Departure, rows: Vec<InstanceRow>) -> (String, Vec<String>, bool) {
        let Progress { count, missing, status, .. } = condition.evaluate(Vec::new(), rows);
        (count, missing, matches!(status, Status::Done))
    }

    fn node() -> NodeId {
        row(WEB, 1, Some(1), Running, true).node.expect("named")
    }

    #[test]
    fn a_node_is_empty_when_only_instances_that_cannot_move_remain() {
        let mut condition = Departure::from_node(node());
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
        let (count, missing, done) = evaluate(&mut condition, first.clone());
        assert_eq!(count, "0 of 3 moved", "what runs elsewhere is not counted");
        let expected =
            ["shop/web.1 leaves n1", "shop/web.2 waits for n2, where it is pulling (40%)"];
        assert_eq!((missing.as_slice(), done), (&expected.map(str::to_owned)[..], false));

        let stopping = vec![row(WEB, 2, Some(1), Stopping, false), first[5].clone()];
        let (count, missing, done) = evaluate(&mut condition, stopping);
        assert_eq!((count.as_str(), done), ("1 of 3 moved", false));
        assert!(missing.contains(&"shop/web.2 is stopping on n1".to_owned()), "{missing:?}");

        let (count, missing, done) = evaluate(&mut condition, first[4..].to_vec());
        assert_eq!((count.as_str(), missing.len(), done), ("2 of 3 moved", 0, true));
        assert_eq!(condition.stays.len(), 1, "no other can take it: {:?}", condition.stays);
    }

    #[test]
    fn an_instance_that_is_placed_there_again_is_not_waited_for() {
        let mut condition = Departure::from_node(node());
        let rows = |current| vec![row(WEB, 1, Some(1), Running, current)];
        assert!(!evaluate(&mut condition, rows(true)).2, "the node may not know of the drain yet");
        assert!(!evaluate(&mut condition, rows(false)).2);
        assert!(evaluate(&mut condition, rows(true)).2);
        assert_eq!(condition.stays[0].reason, "the plan places it there again");
    }

    #[test]
    fn moves_are_done_when_each_slot_runs_elsewhere() {
        let slot = Slot { service: WEB.parse().expect("a service"), replica: 2 };
        let mut condition = Departure::of_slots(BTreeMap::from([(slot, node())]));
        let others = row(WEB, 1, Some(1), Running, true);
        let (count, _, done) =
            evaluate(&mut condition, vec![others.clone(), row(WEB, 2, Some(1), Running, false)]);
        assert_eq!((count.as_str(), done), ("0 of 1 moved", false));
        let arriving = vec![others.clone(), row(WEB, 2, Some(2), Pulling, true)];
        let (count, missing, done) = evaluate(&mut condition, arriving);
        assert_eq!((count.as_str(), done), ("0 of 1 moved", false));
        assert_eq!(
            (missing, condition.downtimes().count()),
            (vec!["shop/web.2 is pulling on n2".to_owned()], 0)
        );
        let (count, _, done) =
            evaluate(&mut condition, vec![others, row(WEB, 2, Some(2), Running, true)]);
        assert_eq!((count.as_str(), done), ("1 of 1 moved", true));
        assert_eq!(condition.downtimes().count(), 1);
    }
}
