//! Tokens: which were issued, and which are revoked.

use vc_crdt::{ClusterState, Revocation, RevocationKey};
use vc_protocol::Millis;
use vc_protocol::control::Change;
use vc_protocol::token::{MAX_TTL, Scope};

use super::MutationError;

/// Time for which tokens and revocations are kept after they have expired: the clock of this node may be ahead.
const SLACK: Millis = 24 * 3_600_000;

/// Forgets tokens and revocations that expired a day ago.
pub(super) fn forget_expired(state: &mut ClusterState, now: Millis) {
    let keeps = |expires: Millis| expires.saturating_add(SLACK) > now;
    state.tokens.retain(|_, record| keeps(record.expires));
    state.revocations.retain(|_, revocation| keeps(revocation.expires));
}

/// Revokes a token, or the tokens that a user has so far.
///
/// # Errors
/// The token is not listed, and the text is no token id either.
pub(super) fn revoke(
    state: &mut ClusterState,
    key: &RevocationKey,
    now: Millis,
) -> Result<Change, MutationError> {
    forget_expired(state, now);
    // Tokens that are not listed, as that of `init`, may be valid for as long as any.
    let longest = now.saturating_add(MAX_TTL);
    let (before, expires, change) = match key {
        RevocationKey::Token(id) => {
            let record = state.tokens.get(id);
            let is_id = id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            if record.is_none() && !is_id {
                return Err(MutationError::NoToken(id.clone()));
            }
            let expires = record.map_or(longest, |record| record.expires);
            (0, expires, Change::TokenRevoked { token: id.clone() })
        }
        RevocationKey::User(name) => {
            let of_user = state
                .tokens
                .values()
                .filter(|record| record.name == *name && matches!(record.scope, Scope::User(_)));
            // Another server's clock may be ahead of this one's.
            let before = of_user.map(|record| record.issued).fold(now, Millis::max);
            (before, longest, Change::UserRevoked { user: name.clone() })
        }
    };
    state.revocations.insert(key.clone(), Revocation { before, at: now, expires });
    Ok(change)
}

#[cfg(test)]
mod tests {
    use vc_crdt::TokenRecord;
    use vc_protocol::token::{UserLimits, UserRole};

    use super::*;

    const DAY: Millis = 24 * 3_600_000;

    fn record(name: &str, issued: Millis) -> TokenRecord {
        TokenRecord {
            name: name.to_owned(),
            scope: Scope::User(UserRole::Viewer),
            issued_by: "admin".to_owned(),
            issued,
            expires: issued + DAY,
            limits: UserLimits::default(),
        }
    }

    #[test]
    fn revocations_last_until_the_tokens_have_expired_for_a_day() {
        let mut state = ClusterState::default();
        state.tokens.insert("1".to_owned(), record("ada", 10));
        state.tokens.insert("2".to_owned(), record("ada", 500));
        revoke(&mut state, &RevocationKey::Token("1".to_owned()), 100).expect("revoked");
        assert!(state.is_revoked("1", "ada", 10) && !state.is_revoked("2", "ada", 500));
        revoke(&mut state, &RevocationKey::User("ada".to_owned()), 100).expect("revoked");
        assert!(state.is_revoked("2", "ada", 500), "the clock that issued it was ahead");
        assert!(!state.is_revoked("3", "ada", 501) && !state.is_revoked("4", "bob", 1));
        forget_expired(&mut state, 2 * DAY);
        assert!(state.is_revoked("1", "", 10));
        forget_expired(&mut state, 2 * DAY + 10);
        assert_eq!((state.tokens.len(), state.revocations.len()), (1, 1));
    }

    #[test]
    fn an_unlisted_token_is_revoked_by_its_id_only() {
        let mut state = ClusterState::default();
        let key = |id: &str| RevocationKey::Token(id.to_owned());
        let refused = revoke(&mut state, &key("ada"), 0);
        assert_eq!(refused, Err(MutationError::NoToken("ada".to_owned())));
        revoke(&mut state, &key("00ff00ff00ff00ff"), 0).expect("revoked");
        assert_eq!(state.revocations.len(), 1);
    }
}
