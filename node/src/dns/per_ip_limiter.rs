//! Limits concurrency in total and per source address, so that one client cannot take all capacity.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts permits by address. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct PerIpLimiter {
    total: usize,
    per_ip: usize,
    held: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
}

/// Counts against the limits until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    address: Ipv4Addr,
    held: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
}

impl PerIpLimiter {
    /// Returns a limiter for at most `total` permits, and `per_ip` for each address.
    pub(super) fn new(total: usize, per_ip: usize) -> Self {
        Self { total, per_ip, held: Arc::default() }
    }

    /// Returns a permit for an address; `None`: a limit is reached.
    pub(super) fn acquire(&self, address: Ipv4Addr) -> Option<Permit> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.values().sum::<usize>() >= self.total {
            return None;
        }
        let own = held.entry(address).or_default();
        if *own >= self.per_ip {
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
    fn one_address_cannot_hold_all_permits_and_dropped_permits_are_free() {
        let limiter = PerIpLimiter::new(3, 2);
        let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
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
