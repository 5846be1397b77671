//! Processes that outlive their parents end with the test that started them, also when it fails or is killed.

use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// The variable of a child process: the process of the test.
pub(crate) const TEST: &str = "VC_TEST_PID";

/// Names the test in the environment of a child process: this process, or the one that this process is a child of.
pub(crate) fn belongs_to_test(command: &mut Command) {
    let own = || std::process::id().to_string();
    command.env(TEST, std::env::var(TEST).unwrap_or_else(|_| own()));
}

/// Ends this process as soon as the test has ended that it belongs to.
pub(crate) fn end_with_test() {
    let test = std::env::var(TEST).ok().and_then(|pid| pid.parse().ok());
    let test = test.and_then(Pid::from_raw).expect("the id of a process");
    std::thread::spawn(move || {
        if let Ok(test) = pidfd_open(test, PidfdFlags::empty()) {
            let _ = poll(&mut [PollFd::new(&test, PollFlags::IN)], None);
        }
        std::process::exit(1);
    });
}
