//! Ports reserved for one test.

use std::fs::{File, OpenOptions};
use std::net::{TcpListener, UdpSocket};

/// First port that is reserved; the range is below the kernel's ephemeral ports.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_996;
/// Ports reserved at once: a node uses its port and up to three after it.
const STEP: usize = 4;

/// A port that is free for TCP and UDP, as are the next three. Reserved by a file lock until dropped, because other tests
/// run in other processes.
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a free port.
    pub fn free() -> Self {
        let dir = std::env::temp_dir().join("vc-test-ports");
        std::fs::create_dir_all(&dir).expect("a directory for the locks");
        // Processes start at different ports, to avoid collisions.
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
