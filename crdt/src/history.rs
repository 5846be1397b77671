//! The versions of services that later ones have replaced.

use std::fmt::Display;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vc_protocol::spec::ServiceSpec;
use vc_protocol::{Lamport, Millis, ServiceKey, Stored};

/// Identifies a version of a service: `project/service/revision`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionKey {
    /// The service.
    pub service: ServiceKey,
    /// [`ServiceRecord::revision`](crate::ServiceRecord::revision) of its last deployment.
    pub revision: Lamport,
}

impl Display for VersionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.service, self.revision)
    }
}

/// The text is not a [`VersionKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the key of a version: expected project/service/revision")]
pub struct ParseVersionKeyError(String);

impl FromStr for VersionKey {
    type Err = ParseVersionKeyError;
    fn from_str(text: &str) -> Result<Self, ParseVersionKeyError> {
        let parts = text.rsplit_once('/');
        let parsed = parts.and_then(|(service, revision)| {
            Some(Self { service: service.parse().ok()?, revision: revision.parse().ok()? })
        });
        parsed.ok_or_else(|| ParseVersionKeyError(text.to_owned()))
    }
}

/// A version of a service that a later one has replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// Its number, from 1. Two sides of a partition may give one number twice.
    pub number: u32,
    /// Its spec.
    pub spec: Stored<ServiceSpec>,
    /// Time of its last deployment, by the clock of the node that took the command; 0 if it is not known.
    pub deployed: Millis,
    /// Name of the user that deployed it; empty if it is not known.
    pub deployed_by: String,
    /// Whether its update was completed, or it was the first version.
    pub complete: bool,
    /// Why its update failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// Whether a rollback replaced it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rolled_back: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_version_is_its_service_and_revision() {
        let key: VersionKey = "shop/web/17".parse().expect("a key");
        assert_eq!(key.service.to_string(), "shop/web");
        assert_eq!((key.revision, key.to_string().as_str()), (17, "shop/web/17"));
        for bad in ["shop/web", "shop/web/x", "web/17", "shop/web/17/1", ""] {
            assert!(bad.parse::<VersionKey>().is_err(), "{bad}");
        }
    }
}
