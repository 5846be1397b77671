//! What `vc-node` runs of this crate when it is re-executed, alone: for the tests and the benchmark.

use std::process::ExitCode;

fn main() -> ExitCode {
    vc_volumes::helper::run(std::env::args_os()).unwrap_or(ExitCode::from(2))
}
