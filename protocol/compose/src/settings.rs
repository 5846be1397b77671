//! Docker settings of a container, under Compose's names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::deploy::Deploy;
use super::environment::pairs;
use super::problem::Problem;
use super::walk::{At, Fields};
use super::yaml::Node;
use super::{devices, limits, logging, namespaces};
use vc_protocol::parse_memory;
use vc_protocol::spec::Settings;
use vc_protocol::spec::validate::{
    is_alias, is_capability, is_host_address, is_host_name, is_resolver_option, is_search_domain,
    is_signal,
};

/// Takes the settings from a service; some are in its `deploy`.
pub(super) fn take(service: &mut Fields<'_>, deploy: &Deploy) -> Settings {
    let mut devices = devices::take(service);
    devices.requests.extend(deploy.devices.clone());
    let mut texts = |key, parse: fn(&str) -> Result<String, Problem>| -> Vec<String> {
        let items = service.take(key).map(|at| at.items()).unwrap_or_default();
        items.iter().filter_map(|item| item.read(parse)).collect()
    };
    let (cap_add, cap_drop) = (texts("cap_add", capability), texts("cap_drop", capability));
    let group_add = texts("group_add", |text| Ok(text.to_owned()));
    let security_opt = texts("security_opt", security_option);

    let mut several = |key, parse: fn(&str) -> Result<String, Problem>| -> Vec<String> {
        let items = service.take(key).map(|at| at.one_or_many()).unwrap_or_default();
        items.iter().filter_map(|item| item.read(parse)).collect()
    };
    let dns_search = several("dns_search", search_domain);
    let dns_opt = several("dns_opt", resolver_option);
    let servers = service.take("dns").map(|at| at.one_or_many()).unwrap_or_default();
    let dns = servers.iter().filter_map(|item| item.read(dns_server)).collect();

    let mut flag = |key| service.take(key).and_then(|at| at.bool()).unwrap_or_default();
    let [init, read_only, privileged, tty, stdin_open] =
        ["init", "read_only", "privileged", "tty", "stdin_open"].map(&mut flag);

    let shm = service.take("shm_size").and_then(|at| at.read(parse_memory));
    let runtime = service.take("runtime").and_then(|at| at.text()).map(str::to_owned);
    let swap = service.take("memswap_limit").and_then(|at| at.read(swap_limit));
    Settings {
        hostname: service.take("hostname").and_then(|at| at.read(hostname)),
        cap_add,
        cap_drop,
        sysctls: service.take("sysctls").map(|at| sysctls(&at)).unwrap_or_default(),
        stop_signal: service.take("stop_signal").and_then(|at| at.read(signal)),
        init,
        read_only,
        privileged,
        devices: devices.paths,
        device_cgroup_rules: devices.rules,
        device_requests: devices.requests,
        cgroup: limits::take(service),
        namespaces: namespaces::take(service),
        storage_opt: texts_of(service.take("storage_opt")),
        annotations: texts_of(service.take("annotations")),
        domainname: service.take("domainname").and_then(|at| at.read(domain)),
        log_options: service.take("logging").map(|at| logging::read(&at)).unwrap_or_default(),
        group_add,
        security_opt,
        extra_hosts: service.take("extra_hosts").map(|at| extra_hosts(&at)).unwrap_or_default(),
        dns,
        dns_search,
        dns_opt,
        ulimits: service.take("ulimits").map(|at| ulimits(&at)).unwrap_or_default(),
        shm_bytes: shm.unwrap_or_default(),
        pids_limit: deploy.pids,
        memory_swap_bytes: swap.unwrap_or_default(),
        runtime,
        tty,
        stdin_open,
    }
}

/// Reads a map of texts.
fn texts_of(at: Option<At<'_>>) -> BTreeMap<String, String> {
    let pairs = at.map(|at| pairs(&at)).unwrap_or_default();
    pairs.into_iter().map(|(key, value, _)| (key, value.unwrap_or_default())).collect()
}

fn domain(text: &str) -> Result<String, Problem> {
    is_alias(text).then(|| text.to_owned()).ok_or_else(|| {
        Problem::new(format!("'{text}' is not a domain: write one as in example.com"))
    })
}

/// Parses an amount of memory, or -1 for no limit.
fn swap_limit(text: &str) -> Result<i64, Problem> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes = parse_memory(text).map_err(|why| Problem::new(why.to_string()))?;
    i64::try_from(bytes).map_err(|_| Problem::new(format!("'{text}' is too much")))
}

