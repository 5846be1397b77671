//! References of pushed images.

use std::collections::BTreeSet;

use vc_crdt::{ClusterState, DocumentError, Held};
use vc_protocol::control::Change;

use super::MutationError;
use crate::history::kept_images;

/// Forgets references.
///
/// # Errors
/// One is not known, a service needs its image, or a version that it can return to, or this version cannot read something, which may
/// need them.
pub(super) fn remove(
    held: &Held,
    state: &mut ClusterState,
    references: &BTreeSet<String>,
) -> Result<Vec<Change>, MutationError> {
    check_all_readable(held)?;
    let mut changes = Vec::new();
    for reference in references {
        let Some(record) = state.images.get(reference) else {
            return Err(MutationError::NoImage { reference: reference.clone() });
        };
        let id = record.id.clone();
        let mut kept = kept_images(state);
        if kept.any(|spec| {
            spec.container.image_id.as_ref().is_some_and(|it| *it == id)
                || spec.container.image == *reference
        }) {
            return Err(MutationError::ImageInUse { reference: reference.clone() });
        }
        drop(kept);
        state.images.remove(reference);
        changes.push(Change::ImageRemoved { reference: reference.clone(), id });
    }
    Ok(changes)
}

/// Checks that this version can read all that may need an image.
///
/// # Errors
/// It cannot.
pub fn check_all_readable(held: &Held) -> Result<(), MutationError> {
    match held.has_unreadable || !held.documents.is_empty() {
        true => Err(DocumentError::Held.into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use vc_crdt::{ImageRecord, ServiceRecord};
    use vc_protocol::spec::ServiceSpec;

    use super::*;

    #[test]
    fn references_that_a_service_or_its_earlier_version_needs_stay() {
        let mut state = ClusterState::default();
        for (reference, id) in [("web:1", "a"), ("web:2", "b"), ("old:1", "c")] {
            let record = ImageRecord { id: id.to_owned(), size: 1, pushed: 1, projects: None };
            state.images.insert(reference.to_owned(), record);
        }
        let spec = |image: &str, id: &str| {
            let mut spec = ServiceSpec::default();
            spec.container.image = image.to_owned();
            spec.container.image_id = Some(id.to_owned());
            spec
        };
        let record = ServiceRecord {
            spec: spec("web:2", "b").into(),
            previous: Some(spec("web:1", "a").into()),
            revision: 1,
            updated: 1,
            deployed_by: "ann".to_owned(),
            trace: None,
        };
        state.services.insert("shop/web".parse().expect("a service"), record.into());
        let mut removed = |reference: &str| {
            let removed = remove(&Held::default(), &mut state, &[reference.to_owned()].into());
            removed.map(|it| it.len()).map_err(|error| error.to_string())
        };
        for needed in ["web:1", "web:2"] {
            let refused = removed(needed).expect_err("needed");
            assert!(refused.contains("is needed"), "{refused}");
        }
        assert_eq!(removed("old:1"), Ok(1));
        assert!(removed("old:1").is_err(), "it is gone");
    }

    #[test]
    fn nothing_is_removed_while_something_is_unreadable() {
        let mut state = ClusterState::default();
        let record = ImageRecord { id: "a".to_owned(), size: 1, pushed: 1, projects: None };
        state.images.insert("old:1".to_owned(), record);
        let held = Held { has_unreadable: true, ..Held::default() };
        let refused = remove(&held, &mut state, &["old:1".to_owned()].into());
        let error = refused.expect_err("refused").to_string();
        assert!(error.contains("upgrade"), "{error}");
        assert!(state.images.contains_key("old:1"));
    }
}
