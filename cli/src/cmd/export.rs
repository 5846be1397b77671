//! `vc export`: writes what is deployed as Compose files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vc_client::text::{list, one_line};
use vc_client::{Session, expect_reply};
use vc_compose::{Export, Exported, export};
use vc_protocol::control::{ExportRow, Request, ServiceRow};
use vc_protocol::{ApiError, ErrorCode, Name};

use crate::app::App;
use crate::error::{Result, SystemError};
use crate::render::note;

/// The name of a file in the directory of its project.
const FILE: &str = "compose.yaml";
/// The most fields that a note names.
const MAX_NAMED: usize = 12;

/// Arguments of `vc export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  vc export shop > compose.yaml              all services of a project
  vc export shop/web                         one of them
  vc export -d ./exported                    all projects, each as ./exported/PROJECT/compose.yaml
  vc export shop | vc deploy - --dry-run     changes nothing, where there are no secrets

The file has the values of environment variables, and not the contents of secrets and configs: a note names the files to put beside it.
Tags are as they were deployed; a comment has the image that each meant. The file is read again and compared with what is deployed: a
note names what it cannot say. The data of volumes is not in it: see 'vc backup'. Needs a token of a deployer.")]
pub(crate) struct Args {
    /// Projects, and services as project/service, or by their names [default: all projects]
    #[arg(value_name = "PROJECT|SERVICE")]
    names: Vec<String>,
    /// Write a file for each project below this directory
    #[arg(long, short, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Replace files that exist
    #[arg(long, requires = "directory")]
    force: bool,
}

impl Args {
    pub(crate) async fn run(self, app: &App) -> Result {
        let projects = app.in_session(async |session| chosen(session, &self.names).await).await?;
        if self.directory.is_none() && projects.len() > 1 && !app.out.is_json() {
            let names: Vec<String> = projects.keys().map(ToString::to_string).collect();
            let message = format!("there are several projects: {}", list(names, MAX_NAMED));
            let error = ApiError::new(ErrorCode::InvalidArgument, message);
            return Err(error.with_hint("name one, or write all with --directory DIR").into());
        }
        let mut rows = Vec::new();
        for (project, services) in &projects {
            let Export { text, supply, inexact } = export(project, services);
            let file = match &self.directory {
                Some(dir) => {
                    Some(write(&dir.join(project.as_str()).join(FILE), &text, self.force)?)
                }
                None => None,
            };
            let inexact = inexact.into_iter().map(|(service, fields)| {
                format!("{project}/{service}: {}", list(fields, MAX_NAMED))
            });
            rows.push(ExportRow {
                project: project.clone(),
                file,
                text,
                supply: supply.into_iter().map(|(_, path)| path).collect(),
                inexact: inexact.collect(),
            });
        }
        for row in &rows {
            for path in &row.supply {
                note(&one_line(&format!("{}: supply the content of {path}", row.project)));
            }
            for line in &row.inexact {
                note(&one_line(&format!("the file differs from what is deployed in {line}")));
            }
        }
        app.out.show(&rows[..], |rows, _| {
            let text = |row: &ExportRow| match &row.file {
                Some(file) => format!("{file}\n"),
                None => row.text.clone(),
            };
            rows.iter().map(text).collect()
        })
    }
}

/// Returns the services that are named, by project.
async fn chosen(session: &mut Session, names: &[String]) -> Result<BTreeMap<Name, Vec<Exported>>> {
    let rows = expect_reply!(session.ask(&Request::Services).await?, Services)?;
    for name in names {
        if !rows.iter().any(|row| is_named(row, name)) {
            let message = format!("no project and no service is named '{name}'");
            let error = ApiError::new(ErrorCode::NotFound, message);
            return Err(error.with_hint("see 'vc services'").into());
        }
    }
    let mut projects: BTreeMap<Name, Vec<Exported>> = BTreeMap::new();
    let wanted = |row: &&ServiceRow| names.is_empty() || names.iter().any(|it| is_named(row, it));
    for row in rows.iter().filter(wanted) {
        let request = Request::Inspect { service: row.service.to_string(), show_values: true };
        let detail = expect_reply!(session.ask(&request).await?, Service)?;
        let service = row.service.service.clone();
        let exported = Exported { service, spec: detail.spec, replicas: detail.row.replicas };
        projects.entry(row.service.project.clone()).or_default().push(exported);
    }
    if projects.is_empty() {
        let error = ApiError::new(ErrorCode::NotFound, "nothing is deployed");
        return Err(error.with_hint("see 'vc services'").into());
    }
    Ok(projects)
}

/// Returns whether a text means a service: `shop`, `shop/`, `shop/web` or `web`.
fn is_named(row: &ServiceRow, text: &str) -> bool {
    let project = text.strip_suffix('/').unwrap_or(text);
    row.service.project.as_str() == project
        || row.service.to_string() == text
        || row.service.service.as_str() == text
}

/// Writes a file that only this user may read: it has the values of environment variables.
fn write(path: &Path, text: &str, force: bool) -> Result<String> {
    let name = path.display().to_string();
    if !force && std::fs::symlink_metadata(path).is_ok() {
        let error = ApiError::new(ErrorCode::AlreadyExists, format!("{name} exists"));
        return Err(error.with_hint("choose another directory, or replace it with --force").into());
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent)
        .and_then(|()| vc_atomic_file::write(path, text.as_bytes(), 0o600))
        .map_err(SystemError::doing(format!("write {name}")))?;
    Ok(name)
}
