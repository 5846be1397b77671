use super::*;
use vc_protocol::NodeId;

use crate::schema::tests::{NEWER, OLDER, ONE_WRITER};

fn actor(n: u64) -> Actor {
    let key = vc_protocol::Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    Actor::new(NodeId::of(&key.public()).expect("ed25519"), n)
}

fn put(key: &str, value: &str) -> Edit {
    Edit { map: "entries", key: key.to_owned(), value: Some(value.to_owned()) }
}

#[test]
fn documents_created_independently_share_their_maps() {
    let (mut a, mut b) = (Document::new(OLDER).expect("new"), Document::new(OLDER).expect("new"));
    let one = a.write(&actor(1), &[put("x", "1")], 5).expect("written").expect("a change");
    let two = b.write(&actor(2), &[put("y", "2")], 5).expect("written").expect("a change");
    b.apply(&[&decode(one.bytes.clone(), &actor(1), 1).expect("decodes")]).expect("applies");
    a.apply(&[&decode(two.bytes.clone(), &actor(2), 1).expect("decodes")]).expect("applies");
    assert_eq!(a.map("entries"), b.map("entries"));
    assert_eq!(a.map("entries").len(), 2);
}

#[test]
fn a_change_tells_what_it_writes_and_deletes() {
    let mut a = Document::new(OLDER).expect("new");
    assert!(a.write(&actor(1), &[], 0).expect("written").is_none());
    let deleted = Edit { map: "entries", key: "none".to_owned(), value: None };
    let written = a.write(&actor(1), &[put("x", "1"), deleted], 9).expect("written");
    let change = change(&written.expect("a change"), 1);
    let key = |key: &str| ("entries", key.to_owned());
    assert_eq!(a.keys(&change), BTreeSet::from([key("none"), key("x")]));
    assert_eq!(a.map("entries"), BTreeMap::from([("x".to_owned(), Some("1".to_owned()))]));
}

#[test]
fn entries_can_be_read_as_they_were() {
    let mut a = Document::new(OLDER).expect("new");
    for (n, key, value) in [(1, "x", "1"), (2, "x", "2"), (1, "y", "3")] {
        a.write(&actor(n), &[put(key, value)], 0).expect("written").expect("a change");
    }
    let at = |versions: &[(u64, u64)]| {
        let versions = versions.iter().map(|&(n, seq)| (actor(n), seq)).collect();
        let entries = a.entries_at(&versions).into_iter();
        entries.map(|((_, key), value)| key + &value.expect("text")).collect::<Vec<_>>()
    };
    assert_eq!(at(&[]), Vec::<String>::new());
    assert_eq!(at(&[(1, 1)]), ["x1"]);
    assert_eq!(at(&[(1, 1), (2, 1)]), ["x2"]);
    assert_eq!(at(&[(1, 2), (2, 1)]), ["x2", "y3"]);
}

#[test]
fn a_change_that_differs_from_its_envelope_is_rejected() {
    let mut a = Document::new(OLDER).expect("new");
    let one = a.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
    assert!(decode(one.bytes.clone(), &actor(2), 1).is_err());
    assert!(decode(one.bytes.clone(), &actor(1), 2).is_err());
    for at in 0..one.bytes.len() {
        assert!(decode(one.bytes[..at].to_vec(), &actor(1), 1).is_err(), "cut at {at}");
    }
}

fn more(key: &str, value: &str) -> Edit {
    Edit { map: "more", ..put(key, value) }
}

fn change(written: &Written, n: u64) -> Change {
    decode(written.bytes.clone(), &actor(n), written.seq).expect("decodes")
}

#[test]
fn a_document_without_a_newer_map_is_held_and_loses_nothing() {
    let mut old = Document::new(OLDER).expect("new");
    let first = old.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
    let mut new = Document::new(NEWER).expect("new");
    new.apply(&[&change(&first, 1)]).expect("applies");
    new.upgrade(2).expect("upgraded");
    let second = new.write(&actor(2), &[more("y", "2"), put("x", "3")], 0);
    let second = second.expect("written").expect("a change");
    assert!(!old.is_held() && !new.is_held());

    old.apply(&[&change(&second, 2)]).expect("accepted");
    assert!(old.is_held());
    assert_eq!(old.map("entries"), BTreeMap::from([("x".to_owned(), Some("1".to_owned()))]));
    let refused = old.write(&actor(1), &[put("z", "4")], 0).err();
    assert_eq!(refused, Some(DocumentError::Held));

    // The upgraded node reads the same changes, and writes where it stopped.
    let mut upgraded = Document::new(NEWER).expect("new");
    upgraded.apply(&[&change(&first, 1), &change(&second, 2)]).expect("applies");
    assert!(!upgraded.is_held());
    assert_eq!(upgraded.map("more"), new.map("more"));
    assert_eq!(upgraded.map("entries"), new.map("entries"));
    let third = upgraded.write(&actor(1), &[put("z", "4")], 0).expect("written");
    assert_eq!(third.map(|written| written.seq), Some(2));
}

