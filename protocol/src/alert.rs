//! Alerts: problems of the cluster that are sent to receivers outside it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Name;

/// The kind of a problem, by which alerts are filtered and named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// A node is down.
    NodeDown,
    /// A node has announced that it restarts.
    NodeRestarting,
    /// A node is up, and something of it does not work.
    NodeProblem,
    /// The disk of a node is almost full.
    Disk,
    /// The clock of a node is wrong.
    Clock,
    /// A slot has no node.
    Unplaced,
    /// An instance waits, has failed, is unhealthy or does not start.
    Instance,
    /// The last run of a scheduled service failed or was missed.
    Run,
    /// An update failed, or does not end.
    Update,
    /// A port is not published, or a service refuses connections.
    Port,
    /// Leases cannot be granted.
    Lease,
    /// A volume has too few copies, no snapshots, or a copy that failed.
    Volume,
    /// A copy of a volume is behind.
    VolumeLag,
    /// A node has no certificate of the present signing key.
    Certificate,
    /// A node does not know all of what it should run.
    Held,
    /// A node runs an older version than others, or went back from an upgrade.
    Upgrade,
    /// Several nodes have one name.
    Name,
    /// What a former node has left is on a host.
    Orphans,
    /// Scheduled backups fail, or are overdue.
    Backup,
    /// The audit log is not kept.
    Audit,
    /// The watchdog does not run.
    Watchdog,
    /// Two processes have run with the identity of a node.
    Duplicate,
    /// Alerts do not reach a receiver.
    Notification,
    /// A kind of a later version; it is the kind of nothing here.
    #[serde(other)]
    Unknown,
}

impl ProblemKind {
    /// All kinds but [`Unknown`](Self::Unknown).
    pub const ALL: [Self; 23] = [
        Self::NodeDown,
        Self::NodeRestarting,
        Self::NodeProblem,
        Self::Disk,
        Self::Clock,
        Self::Unplaced,
        Self::Instance,
        Self::Run,
        Self::Update,
        Self::Port,
        Self::Lease,
        Self::Volume,
        Self::VolumeLag,
        Self::Certificate,
        Self::Held,
        Self::Upgrade,
        Self::Name,
        Self::Orphans,
        Self::Backup,
        Self::Audit,
        Self::Watchdog,
        Self::Duplicate,
        Self::Notification,
    ];

    /// Returns the name on the command line and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NodeDown => "node-down",
            Self::NodeRestarting => "node-restarting",
            Self::NodeProblem => "node-problem",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Unplaced => "unplaced",
            Self::Instance => "instance",
            Self::Run => "run",
            Self::Update => "update",
            Self::Port => "port",
            Self::Lease => "lease",
            Self::Volume => "volume",
            Self::VolumeLag => "volume-lag",
            Self::Certificate => "certificate",
            Self::Held => "held",
            Self::Upgrade => "upgrade",
            Self::Name => "name",
            Self::Orphans => "orphans",
            Self::Backup => "backup",
            Self::Audit => "audit",
            Self::Watchdog => "watchdog",
            Self::Duplicate => "duplicate",
            Self::Notification => "notification",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the label `alertname` of its alerts, as Prometheus writes them: `NodeDown`.
    pub fn alert_name(self) -> String {
        let words = self.as_str().split('-');
        words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
    }

    /// Returns how bad problems of this kind are.
    pub fn severity(self) -> Severity {
        match self {
            Self::NodeDown
            | Self::Disk
            | Self::Unplaced
            | Self::Lease
            | Self::Held
            | Self::Watchdog
            | Self::Duplicate => Severity::Critical,
            Self::NodeRestarting | Self::Upgrade | Self::Unknown => Severity::Info,
            _ => Severity::Warning,
        }
    }
}

impl fmt::Display for ProblemKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no kind of problems.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no kind of problems: {kinds}", kinds = kinds())]
pub struct ParseProblemKindError(String);

/// Returns the names of all kinds.
fn kinds() -> String {
    ProblemKind::ALL.map(ProblemKind::as_str).join(", ")
}

impl FromStr for ProblemKind {
    type Err = ParseProblemKindError;
    fn from_str(text: &str) -> Result<Self, ParseProblemKindError> {
        let kind = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        kind.ok_or_else(|| ParseProblemKindError(text.to_owned()))
    }
}

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It ends by itself, or can wait.
    Info,
    /// It needs a look in time.
    #[default]
    Warning,
    /// A service is or may soon be affected.
    Critical,
    /// A severity of a later version. It is the last one, so that no problem is as bad as a filter with it asks.
    #[serde(other)]
    Unknown,
}

impl Severity {
    /// Returns the name on the command line and in the label `severity`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Unknown => "unknown",
        }
    }
}

/// The text is no severity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no severity: info, warning or critical")]
pub struct ParseSeverityError(String);

