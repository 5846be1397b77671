//! Where the data of a volume is on this node.

use std::path::PathBuf;

use vc_protocol::volume::{DriverOptions, Origin, VolumeSpec};
use vc_protocol::{NodeId, VolumeKey};

/// Returns where the data of a volume is on this node, as its declaration says.
pub type FindVolume = dyn Fn(&VolumeKey) -> VolumePlace + Send + Sync;

/// Where the data of a volume is on this node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum VolumePlace {
    /// In a volume of Docker's.
    #[default]
    Volume,
    /// In a volume of Docker's that is a mounted network file system.
    Mounted(DriverOptions),
    /// In a directory of the host, which containers get as a bind mount.
    Directory(PathBuf),
}

impl VolumePlace {
    /// Returns where the data of a volume is on a node.
    pub fn on(node: NodeId, spec: &VolumeSpec) -> Self {
        match (&spec.driver, &spec.origin) {
            (Some(driver), _) => Self::Mounted(driver.clone()),
            (None, Some(Origin::Directory { path, node: Some(at), .. })) if *at == node => {
                Self::Directory(PathBuf::from(path))
            }
            _ => Self::Volume,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_in_place_by_the_node_that_has_it_and_by_no_other() {
        let node = |byte| {
            let key = vc_protocol::Keypair::ed25519_from_bytes([byte; 32]).expect("32 bytes");
            NodeId::of(&key.public()).expect("ed25519")
        };
        let path = "/srv/app".to_owned();
        let at = |node| VolumeSpec {
            origin: Some(Origin::Directory { path: path.clone(), node, must_exist: false }),
            ..VolumeSpec::default()
        };
        let here = at(Some(node(1)));
        assert_eq!(VolumePlace::on(node(1), &here), VolumePlace::Directory("/srv/app".into()));
        assert_eq!(VolumePlace::on(node(2), &here), VolumePlace::Volume);
        assert_eq!(VolumePlace::on(node(1), &at(None)), VolumePlace::Volume);
        let driver = DriverOptions { kind: "nfs".to_owned(), ..DriverOptions::default() };
        let mounted = VolumeSpec { driver: Some(driver.clone()), ..here };
        assert_eq!(VolumePlace::on(node(1), &mounted), VolumePlace::Mounted(driver));
    }
}
