//! Tokens: which were issued, and which are revoked.

use vc_crdt::{ClusterState, JoinKey, JoinRecord, Revocation, RevocationKey, TokenRecord};
use vc_protocol::change::Subject;
use vc_protocol::control::Change;
use vc_protocol::token::{MAX_TTL, Scope, UserRole};
use vc_protocol::{Millis, NodeId};

use super::MutationError;

/// Time for which tokens and revocations are kept after they have expired: the clock of this node may be ahead.
const SLACK: Millis = 24 * 3_600_000;

/// Forgets tokens, their uses and their revocations once they have been expired for a day.
pub(super) fn forget_expired(state: &mut ClusterState, now: Millis) {
    let keeps = |expires: Millis| expires.saturating_add(SLACK) > now;
    state.tokens.retain(|_, record| keeps(record.expires));
    state.revocations.retain(|_, revocation| keeps(revocation.expires));
    state.joins.retain(|_, record| keeps(record.expires));
}

/// Counts a use of a join token. A node that repeats its join, because the answer was lost, does not use it twice.
///
/// # Errors
/// As many other nodes have joined with it as may.
pub(super) fn admit(
    state: &mut ClusterState,
    node: NodeId,
    token: &str,
    uses: Option<u32>,
    record: JoinRecord,
) -> Result<(), MutationError> {
    forget_expired(state, record.at);
    let key = JoinKey { token: token.to_owned(), node };
    if state.joins.contains_key(&key) {
        return Ok(());
    }
    if let Some(uses) = uses
        && state.uses(token) >= uses as usize
    {
        return Err(MutationError::TokenUsed { uses });
    }
    state.joins.insert(key, record);
    Ok(())
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

/// Checks that an admin's token is left after a revocation: the one that asks for it, or a listed one.
///
/// # Errors
/// There is none.
pub(super) fn check_admin_left(
    state: &ClusterState,
    key: &RevocationKey,
    by: &Subject,
    now: Millis,
) -> Result<(), MutationError> {
    let takes_own = match key {
        RevocationKey::Token(id) => *id == by.token_id,
        RevocationKey::User(name) => *name == by.name,
    };
    let is_left = |(id, record): (&String, &TokenRecord)| {
        record.scope == Scope::User(UserRole::Admin)
            && record.expires > now
            && !state.is_revoked(id, &record.name, record.issued)
    };
    match takes_own && !state.tokens.iter().any(is_left) {
        true => Err(MutationError::LastAdmin),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use vc_protocol::token::UserLimits;

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
            uses: None,
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
    fn a_token_lets_as_many_nodes_join_as_it_says() {
        let mut state = ClusterState::default();
        let node = |n| {
            let key = vc_protocol::Keypair::ed25519_from_bytes([n; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        let record = |at| JoinRecord { at, name: String::new(), by: node(1), expires: DAY };
        let used = Err(MutationError::TokenUsed { uses: 1 });
        assert_eq!(admit(&mut state, node(2), "a", Some(1), record(1)), Ok(()));
        assert_eq!(admit(&mut state, node(3), "a", Some(1), record(2)), used);
        assert_eq!(admit(&mut state, node(2), "a", Some(1), record(3)), Ok(()), "it joins again");
        assert_eq!((state.uses("a"), state.joins.values().next().map(|it| it.at)), (1, Some(1)));
        assert_eq!(admit(&mut state, node(3), "a", Some(2), record(4)), Ok(()));
        assert_eq!(admit(&mut state, node(3), "b", None, record(5)), Ok(()));
        assert_eq!((state.uses("a"), state.uses("b")), (2, 1));
        forget_expired(&mut state, 2 * DAY - 1);
        assert_eq!(state.joins.len(), 3);
        forget_expired(&mut state, 2 * DAY);
        assert!(state.joins.is_empty());
    }

    #[test]
    fn the_last_admin_does_not_revoke_its_own_token_by_mistake() {
        let admin = |name: &str, issued| {
            let scope = Scope::User(UserRole::Admin);
            TokenRecord { scope, ..record(name, issued) }
        };
        let subject = |name: &str, id: &str| Subject {
            name: name.to_owned(),
            token_id: id.to_owned(),
            address: None,
        };
        // The token of `init` is not listed.
        let (init, ada) = (subject("admin", "00ff00ff00ff00ff"), subject("ada", "1"));
        let user = |name: &str| RevocationKey::User(name.to_owned());
        let token = |id: &str| RevocationKey::Token(id.to_owned());
        let check = |listed: &[(&str, TokenRecord)], key: RevocationKey, by: &Subject, now| {
            let mut state = ClusterState::default();
            state.tokens.extend(listed.iter().map(|(id, it)| ((*id).to_owned(), it.clone())));
            revoke(&mut state, &key, now).expect("revoked");
            check_admin_left(&state, &key, by, now).is_ok()
        };
        let listed = [("1", admin("ada", 10)), ("2", record("bob", 10))];
        assert!(!check(&[], user("admin"), &init, 20));
        assert!(!check(&[], token(&init.token_id), &init, 20));
        assert!(check(&listed, user("admin"), &init, 20), "ada is left");
        assert!(check(&listed, user("ada"), &init, 20), "the one that asks is left");
        assert!(!check(&listed, user("ada"), &ada, 20));
        assert!(!check(&listed, token("1"), &ada, 20));
        assert!(check(&listed, token("2"), &ada, 20));
        assert!(!check(&listed, user("admin"), &init, 10 + DAY), "hers has expired");
        let two = [("1", admin("ada", 10)), ("3", admin("ada", 11))];
        assert!(check(&two, token("1"), &ada, 20));
        assert!(!check(&two, user("ada"), &ada, 20));
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
