//! Writes the seeds of all targets: `cargo run -p vc-fuzz --example seeds DIRECTORY`, into a directory for each target.

use std::fs;
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let directory = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "seeds".to_owned()));
    for target in vc_fuzz::TARGETS {
        fs::create_dir_all(directory.join(target.name))?;
        for (number, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(target.name).join(format!("seed-{number:02}")), seed)?;
        }
    }
    Ok(())
}
