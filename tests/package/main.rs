//! The Debian packages, installed in a Debian that has nothing else.

#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the packages depend on, and what checks them.
const INCLUDED: &str = "systemd,rsync,iptables,man-db,init-system-helpers";

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {out}{err}");
    out + &err
}

/// A Debian in a directory.
struct Chroot(tempfile::TempDir);

impl Chroot {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let release = std::fs::read_to_string("/etc/os-release").expect("a Debian");
        let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let mut make = Command::new("mmdebstrap");
        make.args(["--quiet", "--variant=apt", &format!("--include={INCLUDED}")]);
        run(make.arg(suite.expect("a code name")).arg(dir.path().join("root")));
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("root")
    }

    fn sh(&self, script: &str) -> String {
        let mut command = Command::new("chroot");
        command.arg(self.path()).args(["/bin/sh", "-ec", script]);
        run(command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8"))
    }

    /// Returns all paths but those in which the packaging system keeps its own state.
    fn files(&self) -> BTreeSet<String> {
        let list = "find / -xdev -path /var/lib/dpkg -prune -o -path /var/cache -prune -o -path /var/log -prune -o -path /tmp -prune \
                    -o -path /var/lib/apt -prune -o -path /dev -prune -o -path /proc -prune -o -path /sys -prune -o -path /run -prune -o -print";
        self.sh(list).lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_packages_install_into_a_clean_debian_and_are_removed_without_a_trace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let debian = Chroot::new();
    let packages = debian.path().join("packages");
    run(Command::new(root.join("scripts/package")).arg("--debug").arg(&packages));
    let before = debian.files();
    debian.sh("apt-get install -qq -y --no-install-recommends /packages/*.deb");
    let installed = debian.files();

    let version = debian.sh("vc --version; vc-node --version");
    assert_eq!(version.lines().count(), 2, "{version}");
    assert_eq!(debian.sh("systemd-analyze verify /lib/systemd/system/vc-node.service"), "");
    for page in ["vc.1", "vc-deploy.1", "vc-node-adopt.1", "vc-node.8", "vc-node-setup.8"] {
        let text = debian.sh(&format!("zcat /usr/share/man/man?/{page}.gz | man -l - | cat"));
        assert!(text.contains("SYNOPSIS"), "{page}: {text}");
    }
    debian.sh("bash -n /usr/share/bash-completion/completions/vc");
    // They run the program that is installed, not the one that they were made with.
    debian.sh("cd /usr/share && grep -q ' vc -- ' bash-completion/completions/vc");
    debian.sh("cd /usr/share && grep -q ' vc -- ' zsh/vendor-completions/_vc");
    debian.sh("cd /usr/share && grep -q ' vc -- ' fish/vendor_completions.d/vc.fish");
    let offered = debian.sh("VC_COMPLETE=bash vc -- vc undr");
    assert_eq!(offered, "undrain\n");
    let asks = debian.sh("vc-node setup </dev/null 2>&1 || true");
    assert!(asks.contains("say --new to create a cluster"), "{asks}");

    debian.sh("apt-get purge -qq -y vc vc-node");
    let after = debian.files();
    let left: Vec<&String> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(installed.len() > before.len() + 50, "the packages brought their files");
}
