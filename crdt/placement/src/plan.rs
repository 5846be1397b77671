//! The algorithm. The crate's documentation says why it is this one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::{NodeId, ServiceKey, Slot};

use crate::claims::{self, Kept, Lost};
use crate::decision::{Move, Placement, Plan, Refusal};
use crate::feasibility::{Obstacle, eligible, has_volumes, room};
use crate::input::PlanInput;
use crate::ledger::Account;
use crate::order::{Demand, demands};
use crate::ports;
use crate::reasons;
use crate::rendezvous::{combine, rendezvous};
use crate::score::{Cost, cost};
use crate::volumes::{Tie, Volumes};

/// Decides which node runs which slot. Total: every input has a plan, and no input panics. Equal inputs give equal
/// plans, byte for byte. Time: services times nodes, plus slots times nodes for what nobody claims.
pub fn plan(input: &PlanInput) -> Plan {
    let demands = demands(input);
    let mut accounts = Account::open(input);
    let mut volumes = Volumes::read(input, &demands);
    let claims = claims::judge(input, &demands, &mut accounts, &mut volumes);
    let mut plan = Plan { input_digest: input.digest(), ..Plan::default() };
    for (number, kept) in claims.kept.iter().enumerate() {
        let demand = &demands[number];
        let mut turn = Turn::new(number, &demands, &accounts, &volumes, kept);
        let open: Vec<u32> =
            (1..=demand.replicas).filter(|replica| !kept.contains_key(replica)).collect();
        let chosen = turn.choose(open.len(), &mut accounts, &mut volumes);
        let placed: BTreeMap<u32, usize> = open.iter().copied().zip(chosen).collect();
        for (&replica, &node) in &placed {
            accounts[node].take_ports(demand, replica);
        }
        turn.record(&accounts, &volumes, kept, &placed, &mut plan);
        for node in kept.values().map(|it| it.node).chain(placed.values().copied()) {
            accounts[node].count(demand);
        }
    }
    plan.moves = moves(input, &plan, &accounts, claims.lost);
    plan
}

/// One service's turn.
struct Turn<'t, 'a> {
    demand: &'t Demand<'a>,
    /// Whether each node may run it at all.
    eligible: Vec<bool>,
    /// The services whose place its first slot decides together with its own, since they share volumes.
    companions: Vec<&'t Demand<'a>>,
    /// How many of its replicas each node has.
    replicas: Vec<u32>,
    /// The service's part of a [`weight`](combine).
    hash: u64,
}

