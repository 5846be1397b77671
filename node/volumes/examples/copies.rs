//! Copies of a volume between two stores over a TCP stream, against rsync over a pipe: see `scripts/bench/volumes`.
#![allow(
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a benchmark stops at the first error"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::net::{TcpListener, TcpStream};
use vc_volumes::{Manifest, NoPause, Outcome, Pause, Store, Volume};

/// Names of files in one directory.
const PER_DIRECTORY: usize = 100;

fn main() -> ExitCode {
    if let Some(code) = vc_volumes::helper::run(std::env::args_os()) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, files, megabytes, rounds] = arguments.as_slice() else {
        eprintln!("usage: copies DIR FILES MEGABYTES ROUNDS");
        return ExitCode::from(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (files, megabytes, rounds) = (number(files), number(megabytes), number(rounds));
    runtime.expect("a runtime").block_on(run(Path::new(dir), files, megabytes, rounds));
    ExitCode::SUCCESS
}

async fn run(dir: &Path, files: usize, megabytes: usize, rounds: usize) {
    let working = dir.join("working");
    let size = megabytes * 1_000_000 / files;
    make(&working, files, size);
    let at = |name: &str| dir.join(name);
    let key = "bench/data".parse().expect("a name");
    let open = |name: &str| Store::open(&at(name)).expect("a store").volume(&key);
    let (primary, replica) = (open("primary"), open("replica"));
    let followed = at("followed");
    fs::create_dir_all(&followed).expect("made");
    primary.begin(&working, 1, None, 0).await.expect("begun");

    for round in 0..=rounds {
        if round > 0 {
            change(&working, files, size, round);
        }
        let what = if round == 0 { "first copy" } else { "1 % changed" };
        let begun = Instant::now();
        let pause: Arc<dyn Pause> = Arc::new(NoPause);
        let outcome = primary.snapshot(&working, 1, 0, &pause).await.expect("a snapshot");
        let Outcome::Taken { manifest, paused } = outcome else { continue };
        let taken = begun.elapsed();
        let begun = Instant::now();
        transfer(&primary, &replica, &manifest).await;
        let copied = begun.elapsed();
        let begun = Instant::now();
        replica.follow(&followed, 0).await.expect("followed");
        let follow = begun.elapsed();
        let reference = reference(&working, &at("reference"), &at("rsh"));
        let ms = |time: Duration| time.as_millis();
        println!(
            "{what}: snapshot {} ms (pause {} ms), transfer {} ms, follow {} ms; rsync {} ms; transfer/rsync {:.2}",
            ms(taken),
            ms(paused),
            ms(copied),
            ms(follow),
            ms(reference),
            copied.as_secs_f64() / reference.as_secs_f64()
        );
    }
}

fn path(working: &Path, file: usize) -> PathBuf {
    working.join(format!("dir{}", file / PER_DIRECTORY)).join(format!("file{file}"))
}

/// Writes a file of bytes that do not compress, an hour old.
fn write(path: &Path, size: usize, seed: usize) {
    let mut state = seed as u64 | 1;
    let bytes = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let content: Vec<u8> = bytes.take(size.div_ceil(8)).flatten().collect();
    fs::write(path, &content[..size]).expect("written");
}

fn make(working: &Path, files: usize, size: usize) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let times = fs::FileTimes::new().set_modified(hour_ago);
    for file in 0..files {
        let path = path(working, file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        write(&path, size, file);
        let opened = fs::File::options().write(true).open(&path).expect("open");
        opened.set_times(times).expect("an hour old");
    }
    let _ = Command::new("sync").status();
}

/// Writes one file of a hundred anew.
fn change(working: &Path, files: usize, size: usize, round: usize) {
    for file in (round % 100..files).step_by(100) {
        write(&path(working, file), size, file + round * files);
    }
}

async fn transfer(primary: &Volume, replica: &Volume, manifest: &Manifest) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let sending = async {
        let (stream, _) = listener.accept().await.expect("connected");
        primary.send(manifest.id, stream).await.expect("sent");
    };
    let receiving = async {
        let stream = TcpStream::connect(address).await.expect("connected");
        replica.receive(manifest, stream, |_| {}).await.expect("received");
    };
    tokio::join!(sending, receiving);
}

/// Copies with rsync alone, with the same options, and syncs.
fn reference(from: &Path, to: &Path, rsh: &Path) -> Duration {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(rsh, "#!/bin/sh\nshift\nexec \"$@\"\n").expect("written");
    fs::set_permissions(rsh, fs::Permissions::from_mode(0o700)).expect("executable");
    fs::create_dir_all(to).expect("made");
    let begun = Instant::now();
    let mut command = Command::new("rsync");
    command.args(["-aHAXS", "--numeric-ids", "--delete", "--modify-window=-1", "-e"]);
    command.arg(rsh).arg(format!("peer:{}/", from.display())).arg(to);
    assert!(command.status().expect("rsync").success());
    let dir = fs::File::open(to).expect("open");
    rustix::fs::syncfs(&dir).expect("synced");
    begun.elapsed()
}
