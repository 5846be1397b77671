//! Whether the rules that Docker has set with iptables are still there: without them containers reach nothing outside, and Docker sets
//! them again only when it starts.

use crate::iptables::iptables;

/// The built-in chains that lead to Docker's, with their tables.
const CHAINS: [(&str, &str); 2] = [("nat", "PREROUTING"), ("filter", "FORWARD")];

/// How many questions are answered without a look, while the rules are there.
const SKIPPED: u32 = 2;
/// After how many looks in which they are missing they are gone.
const LOOKS: u32 = 2;

/// The rules of the engine of this host. An engine that sets none with iptables, or not these, is never said to lack them.
#[derive(Debug, Default)]
pub(crate) struct EngineRules {
    were_there: bool,
    /// In how many looks in a row they were missing.
    missing: u32,
    skips: u32,
}

impl EngineRules {
    /// Returns whether the rules were there once and are gone: in two looks in a row, as a firewall that is reloaded has none for a
    /// moment. Where they cannot be read, it is as before.
    pub(crate) async fn are_gone(&mut self) -> bool {
        if self.skips > 0 {
            self.skips -= 1;
        } else {
            match are_there().await {
                Some(true) => (self.were_there, self.missing) = (true, 0),
                Some(false) if self.were_there => self.missing = self.missing.saturating_add(1),
                Some(false) | None => {}
            }
            self.skips = if self.missing == 0 { SKIPPED } else { 0 };
        }
        self.missing >= LOOKS
    }
}

/// Returns whether the rules are there; `None` where they cannot be read.
async fn are_there() -> Option<bool> {
    let mut are_there = true;
    for (table, chain) in CHAINS {
        are_there &= leads_to_docker(&iptables(table, &["-S", chain]).await.ok()?);
    }
    Some(are_there)
}

/// Returns whether a listed chain has a rule that jumps to a chain of Docker.
fn leads_to_docker(rules: &str) -> bool {
    let mut targets = rules.lines().filter_map(|rule| rule.split_once(" -j ")?.1.split(' ').next());
    // That is people's own: it stays while Docker's are gone.
    targets.any(|it| it.starts_with("DOCKER") && it != "DOCKER-USER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_docker_20_and_28_are_found_and_flushed_ones_are_not() {
        let nat = "-P PREROUTING ACCEPT\n-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER\n";
        let v20 =
            "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-ISOLATION-STAGE-1\n";
        let v28 = "-P FORWARD ACCEPT\n-A FORWARD -j DOCKER-USER\n-A FORWARD -j DOCKER-FORWARD\n";
        assert!([nat, v20, v28].into_iter().all(leads_to_docker));
        let flushed = "-P FORWARD DROP\n";
        let of_people =
            "-P FORWARD ACCEPT\n-A FORWARD -j DOCKER-USER\n-A FORWARD -i eth0 -j ACCEPT\n";
        assert!(![flushed, of_people, "-P PREROUTING ACCEPT\n"].into_iter().any(leads_to_docker));
    }
}
