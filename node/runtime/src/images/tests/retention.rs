//! Pruning of the store.

use super::*;

#[tokio::test]
async fn pruning_keeps_blobs_that_are_in_use_or_recent() {
    let (dir, images) = images();
    let old = Sample::new(vec![noise(1, 5000), noise(2, 5000)]);
    let new = Sample::new(vec![noise(1, 5000), noise(3, 5000)]);
    for sample in [&old, &new] {
        sample.pack_into(&images.0.store);
    }
    std::fs::write(images.0.store.partial_path(&Digest::of(b"x")), b"partial").expect("written");
    // Three blobs, two manifests, an incomplete blob.
    assert_eq!(files(&dir), 6);
    let hour = Duration::from_secs(3600);
    images.prune_blobs(BTreeSet::new(), hour, hour).await;
    assert_eq!(files(&dir), 6, "recent files stay");
    images.prune_blobs([new.id.clone()].into(), Duration::ZERO, hour).await;
    assert_eq!(files(&dir), 4, "the unused image's own blob and manifest are removed");
    assert!(
        images.0.store.complete(&new.id).is_some() && images.0.store.manifest(&old.id).is_none()
    );
    images.prune_blobs([new.id.clone()].into(), hour, Duration::ZERO).await;
    assert_eq!(files(&dir), 3, "an idle incomplete blob is removed");
}
