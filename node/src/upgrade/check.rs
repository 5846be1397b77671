//! What a build says of itself before it replaces another one: `vc-node check-upgrade`.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use vc_crdt::KnownVersions;
use vc_protocol::Supports;

use super::UpgradeError;
use crate::{data_dir, settings};

/// The most that a program may take to say what it is.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The most bytes that are read of what it says.
const MAX_OUTPUT: u64 = 64 * 1024;
/// The most bytes of its output in an error.
const MAX_REASON: usize = 300;
/// How often a program is started that some other process, which was forked while it was written, still has open for writing.
const MAX_BUSY: u32 = 20;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Says in the file of this program which version it is: see [`vc_protocol::control::PROGRAM_MARKER`].
const MARKER: &str = concat!("@(#)vc-node ", env!("CARGO_PKG_VERSION"), "\n");

/// What a build says of itself. Builds of other versions read it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Build {
    /// Its version.
    pub(super) version: String,
    /// What it supports.
    pub(super) supports: Supports,
    /// The format of the data directories that it writes.
    pub(super) format: u32,
    /// The marker, which so is in the file.
    #[serde(default)]
    marker: String,
}

/// Prints what this build is, if it can run the node of a data directory.
///
/// # Errors
/// It cannot read the directory or the settings.
#[allow(clippy::print_stdout, reason = "the result")]
pub(crate) fn check(dir: &Path) -> anyhow::Result<()> {
    data_dir::open(dir)?;
    settings::load(dir)?;
    let build = Build {
        version: crate::VERSION.to_owned(),
        supports: KnownVersions::default().supports(),
        format: data_dir::FORMAT,
        marker: MARKER.to_owned(),
    };
    println!("{}", serde_json::to_string(&build)?);
    Ok(())
}

/// Runs a program to learn what it is.
///
/// # Errors
/// It does not run, or cannot run the node of this directory.
pub(super) async fn run(program: &Path, dir: &Path) -> Result<Build, UpgradeError> {
    let mut child = start(program, dir).await?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let ended = async { tokio::join!(read(out), read(err), child.wait()) };
    let Ok((out, err, status)) = tokio::time::timeout(TIMEOUT, ended).await else {
        let seconds = TIMEOUT.as_secs();
        return Err(UpgradeError::Check(format!("it did not say what it is within {seconds} s")));
    };
    let status = status.map_err(|error| UpgradeError::Check(error.to_string()))?;
    if !status.success() {
        return Err(UpgradeError::Check(reason(status, &err)));
    }
    serde_json::from_slice(&out)
        .map_err(|_| UpgradeError::Check("it does not say what it is".to_owned()))
}

async fn start(program: &Path, dir: &Path) -> Result<Child, UpgradeError> {
    let mut command = Command::new(program);
    command.args(["check-upgrade", "--data-dir"]).arg(dir).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut busy = 0;
    loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(error)
                if error.kind() == std::io::ErrorKind::ExecutableFileBusy && busy < MAX_BUSY =>
            {
                busy += 1;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(UpgradeError::Check(error.to_string())),
        }
    }
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What was read counts. Beyond the limit the pipe is closed.
        let _ = from.take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    }
    bytes
}

/// Returns why a program failed: its last line, else its status.
fn reason(status: ExitStatus, err: &[u8]) -> String {
    let text = String::from_utf8_lossy(err);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    match line {
        Some(line) => {
            let line = line.strip_prefix("error: ").unwrap_or(line);
            vc_client::text::one_line(&line[..line.floor_char_boundary(MAX_REASON)])
        }
        None => format!("it ended with {status}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use vc_protocol::control::PROGRAM_MARKER;

    use super::*;

    /// Runs a script as the program.
    async fn run_script(text: &str) -> Result<Build, UpgradeError> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("program");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("set");
        run(&path, dir.path()).await
    }

    #[tokio::test]
    async fn a_program_that_does_not_say_that_it_can_run_the_node_is_refused() {
        let refused = async |text: &str| run_script(text).await.expect_err("refused").to_string();
        assert!(refused("#!/bin/sh\nexit 3\n").await.contains("exit status: 3"));
        let newer = "#!/bin/sh\necho 'error: the data directory has format 2' >&2\nexit 1\n";
        let error = refused(newer).await;
        assert!(error.ends_with("this node: the data directory has format 2"), "{error}");
        assert!(refused("#!/bin/sh\necho hello\n").await.contains("does not say what it is"));
        assert!(refused("not a program").await.contains("format error"));
    }

    #[tokio::test]
    async fn what_a_build_of_a_later_version_says_is_read() {
        let text = r#"#!/bin/sh
echo '{"version": "9.0.0", "supports": {"schema": 99, "plan": 12, "new": true}, "format": 1, "more": 1}'
"#;
        let build = run_script(text).await.expect("read");
        assert_eq!((build.version.as_str(), build.supports.schema), ("9.0.0", 99));
    }

    #[test]
    fn the_marker_has_the_version() {
        assert_eq!(MARKER, format!("{PROGRAM_MARKER}{}\n", crate::VERSION));
    }
}
