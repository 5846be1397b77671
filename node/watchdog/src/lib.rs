//! The watchdog: a process beside the node that kills the instances whose lease has ended.
//!
//! A node stops an instance before its lease ends. It cannot do that while it hangs (SIGSTOP, a stuck disk), or when it was
//! killed and is not started again in time. The watchdog can: it holds the deadlines and what to kill, and needs neither the node
//! nor Docker for it. It outlives the node, takes its place in no lock, and reads nothing from a disk once it has started.
//!
//! [`State`] decides; [`run`] is the process. [`message`] is what it and the node say to each other, over [`socket`].

mod clock;
mod connection;
mod host;
mod kill;
pub mod message;
mod process;
pub mod socket;
mod state;

pub use clock::boottime;
pub use message::Target;
pub use process::{StartError, run};
pub use state::State;
