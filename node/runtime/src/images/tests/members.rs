//! Fetching from simulated members.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use vc_frames::{Duplex, Frames};
use vc_protocol::image::{BLOB_FRAME, Layer, MAX_RANGE, Request, Response};
use vc_protocol::{Keypair, NodeId};

use super::super::error::{FetchError, PeerError, StoreError};
use super::super::fetch::fetch;
use super::super::peers::Peers;
use super::super::pipe::PartialFile;
use super::super::rpc::{self, OpenStream, RpcStream};
use super::*;

/// Returns the id of a simulated member.
pub(in crate::images) fn node(byte: u8) -> NodeId {
    let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
    NodeId::of(&key).expect("ed25519")
}

/// How a member answers a request.
pub(super) type Behaviour = Arc<dyn Fn(Box<dyn Duplex>) -> BoxFuture<'static, ()> + Send + Sync>;

/// A network of members by number; others are unreachable.
pub(super) fn network(members: Vec<(u8, Behaviour)>) -> OpenStream {
    let members: BTreeMap<NodeId, Behaviour> =
        members.into_iter().map(|(byte, behaviour)| (node(byte), behaviour)).collect();
    Arc::new(move |to| {
        let behaviour = members.get(&to).cloned();
        Box::pin(async move {
            let behaviour = behaviour.ok_or(std::io::ErrorKind::HostUnreachable)?;
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(behaviour(Box::new(far.compat())));
            Ok(Box::new(near.compat()) as Box<dyn Duplex>)
        })
    })
}

/// A member that answers from its store.
fn correct(images: &Images) -> Behaviour {
    let images = images.clone();
    Arc::new(move |stream| {
        let images = images.clone();
        Box::pin(async move {
            let _ = images.answer(stream, true).await;
        })
    })
}

/// A member that answers `requests` blob requests, sends half of the next one, and then is silent.
fn dies_after(images: &Images, requests: usize) -> Behaviour {
    let (images, served) = (images.clone(), Arc::new(AtomicUsize::new(0)));
    Arc::new(move |stream| {
        let images = images.clone();
        let number = served.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if number < requests {
                let _ = images.answer(stream, true).await;
                return;
            }
            let mut frames = Frames::new(stream, 1 << 22);
            if number == requests
                && let Ok(Request::Blob { blob, offset, length }) = frames.receive().await
            {
                let mut file = images.0.store.blob(&blob).expect("it has it");
                let mut bytes = Vec::new();
                std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(offset)).expect("there");
                file.take(length / 2).read_to_end(&mut bytes).expect("read");
                frames.send(&Response::Blob).await.expect("sent");
                for part in bytes.chunks(BLOB_FRAME) {
                    frames.send_bytes(part.to_vec()).await.expect("sent");
                }
            }
        })
    })
}

/// A member that answers every blob request with wrong bytes.
fn corrupt() -> Behaviour {
    Arc::new(|stream| {
        Box::pin(async move {
            let mut frames = Frames::new(stream, 1 << 22);
            if let Ok(Request::Blob { length, .. }) = frames.receive().await {
                let _ = frames.send(&Response::Blob).await;
                let _ = frames.send_bytes(vec![7; usize::try_from(length).expect("small")]).await;
            }
        })
    })
}

/// A member that has the sample, with its manifest.
fn holder(sample: &Sample) -> (TempDir, Images, Manifest) {
    let (dir, images) = images();
    let manifest = sample.pack_into(&images.0.store);
    (dir, images, manifest)
}

fn peers_of(members: Vec<(u8, Behaviour)>) -> Peers {
    let names: Vec<_> = members.iter().map(|(byte, _)| (node(*byte), format!("h{byte}"))).collect();
    let peers = Peers::new(network(members));
    peers.set(&names);
    peers
}

/// Fetches a blob, and returns how many bytes were received.
async fn get(peers: &Peers, store: &Arc<Store>, layer: &Layer) -> Result<u64, FetchError> {
    let mut reported = Vec::new();
    let file = watch::Sender::new(PartialFile::default());
    fetch(peers, store, layer, file, |bytes| reported.push(bytes)).await?;
    assert!(store.has_blob(layer));
    assert_eq!(reported.iter().sum::<u64>(), layer.blob_size);
    Ok(reported[1..].iter().sum())
}

/// The incompressible layer of a sample, which takes several ranges.
fn big(manifest: &Manifest) -> &Layer {
    let layer = &manifest.layers[1];
    assert!(layer.blob_size > 2 * MAX_RANGE);
    layer
}

#[tokio::test]
async fn a_fetch_continues_from_another_member_when_one_dies() {
    let sample = Sample::typical();
    let (_kept, source, manifest) = holder(&sample);
    for requests in [0, 1] {
        let (_dir, target) = images();
        let peers = peers_of(vec![(1, dies_after(&source, requests)), (2, correct(&source))]);
        let got = get(&peers, &target.0.store, big(&manifest)).await.expect("fetched");
        // No byte was received twice.
        assert_eq!(got, big(&manifest).blob_size);
        assert_eq!(peers.contributors(), "h2");
    }
}

