//! Tests of Virtual Cluster that need more than one node.
//!
//! `simulation/`, a crate of its own, runs any number of engines in one process under virtual time.

#[cfg(test)]
#[allow(clippy::expect_used, reason = "tests")]
mod limits;
