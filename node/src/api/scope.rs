//! What each request touches: a token that is limited to projects makes those requests that touch its projects alone.

use vc_crdt::View;
use vc_engine::find_services;
use vc_protocol::control::{EventRow, Request};
use vc_protocol::spec::{Deployment, FileContent};
use vc_protocol::{ApiError, Name, ServiceKey};

use super::mask;
use crate::auth::Rights;

/// What of the cluster a request touches.
enum Touches<'a> {
    /// Nothing of a project but what the answer shows, which is limited to the token's projects.
    Lists,
    /// The services that a text names: `web`, `shop/web` or `shop/`.
    Named(&'a mut String),
    /// These services.
    Services(&'a [ServiceKey]),
    /// The services to deploy, with their files.
    Deployments(&'a [Deployment], &'a [FileContent]),
    /// Something else of a project.
    Project(&'a Name),
    /// Something of two projects.
    Projects([&'a Name; 2]),
    /// A reference that all projects share: [`images::check_reference`](super::images) says who may push it.
    Image,
    /// The cluster as a whole, or its nodes and tokens.
    Cluster,
}

/// Returns what a request touches.
fn touches(request: &mut Request) -> Touches<'_> {
    match request {
        Request::Compose { .. }
        | Request::Multiplex
        | Request::Services
        | Request::Jobs
        | Request::Instances { service: None, .. }
        | Request::Usage { service: None, .. }
        | Request::Nodes
        | Request::Status
        | Request::Live
        | Request::Events(_)
        | Request::Images
        | Request::Projects
        | Request::Trust
        | Request::Voters
        | Request::Volumes => Touches::Lists,
        Request::Instances { service: Some(service), .. }
        | Request::Usage { service: Some(service), .. }
        | Request::Inspect { service, .. }
        | Request::Restart { service, .. }
        | Request::Rollback { service, .. }
        | Request::RollbackTo { service, .. }
        | Request::History { service }
        | Request::Runs { service }
        | Request::RunJob { service }
        | Request::StopRun { service, .. }
        | Request::Scale { service, .. }
        | Request::Remove { service } => Touches::Named(service),
        Request::Exec(exec) => Touches::Named(&mut exec.service),
        Request::CopyOut(copy) | Request::CopyIn(copy) => Touches::Named(&mut copy.service),
        Request::Logs(logs) => Touches::Named(&mut logs.service),
        Request::Fetch(fetch) => Touches::Named(&mut fetch.service),
        Request::Socket(socket) => Touches::Named(&mut socket.service),
        Request::Watch { services } => Touches::Services(services),
        Request::Plan { deployments } => Touches::Deployments(deployments, &[]),
        Request::Deploy { deployments, files, .. } | Request::Diff { deployments, files, .. } => {
            Touches::Deployments(deployments, files)
        }
        Request::RemoveVolume { volume }
        | Request::ForgetVolume { volume }
        | Request::UploadVolume { volume, .. }
        | Request::StagedUpload { volume, .. }
        | Request::ReplaceVolume { volume, .. }
        | Request::VolumeFiles { volume }
        | Request::CopyIntoVolume { volume, .. }
        | Request::Snapshots { volume, .. }
        | Request::SnapshotVolume { volume }
        | Request::RestoreVolume { volume, .. }
        | Request::UndeleteVolume { volume, .. }
        | Request::ExportVolume { volume, .. }
        | Request::ImportVolume { volume, .. }
        | Request::AdoptVolume { volume, .. }
        | Request::MoveVolume { volume, .. } => Touches::Project(&volume.project),
        Request::CloneVolume { volume, to, .. } => {
            Touches::Projects([&volume.project, &to.project])
        }
        Request::PushImage(_) => Touches::Image,
        Request::RotateTrust { .. }
        | Request::SetVoter { .. }
        | Request::ForceVoters { .. }
        | Request::Rebalance { .. }
        | Request::Drain { .. }
        | Request::Leave { .. }
        | Request::Adopt { .. }
        | Request::CreateToken(_)
        | Request::Backup
        | Request::Tokens
        | Request::Audit(_)
        | Request::DiskUsage { .. }
        | Request::NodeProgram { .. }
        | Request::UpgradeNode { .. }
        | Request::RemoveImages { .. }
        | Request::PruneImages { .. }
        | Request::Receivers
        | Request::AddReceiver { .. }
        | Request::RemoveReceiver { .. }
        | Request::TestReceiver { .. }
        | Request::AllowProject { .. }
        | Request::DenyProject { .. }
        | Request::RevokeToken { .. }
        | Request::RevokeUser { .. } => Touches::Cluster,
    }
}

/// Checks that a request touches the token's projects alone. Names without a project are completed, so that they mean services
/// of these projects.
///
/// # Errors
/// The request touches something else; the error does not say whether that exists.
pub(super) fn restrict(
    rights: &Rights,
    view: &View,
    request: &mut Request,
) -> Result<(), ApiError> {
    let Some(projects) = rights.projects() else { return Ok(()) };
    match touches(request) {
        Touches::Lists | Touches::Image => {}
        Touches::Named(text) => match text.split_once('/') {
            Some((project, _)) => rights.check_project_text(project)?,
            None => {
                let found = find_services(&view.limited_to(projects).cluster, text)?;
                if let [service] = found.as_slice() {
                    *text = service.to_string();
                }
            }
        },
        Touches::Services(services) => {
            for service in services {
                rights.check_project(&service.project)?;
            }
        }
        Touches::Deployments(deployments, files) => {
            let services = deployments.iter().map(|it| &it.service.project);
            for project in services.chain(files.iter().map(|it| &it.project)) {
                rights.check_project(project)?;
            }
        }
        Touches::Project(project) => rights.check_project(project)?,
        Touches::Projects(projects) => {
            for project in projects {
                rights.check_project(project)?;
            }
        }
        Touches::Cluster => rights.check_unlimited()?,
    }
    Ok(())
}

/// Removes the events that a user may not see, and masks the others.
pub(super) fn limit_events(rights: &Rights, events: &mut Vec<EventRow>) {
    events.retain(|row| shows_event(rights, row));
    mask::events(rights, events);
}

/// Returns whether a user may see an event: of a node, or of one of the token's projects.
fn shows_event(rights: &Rights, event: &EventRow) -> bool {
    // A node's name has no slash.
    let project = event.subject.split_once('/').map(|(project, _)| project);
    project.is_none_or(|project| rights.check_project_text(project).is_ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};
    use vc_crdt::{ClusterState, KnownVersions, ServiceRecord};
    use vc_protocol::ErrorCode;
    use vc_protocol::control::EventLevel;
    use vc_protocol::spec::ServiceSpec;
    use vc_protocol::token::{UserLimits, UserRole};

    use super::*;

    /// Who may make a request.
    #[derive(Debug, PartialEq, Eq)]
    enum May {
        /// Any token; the answer is limited.
        Any,
        /// Tokens of the project that it names.
        OfProject,
        /// Tokens of all projects.
        Unlimited,
    }

    /// Says who may make a request, apart from [`touches`].
    fn may(request: &Request) -> May {
        match request {
            Request::Services
            | Request::Jobs
            | Request::Instances { service: None, .. }
            | Request::Usage { service: None, .. }
            | Request::Nodes
            | Request::Status
            | Request::Live
            | Request::Events(_)
            | Request::Compose { .. }
            | Request::Multiplex
            | Request::Images
            | Request::Volumes
            | Request::Projects
            | Request::Trust
            | Request::Voters
            | Request::PushImage(_) => May::Any,
            Request::Deploy { .. }
            | Request::Diff { .. }
            | Request::Plan { .. }
            | Request::Inspect { .. }
            | Request::Restart { .. }
            | Request::Rollback { .. }
            | Request::RollbackTo { .. }
            | Request::History { .. }
            | Request::Runs { .. }
            | Request::RunJob { .. }
            | Request::StopRun { .. }
            | Request::Scale { .. }
            | Request::Remove { .. }
            | Request::RemoveVolume { .. }
            | Request::ForgetVolume { .. }
            | Request::UploadVolume { .. }
            | Request::StagedUpload { .. }
            | Request::ReplaceVolume { .. }
            | Request::VolumeFiles { .. }
            | Request::CopyIntoVolume { .. }
            | Request::MoveVolume { .. }
            | Request::Snapshots { .. }
            | Request::SnapshotVolume { .. }
            | Request::RestoreVolume { .. }
            | Request::UndeleteVolume { .. }
            | Request::ExportVolume { .. }
            | Request::ImportVolume { .. }
            | Request::CloneVolume { .. }
            | Request::AdoptVolume { .. }
            | Request::Exec(_)
            | Request::CopyOut(_)
            | Request::CopyIn(_)
            | Request::Instances { service: Some(_), .. }
            | Request::Usage { service: Some(_), .. }
            | Request::Watch { .. }
            | Request::Logs(_)
            | Request::Fetch(_)
            | Request::Socket(_) => May::OfProject,
            Request::RotateTrust { .. }
            | Request::SetVoter { .. }
            | Request::ForceVoters { .. }
            | Request::Rebalance { .. }
            | Request::Drain { .. }
            | Request::Leave { .. }
            | Request::Adopt { .. }
            | Request::CreateToken(_)
            | Request::Backup
            | Request::Audit(_)
            | Request::Tokens
            | Request::DiskUsage { .. }
            | Request::NodeProgram { .. }
            | Request::UpgradeNode { .. }
            | Request::RemoveImages { .. }
            | Request::PruneImages { .. }
            | Request::Receivers
            | Request::AddReceiver { .. }
            | Request::RemoveReceiver { .. }
            | Request::TestReceiver { .. }
            | Request::AllowProject { .. }
            | Request::DenyProject { .. }
            | Request::RevokeToken { .. }
            | Request::RevokeUser { .. } => May::Unlimited,
        }
    }

    /// Returns every request, about a service of a project; of some several, with what else can name a project.
    fn requests(project: &str) -> Vec<Request> {
        let web = format!("{project}/web");
        let node = "12D3KooWSrKnMZUcSxK8G7wmBbXdU8nFEfWGhLu6H8xjn8LmCSJb";
        let deployment = |project: &str| {
            json!({"service": format!("{project}/web"), "replicas": null,
                   "spec": {"container": {"image": "web:1"}}})
        };
        let file =
            json!({"project": project, "file": {"kind": "secret", "name": "key"}, "base64": ""});
        let copy =
            |op: &str| json!({"op": op, "service": web, "replica": null, "path": "/", "name": "."});
        let http = |op: &str| {
            json!({"op": op, "service": web, "port": null, "method": "GET", "target": "/",
                   "headers": [], "protocols": []})
        };
        let named = |op: &str| json!({"op": op, "service": web});
        let all = [
            json!({"op": "deploy", "deployments": [deployment("shop"), deployment(project)]}),
            json!({"op": "deploy", "deployments": [deployment("shop")], "files": [file]}),
            json!({"op": "diff", "deployments": [deployment("shop"), deployment(project)]}),
            json!({"op": "diff", "deployments": [deployment("shop")], "files": [file]}),
            json!({"op": "plan", "deployments": [deployment("shop"), deployment(project)]}),
            named("inspect"),
            named("restart"),
            named("rollback"),
            json!({"op": "rollback_to", "service": web, "version": 2}),
            named("history"),
            json!({"op": "jobs"}),
            named("runs"),
            named("run_job"),
            named("stop_run"),
            named("remove"),
            json!({"op": "remove", "service": format!("{project}/")}),
            named("instances"),
            json!({"op": "instances", "service": null}),
            named("usage"),
            json!({"op": "usage", "service": null, "node": "n1"}),
            json!({"op": "scale", "service": web, "replicas": 2}),
            json!({"op": "move_volume", "volume": format!("{project}/data"), "to": "n1"}),
            json!({"op": "remove_volume", "volume": format!("{project}/data")}),
            json!({"op": "snapshot_volume", "volume": format!("{project}/data")}),
            json!({"op": "forget_volume", "volume": format!("{project}/data")}),
            json!({"op": "upload_volume", "volume": format!("{project}/data")}),
            json!({"op": "staged_upload", "volume": format!("{project}/data"), "node": node,
                   "directory": "a"}),
            json!({"op": "replace_volume", "volume": format!("{project}/data"), "directory": "a"}),
            json!({"op": "volume_files", "volume": format!("{project}/data")}),
            json!({"op": "copy_into_volume", "volume": format!("{project}/data"), "path": "/",
                   "name": "a"}),
            json!({"op": "snapshots", "volume": format!("{project}/data"), "node": node}),
            json!({"op": "undelete_volume", "volume": format!("{project}/data"), "node": node}),
            json!({"op": "export_volume", "volume": format!("{project}/data"), "node": node,
                   "snapshot": {"epoch": 1, "number": 2}}),
            json!({"op": "import_volume", "volume": format!("{project}/data")}),
            json!({"op": "clone_volume", "volume": "shop/data", "node": node,
                   "snapshot": {"epoch": 1, "number": 2}, "to": format!("{project}/copy")}),
            json!({"op": "clone_volume", "volume": format!("{project}/data"), "node": node,
                   "snapshot": {"epoch": 1, "number": 2}, "to": "shop/copy"}),
            json!({"op": "adopt_volume", "volume": format!("{project}/data"), "node": "n1",
                   "source": "/srv/app"}),
            json!({"op": "restore_volume", "volume": format!("{project}/data"),
                   "snapshot": {"epoch": 1, "number": 2}}),
            json!({"op": "exec", "service": web, "replica": null, "command": ["id"], "tty": false,
                   "stdin": false, "environment": [], "user": null, "working_dir": null, "size": null}),
            copy("copy_out"),
            copy("copy_in"),
            json!({"op": "watch", "services": ["shop/web", web]}),
            json!({"op": "logs", "service": web, "replica": null, "follow": false, "tail": null, "since": null}),
            http("fetch"),
            http("socket"),
            json!({"op": "services"}),
            json!({"op": "nodes"}),
            json!({"op": "status"}),
            json!({"op": "live"}),
            json!({"op": "events", "follow": true}),
            json!({"op": "compose", "text": "", "project": project}),
            json!({"op": "multiplex"}),
            json!({"op": "images"}),
            json!({"op": "volumes"}),
            json!({"op": "push_image", "reference": "web:1", "id": "", "size": 0}),
            json!({"op": "rebalance", "apply": false}),
            json!({"op": "rebalance", "apply": true}),
            json!({"op": "drain", "node": "n1", "drain": true}),
            json!({"op": "leave", "node": "n1", "force": false}),
            json!({"op": "adopt", "node": "n1"}),
            json!({"op": "create_token", "subject": {"user": {"name": "eve", "role": "viewer"}}, "ttl_ms": 1000}),
            json!({"op": "tokens"}),
            json!({"op": "backup"}),
            json!({"op": "audit"}),
            json!({"op": "projects"}),
            json!({"op": "allow_project", "project": project, "policy": {"devices": true}}),
            json!({"op": "deny_project", "project": project, "policy": {"devices": true}}),
            json!({"op": "revoke_token", "token": "1"}),
            json!({"op": "revoke_user", "user": "ada"}),
            json!({"op": "rotate_trust", "members": []}),
            json!({"op": "trust"}),
            json!({"op": "voters"}),
            json!({"op": "set_voter", "node": "n1", "votes": false}),
            json!({"op": "force_voters", "nodes": ["n1"]}),
        ];
        let requests = all.into_iter().map(|it| serde_json::from_value(it).expect("a request"));
        requests.collect()
    }

    fn op(request: &Request) -> Value {
        serde_json::to_value(request).expect("plain data")["op"].take()
    }

    fn rights(projects: Option<&[&str]>) -> Rights {
        let projects = projects.map(|it| it.iter().map(|it| it.parse().expect("a name")).collect());
        let limits = UserLimits { projects, logs: true };
        Rights { name: "ann".to_owned(), role: UserRole::Deployer, limits }
    }

    fn view(services: &[&str]) -> View {
        let mut cluster = ClusterState::default();
        for service in services {
            let (spec, deployed_by) = (ServiceSpec::default().into(), "ada".to_owned());
            let record = ServiceRecord {
                spec,
                previous: None,
                revision: 1,
                updated: 1,
                deployed_by,
                trace: None,
            };
            cluster.services.insert(service.parse().expect("a service"), record.into());
        }
        View::from_states(cluster, BTreeMap::new(), &KnownVersions::default())
    }

    #[test]
    fn a_token_touches_its_own_projects_alone() {
        let view = view(&["shop/web", "bank/web"]);
        let mut ops = std::collections::BTreeSet::new();
        for project in ["shop", "bank", "none"] {
            for mut request in requests(project) {
                ops.insert(op(&request).to_string());
                let expected = may(&request);
                let before = request.clone();
                for all in [None, Some(["bank", "none", "shop"].as_slice())] {
                    let limited = all.is_some() && expected == May::Unlimited;
                    let result = restrict(&rights(all), &view, &mut request);
                    assert_eq!(result.is_err(), limited, "{before:?} with {all:?}: {result:?}");
                }
                let result = restrict(&rights(Some(&["shop"])), &view, &mut request);
                let refused = match expected {
                    May::Any => false,
                    May::OfProject => project != "shop",
                    May::Unlimited => true,
                };
                assert_eq!(result.is_err(), refused, "{before:?}: {result:?}");
                if let Err(error) = result {
                    assert_eq!(error.code, ErrorCode::PermissionDenied, "{error}");
                    assert!(error.message.contains("limited to the project shop"), "{error}");
                    let fix = match expected {
                        May::Unlimited => "without --project".to_owned(),
                        _ => format!("--project {project}"),
                    };
                    assert!(error.hint.ends_with(&fix), "{error}");
                }
                assert_eq!(request, before, "a full name stays as it is");
            }
        }
        assert_eq!(ops.len(), 67, "an example of each request: {ops:?}");
    }

    #[test]
    fn an_error_does_not_say_whether_a_service_of_another_project_exists() {
        let (with, without) = (view(&["shop/web", "bank/api"]), view(&["shop/web"]));
        let shop = rights(Some(&["shop"]));
        for text in ["api", "bank/api", "bank/", "/api", "/", "bank/api/x"] {
            let errors = [&with, &without].map(|view| {
                let mut request = Request::Remove { service: text.to_owned() };
                restrict(&shop, view, &mut request).expect_err(text)
            });
            assert_eq!(errors[0], errors[1], "{text}");
        }
    }

    #[test]
    fn a_name_without_a_project_means_a_service_of_the_own_projects() {
        let view = view(&["shop/web", "bank/web", "blog/web", "blog/api"]);
        let named = |projects: &[&str], text: &str| {
            let mut request = Request::Restart { service: text.to_owned(), force: false };
            restrict(&rights(Some(projects)), &view, &mut request)?;
            let Request::Restart { service, .. } = request else { panic!("a restart") };
            Ok::<_, ApiError>(service)
        };
        assert_eq!(named(&["shop"], "web").as_deref(), Ok("shop/web"));
        assert_eq!(named(&["blog", "shop"], "api").as_deref(), Ok("blog/api"));
        let several = named(&["blog", "shop"], "web").expect_err("two services").to_string();
        assert!(several.ends_with("name one of blog/web, shop/web"), "{several}");
    }

    #[test]
    fn events_of_other_projects_are_not_shown() {
        let event = |subject: &str| EventRow {
            time: 0,
            level: EventLevel::Info,
            subject: subject.to_owned(),
            text: String::new(),
        };
        let shop = rights(Some(&["shop"]));
        for (subject, shown) in [
            ("n1", true),
            ("shop/web", true),
            ("shop/web.2", true),
            ("bank/web", false),
            ("bank/shop.1", false),
        ] {
            assert_eq!(shows_event(&shop, &event(subject)), shown, "{subject}");
            assert!(shows_event(&rights(None), &event(subject)), "{subject}");
        }
    }
}
