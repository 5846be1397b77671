//! Resolving references, and looking for images, with simulated members.

use vc_crdt::{ClusterState, ImageRecord, KnownVersions, NodeState, ServiceRecord, View};
use vc_frames::Frames;
use vc_protocol::image::{PathKind, RegistryAnswer, Request, Response};
use vc_protocol::node::NodeInfo;
use vc_protocol::spec::{Attribute, Constraint, ContainerSpec, Deployment, Mount, ServiceSpec};
use vc_protocol::{Name, ServiceKey};

use super::super::peer_set::PeerSet;
use super::super::resolve::Pinning;
use super::members::{Behaviour, network, node};
use super::*;

/// A member whose Docker engine has `image` under every reference, if any, and whose registries answer `registry`.
fn member(image: Option<Digest>, registry: RegistryAnswer) -> Behaviour {
    Arc::new(move |stream| {
        let (image, registry) = (image.clone(), registry.clone());
        Box::pin(async move {
            let mut frames = Frames::new(stream, 1 << 22);
            let response = match frames.receive().await {
                Ok(Request::Resolve(_)) => Response::Resolved(image),
                Ok(Request::Has(ids)) => {
                    let held = ids.into_iter().filter(|id| Some(id) == image.as_ref());
                    Response::Has(held.map(|id| (id, false)).collect())
                }
                Ok(Request::InRegistry(_)) => Response::InRegistry(registry),
                Ok(Request::MissingPaths(paths)) => Response::MissingPaths(paths),
                // An old member has no answer to two paths.
                Ok(Request::HostPaths(paths)) if paths.len() == 1 => {
                    Response::HostPaths(vec![PathKind::Directory])
                }
                _ => return,
            };
            let _ = frames.send(&response).await;
        })
    })
}

fn unreachable() -> RegistryAnswer {
    RegistryAnswer::Missing("no such host".to_owned())
}

fn key(text: &str) -> ServiceKey {
    text.parse().expect("a service")
}

fn container(image: &str, id: Option<&Digest>) -> ContainerSpec {
    ContainerSpec {
        image: image.to_owned(),
        image_id: id.map(ToString::to_string),
        ..ContainerSpec::default()
    }
}

fn deployment(service: &str, image: &str) -> Deployment {
    let spec = ServiceSpec { container: container(image, None), ..ServiceSpec::default() };
    Deployment { service: key(service), replicas: None, spec: spec.into() }
}

/// Returns a view with three nodes, of which the last is down, and these services.
fn view(services: &[(&str, &str, &Digest)]) -> View {
    let mut cluster = ClusterState::default();
    for (revision, (service, image, id)) in (1..).zip(services) {
        let spec = ServiceSpec { container: container(image, Some(id)), ..ServiceSpec::default() };
        let (spec, deployed_by) = (spec.into(), "ada".to_owned());
        let record =
            ServiceRecord { spec, previous: None, revision, updated: 1, deployed_by, trace: None };
        cluster.services.insert(key(service), record.into());
    }
    let state = |number: u8| NodeState {
        info: Some(NodeInfo::for_tests(&format!("h{number}"))),
        ..NodeState::default()
    };
    let nodes = (1..=3).map(|number| (node(number), state(number))).collect();
    let mut view = View::from_states(cluster, nodes, &KnownVersions::default());
    view.up.remove(&node(3));
    view
}

/// Returns the images of the first node of a view, with these other members.
fn images_in(view: &View, members: Vec<(u8, Behaviour)>) -> (TempDir, Images) {
    let dir = tempfile::tempdir().expect("a directory");
    let images = Images::with_peers(dir.path(), None, network(members)).expect("a store");
    images.set_peers(PeerSet::of(view, node(1)));
    (dir, images)
}

/// Returns the id that a deployment is pinned to.
async fn pin(
    images: &Images,
    view: &View,
    projects: Option<&BTreeSet<Name>>,
    deployment: Deployment,
) -> Option<String> {
    let mut deployments = [deployment];
    let by = Pinning { view, own: node(1), projects, pull: false };
    images.pin(by, &mut deployments).await;
    deployments[0].spec.container.image_id.clone()
}

#[tokio::test]
async fn a_pinned_image_stays_whatever_the_engines_have() {
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let mut view = view(&[("shop/web", "app:latest", &old)]);
    let (_dir, images) = images_in(&view, vec![(2, member(Some(new.clone()), unreachable()))]);
    let pinned = pin(&images, &view, None, deployment("shop/web", "app")).await;
    assert_eq!(pinned, Some(old.to_string()), "the same file changes nothing");
    let pinned = pin(&images, &view, None, deployment("shop/web", "app:2")).await;
    assert_eq!(pinned, Some(new.to_string()), "another reference is resolved");
    let record = ImageRecord { id: new.to_string(), size: 1, pushed: 1, projects: None };
    view.cluster.images.insert("app:latest".to_owned(), record);
    let pinned = pin(&images, &view, None, deployment("shop/web", "app")).await;
    assert_eq!(pinned, Some(new.to_string()), "a push changes what the reference means");
}

#[tokio::test]
async fn a_new_service_gets_the_image_that_others_are_pinned_to() {
    let (ours, theirs, common) =
        (Digest::of(b"ours"), Digest::of(b"theirs"), Digest::of(b"common"));
    let view = view(&[("shop/web", "app:1", &ours), ("bank/web", "app:2", &theirs)]);
    let shop: BTreeSet<Name> = ["shop".parse().expect("a name")].into();
    let (_dir, images) = images_in(&view, vec![(2, member(Some(common.clone()), unreachable()))]);
    let pinned = pin(&images, &view, Some(&shop), deployment("shop/api", "app:1")).await;
    assert_eq!(pinned, Some(ours.to_string()), "that of the project");
    // Another project's pin is no answer by itself: its tokens could choose what this project runs.
    for projects in [None, Some(&shop)] {
        let pinned = pin(&images, &view, projects, deployment("shop/api", "app:2")).await;
        assert_eq!(pinned, Some(common.to_string()));
    }
}

