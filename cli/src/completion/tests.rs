use super::*;

/// Value names that are no names of the cluster. A new one is added here, or to [`Names::of`].
const OTHERS: &[&str] = &[
    "ADDRESS",
    "COMMAND",
    "DIR",
    "DIRECTORY",
    "DOCKER_VOLUME",
    "DURATION",
    "FILE",
    "FORMAT",
    "ID",
    "KEY=VALUE",
    "KEY[=VALUE]",
    "KIND",
    "LEVEL",
    "LOCAL_IMAGE",
    "MULTIADDR",
    "N",
    "NAME",
    "NEW",
    "PRIVILEGE",
    "REMOVED",
    "ROLE",
    "RUN",
    "SEVERITY",
    "SHELL",
    "TIME",
    "s3://…",
    "UID[:GID]",
    "URL",
    "VERSION",
    "/PATH",
];

/// Calls `each` with every argument that takes a value, and its command.
fn arguments(command: &clap::Command, path: &str, each: &mut impl FnMut(&str, &clap::Arg)) {
    for arg in
        command.get_arguments().filter(|arg| arg.get_num_args().is_some_and(|n| n.takes_values()))
    {
        each(path, arg);
    }
    for sub in command.get_subcommands() {
        arguments(sub, &format!("{path} {}", sub.get_name()), each);
    }
}

#[test]
fn every_argument_says_by_the_name_of_its_value_what_completes_it() {
    arguments(&built(), "vc", &mut |path, arg| {
        let names = arg.get_value_names().unwrap_or_default();
        assert!(!names.is_empty(), "{path} {}", arg.get_id());
        for part in names.iter().flat_map(|name| name.split('|')) {
            assert!(
                Names::of(part).is_some() != OTHERS.contains(&part),
                "{path}: {part} of {} is neither in Names::of nor in OTHERS",
                arg.get_id()
            );
        }
    });
}

#[test]
fn arguments_that_name_what_the_cluster_has_are_completed() {
    let mut all = std::collections::BTreeMap::new();
    arguments(&built(), "vc", &mut |path, arg| {
        if let Some(words) = Words::of(arg).filter(|words| !words.names.is_empty()) {
            all.insert(format!("{path} {}", arg.get_id()), words.names);
        }
    });
    let services = Names::Services { after: "" };
    let instances = Names::Instances { after: "" };
    let volumes = Names::Volumes { after: "" };
    for (argument, names) in [
        ("vc drain node", vec![Names::Nodes]),
        ("vc voters force nodes", vec![Names::Nodes]),
        ("vc volume move to", vec![Names::Nodes]),
        ("vc node adopt node", vec![Names::FormerNodes]),
        ("vc inspect service", vec![services]),
        ("vc run target", vec![services, Names::Images]),
        ("vc export names", vec![Names::Projects, services]),
        ("vc logs target", vec![instances]),
        ("vc job stop service", vec![Names::Jobs]),
        ("vc volume rm volumes", vec![volumes]),
        ("vc backup volumes", vec![volumes]),
        ("vc deploy upload", vec![volumes]),
        ("vc image rm images", vec![Names::Images]),
        ("vc notify test name", vec![Names::Receivers]),
        ("vc token revoke tokens", vec![Names::Tokens]),
        ("vc audit user", vec![Names::Users]),
        ("vc project deny project", vec![Names::Projects]),
    ] {
        assert_eq!(all.get(argument), Some(&names), "{argument}");
    }
    for other in
        ["vc image push images", "vc volume import volume", "vc notify add name", "vc exec user"]
    {
        assert!(!all.contains_key(other), "{other}");
    }
}

#[test]
fn the_global_options_of_an_incomplete_line_are_used() {
    let given = |line: &str| {
        let global = global_options(line.split(' ').map(OsString::from));
        (global.token, global.peers.iter().map(|list| list.0.len()).sum::<usize>())
    };
    let both = (Some("t".to_owned()), 1);
    for line in [
        "vc --token t --peer 10.0.0.1 drain ",
        "vc drain --token t --peer=10.0.0.1 at",
        "vc scale web --token t --peer 10.0.0.1 db",
        "vc --token t --peer 10.0.0.1 image rm",
        "vc --token t --peer 10.0.0.1 frobnicate x",
        "vc exec --token t --peer 10.0.0.1 web -- ls --token x",
    ] {
        assert_eq!(given(line), both, "{line}");
    }
}

#[test]
fn options_are_offered_where_there_are_no_names() {
    // No cluster is asked: neither is for 'vc voters ls'.
    let app = Arc::new(App::new(Global::default()));
    let offered = |words: &[&str]| {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let last = words.len() - 1;
        let mut command = with_names(built(), &app);
        let found =
            clap_complete::engine::complete(&mut command, words, last, None).expect("completed");
        found.iter().map(|it| it.get_value().to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(offered(&["vc", "vol"]), ["volume"]);
    assert_eq!(offered(&["vc", "ps", "--out"]), ["--output"]);
    assert_eq!(offered(&["vc", "ps", "--output", ""]), ["table", "json"]);
    assert!(offered(&["vc", ""]).iter().all(|word| !word.starts_with('-')));
}
