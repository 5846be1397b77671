//! Events of volumes. What is compared is what the documents say, without clocks, so a copy that is late is told once.

use vc_crdt::View;
use vc_protocol::lease::Epoch;
use vc_protocol::volume::VolumeCopy;
use vc_protocol::{NodeId, VolumeKey, in_words};

use super::{Events, brief};
use crate::volume_report::{MAX_LAG, record};

/// Changes of volumes and of their copies.
pub(super) fn volumes(before: &View, after: &View, events: &mut Events) {
    let tombstones = &after.cluster.tombstones;
    for volume in before.input.volumes.keys().filter(|it| !after.input.volumes.contains_key(it)) {
        match tombstones.get(volume) {
            Some(stone) if before.cluster.tombstones.get(volume) != Some(stone) => {
                let text = match stone.forgotten {
                    true => "volume forgotten: its nodes keep the data aside",
                    false => "volume removed: its last snapshot is in the trash for 24 h",
                };
                events.info(volume, text);
                continue;
            }
            _ => {}
        }
        let (with_data, left) = (copies(before, volume), &after.left);
        let lost: Vec<_> = with_data.filter(|(_, it)| *it != &VolumeCopy::default()).collect();
        if !lost.is_empty() && lost.iter().all(|(node, _)| left.contains_key(node)) {
            let names: Vec<String> = lost.iter().map(|(node, _)| after.name(*node)).collect();
            let names = names.join(", ");
            events.error(volume, format!("volume lost: {names} left the cluster with its data"));
        }
    }
    for volume in after.input.volumes.keys() {
        writer(before, after, volume, events);
        for &node in &after.up {
            // What a node says whose document has just arrived is no news.
            let is_known = before.nodes.get(&node).is_some_and(|state| state.info.is_some());
            if let Some(now) = copy(after, node, volume).filter(|_| is_known) {
                let was = copy(before, node, volume).cloned().unwrap_or_default();
                self::copied(before, after, volume, (node, &was, now), events);
            }
        }
    }
}

/// Returns the copy of a volume on a node, unless it was removed since.
fn copy<'a>(view: &'a View, node: NodeId, volume: &VolumeKey) -> Option<&'a VolumeCopy> {
    record(view, node, volume)?.copy.as_ref()
}

fn copies<'a>(
    view: &'a View,
    volume: &VolumeKey,
) -> impl Iterator<Item = (NodeId, &'a VolumeCopy)> {
    view.nodes.keys().filter_map(move |&node| Some((node, copy(view, node, volume)?)))
}

/// Returns the node that wrote a volume last, and under which epoch.
fn last_writer(view: &View, volume: &VolumeKey) -> Option<(Epoch, NodeId)> {
    copies(view, volume).filter_map(|(node, copy)| Some((copy.written?, node))).max()
}

/// Tells that another node writes a volume now.
fn writer(before: &View, after: &View, volume: &VolumeKey, events: &mut Events) {
    let writers = (last_writer(before, volume), last_writer(after, volume));
    let (held, Some((epoch, to))) = writers else { return };
    let is_known = before.nodes.get(&to).is_some_and(|state| state.info.is_some());
    if held.is_some_and(|(held, from)| epoch <= held || from == to) || !is_known {
        return;
    }
    let begun = copy(after, to, volume).cloned().unwrap_or_default();
    let (is, age) = (after.name(to), in_words(events.now.saturating_sub(begun.taken)));
    let Some((_, from)) = held else {
        if let Some(id) = begun.snapshot.filter(|id| id.epoch < epoch) {
            let lost = "the node that wrote it has left the cluster";
            let from = format!("snapshot {id} on {is}, taken {age} ago");
            events.warning(volume, format!("volume goes on from {from}, as {lost}"));
        }
        return;
    };
    let was = after.name(from);
    let has_all = |view| {
        let left = copy(view, from, volume);
        left.is_some_and(|left| left.closed && left.snapshot <= begun.snapshot)
    };
    if has_all(before) || has_all(after) {
        events.info(volume, format!("volume moved from {was} to {is} with everything in it"));
        return;
    }
    let lost = match () {
        () if !after.nodes.contains_key(&from) => "has left the cluster",
        () if !after.up.contains(&from) => "is down",
        () => "cannot write it any more",
    };
    let text = match begun.snapshot {
        Some(id) => {
            format!(
                "volume goes on from snapshot {id} on {is}, taken {age} ago, as {was} {lost}: what was written there later is \
                 kept aside when {was} returns"
            )
        }
        None => format!(
            "volume begins empty on {is}, as {was} {lost} and no node that is up has a copy"
        ),
    };
    events.warning(volume, text);
}

/// Tells how a copy on a node that is up has changed.
fn copied(
    before: &View,
    after: &View,
    volume: &VolumeKey,
    (node, was, now): (NodeId, &VolumeCopy, &VolumeCopy),
    events: &mut Events,
) {
    let name = after.name(node);
    match (was.snapshot, now.snapshot) {
        (None, Some(id)) => {
            let removed = before.cluster.tombstones.get(volume);
            let is_new = !before.input.volumes.contains_key(volume);
            if is_new && removed.is_some_and(|removed| now.taken <= removed.at) {
                events.info(volume, format!("volume is back on {name}, with snapshot {id}"));
            } else if now.written.is_none() {
                events.info(volume, format!("volume has a copy on {name} now"));
            }
        }
        // While nothing may write it.
        (Some(old), Some(id))
            if old < id && was.closed && now.closed && now.written == Some(id.epoch) =>
        {
            events.info(volume, format!("volume restored on {name}: snapshot {id} is the newest"));
        }
        _ => {}
    }
    if now.conflicts > was.conflicts {
        events.warning(
            volume,
            format!(
                "what {name} wrote last is kept aside for 7 days, as another node's writes replace it: see 'vc volume conflicts \
                 {volume}'"
            ),
        );
    }
    match (&was.error, &now.error) {
        (None, Some(why)) => events.warning(
            volume,
            format!("the copy of the volume on {name} is not up to date: {}", brief(why)),
        ),
        (Some(_), None) => {
            events.info(volume, format!("the copy of the volume on {name} is in order again"));
        }
        _ => {}
    }
    let behind = |view: &View, copy: &VolumeCopy| {
        if !view.up.contains(&node) {
            return None;
        }
        let newest = copies(view, volume).map(|(_, it)| it).max_by_key(|it| it.snapshot)?;
        let (newest_id, id) = (newest.snapshot?, copy.snapshot?);
        // One that gets each snapshot while the next one is taken keeps up, however long that takes.
        let misses = newest_id.epoch > id.epoch || newest_id.number > id.number + 1;
        let lag = newest.taken.saturating_sub(copy.taken);
        (misses && newest_id > id && lag > MAX_LAG).then_some(lag)
    };
    match (behind(before, was), behind(after, now)) {
        (None, Some(lag)) => {
            let lag = in_words(lag);
            events.warning(volume, format!("the copy of the volume on {name} is {lag} behind"));
        }
        (Some(_), None) => {
            events.info(volume, format!("the copy of the volume on {name} has caught up"));
        }
        _ => {}
    }
}
