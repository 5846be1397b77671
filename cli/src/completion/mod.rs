//! Completions for shells, with the names that the cluster has now.
//!
//! The script that `vc completions` prints runs `VC_COMPLETE=SHELL vc -- WORDS` for each request of its shell, which prints what
//! the last word may become. Such a run says nothing else: without a cluster, or with an invalid token, there are no names.

mod bash;
mod names;
mod names_first;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _, ValueHint};
use clap_complete::Shell;
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::{CompleteEnv, Elvish, Fish, Powershell, Shells, Zsh};

use crate::app::App;
use crate::args::Global;
use crate::cmd::Cli;
use crate::error::Result;
use bash::Bash;
use names::Names;
use names_first::NamesFirst;

/// What asks for completions: the name of the shell.
const VARIABLE: &str = "VC_COMPLETE";
/// How long the cluster is asked for names.
const TIMEOUT: Duration = Duration::from_secs(1);
const SHELLS: Shells<'_> = Shells(&[
    &NamesFirst { shell: Bash, end: "" },
    &Elvish,
    &NamesFirst { shell: Fish, end: "" },
    &Powershell,
    &NamesFirst { shell: Zsh, end: AUTOLOADED },
]);
/// As a file `_vc` in $fpath the script is the body of the function by which zsh asks the first time.
const AUTOLOADED: &str = r#"[ "${funcstack[1]}" != _NAME ] || _clap_dynamic_completer_NAME"#;

/// Prints the completions that the environment asks for; `None` if it asks for none.
pub(crate) fn run() -> Option<ExitCode> {
    let words = || std::env::args_os().skip_while(|word| word != "--").skip(1);
    let complete = CompleteEnv::with_factory(|| {
        let app = App::new(global_options(words()));
        with_names(built(), &Arc::new(app))
    });
    let directory = std::env::current_dir().ok();
    let complete = complete.var(VARIABLE).shells(SHELLS);
    match complete.try_complete(std::env::args_os(), directory.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        // Why is not said: the user is still writing the line.
        Err(_) => Some(ExitCode::FAILURE),
    }
}

/// Returns the definition of the command line, with `--help` and the global options of each command.
fn built() -> clap::Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// Writes the script that asks for completions in this shell. `program` is how it runs this one.
pub(crate) fn write_script(shell: Shell, program: &str, to: &mut dyn Write) -> Result {
    // Every shell that `Shell` has is one of them.
    let completer = SHELLS.completer(&shell.to_string()).unwrap_or(&Bash);
    let written = completer.write_registration(VARIABLE, "vc", "vc", program, to);
    Ok(written.map_err(crate::error::SystemError::doing("write the completions"))?)
}

/// Returns the options of a line by which it connects. Its other words may be incomplete, and so invalid.
fn global_options(words: impl Iterator<Item = OsString>) -> Global {
    let parse = |options: Vec<OsString>| {
        let line = ["vc", "status"].map(OsString::from).into_iter().chain(options);
        Cli::try_parse_from(line).ok().map(|cli| cli.global)
    };
    let mut options = Vec::new();
    let mut words = words.take_while(|word| word != "--");
    while let Some(word) = words.next() {
        let (name, value) = match word.to_str().and_then(|text| text.split_once('=')) {
            Some((name, value)) => (OsString::from(name), Some(OsString::from(value))),
            None => (word, None),
        };
        if name == "--token" || name == "--peer" {
            options.push(name);
            options.extend(value.or_else(|| words.next()));
        }
    }
    parse(options).or_else(|| parse(Vec::new())).unwrap_or_default()
}

/// Gives each argument the names that its value's name promises; see [`Names::of`].
fn with_names(command: clap::Command, app: &Arc<App>) -> clap::Command {
    let command = command.mut_args(|arg| {
        let arg = match Words::of(&arg) {
            Some(words) => arg.add(ArgValueCompleter::new(FromCluster { words, app: app.clone() })),
            None => arg,
        };
        // The engine offers what is hidden if there is nothing else: names come first.
        if arg.is_positional() { arg } else { arg.hide(true) }
    });
    command.mut_subcommands(|command| with_names(command, app))
}

/// What may stand for a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Words {
    names: Vec<Names>,
    /// Also files of this computer.
    paths: bool,
}

impl Words {
    /// Returns the words of an argument whose value's name has a name of the cluster in it; `None` leaves it to the engine.
    fn of(arg: &clap::Arg) -> Option<Self> {
        let mut words = Self::default();
        for part in arg.get_value_names()?.iter().flat_map(|name| name.split('|')) {
            words.names.extend(Names::of(part));
            words.paths |= part == "FILE"
                || part == "DIR"
                || part.ends_with(":]FROM")
                || part.ends_with(":]TO");
        }
        let from_engine = arg.get_value_hint() == ValueHint::AnyPath && words.names.is_empty();
        (words != Self::default() && !from_engine).then_some(words)
    }
}

/// Completes a value with names that the cluster has.
struct FromCluster {
    words: Words,
    app: Arc<App>,
}

impl ValueCompleter for FromCluster {
    fn complete(&self, current: &OsStr) -> Vec<CompletionCandidate> {
        let mut candidates = match current.to_str() {
            Some(word) if !self.words.names.is_empty() => self.ask(word),
            _ => Vec::new(),
        };
        if self.words.paths {
            candidates.extend(PathCompleter::any().complete(current));
        }
        candidates
    }
}

impl FromCluster {
    /// Returns the names that begin with this word; none if the cluster does not answer in time.
    fn ask(&self, word: &str) -> Vec<CompletionCandidate> {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return Vec::new();
        };
        let asked = async {
            let mut session = self.app.connect().await?;
            let mut found = Vec::new();
            for names in &self.words.names {
                found.extend(names.candidates(&mut session, word).await?);
            }
            session.close().await;
            Result::Ok(found)
        };
        let found = runtime.block_on(async { tokio::time::timeout(TIMEOUT, asked).await });
        // A pending DNS lookup must not delay the exit.
        runtime.shutdown_background();
        found.ok().and_then(Result::ok).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
