//! Fetching from members that are only pipes in memory.

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use vc_protocol::Keypair;

use super::super::fetch::{FetchError, Pool, fetch};
use super::super::manifest::Layer;
use super::super::pipe::Growth;
use super::super::wire::{Answer, FRAME, Request, WINDOW};
use super::*;
use vc_frames::{Duplex, Frames};

/// A member that only a test knows.
fn node(byte: u8) -> NodeId {
    let key = Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes").public();
    NodeId::of(&key).expect("ed25519")
}

/// What a member does with a request.
type Behaviour = Arc<dyn Fn(Box<dyn Duplex>) -> BoxFuture<'static, ()> + Send + Sync>;

/// Members by number; who is not among them cannot be reached.
fn network(members: Vec<(u8, Behaviour)>) -> Open {
    let members: BTreeMap<NodeId, Behaviour> =
        members.into_iter().map(|(byte, behaviour)| (node(byte), behaviour)).collect();
    Arc::new(move |to| {
        let behaviour = members.get(&to).cloned();
        Box::pin(async move {
            let behaviour = behaviour.ok_or("it cannot be reached")?;
            let (near, far) = tokio::io::duplex(64 * 1024);
            tokio::spawn(behaviour(Box::new(far.compat())));
            Ok(Box::new(near.compat()) as Box<dyn Duplex>)
        })
    })
}

/// A member with a store.
fn honest(images: &Images) -> Behaviour {
    let images = images.clone();
    Arc::new(move |stream| {
        let images = images.clone();
        Box::pin(async move {
            let _ = images.answer(stream).await;
        })
    })
}

/// As `honest`, but after so many blob requests in all it sends half of one, and is never heard again.
fn dies_after(images: &Images, requests: usize) -> Behaviour {
    let (images, served) = (images.clone(), Arc::new(AtomicUsize::new(0)));
    Arc::new(move |stream| {
        let images = images.clone();
        let number = served.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if number < requests {
                let _ = images.answer(stream).await;
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
                frames.send(&Answer::Bytes).await.expect("sent");
                for part in bytes.chunks(FRAME) {
                    frames.send_bytes(part.to_vec()).await.expect("sent");
                }
            }
        })
    })
}

/// Answers every request for a blob with as many bytes as are asked for, all of them wrong.
fn liar() -> Behaviour {
    Arc::new(|stream| {
        Box::pin(async move {
            let mut frames = Frames::new(stream, 1 << 22);
            if let Ok(Request::Blob { length, .. }) = frames.receive().await {
                let _ = frames.send(&Answer::Bytes).await;
                let _ = frames.send_bytes(vec![7; usize::try_from(length).expect("small")]).await;
            }
        })
    })
}

/// A member that has the sample, and its manifest.
fn holder(sample: &Sample) -> (TempDir, Images, Manifest) {
    let (dir, images) = images();
    let manifest = sample.pack_into(&images.0.store);
    (dir, images, manifest)
}

fn pool(members: Vec<(u8, Behaviour)>) -> Pool {
    let names: Vec<_> = members.iter().map(|(byte, _)| (node(*byte), format!("h{byte}"))).collect();
    let pool = Pool::new(network(members));
    pool.use_only(&names);
    pool
}

/// Fetches a blob; tells how many bytes came, beside what was there.
async fn get(pool: &Pool, store: &Arc<Store>, layer: &Layer) -> Result<u64, FetchError> {
    let mut told = Vec::new();
    let growth = watch::Sender::new(Growth::default());
    fetch(pool, store, layer, growth, |bytes| told.push(bytes)).await?;
    assert!(store.holds(layer));
    assert_eq!(told.iter().sum::<u64>(), layer.blob_size);
    Ok(told[1..].iter().sum())
}

/// The layer of a sample that does not shrink: it is several windows long.
fn big(manifest: &Manifest) -> &Layer {
    let layer = &manifest.layers[1];
    assert!(layer.blob_size > 2 * WINDOW);
    layer
}

#[tokio::test]
async fn a_blob_comes_from_another_member_when_its_source_dies_on_the_way() {
    let sample = Sample::usual();
    let (_kept, source, manifest) = holder(&sample);
    for requests in [0, 1] {
        let (_dir, target) = images();
        let pool = pool(vec![(1, dies_after(&source, requests)), (2, honest(&source))]);
        let got = get(&pool, &target.0.store, big(&manifest)).await.expect("fetched");
        // Not a byte twice.
        assert_eq!(got, big(&manifest).blob_size);
        assert_eq!(pool.givers(), "h2");
    }
}

