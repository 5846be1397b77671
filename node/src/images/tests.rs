//! Packing and unpacking, fetching and pruning, with members that are only pipes in memory.

#![allow(clippy::expect_used, reason = "a test's way to say what must not fail")]

use std::io::Read as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio_util::compat::TokioAsyncReadCompatExt as _;
use vc_protocol::Keypair;
use vc_protocol::control::{ImagePush, Reply};

use super::fetch::{FetchError, Pool, fetch};
use super::manifest::{Encoding, Layer};
use super::pack::{PackError, pack};
use super::pipe::Growth;
use super::unpack::{UnpackError, unpack};
use super::wire::{Answer, Duplex, FRAME, Request, WINDOW};
use super::*;
use crate::frames::Frames;

/// Bytes that do not shrink, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An image: its layers' tars, and its configuration.
struct Sample {
    layers: Vec<Vec<u8>>,
    config: String,
    id: Digest,
}

impl Sample {
    fn new(layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|tar| Digest::of(tar).to_string()).collect();
        let config = serde_json::json!({ "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let config = config.to_string();
        let id = Digest::of(config.as_bytes());
        Self { layers, config, id }
    }

    /// One layer that shrinks, one that does not, one that occurs twice.
    fn usual() -> Self {
        let text = b"a line of text that shrinks\n".repeat(300_000);
        Self::new(vec![text.clone(), noise(1, 9_000_000), text])
    }

    fn bytes(&self) -> u64 {
        self.layers.iter().map(|tar| tar.len() as u64).sum()
    }

    /// As Docker 20 saves it: a directory a layer, a link for one that occurs again.
    fn saved_as_before_25(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut names = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let directory = Digest::of(&[index as u8]).hex().to_owned();
            let name = format!("{directory}/layer.tar");
            let first = self.layers.iter().position(|it| it == layer).expect("itself");
            add(&mut tar, &format!("{directory}/VERSION"), b"1.0");
            if first < index {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                let target = format!("../{}/layer.tar", Digest::of(&[first as u8]).hex());
                tar.append_link(&mut header, &name, target).expect("appended");
            } else {
                add(&mut tar, &name, layer);
            }
            names.push(name);
        }
        let config = format!("{}.json", self.id.hex());
        add(&mut tar, &config, self.config.as_bytes());
        self.finish(tar, &config, &names)
    }

    /// As later ones do: blobs by hash, in the order of their names.
    fn saved_since_25(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let mut blobs: BTreeMap<String, &[u8]> = BTreeMap::new();
        let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        blobs.insert(name(self.config.as_bytes()), self.config.as_bytes());
        blobs.insert(name(b"{}"), b"{}");
        blobs.extend(self.layers.iter().map(|layer| (name(layer), &layer[..])));
        for (path, bytes) in &blobs {
            add(&mut tar, path, bytes);
        }
        add(&mut tar, "index.json", b"{}");
        let names: Vec<String> = self.layers.iter().map(|layer| name(layer)).collect();
        self.finish(tar, &name(self.config.as_bytes()), &names)
    }

    fn finish(&self, mut tar: tar::Builder<Vec<u8>>, config: &str, layers: &[String]) -> Vec<u8> {
        let manifest =
            serde_json::json!([{ "Config": config, "RepoTags": ["a:1"], "Layers": layers }]);
        add(&mut tar, "manifest.json", manifest.to_string().as_bytes());
        tar.into_inner().expect("whole")
    }

    fn pack_into(&self, store: &Store) -> Manifest {
        pack(store, &self.id, &self.saved_since_25()[..], |_| {}).expect("packed")
    }
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).expect("appended");
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("a store");
    (dir, store)
}

/// How many files the store has, of any kind.
fn files(dir: &TempDir) -> usize {
    let subs = ["blobs", "manifests", "partial"].map(|sub| dir.path().join("images").join(sub));
    subs.iter().map(|sub| std::fs::read_dir(sub).expect("listed").count()).sum()
}

/// Reads a tar with another reader than ours.
fn unpacked(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().expect("entries").map(|entry| {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("read");
        (path, content)
    });
    entries.collect()
}

