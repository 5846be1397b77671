//! Devices that a driver of the engine gives a container: GPUs, and those of the Container Device Interface.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_default;

/// The driver of devices of the [Container Device Interface](https://github.com/cncf-tags/container-device-interface).
pub const CDI: &str = "cdi";

/// The capability that stands for any GPU, and the kind of them as a resource.
pub const GPU: &str = "gpu";

/// As many of a resource as the node has, at least one.
pub const ALL: u64 = u64::MAX;

/// A request for devices, which the engine of the node that runs the instance answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// The driver; `None` for the engine's choice by the capabilities.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// How many devices, -1 for all; zero where `device_ids` names them.
    #[serde(skip_serializing_if = "is_default")]
    pub count: i64,
    /// The devices, by the driver's names: `GPU-…`, `nvidia.com/gpu=0`.
    #[serde(skip_serializing_if = "is_default")]
    pub device_ids: Vec<String>,
    /// What the devices must be capable of, all of it: `gpu`.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

impl DeviceRequest {
    /// Returns how many devices of which kind it takes: of the class of each CDI device (`nvidia.com/gpu`), or [`GPU`]; nothing for
    /// other requests. [`ALL`] stands for all that the node has.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, u64)> {
        let is_cdi = self.driver.as_deref() == Some(CDI);
        let named = self.device_ids.iter().filter(move |_| is_cdi).filter_map(|id| {
            let (class, name) = id.split_once('=')?;
            Some((class, if name == "all" { ALL } else { 1 }))
        });
        let count = match self.device_ids.len() {
            0 => u64::try_from(self.count).unwrap_or(ALL),
            ids => ids as u64,
        };
        let is_gpu = !is_cdi && self.capabilities.iter().any(|it| it == GPU);
        named.chain(is_gpu.then_some((GPU, count)))
    }
}

impl std::fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.device_ids.as_slice(), self.count) {
            ([], -1) => f.write_str("all ")?,
            ([], count) => write!(f, "{count} ")?,
            (ids, _) => f.write_str(&ids.join(","))?,
        }
        if self.device_ids.is_empty() {
            f.write_str(&self.capabilities.join("+"))?;
        }
        Ok(())
    }
}
