//! Gets the events that this node has missed from a server.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use vc_protocol::control::{EventRow, Reply};
use vc_protocol::event::EventQuery;
use vc_protocol::wire::EVENTS_PROTOCOL;
use vc_protocol::{Millis, NodeId};

use super::log::{EventLog, MAX_EVENTS};
use crate::member_request::{self, MemberError};
use crate::snapshot::Snapshot;

/// Time for a server to begin its answer, and between two events of it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to get them, and the pause between two.
const ROUNDS: usize = 20;
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
/// Longest text of an event from a server, in bytes.
const MAX_TEXT: usize = 4096;
/// How far apart in milliseconds two nodes may see the same event.
const TOLERANCE: Millis = 60_000;

/// Asks the servers.
pub(super) struct Backfill {
    /// This node.
    pub(super) node: NodeId,
    pub(super) snapshot: watch::Receiver<Snapshot>,
    pub(super) members: libp2p_stream::Control,
    /// Time of the last event that is known.
    pub(super) since: Option<Millis>,
}

impl Backfill {
    /// Returns the events of the first server that answers; nothing if none does in [`ROUNDS`] attempts, or there is no other.
    pub(super) async fn run(mut self) -> Vec<EventRow> {
        for _ in 0..ROUNDS {
            let own = self.node;
            let others =
                move |snapshot: &Snapshot| snapshot.view.up_servers().any(|server| server != own);
            if self.snapshot.wait_for(others).await.is_err() {
                break;
            }
            let servers: Vec<NodeId> = self.snapshot.borrow().view.up_servers().collect();
            for server in servers.into_iter().filter(|server| *server != own) {
                match self.ask(server).await {
                    Ok(rows) => return rows,
                    // It is not connected yet, or of a version without this protocol.
                    Err(error) => tracing::debug!(node = %server, %error, "no events of the past"),
                }
            }
            sleep(RETRY_INTERVAL).await;
        }
        Vec::new()
    }

    async fn ask(&self, server: NodeId) -> Result<Vec<EventRow>, MemberError> {
        let since = self.since.map(|since| since.saturating_sub(TOLERANCE));
        let query = EventQuery { since, ..EventQuery::default() };
        let members = self.members.clone();
        let (mut reply, mut frames) =
            member_request::request(members, server, EVENTS_PROTOCOL, &query, TIMEOUT).await?;
        let mut rows = Vec::new();
        loop {
            match reply {
                Reply::Event(row) => rows.push(row),
                Reply::End => break,
                _ => return Err(MemberError::Unexpected),
            }
            if rows.len() > MAX_EVENTS {
                return Err(MemberError::Unexpected);
            }
            reply = timeout(TIMEOUT, frames.receive())
                .await
                .map_err(|_| MemberError::TimedOut(TIMEOUT))??;
        }
        rows.retain(|row| row.text.len() <= MAX_TEXT);
        Ok(rows)
    }
}

/// Inserts events of a server after the first `before` of the log, which are from before the start. Events that both have seen
/// stay once: those before the start as this node has seen them, those after it, which the node has learnt from documents that
/// arrived late, with the time of the server. Returns the inserted events.
pub(super) fn merge(
    log: &watch::Sender<EventLog>,
    before: usize,
    mut rows: Vec<EventRow>,
) -> Vec<EventRow> {
    let mut own = log.borrow().rows();
    let later = own.split_off(before.min(own.len()));
    let from = rows.first().map_or(0, |row| row.time.saturating_sub(TOLERANCE));
    let mut known: Vec<EventRow> = own.iter().filter(|row| row.time >= from).cloned().collect();
    let at_once = |it: &EventRow, row: &EventRow| it.time.abs_diff(row.time) <= TOLERANCE;
    rows.retain(|row| !take(&mut known, |it| is_same(it, row) && at_once(it, row)));
    let mut missed = rows.clone();
    own.extend(rows);
    own.extend(later.into_iter().filter(|row| !is_repeated(row, &mut missed)));
    log.send_modify(|log| log.replace(own));
    missed
}

/// Returns whether an event is among those that were missed, and removes it from them.
pub(super) fn is_repeated(row: &EventRow, missed: &mut Vec<EventRow>) -> bool {
    take(missed, |it| is_same(it, row))
}

fn is_same(one: &EventRow, other: &EventRow) -> bool {
    (&one.subject, &one.text) == (&other.subject, &other.text)
}

/// Removes the first event that fits; returns whether there is one.
fn take(rows: &mut Vec<EventRow>, fits: impl Fn(&EventRow) -> bool) -> bool {
    let found = rows.iter().position(fits);
    found.map(|at| rows.remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use vc_protocol::control::EventLevel;

    use super::super::log::Events;
    use super::*;

    fn row(time: Millis, text: &str) -> EventRow {
        let (level, subject) = (EventLevel::Info, "n1".to_owned());
        EventRow { time, level, subject, text: text.to_owned() }
    }

    fn log(rows: Vec<EventRow>) -> watch::Sender<EventLog> {
        let (log, _) = Events::new();
        log.send_modify(|log| log.append(rows));
        log
    }

    #[test]
    fn missed_events_are_inserted_once_between_those_before_and_after_the_start() {
        let hour = 3_600_000;
        let before = vec![row(hour, "old"), row(2 * hour, "is down")];
        let after = [row(5 * hour, "deployed"), row(5 * hour + 1, "is up again")];
        let log = log([before, after.to_vec()].concat());
        // The first was seen here too, half a second earlier; the last was learnt late.
        let of_server = vec![
            row(2 * hour + 500, "is down"),
            row(3 * hour, "is down"),
            row(4 * hour, "deployed"),
        ];
        let mut missed = merge(&log, 2, of_server);
        let expected = [
            row(hour, "old"),
            row(2 * hour, "is down"),
            row(3 * hour, "is down"),
            row(4 * hour, "deployed"),
            row(5 * hour + 1, "is up again"),
        ];
        assert_eq!(log.borrow().rows(), expected);
        assert_eq!(missed, [row(3 * hour, "is down")]);
        // It is learnt once more from a document that arrives later.
        assert!(is_repeated(&row(5 * hour + 2, "is down"), &mut missed));
        assert!(!is_repeated(&row(5 * hour + 3, "is down"), &mut missed));
    }

    #[test]
    fn many_events_shortly_before_the_start_are_not_repeated() {
        let before: Vec<EventRow> =
            (0..1000).map(|n| row(100_000 + n, &format!("event {n}"))).collect();
        let of_server = before.iter().map(|it| row(it.time + 3, &it.text)).collect();
        let log = log(before.clone());
        assert_eq!(merge(&log, before.len(), of_server), []);
        assert_eq!(log.borrow().rows(), before);
    }

    #[test]
    fn what_the_first_view_had_already_comes_from_the_server_even_if_it_saw_it_later() {
        let log = log(vec![row(1, "is down"), row(6, "stopped")]);
        merge(&log, 1, vec![row(5, "is up again"), row(7, "stopped"), row(8, "deployed")]);
        let expected =
            [row(1, "is down"), row(5, "is up again"), row(7, "stopped"), row(8, "deployed")];
        assert_eq!(log.borrow().rows(), expected);
    }

    #[test]
    fn a_node_that_joins_gets_all_events() {
        let log = log(Vec::new());
        merge(&log, 0, vec![row(1, "a"), row(2, "a")]);
        assert_eq!(log.borrow().rows(), [row(1, "a"), row(2, "a")]);
    }
}
