//! What a user may ask for.

use vc_protocol::control::Request;
use vc_protocol::spec::FileKind;
use vc_protocol::token::UserRole;

/// The role a request needs.
pub(super) fn needs(request: &Request) -> UserRole {
    match request {
        // Whether a secret would change says whether a guess of it is right.
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
        Request::Drain { .. } | Request::Leave { .. } | Request::CreateToken(_) => UserRole::Admin,
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::spec::{FileContent, FileId};

    use super::*;

    #[test]
    fn a_viewer_may_not_try_out_what_a_secret_is() {
        let diff = |kind| {
            let file = FileId { kind, name: "password".parse().expect("a name") };
            let project = "shop".parse().expect("a name");
            let content = FileContent { project, file, base64: "aHVudGVyMg==".to_owned() };
            needs(&Request::Diff { deployments: Vec::new(), files: vec![content] })
        };
        assert_eq!(diff(FileKind::Secret), UserRole::Deployer);
        assert_eq!(diff(FileKind::Config), UserRole::Viewer);
    }
}
