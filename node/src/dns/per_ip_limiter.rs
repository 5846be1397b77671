//! Who may be served at a time: so many together, and so many of one address, so that none takes all.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts who is being served. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct PerIpLimiter {
    all: usize,
    each: usize,
    held: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
}

/// The right to be served; dropped when it is done.
#[derive(Debug)]
pub(super) struct Permit {
    address: Ipv4Addr,
    held: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
}

impl PerIpLimiter {
    /// At most `all` at a time, and of one address `each`.
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { all, each, held: Arc::default() }
    }

    /// A permit for this address; `None`: it has to wait, or to ask again.
    pub(super) fn take(&self, address: Ipv4Addr) -> Option<Permit> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.values().sum::<usize>() >= self.all {
            return None;
        }
        let own = held.entry(address).or_default();
        if *own >= self.each {
            return None;
        }
        *own += 1;
        Some(Permit { address, held: Arc::clone(&self.held) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = held.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cannot_take_all_turns_and_what_is_given_back_is_free() {
        let limiter = PerIpLimiter::new(3, 2);
        let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let first = limiter.take(one).expect("a permit");
        let _second = limiter.take(one).expect("a permit");
        assert!(limiter.take(one).is_none());
        let _third = limiter.take(other).expect("a permit");
        assert!(limiter.take(other).is_none(), "three at a time");
        drop(first);
        assert!(limiter.take(other).is_some());
        assert_eq!(limiter.held.lock().expect("not poisoned").len(), 2);
    }
}