#[tokio::test]
async fn what_came_before_an_interruption_is_not_fetched_again() {
    let sample = Sample::usual();
    let (_kept, source, manifest) = holder(&sample);
    let layer = big(&manifest);
    let (_dir, target) = images();
    let alone = pool(vec![(1, dies_after(&source, 1))]);
    let outcome = get(&alone, &target.0.store, layer).await;
    assert!(matches!(outcome, Err(FetchError::Nobody(_))), "{outcome:?}");
    let partial = target.0.store.partial_path(&layer.blob);
    let there = std::fs::metadata(&partial).expect("kept").len();
    assert!(there >= WINDOW && there < layer.blob_size, "{there}");

    // Cut anywhere, as a crash does; or longer than it can be.
    for length in [there, 0, 1, WINDOW - 1, 100_000, layer.blob_size, layer.blob_size + 1] {
        let (_dir, target) = images();
        let whole = std::fs::read(source.0.store.blob_path(&layer.blob)).expect("read");
        let mut bytes = whole.clone();
        bytes.resize(usize::try_from(length).expect("small"), 0);
        std::fs::write(target.0.store.partial_path(&layer.blob), &bytes).expect("written");
        let pool = pool(vec![(2, honest(&source))]);
        let got = get(&pool, &target.0.store, layer).await.expect("fetched");
        let kept = if length > layer.blob_size { 0 } else { length };
        assert_eq!(got, layer.blob_size - kept, "{length} bytes were there");
    }
}

#[tokio::test]
async fn a_member_whose_bytes_are_wrong_is_found_out_and_left_out() {
    let sample = Sample::usual();
    let (_kept, source, manifest) = holder(&sample);
    let (_dir, target) = images();
    let members = || vec![(1, liar()), (2, honest(&source))];
    let pool = pool(members());
    let names = [(node(1), "h1".to_owned()), (node(2), "h2".to_owned())];
    let mut attempts = 0;
    loop {
        attempts += 1;
        match get(&pool, &target.0.store, big(&manifest)).await {
            Ok(_) => break,
            Err(FetchError::Wrong) => pool.use_only(&names),
            Err(error) => panic!("{error}"),
        }
        assert!(attempts < 4, "the liar is still asked");
    }
    assert!(pool.is_liar(node(1)) && !pool.is_liar(node(2)));
    assert!(attempts > 1, "the liar was never asked");
}

#[tokio::test]
async fn a_full_disk_is_told_before_anything_is_fetched() {
    let (_dir, store) = store();
    assert_eq!(store.room_for(0), Ok(()));
    let why = store.room_for(u64::MAX / 2).expect_err("no disk is as large");
    assert!(why.starts_with("the disk is full: ") && why.contains(" are free in "), "{why}");
}

#[tokio::test]
async fn members_say_what_they_have_and_who_has_nothing_says_so() {
    let sample = Sample::usual();
    let (_kept, source, manifest) = holder(&sample);
    let (_empty, nothing) = images();
    let open = network(vec![(1, honest(&source)), (2, honest(&nothing))]);
    let ask = async |byte, request| wire::ask(&open, node(byte), &request).await;
    let have = Request::Have(vec![sample.id.clone()]);
    assert_eq!(ask(1, have.clone()).await, Ok(Answer::Have([(sample.id.clone(), true)].into())));
    assert_eq!(ask(2, have).await, Ok(Answer::Have(BTreeMap::new())));
    let request = Request::Manifest(sample.id.clone());
    assert_eq!(ask_until(&open, 1, &request).await, Answer::Manifest(Box::new(manifest)));
    let blob = Digest::of(b"absent");
    let absent = Request::Blob { blob, offset: 0, length: 10 };
    assert_eq!(ask(1, absent).await, Err("it is not here".to_owned()));
    let first = source.0.store.complete(&sample.id).expect("there").layers[0].blob.clone();
    let beyond = Request::Blob { blob: first, offset: 1 << 50, length: 10 };
    assert_eq!(ask(1, beyond).await, Err("it is not here".to_owned()));
    assert!(ask(3, Request::Resolve("a:1".to_owned())).await.is_err());
}

async fn ask_until(open: &Open, byte: u8, request: &Request) -> Answer {
    let mut call = wire::Call::new(open, node(byte), request).await.expect("reached");
    loop {
        match call.answer().await.expect("an answer") {
            Answer::Working(_) => {}
            answer => return answer,
        }
    }
}
