//! The operations, against a server that fails as it is told.

use std::path::PathBuf;

use vc_s3_test_server::{Fault, KEY_ID, S3Server, SECRET};

use crate::upload::abort_unfinished;
use crate::{Bucket, Cause, Credentials, Object, S3Error, Upload};

/// Bytes of a part, as the server takes them.
const PART: usize = 1024;

struct Scene {
    server: S3Server,
    bucket: Bucket,
    dir: tempfile::TempDir,
}

fn credentials(key_id: &str, secret: &str) -> Credentials {
    Credentials { key_id: key_id.to_owned(), secret: secret.to_owned(), session_token: None }
}

impl Scene {
    fn new() -> Self {
        let server = S3Server::start();
        let address = server.location("home/vc").parse().expect("an address");
        let bucket = Bucket::open(&address, &credentials(KEY_ID, SECRET)).expect("opened");
        Self { server, bucket, dir: tempfile::tempdir().expect("a directory") }
    }

    fn with(&self, location: &str, key_id: &str, secret: &str) -> Bucket {
        let address = location.parse().expect("an address");
        Bucket::open(&address, &credentials(key_id, secret)).expect("opened")
    }

    fn note(&self) -> PathBuf {
        self.dir.path().join("upload.json")
    }

    async fn upload(&self, name: &str, content: &[u8]) -> Result<u64, S3Error> {
        let mut upload = Upload::new(self.bucket.clone(), name, PART, &self.note());
        // As a writer does, which knows nothing of parts.
        for bytes in content.chunks(300) {
            if let Err(error) = upload.write(bytes).await {
                upload.abort().await;
                return Err(error);
            }
        }
        upload.finish().await
    }
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect()
}

#[tokio::test]
async fn an_object_of_any_size_is_uploaded_listed_read_and_deleted() {
    let scene = Scene::new();
    let sizes = [0, 1, PART - 1, PART, PART + 1, 5 * PART, 5 * PART + 7];
    for (at, size) in sizes.into_iter().enumerate() {
        let sent = scene.upload(&format!("vc-{at}.vcb"), &content(size)).await.expect("sent");
        assert_eq!(sent, size as u64);
    }
    scene.server.put("home/vc/other", "x");
    scene.server.put("home/vc/vc-deeper/vc-1.vcb", "x");
    scene.server.put("home/vc-1.vcb", "x");
    let listed = scene.bucket.list("vc-").await.expect("listed");
    let expected: Vec<Object> = sizes
        .iter()
        .enumerate()
        .map(|(at, size)| Object { name: format!("vc-{at}.vcb"), size: *size as u64 })
        .collect();
    assert_eq!(listed, expected, "of four pages");
    for (at, size) in sizes.into_iter().enumerate() {
        let mut copy = Vec::new();
        scene.bucket.download(&format!("vc-{at}.vcb"), &mut copy).await.expect("read");
        assert_eq!(copy, content(size));
    }
    let first = scene.bucket.first_bytes("vc-6.vcb", 10).await.expect("read");
    assert_eq!(first, content(10));
    scene.bucket.delete("vc-6.vcb").await.expect("deleted");
    scene.bucket.delete("vc-6.vcb").await.expect("it is gone already");
    assert!(!scene.server.objects().contains_key("home/vc/vc-6.vcb"));
    assert_eq!(scene.server.open_uploads(), 0);
    assert!(!scene.note().exists());
}

#[tokio::test]
async fn requests_that_a_server_cannot_answer_now_are_repeated() {
    let scene = Scene::new();
    for request in ["CREATE", "PART", "COMPLETE", "LIST", "GET"] {
        scene.server.fail(request, Fault::Refuse(503, "SlowDown"), 1);
    }
    scene.server.fail("PART", Fault::Close, 1);
    scene.upload("vc-1.vcb", &content(3 * PART + 1)).await.expect("sent");
    assert_eq!(scene.bucket.list("vc-").await.expect("listed").len(), 1);
    let mut copy = Vec::new();
    scene.bucket.download("vc-1.vcb", &mut copy).await.expect("read");
    assert_eq!(copy, content(3 * PART + 1));
}

#[tokio::test]
async fn a_download_goes_on_where_its_connection_was_lost() {
    let scene = Scene::new();
    scene.server.put("home/vc/vc-1.vcb", content(100_000));
    scene.server.fail("GET", Fault::Cut, 2);
    let mut copy = Vec::new();
    scene.bucket.download("vc-1.vcb", &mut copy).await.expect("read");
    assert_eq!(copy, content(100_000));
    assert_eq!(scene.server.requests().len(), 3);
}

#[tokio::test]
async fn what_fails_in_the_middle_leaves_neither_an_object_nor_parts() {
    for fault in [Fault::Refuse(403, "AccessDenied"), Fault::Refuse(507, "XMinioStorageFull")] {
        for request in ["PART", "COMPLETE"] {
            let scene = Scene::new();
            scene.server.fail(request, fault.clone(), 1);
            scene.upload("vc-1.vcb", &content(4 * PART + 1)).await.expect_err("refused");
            assert_eq!((scene.server.objects().len(), scene.server.open_uploads()), (0, 0));
            assert!(!scene.note().exists());
        }
    }
}

