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
        Request::Diff { pull: true, .. } => (UserRole::Deployer, true),
        Request::Diff { files, .. } => (UserRole::Viewer, !files.is_empty()),
        Request::Inspect { show_values: true, .. } => (UserRole::Deployer, false),
        Request::Plan { .. }
        | Request::Inspect { .. }
        | Request::History { .. }
        | Request::Jobs
        | Request::Runs { .. }
        | Request::Images
        | Request::Volumes
        | Request::Snapshots { .. }
        | Request::Projects
        | Request::Services
        | Request::Instances { .. }
        | Request::Usage { .. }
        | Request::Nodes
        | Request::Status
        | Request::DiskUsage { .. }
        | Request::Watch { .. }
        | Request::Live
        | Request::Events(_)
        | Request::Compose { .. }
        | Request::Multiplex
        | Request::Fetch(_)
        | Request::Socket(_)
        | Request::Trust
        | Request::Voters
        | Request::Logs(_) => (UserRole::Viewer, false),
        Request::Exec(_)
        | Request::CopyOut(_)
        | Request::CopyIn(_)
        | Request::SnapshotVolume { .. }
        | Request::RestoreVolume { .. }
        | Request::ReplaceVolume { .. }
        | Request::VolumeFiles { .. }
        | Request::CopyIntoVolume { .. }
        | Request::StagedUpload { .. }
        // It names the node.
        | Request::UploadVolume { upload: Some(_), .. }
        | Request::UndeleteVolume { .. }
        | Request::ExportVolume { .. }
        | Request::ImportVolume { .. }
        | Request::CloneVolume { .. }
        | Request::AdoptVolume { .. } => (UserRole::Deployer, false),
        Request::Deploy { .. }
        | Request::Scale { .. }
        | Request::Restart { .. }
        | Request::RunJob { .. }
        | Request::StopRun { .. }
        | Request::Rollback { .. }
        | Request::RollbackTo { .. }
        | Request::Rebalance { .. }
        | Request::PushImage(_)
        | Request::RemoveImages { .. }
        | Request::PruneImages { .. }
        | Request::UploadVolume { .. }
        | Request::RemoveVolume { .. }
        | Request::ForgetVolume { .. }
        | Request::MoveVolume { .. }
        | Request::Remove { .. } => (UserRole::Deployer, true),
        Request::Tokens
        | Request::Audit(_)
        | Request::Adopt { .. }
        | Request::Receivers
        // They name the node.
        | Request::NodeProgram { .. }
        | Request::UpgradeNode { .. }
        | Request::TestReceiver { .. } => (UserRole::Admin, false),
        Request::Drain { .. }
        | Request::Leave { .. }
        | Request::CreateToken(_)
        // It has the secrets.
        | Request::Backup
        | Request::AllowProject { .. }
        | Request::DenyProject { .. }
        | Request::RotateTrust { .. }
        | Request::SetVoter { .. }
        | Request::ForceVoters { .. }
        | Request::RevokeToken { .. }
        | Request::AddReceiver { .. }
        | Request::RemoveReceiver { .. }
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

    const NODE: &str = "12D3KooWSrKnMZUcSxK8G7wmBbXdU8nFEfWGhLu6H8xjn8LmCSJb";

    #[test]
    fn a_diff_of_secrets_needs_a_deployer() {
        let diff = |kind| {
            let file = FileId { kind, name: "password".parse().expect("a name") };
            let project = "shop".parse().expect("a name");
            let content = FileContent { project, file, base64: "aHVudGVyMg==".to_owned() };
            needs(&Request::Diff {
                deployments: Vec::new(),
                files: vec![content],
                pull: false,
                force: false,
                data_from: None,
            })
            .role
        };
        assert_eq!(diff(FileKind::Secret), UserRole::Deployer);
        assert_eq!(diff(FileKind::Config), UserRole::Viewer);
    }

    #[test]
    fn every_request_needs_the_role_in_this_table() {
        let copy = r#""service":"web","replica":null,"path":"/","name":"x""#;
        let fetch = r#""service":"web","port":80,"target":"/","headers":[]"#;
        let viewer = [
            r#""diff","deployments":[]"#.to_owned(),
            r#""inspect","service":"web""#.to_owned(),
            r#""plan","deployments":[]"#.to_owned(),
            r#""images""#.to_owned(),
            r#""volumes""#.to_owned(),
            format!(r#""snapshots","volume":"shop/data","node":"{NODE}""#),
            r#""services""#.to_owned(),
            r#""instances","service":null"#.to_owned(),
            r#""usage","service":null,"node":null"#.to_owned(),
            r#""history","service":"web""#.to_owned(),
            r#""jobs""#.to_owned(),
            r#""runs","service":"web""#.to_owned(),
            r#""nodes""#.to_owned(),
            r#""status""#.to_owned(),
            format!(r#""disk_usage","node":"{NODE}""#),
            r#""watch","services":[]"#.to_owned(),
            r#""logs","service":"web","replica":null,"follow":false,"tail":null,"since":null"#
                .to_owned(),
            r#""compose","text":"","project":null"#.to_owned(),
            r#""live""#.to_owned(),
            r#""events","follow":false"#.to_owned(),
            r#""multiplex""#.to_owned(),
            r#""voters""#.to_owned(),
            format!(r#""fetch",{fetch},"method":"GET","body":false"#),
            format!(r#""socket",{fetch},"protocols":[]"#),
        ];
        let deployer = [
            r#""deploy","deployments":[]"#.to_owned(),
            r#""inspect","service":"web","show_values":true"#.to_owned(),
            r#""restart","service":"web""#.to_owned(),
            r#""run_job","service":"web""#.to_owned(),
            r#""stop_run","service":"web","run":7"#.to_owned(),
            r#""rollback","service":"web""#.to_owned(),
            r#""rebalance","apply":false"#.to_owned(),
            r#""scale","service":"web","replicas":2"#.to_owned(),
            r#""remove","service":"web""#.to_owned(),
            r#""rollback_to","service":"web","version":2"#.to_owned(),
            r#""push_image","id":"sha256:a","reference":"web:1","size":1"#.to_owned(),
            r#""remove_images","references":["web:1"]"#.to_owned(),
            r#""prune_images","apply":true"#.to_owned(),
            r#""remove_volume","volume":"shop/data""#.to_owned(),
            r#""snapshot_volume","volume":"shop/data""#.to_owned(),
            r#""forget_volume","volume":"shop/data""#.to_owned(),
            r#""upload_volume","volume":"shop/data""#.to_owned(),
            format!(
                r#""upload_volume","volume":"shop/data","upload":{{"node":"{NODE}","directory":"a","begun":1,"bytes":2}}"#
            ),
            format!(r#""staged_upload","volume":"shop/data","node":"{NODE}","directory":"a""#),
            r#""replace_volume","volume":"shop/data","directory":"a""#.to_owned(),
            r#""volume_files","volume":"shop/data""#.to_owned(),
            r#""copy_into_volume","volume":"shop/data","path":"/","name":"a""#.to_owned(),
            format!(r#""undelete_volume","volume":"shop/data","node":"{NODE}""#),
            format!(
                r#""export_volume","volume":"shop/data","node":"{NODE}","snapshot":{{"epoch":1,"number":2}}"#
            ),
            r#""import_volume","volume":"shop/data""#.to_owned(),
            format!(
                r#""clone_volume","volume":"shop/data","node":"{NODE}","snapshot":{{"epoch":1,"number":2}},"to":"shop/b""#
            ),
            r#""adopt_volume","volume":"shop/data","node":"n1","source":"/srv/app""#.to_owned(),
            r#""restore_volume","volume":"shop/data","snapshot":{"epoch":1,"number":2}"#.to_owned(),
            r#""move_volume","volume":"shop/data","to":"n1""#.to_owned(),
            concat!(
                r#""exec","service":"web","replica":null,"command":["sh"],"tty":false,"stdin":false,"#,
                r#""environment":[],"user":null,"working_dir":null,"size":null"#
            )
            .to_owned(),
            format!(r#""copy_out",{copy}"#),
            format!(r#""copy_in",{copy}"#),
        ];
        let admin = [
            r#""drain","node":"n1","drain":true"#.to_owned(),
            r#""leave","node":"n1","force":true"#.to_owned(),
            r#""adopt","node":"n1","stop":true"#.to_owned(),
            concat!(
                r#""create_token","subject":{"node":{"name":"n1","role":"worker"}},"#,
                r#""ttl_ms":1000"#
            )
            .to_owned(),
            r#""tokens""#.to_owned(),
            r#""backup""#.to_owned(),
            format!(r#""node_program","node":"{NODE}""#),
            format!(r#""upgrade_node","node":"{NODE}","program":{{"digest":"sha256:a","size":1}}"#),
            r#""receivers""#.to_owned(),
            r#""add_receiver","name":"ops","target":{"type":"webhook","url":"http://127.0.0.1/"}"#
                .to_owned(),
            r#""remove_receiver","name":"ops""#.to_owned(),
            r#""test_receiver","name":"ops""#.to_owned(),
            r#""set_voter","node":"n1","votes":true"#.to_owned(),
            r#""force_voters","nodes":["n1"]"#.to_owned(),
            r#""revoke_token","token":"a""#.to_owned(),
            r#""revoke_user","user":"ann""#.to_owned(),
        ];
        let roles = [
            (UserRole::Viewer, &viewer[..]),
            (UserRole::Deployer, &deployer),
            (UserRole::Admin, &admin),
        ];
        for (role, requests) in roles {
            for request in requests {
                let json = format!(r#"{{"op":{request}}}"#);
                let read = serde_json::from_str(&json).unwrap_or_else(|it| panic!("{json}: {it}"));
                assert_eq!(needs(&read).role, role, "{json}");
            }
        }
    }
}
