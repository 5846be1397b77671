//! What is sent to a receiver: the body of a request, or the input of a command.

use std::collections::BTreeMap;

use serde::Serialize;
use vc_protocol::alert::{AlertFormat, ProblemKind, Severity};
use vc_protocol::{ClusterId, Millis, Name, rfc3339};

use super::{Alert, AlertStatus};

/// Longest text for Discord, which refuses more than 2,000 characters.
const MAX_DISCORD: usize = 1900;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The media type.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

/// The body of Alertmanager's webhooks, version 4.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Webhook<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: u32,
    status: &'static str,
    receiver: &'a str,
    group_labels: BTreeMap<&'a str, &'a str>,
    common_labels: BTreeMap<&'a str, &'a str>,
    common_annotations: BTreeMap<&'a str, &'a str>,
    #[serde(rename = "externalURL")]
    external_url: &'static str,
    alerts: Vec<Entry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    status: &'static str,
    labels: &'a BTreeMap<String, String>,
    annotations: BTreeMap<&'static str, &'a str>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'static str,
    fingerprint: &'a str,
}

/// Time zero of Go, by which Alertmanager says that an alert has not ended.
const NOT_ENDED: &str = "0001-01-01T00:00:00Z";

/// Returns what a receiver gets of these alerts; `None` in a form of a later version.
pub fn message(
    format: AlertFormat,
    cluster: ClusterId,
    receiver: &Name,
    alerts: &[Alert],
) -> Option<Message> {
    let json = |body: String| Message { content_type: "application/json", body };
    Some(match format {
        AlertFormat::Json => json(to_json(&webhook(&cluster.to_string(), receiver, alerts))),
        AlertFormat::Text => {
            Message { content_type: "text/plain; charset=utf-8", body: lines(alerts) }
        }
        AlertFormat::Slack => json(to_json(&BTreeMap::from([("text", lines(alerts))]))),
        AlertFormat::Discord => {
            let mut text = lines(alerts);
            if let Some((end, _)) = text.char_indices().nth(MAX_DISCORD) {
                text.truncate(end);
                text.push('…');
            }
            json(to_json(&BTreeMap::from([("content", text)])))
        }
        AlertFormat::Unknown => return None,
    })
}

fn webhook<'a>(cluster: &'a str, receiver: &'a Name, alerts: &'a [Alert]) -> Webhook<'a> {
    let is_firing = alerts.iter().any(|it| it.status == AlertStatus::Firing);
    let common = |(label, value): &(&'a String, &'a String)| {
        alerts.iter().all(|it| it.labels.get(*label) == Some(*value))
    };
    let labels = alerts.first().into_iter().flat_map(|it| &it.labels).filter(common);
    Webhook {
        version: "4",
        group_key: format!("{cluster}/{receiver}"),
        truncated_alerts: 0,
        status: if is_firing { "firing" } else { "resolved" },
        receiver: receiver.as_str(),
        group_labels: BTreeMap::new(),
        common_labels: labels.map(|(label, value)| (label.as_str(), value.as_str())).collect(),
        common_annotations: BTreeMap::new(),
        external_url: "",
        alerts: alerts.iter().map(entry).collect(),
    }
}

fn entry(alert: &Alert) -> Entry<'_> {
    Entry {
        status: match alert.status {
            AlertStatus::Firing => "firing",
            AlertStatus::Resolved => "resolved",
        },
        labels: &alert.labels,
        annotations: BTreeMap::from([("summary", alert.summary.as_str())]),
        starts_at: rfc3339(alert.started),
        ends_at: alert.ended.map_or_else(|| NOT_ENDED.to_owned(), rfc3339),
        generator_url: "",
        fingerprint: &alert.fingerprint,
    }
}

/// Returns a line for each alert.
fn lines(alerts: &[Alert]) -> String {
    let line = |alert: &Alert| match alert.status {
        AlertStatus::Firing => {
            format!("{}: {}", alert.kind.severity().as_str(), alert.summary)
        }
        AlertStatus::Resolved => format!("resolved: {}", alert.summary),
    };
    alerts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Encodes plain data, which always has a JSON form.
fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Returns an alert by which people see that a receiver works.
pub fn test_alert(cluster: ClusterId, node: &str, now: Millis) -> Alert {
    let labels = [
        ("alertname", "Test".to_owned()),
        ("severity", Severity::Info.as_str().to_owned()),
        ("cluster", cluster.to_string()),
        ("node", node.to_owned()),
    ];
    Alert {
        fingerprint: "0000000000000000".to_owned(),
        kind: ProblemKind::Unknown,
        status: AlertStatus::Firing,
        labels: labels.map(|(label, value)| (label.to_owned(), value)).into(),
        summary: format!("a test of 'vc notify test', sent by node {node}"),
        started: now,
        ended: Some(now),
    }
}
