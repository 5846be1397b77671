//! Merging of Compose files, and of a service with the one that it extends.
//!
//! The rules are those of the [Compose specification](https://github.com/compose-spec/compose-spec/blob/main/13-merge.md):
//! maps are merged by key and lists are appended, except that commands are replaced, what can be written as a map or as a list
//! is a map, and some lists have one entry for each target, port or name.

use std::collections::BTreeMap;

use super::tree::{Origins, Tree};
use super::walk::{At, Walk};
use super::yaml::Node;

/// How two values of one key are merged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// By their kinds: maps by key, lists one after the other, texts replaced.
    Kinds,
    /// The later one counts.
    Replace,
    /// A map, or a list of `KEY=VALUE`.
    Pairs,
    /// A map, or a list of its keys.
    Keys,
    /// A list, or its only item. Equal items count once.
    OneOrMany,
    /// A list in which an item replaces the one with the same [`identity`].
    Unique(Identity),
    /// `build`: a map, or its `context`.
    Build,
    /// `depends_on`: a map, or a list of its keys, which have a condition then.
    DependsOn,
    /// `logging`: options are those of a driver.
    Logging,
}

/// What distinguishes the items of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Identity {
    /// The item itself.
    Whole,
    /// The address, the ports and the protocol.
    Port,
    /// The target of a mount or a device.
    Target,
    /// The target of a secret or config, below a directory where it is relative.
    FileBelow(&'static str),
    /// The path.
    Path,
}

/// Returns the rule of a value by the keys that lead to it.
fn rule(keys: &[&str]) -> Rule {
    let (place, rest) = match *keys {
        [top @ ("networks" | "volumes" | "secrets" | "configs"), _, ref rest @ ..] => (top, rest),
        ["services", _, ref rest @ ..] => ("services", rest),
        _ => return Rule::Kinds,
    };
    match (place, rest) {
        ("services", ["command" | "entrypoint"] | ["healthcheck", "test"] | ["ulimits", _]) => {
            Rule::Replace
        }
        ("services", ["environment" | "labels" | "annotations" | "sysctls"])
        | ("services", ["build", "args" | "labels" | "additional_contexts"])
        | ("services", ["deploy", "labels"])
        | ("networks" | "volumes" | "secrets" | "configs", ["labels"]) => Rule::Pairs,
        ("services", ["networks" | "models"]) => Rule::Keys,
        ("services", ["dns" | "dns_opt" | "dns_search" | "tmpfs" | "extra_hosts"]) => {
            Rule::OneOrMany
        }
        ("services", ["env_file" | "label_file"]) => Rule::Unique(Identity::Path),
        ("services", ["cap_add" | "cap_drop" | "expose" | "links" | "profiles"])
        | ("services", ["networks", _, "aliases" | "link_local_ips"]) => {
            Rule::Unique(Identity::Whole)
        }
        ("services", ["ports"]) => Rule::Unique(Identity::Port),
        ("services", ["volumes" | "devices"]) => Rule::Unique(Identity::Target),
        ("services", ["secrets"]) => Rule::Unique(Identity::FileBelow("/run/secrets")),
        ("services", ["configs"]) => Rule::Unique(Identity::FileBelow("")),
        ("services", ["build"]) => Rule::Build,
        ("services", ["depends_on"]) => Rule::DependsOn,
        ("services", ["logging"]) => Rule::Logging,
        ("networks", ["ipam"]) => Rule::Replace,
        _ => Rule::Kinds,
    }
}

/// Merges `over` over `base`. Refuses values that cannot be merged.
pub(super) fn merge(base: Tree, over: Tree, walk: &Walk<'_>) -> Tree {
    let mut merger = Merger { walk, origins: base.origins, over: over.origins };
    let node = merger.merge(base.node, over.node, &[], "");
    Tree { node, origins: merger.origins }
}

struct Merger<'m, 'w> {
    walk: &'m Walk<'w>,
    /// The origins of what is merged so far.
    origins: Origins,
    /// The origins of what is merged over it.
    over: Origins,
}

impl Merger<'_, '_> {
    /// Merges two values of the same path, to which `keys` lead. What says how to merge stays, for what comes below.
    fn merge(&mut self, base: Node, over: Node, keys: &[&str], path: &str) -> Node {
        let rule = rule(keys);
        let base = match base {
            Node::Reset => Node::Null,
            Node::Override(base) => *base,
            base => base,
        };
        let (base, over) = match over {
            // A key without a value changes nothing.
            Node::Null => return base,
            over if base == Node::Null
                || rule == Rule::Replace
                || matches!(over, Node::Reset | Node::Override(_)) =>
            {
                return self.take(over, path, path);
            }
            over => (unify(base, rule), unify(over, rule)),
        };
        match (base, over) {
            (Node::Map(base), Node::Map(over)) => {
                let of_other_driver = rule == Rule::Logging
                    && matches!((base.get("driver"), over.get("driver")), (Some(a), Some(b)) if a != b);
                match of_other_driver {
                    true => self.take(Node::Map(over), path, path),
                    false => self.maps(base, over, keys, path),
                }
            }
            (Node::List(base), Node::List(over)) => self.lists(base, over, rule, path),
            (base, over @ Node::Text(_)) if !matches!(base, Node::List(_) | Node::Map(_)) => {
                self.take(over, path, path)
            }
            (base, over) => {
                let file = self.over.at(path).cloned().unwrap_or_default();
                let why = format!(
                    " is {} in {file}, which cannot be merged with the {} below it: write !override before the later one",
                    kind(&over),
                    kind(&base).trim_start_matches("a "),
                );
                self.walk.refuse(path, &why);
                base
            }
        }
    }

