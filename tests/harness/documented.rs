//! The command lines in the documentation for users.

use std::path::Path;

/// Returns the command lines of a program in README.md and `docs/`, with the file of each, as words.
pub fn commands(program: &str) -> Vec<(String, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = std::fs::read_dir(root.join("docs")).expect("docs/").map(|it| it.expect("a file"));
    let pages = pages.map(|it| it.path()).filter(|it| it.extension().is_some_and(|it| it == "md"));
    let mut all = Vec::new();
    for page in pages.chain([root.join("README.md")]) {
        let text = std::fs::read_to_string(&page).expect("text");
        let blocks = text.split("```sh\n").skip(1).map(|it| it.split("```").next().expect("text"));
        for line in blocks.flat_map(str::lines) {
            let words = shlex::split(line).unwrap_or_default();
            // What follows is of the shell.
            let end = words.iter().position(|it| [">", "<", "|", ";", "&&"].contains(&it.as_str()));
            let words = words.into_iter().take(end.unwrap_or(usize::MAX)).collect::<Vec<_>>();
            if words.first().is_some_and(|it| it == program) {
                all.push((page.display().to_string(), words));
            }
        }
    }
    all
}