#[test]
fn an_older_version_reads_a_document_whose_writer_made_a_map_and_keeps_the_map() {
    let mut new = Document::new(ONE_WRITER).expect("new");
    let first = new.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
    new.upgrade(2).expect("upgraded");
    let second = new.write(&actor(1), &[more("y", "2"), put("x", "3")], 0);
    let second = second.expect("written").expect("a change");
    assert!(!new.needs_newer_version() && new.version() == 2);

    let mut old = Document::new(OLDER).expect("new");
    old.apply(&[&change(&first, 1)]).expect("applies");
    assert!(!old.needs_newer_version());
    old.apply(&[&change(&second, 1)]).expect("applies");
    assert!(!old.is_held() && old.needs_newer_version());
    assert_eq!(old.map("entries"), new.map("entries"));

    let mut next = old.next_generation().expect("new");
    let written = next.write(&actor(2), &[put("x", "4")], 0).expect("written");
    let written = change(&written.expect("a change"), 2);
    let mut upgraded = Document::new(ONE_WRITER).expect("new");
    upgraded.apply(&[&written]).expect("applies");
    assert_eq!(upgraded.map("more"), new.map("more"));
    let again = upgraded.next_generation().expect("new").write(&actor(3), &[more("z", "5")], 0);
    let mut read = Document::new(ONE_WRITER).expect("new");
    read.apply(&[&change(&again.expect("written").expect("a change"), 3)]).expect("applies");
    assert_eq!(read.map("more").into_keys().collect::<Vec<_>>(), ["z"]);
    assert_eq!(read.version(), 2);
}

#[test]
fn a_document_waits_for_the_changes_that_a_change_depends_on() {
    let mut a = Document::new(OLDER).expect("new");
    let one = a.write(&actor(1), &[put("x", "1")], 0).expect("written").expect("a change");
    let two = a.write(&actor(2), &[put("x", "2")], 0).expect("written").expect("a change");
    let mut b = Document::new(OLDER).expect("new");
    b.apply(&[&change(&two, 2)]).expect("accepted");
    assert!(b.is_held());
    b.apply(&[&change(&one, 1)]).expect("applies");
    assert!(!b.is_held());
    assert_eq!(a.map("entries"), b.map("entries"));
}

#[test]
fn nodes_that_add_a_map_at_different_times_share_it() {
    let (mut a, mut b) = (Document::new(NEWER).expect("new"), Document::new(NEWER).expect("new"));
    let early = b.write(&actor(2), &[put("x", "1")], 0).expect("written").expect("a change");
    a.upgrade(2).expect("upgraded");
    let one = a.write(&actor(1), &[more("y", "1")], 0).expect("written").expect("a change");
    b.apply(&[&change(&one, 1)]).expect("applies");
    b.upgrade(2).expect("upgraded");
    a.apply(&[&change(&early, 2)]).expect("applies");
    let two = b.write(&actor(2), &[more("z", "2")], 0).expect("written").expect("a change");
    a.apply(&[&change(&two, 2)]).expect("applies");
    assert_eq!(a.map("more").len(), 2);
    assert_eq!(a.map("more"), b.map("more"));
    assert_eq!(a.map("entries"), b.map("entries"));
}

#[test]
fn a_corrupt_change_leaves_the_document_usable() {
    let mut a = Document::new(OLDER).expect("new");
    let one =
        a.write(&actor(1), &[put("x", "1"), put("y", "2")], 0).expect("written").expect("a change");
    for at in 0..one.bytes.len() {
        for flip in [0x01, 0x55, 0x80, 0xff] {
            let mut bytes = one.bytes.clone();
            bytes[at] ^= flip;
            let mut b = Document::new(OLDER).expect("new");
            if let Ok(change) = decode(bytes, &actor(1), 1) {
                let _ = b.apply(&[&change]);
            }
            b.map("entries");
        }
    }
}