#[tokio::test]
async fn an_interrupted_fetch_resumes_after_the_received_bytes() {
    let sample = Sample::typical();
    let (_kept, source, manifest) = holder(&sample);
    let layer = big(&manifest);
    let (_dir, target) = images();
    let alone = peers_of(vec![(1, dies_after(&source, 1))]);
    let result = get(&alone, &target.0.store, layer).await;
    assert!(matches!(result, Err(FetchError::NoPeers(_))), "{result:?}");
    let partial = target.0.store.partial_path(&layer.blob);
    let there = std::fs::metadata(&partial).expect("kept").len();
    assert!(there >= MAX_RANGE && there < layer.blob_size, "{there}");

    // Truncated anywhere, as by a crash, or longer than the blob.
    for length in [there, 0, 1, MAX_RANGE - 1, 100_000, layer.blob_size, layer.blob_size + 1] {
        let (_dir, target) = images();
        let whole = std::fs::read(source.0.store.blob_path(&layer.blob)).expect("read");
        let mut bytes = whole.clone();
        bytes.resize(usize::try_from(length).expect("small"), 0);
        std::fs::write(target.0.store.partial_path(&layer.blob), &bytes).expect("written");
        let peers = peers_of(vec![(2, correct(&source))]);
        let got = get(&peers, &target.0.store, layer).await.expect("fetched");
        let kept = if length > layer.blob_size { 0 } else { length };
        assert_eq!(got, layer.blob_size - kept, "{length} bytes were there");
    }
}

#[tokio::test]
async fn a_member_that_sends_wrong_bytes_is_identified_and_excluded() {
    let sample = Sample::typical();
    let (_kept, source, manifest) = holder(&sample);
    let (_dir, target) = images();
    let members = || vec![(1, corrupt()), (2, correct(&source))];
    let peers = peers_of(members());
    let names = [(node(1), "h1".to_owned()), (node(2), "h2".to_owned())];
    let mut attempts = 0;
    loop {
        attempts += 1;
        match get(&peers, &target.0.store, big(&manifest)).await {
            Ok(_) => break,
            Err(FetchError::Corrupt { .. }) => peers.set(&names),
            Err(error) => panic!("{error}"),
        }
        assert!(attempts < 4, "the corrupt member is still asked");
    }
    assert!(peers.is_untrusted(node(1)) && !peers.is_untrusted(node(2)));
    assert!(attempts > 1, "the corrupt member was never asked");
}

#[tokio::test]
async fn an_image_that_does_not_fit_on_the_disk_is_rejected() {
    let (_dir, store) = store();
    assert!(store.check_space(0).is_ok());
    let error = store.check_space(u64::MAX / 2).expect_err("no disk is as large");
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("not enough disk space in ") && text.contains(" MB free"), "{text}");
}

#[tokio::test]
async fn members_answer_which_images_and_blobs_they_have() {
    let sample = Sample::typical();
    let (_kept, source, manifest) = holder(&sample);
    let (_empty, nothing) = images();
    let open = network(vec![(1, correct(&source)), (2, correct(&nothing))]);
    let ask = async |byte, request| rpc::request(&open, node(byte), &request).await;
    let have = Request::Has(vec![sample.id.clone()]);
    let held = ask(1, have.clone()).await.expect("a response");
    assert_eq!(held, Response::Has([(sample.id.clone(), true)].into()));
    assert_eq!(ask(2, have).await.expect("a response"), Response::Has(BTreeMap::new()));
    let request = Request::Manifest(sample.id.clone());
    assert_eq!(ask_until(&open, 1, &request).await, Response::Manifest(Box::new(manifest)));
    let blob = Digest::of(b"absent");
    let absent = Request::Blob { blob, offset: 0, length: 10 };
    let not_here = |response| matches!(response, Err(PeerError::Refused(reason)) if reason == "the blob is not on this node");
    assert!(not_here(ask(1, absent).await));
    let first = source.0.store.complete(&sample.id).expect("there").layers[0].blob.clone();
    let beyond = Request::Blob { blob: first, offset: 1 << 50, length: 10 };
    assert!(not_here(ask(1, beyond).await));
    assert!(ask(3, Request::Resolve("a:1".to_owned())).await.is_err());
    let paths = Request::MissingPaths(vec!["/nonexistent".to_owned()]);
    let missing = ask(1, paths.clone()).await.expect("a response");
    assert_eq!(missing, Response::MissingPaths(Vec::new()), "without Docker nothing is mounted");
}

async fn ask_until(open: &OpenStream, byte: u8, request: &Request) -> Response {
    let mut stream = RpcStream::open(open, node(byte), request).await.expect("reached");
    loop {
        match stream.response().await.expect("a response") {
            Response::Progress(_) => {}
            response => return response,
        }
    }
}
