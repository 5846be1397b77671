//! The shell of a node: what the engine decides, this does.

pub mod runtime;