#[tokio::test]
async fn the_parts_of_a_process_that_was_killed_are_removed_by_the_next_one() {
    let scene = Scene::new();
    let mut upload = Upload::new(scene.bucket.clone(), "vc-1.vcb", PART, &scene.note());
    upload.write(&content(2 * PART)).await.expect("sent");
    // Nothing runs on drop, as after SIGKILL.
    drop(upload);
    assert_eq!(scene.server.open_uploads(), 1);
    // The server is away at first.
    scene.server.fail("ABORT", Fault::Refuse(403, "AccessDenied"), 1);
    abort_unfinished(&scene.bucket, &scene.note()).await;
    assert_eq!(scene.server.open_uploads(), 1);
    abort_unfinished(&scene.bucket, &scene.note()).await;
    assert_eq!(scene.server.open_uploads(), 0);
    assert!(!scene.note().exists());
    // And what the server has forgotten is no problem.
    std::fs::write(
        scene.note(),
        format!(r#"{{"address":"{}","name":"vc-1.vcb","id":"gone"}}"#, scene.bucket.address()),
    )
    .expect("written");
    abort_unfinished(&scene.bucket, &scene.note()).await;
    assert!(!scene.note().exists());
}

#[tokio::test]
async fn errors_name_the_cause_and_the_fix_and_no_secret() {
    let scene = Scene::new();
    let here = scene.server.location("home/vc");
    let other = here.replace("s3://backups", "s3://elsewhere");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = port.local_addr().expect("an address");
    drop(port);
    let unreachable = format!("s3://backups?endpoint=http://{closed}");
    for (bucket, why) in [
        (scene.with(&other, KEY_ID, SECRET), "there is no bucket 'elsewhere'"),
        (scene.with(&here, "AKIAOTHER", SECRET), "does not know this access key"),
        (scene.with(&here, KEY_ID, "hunter2"), "secret key does not belong to this access key"),
        (scene.with(&unreachable, KEY_ID, SECRET), "cannot connect to http://127.0.0.1"),
    ] {
        let error = bucket.list("vc-").await.expect_err(why).to_string();
        assert!(error.starts_with("cannot list s3://") && error.contains(why), "{error}");
        assert!(!error.contains(SECRET) && !error.contains("hunter2"), "{error}");
    }
    for (status, code, why) in [
        (
            403,
            "RequestTimeTooSkewed",
            "clock of this host differs from that of the server by more than 15 minutes (there it is 2026-11-30T10:00:00Z)",
        ),
        (403, "AccessDenied", "allow it to list, read, write and delete objects"),
        (403, "QuotaExceeded", "there is no room for it"),
        (400, "AuthorizationHeaderMalformed", "in another region: name it"),
        (301, "PermanentRedirect", "in another region: name it"),
        (400, "ExpiredToken", "get new credentials"),
        (418, "Teapot", "the server refused it (Teapot: no)"),
    ] {
        scene.server.fail("LIST", Fault::Refuse(status, code), 1);
        let error = scene.bucket.list("vc-").await.expect_err(code).to_string();
        assert!(error.contains(why), "{code}: {error}");
    }
    let error = scene.bucket.first_bytes("vc-1.vcb", 10).await.expect_err("missing");
    assert_eq!(error.cause, Cause::NotFound);
    assert!(error.to_string().contains("home/vc/vc-1.vcb"), "{error}");
}

#[tokio::test]
async fn a_server_that_goes_on_failing_is_asked_a_few_times() {
    let scene = Scene::new();
    scene.server.fail("LIST", Fault::Refuse(503, "SlowDown"), 100);
    let error = scene.bucket.list("vc-").await.expect_err("refused").to_string();
    assert!(error.contains("overloaded or has failed") && error.contains("SlowDown"), "{error}");
    assert_eq!(scene.server.requests().len(), 5);
}

#[tokio::test]
async fn an_object_is_renamed_and_stays_where_that_is_refused() {
    let scene = Scene::new();
    scene.upload("vc-1.vcb", b"all").await.expect("sent");
    scene.server.fail("COPY", Fault::Refuse(400, "InvalidRequest"), 1);
    let refused = scene.bucket.rename("vc-1.vcb", "vc-1-incomplete.vcb").await;
    assert!(refused.expect_err("too large").to_string().contains("vc-1.vcb"));
    let names = async || {
        let listed = scene.bucket.list("vc-").await.expect("listed");
        listed.into_iter().map(|it| it.name).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["vc-1.vcb"]);
    scene.bucket.rename("vc-1.vcb", "vc-1-incomplete.vcb").await.expect("renamed");
    assert_eq!(names().await, ["vc-1-incomplete.vcb"]);
}
