//! Builds the crate anew when the console was built: what it embeds are files that cargo does not know of.

use std::path::Path;

fn main() {
    // A path that does not exist would count as changed at each build. The place where it will appear does not.
    let watched = if Path::new("../dist").is_dir() { "../dist" } else { ".." };
    println!("cargo::rerun-if-changed={watched}");
}
