//! The rules of what is passed to Docker.

use std::collections::BTreeMap;

use super::{
    HAS_NUL, NOT_A_LINE, at, check, is_alias, is_capability, is_host_address, is_host_name,
    is_line, is_resolver_option, is_search_domain, is_signal, is_target, is_text, texts,
};
use crate::spec::{Blkio, Cgroup, Settings, SpecError};

impl Settings {
    pub(super) fn validate(&self) -> Result<(), SpecError> {
        let hostname = self.hostname.as_ref().is_none_or(|name| is_host_name(name));
        check(hostname, &"settings.hostname", "is not a host name")?;
        let capabilities = [&self.cap_add, &self.cap_drop].into_iter().flatten();
        for capability in capabilities {
            check(
                is_capability(capability),
                &at("settings.cap_add", capability),
                "is no capability",
            )?;
        }
        texts("settings.sysctls", &self.sysctls)?;
        let signal = self.stop_signal.as_ref().is_none_or(|signal| is_signal(signal));
        check(signal, &"settings.stop_signal", "is not a signal")?;
        for device in &self.devices {
            let field = at("settings.devices", device);
            check(is_device(device), &field, "is not HOST:CONTAINER:rwm with absolute paths")?;
        }
        for rule in &self.device_cgroup_rules {
            let field = at("settings.device_cgroup_rules", rule);
            check(is_device_rule(rule), &field, "is not as in 'c 1:3 rwm'")?;
        }
        for request in &self.device_requests {
            let mut words = request.device_ids.iter().chain(&request.capabilities);
            let words =
                words.all(|it| is_line(it)) && request.driver.as_ref().is_none_or(|it| is_line(it));
            check(words, &"settings.device_requests", NOT_A_LINE)?;
            let counted =
                request.count >= -1 && (request.count == 0) != request.device_ids.is_empty();
            check(counted, &"settings.device_requests", "has neither a count nor ids, or both")?;
            texts("settings.device_requests", &request.options)?;
        }
        texts("settings.storage_opt", &self.storage_opt)?;
        texts("settings.annotations", &self.annotations)?;
        texts("settings.log_options", &self.log_options)?;
        for option in self.log_options.keys() {
            let field = at("settings.log_options", option);
            check(LOG_OPTIONS.contains(&option.as_str()), &field, "is not max-size or max-file")?;
        }
        let domain = self.domainname.as_ref().is_none_or(|name| is_alias(name));
        check(domain, &"settings.domainname", "is not a domain name")?;
        self.cgroup.validate()?;
        let groups = self.group_add.iter().all(|group| is_line(group));
        check(groups, &"settings.group_add", NOT_A_LINE)?;
        let options = self.security_opt.iter().all(|option| is_text(option));
        check(options, &"settings.security_opt", HAS_NUL)?;
        for host in &self.extra_hosts {
            let fits = host
                .split_once(':')
                .is_some_and(|(name, address)| is_host_name(name) && is_host_address(address));
            check(fits, &at("settings.extra_hosts", host), "is not NAME:IP")?;
        }
        for domain in &self.dns_search {
            let field = at("settings.dns_search", domain);
            check(is_search_domain(domain), &field, "is not a domain")?;
        }
        for option in &self.dns_opt {
            let field = at("settings.dns_opt", option);
            check(
                is_resolver_option(option),
                &field,
                "is not an option of resolv.conf that may be set",
            )?;
        }
        let runtime = self.runtime.as_ref().is_none_or(|name| is_line(name));
        check(runtime, &"settings.runtime", NOT_A_LINE)?;
        check(self.pids_limit >= 0, &"settings.pids_limit", "is negative")?;
        let swap = self.memory_swap_bytes >= -1;
        check(swap, &"settings.memory_swap_bytes", "is neither an amount nor -1")?;
        for (name, &(soft, hard)) in &self.ulimits {
            let field = at("settings.ulimits", name);
            let named =
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            check(named, &field, "is not the name of a limit")?;
            let range = soft >= -1 && hard >= -1 && (hard == -1 || (soft >= 0 && soft <= hard));
            check(range, &field, "is not a soft limit of at most the hard one, or -1")?;
        }
        Ok(())
    }
}

/// The options of Docker's log driver `json-file` that a spec may have.
pub const LOG_OPTIONS: [&str; 2] = ["max-size", "max-file"];

impl Cgroup {
    fn validate(&self) -> Result<(), SpecError> {
        for (field, text) in [("parent", &self.parent), ("cpuset", &self.cpuset)] {
            let field = format!("settings.cgroup.{field}");
            check(text.as_ref().is_none_or(|text| is_line(text)), &field, NOT_A_LINE)?;
        }
        let swappiness = self.mem_swappiness.is_none_or(|it| it <= 100);
        check(swappiness, &"settings.cgroup.mem_swappiness", "is more than 100")?;
        let score = (-1000..=1000).contains(&self.oom_score_adj);
        check(score, &"settings.cgroup.oom_score_adj", "is not from -1000 to 1000")?;
        let Blkio {
            weight,
            weight_device,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
        } = &self.blkio;
        let mut weights = weight_device.values().chain([weight]);
        let weights = weights.all(|it| *it == 0 || (10..=1000).contains(it));
        check(weights, &"settings.cgroup.blkio", "has a weight that is not from 10 to 1000")?;
        let rates = [device_read_bps, device_write_bps, device_read_iops, device_write_iops];
        let mut devices = weight_device.keys().chain(rates.into_iter().flat_map(BTreeMap::keys));
        let devices = devices.all(|path| is_target(path));
        check(devices, &"settings.cgroup.blkio", "has a device that is not an absolute path")
    }
}

/// Returns whether a text is a rule of the device cgroup: `c 1:3 mr`, with `*` for any number.
pub fn is_device_rule(text: &str) -> bool {
    let number =
        |text: &str| text == "*" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    match text.split(' ').collect::<Vec<_>>()[..] {
        ["a" | "b" | "c", device, access] => {
            let device =
                device.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor));
            device && !access.is_empty() && access.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
        }
        _ => false,
    }
}

fn is_device(text: &str) -> bool {
    let mut parts = text.splitn(3, ':');
    let path = |part: Option<&str>| part.is_none_or(is_target);
    let (host, inside, access) = (parts.next(), parts.next(), parts.next());
    let access = access.is_none_or(|access| {
        !access.is_empty() && access.bytes().all(|b| matches!(b, b'r' | b'w' | b'm'))
    });
    path(host) && path(inside) && access
}
