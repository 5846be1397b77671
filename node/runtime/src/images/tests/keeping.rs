//! What is pushed, and what is pruned.

use tokio_util::compat::TokioAsyncReadCompatExt as _;
use vc_protocol::control::{ImagePush, Reply};

use super::*;
use vc_frames::Frames;

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
