//! Which Compose files a command is about, and the variables that they are read with: as with `docker compose`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use vc_compose::parse_env_file;

use super::project::ProjectError;
use crate::error::{SystemError, describe_io};

/// The names of a file that no option names, the first that is there counts.
const DEFAULTS: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
/// The names of a file beside it that is merged over it.
const OVERRIDES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// Standard input.
const STDIN: &str = "-";

type Env = BTreeMap<String, String>;

/// The Compose files of a project, and where they are.
pub(super) struct ComposeFiles {
    /// The first one, and those that are merged over it. `-` is standard input.
    pub(super) paths: Vec<PathBuf>,
    /// The directory of the first one, without links.
    pub(super) directory: PathBuf,
    /// The variables of the process, and those of env files that it does not set.
    pub(super) env: Env,
}

/// Finds the files: those that are given, else those of `COMPOSE_FILE`, else the one with a usual name in the directory `cwd` or
/// above it, with its override.
///
/// Variables come from the process, then from `env_files`, or `COMPOSE_ENV_FILES`, or `.env` in the directory of the first file.
pub(super) fn find(
    given: Vec<PathBuf>,
    env_files: &[PathBuf],
    process: Env,
    cwd: &Path,
) -> Result<ComposeFiles, ProjectError> {
    let mut env = process;
    let mut env_files = env_files.to_vec();
    if env_files.is_empty() {
        let listed = set(&env, "COMPOSE_ENV_FILES").unwrap_or_default();
        env_files = listed.split(',').filter(|it| !it.is_empty()).map(PathBuf::from).collect();
    }
    let has_dot_env = env_files.is_empty();
    add_env_files(&mut env, &env_files, cwd)?;
    let mut paths = given;
    if paths.is_empty() {
        if has_dot_env {
            add_dot_env(&mut env, cwd)?;
        }
        let separator = set(&env, "COMPOSE_PATH_SEPARATOR").unwrap_or(":").to_owned();
        let listed = set(&env, "COMPOSE_FILE").unwrap_or_default();
        let listed = listed.split(&separator).filter(|path| !path.is_empty());
        paths = listed.map(PathBuf::from).collect();
    }
    if paths.is_empty() {
        paths = default_files(cwd)?;
    }
    let paths: Vec<PathBuf> = paths.into_iter().map(|path| in_directory(cwd, path)).collect();
    let first = paths.first().map_or(Path::new(STDIN), PathBuf::as_path);
    let directory = match first == Path::new(STDIN) {
        true => cwd,
        false => first.parent().unwrap_or(cwd),
    };
    // Without `..` and links, so that the directory has a name.
    let directory = directory
        .canonicalize()
        .map_err(SystemError::doing(format!("find the directory of {}", first.display())))?;
    if has_dot_env {
        add_dot_env(&mut env, &directory)?;
    }
    Ok(ComposeFiles { paths, directory, env })
}

/// Returns the value of a variable, if it has one.
fn set<'e>(env: &'e Env, name: &str) -> Option<&'e str> {
    env.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

fn in_directory(directory: &Path, path: PathBuf) -> PathBuf {
    if path == Path::new(STDIN) { path } else { directory.join(path) }
}

/// Returns the file with a usual name in the directory, or in the nearest one above it that has one, and its override.
fn default_files(cwd: &Path) -> Result<Vec<PathBuf>, ProjectError> {
    let present = |directory: &Path, names: &[&str]| {
        names.iter().map(|name| directory.join(name)).find(|path| path.is_file())
    };
    let found = cwd.ancestors().find_map(|it| Some((it, present(it, &DEFAULTS)?)));
    let Some((directory, file)) = found else {
        return Err(ProjectError::NoFile { directory: cwd.to_owned() });
    };
    Ok([file].into_iter().chain(present(directory, &OVERRIDES)).collect())
}

/// Adds the variables of `.env` in a directory, if it has such a file.
fn add_dot_env(env: &mut Env, directory: &Path) -> Result<(), ProjectError> {
    let path = directory.join(".env");
    match path.is_file() {
        true => add_env_files(env, &[path], directory),
        false => Ok(()),
    }
}

/// Adds the variables of env files that are not set; those of a later file take precedence.
fn add_env_files(env: &mut Env, paths: &[PathBuf], cwd: &Path) -> Result<(), ProjectError> {
    let mut found = Env::new();
    for path in paths {
        let path = cwd.join(path);
        let doing = SystemError::doing(format!("read {}", path.display()));
        let content = read(&path).map_err(doing)?;
        let known = found.clone().into_iter().chain(env.clone()).collect();
        let of_file = parse_env_file(&content, &known)
            .map_err(|error| ProjectError::EnvFile { path, reason: error.to_string() })?;
        found.extend(of_file);
    }
    for (key, value) in found {
        env.entry(key).or_insert(value);
    }
    Ok(())
}

