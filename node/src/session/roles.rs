//! What a user may ask for.

use vc_protocol::control::Request;
use vc_protocol::token::UserRole;

/// The role a request needs.
pub(super) fn needs(request: &Request) -> UserRole {
    match request {
        Request::Plan { .. }
        | Request::Diff { .. }
        | Request::Inspect { .. }
        | Request::Images
        | Request::Volumes
        | Request::Services
        | Request::Instances { .. }
        | Request::Nodes
        | Request::Status
        | Request::Watch { .. }
        | Request::Live
        | Request::Events { .. }
        | Request::Compose { .. }
        | Request::Multiplex
        | Request::Fetch(_)
        | Request::Socket(_)
        | Request::Logs(_) => UserRole::Viewer,
        Request::Deploy { .. }
        | Request::Scale { .. }
        | Request::Restart { .. }
        | Request::Rollback { .. }
        | Request::Rebalance { .. }
        | Request::PushImage(_)
        | Request::RemoveVolume { .. }
        | Request::Exec(_)
        | Request::CopyOut(_)
        | Request::CopyIn(_)
        | Request::Remove { .. } => UserRole::Deployer,
        Request::Drain { .. } | Request::Leave { .. } | Request::CreateToken(_) => UserRole::Admin,
    }
}
