//! `vc-node setup`: makes this host a node that systemd runs.
//!
//! It runs `vc-node init` or `join` until that node is ready, with the options that it was given itself, and has systemd run the
//! node from then on.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::args::Options;
use crate::identity;

/// The unit, as in the Debian package.
const UNIT: &str = include_str!("../../packaging/vc-node.service");
pub(crate) const UNIT_NAME: &str = "vc-node.service";
/// Where packages have it.
const PACKAGED: [&str; 2] =
    ["/usr/lib/systemd/system/vc-node.service", "/lib/systemd/system/vc-node.service"];
/// What it says of this program and of its data directory.
const PROGRAM: &str = "/usr/bin/vc-node";
pub(crate) const DATA_DIR: &str = "/var/lib/vc";

/// Arguments of `vc-node setup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks on a terminal what it was not told. It can be repeated: a host that is a node already only gets the unit.

Examples:
  vc-node setup                                      ask what is needed
  vc-node setup --new                                create a cluster with this host
  vc-node setup --restore cluster.vcb                found a cluster anew from a backup
  vc-node setup --token-file join.token --name attic join a cluster, with a token from 'vc token create --node'")]
pub struct Args {
    /// Create a new cluster
    #[arg(long, conflicts_with_all = ["token_file", "restore"])]
    new: bool,
    /// Found a cluster anew from this file of 'vc backup', or address of a bucket, as 'vc-node restore'
    #[arg(long, value_name = "FILE|s3://…", conflicts_with = "token_file")]
    restore: Option<PathBuf>,
    /// File with the credentials of that bucket, as 'aws configure' writes it
    #[arg(long, value_name = "FILE", requires = "restore")]
    credentials_file: Option<PathBuf>,
    /// File whose first line is the passphrase of that file [default: ask on the terminal]
    #[arg(long, value_name = "FILE", requires = "restore")]
    passphrase_file: Option<PathBuf>,
    /// Join the cluster of the token in this file; - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where to write the unit, if no package has brought it
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system")]
    unit_dir: PathBuf,
    /// Options of the node, which it remembers.
    #[command(flatten)]
    options: Options,
}

/// How this host becomes a node.
enum Start {
    /// It is one.
    Member,
    New,
    /// From a backup.
    Restore(PathBuf),
    /// With the token in the file that was named.
    JoinFile,
    /// With a token that was typed.
    Join(String),
}

/// Sets the node up. Blocks. `given` are the arguments of this process.
///
/// # Errors
/// The node did not start, or systemd does not run it. One line that names what to do.
pub(crate) fn run(args: &Args, given: Vec<OsString>) -> anyhow::Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "setup needs root: run it with sudo");
    let dir = &args.options.data_dir;
    let start = decide(args)?;
    let (command, token) = match &start {
        Start::Member => ("", None),
        Start::New => ("init", None),
        Start::Restore(_) => ("restore", None),
        Start::JoinFile => ("join", None),
        Start::Join(token) => ("join", Some(token.as_str())),
    };
    if !command.is_empty() {
        let mut words = words(command, given, token.is_some());
        if let Start::Restore(file) = &start {
            words.push(file.into());
        }
        run_until_ready(&words, token)?;
    }
    let unit = write_unit(args)?;
    for words in [&["daemon-reload"][..], &["enable", "--now", UNIT_NAME]] {
        systemctl(words).context(
            "the node is set up, and systemd does not run it: have what supervises this host run 'vc-node run'",
        )?;
    }
    say(&format!(
        "{unit} runs the node: see 'systemctl status vc-node' and 'journalctl -u vc-node'"
    ))?;
    let token = dir.join("admin.token");
    match start {
        Start::New | Start::Restore(_) => say(&format!(
            "next:\n  vc --token {0} nodes\n  vc --token {0} token create --node > join.token    for 'vc-node setup --token-file join.token' on another host",
            token.display()
        )),
        _ => say("next: 'vc nodes' lists it"),
    }
}

/// Returns how this host becomes a node; asks on a terminal.
fn decide(args: &Args) -> anyhow::Result<Start> {
    if identity::is_member(&args.options.data_dir) {
        ensure!(
            !args.new && args.token_file.is_none() && args.restore.is_none(),
            "{} belongs to a cluster already: leave --new, --restore and --token-file out, or name another --data-dir",
            args.options.data_dir.display()
        );
        return Ok(Start::Member);
    }
    if args.new {
        return Ok(Start::New);
    }
    if let Some(file) = &args.restore {
        return Ok(Start::Restore(file.clone()));
    }
    if args.token_file.is_some() {
        return Ok(Start::JoinFile);
    }
    ensure!(
        io::stdin().is_terminal(),
        "say --new to create a cluster, or --token-file FILE to join one"
    );
    loop {
        let token = ask(
            "Join token, from 'vc token create --node' on a member; empty to create a new cluster: ",
        )?;
        if !token.is_empty() {
            return Ok(Start::Join(token));
        }
        let answer = ask("Create a new cluster with this host? [y/N] ")?;
        if matches!(answer.as_str(), "y" | "Y" | "yes") {
            return Ok(Start::New);
        }
    }
}

/// Returns the arguments for `vc-node init` or `join`: those of this process, without what only setup knows.
fn words(command: &str, given: Vec<OsString>, typed_token: bool) -> Vec<OsString> {
    let mut words = vec![OsString::from(command)];
    let mut given = given.into_iter().skip_while(|word| word != "setup").skip(1);
    while let Some(word) = given.next() {
        match word.to_str() {
            Some("--new") => {}
            Some("--unit-dir" | "--restore") => drop(given.next()),
            Some(text) if text.starts_with("--unit-dir=") || text.starts_with("--restore=") => {}
            _ => words.push(word),
        }
    }
    if typed_token {
        words.extend(["--token-file", "-"].map(OsString::from));
    }
    words
}

