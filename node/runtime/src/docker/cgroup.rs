//! What limits a container beside CPUs and memory, and what it shares with its host: as Docker's API has it.

use std::collections::BTreeMap;

use bollard::models::{
    DeviceRequest, HostConfig, HostConfigCgroupnsModeEnum, ResourcesBlkioWeightDevice,
    ThrottleDevice,
};
use vc_protocol::spec::{CgroupNamespace, Settings};

use super::units::to_i64;

/// Docker's word for a namespace of the host.
const HOST: &str = "host";

/// Returns the request with these settings.
pub(super) fn with(config: HostConfig, settings: &Settings) -> HostConfig {
    let cgroup = &settings.cgroup;
    let some = |number: i64| (number != 0).then_some(number);
    let host = |is_host: bool| is_host.then(|| HOST.to_owned());
    let namespaces = settings.namespaces;
    let blkio = &cgroup.blkio;
    let weights = blkio.weight_device.iter().map(|(path, weight)| ResourcesBlkioWeightDevice {
        path: Some(path.clone()),
        weight: Some((*weight).into()),
    });
    let requests = settings.device_requests.iter().map(|it| DeviceRequest {
        driver: it.driver.clone(),
        count: some(it.count),
        device_ids: (!it.device_ids.is_empty()).then(|| it.device_ids.clone()),
        capabilities: (!it.capabilities.is_empty()).then(|| vec![it.capabilities.clone()]),
        options: Some(it.options.clone().into_iter().collect()),
    });
    HostConfig {
        cgroup_parent: cgroup.parent.clone(),
        cpu_shares: some(cgroup.cpu_shares),
        cpu_quota: some(cgroup.cpu_quota),
        cpu_period: some(cgroup.cpu_period),
        cpu_realtime_runtime: some(cgroup.cpu_rt_runtime),
        cpu_realtime_period: some(cgroup.cpu_rt_period),
        cpuset_cpus: cgroup.cpuset.clone(),
        memory_swappiness: cgroup.mem_swappiness.map(i64::from),
        oom_kill_disable: cgroup.oom_kill_disable.then_some(true),
        oom_score_adj: some(cgroup.oom_score_adj.into()),
        blkio_weight: (blkio.weight > 0).then_some(blkio.weight),
        blkio_weight_device: (!blkio.weight_device.is_empty()).then(|| weights.collect()),
        blkio_device_read_bps: throttle(&blkio.device_read_bps),
        blkio_device_write_bps: throttle(&blkio.device_write_bps),
        blkio_device_read_iops: throttle(&blkio.device_read_iops),
        blkio_device_write_iops: throttle(&blkio.device_write_iops),
        device_cgroup_rules: (!settings.device_cgroup_rules.is_empty())
            .then(|| settings.device_cgroup_rules.clone()),
        device_requests: (!settings.device_requests.is_empty()).then(|| requests.collect()),
        storage_opt: some_map(&settings.storage_opt),
        annotations: some_map(&settings.annotations),
        pid_mode: host(namespaces.host_pid),
        uts_mode: host(namespaces.host_uts),
        userns_mode: host(namespaces.host_users),
        ipc_mode: namespaces.ipc.map(|ipc| ipc.as_str().to_owned()),
        cgroupns_mode: namespaces.cgroup.map(|cgroup| match cgroup {
            CgroupNamespace::Host => HostConfigCgroupnsModeEnum::HOST,
            CgroupNamespace::Private => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        ..config
    }
}

fn some_map<M: FromIterator<(String, String)>>(map: &BTreeMap<String, String>) -> Option<M> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}

fn throttle(rates: &BTreeMap<String, u64>) -> Option<Vec<ThrottleDevice>> {
    let device = |(path, rate): (&String, &u64)| ThrottleDevice {
        path: Some(path.clone()),
        rate: Some(to_i64(*rate)),
    };
    (!rates.is_empty()).then(|| rates.iter().map(device).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn nothing_is_set_that_a_spec_does_not_say() {
        let config = with(HostConfig::default(), &Settings::default());
        assert_eq!(config, HostConfig::default());
    }

    #[test]
    fn settings_are_passed_on_in_the_terms_of_docker() {
        let settings: Settings = serde_json::from_str(
            r#"{"cgroup": {"parent": "/x", "cpu_quota": 5, "cpuset": "0-1", "mem_swappiness": 0, "oom_score_adj": -5,
                "blkio": {"weight": 300, "device_read_bps": {"/dev/sda": 1024}}},
                "namespaces": {"host_pid": true, "ipc": "shareable", "cgroup": "private"},
                "device_requests": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu", "utility"]}]}"#,
        )
        .expect("settings");
        let config = with(HostConfig::default(), &settings);
        let json = serde_json::to_value(&config).expect("JSON");
        let sent: BTreeMap<&str, &serde_json::Value> = json
            .as_object()
            .expect("an object")
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.as_str(), value))
            .collect();
        let expected = serde_json::json!({
            "CgroupParent": "/x", "CpuQuota": 5, "CpusetCpus": "0-1", "MemorySwappiness": 0, "OomScoreAdj": -5,
            "BlkioWeight": 300, "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 1024}],
            "PidMode": "host", "IpcMode": "shareable", "CgroupnsMode": "private",
            "DeviceRequests": [{"Driver": "nvidia", "Count": 1, "Capabilities": [["gpu", "utility"]], "Options": {}}],
        });
        assert_eq!(serde_json::to_value(sent).expect("JSON"), expected);
    }
}