fn hostname(text: &str) -> Result<String, Problem> {
    is_host_name(text).then(|| text.to_owned()).ok_or_else(|| {
        Problem::new(format!(
            "'{text}' is not a host name: use at most 63 letters, digits, '-', '_' and '.'"
        ))
    })
}

fn dns_server(text: &str) -> Result<IpAddr, Problem> {
    text.parse().map_err(|_| {
        Problem::new(format!("'{text}' is not an IP address: write that of a DNS server"))
    })
}

fn search_domain(text: &str) -> Result<String, Problem> {
    is_search_domain(text).then(|| text.to_owned()).ok_or_else(|| {
        Problem::new(format!("'{text}' is not a domain: write one as in example.com"))
    })
}

fn resolver_option(text: &str) -> Result<String, Problem> {
    is_resolver_option(text).then(|| text.to_owned()).ok_or_else(|| {
        Problem::new(format!(
            "'{text}' cannot be set: write an option of resolv.conf as in timeout:2; ndots is 0, so that services are found"
        ))
    })
}

fn capability(text: &str) -> Result<String, Problem> {
    is_capability(text).then(|| text.to_owned()).ok_or_else(|| {
        Problem::new(format!("'{text}' is not a capability: write one as in NET_ADMIN"))
    })
}

fn signal(text: &str) -> Result<String, Problem> {
    is_signal(text)
        .then(|| text.to_owned())
        .ok_or_else(|| Problem::new(format!("'{text}' is not a signal: write one as in SIGINT")))
}

/// Parses `KEY=VALUE`, or the older `KEY:VALUE`.
fn security_option(text: &str) -> Result<String, Problem> {
    let option = if text.contains('=') { text.to_owned() } else { text.replacen(':', "=", 1) };
    match option.split_once('=') {
        Some(("seccomp", profile)) if !matches!(profile, "unconfined" | "builtin") => {
            Err(Problem::new(format!(
                "the profile in '{text}' is not supported: write seccomp=unconfined or leave it out"
            )))
        }
        _ => Ok(option),
    }
}

fn sysctls(at: &At<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (key, value, at) in pairs(at) {
        match value {
            Some(value) => drop(found.insert(key, value)),
            None => at.refuse("has no value: write net.core.somaxconn=1024"),
        }
    }
    found
}

/// Reads hosts from a list or a map into `NAME:IP`.
pub(super) fn extra_hosts(at: &At<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let mut add = |name: &str, address: &str, at: &At<'_>| {
        let (name, address) = (name.trim(), address.trim());
        let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(address);
        if let Err(why) = hostname(name) {
            at.invalid(why);
        } else if is_host_address(bare) {
            found.push(format!("{name}:{bare}"));
        } else {
            at.invalid(format!("'{address}' is not an IP address"));
        }
    };
    if let Node::List(_) = at.node {
        for item in at.items() {
            let Some(text) = item.text() else { continue };
            match text.split_once('=').or_else(|| text.split_once(':')) {
                Some((name, addresses)) => {
                    addresses.split(',').for_each(|address| add(name, address, &item));
                }
                None => item.invalid(format!("'{text}' has no address: write name=address")),
            }
        }
    } else {
        for (name, at) in at.entries() {
            for item in at.one_or_many() {
                if let Some(address) = item.text() {
                    add(name, address, &item);
                }
            }
        }
    }
    found
}

/// Reads the soft and hard limit by name; a single number is both.
pub(super) fn ulimits(at: &At<'_>) -> BTreeMap<String, (i64, i64)> {
    let mut found = BTreeMap::new();
    for (name, at) in at.entries() {
        let limits = if let Node::Map(_) = at.node {
            let mut fields = at.fields();
            let (soft, hard) = (fields.take("soft"), fields.take("hard"));
            fields.finish(&[]);
            if soft.is_none() || hard.is_none() {
                at.refuse("needs soft and hard");
            }
            soft.and_then(|at| at.number()).zip(hard.and_then(|at| at.number()))
        } else {
            at.number().map(|limit: i64| (limit, limit))
        };
        if let Some((soft, hard)) = limits {
            if soft < -1 || hard < -1 || (hard >= 0 && (soft > hard || soft == -1)) {
                at.refuse("must be numbers, soft at most hard, or -1 for no limit");
            }
            found.insert(name.to_owned(), (soft, hard));
        }
    }
    found
}
