//! Which instance a user means: `web`, `shop/web`, and of one replica `web.2`.

use std::str::FromStr;

/// A service, and perhaps one of its replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As it was written: web, or shop/web.
    pub(crate) service: String,
    /// Which replica, from 1.
    replica: Option<u32>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("'{text}' is not an instance: write web, shop/web or web.2");
        let (service, replica) = match text.rsplit_once('.') {
            None => (text, None),
            Some((service, number)) => {
                let replica = number.parse().ok().filter(|&number| number > 0).ok_or_else(bad)?;
                (service, Some(replica))
            }
        };
        if service.is_empty() || service.contains('.') {
            return Err(bad());
        }
        Ok(Self { service: service.to_owned(), replica })
    }
}

impl Target {
    /// The replica, that may also be given beside it. Errors: two different ones.
    pub(crate) fn replica_or(&self, given: Option<u32>) -> anyhow::Result<Option<u32>> {
        match (self.replica, given) {
            (Some(one), Some(other)) if one != other => {
                anyhow::bail!("replica {one} or {other}? Name one")
            }
            (one, other) => Ok(one.or(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_a_service_and_perhaps_a_replica() {
        let target = |service: &str, replica| Ok(Target { service: service.to_owned(), replica });
        assert_eq!("web".parse(), target("web", None));
        assert_eq!("shop/web.12".parse(), target("shop/web", Some(12)));
        for bad in ["", ".1", "web.", "web.0", "web.x", "web.1.2", "web.-1"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
        let named: Target = "web.2".parse().expect("an instance");
        assert_eq!(named.replica_or(Some(2)).expect("the same"), Some(2));
        assert!(named.replica_or(Some(3)).is_err());
    }
}