impl FromStr for Severity {
    type Err = ParseSeverityError;
    fn from_str(text: &str) -> Result<Self, ParseSeverityError> {
        let all = [Self::Info, Self::Warning, Self::Critical];
        let severity = all.into_iter().find(|it| it.as_str() == text);
        severity.ok_or_else(|| ParseSeverityError(text.to_owned()))
    }
}

/// Which problems a receiver gets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AlertFilter {
    /// Of these kinds; empty for all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub kinds: BTreeSet<ProblemKind>,
    /// Of these projects, and no problems of nodes or of the cluster; empty for all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub projects: BTreeSet<Name>,
    /// At least as bad as this.
    pub severity: Severity,
}

impl AlertFilter {
    /// Returns whether this version knows all that the filter names.
    pub fn is_known(&self) -> bool {
        self.severity != Severity::Unknown && !self.kinds.contains(&ProblemKind::Unknown)
    }

    /// Returns whether a problem of this kind, of a project or of none, passes.
    pub fn passes(&self, kind: ProblemKind, project: Option<&Name>) -> bool {
        let of_kind = self.kinds.is_empty() || self.kinds.contains(&kind);
        let of_project = self.projects.is_empty()
            || project.is_some_and(|project| self.projects.contains(project));
        of_kind && of_project && kind.severity() >= self.severity
    }
}

/// The form of what a receiver gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertFormat {
    /// The JSON of Prometheus Alertmanager's webhooks, version 4.
    #[default]
    Json,
    /// A line of text for each alert, as ntfy takes it.
    Text,
    /// `{"text": LINES}`, as Slack and Mattermost take it.
    Slack,
    /// `{"content": LINES}`, as Discord takes it.
    Discord,
    /// A form of a later version; this node sends nothing in it.
    #[serde(other)]
    Unknown,
}

impl AlertFormat {
    /// Returns the name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Slack => "slack",
            Self::Discord => "discord",
            Self::Unknown => "unknown",
        }
    }
}

/// The text is no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no format: json, text, slack or discord")]
pub struct ParseAlertFormatError(String);

impl FromStr for AlertFormat {
    type Err = ParseAlertFormatError;
    fn from_str(text: &str) -> Result<Self, ParseAlertFormatError> {
        let all = [Self::Json, Self::Text, Self::Slack, Self::Discord];
        let format = all.into_iter().find(|it| it.as_str() == text);
        format.ok_or_else(|| ParseAlertFormatError(text.to_owned()))
    }
}

/// Where alerts are sent to.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AlertTarget {
    /// A POST request to an http or https URL, which may contain a secret.
    Webhook {
        /// The URL.
        url: String,
    },
    /// A program on the node that sends, with what is sent on its standard input.
    Command {
        /// The program with its arguments; no shell is involved.
        command: Vec<String>,
    },
}

impl fmt::Debug for AlertTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the URL.
        match self {
            Self::Webhook { .. } => f.write_str("Webhook"),
            Self::Command { command } => f.debug_tuple("Command").field(command).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_one_name_on_the_command_line_and_in_json() {
        for kind in ProblemKind::ALL {
            let json = serde_json::to_string(&kind).expect("plain data");
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert_eq!(ProblemKind::VolumeLag.alert_name(), "VolumeLag");
        let later: ProblemKind = serde_json::from_str("\"fan\"").expect("reads");
        assert_eq!(later, ProblemKind::Unknown);
        assert!("unknown".parse::<ProblemKind>().is_err());
    }

    #[test]
    fn filters_pass_kinds_projects_and_severities() {
        let shop: Name = "shop".parse().expect("a name");
        let all = AlertFilter::default();
        assert!(all.passes(ProblemKind::NodeDown, None));
        assert!(!all.passes(ProblemKind::Upgrade, None), "less than a warning");
        let of_shop = AlertFilter { projects: [shop.clone()].into(), ..AlertFilter::default() };
        assert!(of_shop.passes(ProblemKind::Update, Some(&shop)));
        assert!(!of_shop.passes(ProblemKind::NodeDown, None), "of no project");
        let kinds = [ProblemKind::Unknown].into();
        let later = AlertFilter { kinds, ..AlertFilter::default() };
        assert!(!later.passes(ProblemKind::NodeDown, None), "nothing is of a later kind");
        assert!(!later.is_known() && all.is_known());
    }

    #[test]
    fn severities_and_formats_of_a_later_version_are_read_and_are_no_values_of_options() {
        let filter: AlertFilter = serde_json::from_str(r#"{"severity": "fatal"}"#).expect("reads");
        assert_eq!(filter.severity, Severity::Unknown);
        assert!(!filter.is_known());
        for kind in ProblemKind::ALL {
            assert!(!filter.passes(kind, None), "{kind}");
        }
        let format: AlertFormat = serde_json::from_str("\"teams\"").expect("reads");
        assert_eq!(format, AlertFormat::Unknown);
        assert!("unknown".parse::<Severity>().is_err());
        assert!("unknown".parse::<AlertFormat>().is_err());
    }
}
