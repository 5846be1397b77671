//! The pure core: what the watchdog holds, and what is to be killed when.

use std::collections::BTreeMap;

use crate::message::{Deadlines, Hello, Killed, Reply, Request, Target};

/// The most instances that have a deadline or a target.
const MAX_INSTANCES: usize = 16_384;
/// The most ends that are kept for the next connection of the node.
const MAX_KILLED: usize = 256;
/// Time between two searches for the processes of an expired target, while there are some.
const KILL_INTERVAL: u64 = 10;
/// Time between two searches for the processes of an expired container, while there are none.
const WATCH_INTERVAL: u64 = 1000;
/// For how long an expired container is watched without a node: its engine may hang with a request to start it.
const WATCH_TIMEOUT: u64 = 600_000;

/// A target whose deadline has passed: whatever runs of it is killed, and no later deadline changes that. An instance that is
/// started under another epoch is another target.
#[derive(Debug)]
struct Expired {
    instance: String,
    target: Target,
    deadline: u64,
    /// When its processes are searched for.
    due: u64,
    /// When the last process of it was found, or its deadline.
    seen: u64,
    /// When the first process of it was sent SIGKILL, and how many were, since none was left.
    killed: Option<(u64, u64)>,
    /// The node has removed it, or has replaced it.
    removed: bool,
}

/// What the watchdog holds. Times are milliseconds of [`boottime`](crate::boottime).
#[derive(Debug, Default)]
pub struct State {
    deadlines: Deadlines,
    targets: BTreeMap<String, Target>,
    expired: Vec<Expired>,
    killed: Vec<Killed>,
}

impl State {
    /// Applies a request. Does not expire anything: see [`expire`](Self::expire).
    pub fn handle(&mut self, now: u64, request: Request) -> Reply {
        let number = request.number;
        let known = request.deadlines.as_ref().unwrap_or(&self.deadlines).len();
        if known.max(self.targets.len() + request.targets.len()) > MAX_INSTANCES {
            let reason = format!("the watchdog holds at most {MAX_INSTANCES} instances");
            return Reply::Refused { number, reason };
        }
        if let Some(deadlines) = request.deadlines {
            self.deadlines = deadlines;
        }
        let mut expired = Vec::new();
        for (instance, target) in request.targets {
            if self.is_expired(&instance, &target) {
                expired.push(instance);
                continue;
            }
            self.mark_removed(&instance);
            if self.deadlines.get(&instance).is_some_and(|&deadline| deadline <= now) {
                expired.push(instance.clone());
            }
            self.targets.insert(instance, target);
        }
        for (instance, target) in request.expired {
            if !self.is_expired(&instance, &target) {
                self.push_expired(now, instance, target, now);
            }
        }
        for instance in request.removed {
            self.targets.remove(&instance);
            self.mark_removed(&instance);
        }
        Reply::Done { number, expired }
    }

    fn is_expired(&self, instance: &str, target: &Target) -> bool {
        self.expired.iter().any(|it| it.instance == instance && it.target == *target)
    }

    fn mark_removed(&mut self, instance: &str) {
        for expired in self.expired.iter_mut().filter(|it| it.instance == instance) {
            expired.removed = true;
        }
    }

    fn push_expired(&mut self, now: u64, instance: String, target: Target, deadline: u64) {
        let removed = matches!(target, Target::Process { .. });
        let (due, seen, killed) = (now, now, None);
        self.expired.push(Expired { instance, target, deadline, due, seen, killed, removed });
    }

    /// Returns the targets that are to be killed now: those whose deadline has passed, each time that they are due.
    pub fn expire(&mut self, now: u64) -> Vec<Target> {
        let past = self.deadlines.iter().filter(|&(_, &deadline)| deadline <= now);
        let past: Vec<(String, u64)> = past.map(|(name, &at)| (name.clone(), at)).collect();
        for (instance, deadline) in past {
            if let Some(target) = self.targets.remove(&instance) {
                self.push_expired(now, instance, target, deadline);
            }
        }
        self.expired.iter().filter(|it| it.due <= now).map(|it| it.target.clone()).collect()
    }

    /// Records a search that began at `began`: how many processes of each target, in the order of [`expire`](Self::expire), ran and
    /// were sent SIGKILL. A search that could not be made counts as one that found something.
    pub fn searched(&mut self, began: u64, now: u64, found: &[u64]) {
        let (mut found, killed) = (found.iter(), &mut self.killed);
        self.expired.retain_mut(|it| {
            if it.due > began {
                return true;
            }
            let found = *found.next().unwrap_or(&0);
            if found > 0 {
                let (first, count) = it.killed.get_or_insert((began, 0));
                *count = found.max(*count);
                // A process that waits for a disk dies late.
                let pause = now.saturating_sub(*first) / 8;
                it.due = now + pause.clamp(KILL_INTERVAL, WATCH_INTERVAL);
                it.seen = now;
                return true;
            }
            it.due = now + WATCH_INTERVAL;
            if let Some((first, processes)) = it.killed.take() {
                let (instance, deadline) = (it.instance.clone(), it.deadline);
                killed.push(Killed { instance, processes, deadline, first, last: now });
            }
            !it.removed
        });
        killed.drain(..killed.len().saturating_sub(MAX_KILLED));
    }

    /// Returns when [`expire`](Self::expire) is to be called next, if nothing changes before.
    pub fn poll_timeout(&self) -> Option<u64> {
        let of =
            |(instance, &at): (&String, &u64)| self.targets.contains_key(instance).then_some(at);
        let deadlines = self.deadlines.iter().filter_map(of).filter(|&at| at != u64::MAX);
        deadlines.chain(self.expired.iter().map(|it| it.due)).min()
    }

    /// Reports whether anything will have to be killed, if no node says more. `ends`: a signal has asked the watchdog to end.
    pub fn is_needed(&self, now: u64, ends: bool) -> bool {
        let watched = |it: &Expired| {
            it.killed.is_some() || it.due <= now || (!ends && now < it.seen + WATCH_TIMEOUT)
        };
        let has_deadline = |(instance, &at): (&String, &u64)| {
            at != u64::MAX && self.targets.contains_key(instance)
        };
        self.deadlines.iter().any(has_deadline) || self.expired.iter().any(watched)
    }

    /// Returns the ends that no node has been told.
    pub fn take_killed(&mut self) -> Vec<Killed> {
        std::mem::take(&mut self.killed)
    }

    /// Returns what a node is told first.
    pub fn hello(&self, version: &str, pid: i32) -> Hello {
        let expired = self.expired.iter().map(|it| (it.instance.clone(), it.target.clone()));
        Hello {
            version: version.to_owned(),
            pid,
            deadlines: self.deadlines.clone(),
            targets: self.targets.clone(),
            expired: expired.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
