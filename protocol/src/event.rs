//! Events of the cluster.
//!
//! Each node derives the events of all nodes from the documents and keeps them. What happened while it was not running it asks
//! a server for: over a stream of [`EVENTS_PROTOCOL`](crate::wire::EVENTS_PROTOCOL) it sends an [`EventQuery`] as a JSON
//! frame, and gets a [`Reply::Event`](crate::control::Reply::Event) for each, then [`Reply::End`](crate::control::Reply::End).

use serde::{Deserialize, Serialize};

use crate::Millis;
use crate::control::{EventLevel, EventRow};

/// Selects events.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventQuery {
    /// Whether to go on with the events to come.
    #[serde(default)]
    pub follow: bool,
    /// Only since this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// Only of this service and its instances: `web` or `shop/web`; of all services of a project: `shop/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only of the node with this name, and of what happened on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only of this level or above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<EventLevel>,
    /// Only the last of those that there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<usize>,
}

impl EventQuery {
    /// Returns whether the query selects an event, whatever its number from the end.
    pub fn selects(&self, row: &EventRow) -> bool {
        self.since.is_none_or(|since| row.time >= since)
            && self.level.is_none_or(|level| row.level >= level)
            && self.service.as_deref().is_none_or(|wanted| is_of_service(&row.subject, wanted))
            && self.node.as_deref().is_none_or(|node| is_of_node(row, node))
    }
}

/// Returns whether a subject, as `shop/web.2` or `shop/web`, is a service or an instance of it.
fn is_of_service(subject: &str, wanted: &str) -> bool {
    // A node's name has no slash.
    let Some((project, rest)) = subject.split_once('/') else { return false };
    let service = match rest.rsplit_once('.') {
        Some((service, replica)) if replica.bytes().all(|it| it.is_ascii_digit()) => service,
        _ => rest,
    };
    match wanted.split_once('/') {
        Some((wanted_project, "")) => project == wanted_project,
        Some((wanted_project, wanted)) => project == wanted_project && service == wanted,
        None => service == wanted,
    }
}

/// Returns whether an event is about a node, or its text names it.
fn is_of_node(row: &EventRow, node: &str) -> bool {
    let ends = [' ', ':', ',', ';', '(', ')'];
    row.subject == node || row.text.split(ends).any(|word| word == node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str, text: &str) -> EventRow {
        let (subject, text) = (subject.to_owned(), text.to_owned());
        EventRow { time: 10, level: EventLevel::Warning, subject, text }
    }

    #[test]
    fn events_are_selected_by_service_node_level_and_time() {
        let of_service = |service: &str| EventQuery {
            service: Some(service.to_owned()),
            ..EventQuery::default()
        };
        let instance = row("shop/web.2", "moves from attic to cellar");
        for wanted in ["web", "shop/web", "shop/"] {
            assert!(of_service(wanted).selects(&instance), "{wanted}");
            assert!(of_service(wanted).selects(&row("shop/web", "removed")), "{wanted}");
        }
        for other in ["we", "bank/web", "bank/", "shop/db", "2"] {
            assert!(!of_service(other).selects(&instance), "{other}");
        }
        assert!(!of_service("web").selects(&row("web", "a node's name")));

        let of_node =
            |node: &str| EventQuery { node: Some(node.to_owned()), ..EventQuery::default() };
        assert!(of_node("attic").selects(&instance) && of_node("cellar").selects(&instance));
        assert!(of_node("attic").selects(&row("attic", "is down")));
        assert!(of_node("attic").selects(&row("shop/web.1", "failed on attic: exit code 1")));
        assert!(!of_node("cell").selects(&instance));

        let level = |level| EventQuery { level: Some(level), ..EventQuery::default() };
        assert!(level(EventLevel::Warning).selects(&instance));
        assert!(!level(EventLevel::Error).selects(&instance));
        let since = |since| EventQuery { since: Some(since), ..EventQuery::default() };
        assert!(since(10).selects(&instance) && !since(11).selects(&instance));
    }

    #[test]
    fn the_encoding_of_a_query_is_fixed() {
        let query = EventQuery { follow: true, ..EventQuery::default() };
        assert_eq!(serde_json::to_string(&query).expect("plain data"), r#"{"follow":true}"#);
        let query: EventQuery = serde_json::from_str(r#"{"newer":1}"#).expect("reads");
        assert_eq!(query, EventQuery::default());
    }
}
