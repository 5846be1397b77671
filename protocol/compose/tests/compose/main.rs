//! Tests of the reader on Compose files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod deploy;
mod files;
mod golden;
mod hostile;
mod jobs;
mod kept_volumes;
mod meaning;
mod networks;
mod ports;
mod refused;
mod services;
mod several_files;
mod top;
mod volumes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use vc_compose::{ComposeError, Context, Entry, MAX_CONTENT_BYTES, Project};
use vc_protocol::spec::Deployment;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compose/files")
}

/// Parses like `vc`, in a fixed directory and environment.
fn parse(text: &str) -> Result<Project, ComposeError> {
    parse_with(text, &[])
}

/// Parses with more variables in the environment.
fn parse_with(text: &str, more: &[(&str, &str)]) -> Result<Project, ComposeError> {
    let pairs = [("TAG", "v7"), ("HOSTNAME", "lab"), ("EMPTY", ""), ("HOME", "/home/ann")];
    let env: BTreeMap<_, _> = (pairs.iter().chain(more))
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let read = |path: &str| match path {
        "broken.env" => Ok(b"A=1\n=2\n".to_vec()),
        "secret.env" => Err(io::Error::new(io::ErrorKind::PermissionDenied, "permission denied")),
        path => {
            fs::read(fixtures().join(path)).map_err(|e| io::Error::new(e.kind(), "no such file"))
        }
    };
    let context = Context {
        project: None,
        node: None,
        directory: Some("My_App 2"),
        env: &env,
        read: &read,
        open: &entry,
    };
    vc_compose::parse(text, &context)
}

/// Opens a path on a fake disk: a name with an extension is a file that contains its path, any other a directory.
fn entry(path: &str) -> io::Result<Entry> {
    let file = |content: Vec<u8>| Ok(Entry::File { content, mode: 0o640 });
    match path {
        "missing.txt" | "./missing.txt" | "gone" => {
            Err(io::Error::new(io::ErrorKind::NotFound, "no such file"))
        }
        _ if path.ends_with("large.bin") => file(vec![0; MAX_CONTENT_BYTES + 1]),
        "/var/run/docker.sock" | "./sock" => Ok(Entry::Other),
        _ if path.trim_start_matches("./").starts_with("full") => file(vec![0; MAX_CONTENT_BYTES]),
        _ if Path::new(path).extension().is_some() => file(path.as_bytes().to_vec()),
        _ => Ok(Entry::Directory),
    }
}

/// The line that refuses a file.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(String);

impl PartialEq<&str> for Refusal {
    fn eq(&self, line: &&str) -> bool {
        self.0 == *line
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::ops::Deref for Refusal {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// Parses a file whose only service, `s`, has an image and `lines`.
fn service(lines: &str) -> Result<Deployment, Refusal> {
    beside("", lines).map(|mut project| project.services.remove(0))
}

/// Parses such a file with `top` at its top level.
fn beside(top: &str, lines: &str) -> Result<Project, Refusal> {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    parse(&format!("services:\n  s:\n    image: i\n{indented}{top}"))
        .map_err(|error| Refusal(error.to_string()))
}

/// Asserts that each service is refused with this text.
fn all_refused(cases: &[(&str, &str)]) {
    for (lines, refusal) in cases {
        assert_eq!(&*service(lines).expect_err(lines), *refusal, "{lines}");
    }
}
