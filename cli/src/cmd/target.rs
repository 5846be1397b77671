//! How users name instances: `web`, `shop/web`, and one replica `web.2`.

use std::cmp::Reverse;
use std::str::FromStr;

use vc_client::{Session, expect_reply};
use vc_protocol::control::{InstanceRow, Request};
use vc_protocol::{ApiError, ErrorCode};

use crate::error::Result as CommandResult;
use crate::render::note;

/// A service, and optionally one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The service as written: `web` or `shop/web`.
    pub(crate) service: String,
    /// The replica, from 1.
    pub(crate) replica: Option<u32>,
}

/// The text does not name a service or one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an instance: write web, shop/web or web.2")]
pub(crate) struct TargetError(String);

/// The name and `--replica` differ.
#[derive(Debug, thiserror::Error)]
#[error("both replica {0} and replica {1} are named: name one")]
pub(crate) struct ReplicaConflict(u32, u32);

impl From<ReplicaConflict> for ApiError {
    fn from(error: ReplicaConflict) -> Self {
        Self::new(ErrorCode::InvalidArgument, error.to_string())
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let bad = || TargetError(text.to_owned());
        let (service, replica) = match text.rsplit_once('.') {
            None => (text, None),
            Some((service, number)) => {
                let replica = number.parse().ok().filter(|&number| number > 0).ok_or_else(bad)?;
                (service, Some(replica))
            }
        };
        if service.is_empty() || service.contains('.') {
            return Err(bad());
        }
        Ok(Self { service: service.to_owned(), replica })
    }
}

impl Target {
    /// Combines the replica of the name with that of `--replica`; fails when they differ.
    pub(crate) fn replica_or(&self, given: Option<u32>) -> Result<Option<u32>, ReplicaConflict> {
        match (self.replica, given) {
            (Some(one), Some(other)) if one != other => Err(ReplicaConflict(one, other)),
            (one, other) => Ok(one.or(other)),
        }
    }
}

/// Returns the replica of a service that a command is for: the given one, else the first that runs. Where several run, says
/// which one it is.
pub(crate) async fn choose_replica(
    session: &mut Session,
    service: &str,
    given: Option<u32>,
) -> CommandResult<Option<u32>> {
    if given.is_some() {
        return Ok(given);
    }
    let request = Request::Instances { service: Some(service.to_owned()), usage: false };
    let mut rows = expect_reply!(session.ask(&request).await?, Instances)?;
    rows.retain(|row| row.state.is_running());
    let order = |row: &&InstanceRow| (Reverse(row.current), row.replica);
    let Some(first) = rows.iter().min_by_key(order) else { return Ok(None) };
    if rows.iter().any(|row| (&row.service, row.replica) != (&first.service, first.replica)) {
        let node = first.node_name.as_deref().map(|it| format!(" on {it}")).unwrap_or_default();
        note(&format!(
            "using {}.{}{node}: --replica, or {service}.N, chooses another",
            first.service, first.replica
        ));
    }
    Ok(Some(first.replica))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_service_and_optionally_a_replica() {
        let target = |service: &str, replica| Ok(Target { service: service.to_owned(), replica });
        assert_eq!("web".parse(), target("web", None));
        assert_eq!("shop/web.12".parse(), target("shop/web", Some(12)));
        for bad in ["", ".1", "web.", "web.0", "web.x", "web.1.2", "web.-1"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        let named: Target = "web.2".parse().expect("an instance");
        assert_eq!(named.replica_or(Some(2)).expect("the same"), Some(2));
        assert!(named.replica_or(Some(3)).is_err());
    }
}
