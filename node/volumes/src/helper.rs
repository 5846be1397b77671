//! What the program does when this crate re-executes it: confining a child, and handing rsync's connection over.
//!
//! `PROGRAM volume-helper confine PARENT [--nice] [--connect] [--read DIR]… [--write DIR]… -- COMMAND ARGUMENTS…` restricts itself
//! to these directories and the libraries of the system (Landlock) and becomes the command. It is killed with its parent.
//! The command `unpack-upload` is none of the system: the program itself unpacks an archive (`unpack.rs`) from its standard input.
//! With `--connect`, rsync gets an `--rsh` that runs `PROGRAM volume-helper connect HOST rsync --server …`, which sends the two
//! ends of rsync's connection over the socket that is its stderr, and ends.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError,
};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::capabilities::Capabilities;
use crate::unpack::{Destination, unpack};

/// The first argument of a re-executed program.
pub(crate) const SUBCOMMAND: &str = "volume-helper";
/// The command that unpacks what clients upload: `unpack-upload DIR [PATH NAME]`.
pub(crate) const UNPACK: &str = "unpack-upload";
/// What the `connect` helper sends before the letters of [`Capabilities`].
pub(crate) const CONNECTED: &[u8] = b"\0connected ";
/// Exit code of a child that could not be confined or started.
const NOT_STARTED: u8 = 120;
/// What programs of the system may read and execute.
const SYSTEM: [&str; 8] =
    ["/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/nix/store", "/gnu/store"];
/// Files that the dynamic linker, the C library and tar read.
const SYSTEM_FILES: [&str; 4] =
    ["/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/nsswitch.conf"];
/// How much lower the priority of copying is than that of the node and of what it runs: on a host whose processors are all in use
/// it still gets about a third of the time of another process. With less, copies would be minutes old.
const NICE: i32 = 5;

/// Runs the helper if the arguments, with the name of the program, call for it; `None`: they are those of the program itself.
/// Call it first of all in `main`: it must be the only thread.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != SUBCOMMAND {
        return None;
    }
    let result = match arguments.next().as_deref().and_then(OsStr::to_str) {
        Some("confine") => confine(arguments),
        Some("connect") => connect(arguments),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "unknown volume helper")),
    };
    Some(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The parent reads it.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(NOT_STARTED)
        }
    })
}

/// Returns whether this kernel can confine processes as they need it: not without the right to link into other directories, of Landlock's
/// ABI 2.
pub(crate) fn can_confine() -> bool {
    required().and_then(Ruleset::create).is_ok()
}

fn required() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))
}

/// Becomes a command that can read and write certain directories.
fn confine(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidInput, "malformed arguments");
    let text = |it: Option<OsString>| it.and_then(|it| it.into_string().ok()).ok_or_else(malformed);
    let parent: i32 = text(arguments.next())?.parse().map_err(|_| malformed())?;
    let (mut read, mut write, mut connect) = (Vec::new(), Vec::new(), false);
    loop {
        match text(arguments.next())?.as_str() {
            "--nice" => {
                // Its input and output have a lower priority with it.
                rustix::process::nice(NICE)?;
            }
            "--connect" => connect = true,
            "--read" => read.push(PathBuf::from(arguments.next().ok_or_else(malformed)?)),
            "--write" => write.push(PathBuf::from(arguments.next().ok_or_else(malformed)?)),
            "--" => break,
            _ => return Err(malformed()),
        }
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if rustix::process::getppid().map(|it| it.as_raw_nonzero().get()) != Some(parent) {
        return Err(io::Error::other("the node has ended"));
    }
    let program = arguments.next().ok_or_else(malformed)?;
    let unpacks = program == UNPACK;
    let program = if unpacks { PathBuf::from("/proc/self/exe") } else { find(&program)? };
    let mut command = Command::new(&program);
    // Descriptors of std are closed by exec, this copy is not.
    let own = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::PATH.bits().cast_signed())
        .open("/proc/self/exe")?;
    let kept = rustix::io::dup(&own)?;
    if connect {
        let mut rsh = OsString::from(format!("--rsh=/proc/self/fd/{}", kept.as_raw_fd()));
        rsh.push(format!(" {SUBCOMMAND} connect"));
        command.arg(rsh);
    }
    let arguments: Vec<OsString> = arguments.collect();
    let programs = program.parent().filter(|_| !unpacks);
    restrict(&own, programs, &read, &write).map_err(io::Error::other)?;
    if unpacks {
        let (dir, destination) = match &arguments[..] {
            [dir] => (dir, Destination::Mirror),
            [dir, path, name] => {
                let (path, name) = (path.as_bytes(), name.as_bytes());
                (dir, Destination::Path { path, name })
            }
            _ => return Err(malformed()),
        };
        return unpack(io::stdin().lock(), Path::new(dir), destination).map_err(io::Error::other);
    }
    command.args(arguments);
    Err(command.exec())
}

/// Finds a program in the directories of `PATH`.
fn find(name: &OsStr) -> io::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|it| it.is_file());
    let missing = || format!("{} is not installed", name.display());
    fs::canonicalize(found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing()))?)
}

/// Restricts this process to directories, if the kernel can.
fn restrict(
    own: &File,
    programs: Option<&Path>,
    read: &[PathBuf],
    write: &[PathBuf],
) -> Result<(), RulesetError> {
    let Ok(required) = required() else { return Ok(()) };
    let all = AccessFs::from_all(ABI::V3);
    let run = AccessFs::from_read(ABI::V1);
    let mut rules =
        required.set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
    rules = rules.add_rule(PathBeneath::new(own, run & AccessFs::from_file(ABI::V3)))?;
    for path in SYSTEM.iter().map(Path::new).chain(programs) {
        rules = allow(rules, path, run)?;
    }
    for path in SYSTEM_FILES {
        rules = allow(rules, Path::new(path), AccessFs::ReadFile.into())?;
    }
    rules = allow(rules, Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile)?;
    for path in read {
        rules = allow(rules, path, AccessFs::from_read(ABI::V1) & !AccessFs::Execute)?;
    }
    for path in write {
        rules = allow(rules, path, all & !AccessFs::Execute)?;
    }
    rules.restrict_self()?;
    Ok(())
}

/// Allows accesses below a path, if it is there.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, access)),
        Err(_) => Ok(rules),
    }
}

/// Sends stdin and stdout, which are rsync's connection, over the socket that is stderr.
fn connect(arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let arguments: Vec<String> = arguments.filter_map(|it| it.into_string().ok()).collect();
    let capabilities = Capabilities::of_arguments(arguments.iter().map(String::as_str));
    let capabilities = capabilities.ok_or_else(|| {
        let message = format!("rsync starts the other end with unknown arguments: {arguments:?}");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let ends = [stdin.as_fd(), stdout.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&ends)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let text = [IoSlice::new(CONNECTED), IoSlice::new(capabilities.as_str().as_bytes())];
    rustix::net::sendmsg(&stderr, &text, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
