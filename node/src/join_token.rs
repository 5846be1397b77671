//! The token of `vc-node join`: from a file, standard input or the command line, which all users of the host can read.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::Context as _;

use crate::args::Command;

/// The longest token, in bytes: less than a pipe holds without a reader.
const MAX_TOKEN: u64 = 32 * 1024;
/// The file name that means standard input.
const STDIN: &str = "-";

/// Returns the token in a file, or in the file that `token` names, or `token` itself.
pub(crate) fn read(token: Option<&str>, file: Option<&Path>) -> anyhow::Result<String> {
    let text = match (token, file) {
        (_, Some(file)) if file == Path::new(STDIN) => {
            let mut text = String::new();
            let stdin = io::stdin().lock();
            stdin
                .take(MAX_TOKEN)
                .read_to_string(&mut text)
                .context("cannot read the token from stdin")?;
            text
        }
        (_, Some(file)) => read_file(file)?,
        (Some(path), None) if Path::new(path).is_file() => read_file(Path::new(path))?,
        (token, None) => token.unwrap_or_default().to_owned(),
    };
    Ok(text.trim().to_owned())
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Starts this program anew with a token of the command line as standard input, so that the process list does not show it
/// while the node runs. Returns if there is no such token, or, with a warning, if that fails.
pub fn hide_token(command: &Command) {
    let Command::Join { token: Some(token), .. } = command else { return };
    if Path::new(token).is_file() {
        return;
    }
    if let Err(error) = exec_without(token) {
        tracing::warn!(%error, "the process list shows the token: use --token-file, or revoke it");
    }
}

/// Executes this program with the token as standard input. Returns only with an error.
fn exec_without(token: &str) -> io::Result<()> {
    if u64::try_from(token.len()).is_ok_and(|length| length > MAX_TOKEN) {
        return Err(io::Error::other("the token is too long"));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(token.as_bytes())?;
    drop(writer);
    let mut program = std::process::Command::new(std::env::current_exe()?);
    program.args(without(std::env::args_os().skip(1), token)).stdin(reader);
    Err(program.exec())
}

/// Returns arguments that read the token from standard input.
fn without(arguments: impl Iterator<Item = OsString>, token: &str) -> Vec<OsString> {
    let kept = arguments.filter(|it| it != OsStr::new(token) && it != OsStr::new("--"));
    kept.chain(["--token-file".into(), STDIN.into()]).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn parse(line: &[&str]) -> Command {
        Cli::try_parse_from(line).expect("parses").command
    }

    #[test]
    fn a_token_comes_from_a_file_or_the_command_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("join.token");
        std::fs::write(&path, "eyJ.a.b\n").expect("written");
        let text = path.to_str().expect("UTF-8");
        let Command::Join { token: None, token_file: Some(file), .. } =
            parse(&["vc-node", "join", "--token-file", text])
        else {
            panic!("a file")
        };
        assert_eq!(read(None, Some(&file)).expect("a token"), "eyJ.a.b");
        assert_eq!(read(Some(text), None).expect("a token"), "eyJ.a.b");
        assert_eq!(read(Some("eyJ.c.d"), None).expect("a token"), "eyJ.c.d");
        for line in [&["vc-node", "join"][..], &["vc-node", "join", "eyJ", "--token-file", text]] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn the_arguments_without_the_token_read_it_from_stdin() {
        for line in [
            &["join", "eyJ.a.b", "--name", "attic"][..],
            &["join", "--name", "attic", "--", "eyJ.a.b"],
        ] {
            let kept = without(line.iter().map(OsString::from), "eyJ.a.b");
            assert!(!kept.iter().any(|it| it == "eyJ.a.b"), "{kept:?}");
            let kept: Vec<_> = kept.iter().map(|it| it.to_str().expect("UTF-8")).collect();
            let command = parse(&[&["vc-node"], kept.as_slice()].concat());
            let Command::Join { token: None, token_file: Some(file), options } = command else {
                panic!("stdin")
            };
            assert_eq!(file, Path::new(STDIN));
            assert_eq!(options.settings.name.expect("a name").as_str(), "attic");
        }
    }
}
