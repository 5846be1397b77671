//! Records of the audit log, and how members read and report them.
//!
//! A client asks its node with [`Request::Audit`](crate::control::Request::Audit). The node opens a stream to every server
//! with the protocol [`AUDIT_PROTOCOL`](crate::wire::AUDIT_PROTOCOL), sends [`AuditRequest::Read`] as a JSON frame, and merges
//! the answers: [`Reply::Ready`](crate::control::Reply::Ready), a [`Reply::Audit`](crate::control::Reply::Audit) for each
//! record, a [`Reply::AuditCheck`](crate::control::Reply::AuditCheck), with `follow` the records to come, and
//! [`Reply::End`](crate::control::Reply::End). A worker keeps no log: it sends its records to a server with
//! [`AuditRequest::Report`], which answers [`Reply::Ready`](crate::control::Reply::Ready).

use serde::{Deserialize, Serialize};

use crate::auth::Delegated;
use crate::{Millis, NodeId, ServiceKey};

/// Most records in one [`AuditRequest::Report`].
pub const MAX_REPORT: usize = 256;
/// Most records that a server returns of its log, the latest ones.
pub const MAX_RECORDS: usize = 10_000;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditAction {
    /// A service was deployed for the first time.
    ServiceDeployed,
    /// A service has another spec: an update, a rollback or a restart.
    ServiceUpdated,
    /// A run of a scheduled service was begun or stopped by a person.
    JobRun,
    /// The number of replicas was set.
    ServiceScaled,
    /// A service was removed.
    ServiceRemoved,
    /// A slot was ordered to another node.
    SlotMoved,
    /// The content of a secret or config was stored.
    FileStored,
    /// The content of a secret or config was deleted.
    FileDeleted,
    /// An image was pushed.
    ImagePushed,
    /// The reference of an image was removed.
    ImageRemoved,
    /// A volume and its data were removed.
    VolumeRemoved,
    /// A volume was forgotten; its data stays.
    VolumeForgotten,
    /// A node was admitted.
    NodeJoined,
    /// A node was drained.
    NodeDrained,
    /// The drain of a node was ended.
    NodeUndrained,
    /// A node was removed from the cluster.
    NodeRemoved,
    /// What a former node has left on a host was taken over, or stopped.
    NodeAdopted,
    /// A token was issued.
    TokenCreated,
    /// A token was revoked.
    TokenRevoked,
    /// All tokens of a user were revoked.
    UserRevoked,
    /// The policy of a project was changed.
    PolicyChanged,
    /// A receiver of alerts was added or removed.
    ReceiverChanged,
    /// A signing key of the cluster was added or replaced.
    TrustChanged,
    /// The voters were changed, or an admin said which nodes are to be voters.
    VotersChanged,
    /// Another entry of the cluster document was written.
    EntryWritten,
    /// A session was opened.
    SessionOpened,
    /// A session was ended.
    SessionEnded,
    /// A command was run in an instance.
    Exec,
    /// Files were copied out of an instance.
    CopyOut,
    /// Files were copied into an instance.
    CopyIn,
    /// A snapshot of a volume was taken.
    SnapshotTaken,
    /// A volume was made equal to an earlier content.
    VolumeRestored,
    /// Files were copied into a volume.
    VolumeChanged,
    /// A removed volume was taken out of the trash.
    VolumeUndeleted,
    /// A volume was created with data.
    VolumeCreated,
    /// A snapshot of a volume was downloaded, or files of it.
    VolumeExported,
    /// The cluster was backed up, with its secrets.
    BackupTaken,
    /// A program was run to check whether it can replace that of a node.
    ProgramChecked,
    /// The program of a node was replaced.
    NodeUpgraded,
    /// Logs of a service were read.
    LogsRead,
    /// A session began to send HTTP requests to a service.
    ServiceOpened,
    /// A server handed a secret over to a node.
    SecretHandedOver,
    /// A request was refused.
    Refused,
    /// The log was repaired after a crash, or records were lost.
    LogRepaired,
    /// An action of a later version.
    #[serde(other)]
    Unknown,
}

impl AuditAction {
    /// Returns whether a change of the cluster document is behind the action: only its author's signature proves that, so
    /// it is never taken from a report.
    pub fn is_change(self) -> bool {
        self <= Self::EntryWritten
    }
}

