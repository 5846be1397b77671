//! Changes with any content that a member has signed, so that Automerge and the reading of documents are reached.
//!
//! An input is a sequence of changes, each a byte that says of which kind it is, and a piece: the end of an Automerge change,
//! after its dependencies, actor and sequence number, which are added here with the checksum.

use std::collections::BTreeMap;

use automerge::Change;
use sha2::{Digest as _, Sha256};
use vc_protocol::change::{Actor, Batch, ChangeBody, Checkpoint, DocumentId, SignedChange};

use crate::batch::{changes, receive, replica};
use crate::keys::{Identity, KEYS, NOW};
use crate::pieces::{Pieces, piece};

/// The most changes of an input: more are no other code.
const MAX_CHANGES: usize = 8;
/// Generation of the checkpoints, and of node documents.
const GENERATION: u64 = 1 << 16;

/// The bits of the kind of a change.
const AUTHOR: u8 = 0b11;
const NODE_DOCUMENT: u8 = 0b100;
const CHECKPOINT: u8 = 0b1000;
const RAW: u8 = 0b1_0000;
const SKIP: u8 = 0b10_0000;
const NO_DEPENDENCIES: u8 = 0b100_0000;
const SAME_BATCH: u8 = 0b1000_0000;

/// What an actor has written of a document: the last sequence number, and the heads.
type Written = (u64, Vec<[u8; 32]>);

/// Runs an input: batches of changes.
pub(crate) fn run(data: &[u8]) {
    let mut pieces = Pieces(data);
    let mut receiver = replica(&KEYS.servers[1]);
    let mut written: BTreeMap<(DocumentId, Actor), Written> = BTreeMap::new();
    let mut batch = Batch::default();
    let mut accepted = Vec::new();
    for _ in 0..MAX_CHANGES {
        if pieces.is_empty() {
            break;
        }
        let kind = pieces.byte();
        let content = pieces.piece();
        let author = author(kind);
        let document = document(kind, author);
        let actor = Actor::new(author.id, 1);
        let (seq, heads) =
            written.entry((document, actor)).or_insert_with(|| (0, genesis(document)));
        *seq += if kind & SKIP == 0 { 1 } else { u64::from(kind >> 6) };
        let deps: &[[u8; 32]] = if kind & NO_DEPENDENCIES == 0 { heads } else { &[] };
        let payload = match kind & RAW {
            0 => {
                let (payload, hash) = chunk(deps, actor, *seq, content);
                *heads = vec![hash];
                payload
            }
            _ => content.to_vec(),
        };
        let checkpoint = (kind & CHECKPOINT != 0 && *seq == 1).then(|| Checkpoint {
            covers: receiver.versions().cluster.clone(),
            parts: 1 + u64::from(kind >> 7),
        });
        let body = ChangeBody {
            cluster: KEYS.cluster,
            document,
            actor,
            seq: *seq,
            author: author.id,
            on_behalf_of: None,
            timestamp: NOW,
            checkpoint,
            payload,
        };
        batch.changes.push(SignedChange::sign(&body, &author.key));
        if kind & SAME_BATCH == 0 {
            accept(&mut receiver, std::mem::take(&mut batch), &mut accepted);
        }
    }
    accept(&mut receiver, batch, &mut accepted);
    assert!(accepted.iter().all(|it| it.verify(KEYS.cluster).is_ok()));
}

fn accept(receiver: &mut vc_crdt::Replica, batch: Batch, accepted: &mut Vec<SignedChange>) {
    let alone = accepted.is_empty();
    let changes = batch.changes.clone();
    // Only of an empty replica the disk has exactly what this batch brought.
    let new = if alone { receive(receiver, batch) } else { receiver.receive(batch).accepted };
    for change in &new {
        let Ok(body) = change.decode_unverified() else { continue };
        let may = body.author != KEYS.outsider.id
            && (body.author != KEYS.worker.id || matches!(body.document, DocumentId::Node { .. }));
        assert!(may, "{} wrote {:?}", body.author, body.document);
    }
    assert!(new.len() <= changes.len() + accepted.len());
    accepted.extend(new);
}

