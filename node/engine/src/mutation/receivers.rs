//! Receivers of alerts.

use std::collections::BTreeMap;

use vc_crdt::{ClusterState, Receiver, ReceiverTarget, SealedFile};
use vc_protocol::Name;
use vc_protocol::control::Change;

use super::MutationError;

/// Most receivers of a cluster.
pub const MAX_RECEIVERS: usize = 16;

/// Adds a receiver.
///
/// # Errors
/// There is one of this name, or there are too many.
pub(super) fn add(
    state: &mut ClusterState,
    name: &Name,
    receiver: &Receiver,
) -> Result<Change, MutationError> {
    if state.receivers.contains_key(name) {
        return Err(MutationError::ReceiverExists { name: name.clone() });
    }
    if state.receivers.len() >= MAX_RECEIVERS {
        return Err(MutationError::TooManyReceivers);
    }
    // Of an earlier receiver of this name, which another server removed at the same time.
    state.alerts.retain(|key, _| key.receiver != *name);
    state.receivers.insert(name.clone(), receiver.clone().into());
    Ok(Change::ReceiverAdded { receiver: name.clone() })
}

/// Removes a receiver, with what is known of its alerts.
///
/// # Errors
/// There is none of this name.
pub(super) fn remove(state: &mut ClusterState, name: &Name) -> Result<Change, MutationError> {
    if state.receivers.remove(name).is_none() {
        return Err(MutationError::NoReceiver { name: name.clone() });
    }
    state.alerts.retain(|key, _| key.receiver != *name);
    Ok(Change::ReceiverRemoved { receiver: name.clone() })
}

/// Replaces sealed URLs by the same ones, sealed with another key. Receivers that are gone are left out.
pub(super) fn reseal(state: &mut ClusterState, urls: &BTreeMap<Name, SealedFile>) {
    for (name, sealed) in urls {
        let receiver = state.receivers.get_mut(name).map(|receiver| &mut receiver.target);
        if let Some(ReceiverTarget::Webhook { url, .. }) = receiver {
            url.clone_from(sealed);
        }
    }
}
