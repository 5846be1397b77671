//! Requests about images.

use std::collections::BTreeSet;

use vc_crdt::View;
use vc_engine::history::kept_images;
use vc_engine::{Mutation, MutationError, check_all_readable};
use vc_protocol::control::{ImagePush, Reply};
use vc_protocol::image::Digest;
use vc_protocol::{ApiError, ErrorCode, Millis, ServiceKey};

use super::ControlService;
use crate::auth::{Rights, User};
use crate::frames::{Duplex, FrameError, Frames};
use vc_runtime::images::{PushError, Pushed, reference};

/// For how long a reference that was pushed is not pruned.
const NEW: Millis = 3_600_000;

/// Why a token that is limited to projects may not give an image a reference, which all projects share.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum ReferenceError {
    #[error("the image reference {0} is used by another project")]
    OtherProject(String),
    #[error("the image reference {0} exists, and no service of the token's projects uses it")]
    Exists(String),
}

impl From<ReferenceError> for ApiError {
    fn from(error: ReferenceError) -> Self {
        Self::new(ErrorCode::PermissionDenied, error.to_string())
            .with_hint("push it under another name, or ask an admin for a token without --project")
    }
}

impl ControlService {
    /// Lists the images that members hold, as far as the user may see them.
    pub(super) async fn images(&self, user: &User) -> Reply {
        let view = self.cluster.view_of(user);
        Reply::Images(self.images.rows(&view, self.cluster.membership().node).await)
    }

    /// Forgets references that users name as they like.
    pub(super) async fn remove_images(
        &self,
        user: &User,
        references: &[String],
    ) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        let needed = needed_references(&view);
        let mut canonical = BTreeSet::new();
        for text in references {
            let reference = reference::canonical(text)
                .map_err(|error| ApiError::new(ErrorCode::InvalidArgument, error.to_string()))?;
            if needed.contains(&reference) {
                return Err(MutationError::ImageInUse { reference }.into());
            }
            canonical.insert(reference);
        }
        self.cluster.mutate(user, Mutation::RemoveImages { references: canonical }).await
    }

    /// Forgets the references that nothing needs, or lists them.
    pub(super) async fn prune_images(&self, user: &User, apply: bool) -> Result<Reply, ApiError> {
        let view = self.cluster.latest().view;
        // A dry run shows nothing that would be refused.
        check_all_readable(&view.held)?;
        let unused = unused_references(&view, crate::clock::now());
        if apply {
            return self.cluster.mutate(user, Mutation::RemoveImages { references: unused }).await;
        }
        let mut rows = self.images.rows(&view, self.cluster.membership().node).await;
        rows.retain(|row| row.services.is_empty() && unused.contains(&row.reference));
        Ok(Reply::Images(rows))
    }

    /// Receives an image from the client, then points its reference at it.
    ///
    /// # Errors
    /// The stream is closed, or an image was refused: what the client still sends is no request.
    pub(super) async fn push_image(
        &self,
        user: &User,
        push: &ImagePush,
        frames: &mut Frames<impl Duplex>,
    ) -> Result<Result<Reply, ApiError>, FrameError> {
        let check = |reference: &str| {
            let view = self.cluster.latest().view;
            check_reference(&user.rights, &view, reference).map_err(ApiError::from)
        };
        let allowed = reference::canonical(&push.reference).map(|it| check(&it));
        if let Ok(Err(error)) = allowed {
            frames.send(&Reply::Error(error)).await?;
            return Err(FrameError::Closed);
        }
        match self.images.receive_push(push, frames).await {
            Ok(Pushed { reference, id, size }) => {
                // It may have come into use meanwhile.
                if let Err(error) = check(&reference) {
                    return Ok(Err(error));
                }
                let projects = user.rights.projects().cloned();
                let mutation = Mutation::Image { reference, id: id.into(), size, projects };
                Ok(self.cluster.mutate(user, mutation).await)
            }
            Err(PushError::Stream(error)) => Err(error),
            Err(error) => {
                frames.send(&Reply::Error(error.into())).await?;
                Err(FrameError::Closed)
            }
        }
    }
}

impl ControlService {
    /// Points a pushed reference at the image that it names by now.
    pub(super) async fn record_image(
        &self,
        user: &User,
        reference: String,
        id: Digest,
        size: u64,
    ) -> Result<(), ApiError> {
        check_reference(&user.rights, &self.cluster.latest().view, &reference)?;
        let projects = user.rights.projects().cloned();
        let mutation = Mutation::Image { reference, id: id.into(), size, projects };
        self.cluster.mutate(user, mutation).await.map(drop)
    }
}

/// Returns the references of all images that services need, or versions that they can return to.
fn needed_references(view: &View) -> BTreeSet<String> {
    let kept = kept_images(&view.cluster);
    let named: BTreeSet<String> =
        kept.filter_map(|spec| reference::canonical(&spec.container.image).ok()).collect();
    let ids: BTreeSet<&String> =
        kept_images(&view.cluster).filter_map(|spec| spec.container.image_id.as_ref()).collect();
    let pinned = view.cluster.images.iter().filter(|(_, record)| ids.contains(&record.id));
    pinned.map(|(reference, _)| reference.clone()).chain(named).collect()
}