fn author(kind: u8) -> &'static Identity {
    match kind & AUTHOR {
        0 => &KEYS.servers[0],
        1 => &KEYS.worker,
        2 => &KEYS.outsider,
        _ => &KEYS.root,
    }
}

fn document(kind: u8, author: &Identity) -> DocumentId {
    match (kind & NODE_DOCUMENT, kind & CHECKPOINT) {
        (0, 0) => DocumentId::Cluster { generation: 0 },
        (0, _) => DocumentId::Cluster { generation: GENERATION },
        _ => DocumentId::Node { node: author.id, generation: GENERATION },
    }
}

/// The hashes that the first change of a document depends on.
fn genesis(document: DocumentId) -> Vec<[u8; 32]> {
    let is_node = |it: &ChangeBody| matches!(it.document, DocumentId::Node { .. });
    let node = is_node(&ChangeBody { document, ..bodies()[0].0.clone() });
    let of_kind = |(body, _): &&(ChangeBody, Change)| is_node(body) == node && body.seq == 1;
    let first = bodies().iter().find(of_kind);
    first.map(|(_, change)| change.deps().iter().map(|it| it.0).collect()).unwrap_or_default()
}

/// The changes that a server writes, decoded.
fn bodies() -> &'static [(ChangeBody, Change)] {
    static BODIES: std::sync::LazyLock<Vec<(ChangeBody, Change)>> =
        std::sync::LazyLock::new(|| {
            let bodies = changes().into_iter().filter_map(|it| it.decode_unverified().ok());
            bodies
                .filter_map(|body| Some((body.clone(), Change::from_bytes(body.payload).ok()?)))
                .collect()
        });
    &BODIES
}

/// Returns an Automerge change with its checksum, and its hash (Automerge binary format, "Chunk container").
fn chunk(deps: &[[u8; 32]], actor: Actor, seq: u64, end: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mut body = leb(deps.len() as u64);
    deps.iter().for_each(|hash| body.extend(hash));
    body.extend(leb(actor.as_bytes().len() as u64));
    body.extend(actor.as_bytes());
    body.extend(leb(seq));
    body.extend(end);
    let hashed = [&[1], &leb(body.len() as u64)[..], &body].concat();
    let hash: [u8; 32] = Sha256::digest(&hashed).into();
    ([&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &hashed].concat(), hash)
}

fn leb(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Returns the end of an Automerge change, as an input has it.
fn end_of(body: &ChangeBody, change: &Change) -> Vec<u8> {
    let deps: Vec<[u8; 32]> = change.deps().iter().map(|it| it.0).collect();
    let head = chunk(&deps, body.actor, body.seq, &[]).0;
    // The length of the whole is encoded before: it may take more bytes than that of the head.
    let inner = |bytes: &[u8]| {
        let length = bytes[9..].iter().take_while(|it| **it & 0x80 != 0).count() + 1;
        bytes[9 + length..].to_vec()
    };
    inner(&body.payload)[inner(&head).len()..].to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let kind = |body: &ChangeBody| match body.document {
        DocumentId::Node { .. } => NODE_DOCUMENT,
        DocumentId::Cluster { generation: 0 } => 0,
        DocumentId::Cluster { .. } => CHECKPOINT,
    };
    let encode = |(body, change): &(ChangeBody, Change), kind| {
        [&[kind][..], &piece(&end_of(body, change))].concat()
    };
    let all = bodies();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|it| encode(it, kind(&it.0))).collect();
    seeds.push(all.iter().flat_map(|it| encode(it, kind(&it.0))).collect());
    seeds.push(all.iter().flat_map(|it| encode(it, kind(&it.0) | SAME_BATCH)).collect());
    seeds.push(all.iter().flat_map(|it| encode(it, kind(&it.0) | 1)).collect());
    seeds.push([&[RAW][..], &piece(&all[0].0.payload)].concat());
    seeds
}
