//! Child processes: confined, in a process group of their own, killed when their owner is dropped.
//!
//! The stderr of a child is a socket of packets. Its end means that the whole group has ended: only then is what the owner
//! *holds* let go, a lock of the volume for instance, so that no process that was killed writes beside the next operation.

use std::any::Any;
use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    socketpair,
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::ChildStdout;

use crate::capabilities::Capabilities;
use crate::helper::{CONNECTED, SUBCOMMAND};

/// How much of stderr is kept: its end.
const KEPT: usize = 4 * 1024;
/// The longest packet.
const PACKET: usize = 64 * 1024;

/// What an operation holds while its processes run.
pub(crate) type Hold = Arc<dyn Any + Send + Sync>;

/// A command and what it may reach.
#[derive(Debug)]
pub(crate) struct Command {
    /// The program, in the directories of `PATH`.
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<OsString>,
    /// Directories that it may read.
    pub(crate) read: Vec<PathBuf>,
    /// Directories that it may change.
    pub(crate) write: Vec<PathBuf>,
    /// Where it starts.
    pub(crate) dir: PathBuf,
    /// Whether it has a low priority.
    pub(crate) nice: bool,
    /// Whether it is an rsync that connects: see [`Child::connection`].
    pub(crate) connect: bool,
}

/// A child process.
pub(crate) struct Child {
    child: tokio::process::Child,
    group: Option<Pid>,
    messages: Option<Messages>,
    hold: Option<Hold>,
}

/// What a child said, and how it ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    /// The end of what it wrote to stderr, without control characters.
    pub(crate) stderr: String,
}

/// The two ends of rsync's connection, what it writes first.
pub(crate) struct Connection {
    pub(crate) from_rsync: OwnedFd,
    pub(crate) to_rsync: OwnedFd,
    pub(crate) capabilities: Capabilities,
}

impl Child {
    /// Starts a command with the helper of `program`. `stdin` and `stdout` may be pipes or sockets.
    pub(crate) fn spawn(
        program: &std::path::Path,
        command: Command,
        stdin: Stdio,
        stdout: Stdio,
        hold: Hold,
    ) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut process = tokio::process::Command::new(program);
        process.args([SUBCOMMAND, "confine", &std::process::id().to_string()]);
        for (option, wanted) in [("--nice", command.nice), ("--connect", command.connect)] {
            if wanted {
                process.arg(option);
            }
        }
        for (option, paths) in [("--read", &command.read), ("--write", &command.write)] {
            for path in paths {
                process.arg(option).arg(path);
            }
        }
        process.arg("--").arg(command.program).args(&command.arguments).current_dir(&command.dir);
        // Neither the node's secrets nor its language.
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        process.env_clear().env("PATH", path).env("LC_ALL", "C").env("TZ", "UTC");
        process.stdin(stdin).stdout(stdout).stderr(Stdio::from(theirs));
        process.process_group(0).kill_on_drop(true);
        let child = process.spawn()?;
        drop(process);
        let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let messages = Some(Messages::new(ours)?);
        Ok(Self { child, group, messages, hold: Some(hold) })
    }

    /// Takes its stdout, if that is a pipe.
    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Takes its stdin, if that is a pipe.
    pub(crate) fn stdin(&mut self) -> Option<tokio::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// Waits for rsync's connection; `None`: it ended before.
    pub(crate) async fn connection(&mut self) -> io::Result<Option<Connection>> {
        match &mut self.messages {
            Some(messages) => messages.connection().await,
            None => Ok(None),
        }
    }

    /// Waits until the whole group has ended.
    pub(crate) async fn finish(mut self) -> io::Result<Finished> {
        let stderr = match &mut self.messages {
            Some(messages) => {
                messages.read_to_end().await?;
                messages.text()
            }
            None => String::new(),
        };
        let status = self.child.wait().await?;
        self.group = None;
        self.messages = None;
        Ok(Finished { status, stderr })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            // The leader is not reaped, so the group is its own.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let (Some(mut messages), Some(hold)) = (self.messages.take(), self.hold.take()) else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = messages.read_to_end().await;
                drop(hold);
            });
        }
    }
}

/// The stderr of a group of processes.
struct Messages {
    socket: UnixStream,
    kept: Vec<u8>,
}

impl Messages {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixStream::from_std(socket)?, kept: Vec::new() })
    }

    /// Reads packets until one is a connection; `None`: the group has ended. Cancel safe.
    async fn connection(&mut self) -> io::Result<Option<Connection>> {
        loop {
            let received = self.socket.async_io(Interest::READABLE, || receive(&self.socket));
            let (packet, descriptors) = received.await?;
            if packet.is_empty() {
                return Ok(None);
            }
            match packet.strip_prefix(CONNECTED).map(Capabilities::parse) {
                Some(Some(capabilities)) => {
                    let mut descriptors = descriptors.into_iter();
                    if let (Some(from_rsync), Some(to_rsync)) =
                        (descriptors.next(), descriptors.next())
                    {
                        return Ok(Some(Connection { from_rsync, to_rsync, capabilities }));
                    }
                }
                _ => self.keep(&packet),
            }
        }
    }

    async fn read_to_end(&mut self) -> io::Result<()> {
        while self.connection().await?.is_some() {}
        Ok(())
    }

    fn keep(&mut self, packet: &[u8]) {
        self.kept.extend_from_slice(packet);
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    /// Returns what was kept as one line.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let joined = lines.collect::<Vec<_>>().join("; ");
        joined.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect()
    }
}

/// Receives a packet; an empty one is the end.
fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut packet = vec![0; PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut packet)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let descriptors = descriptors.collect();
    packet.truncate(received.bytes);
    Ok((packet, descriptors))
}
