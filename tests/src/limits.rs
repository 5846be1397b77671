//! The limits that `docs/limits.md` states are those of the sources.

use std::path::Path;

/// Returns the constants of a row: file, name and value.
fn constants(row: &str) -> Vec<(String, String, String)> {
    let code: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
    let Some(file) = code.last().filter(|it| it.ends_with(".rs")) else { return Vec::new() };
    let named = code.iter().filter_map(|it| it.split_once(" = "));
    named.map(|(name, value)| ((*file).to_owned(), name.to_owned(), value.to_owned())).collect()
}

/// Returns whether a source defines a constant with this value.
fn defines(source: &str, name: &str, value: &str) -> bool {
    let start = format!("const {name}: ");
    let end = format!(" = {value};");
    source.lines().any(|line| {
        line.split_once(&start)
            .is_some_and(|(_, rest)| rest.find(" = ").is_some_and(|at| rest[at..] == end))
    })
}

#[test]
fn the_limits_of_the_documentation_are_those_of_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |path: &str| std::fs::read_to_string(root.join(path));
    let page = read("docs/limits.md").expect("a page");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| ---"));
    let rows = rows.filter(|line| !line.ends_with("| constant |"));
    let mut count = 0;
    for row in rows {
        let constants = constants(row);
        assert!(!constants.is_empty(), "no constant: {row}");
        for (file, name, value) in constants {
            let source = read(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(defines(&source, &name, &value), "{file} has no {name} = {value}");
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
}

#[test]
fn another_value_or_name_is_noticed() {
    let source = "/// Nodes.\npub(crate) const MAX_NODES: usize = 7;\n";
    assert!(defines(source, "MAX_NODES", "7"));
    assert!(!defines(source, "MAX_NODES", "8") && !defines(source, "NODES", "7"));
}
