//! What the watchdog is to hold, by what the engine and the runtime say.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;
use vc_protocol::{InstanceId, Millis};
use vc_watchdog::Target;
use vc_watchdog::message::{Hello, Request};

use super::handle::WatchdogError;

/// How long deadlines of the process before are kept after they have passed.
const INHERITED_KEPT: Millis = 60_000;

/// The answer that a caller waits for: whether its target is held.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) instance: String,
    pub(super) answer: oneshot::Sender<Result<(), WatchdogError>>,
}

/// What the watchdog is to hold.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The engine's deadlines.
    deadlines: BTreeMap<String, Millis>,
    /// Deadlines that an earlier process of this node set, of instances that the engine has not named yet.
    inherited: BTreeMap<String, Millis>,
    /// What exists of each instance.
    targets: BTreeMap<String, Target>,
    /// The instances of which the target is newer than any list.
    confirmed: BTreeSet<String>,
    /// The targets that the connected watchdog has.
    held: BTreeMap<String, Target>,
    removed: Vec<String>,
    waiters: Vec<Waiter>,
    /// It differs from what the watchdog was told last.
    changed: bool,
}

/// A request, and the callers that wait for its answer.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) request: Request,
    pub(super) waiters: Vec<Waiter>,
}

impl Wanted {
    /// Sets the engine's deadlines.
    pub(super) fn set_deadlines(&mut self, deadlines: BTreeMap<String, Millis>) {
        self.inherited.retain(|instance, _| !deadlines.contains_key(instance));
        self.changed |= self.deadlines != deadlines;
        self.deadlines = deadlines;
    }

    /// Adds a target, and a caller that waits until it is held.
    pub(super) fn add_target(&mut self, target: Target, waiter: Waiter) {
        self.targets.insert(waiter.instance.clone(), target);
        self.confirmed.insert(waiter.instance.clone());
        self.waiters.push(waiter);
        self.changed = true;
    }

    /// Sets what exists. A target that is not in the list is gone, unless it was added after the list was made: then it has a deadline, or
    /// a caller that waits for it.
    pub(super) fn set_listed(&mut self, listed: BTreeMap<String, Target>) {
        let is_new = |instance: &String| {
            self.deadlines.contains_key(instance)
                || self.waiters.iter().any(|waiter| waiter.instance == *instance)
        };
        let gone = self.targets.keys().filter(|it| !listed.contains_key(*it) && !is_new(it));
        let gone: Vec<String> = gone.cloned().collect();
        gone.iter().for_each(|instance| self.remove(instance));
        // A list may have been made before a container was replaced.
        let older = listed.into_iter().filter(|(instance, _)| !self.confirmed.contains(instance));
        self.targets.extend(older);
        self.changed = true;
    }

    /// Keeps the deadlines of the process before.
    pub(super) fn inherit(&mut self, mut deadlines: BTreeMap<String, Millis>) {
        deadlines.retain(|instance, _| !self.deadlines.contains_key(instance));
        self.inherited = deadlines;
    }

    /// Makes the inherited deadlines of instances the engine's, and returns them.
    pub(super) fn take_inherited(&mut self) -> BTreeMap<InstanceId, Millis> {
        let named = self.inherited.iter().filter_map(|(it, &at)| Some((it.parse().ok()?, at)));
        let named: BTreeMap<InstanceId, Millis> = named.collect();
        for (id, &at) in &named {
            let instance = id.to_string();
            self.inherited.remove(&instance);
            self.deadlines.insert(instance, at);
        }
        named
    }

    /// Drops an instance that was removed, so that nothing can start it again.
    pub(super) fn remove(&mut self, instance: &str) {
        self.confirmed.remove(instance);
        let known = self.targets.remove(instance).is_some() | self.held.contains_key(instance);
        if self.inherited.remove(instance).is_some() || known {
            self.removed.push(instance.to_owned());
            self.changed = true;
        }
    }

    /// Reports whether there is anything to watch.
    pub(super) fn needs_watchdog(&self) -> bool {
        self.deadlines.values().any(|&at| at != Millis::MAX) || !self.waiters.is_empty()
    }

    /// Fails the callers that wait.
    pub(super) fn fail(&mut self, error: &WatchdogError) {
        for waiter in self.waiters.drain(..) {
            // The caller may wait no more.
            let _ = waiter.answer.send(Err(error.clone()));
        }
    }

    /// Prepares for a new connection to a watchdog that holds this.
    pub(super) fn connected(&mut self, hello: &Hello) {
        self.held.clone_from(&hello.targets);
        self.changed = true;
    }

