use super::*;

const DB: &str = "shop/db.1@ab";
const WEB: &str = "shop/web.1@cd";

fn container(id: &str) -> Target {
    Target::Container(id.to_owned())
}

fn deadlines(all: &[(&str, u64)]) -> Option<Deadlines> {
    Some(all.iter().map(|&(name, at)| (name.to_owned(), at)).collect())
}

fn targets(all: &[(&str, Target)]) -> BTreeMap<String, Target> {
    all.iter().map(|(name, target)| ((*name).to_owned(), target.clone())).collect()
}

/// Returns a state with two containers, of which that of `DB` has its deadline at 100, that of `WEB` at 200.
fn two() -> State {
    let mut state = State::default();
    let request = Request {
        number: 1,
        deadlines: deadlines(&[(DB, 100), (WEB, 200)]),
        targets: targets(&[(DB, container("1")), (WEB, container("2"))]),
        ..Request::default()
    };
    assert_eq!(state.handle(0, request), Reply::Done { number: 1, expired: Vec::new() });
    state
}

/// Applies a request in which only these are set.
fn tell(state: &mut State, now: u64, request: Request) -> Vec<String> {
    match state.handle(now, request) {
        Reply::Done { expired, .. } => expired,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_past_its_deadline_is_killed() {
    let mut state = two();
    assert_eq!(state.poll_timeout(), Some(100));
    assert_eq!(state.expire(99), []);
    assert_eq!(state.expire(100), [container("1")]);
    state.searched(100, 101, &[3]);
    // Repeated until nothing is left.
    assert_eq!(state.poll_timeout(), Some(111));
    assert_eq!(state.take_killed(), []);
    assert_eq!(state.expire(111), [container("1")]);
    state.searched(111, 112, &[0]);
    let killed =
        Killed { instance: DB.to_owned(), processes: 3, deadline: 100, first: 100, last: 112 };
    assert_eq!(state.take_killed(), [killed]);
    assert_eq!(state.poll_timeout(), Some(200));
    assert_eq!(state.expire(200), [container("2")]);
}

#[test]
fn what_is_renewed_in_time_is_not_killed() {
    let mut state = two();
    let renewed = deadlines(&[(DB, 300), (WEB, 300)]);
    tell(&mut state, 99, Request { deadlines: renewed, ..Request::default() });
    assert_eq!(state.expire(299), []);
    // Without a deadline it runs for ever.
    tell(
        &mut state,
        299,
        Request { deadlines: deadlines(&[(DB, u64::MAX)]), ..Request::default() },
    );
    assert_eq!(state.expire(1 << 50), []);
    assert_eq!(state.poll_timeout(), None);
    assert!(!state.is_needed(300, false));
}

#[test]
fn a_deadline_that_was_missed_cannot_be_renewed() {
    let mut state = two();
    assert_eq!(state.expire(100), [container("1")]);
    state.searched(100, 100, &[1]);
    let renewed = deadlines(&[(DB, 300), (WEB, 300)]);
    tell(&mut state, 101, Request { deadlines: renewed, ..Request::default() });
    assert_eq!(state.expire(110), [container("1")]);
    // The same container is never held again.
    let same = Request { targets: targets(&[(DB, container("1"))]), ..Request::default() };
    assert_eq!(tell(&mut state, 111, same), [DB]);
}

#[test]
fn a_new_container_of_a_killed_instance_is_watched_by_its_own_deadline() {
    let mut state = two();
    state.expire(100);
    state.searched(100, 100, &[0]);
    let next = Request {
        deadlines: deadlines(&[(DB, 500)]),
        targets: targets(&[(DB, container("3"))]),
        ..Request::default()
    };
    assert_eq!(tell(&mut state, 150, next), [] as [String; 0]);
    assert_eq!(state.expire(499), []);
    assert_eq!(state.expire(500), [container("3")]);
}

#[test]
fn a_target_whose_deadline_has_passed_is_not_confirmed_and_is_killed() {
    let mut state = State::default();
    tell(&mut state, 0, Request { deadlines: deadlines(&[(DB, 100)]), ..Request::default() });
    assert!(!state.is_needed(0, false), "nothing of it exists");
    let late = Request { targets: targets(&[(DB, container("1"))]), ..Request::default() };
    assert_eq!(tell(&mut state, 100, late), [DB]);
    assert_eq!(state.expire(100), [container("1")]);
}

#[test]
fn a_container_that_an_engine_may_still_start_is_watched_until_it_is_removed() {
    let mut state = two();
    state.expire(100);
    state.searched(100, 100, &[0]);
    assert_eq!(state.take_killed(), [], "nothing of it ran");
    assert_eq!(state.expire(1100), [container("1"), container("2")]);
    state.searched(1100, 1100, &[2, 0]);
    assert!(state.is_needed(1100, true));
    assert_eq!(state.expire(1110), [container("1")]);
    state.searched(1110, 1110, &[0]);
    assert!(state.is_needed(2110, false));
    let removed = vec![DB.to_owned(), WEB.to_owned()];
    tell(&mut state, 2110, Request { removed, ..Request::default() });
    assert_eq!(state.expire(2110), [container("1"), container("2")]);
    state.searched(2110, 2110, &[0, 0]);
    assert_eq!(state.poll_timeout(), None);
    assert!(!state.is_needed(2110, false));
}

#[test]
fn without_a_node_an_expired_container_is_watched_for_a_bounded_time() {
    let mut state = two();
    state.expire(200);
    state.searched(200, 200, &[0, 0]);
    assert!(state.is_needed(200 + WATCH_TIMEOUT - 1, false));
    let late = 200 + WATCH_TIMEOUT;
    state.expire(late);
    state.searched(late, late, &[0, 0]);
    assert!(!state.is_needed(late, false));
    // Sooner when the watchdog was asked to end.
    let mut state = two();
    state.expire(200);
    assert!(state.is_needed(200, true));
    state.searched(200, 200, &[0, 0]);
    assert!(!state.is_needed(201, true));
}

#[test]
fn a_process_that_has_ended_is_not_watched() {
    let mut state = State::default();
    let request = Request {
        deadlines: deadlines(&[(DB, 100)]),
        targets: targets(&[(DB, Target::Process { pid: 7, start: 9 })]),
        ..Request::default()
    };
    tell(&mut state, 0, request);
    assert!(state.is_needed(0, true));
    assert_eq!(state.expire(100).len(), 1);
    state.searched(100, 100, &[1]);
    assert!(state.is_needed(101, true), "it may not have ended");
    assert_eq!(state.expire(110).len(), 1);
    state.searched(110, 110, &[0]);
    assert!(!state.is_needed(110, false));
    assert_eq!(state.poll_timeout(), None);
}

#[test]
fn the_state_that_another_watchdog_is_given_is_the_same() {
    let mut state = two();
    state.expire(100);
    state.searched(100, 100, &[1]);
    let hello = state.hello("1", 5);
    let mut next = State::default();
    let request = Request {
        deadlines: Some(hello.deadlines.clone()),
        targets: hello.targets.clone(),
        expired: hello.expired.clone(),
        ..Request::default()
    };
    tell(&mut next, 105, request);
    assert_eq!(next.hello("1", 5), hello);
    assert_eq!(next.expire(105), [container("1")]);
    assert_eq!(next.poll_timeout(), Some(105));
}

#[test]
fn more_instances_than_the_limit_are_refused() {
    let mut state = State::default();
    let many = (0..=MAX_INSTANCES).map(|number| (number.to_string(), 100)).collect();
    let reply = state.handle(0, Request { number: 4, deadlines: Some(many), ..Request::default() });
    assert!(matches!(reply, Reply::Refused { number: 4, .. }), "{reply:?}");
    assert_eq!(state.poll_timeout(), None);
}
