//! What the operator says about this node: options of the command line, remembered in `DIR/node.json`, so that `run` needs
//! the data directory only.

mod change;
mod eviction;
mod file;
mod values;

pub(crate) use eviction::{Eviction, evictions};
pub(crate) use file::{FILE, load, save};
pub use values::{RuntimeChoice, Setting, Settings};
