//! Rebuilds the crate when the console was built: cargo does not track embedded files.

use std::path::Path;

fn main() {
    // A path that does not exist counts as changed on every build; its parent does not.
    let watched = if Path::new("../dist").is_dir() { "../dist" } else { ".." };
    println!("cargo::rerun-if-changed={watched}");
}
