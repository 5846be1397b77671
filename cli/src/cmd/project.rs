//! Reads the Compose files of a project with the files that they refer to.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use vc_compose::{
    ComposeError, Context, Entry, MAX_CONTENT_BYTES, MAX_FILE_BYTES, Project, Source,
};
use vc_protocol::{ApiError, ErrorCode, Name};

use super::compose_files::{self, ComposeFiles};
use crate::error::{SystemError, describe_io};
use crate::files;
use crate::render::note;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProjectError {
    /// The Compose file, its directory or `.env` cannot be read.
    #[error(transparent)]
    Read(#[from] SystemError),
    /// No option names a file, and there is none with a usual name.
    #[error(
        "no Compose file in {} or above: name one, as in 'vc deploy compose.yaml'",
        directory.display()
    )]
    NoFile { directory: PathBuf },
    /// A line of an env file is malformed.
    #[error("{}: {reason}", path.display())]
    EnvFile { path: PathBuf, reason: String },
    /// The Compose file is malformed, or uses something that is not supported.
    #[error("{file}: {error}")]
    Compose { file: String, error: ComposeError },
}

impl From<ProjectError> for ApiError {
    fn from(error: ProjectError) -> Self {
        match error {
            ProjectError::Read(error) => error.into(),
            error => Self::new(ErrorCode::InvalidArgument, error.to_string()),
        }
    }
}

/// The options that select Compose files.
#[derive(Debug, clap::Args)]
pub(super) struct ProjectArgs {
    /// Compose file; '-' reads standard input [default: those of $COMPOSE_FILE, else compose.yaml or docker-compose.yml here or
    /// in a directory above, with compose.override.yaml beside it]
    #[arg(value_name = "FILE")]
    first: Option<PathBuf>,
    /// Compose file that is merged over those before it; may be given several times
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// File of variables, instead of .env beside the first file; may be given several times [default: those of
    /// $COMPOSE_ENV_FILES]
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Run all services on this node, by its name or id; absolute paths are those of that node, and are made if they are missing
    #[arg(long, value_name = "NODE")]
    on: Option<String>,
    /// Name of the project [default: $COMPOSE_PROJECT_NAME, else 'name:' in the file, else the name of its directory]
    #[arg(short, long, value_name = "PROJECT")]
    project: Option<Name>,
}

impl ProjectArgs {
    /// Reads the files. Variables come from the environment, then from env files.
    pub(super) fn read(self) -> Result<Project, ProjectError> {
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        self.read_with(environment.collect())
    }

    fn read_with(self, environment: BTreeMap<String, String>) -> Result<Project, ProjectError> {
        let cwd = std::env::current_dir().map_err(SystemError::doing("find this directory"))?;
        let given = self.first.into_iter().chain(self.file).collect();
        let ComposeFiles { paths, directory, env } =
            compose_files::find(given, &self.env_file, environment, &cwd)?;
        let mut texts = Vec::new();
        for path in &paths {
            let (what, text) = if path == Path::new("-") {
                let text = files::read_from(io::stdin().lock(), MAX_FILE_BYTES);
                ("standard input".to_owned(), text)
            } else {
                let shown = path.strip_prefix(&cwd).unwrap_or(path);
                (shown.display().to_string(), files::read(path, MAX_FILE_BYTES))
            };
            let text = text.map_err(SystemError::doing(format!("read {what}")))?;
            texts.push((what, text));
        }
        let sources: Vec<Source<'_>> =
            texts.iter().map(|(name, text)| Source { name, text }).collect();
        let context = Context {
            project: self.project,
            node: self.on.as_deref(),
            directory: directory.file_name().and_then(|name| name.to_str()),
            env: &env,
            read: &|path| compose_files::read(&directory.join(path)),
            open: &|path| entry(&directory.join(path)).map_err(|error| described(&error)),
        };
        let mut project = vc_compose::parse_files(&sources, &context).map_err(|error| {
            let file = sources.first().map(|source| source.name.to_owned()).unwrap_or_default();
            match error {
                ComposeError::File { name, error } => {
                    ProjectError::Compose { file: name, error: *error }
                }
                error => ProjectError::Compose { file, error },
            }
        })?;
        for build in &mut project.builds {
            let contexts = build.contexts.values_mut().chain([&mut build.context]);
            for context in contexts.filter(|context| !is_url(context)) {
                *context = directory.join(&*context).to_string_lossy().into_owned();
            }
            for path in build.secrets.values_mut() {
                *path = directory.join(&*path).to_string_lossy().into_owned();
            }
        }
        for upload in &mut project.uploads {
            let home = env.get("HOME").filter(|_| upload.path.starts_with('~'));
            let path = match home {
                Some(home) => PathBuf::from(upload.path.replacen('~', home, 1)),
                None => directory.join(&upload.path),
            };
            upload.path = path.to_string_lossy().into_owned();
        }
        Ok(project)
    }
}

/// Prints the warnings of the file, once the request that used it has succeeded.
pub(super) fn warn(project: &Project) {
    for warning in &project.warnings {
        note(&format!("warning: {warning}"));
    }
}

