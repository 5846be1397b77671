use super::*;
use vc_protocol::change::ChangeBody;
use vc_protocol::{ClusterId, Keypair, NodeId};

pub(super) fn change(document: DocumentId, key: &Keypair, seq: u64) -> SignedChange {
    let author = NodeId::of(&key.public()).expect("ed25519");
    let cluster = ClusterId::of(&key.public()).expect("ed25519");
    let actor = Actor::new(author, 1);
    let body = ChangeBody {
        cluster,
        document,
        actor,
        seq,
        author,
        on_behalf_of: None,
        timestamp: 0,
        checkpoint: None,
        payload: vec![7; 1000],
    };
    SignedChange::sign(&body, key)
}

#[test]
fn persisted_changes_are_read_after_reopening() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let node = NodeId::of(&key.public()).expect("ed25519");
    let old = DocumentId::Node { node, generation: 1 };
    let new = DocumentId::Node { node, generation: 2 };
    let changes: Vec<_> =
        (1..=1500).map(|seq| change(DocumentId::Cluster { generation: 0 }, &key, seq)).collect();
    let store = Store::open(dir.path()).expect("opened");
    store.persist(&Durable { changes, ..Durable::default() }).expect("stored");
    store
        .persist(&Durable { changes: vec![change(old, &key, 1)], ..Durable::default() })
        .expect("stored");
    let renewed = Durable {
        changes: vec![change(new, &key, 1)],
        replaced: vec![old],
        certificates: vec!["c".into()],
        ..Durable::default()
    };
    store.persist(&renewed).expect("stored");
    assert!(matches!(Store::open(dir.path()), Err(StoreError::InUse(_))), "locked");
    drop(store);

    let store = Store::open(dir.path()).expect("opened again");
    let loaded = store.load().expect("loaded");
    assert_eq!((loaded.changes.len(), loaded.certificates.len()), (1501, 1));
    let range = ChangeRange {
        document: DocumentId::Cluster { generation: 0 },
        actor: Some(Actor::new(node, 1)),
        from: 3,
        to: 1500,
    };
    let batches = store.replay(&[range]).expect("read");
    assert!(batches.len() > 1, "bounded batches");
    assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 1498);
    let range = ChangeRange { document: new, actor: None, from: 1, to: 1 };
    assert_eq!(store.replay(&[range]).expect("read").len(), 1);
}

#[test]
fn changes_of_a_document_that_is_replaced_with_them_are_not_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let store = Store::open(dir.path()).expect("opened");
    let [old, new] = [0, 1].map(|generation| DocumentId::Cluster { generation });
    let before = Durable { changes: vec![change(old, &key, 1)], ..Durable::default() };
    store.persist(&before).expect("stored");
    // The last change of a generation arrives in one batch with the checkpoint that follows.
    let changes = vec![change(old, &key, 2), change(new, &key, 1)];
    store.persist(&Durable { changes, replaced: vec![old], ..Durable::default() }).expect("stored");
    assert_eq!(store.load().expect("loaded").changes, [change(new, &key, 1)]);
}

#[test]
fn a_file_of_an_older_or_newer_format_is_refused() {
    for (format, refused) in [(None, "older"), (Some(0), "older"), (Some(2), "upgrade")] {
        let dir = tempfile::tempdir().expect("a directory");
        let database = Database::create(dir.path().join(FILE)).expect("created");
        let transaction = database.begin_write().expect("begun");
        transaction.open_table(CERTIFICATES).expect("made").insert("c", ()).expect("inserted");
        if let Some(format) = format {
            let mut meta = transaction.open_table(META).expect("made");
            meta.insert(FORMAT_KEY, format).expect("inserted");
        }
        transaction.commit().expect("committed");
        drop(database);
        let error = Store::open(dir.path()).err().expect("refused").to_string();
        assert!(error.contains(refused), "{format:?}: {error}");
    }
}

#[test]
fn an_error_of_a_full_disk_is_told_from_other_errors() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("opened");
    let of = |kind: ErrorKind| store.error(redb::Error::Io(kind.into()));
    assert!(matches!(of(ErrorKind::StorageFull), StoreError::Full(_)));
    assert!(matches!(of(ErrorKind::QuotaExceeded), StoreError::Full(_)));
    assert!(matches!(of(ErrorKind::InvalidData), StoreError::Redb { .. }));
}

#[test]
fn another_change_under_the_same_key_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let store = Store::open(dir.path()).expect("opened");
    let persist = |changes| store.persist(&Durable { changes, ..Durable::default() });
    let first = change(DocumentId::Cluster { generation: 0 }, &key, 1);
    persist(vec![first.clone()]).expect("stored");
    persist(vec![first.clone()]).expect("the same change again");
    let mut other = first.decode_unverified().expect("decodes");
    other.payload = vec![8];
    let other = SignedChange::sign(&other, &key);
    let refused = persist(vec![change(DocumentId::Cluster { generation: 0 }, &key, 2), other]);
    assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    assert_eq!(store.load().expect("loaded").changes, [first], "all or nothing");
}

#[test]
fn a_change_that_the_disk_has_damaged_is_replaced_by_the_valid_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let store = Store::open(dir.path()).expect("opened");
    let valid = change(DocumentId::Cluster { generation: 0 }, &key, 1);
    store.persist(&Durable { changes: vec![valid.clone()], ..Durable::default() }).expect("stored");
    let body = valid.decode_unverified().expect("decodes");
    let encoded = encode(&valid);
    for at in [encoded.len() / 2, encoded.len() - 1] {
        let mut damaged = encoded.clone();
        damaged[at] ^= 1;
        store.damage((body.document, body.actor, body.seq), &damaged).expect("written");
        assert_ne!(store.load().expect("loaded").changes, std::slice::from_ref(&valid));
        store
            .persist(&Durable { changes: vec![valid.clone()], ..Durable::default() })
            .expect("stored");
        assert_eq!(store.load().expect("loaded").changes, std::slice::from_ref(&valid));
    }
}

#[test]
fn a_change_that_cannot_be_decoded_is_left_out_and_kept_on_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    let store = Store::open(dir.path()).expect("opened");
    let changes = vec![change(DocumentId::Cluster { generation: 0 }, &key, 1)];
    store.persist(&Durable { changes, ..Durable::default() }).expect("stored");
    let bad = document_key(DocumentId::Cluster { generation: 0 });
    let bad = (bad.as_slice(), &[0xaa; 8][..], 2);
    store
        .write(|transaction| {
            transaction.open_table(CHANGES)?.insert(bad, &b"\xff"[..])?;
            Ok(())
        })
        .expect("written");
    assert_eq!(store.load().expect("loaded").changes.len(), 1);
    let all = ChangeRange {
        document: DocumentId::Cluster { generation: 0 },
        actor: None,
        from: 1,
        to: 9,
    };
    assert_eq!(store.replay(&[all]).expect("read").concat().len(), 1);
    store.reopen().expect("reopened");
    let kept = store.read(|transaction| {
        Ok(transaction.open_table(CHANGES)?.get(bad)?.map(|value| value.value().to_vec()))
    });
    assert_eq!(kept.expect("read").as_deref(), Some(&b"\xff"[..]));
}
