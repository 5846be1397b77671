//! Relative paths of files that are in other directories than the project.

use super::yaml::Node;

/// Returns a path that is relative to `directory`, as seen from where `directory` is. Absolute paths, those below `~` and URLs
/// stay as they are.
pub(super) fn join(directory: &str, path: &str) -> String {
    let elsewhere = path.starts_with(['/', '~']) || is_url(path);
    if elsewhere || directory.is_empty() {
        return path.to_owned();
    }
    // An absolute one stays absolute.
    super::directories::normal(&format!("{directory}/{path}"))
}

/// Returns the directory of a file; empty for that of the project.
pub(super) fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((".", _)) | None => String::new(),
        Some((directory, _)) => directory.to_owned(),
    }
}

/// Returns whether a build context is not a directory: `https://…`, `git@host:repository`, `service:web`.
fn is_url(path: &str) -> bool {
    path.contains("://") || path.starts_with("git@") || path.starts_with("service:")
}

/// Makes the relative paths of a document relative to where `directory` is: those of builds, env files, mounts, secrets,
/// configs and volumes.
pub(super) fn rebase(document: &mut Node, directory: &str) {
    let path = |node: &mut Node| {
        if let Node::Text(text) = node
            && !text.is_empty()
        {
            *text = join(directory, text);
        }
    };
    let each = |node: Option<&mut Node>, change: &dyn Fn(&mut Node)| {
        if let Some(Node::Map(map)) = node {
            map.values_mut().for_each(change);
        }
    };
    let Node::Map(top) = document else { return };
    for files in ["secrets", "configs"] {
        each(top.get_mut(files), &|it| field(it, "file").map(path).unwrap_or_default());
    }
    each(top.get_mut("volumes"), &|volume| {
        if let Some(options) = field(volume, "driver_opts")
            && matches!(options.get("o"), Some(Node::Text(o)) if o.split(',').any(|it| it == "bind"))
        {
            field(options, "device").map(path);
        }
    });
    each(top.get_mut("services"), &|service| {
        if let Some(build) = field(service, "build") {
            match build {
                Node::Map(_) => {
                    field(build, "context").map(path);
                    match field(build, "additional_contexts") {
                        Some(Node::Map(contexts)) => contexts.values_mut().for_each(path),
                        Some(Node::List(items)) => items.iter_mut().for_each(|item| {
                            if let Node::Text(text) = item
                                && let Some((name, value)) = text.split_once('=')
                            {
                                *text = format!("{name}={}", join(directory, value));
                            }
                        }),
                        _ => {}
                    }
                }
                build => path(build),
            }
        }
        for files in ["env_file", "label_file"] {
            one_or_many(field(service, files), &|item| match item {
                Node::Map(_) => {
                    field(item, "path").map(path);
                }
                item => path(item),
            });
        }
        one_or_many(field(service, "volumes"), &|item| mount(item, directory));
    });
}

fn mount(item: &mut Node, directory: &str) {
    match item {
        Node::Text(text) if text.starts_with('.') => {
            let (source, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
            *text = format!("{}{rest}", join(directory, source));
        }
        Node::Map(_) if item.get("type") == Some(&Node::Text("bind".to_owned())) => {
            if let Some(Node::Text(source)) = field(item, "source") {
                *source = join(directory, source);
            }
        }
        _ => {}
    }
}

fn field<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    if let Node::Map(map) = node { map.get_mut(key) } else { None }
}

fn one_or_many(node: Option<&mut Node>, change: &dyn Fn(&mut Node)) {
    match node {
        Some(Node::List(items)) => items.iter_mut().for_each(change),
        Some(node) => change(node),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_directory() {
        for (directory, path, joined) in [
            ("", "./a", "./a"),
            ("sub", "a", "./sub/a"),
            ("./sub", "../a", "./a"),
            ("..", "./a", "../a"),
            ("/srv/app", "./a", "/srv/app/a"),
            ("sub", "/a", "/a"),
            ("sub", "~/a", "~/a"),
            ("sub", "https://example.com/a.git", "https://example.com/a.git"),
        ] {
            assert_eq!(join(directory, path), joined, "{directory} {path}");
        }
        for (path, directory) in [
            ("a.yaml", ""),
            ("./a.yaml", ""),
            ("sub/a.yaml", "sub"),
            ("../a.yaml", ".."),
            ("/a.yaml", "/"),
        ] {
            assert_eq!(parent(path), directory, "{path}");
        }
    }
}