/// Reads what is at a path. Devices and pipes are not opened: that may block or have effects.
fn entry(path: &Path) -> io::Result<Entry> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_dir() {
        return Ok(Entry::Directory);
    }
    if !metadata.is_file() {
        return Ok(Entry::Other);
    }
    let mut content = Vec::new();
    File::open(path)?.take(MAX_CONTENT_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(Entry::File { content, mode: metadata.permissions().mode() & 0o777 })
}

/// Returns whether the build context is not a directory: `https://…`, `git@host:repository`.
fn is_url(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@")
}

/// Replaces the text of an error by that of [`describe_io`].
fn described(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), describe_io(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        file: &Path,
        project: Option<&str>,
        environment: &[(&str, &str)],
    ) -> Result<Project, ProjectError> {
        let project = project.map(|name| name.parse().expect("a name"));
        let environment =
            environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let (first, file, env_file) = (Some(file.to_owned()), Vec::new(), Vec::new());
        ProjectArgs { first, file, env_file, on: None, project }.read_with(environment.collect())
    }

    #[test]
    fn a_file_is_read_with_env_files_beside_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let shop = directory.path().join("My.Shop");
        std::fs::create_dir_all(shop.join("env")).expect("made");
        let file = shop.join("compose.yaml");
        let text = "services:\n  web:\n    image: \"img:${TAG}\"\n    env_file: env/web.env\n    environment:\n      FROM: ${FROM}\n";
        std::fs::write(&file, text).expect("written");
        std::fs::write(shop.join(".env"), "TAG=7\nFROM=file\n").expect("written");
        std::fs::write(shop.join("env/web.env"), "A=1\n").expect("written");

        let project = read(&file, None, &[("FROM", "process")]).expect("a project");
        assert_eq!(project.name.as_str(), "myshop");
        let container = &project.services[0].spec.container;
        assert_eq!(container.image, "img:7");
        assert_eq!(
            container.environment["FROM"], "process",
            "the environment of the process takes precedence"
        );
        assert_eq!(container.environment["A"], "1");
        assert_eq!(read(&file, Some("other"), &[]).expect("a project").name.as_str(), "other");
    }

    #[test]
    fn files_and_builds_are_relative_to_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let shop = directory.path().canonicalize().expect("a path").join("shop");
        std::fs::create_dir_all(shop.join("app")).expect("made");
        let file = shop.join("compose.yaml");
        let text = "services:\n  web:\n    build: ./app\n    secrets: [key]\n    volumes: [./web.conf:/etc/web.conf]\n  far:\n    build: https://example.com/far.git\nsecrets:\n  key: {file: key.bin}\n";
        std::fs::write(&file, text).expect("written");
        std::fs::write(shop.join("key.bin"), [0, 255, 10]).expect("written");
        std::fs::write(shop.join("web.conf"), "listen 80").expect("written");
        let mode = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(shop.join("web.conf"), mode).expect("set");

        let project = read(&file, None, &[]).expect("a project");
        let contents: Vec<_> = project.files.iter().map(|it| it.base64.as_str()).collect();
        assert_eq!(contents, ["AP8K", "bGlzdGVuIDgw"], "any bytes, by kind and name");
        let web = project.services.iter().find(|it| it.service.service.as_str() == "web");
        let files = &web.expect("it is there").spec.container.files;
        assert_eq!(files[0].mode, 0o640, "the mode of the file itself");
        let contexts: Vec<_> = project.builds.iter().map(|it| it.context.as_str()).collect();
        let app = shop.join("./app");
        assert_eq!(contexts, ["https://example.com/far.git", app.to_str().expect("text")]);

        let _socket = std::os::unix::net::UnixListener::bind(shop.join("sock")).expect("bound");
        let with = |path: &str| {
            let text = format!("services: {{web: {{image: i, volumes: ['{path}:/x']}}}}");
            std::fs::write(&file, text).expect("written");
            read(&file, None, &[("HOME", "/home/ann")])
        };
        let error = with("./sock").expect_err("refused").to_string();
        assert!(
            error.contains("services.web.volumes[0]: './sock' is not a regular file"),
            "{error}"
        );
        for (path, found) in
            [("./app/", app.to_str().expect("text")), ("~/films", "/home/ann/films")]
        {
            let project = with(path).expect("a project");
            assert_eq!(project.uploads[0].path, found, "{path}: empty, or made empty");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("compose.yaml");
        let error = |file: &Path| read(file, Some("p"), &[]).expect_err("refused").to_string();
        assert!(
            error(&file).ends_with("compose.yaml: no such file or directory"),
            "{}",
            error(&file)
        );
        std::fs::write(&file, "services:\n  web:\n    image: x\n    network_mode: macvlan\n")
            .expect("written");
        assert!(
            error(&file).contains("compose.yaml: services.web.network_mode"),
            "{}",
            error(&file)
        );
        std::fs::write(directory.path().join(".env"), "no line\n").expect("written");
        assert!(error(&file).contains(".env: line 1"), "{}", error(&file));
    }
}
