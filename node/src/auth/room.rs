//! How many may be here: strangers who have said nothing yet, and users.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libp2p::PeerId;
use tokio::sync::oneshot;

use crate::api::Quota;

/// Users at a time.
const MAX_SESSIONS: usize = 256;
/// Of those, with one token.
const MAX_OF_TOKEN: usize = 64;
/// Strangers at a time, who have said nothing yet: each costs a few kilobytes for [`PATIENCE`](super::PATIENCE) at most.
const MAX_STRANGERS: usize = 2048;
/// Of those, with one peer id.
const MAX_OF_ONE: usize = 8;

/// Strangers that have not said yet who they are, the first comer first.
#[derive(Clone, Default)]
pub(super) struct Hall(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    /// Who it is, and what sends him away when it is dropped.
    here: BTreeMap<u64, (PeerId, oneshot::Sender<()>)>,
    next: u64,
}

/// One of them; he leaves when this is dropped.
pub(super) struct Place {
    hall: Hall,
    number: u64,
    pub(super) sent_away: oneshot::Receiver<()>,
}

impl Hall {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one in. In a full hall whoever has said nothing for the longest time goes: somebody who means it needs a
    /// moment only. `None`: too many have this peer id.
    pub(super) fn enter(&self, peer: PeerId) -> Option<Place> {
        let mut waiting = self.lock();
        if waiting.here.values().filter(|(of, _)| *of == peer).count() >= MAX_OF_ONE {
            return None;
        }
        if waiting.here.len() >= MAX_STRANGERS {
            waiting.here.pop_first();
        }
        let number = waiting.next;
        waiting.next += 1;
        let (stay, sent_away) = oneshot::channel();
        waiting.here.insert(number, (peer, stay));
        Some(Place { hall: self.clone(), number, sent_away })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hall.lock().here.remove(&self.number);
    }
}

/// By token: how many seats are taken, and what all who sit there may have.
type Taken = BTreeMap<String, (usize, Arc<Quota>)>;

/// Seats of users.
#[derive(Clone, Default)]
pub(super) struct Seats(Arc<Mutex<Taken>>);

/// One of them; it is free again when this is dropped.
pub(super) struct Seat {
    seats: Seats,
    token: String,
    pub(super) quota: Arc<Quota>,
}

/// Why somebody is not let in.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    /// There is no room here at the moment.
    pub(super) busy: bool,
}

impl<E: ToString> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self { reason: error.to_string(), busy: false }
    }
}

impl Seats {
    /// Errors: there is none.
    pub(super) fn take(&self, token: &str) -> Result<Seat, Refusal> {
        let full = |reason: &str| Refusal { reason: reason.to_owned(), busy: true };
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(token).is_some_and(|(of_one, _)| *of_one >= MAX_OF_TOKEN) {
            return Err(full(
                "too many sessions have this token: end some, or make another with 'vc token create'",
            ));
        }
        if taken.values().map(|(of_one, _)| of_one).sum::<usize>() >= MAX_SESSIONS {
            return Err(full(
                "this node serves too many users at the moment: use another with --peer",
            ));
        }
        let (of_one, quota) = taken.entry(token.to_owned()).or_default();
        *of_one += 1;
        let quota = Arc::clone(quota);
        Ok(Seat { seats: self.clone(), token: token.to_owned(), quota })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of_one, _)) = taken.get_mut(&self.token) {
            *of_one -= 1;
            if *of_one == 0 {
                taken.remove(&self.token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_full_hall_who_has_waited_longest_makes_room() {
        let hall = Hall::default();
        let mut places: Vec<Place> =
            (0..MAX_STRANGERS).map(|_| hall.enter(PeerId::random()).expect("room")).collect();
        let late = hall.enter(PeerId::random());
        assert!(late.is_some(), "somebody who comes now is heard");
        assert!(
            places[0]
                .sent_away
                .try_recv()
                .is_err_and(|it| it == oneshot::error::TryRecvError::Closed)
        );
        assert!(
            places[1]
                .sent_away
                .try_recv()
                .is_err_and(|it| it == oneshot::error::TryRecvError::Empty)
        );
        drop((places, late));
        assert!(hall.lock().here.is_empty());
    }

    #[test]
    fn one_stranger_has_a_few_places_and_one_token_a_part_of_the_seats() {
        let (hall, peer) = (Hall::default(), PeerId::random());
        let places: Vec<_> = (0..MAX_OF_ONE).map(|_| hall.enter(peer).expect("room")).collect();
        assert!(hall.enter(peer).is_none());
        drop(places);
        assert!(hall.enter(peer).is_some());

        let seats = Seats::default();
        let taken: Vec<_> = (0..MAX_OF_TOKEN).map(|_| seats.take("a").expect("a seat")).collect();
        let refused = seats.take("a").err().expect("too many");
        assert!(refused.busy && refused.reason.contains("vc token create"), "{}", refused.reason);
        assert!(seats.take("b").is_ok());
        drop(taken);
        assert!(seats.take("a").is_ok() && seats.0.lock().expect("whole").is_empty());
    }
}
