//! Tests of Virtual Cluster that need more than one node.
//!
//! `simulation/` runs any number of engines in one process under virtual time; a failure prints the seed that repeats it.