    fn maps(
        &mut self,
        mut base: BTreeMap<String, Node>,
        over: BTreeMap<String, Node>,
        keys: &[&str],
        path: &str,
    ) -> Node {
        for (key, over) in over {
            let path = At::key_path(path, &key);
            let merged = match base.remove(&key) {
                None => self.take(over, &path, &path),
                Some(base) => self.merge(base, over, &[keys, &[&key]].concat(), &path),
            };
            base.insert(key, merged);
        }
        Node::Map(base)
    }

    fn lists(&mut self, mut base: Vec<Node>, over: Vec<Node>, rule: Rule, path: &str) -> Node {
        let identity_of = |node: &Node| match rule {
            Rule::Unique(by) => identity(node, by),
            Rule::OneOrMany => identity(node, Identity::Whole),
            _ => None,
        };
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (index, item) in base.iter().enumerate() {
            places.extend(identity_of(item).map(|identity| (identity, index)));
        }
        for (index, item) in over.into_iter().enumerate() {
            let identity = identity_of(&item);
            let place = identity.as_ref().and_then(|it| places.get(it)).copied();
            let to = place.unwrap_or(base.len());
            let item = self.take(item, &At::item_path(path, to), &At::item_path(path, index));
            match place {
                Some(place) => base[place] = item,
                None => base.push(item),
            }
            places.extend(identity.map(|identity| (identity, to)));
        }
        Node::List(base)
    }

    /// Takes a value as it is, from the path `from`.
    fn take(&mut self, node: Node, path: &str, from: &str) -> Node {
        self.origins.take(path, &self.over, from);
        node
    }
}

/// Removes what only says how to merge.
pub(super) fn strip(node: Node) -> Node {
    match node {
        Node::List(items) => {
            Node::List(items.into_iter().filter(|it| *it != Node::Reset).map(strip).collect())
        }
        Node::Map(map) => {
            let kept = map.into_iter().filter(|(_, node)| *node != Node::Reset);
            Node::Map(kept.map(|(key, node)| (key, strip(node))).collect())
        }
        Node::Override(node) => strip(*node),
        Node::Reset => Node::Null,
        node => node,
    }
}

/// Returns a value in the form in which two of its kind can be merged.
fn unify(node: Node, rule: Rule) -> Node {
    let text = |text: &str| Node::Text(text.to_owned());
    match (rule, node) {
        (Rule::Build, Node::Text(context)) => {
            Node::Map([("context".to_owned(), Node::Text(context))].into())
        }
        (Rule::OneOrMany | Rule::Unique(_), node @ Node::Text(_))
        | (Rule::Unique(Identity::Path), node @ Node::Map(_)) => Node::List(vec![node]),
        // `extra_hosts`: a name may have several addresses.
        (Rule::OneOrMany, Node::Map(map)) => {
            let hosts = map.into_iter().flat_map(|(name, value)| {
                let values = if let Node::List(items) = value { items } else { vec![value] };
                values.into_iter().map(move |value| match value {
                    Node::Text(value) => Node::Text(format!("{name}={value}")),
                    other => other,
                })
            });
            Node::List(hosts.collect())
        }
        (Rule::Pairs | Rule::Keys | Rule::DependsOn, Node::List(items)) => {
            let pair = |item: &Node| {
                let Node::Text(item) = item else { return None };
                Some(match (rule, item.split_once('=')) {
                    (Rule::DependsOn, _) => {
                        let condition = [("condition".to_owned(), text("service_started"))];
                        (item.clone(), Node::Map(condition.into()))
                    }
                    (Rule::Pairs, Some((key, value))) => (key.to_owned(), text(value)),
                    _ => (item.clone(), Node::Null),
                })
            };
            // A list of something else is left to the reader, which refuses it.
            let pairs: Option<BTreeMap<String, Node>> = items.iter().map(pair).collect();
            pairs.map_or(Node::List(items), Node::Map)
        }
        (_, node) => node,
    }
}

/// Returns what distinguishes an item of a list; `None` for one that is refused later.
fn identity(node: &Node, by: Identity) -> Option<String> {
    let field = |key: &str| match node.get(key) {
        Some(Node::Text(text)) => Some(text.as_str()),
        _ => None,
    };
    match (by, node) {
        (Identity::Whole | Identity::Path, Node::Text(text)) => Some(text.clone()),
        (Identity::Path, Node::Map(_)) => field("path").map(str::to_owned),
        (Identity::Target, Node::Text(text)) => {
            let mut parts = text.split(':');
            let first = parts.next();
            Some(parts.next().or(first)?.to_owned())
        }
        (Identity::Target, Node::Map(_)) => field("target").map(str::to_owned),
        (Identity::FileBelow(base), Node::Text(name)) => Some(format!("{base}/{name}")),
        (Identity::FileBelow(base), Node::Map(_)) => {
            let target = field("target").or(field("source"))?;
            Some(if target.starts_with('/') {
                target.to_owned()
            } else {
                format!("{base}/{target}")
            })
        }
        (Identity::Port, Node::Text(text)) => {
            let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let (rest, target) = rest.rsplit_once(':').unwrap_or(("", rest));
            let (ip, published) = rest.rsplit_once(':').unwrap_or(("", rest));
            Some(format!("{ip}:{published}:{target}/{protocol}"))
        }
        (Identity::Port, Node::Map(_)) => {
            let of = |key| field(key).unwrap_or_default();
            let protocol = field("protocol").unwrap_or("tcp");
            Some(format!("{}:{}:{}/{protocol}", of("host_ip"), of("published"), field("target")?))
        }
        _ => None,
    }
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Null | Node::Reset => "nothing",
        Node::Text(_) => "a text",
        Node::List(_) => "a list",
        Node::Map(_) => "a map",
        Node::Override(node) => kind(node),
    }
}