#[tokio::test]
async fn engines_that_differ_give_one_answer_on_every_node() {
    let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
    let members = |a: &Digest, b: &Digest| {
        vec![
            (2, member(Some(a.clone()), unreachable())),
            (3, member(Some(b.clone()), unreachable())),
        ]
    };
    let mut all = view(&[]);
    all.up.insert(node(3));
    let mut answers = BTreeSet::new();
    for (a, b) in [(&one, &other), (&other, &one)] {
        let (_dir, images) = images_in(&all, members(a, b));
        answers.insert(pin(&images, &all, None, deployment("shop/api", "app:2")).await);
    }
    assert_eq!(answers, [Some(one.clone().min(other.clone()).to_string())].into());
    // What a visible service is pinned to comes first, in its project or not.
    let highest = one.max(other.clone());
    let mut pinned = view(&[("bank/web", "app:2", &highest)]);
    pinned.up.insert(node(3));
    let lowest = Digest::of(b"1").min(other);
    let (_dir, images) = images_in(&pinned, members(&lowest, &highest));
    let shop: BTreeSet<Name> = ["shop".parse().expect("a name")].into();
    let answer = pin(&images, &pinned, None, deployment("shop/api", "app:2")).await;
    assert_eq!(answer, Some(highest.to_string()));
    let answer = pin(&images, &pinned, Some(&shop), deployment("shop/api", "app:2")).await;
    assert_eq!(answer, Some(lowest.to_string()), "what the token may not see has no effect");
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_reported_with_what_was_searched() {
    let id = Digest::of(b"an image");
    let view = view(&[]);
    let check = async |member: Behaviour, container: ContainerSpec| {
        let (_dir, images) = images_in(&view, vec![(2, member)]);
        images.check_available(&view, node(1), &[(&key("shop/web"), &container)]).await
    };
    let missing = check(member(None, unreachable()), container("web:1", None)).await;
    let text = missing.expect_err("nowhere").to_string();
    let expected = "shop/web: image web:1 is on no node and in no registry: Docker does not have it on h1, h2 (h3 is down); \
                    registry: no such host";
    assert_eq!(text, expected);
    let pinned = || container("web:1", Some(&id));
    let text = check(member(None, unreachable()), pinned()).await.expect_err("nowhere").to_string();
    assert!(text.contains(&format!("image web:1 ({}) is on no node", id.short())), "{text}");
    let by_id = container(id.as_str(), Some(&id));
    let text =
        check(member(None, RegistryAnswer::Found), by_id).await.expect_err("nowhere").to_string();
    assert!(text.contains("named by its id alone"), "{text}");

    assert_eq!(check(member(None, RegistryAnswer::Found), container("web:1", None)).await, Ok(()));
    assert_eq!(check(member(None, RegistryAnswer::Unknown), pinned()).await, Ok(()));
    assert_eq!(check(member(Some(id.clone()), unreachable()), pinned()).await, Ok(()));
    assert_eq!(
        check(member(Some(id.clone()), unreachable()), container("web:1", None)).await,
        Ok(())
    );
}

#[tokio::test]
async fn a_host_path_that_the_pinned_node_lacks_is_reported() {
    let view = view(&[]);
    let check = async |node_name: &str, equal: bool| {
        let source = "/srv/data".to_owned();
        let mount = Mount::Bind { source, target: "/data".to_owned(), read_only: false };
        let (attribute, value) = (Attribute::Name, node_name.to_owned());
        let spec = ServiceSpec {
            container: ContainerSpec { mounts: vec![mount], ..container("web:1", None) },
            constraints: vec![Constraint { attribute, equal, value }],
            ..ServiceSpec::default()
        };
        let (_dir, images) = images_in(&view, vec![(2, member(None, unreachable()))]);
        images.check_host_paths(&view, node(1), &key("shop/web"), &spec).await
    };
    let missing = check("h2", true).await.expect_err("the member lacks it");
    let text =
        "shop/web: the host path /srv/data does not exist on h2, which the service is pinned to";
    assert_eq!(missing.to_string(), text);
    let refused = vc_protocol::ApiError::from(missing).to_string();
    assert!(refused.contains("mkdir -p /srv/data") && refused.contains("--force"), "{refused}");
    assert_eq!(check("h3", true).await, Ok(()), "a node that is down");
    assert_eq!(check("h2", false).await, Ok(()), "not pinned");
}

#[tokio::test]
async fn nodes_that_are_up_are_asked_what_they_have_at_a_path() {
    let view = view(&[]);
    let (_dir, images) = images_in(&view, vec![(2, member(None, unreachable()))]);
    let ask = async |paths: &[&str]| {
        let paths = paths.iter().map(|&path| path.to_owned()).collect();
        images.look_up_paths(&view, node(1), paths).await
    };
    let missing = Some(vec![PathKind::Missing]);
    let directory = Some(vec![PathKind::Directory]);
    // This one has no engine in the test; the third is down.
    assert_eq!(ask(&["/srv"]).await, [(node(1), missing), (node(2), directory)].into());
    assert_eq!(ask(&["/a", "/b"]).await[&node(2)], None, "no answer is not an empty one");
}
