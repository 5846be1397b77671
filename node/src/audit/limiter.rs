//! Limits the records that clients can cause, so that none can push the others out of the log.

use std::collections::BTreeMap;

use vc_protocol::Millis;
use vc_protocol::audit::AuditAction;

/// Time in milliseconds over which records are counted.
pub(super) const WINDOW: Millis = 60_000;
/// Records of one kind and client in a window.
const PER_CLIENT: u64 = 60;
/// Records about all peers without a valid token in a window.
const UNAUTHENTICATED: u64 = 20;
/// Clients that are counted apart; the others are counted together.
const MAX_CLIENTS: usize = 512;

/// Who causes a record: a token's id, or nothing for a peer without a valid one.
type Client = Option<String>;

#[derive(Default)]
struct Window {
    begun: Millis,
    records: u64,
    suppressed: u64,
}

/// Counts records by client and kind.
#[derive(Default)]
pub(super) struct Limiter(BTreeMap<(Client, AuditAction), Window>);

impl Limiter {
    /// Returns whether a record is to be written, with the number of those that were not since the last one.
    pub(super) fn admit(
        &mut self,
        client: Option<&str>,
        action: AuditAction,
        now: Millis,
    ) -> Option<u64> {
        let mut key = (client.map(str::to_owned), action);
        if !self.0.contains_key(&key) && self.0.len() >= MAX_CLIENTS {
            self.0.retain(|_, it| it.suppressed > 0 || now < it.begun.saturating_add(WINDOW));
            if self.0.len() >= MAX_CLIENTS {
                key.0 = Some(String::new());
            }
        }
        let limit = if key.0.is_some() { PER_CLIENT } else { UNAUTHENTICATED };
        let window =
            self.0.entry(key).or_insert_with(|| Window { begun: now, ..Window::default() });
        if now >= window.begun.saturating_add(WINDOW) || now < window.begun {
            (window.begun, window.records) = (now, 0);
        }
        if window.records >= limit {
            window.suppressed += 1;
            return None;
        }
        window.records += 1;
        Some(std::mem::take(&mut window.suppressed))
    }

    /// Returns the records that were suppressed in windows that are over, and forgets them.
    pub(super) fn flush(&mut self, now: Millis) -> Vec<(Option<String>, AuditAction, u64)> {
        let is_over = |it: &Window| now >= it.begun.saturating_add(WINDOW);
        let over = self.0.iter().filter(|(_, it)| it.suppressed > 0 && is_over(it));
        let suppressed =
            over.map(|((client, action), it)| (client.clone(), *action, it.suppressed)).collect();
        self.0.retain(|_, it| !is_over(it));
        suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_does_not_hide_others() {
        let mut limiter = Limiter::default();
        let refused = AuditAction::Refused;
        let written = (0..10_000).filter(|_| limiter.admit(None, refused, 5).is_some()).count();
        assert_eq!(written as u64, UNAUTHENTICATED);
        assert_eq!(limiter.admit(Some("t"), refused, 5), Some(0), "another client");
        assert_eq!(limiter.admit(Some("t"), AuditAction::Exec, 5), Some(0));
        assert!(limiter.flush(5).is_empty(), "the window is not over");
        let suppressed = 10_000 - UNAUTHENTICATED;
        assert_eq!(limiter.flush(5 + WINDOW), [(None, refused, suppressed)]);
        assert!(limiter.0.is_empty());
        // A record after the window says it as well.
        (0..=UNAUTHENTICATED).for_each(|_| {
            limiter.admit(None, refused, 0);
        });
        assert_eq!(limiter.admit(None, refused, WINDOW), Some(1));
    }

    #[test]
    fn the_clients_that_are_counted_are_bounded() {
        let mut limiter = Limiter::default();
        for client in 0..10 * MAX_CLIENTS {
            limiter.admit(Some(&client.to_string()), AuditAction::Exec, 1);
        }
        assert!(limiter.0.len() <= MAX_CLIENTS + 1);
    }
}
