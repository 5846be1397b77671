//! What each request needs: a role, and perhaps a server.

use vc_protocol::control::Request;
use vc_protocol::spec::FileKind;
use vc_protocol::token::UserRole;

use crate::auth::{Rights, RightsError};

/// Checks that the user's role allows the request, and the right to read logs where it needs that.
pub(super) fn check(rights: &Rights, request: &Request) -> Result<(), RightsError> {
    rights.check_role(needs(request).role)?;
    match request {
        Request::Logs(_) => rights.check_logs(),
        _ => Ok(()),
    }
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Needs {
    /// The least role of its user.
    role: UserRole,
    /// Whether only a server can answer it: it changes the cluster document, signs a token, or is about
    /// secrets and configs.
    server: bool,
}

/// Returns what a request needs.
fn needs(request: &Request) -> Needs {
    let (role, server) = match request {
        // Whether a secret would change tells whether a guess of it is right.
        Request::Diff { files, .. } if files.iter().any(|it| it.file.kind == FileKind::Secret) => {
            (UserRole::Deployer, true)
        }
        // Their versions are computed with the key that servers have.
        Request::Diff { files, .. } => (UserRole::Viewer, !files.is_empty()),
        Request::Inspect { show_values: true, .. } => (UserRole::Deployer, false),
        Request::Plan { .. }
        | Request::Inspect { .. }
        | Request::Images
        | Request::Volumes
        | Request::Projects
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
        | Request::Logs(_) => (UserRole::Viewer, false),
        Request::Exec(_) | Request::CopyOut(_) | Request::CopyIn(_) => (UserRole::Deployer, false),
        Request::Deploy { .. }
        | Request::Scale { .. }
        | Request::Restart { .. }
        | Request::Rollback { .. }
        | Request::Rebalance { .. }
        | Request::PushImage(_)
        | Request::RemoveVolume { .. }
        | Request::Remove { .. } => (UserRole::Deployer, true),
        Request::Tokens | Request::Audit(_) => (UserRole::Admin, false),
        Request::Drain { .. }
        | Request::Leave { .. }
        | Request::CreateToken(_)
        | Request::AllowProject { .. }
        | Request::DenyProject { .. }
        | Request::RevokeToken { .. }
        | Request::RevokeUser { .. } => (UserRole::Admin, true),
    };
    Needs { role, server }
}

/// Returns the name of a request, for the audit log.
pub(super) fn name(request: &Request) -> String {
    let json = serde_json::to_value(request).unwrap_or_default();
    json.get("op").and_then(|op| op.as_str()).unwrap_or_default().to_owned()
}

/// Returns whether only a server can answer a request.
pub(super) fn needs_server(request: &Request) -> bool {
    needs(request).server
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
            needs(&Request::Diff { deployments: Vec::new(), files: vec![content] }).role
        };
        assert_eq!(diff(FileKind::Secret), UserRole::Deployer);
        assert_eq!(diff(FileKind::Config), UserRole::Viewer);
    }
}
