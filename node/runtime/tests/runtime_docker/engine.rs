//! A Docker engine for one test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::host::{IMAGE, TIMEOUT};

/// A Docker engine in a network namespace of its own.
pub(crate) struct Engine {
    pub(crate) dir: TempDir,
    pub(crate) process: Child,
}

impl Engine {
    pub(crate) fn new() -> Self {
        let dir =
            tempfile::Builder::new().prefix("vc-docker").tempdir_in("/tmp").expect("a directory");
        let process = Self::boot(dir.path());
        let engine = Self { dir, process };
        engine.await_ready();
        engine.import_image();
        engine
    }

    /// Runs in its own namespaces, so that neither containers nor mounts outlive it. It ends with the test, however
    /// that ends.
    fn boot(dir: &Path) -> Child {
        let log = File::options().append(true).create(true).open(dir.join("log")).expect("a log");
        // As after a boot: recorded process ids would be taken for other processes.
        let script = "ip link set lo up && rm -rf \"$0/exec\" \"$0/pid\" && dockerd --data-root \"$0/data\" \
                      --exec-root \"$0/exec\" --pidfile \"$0/pid\" -H unix://\"$0/sock\"; exit $?";
        Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--mount-proc",
                "--kill-child",
            ])
            .args(["sh", "-c", script])
            .arg(dir)
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("dockerd: run scripts/test, which installs what is missing")
    }

    /// The engine does not report when it is ready, so it is polled.
    fn await_ready(&self) {
        let ready = || self.docker(&["version"]).output().expect("the docker CLI").status.success();
        let since = Instant::now();
        while !ready() {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(since.elapsed() < TIMEOUT, "dockerd does not come up:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn import_image(&self) {
        let stage = self.dir.path().join("image");
        std::fs::create_dir_all(stage.join("bin")).expect("a directory");
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists());
        std::fs::copy(busybox.expect("busybox-static is installed"), stage.join("bin/busybox"))
            .expect("copied");
        for applet in [
            "sh", "sleep", "cat", "mkfifo", "test", "seq", "head", "stat", "hostname", "mount",
            "id", "nslookup", "nc",
        ] {
            std::os::unix::fs::symlink("busybox", stage.join("bin").join(applet)).expect("linked");
        }
        let tar = self.dir.path().join("image.tar");
        let made = Command::new("tar").arg("-C").arg(&stage).arg("-cf").arg(&tar).arg(".").status();
        assert!(made.expect("tar").success());
        self.run(&["import", "--change", "ENV PATH=/bin", &tar.display().to_string(), IMAGE]);
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}/sock", self.dir.path().display())
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["-H", &self.host()]).args(arguments).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments).output().expect("the docker CLI");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Kills the engine, as a power failure does.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    /// Starts the engine again after a kill.
    pub(crate) fn boot_again(&mut self) {
        self.process = Self::boot(self.dir.path());
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Their control groups would remain.
        let all =
            self.docker(&["ps", "-aq"]).output().map(|output| output.stdout).unwrap_or_default();
        let all = String::from_utf8_lossy(&all).into_owned();
        let ids: Vec<&str> = all.split_whitespace().collect();
        if !ids.is_empty() {
            let _ = self.docker(&["rm", "-f"]).args(ids).output();
        }
        self.kill();
    }
}
