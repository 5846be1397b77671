//! Ports that no other test has.

use std::fs::{File, OpenOptions};
use std::net::{TcpListener, UdpSocket};

/// Below the range that the kernel gives to outgoing connections.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_996;
/// A node takes the port it is given and up to three after it.
const STEP: usize = 4;

/// A port, free for TCP and UDP with the ones after it, and ours while this lives: tests are processes of their own, so
/// it is held by a lock on a file.
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    pub fn free() -> Self {
        let dir = std::env::temp_dir().join("vc-test-ports");
        std::fs::create_dir_all(&dir).expect("a directory for the locks");
        // Where to begin differs from process to process: then few meet.
        let span = usize::from((LAST - FIRST) / STEP as u16);
        let begin = std::process::id() as usize % span;
        let ports = (0..span).map(|i| FIRST + ((begin + i) % span * STEP) as u16);
        for number in ports {
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(dir.join(number.to_string()));
            let Some(lock) = lock.ok().filter(|lock| lock.try_lock().is_ok()) else { continue };
            let free = |port| {
                TcpListener::bind(("0.0.0.0", port)).is_ok()
                    && UdpSocket::bind(("0.0.0.0", port)).is_ok()
            };
            if (number..number + STEP as u16).all(free) {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST} and {LAST}");
    }
}