    /// Returns what the watchdog has to be told; `None` if it holds everything.
    pub(super) fn take_batch(&mut self, number: u64, now: Millis) -> Option<Batch> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut deadlines = self.deadlines.clone();
        self.inherited.retain(|_, &mut at| at.saturating_add(INHERITED_KEPT) > now);
        deadlines.extend(self.inherited.clone());
        let waiters = std::mem::take(&mut self.waiters);
        let is_needed = |instance: &String| {
            deadlines.contains_key(instance) || waiters.iter().any(|it| it.instance == *instance)
        };
        let missing = self.targets.iter().filter(|&(instance, target)| {
            is_needed(instance) && self.held.get(instance) != Some(target)
        });
        let mut targets: BTreeMap<String, Target> =
            missing.map(|(instance, target)| (instance.clone(), target.clone())).collect();
        // One that is being created again has another target by now.
        let removed: Vec<String> = std::mem::take(&mut self.removed)
            .into_iter()
            .filter(|it| !self.targets.contains_key(it))
            .collect();
        // A target that is confirmed again is sent again: its deadline may have passed.
        for waiter in &waiters {
            if let Some(target) = self.targets.get(&waiter.instance) {
                targets.insert(waiter.instance.clone(), target.clone());
            }
        }
        self.held.retain(|instance, _| !removed.contains(instance));
        self.held.extend(targets.clone());
        let request =
            Request { number, deadlines: Some(deadlines), targets, removed, ..Request::default() };
        Some(Batch { request, waiters })
    }

    /// Takes back what a watchdog has not confirmed before it ended.
    pub(super) fn undo(&mut self, batch: Batch) {
        self.removed.extend(batch.request.removed);
        self.waiters.extend(batch.waiters.into_iter().filter(|it| !it.answer.is_closed()));
        self.held.clear();
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DB: &str = "shop/db.1@ab";

    fn container(id: &str) -> Target {
        Target::Container(id.to_owned())
    }

    fn deadlines(all: &[(&str, Millis)]) -> BTreeMap<String, Millis> {
        all.iter().map(|&(instance, at)| (instance.to_owned(), at)).collect()
    }

    fn waiter(instance: &str) -> Waiter {
        Waiter { instance: instance.to_owned(), answer: oneshot::channel().0 }
    }

    fn batch(wanted: &mut Wanted) -> Request {
        wanted.take_batch(1, 1000).expect("something has changed").request
    }

    #[test]
    fn inherited_deadlines_hold_until_the_engine_names_the_instance_or_it_is_removed() {
        let mut wanted = Wanted::default();
        let held = deadlines(&[(DB, 2000), ("shop/db.2@ab", 2000), ("shop/db.3@ab", 2000)]);
        wanted.inherit(held.clone());
        wanted.set_listed(BTreeMap::new());
        assert_eq!(batch(&mut wanted).deadlines, Some(held));
        wanted.set_deadlines(deadlines(&[(DB, 3000)]));
        wanted.remove("shop/db.2@ab");
        let request = batch(&mut wanted);
        assert_eq!(request.deadlines, Some(deadlines(&[(DB, 3000), ("shop/db.3@ab", 2000)])));
        assert_eq!(request.removed, ["shop/db.2@ab"]);
        // Not again, when the engine drops it.
        wanted.set_deadlines(BTreeMap::new());
        assert_eq!(batch(&mut wanted).deadlines, Some(deadlines(&[("shop/db.3@ab", 2000)])));
        // Nor when it has gone on from them.
        assert_eq!(wanted.take_inherited().len(), 1);
        wanted.set_deadlines(BTreeMap::new());
        assert_eq!(batch(&mut wanted).deadlines, Some(BTreeMap::new()));
        assert!(wanted.take_batch(2, 1000).is_none());
    }

    #[test]
    fn a_new_watchdog_gets_all_targets_that_have_a_deadline() {
        let mut wanted = Wanted::default();
        wanted.set_deadlines(deadlines(&[(DB, 2000)]));
        let all = [(DB, "1"), ("shop/web.1@ab", "2")];
        let all = all.map(|(instance, id)| (instance.to_owned(), container(id)));
        wanted.set_listed(all.into());
        let first = batch(&mut wanted);
        assert_eq!(first.targets, [(DB.to_owned(), container("1"))].into());
        wanted.connected(&Hello { targets: first.targets.clone(), ..Hello::default() });
        assert_eq!(batch(&mut wanted).targets, BTreeMap::new());
        wanted.connected(&Hello::default());
        assert_eq!(batch(&mut wanted).targets, first.targets);
    }

    #[test]
    fn what_was_not_confirmed_is_sent_again() {
        let mut wanted = Wanted::default();
        wanted.add_target(container("1"), waiter(DB));
        assert!(wanted.needs_watchdog());
        let (answer, _answered) = oneshot::channel();
        wanted.add_target(container("2"), Waiter { instance: DB.to_owned(), answer });
        let batch = wanted.take_batch(1, 1000).expect("changed");
        assert_eq!(batch.request.targets, [(DB.to_owned(), container("2"))].into());
        wanted.undo(batch);
        let batch = wanted.take_batch(2, 1000).expect("changed");
        assert_eq!(batch.request.targets, [(DB.to_owned(), container("2"))].into());
        assert_eq!(batch.waiters.len(), 1, "the other caller waits no more");
    }

    #[test]
    fn targets_that_are_not_listed_are_dropped_unless_they_are_new() {
        let mut wanted = Wanted::default();
        wanted.set_listed([("shop/web.1@ab".to_owned(), container("1"))].into());
        wanted.set_deadlines(deadlines(&[(DB, 2000)]));
        wanted.add_target(container("2"), waiter(DB));
        batch(&mut wanted);
        wanted.set_listed(BTreeMap::new());
        wanted.connected(&Hello::default());
        let request = batch(&mut wanted);
        assert_eq!(request.removed, ["shop/web.1@ab"]);
        assert_eq!(request.targets, [(DB.to_owned(), container("2"))].into());
    }

    #[test]
    fn a_list_that_was_made_before_a_container_was_replaced_does_not_bring_the_old_one_back() {
        let mut wanted = Wanted::default();
        wanted.set_listed([(DB.to_owned(), container("1"))].into());
        wanted.remove(DB);
        wanted.add_target(container("2"), waiter(DB));
        wanted.set_listed([(DB.to_owned(), container("1"))].into());
        assert_eq!(batch(&mut wanted).targets, [(DB.to_owned(), container("2"))].into());
        wanted.remove(DB);
        wanted.set_listed([(DB.to_owned(), container("3"))].into());
        wanted.set_deadlines(deadlines(&[(DB, 2000)]));
        assert_eq!(batch(&mut wanted).targets, [(DB.to_owned(), container("3"))].into());
    }
}
