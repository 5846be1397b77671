//! Who may be served at a time: so many together, and so many of one address, so that none takes all.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts who is being served. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Turns {
    all: usize,
    each: usize,
    taken: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
}

/// The right to be served; dropped when it is done.
#[derive(Debug)]
pub(super) struct Turn {
    address: Ipv4Addr,
    taken: Arc<Mutex<BTreeMap<Ipv4Addr, usize>>>,
}

impl Turns {
    /// At most `all` at a time, and of one address `each`.
    pub(super) fn new(all: usize, each: usize) -> Self {
        Self { all, each, taken: Arc::default() }
    }

    /// A turn for this address; `None`: it has to wait, or to ask again.
    pub(super) fn take(&self, address: Ipv4Addr) -> Option<Turn> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.values().sum::<usize>() >= self.all {
            return None;
        }
        let own = taken.entry(address).or_default();
        if *own >= self.each {
            return None;
        }
        *own += 1;
        Some(Turn { address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cannot_take_all_turns_and_what_is_given_back_is_free() {
        let turns = Turns::new(3, 2);
        let (one, other) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let first = turns.take(one).expect("a turn");
        let _second = turns.take(one).expect("a turn");
        assert!(turns.take(one).is_none());
        let _third = turns.take(other).expect("a turn");
        assert!(turns.take(other).is_none(), "three at a time");
        drop(first);
        assert!(turns.take(other).is_some());
        assert_eq!(turns.taken.lock().expect("not poisoned").len(), 2);
    }
}
