//! The role that each request needs.

use vc_crdt::View;
use vc_protocol::control::Request;
use vc_protocol::spec::{Deployment, FileKind};
use vc_protocol::token::UserRole;
use vc_protocol::{ApiError, ErrorCode};

use crate::auth::User;

/// Checks that the user's role allows the request.
pub(super) fn check(user: &User, request: &Request) -> Result<(), ApiError> {
    let required = required(request);
    if user.role >= required {
        return Ok(());
    }
    let (role, required) = (user.role.as_str(), required.as_str());
    let message = format!("'{}' has the role {role}, and this request needs {required}", user.name);
    Err(ApiError::new(ErrorCode::PermissionDenied, message)
        .with_hint(format!("ask for a token with --role {required}")))
}

/// Returns the least role that a request needs.
fn required(request: &Request) -> UserRole {
    match request {
        // Whether a secret would change tells whether a guess of it is right.
        Request::Diff { files, .. } if files.iter().any(|it| it.file.kind == FileKind::Secret) => {
            UserRole::Deployer
        }
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
        Request::Drain { .. }
        | Request::Leave { .. }
        | Request::CreateToken(_)
        | Request::Tokens
        | Request::RevokeToken { .. }
        | Request::RevokeUser { .. } => UserRole::Admin,
    }
}

/// Checks that the user may give the containers what these specs ask for. What an admin has deployed stays as it is.
pub(super) fn check_privileges(
    user: &User,
    view: &View,
    deployments: &[Deployment],
) -> Result<(), ApiError> {
    if user.role >= UserRole::Admin {
        return Ok(());
    }
    for Deployment { service, spec, .. } in deployments {
        let privileges = spec.container.privileges();
        let is_unchanged = view.spec(service).is_some_and(|held| held.container == spec.container);
        if privileges.is_empty() || is_unchanged {
            continue;
        }
        let (name, role, privileges) = (&user.name, user.role.as_str(), privileges.join(", "));
        let message = format!(
            "{service} asks for {privileges}, which gives it the host: this needs admin, and '{name}' has the role {role}"
        );
        return Err(ApiError::new(ErrorCode::PermissionDenied, message)
            .with_hint("remove it from the file, or ask an admin to deploy the file"));
    }
    Ok(())
}

/// Returns whether only a server can answer a request: it changes the cluster document, or signs a token.
pub(super) fn needs_server(request: &Request) -> bool {
    match request {
        Request::Deploy { .. }
        | Request::Scale { .. }
        | Request::Restart { .. }
        | Request::Rollback { .. }
        | Request::Rebalance { .. }
        | Request::PushImage(_)
        | Request::RemoveVolume { .. }
        | Request::Remove { .. }
        | Request::Drain { .. }
        | Request::Leave { .. }
        | Request::CreateToken(_)
        | Request::RevokeToken { .. }
        | Request::RevokeUser { .. } => true,
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
        | Request::Logs(_)
        | Request::Exec(_)
        | Request::CopyOut(_)
        | Request::CopyIn(_)
        | Request::Tokens => false,
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::spec::{FileContent, FileId};

    use super::*;

    #[test]
    fn a_diff_of_secrets_needs_a_deployer() {
        let diff = |kind| {
            let file = FileId { kind, name: "password".parse().expect("a name") };
            let project = "shop".parse().expect("a name");
            let content = FileContent { project, file, base64: "aHVudGVyMg==".to_owned() };
            required(&Request::Diff { deployments: Vec::new(), files: vec![content] })
        };
        assert_eq!(diff(FileKind::Secret), UserRole::Deployer);
        assert_eq!(diff(FileKind::Config), UserRole::Viewer);
    }
}