/// Identifies a part of a signed change of the cluster document, on every server alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ChangeRef {
    /// The generation of the cluster document.
    pub generation: u64,
    /// The Automerge actor, in hex.
    pub actor: String,
    /// Its sequence number.
    pub seq: u64,
    /// Number of the record among those of the change, from 0.
    pub part: u32,
}

/// A record of the audit log. Contains neither secrets nor environment values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Time by the clock of `node`.
    pub time: Millis,
    /// What happened.
    pub action: AuditAction,
    /// Display text: what the user did, without the user.
    pub text: String,
    /// Name of the user; `None` if a node did it, or an unauthenticated peer.
    #[serde(default)]
    pub user: Option<String>,
    /// Id of the token.
    #[serde(default)]
    pub token: Option<String>,
    /// IP address of the client.
    #[serde(default)]
    pub address: Option<String>,
    /// The service that it is about.
    #[serde(default)]
    pub service: Option<ServiceKey>,
    /// The node that signed the change, or saw what happened.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// The worker that passed the request on, and says who the client is.
    #[serde(default)]
    pub via: Option<NodeId>,
    /// Its name, filled in by the node that answers.
    #[serde(default)]
    pub via_name: Option<String>,
    /// How many more of this kind were not recorded.
    #[serde(default)]
    pub more: u64,
    /// The signed change; `None` for what is no change of the cluster document.
    #[serde(default)]
    pub change: Option<ChangeRef>,
    /// Number of the record among those of `node`; 0 for a change.
    #[serde(default)]
    pub event: u64,
}

impl AuditRow {
    /// Returns what is equal for the copies of a record on several servers, and different for other records.
    pub fn key(&self) -> (Option<ChangeRef>, NodeId, u64) {
        (self.change.clone(), self.node, self.event)
    }
}

/// Selects records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuditQuery {
    /// Only of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Only about this service: `web` or `shop/web`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only since this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Millis>,
    /// Whether to go on with the records to come.
    #[serde(default)]
    pub follow: bool,
    /// Whether to check the logs only, and return no records.
    #[serde(default)]
    pub verify: bool,
}

impl AuditQuery {
    /// Returns whether the query selects a record.
    pub fn selects(&self, row: &AuditRow) -> bool {
        let service = |wanted: &String| {
            let is_it =
                |it: &ServiceKey| it.service.as_str() == wanted || it.to_string() == *wanted;
            row.service.as_ref().is_some_and(is_it)
        };
        !self.verify
            && self.user.as_ref().is_none_or(|user| row.user.as_ref() == Some(user))
            && self.service.as_ref().is_none_or(service)
            && self.since.is_none_or(|since| row.time >= since)
    }
}

/// What a server found when it checked its audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCheck {
    /// The server.
    pub node: NodeId,
    /// Its name.
    pub node_name: String,
    /// Number of records that it has.
    pub records: u64,
    /// How many the query selects that are older than those returned.
    #[serde(default)]
    pub left_out: u64,
    /// Time of the first record; `None` if there is none.
    pub since: Option<Millis>,
    /// The first record that does not fit those before it; empty if all do.
    pub problem: String,
}

/// A request to another member about the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum AuditRequest {
    /// Returns records of the server's log, for a user.
    Read(Delegated<AuditQuery>),
    /// Has a server record what a worker saw.
    Report {
        /// At most [`MAX_REPORT`].
        rows: Vec<AuditRow>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_of_a_request_is_fixed() {
        let query = AuditQuery { user: Some("ada".to_owned()), ..AuditQuery::default() };
        let request = AuditRequest::Read(Delegated::new("t".to_owned(), None, query));
        let json = r#"{"op":"read","token":"t","user":"ada","follow":false,"verify":false}"#;
        assert_eq!(serde_json::to_string(&request).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<AuditRequest>(json).expect("reads"), request);
        let later = serde_json::from_str::<AuditAction>(r#""node_renamed""#).expect("reads");
        assert_eq!(later, AuditAction::Unknown);
        assert!(AuditAction::EntryWritten.is_change() && !AuditAction::SessionOpened.is_change());
    }
}
