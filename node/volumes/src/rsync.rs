//! The options of rsync, and copies between two directories of this host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::child::{Child, Command, Finished, Hold};
use crate::error::{Context as _, Error};
use crate::helper::UNPACK;
use crate::tree;
use crate::volume::Volume;

/// The first version that has all options and fixed the holes by which a sender could write outside (CVE-2022-29154).
pub(crate) const NEEDED: (u32, u32) = (3, 2);
/// `NEEDED` as text.
pub(crate) const NEEDED_TEXT: &str = "3.2";

/// Everything of a file: `-A` and `-X` ACLs and extended attributes, `-H` hard links, `-S` holes. Times are compared with their
/// nanoseconds, and owners are numbers.
const OPTIONS: [&str; 4] = ["-aHAXS", "--numeric-ids", "--modify-window=-1", "--no-human-readable"];
/// Exit codes with which everything was copied that was still there: 24 says that files vanished meanwhile.
const VANISHED: [i32; 1] = [24];
/// With those that say that some entries could not be copied, for a pass that another one follows: 23 is that too.
const INCOMPLETE: [i32; 2] = [23, 24];

/// Returns the options of each copy. What lies in extended attributes that belong to the host is left out, as in
/// [`crate::listing`].
pub(crate) fn options() -> Vec<OsString> {
    let filters =
        crate::listing::excluded_attributes().iter().map(|it| format!("--filter=-x {it}*"));
    OPTIONS.iter().map(|&it| it.to_owned()).chain(filters).map(Into::into).collect()
}

/// How a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    /// What is copied changes meanwhile, and another pass follows.
    Running,
    /// What is copied does not change, or other programs than the instances change it: files may vanish.
    Still,
}

/// A copy of a directory into another one.
#[derive(Debug)]
pub(crate) struct Copy<'a> {
    pub(crate) from: &'a Path,
    pub(crate) to: &'a Path,
    /// A file with the paths to copy, each with `./` before it and zero after it; `None` for everything.
    pub(crate) list: Option<&'a Path>,
    /// What is equal there becomes a link. It must be on the same filesystem.
    pub(crate) link: Option<&'a Path>,
    pub(crate) pass: Pass,
    /// Whether it has a low priority.
    pub(crate) nice: bool,
}

impl Volume {
    /// Copies a directory into another one.
    pub(crate) async fn rsync(&self, copy: Copy<'_>, hold: Hold) -> Result<(), Error> {
        let mut arguments = options();
        let mut write = vec![copy.to.to_owned()];
        if let Some(link) = copy.link {
            arguments.push(option("--link-dest=", link));
            write.push(link.to_owned());
        }
        let mut read = vec![copy.from.to_owned()];
        if let Some(list) = copy.list {
            arguments.extend(["--from0".into(), option("--files-from=", list)]);
            read.push(list.to_owned());
        }
        arguments.extend([slash(copy.from), slash(copy.to)]);
        let command = Command {
            program: "rsync",
            arguments,
            read,
            write,
            dir: self.layout().0.clone(),
            nice: copy.nice,
            connect: false,
        };
        let finished = self.run(command, hold).await?;
        let accepted: &[i32] = if copy.pass == Pass::Running { &INCOMPLETE } else { &VANISHED };
        self.check("rsync", copy.to, &finished, accepted)
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, command: Command, hold: Hold) -> Result<Finished, Error> {
        let child = self.spawn(command, Stdio::null(), Stdio::null(), hold).await?;
        child.finish().await.context("wait for a process in", self.dir())
    }

    /// Starts a command, once it is known to be there.
    pub(crate) async fn spawn(
        &self,
        command: Command,
        stdin: Stdio,
        stdout: Stdio,
        hold: Hold,
    ) -> Result<Child, Error> {
        if command.program != UNPACK {
            self.require(command.program).await?;
        }
        let program = self.program();
        Child::spawn(program, command, stdin, stdout, hold).context("execute", program)
    }

    /// Turns the end of a process into an error, unless it succeeded or its exit code is accepted.
    pub(crate) fn check(
        &self,
        program: &'static str,
        written: &Path,
        finished: &Finished,
        accepted: &[i32],
    ) -> Result<(), Error> {
        let code = finished.status.code();
        if finished.status.success()
            || code.is_some_and(|code| accepted.contains(&code) && !is_full(&finished.stderr))
        {
            return Ok(());
        }
        if is_full(&finished.stderr) {
            return Err(self.no_space(written));
        }
        let volume = self.key().to_string();
        let (status, message) = (finished.status.to_string(), finished.stderr.clone());
        if program == UNPACK {
            return Err(Error::Unpack { volume, message });
        }
        Err(Error::Failed { volume, program, status, message })
    }

    /// The disk of `path` is full.
    pub(crate) fn no_space(&self, path: &Path) -> Error {
        Error::NoSpace {
            volume: self.key().to_string(),
            path: path.to_owned(),
            free_bytes: tree::free_bytes(path),
            needed_bytes: self.expected_bytes(),
        }
    }
}

fn is_full(stderr: &str) -> bool {
    stderr.contains("No space left on device") || stderr.contains("Disk quota exceeded")
}

/// Returns an option with a path.
pub(crate) fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(path);
    option
}

/// Returns a path with a slash at its end: the content of the directory.
pub(crate) fn slash(path: &Path) -> OsString {
    let mut path: OsString = PathBuf::from(path).into();
    path.push("/");
    path
}

/// Reads the version in the first line of `rsync --version`.
pub(crate) fn parse_version(output: &str) -> Option<(u32, u32)> {
    let version =
        output.lines().next()?.split_whitespace().skip_while(|it| *it != "version").nth(1)?;
    let mut numbers = version.trim_start_matches('v').split('.').map(|it| it.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_first_line() {
        for (line, version) in [
            ("rsync  version 3.5.0  protocol version 32", Some((3, 5))),
            ("rsync  version v3.2.7  protocol version 31\nCopyright", Some((3, 2))),
            ("openrsync: protocol version 29", None),
            ("", None),
        ] {
            assert_eq!(parse_version(line), version, "{line}");
        }
    }
}