/// Reads an env file, or another file of the project: at most one byte more than the reader takes.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    crate::files::read_bytes(path, vc_compose::MAX_FILE_BYTES)
        .map_err(|error| io::Error::new(error.kind(), describe_io(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(directory: &Path, given: &[&str], env: &[(&str, &str)]) -> ComposeFiles {
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let given = given.iter().map(PathBuf::from).collect();
        find(given, &[], env.collect(), directory).unwrap_or_else(|error| panic!("{error}"))
    }

    fn names(files: &ComposeFiles, directory: &Path) -> Vec<String> {
        let relative =
            |path: &PathBuf| path.strip_prefix(directory).unwrap_or(path).display().to_string();
        files.paths.iter().map(relative).collect()
    }

    #[test]
    fn the_files_are_those_of_docker_compose() {
        let root = tempfile::tempdir().expect("a directory");
        let root = root.path().canonicalize().expect("a path");
        let below = root.join("app/src");
        std::fs::create_dir_all(&below).expect("made");
        let write =
            |name: &str, text: &str| std::fs::write(root.join(name), text).expect("written");
        assert!(matches!(
            find(Vec::new(), &[], Env::new(), &below),
            Err(ProjectError::NoFile { .. })
        ));
        write("app/docker-compose.yml", "");
        write("app/compose.yml", "");
        let of = |given: &[&str], env: &[(&str, &str)]| names(&found(&below, given, env), &root);
        assert_eq!(of(&[], &[]), ["app/compose.yml"], "in the nearest directory above");
        write("app/docker-compose.override.yml", "");
        assert_eq!(of(&[], &[]), ["app/compose.yml", "app/docker-compose.override.yml"]);
        assert_eq!(of(&["a.yaml", "../b.yaml"], &[]), ["app/src/a.yaml", "app/src/../b.yaml"]);
        let listed = [("COMPOSE_FILE", "a.yaml:b.yaml")];
        assert_eq!(of(&[], &listed), ["app/src/a.yaml", "app/src/b.yaml"]);
        assert_eq!(of(&["c.yaml"], &listed), ["app/src/c.yaml"]);
        write(
            "app/src/.env",
            "COMPOSE_FILE=../x.yaml;y.yaml\nCOMPOSE_PATH_SEPARATOR=;\nX=1\nY=1\n",
        );
        assert_eq!(of(&[], &[]), ["app/src/../x.yaml", "app/src/y.yaml"]);
        write("app/.env", "X=2\nZ=2\n");
        let files = found(&below, &[], &[("Y", "0")]);
        assert_eq!(files.directory, root.join("app"));
        let values = ["X", "Y", "Z"].map(|name| files.env[name].as_str());
        assert_eq!(
            values,
            ["1", "0", "2"],
            "the process, then its directory, then that of the file"
        );
    }

    #[test]
    fn env_files_that_are_named_come_instead_of_the_one_beside_the_file() {
        let root = tempfile::tempdir().expect("a directory");
        let write =
            |name: &str, text: &str| std::fs::write(root.path().join(name), text).expect("written");
        write(".env", "X=0\n");
        write("a.env", "X=1\nY=$P\n");
        write("b.env", "X=2\nZ=$Y\n");
        let env = Env::from([
            ("P".to_owned(), "p".to_owned()),
            ("COMPOSE_ENV_FILES".to_owned(), "a.env".to_owned()),
        ]);
        let of = |env_files: &[&str]| {
            let env_files: Vec<PathBuf> = env_files.iter().map(PathBuf::from).collect();
            let found = find(vec![STDIN.into()], &env_files, env.clone(), root.path());
            let mut env = found.unwrap_or_else(|error| panic!("{error}")).env;
            ["X", "Y", "Z"].map(|name| env.remove(name).unwrap_or_default())
        };
        assert_eq!(of(&[]), ["1", "p", ""]);
        assert_eq!(of(&["a.env", "b.env"]), ["2", "p", "p"]);
        let none = find(vec![STDIN.into()], &["none.env".into()], Env::new(), root.path());
        assert!(none.is_err_and(|error| error.to_string().contains("none.env")));
        std::fs::remove_file(root.path().join(".env")).expect("removed");
        std::fs::create_dir(root.path().join(".env")).expect("made");
        assert!(
            find(vec![STDIN.into()], &[], Env::new(), root.path()).is_ok(),
            "a directory is none"
        );
    }
}
