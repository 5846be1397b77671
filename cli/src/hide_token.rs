//! Takes a token off the command line, which all users of the host can read.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

/// The option of a token, and the variable that replaces it, which only the user's own processes can read.
const OPTION: &str = "--token";
const VARIABLE: &str = "VC_TOKEN";

/// Starts this program anew with a token of the command line in its environment. Returns if there is no such token, or if that
/// fails: the command works with a token that can be seen.
pub(crate) fn hide(token: Option<&str>) {
    let Some(token) = token.filter(|token| !Path::new(token).is_file()) else { return };
    if let Some(arguments) = without(std::env::args_os().skip(1), token) {
        let _: io::Result<()> = exec(arguments, token);
    }
}

/// Returns only with an error.
fn exec(arguments: Vec<OsString>, token: &str) -> io::Result<()> {
    let mut program = std::process::Command::new(std::env::current_exe()?);
    Err(program.args(arguments).env(VARIABLE, token).exec())
}

/// Returns arguments without the option of this token; `None` if they do not have it.
fn without(arguments: impl Iterator<Item = OsString>, token: &str) -> Option<Vec<OsString>> {
    let mut kept: Vec<OsString> = arguments.collect();
    let joined = format!("{OPTION}={token}");
    if let Some(at) = kept.iter().position(|it| it.to_str() == Some(&joined)) {
        kept.remove(at);
        return Some(kept);
    }
    let pair = |it: &[OsString]| it[0] == OPTION && it[1].to_str() == Some(token);
    let at = kept.windows(2).position(pair)?;
    kept.drain(at..at + 2);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_those_without_the_token() {
        for (line, kept) in [
            ("--token eyJ.a nodes", Some("nodes")),
            ("nodes --output json --token=eyJ.a", Some("nodes --output json")),
            ("--token eyJ.a exec web -- sh -c --token", Some("exec web -- sh -c --token")),
            ("nodes", None),
            ("--token other nodes", None),
        ] {
            let arguments = line.split(' ').map(OsString::from);
            let expected = kept.map(|line| line.split(' ').map(OsString::from).collect::<Vec<_>>());
            assert_eq!(without(arguments, "eyJ.a"), expected, "{line}");
        }
    }
}
