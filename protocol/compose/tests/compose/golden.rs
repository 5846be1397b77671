//! Golden tests of whole files.
//!
//! Each `files/NAME.yaml` has its expected result beside it: `NAME.json` (the project) or `NAME.txt` (the error
//! line). `VC_BLESS=1 cargo nextest run -p vc-compose --test compose golden` writes them anew; review the diff.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vc_compose::{Context, Entry, Project};
use vc_protocol::spec::Deployment;

use crate::{fixtures, parse};

#[test]
fn typical_files_match_their_golden_files() {
    let update = std::env::var_os("VC_BLESS").is_some();
    let mut seen = 0;
    for entry in fs::read_dir(fixtures()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let (extension, outcome) = match parse(&fs::read_to_string(&path).unwrap()) {
            Ok(Project { name, services, files, builds, uploads, warnings }) => {
                let builds: Vec<String> = builds.iter().map(|it| format!("{it:?}")).collect();
                let mut json = serde_json::json!({
                    "name": name, "services": services, "files": files, "builds": builds, "warnings": warnings
                });
                if !uploads.is_empty() {
                    let paths = uploads.iter().map(|it| format!("{} -> {}", it.path, it.volume));
                    json["uploads"] = paths.collect::<Vec<String>>().into();
                }
                ("json", serde_json::to_string_pretty(&json).unwrap())
            }
            Err(error) => ("txt", error.to_string()),
        };
        let (golden, other) =
            (path.with_extension(extension), if extension == "txt" { "json" } else { "txt" });
        if update {
            fs::write(&golden, format!("{outcome}\n")).unwrap();
            let _ = fs::remove_file(path.with_extension(other));
        }
        assert!(!path.with_extension(other).exists(), "{}: {outcome}", path.display());
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(outcome.trim_end(), expected.trim_end(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 20, "only {seen} files");
}

#[test]
fn the_examples_can_be_deployed() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let directory = entry.unwrap().path();
        let Ok(text) = fs::read_to_string(directory.join("compose.yaml")) else { continue };
        let context = Context {
            project: None,
            node: None,
            directory: None,
            env: &BTreeMap::new(),
            read: &|path| fs::read(directory.join(path)),
            open: &|path| {
                let content = fs::read(directory.join(path))?;
                Ok(Entry::File { content, mode: 0o644 })
            },
        };
        let project = vc_compose::parse(&text, &context)
            .unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
        assert_eq!(project.warnings, Vec::<String>::new(), "{}", directory.display());
        seen += 1;
    }
    assert!(seen >= 2, "only {seen} examples");
}

#[test]
fn the_file_in_the_documentation_can_be_deployed() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compose.md");
    let page = fs::read_to_string(page).unwrap();
    let file = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    assert_eq!(parse(file).unwrap().services.len(), 3);
}

#[test]
fn deployments_survive_json() {
    let text = fs::read_to_string(fixtures().join("web-api-redis.yaml")).unwrap();
    for deployment in parse(&text).unwrap().services {
        let json = serde_json::to_string(&deployment).unwrap();
        assert_eq!(serde_json::from_str::<Deployment>(&json).unwrap(), deployment);
    }
}
