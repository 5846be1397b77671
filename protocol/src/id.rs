//! Identifiers of nodes, clusters, services, slots, instances and volumes.

use std::fmt;
use std::str::FromStr;

use libp2p_identity::{KeyType, PeerId, PublicKey};
use serde::{Deserialize, Serialize};

/// A text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not the peer id of an Ed25519 key.
    #[error("'{0}' is not the peer id of an Ed25519 key")]
    Peer(String),
    /// The text is not a [`Name`].
    #[error(
        "'{0}' is not a name: use 1 to 63 lower-case letters, digits and '-', starting with a letter or a digit"
    )]
    Name(String),
    /// The text is not a [`ServiceKey`].
    #[error("'{0}' is not a service: expected project/service")]
    Service(String),
    /// The text is not a [`VolumeKey`].
    #[error("'{0}' is not a volume: expected project/volume")]
    Volume(String),
    /// The text is not a [`Slot`].
    #[error("'{0}' is not a slot: expected project/service.N")]
    Slot(String),
    /// The text is not an [`InstanceId`].
    #[error("'{0}' is not an instance: expected project/service.N@digest")]
    Instance(String),
}

/// Implements serde through `Display` and `FromStr`, so that the type can be a key of a JSON object.
macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Returns the Ed25519 public key that a libp2p peer id contains (identity multihash).
fn ed25519_key(peer: &PeerId) -> Option<PublicKey> {
    let hash = peer.as_ref();
    (hash.code() == 0)
        .then(|| PublicKey::try_decode_protobuf(hash.digest()).ok())
        .flatten()
        .filter(|key| key.key_type() == KeyType::Ed25519)
}

macro_rules! key_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(PeerId);

        impl $name {
            /// Returns the id of a public key, or an error if it is not an Ed25519 key.
            pub fn of(key: &PublicKey) -> Result<Self, IdError> {
                Self::try_from(key.to_peer_id())
            }

            /// Returns the public key.
            ///
            /// # Panics
            /// Never: the key is checked when the id is constructed.
            #[allow(clippy::expect_used, reason = "checked when the id was made")]
            pub fn public_key(&self) -> PublicKey {
                ed25519_key(&self.0).expect("checked at construction")
            }

            /// Returns the libp2p peer id.
            pub fn peer_id(&self) -> PeerId {
                self.0
            }

            /// Returns the last eight characters, for display and labels.
            pub fn short(&self) -> String {
                let text = self.0.to_base58();
                text[text.len().saturating_sub(8)..].to_owned()
            }
        }

        impl TryFrom<PeerId> for $name {
            type Error = IdError;
            fn try_from(peer: PeerId) -> Result<Self, IdError> {
                match ed25519_key(&peer) {
                    Some(_) => Ok(Self(peer)),
                    None => Err(IdError::Peer(peer.to_base58())),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let peer = text.parse::<PeerId>().map_err(|_| IdError::Peer(text.to_owned()))?;
                Self::try_from(peer)
            }
        }

        as_text!($name);
    };
}

key_id! {
    /// A node of the cluster: the peer id of its Ed25519 key.
    NodeId
}
key_id! {
    /// A cluster: the peer id of its root key, so that the root's signatures can be verified with the id alone.
    ClusterId
}

/// A DNS label: 1 to 63 of `a-z`, `0-9`, `-` and `_`, starting with a letter or a digit (RFC 1123, and the
/// underscore that Compose allows in service names).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let fits = (1..=63).contains(&bytes.len())
            && word(bytes[0])
            && bytes.iter().all(|&b| word(b) || b == b'-' || b == b'_');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Name(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

as_text!(Name);

/// A service of a project: `project/service`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    /// Name of the Compose project.
    pub project: Name,
    /// The service of the project.
    pub service: Name,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.service)
    }
}

impl FromStr for ServiceKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (project, service) =
            text.split_once('/').ok_or_else(|| IdError::Service(text.to_owned()))?;
        Ok(Self { project: project.parse()?, service: service.parse()? })
    }
}

as_text!(ServiceKey);

/// One replica of a service, numbered from 1: `project/service.N`. An instance fills it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The service of which it is a replica.
    pub service: ServiceKey,
    /// Number of the replica, from 1.
    pub replica: u32,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.service, self.replica)
    }
}

impl FromStr for Slot {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Slot(text.to_owned());
        let (service, replica) = text.rsplit_once('.').ok_or_else(bad)?;
        let replica = replica.parse().map_err(|_| bad())?;
        if replica == 0 {
            return Err(bad());
        }
        Ok(Self { service: service.parse()?, replica })
    }
}

as_text!(Slot);

/// A container or process of one spec in one slot: `project/service.N@digest`. The same slot with another spec is another
/// instance.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId {
    /// The slot that it fills.
    pub slot: Slot,
    /// [`ContainerSpec::digest`](crate::spec::ContainerSpec::digest) of its spec.
    pub digest: String,
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.slot, self.digest)
    }
}

impl FromStr for InstanceId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (slot, digest) =
            text.split_once('@').ok_or_else(|| IdError::Instance(text.to_owned()))?;
        Ok(Self { slot: slot.parse()?, digest: digest.to_owned() })
    }
}

as_text!(InstanceId);

/// A named volume of a project: `project/volume`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// Name of the Compose project.
    pub project: Name,
    /// The volume of the project.
    pub volume: Name,
}

impl fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.volume)
    }
}

impl FromStr for VolumeKey {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (project, volume) =
            text.split_once('/').ok_or_else(|| IdError::Volume(text.to_owned()))?;
        Ok(Self { project: project.parse()?, volume: volume.parse()? })
    }
}

as_text!(VolumeKey);

/// A network of a project, or one that projects share. Displayed as `PROJECT/NETWORK` or `NETWORK`. Those of projects come first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkKey {
    /// A network of one project.
    Project(Name, Name),
    /// A network of the cluster.
    Shared(Name),
}

impl fmt::Display for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(project, network) => write!(f, "{project}/{network}"),
            Self::Shared(network) => write!(f, "{network}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_through_text() {
        let key = libp2p_identity::Keypair::ed25519_from_bytes([7; 32]).expect("32 bytes");
        let id = NodeId::of(&key.public()).expect("ed25519");
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert_eq!(id.public_key(), key.public());
        let slot: Slot = "shop/web.12".parse().expect("a slot");
        assert_eq!(slot.to_string(), "shop/web.12");
        let json = serde_json::to_string(&slot).expect("text");
        assert_eq!(serde_json::from_str::<Slot>(&json).expect("back"), slot);
    }

    #[test]
    fn invalid_ids_are_rejected() {
        for bad in ["", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "12D3KooW", "x"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
        for bad in [
            "web",
            "shop/web",
            "shop/web.",
            "shop/web.0",
            "shop/web.-1",
            "Shop/web.1",
            "/web.1",
            "a/b/c.1",
        ] {
            assert!(bad.parse::<Slot>().is_err(), "{bad}");
        }
        for bad in ["", "-a", "a b", "A", "é", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