#[test]
fn an_image_survives_packing_and_unpacking_whichever_docker_saved_it() {
    let sample = Sample::usual();
    let mut manifests = Vec::new();
    for saved in [sample.saved_as_before_25(), sample.saved_since_25()] {
        let (dir, store) = store();
        let manifest = pack(&store, &sample.id, &saved[..], |_| {}).expect("packed");
        assert_eq!(store.complete(&sample.id).as_ref(), Some(&manifest));
        // Two blobs and a manifest: nothing else is left of the stream.
        assert_eq!(files(&dir), 3);
        assert_eq!(
            (manifest.layers[0].encoding, manifest.layers[1].encoding),
            (Encoding::Zstd, Encoding::Raw)
        );
        assert!(manifest.layers[0].blob_size * 10 < manifest.layers[0].size);

        let mut tar = Vec::new();
        unpack(&manifest, 0, |layer| store.blob(&layer.blob), &mut tar).expect("unpacked");
        let files = unpacked(&tar);
        assert_eq!(files[&format!("{}.json", sample.id.hex())], sample.config.as_bytes());
        for (index, layer) in sample.layers.iter().enumerate() {
            assert!(files[&format!("{index}/layer.tar")] == *layer, "layer {index} differs");
        }
        // What came out goes in again.
        let (_dir, other) = self::store();
        assert_eq!(pack(&other, &sample.id, &tar[..], |_| {}).expect("packed"), manifest);

        let mut without = Vec::new();
        unpack(&manifest, 2, |layer| store.blob(&layer.blob), &mut without).expect("unpacked");
        let names: Vec<String> = unpacked(&without).into_keys().collect();
        assert_eq!(names, ["2/layer.tar", &format!("{}.json", sample.id.hex()), "manifest.json"]);
        manifests.push(manifest);
    }
    assert_eq!(manifests[0], manifests[1]);
}

#[test]
fn a_stream_that_is_not_the_image_leaves_nothing_behind() {
    let sample = Sample::new(vec![noise(1, 2_000_000), b"small".to_vec()]);
    let whole = sample.saved_since_25();
    let other = Sample::new(vec![noise(2, 1000)]);
    let evil = {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, target) in [("a", "a"), ("b", "../../../../etc/passwd"), ("manifest.json", "b")]
        {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, path, target).expect("appended");
        }
        tar.into_inner().expect("whole")
    };
    let endless_header = {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_path("x").expect("a path");
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let lies_about_layers = {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "config", sample.config.as_bytes());
        add(&mut tar, "wrong", &noise(3, 2_000_000));
        sample.finish(tar, "config", &["wrong".to_owned(), "wrong".to_owned()])
    };
    let damaged = {
        let mut damaged = whole.clone();
        damaged[3] ^= 1;
        damaged
    };
    let cases: [(&str, &[u8]); 9] = [
        ("nothing", &[]),
        ("garbage", &noise(9, 5000)),
        ("only an end", &[0; 1024]),
        ("another image", &other.saved_since_25()),
        ("cut off", &whole[..1_500_000]),
        ("links in circles and to elsewhere", &evil),
        ("an endless header", &endless_header),
        ("other layers", &lies_about_layers),
        ("damaged", &damaged),
    ];
    for (what, bytes) in cases {
        let (dir, store) = store();
        let outcome = pack(&store, &sample.id, bytes, |_| {});
        assert!(outcome.is_err(), "{what} was taken");
        assert_eq!(files(&dir), 0, "{what} left something");
    }
    let (_dir, store) = store();
    let outcome = pack(&store, &sample.id, &other.saved_since_25()[..], |_| {});
    assert!(matches!(outcome, Err(PackError::Other { id, .. }) if id == sample.id));
}