impl<'t, 'a> Turn<'t, 'a> {
    fn new(
        number: usize,
        demands: &'t [Demand<'a>],
        accounts: &[Account<'a>],
        volumes: &Volumes<'_>,
        kept: &BTreeMap<u32, Kept>,
    ) -> Self {
        let demand = &demands[number];
        let mut replicas = vec![0; accounts.len()];
        for place in kept.values() {
            replicas[place.node] += 1;
        }
        let may = |account: &Account<'a>| {
            has_volumes(demand, account, volumes).is_ok() && eligible(demand, account).is_ok()
        };
        let mut turn = Self {
            demand,
            eligible: accounts.iter().map(may).collect(),
            companions: Vec::new(),
            replicas,
            hash: rendezvous(&[&demand.key.to_string()]),
        };
        if volumes.tie(demand) == Tie::Free {
            turn.companions = volumes.companions(number).map(|other| &demands[other]).collect();
            for (node, account) in accounts.iter().enumerate() {
                turn.eligible[node] &= turn.left_out(account).is_none();
            }
        }
        turn
    }

    /// The first of the companions that the node may not run.
    fn left_out(&self, account: &Account<'a>) -> Option<&'a ServiceKey> {
        let out = self.companions.iter().find(|other| eligible(other, account).is_err());
        out.map(|other| other.key)
    }

    /// Chooses nodes for up to `count` slots, fewer if no more fit, and sets the reservations aside. The result is
    /// in the order in which the slots take them.
    fn choose(
        &mut self,
        count: usize,
        accounts: &mut [Account<'a>],
        volumes: &mut Volumes<'_>,
    ) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let brings = !self.demand.volumes.is_empty() && volumes.tie(self.demand) == Tie::Free;
            // Where the volume goes all its replicas go: better a node that has room for them.
            let all = if brings { self.cheapest(accounts, count) } else { None };
            let Some(node) = all.or_else(|| self.cheapest(accounts, 1)) else { break };
            volumes.settle(self.demand, accounts[node].id);
            if brings {
                for (number, eligible) in self.eligible.iter_mut().enumerate() {
                    *eligible = number == node;
                }
            }
            accounts[node].promise(self.demand);
            self.replicas[node] += 1;
            chosen.push(node);
        }
        if chosen.len() > 1 {
            chosen.sort_by_cached_key(|&node| (Reverse(self.weight(node, accounts)), node));
        }
        chosen
    }

    /// The node with the lowest cost for one more replica, of those where `count` more fit; between equals, the one
    /// with the highest weight.
    fn cheapest(&self, accounts: &[Account<'a>], count: usize) -> Option<usize> {
        let mut best: Option<(usize, Cost)> = None;
        for (node, account) in accounts.iter().enumerate() {
            // The replica count alone rules most nodes out.
            if best.is_some_and(|(_, lowest)| self.replicas[node] > lowest.replicas)
                || !self.takes(node, account, count)
            {
                continue;
            }
            let cost = cost(self.demand, account, self.replicas[node]);
            let better = match best {
                None => true,
                Some((other, lowest)) if cost == lowest => {
                    self.weight(node, accounts) > self.weight(other, accounts)
                }
                Some((_, lowest)) => cost < lowest,
            };
            if better {
                best = Some((node, cost));
            }
        }
        best.map(|(node, _)| node)
    }

    /// Whether so many more replicas fit. Replicas chosen in this turn have no ports yet, so they are looked at here.
    fn takes(&self, node: usize, account: &Account<'a>, count: usize) -> bool {
        let alone = self.replicas[node] == 0 && count == 1;
        let runtime = account.node.runtime;
        self.eligible[node]
            && room(self.demand, account).is_ok()
            && (count == 1 || account.holds(self.demand, count as u64))
            && (alone || ports::taken(self.demand.ports(), runtime).next().is_none())
    }

    /// Rendezvous weight of service and node.
    fn weight(&self, node: usize, accounts: &[Account<'a>]) -> u64 {
        combine(self.hash, accounts[node].hash)
    }

    /// Writes the places of all slots of the service, and the reasons, into the plan.
    fn record(
        &self,
        accounts: &[Account<'a>],
        volumes: &Volumes<'_>,
        kept: &BTreeMap<u32, Kept>,
        placed: &BTreeMap<u32, usize>,
        plan: &mut Plan,
    ) {
        let slot = |replica| Slot { service: self.demand.key.clone(), replica };
        let others: Vec<Option<Cost>> = accounts
            .iter()
            .enumerate()
            .map(|(node, account)| {
                self.takes(node, account, 1)
                    .then(|| cost(self.demand, account, self.replicas[node]))
            })
            .collect();
        let mut known: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let stays = kept.iter().map(|(&replica, place)| {
            let why = match place.from {
                None => reasons::KEEPS.to_owned(),
                Some(from) => format!("was told to move here from {}", accounts[from].node.name),
            };
            (replica, place.node, Some(why))
        });
        let comes = placed.iter().map(|(&replica, &node)| (replica, node, None));
        for (replica, node, first) in stays.chain(comes) {
            let compared = known.entry(node).or_insert_with(|| {
                if let Tie::To(volume, home) = volumes.tie(self.demand) {
                    let has = if home.held { "holds the data of" } else { "is the place of" };
                    return vec![format!("{has} volume {volume}")];
                }
                reasons::compare(
                    self.demand,
                    accounts,
                    node,
                    self.replicas[node].saturating_sub(1),
                    &others,
                )
            });
            let reasons = first.into_iter().chain(compared.iter().cloned()).collect();
            plan.placements.insert(slot(replica), Placement { node: accounts[node].id, reasons });
        }
        let mut refusals: Option<Vec<Refusal>> = None;
        for replica in
            (1..=self.demand.replicas).filter(|r| !kept.contains_key(r) && !placed.contains_key(r))
        {
            let refusals = refusals.get_or_insert_with(|| self.refusals(accounts, volumes));
            plan.unplaced.insert(slot(replica), refusals.clone());
        }
    }

    /// Why each node cannot take one more replica.
    fn refusals(&self, accounts: &[Account<'a>], volumes: &Volumes<'_>) -> Vec<Refusal> {
        let refuse = |account: &Account<'a>| {
            let bar = || match self.left_out(account) {
                Some(service) => Err(Obstacle::Companion { service }),
                None => Ok(()),
            };
            let obstacle = has_volumes(self.demand, account, volumes)
                .and_then(|()| eligible(self.demand, account))
                .and_then(|()| bar())
                .and_then(|()| room(self.demand, account))
                .err()?;
            let reason = match volumes.held_by(self.demand, account.id) {
                Some(volume) if !matches!(obstacle, Obstacle::Torn { .. }) => {
                    format!("{obstacle} (it holds the data of volume {volume})")
                }
                _ => obstacle.to_string(),
            };
            Some(Refusal { node: account.id, reason })
        };
        accounts.iter().filter_map(refuse).collect()
    }
}

/// How the plan differs from the claims.
fn moves(
    input: &PlanInput,
    plan: &Plan,
    accounts: &[Account<'_>],
    lost: Vec<Lost<'_>>,
) -> Vec<Move> {
    let claims = |node: NodeId, slot| {
        input.nodes.get(&node).is_some_and(|node| node.claims.contains_key(slot))
    };
    let mut moves = Vec::new();
    for Lost { slot, node, why } in lost {
        let account = &accounts[node];
        let to = plan.placements.get(slot).map(|placement| placement.node);
        // Nobody can act on the claim of a node that is down, unless the slot needs a successor.
        let settled = match to {
            Some(successor) => claims(successor, slot),
            None => !plan.unplaced.contains_key(slot),
        };
        if account.node.up || !settled {
            moves.push(Move { slot: slot.clone(), from: Some(account.id), to, reason: why });
        }
    }
    let moved: BTreeSet<Slot> = moves.iter().map(|it| it.slot.clone()).collect();
    for (slot, placement) in &plan.placements {
        if !moved.contains(slot) && !claims(placement.node, slot) {
            let (to, reason) = (Some(placement.node), "nobody claims it".to_owned());
            moves.push(Move { slot: slot.clone(), from: None, to, reason });
        }
    }
    moves.sort_by(|a, b| (&a.slot, a.from).cmp(&(&b.slot, b.from)));
    moves
}