/// Runs this program until it says that it is ready, and stops it as for a restart: the unit goes on.
fn run_until_ready(words: &[OsString], token: Option<&str>) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args(words).stdout(Stdio::piped());
    if token.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().context("cannot start the node")?;
    if let (Some(token), Some(mut stdin)) = (token, child.stdin.take()) {
        stdin.write_all(token.as_bytes()).context("cannot pass the token on")?;
    }
    let ready = wait_ready(&mut child);
    let ended = match ready {
        true => {
            let pid = rustix::process::Pid::from_child(&child);
            let stopped = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            stopped.map_err(io::Error::from).and_then(|()| child.wait())
        }
        false => child.wait(),
    };
    let ended = ended.context("cannot wait for the node")?;
    ensure!(ready && ended.success(), "the node has not become ready: it says why above");
    Ok(())
}

fn wait_ready(child: &mut Child) -> bool {
    let Some(stdout) = child.stdout.take() else { return false };
    BufReader::new(stdout).lines().map_while(Result::ok).any(|line| line.starts_with("ready "))
}

/// Writes the unit, unless a package has. Returns its path.
fn write_unit(args: &Args) -> anyhow::Result<String> {
    let packaged = PACKAGED.iter().map(Path::new).find(|path| path.exists());
    let program = std::env::current_exe().context("cannot find this program")?;
    let is_usual = args.options.data_dir == Path::new(DATA_DIR) && program == Path::new(PROGRAM);
    let path = args.unit_dir.join(UNIT_NAME);
    if let Some(packaged) = packaged.filter(|_| is_usual) {
        let (path, unit) = (path.display(), packaged.display());
        ensure!(
            !args.unit_dir.join(UNIT_NAME).exists(),
            "{path} hides {unit}, the unit of the package: delete it, and run setup again"
        );
        return Ok(unit.to_string());
    }
    let dir =
        std::path::absolute(&args.options.data_dir).context("cannot find the data directory")?;
    let text = unit(&program, &dir)?;
    fs::create_dir_all(&args.unit_dir)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

/// Returns the unit for a program and data directory.
fn unit(program: &Path, dir: &Path) -> anyhow::Result<String> {
    let plain = |path: &Path| {
        let text =
            path.to_str().filter(|text| !text.contains([' ', '"', '\'', '\\', '%', '$', '\n']));
        text.map(str::to_owned).with_context(|| {
            format!(
                "systemd cannot be told of the path {}: use one of plain characters",
                path.display()
            )
        })
    };
    let (program, dir) = (plain(program)?, plain(dir)?);
    let mut text = UNIT.replace(&format!("{PROGRAM} run"), &format!("{program} run"));
    if dir != DATA_DIR {
        text = text.replace(&format!("{program} run"), &format!("{program} run --data-dir {dir}"));
        text =
            text.replace(&format!("{DATA_DIR}/membership.json"), &format!("{dir}/membership.json"));
        // The node makes its directory itself.
        text = text
            .lines()
            .filter(|line| !line.starts_with("StateDirectory"))
            .map(|line| format!("{line}\n"))
            .collect();
    }
    Ok(text)
}

/// Runs systemctl.
///
/// # Errors
/// It is missing, or fails.
pub(crate) fn systemctl(words: &[&str]) -> anyhow::Result<()> {
    let run = Command::new("systemctl").args(words).status();
    let why = match run {
        Ok(status) if status.success() => return Ok(()),
        Ok(_) => "it says why above".to_owned(),
        Err(error) => error.to_string(),
    };
    bail!("'systemctl {}' failed ({why})", words.join(" "))
}

/// Asks on the terminal, and returns the answer.
pub(crate) fn ask(question: &str) -> anyhow::Result<String> {
    let mut answer = String::new();
    let read = io::stderr()
        .write_all(question.as_bytes())
        .and_then(|()| io::stdin().read_line(&mut answer));
    ensure!(
        read.context("cannot read the answer")? > 0,
        "nothing was answered: nothing was changed"
    );
    Ok(answer.trim().to_owned())
}

/// Writes a line to standard output.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_node_gets_the_options_that_setup_was_given() {
        let all =
            ["vc-node", "setup", "--new", "--name", "attic", "--unit-dir", "/x", "--memory=4g"];
        assert_eq!(
            words("init", given(&all), false),
            given(&["init", "--name", "attic", "--memory=4g"])
        );
        let all = ["vc-node", "setup", "--restore", "b", "--passphrase-file", "p"];
        assert_eq!(
            words("restore", given(&all), false),
            given(&["restore", "--passphrase-file", "p"])
        );
        assert_eq!(
            words("join", given(&["vc-node", "setup", "--unit-dir=/x"]), true),
            given(&["join", "--token-file", "-"])
        );
    }

    #[test]
    fn the_unit_names_the_program_and_the_directory_that_are_used() {
        let usual = unit(Path::new(PROGRAM), Path::new(DATA_DIR)).expect("a unit");
        assert_eq!(usual, UNIT);
        let other = unit(Path::new("/opt/vc-node"), Path::new("/srv/vc")).expect("a unit");
        assert!(other.contains("\nExecStart=/opt/vc-node run --data-dir /srv/vc\n"), "{other}");
        assert!(other.contains("\nConditionPathExists=/srv/vc/membership.json\n"), "{other}");
        assert!(!other.contains(DATA_DIR) && !other.contains("StateDirectory"), "{other}");
        assert!(unit(Path::new("/opt/a b"), Path::new(DATA_DIR)).is_err());
    }
}