#[test]
fn blobs_that_do_not_hold_the_layers_never_get_the_file_that_makes_an_image_of_them() {
    let sample = Sample::usual();
    let (_dir, store) = store();
    let honest = sample.pack_into(&store);
    let text = &honest.layers[0];
    let swapped = Layer {
        diff_id: honest.layers[1].diff_id.clone(),
        size: honest.layers[1].size,
        ..text.clone()
    };
    let short = Layer { size: text.size + 1, ..text.clone() };
    let long = Layer { size: 10, ..text.clone() };
    let no_zstd = Layer { encoding: Encoding::Zstd, ..honest.layers[1].clone() };
    for wrong in [swapped, short, long, no_zstd] {
        let manifest = Manifest { layers: vec![wrong.clone()], ..honest.clone() };
        let mut tar = Vec::new();
        let outcome = unpack(&manifest, 0, |layer| store.blob(&layer.blob), &mut tar);
        assert!(matches!(outcome, Err(UnpackError::Wrong { .. })), "{wrong:?}: {outcome:?}");
        let end = b"RepoTags";
        assert!(!tar.windows(end.len()).any(|window| window == end));
        assert!(tar.len() as u64 <= wrong.size + 4096);
    }
}

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

fn images() -> (TempDir, Images) {
    let dir = tempfile::tempdir().expect("a directory");
    let images = Images::open(dir.path(), None).expect("a store");
    (dir, images)
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

#[tokio::test]
async fn a_pushed_image_is_in_the_store_and_a_broken_push_leaves_nothing() {
    let sample = Sample::usual();
    let push = ImagePush {
        reference: "shop/web".to_owned(),
        id: sample.id.to_string(),
        size: sample.bytes(),
    };
    let saved = sample.saved_since_25();
    for (sent, ends) in [(saved.len() / 2, false), (saved.len() / 2, true), (saved.len(), true)] {
        let (dir, images) = images();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let user = async {
            let mut frames = Frames::new(near.compat(), 1 << 22);
            assert_eq!(frames.receive::<Reply>().await.expect("an answer"), Reply::Ready);
            for part in saved[..sent].chunks(1 << 20) {
                frames.send_bytes(part.to_vec()).await.expect("sent");
            }
            if ends {
                frames.send_bytes(Vec::new()).await.expect("sent");
                // Until the node has gone.
                while frames.receive::<Reply>().await.is_ok() {}
            }
        };
        let member = async {
            let mut frames = Frames::new(far.compat(), 1 << 22);
            images.receive(&push, &mut frames).await
        };
        let ((), received) = tokio::join!(user, member);
        if sent == saved.len() {
            let pushed = received.expect("a user").expect("an image");
            let size = sample.bytes();
            assert_eq!(
                pushed,
                Pushed { reference: "shop/web:latest".to_owned(), id: sample.id.clone(), size }
            );
            assert!(images.0.store.complete(&sample.id).is_some());
        } else {
            assert!(!matches!(received, Ok(Ok(_))), "half an image was taken");
            assert_eq!(files(&dir), 0);
        }
    }
}

#[tokio::test]
async fn pruning_keeps_what_is_needed_and_what_is_young() {
    let (dir, images) = images();
    let old = Sample::new(vec![noise(1, 5000), noise(2, 5000)]);
    let new = Sample::new(vec![noise(1, 5000), noise(3, 5000)]);
    for sample in [&old, &new] {
        sample.pack_into(&images.0.store);
    }
    std::fs::write(images.0.store.partial_path(&Digest::of(b"x")), b"beginning").expect("written");
    // Three blobs, two manifests, a beginning.
    assert_eq!(files(&dir), 6);
    let hour = Duration::from_secs(3600);
    images.prune_blobs(BTreeSet::new(), hour, hour).await;
    assert_eq!(files(&dir), 6, "young ones stay");
    images.prune_blobs([new.id.clone()].into(), Duration::ZERO, hour).await;
    assert_eq!(files(&dir), 4, "the old image's own blob and manifest go");
    assert!(
        images.0.store.complete(&new.id).is_some() && images.0.store.manifest(&old.id).is_none()
    );
    images.prune_blobs([new.id.clone()].into(), hour, Duration::ZERO).await;
    assert_eq!(files(&dir), 3, "what has been idle for too long goes");
}
