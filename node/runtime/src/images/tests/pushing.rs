//! Pushed images.

use tokio_util::compat::TokioAsyncReadCompatExt as _;
use vc_frames::Frames;
use vc_protocol::control::{ImagePush, Reply};

use super::super::Pushed;
use super::*;

#[tokio::test]
async fn a_pushed_image_is_stored_and_an_incomplete_push_leaves_no_files() {
    let sample = Sample::typical();
    let push = ImagePush {
        reference: "shop/web".to_owned(),
        id: sample.id.to_string(),
        size: sample.bytes(),
    };
    let saved = sample.saved_since_docker_25();
    for (sent, ends) in [(saved.len() / 2, false), (saved.len() / 2, true), (saved.len(), true)] {
        let (dir, images) = images();
        let (near, far) = tokio::io::duplex(64 * 1024);
        let client = async {
            let mut frames = Frames::new(near.compat(), 1 << 22);
            assert_eq!(frames.receive::<Reply>().await.expect("an answer"), Reply::Ready);
            for part in saved[..sent].chunks(1 << 20) {
                frames.send_bytes(part.to_vec()).await.expect("sent");
            }
            if ends {
                frames.send_bytes(Vec::new()).await.expect("sent");
                // Until the node closes the stream.
                while frames.receive::<Reply>().await.is_ok() {}
            }
        };
        let node = async {
            let mut frames = Frames::new(far.compat(), 1 << 22);
            images.receive_push(&push, &mut frames).await
        };
        let ((), received) = tokio::join!(client, node);
        if sent == saved.len() {
            let pushed = received.expect("an image");
            let size = sample.bytes();
            assert_eq!(
                pushed,
                Pushed { reference: "shop/web:latest".to_owned(), id: sample.id.clone(), size }
            );
            assert!(images.0.store.complete(&sample.id).is_some());
        } else {
            assert!(received.is_err(), "an incomplete image was accepted");
            assert_eq!(files(&dir), 0);
        }
    }
}