/// Returns the references that nothing needs, without those that were pushed a moment ago: a deployment may be about to name them.
fn unused_references(view: &View, now: Millis) -> BTreeSet<String> {
    let needed = needed_references(view);
    let images = view.cluster.images.iter();
    let old = images.filter(|(_, record)| record.pushed.saturating_add(NEW) < now);
    old.map(|(reference, _)| reference).filter(|it| !needed.contains(*it)).cloned().collect()
}

/// Checks that a user may push an image under a canonical reference: with a token that is limited to projects only one that is
/// new, that such a token pushed, or that services of these projects use, and no others.
fn check_reference(rights: &Rights, view: &View, wanted: &str) -> Result<(), ReferenceError> {
    let Some(projects) = rights.projects() else { return Ok(()) };
    let uses = |service: &ServiceKey| {
        let record = &view.cluster.services[service];
        let mut specs = std::iter::once(&record.spec).chain(&record.previous);
        specs.any(|spec| reference::canonical(&spec.container.image).is_ok_and(|it| it == wanted))
    };
    let (own, others): (Vec<&ServiceKey>, Vec<&ServiceKey>) = view
        .cluster
        .services
        .keys()
        .filter(|it| uses(it))
        .partition(|it| projects.contains(&it.project));
    if !others.is_empty() {
        return Err(ReferenceError::OtherProject(wanted.to_owned()));
    }
    let held = view.cluster.images.get(wanted);
    let is_own = |pushed: &Option<_>| {
        pushed.as_ref().is_some_and(|it: &std::collections::BTreeSet<_>| it.is_subset(projects))
    };
    match held {
        Some(record) if own.is_empty() && !is_own(&record.projects) => {
            Err(ReferenceError::Exists(wanted.to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vc_crdt::{ClusterState, ImageRecord, KnownVersions, ServiceRecord};
    use vc_protocol::Name;
    use vc_protocol::spec::ServiceSpec;
    use vc_protocol::token::{UserLimits, UserRole};

    use super::*;

    fn projects(names: &[&str]) -> Option<BTreeSet<Name>> {
        Some(names.iter().map(|it| it.parse().expect("a name")).collect())
    }

    fn rights(names: Option<BTreeSet<Name>>) -> Rights {
        let limits = UserLimits { projects: names, logs: false };
        Rights { name: "ann".to_owned(), role: UserRole::Deployer, limits }
    }

    fn view() -> View {
        let mut cluster = ClusterState::default();
        for (key, image) in [
            ("shop/web", "web:1"),
            ("bank/api", "docker.io/api"),
            ("bank/db", "shared:1"),
            ("shop/db", "shared:1"),
        ] {
            let mut spec = ServiceSpec::default();
            spec.container.image = image.to_owned();
            let deployed_by = "ada".to_owned();
            let (spec, previous) = (spec.into(), None);
            let record =
                ServiceRecord { spec, previous, revision: 1, updated: 1, deployed_by, trace: None };
            cluster.services.insert(key.parse().expect("a service"), record.into());
        }
        for (reference, projects) in [
            ("web:1", None),
            ("unused:1", None),
            ("pushed:1", projects(&["shop"])),
            ("both:1", projects(&["bank", "shop"])),
        ] {
            let record = ImageRecord { id: String::new(), size: 0, pushed: 0, projects };
            cluster.images.insert(reference.to_owned(), record);
        }
        View::from_states(cluster, BTreeMap::new(), &KnownVersions::default())
    }

    #[test]
    fn references_that_no_service_names_are_unused_after_an_hour() {
        let view = view();
        let unused = |now| unused_references(&view, now).into_iter().collect::<Vec<_>>();
        assert_eq!(unused(NEW), [""; 0]);
        assert_eq!(unused(NEW + 1), ["both:1", "pushed:1", "unused:1"]);
    }

    #[test]
    fn a_project_token_replaces_references_of_its_own_projects_only() {
        let view = view();
        let shop = rights(projects(&["shop"]));
        let check = |wanted: &str| check_reference(&shop, &view, wanted);
        for allowed in ["new:1", "web:1", "pushed:1"] {
            assert_eq!(check(allowed), Ok(()), "{allowed}");
        }
        for used in ["api:latest", "shared:1"] {
            assert_eq!(check(used), Err(ReferenceError::OtherProject(used.to_owned())));
        }
        for exists in ["unused:1", "both:1"] {
            assert_eq!(check(exists), Err(ReferenceError::Exists(exists.to_owned())));
        }
        for any in ["api:latest", "shared:1", "unused:1"] {
            assert_eq!(check_reference(&rights(None), &view, any), Ok(()));
        }
    }
}
