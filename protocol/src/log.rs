//! Logs of instances, from the member that runs them.
//!
//! A client asks its node for the logs of a service with [`Request::Logs`] on its control stream. For each instance on
//! another member the node opens a stream to it with the protocol [`LOGS_PROTOCOL`] and sends an [`InstanceLogRequest`] with the user's
//! token ([`Delegated`](crate::auth::Delegated)) as a JSON frame. The answer is [`Reply::Ready`], [`Reply::Log`] and [`Reply::Logs`] with the lines, and [`Reply::End`] or [`Reply::Error`];
//! [`Reply::End`] alone when the member has no such instance. The reader closes the stream to stop. Each frame is preceded
//! by its length as 4 bytes, big endian.
//!
//! [`LOGS_PROTOCOL`]: crate::wire::LOGS_PROTOCOL
//! [`Reply::End`]: crate::control::Reply::End
//! [`Reply::Error`]: crate::control::Reply::Error
//! [`Reply::Log`]: crate::control::Reply::Log
//! [`Reply::Logs`]: crate::control::Reply::Logs
//! [`Reply::Ready`]: crate::control::Reply::Ready
//! [`Request::Logs`]: crate::control::Request::Logs

use serde::{Deserialize, Serialize};

use crate::{Millis, Slot};

/// Selects lines of one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLogRequest {
    /// The slot of the instance.
    pub slot: Slot,
    /// Digest of the instance's spec; `None` selects the newest instance in the slot.
    pub digest: Option<String>,
    /// Whether to send lines as they are written, after those that exist.
    pub follow: bool,
    /// Number of existing lines to send, the last ones; `None` sends all.
    pub tail: Option<u32>,
    /// Skips lines written before this time.
    pub since: Option<Millis>,
    /// Whether lines may come together, as [`Reply::Logs`](crate::control::Reply::Logs). Older nodes send each by itself all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub batched: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_of_a_request_is_fixed() {
        let request = InstanceLogRequest {
            slot: "shop/web.1".parse().expect("a slot"),
            digest: Some("d".to_owned()),
            follow: true,
            tail: Some(10),
            since: None,
            batched: false,
        };
        let json = r#"{"slot":"shop/web.1","digest":"d","follow":true,"tail":10,"since":null}"#;
        assert_eq!(serde_json::to_string(&request).expect("plain data"), json);
        assert_eq!(serde_json::from_str::<InstanceLogRequest>(json).expect("reads"), request);
        let batched = InstanceLogRequest { batched: true, ..request };
        let json = serde_json::to_string(&batched).expect("plain data");
        assert!(json.ends_with(r#","since":null,"batched":true}"#), "{json}");
    }
}
