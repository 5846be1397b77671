//! Limits concurrency in total and per client, so that one client cannot take all capacity.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts permits by client. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Limiter<K> {
    total: usize,
    per_client: usize,
    held: Arc<Mutex<BTreeMap<K, usize>>>,
}

/// Counts against the limits until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<K: Ord> {
    client: K,
    held: Arc<Mutex<BTreeMap<K, usize>>>,
}

impl<K: Ord + Copy> Limiter<K> {
    /// Returns a limiter for at most `total` permits, and `per_client` for each client.
    pub(crate) fn new(total: usize, per_client: usize) -> Self {
        Self { total, per_client, held: Arc::default() }
    }

    /// Returns a permit for a client; `None`: a limit is reached.
    pub(crate) fn acquire(&self, client: K) -> Option<Permit<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.values().sum::<usize>() >= self.total {
            return None;
        }
        let own = held.entry(client).or_default();
        if *own >= self.per_client {
            return None;
        }
        *own += 1;
        Some(Permit { client, held: Arc::clone(&self.held) })
    }
}

impl<K: Ord> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = held.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_cannot_hold_all_permits_and_dropped_permits_are_free() {
        let limiter = Limiter::new(3, 2);
        let (one, other) = (1, 2);
        let first = limiter.acquire(one).expect("a permit");
        let _second = limiter.acquire(one).expect("a permit");
        assert!(limiter.acquire(one).is_none());
        let _third = limiter.acquire(other).expect("a permit");
        assert!(limiter.acquire(other).is_none(), "three in total");
        drop(first);
        assert!(limiter.acquire(other).is_some());
        assert_eq!(limiter.held.lock().expect("not poisoned").len(), 2);
    }
}
