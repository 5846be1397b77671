//! The Unix socket of the watchdog in the data directory of the node.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The name of the socket.
const SOCKET: &str = "watchdog.sock";

/// Connects to the watchdog of a data directory; `None`: none runs.
///
/// # Errors
/// The directory or the socket cannot be opened.
pub fn connect(dir: &Path) -> io::Result<Option<UnixStream>> {
    let dir = File::open(dir)?;
    match UnixStream::connect(path(&dir, SOCKET)) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

/// Listens in place of any other watchdog, which keeps the connections that it has.
pub(crate) fn bind(dir: &Path) -> io::Result<UnixListener> {
    let dir = File::open(dir)?;
    let new = path(&dir, &format!("{SOCKET}.{}", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, path(&dir, SOCKET))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Returns the path of a socket over a descriptor of its directory: an address has at most 107 bytes.
fn path(dir: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).into()
}
