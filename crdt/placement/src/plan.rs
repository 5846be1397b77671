//! The algorithm. The crate's documentation says why it is this one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use vc_protocol::{NodeId, Slot};

use crate::claims::{self, Lost};
use crate::decision::{Move, Placement, Plan, Refusal};
use crate::feasibility::{Obstacle, eligible, room};
use crate::input::PlanInput;
use crate::ledger::Account;
use crate::order::{Demand, demands};
use crate::ports;
use crate::reasons;
use crate::rendezvous::{combine, rendezvous};
use crate::score::{Cost, cost};

/// Decides which machine runs which slot. Total: every input has a plan, and no input panics. Equal inputs give equal
/// plans, byte for byte. Time: services times machines, plus slots times machines for what nobody claims.
pub fn plan(input: &PlanInput) -> Plan {
    let demands = demands(input);
    let mut accounts = Account::open(input);
    let claims = claims::judge(&demands, &mut accounts);
    let mut plan = Plan { input_digest: input.digest(), ..Plan::default() };
    for (demand, kept) in demands.iter().zip(&claims.kept) {
        let mut turn = Turn::new(demand, &accounts, kept);
        let open: Vec<u32> =
            (1..=demand.replicas).filter(|replica| !kept.contains_key(replica)).collect();
        let chosen = turn.choose(open.len(), &mut accounts);
        let placed: BTreeMap<u32, usize> = open.iter().copied().zip(chosen).collect();
        for (&replica, &machine) in &placed {
            accounts[machine].take_ports(demand, replica);
        }
        turn.record(&accounts, kept, &placed, &mut plan);
        for &machine in kept.values().chain(placed.values()) {
            accounts[machine].count(demand);
        }
    }
    plan.moves = moves(input, &plan, &accounts, claims.lost);
    plan
}

/// One service's turn.
struct Turn<'t, 'a> {
    demand: &'t Demand<'a>,
    /// Whether each machine may run it at all.
    eligible: Vec<bool>,
    /// How many of its replicas each machine has.
    replicas: Vec<u32>,
    /// The service's part of a [`weight`](combine).
    hash: u64,
}

impl<'t, 'a> Turn<'t, 'a> {
    fn new(demand: &'t Demand<'a>, accounts: &[Account<'a>], kept: &BTreeMap<u32, usize>) -> Self {
        let mut replicas = vec![0; accounts.len()];
        for &machine in kept.values() {
            replicas[machine] += 1;
        }
        let eligible = accounts.iter().map(|account| eligible(demand, account).is_ok()).collect();
        Self { demand, eligible, replicas, hash: rendezvous(&[&demand.key.to_string()]) }
    }

    /// Chooses machines for up to `count` slots, fewer if no more fit, and sets the reservations aside. The result is
    /// in the order in which the slots take them.
    fn choose(&mut self, count: usize, accounts: &mut [Account<'a>]) -> Vec<usize> {
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count {
            let Some(machine) = self.cheapest(accounts) else { break };
            accounts[machine].promise(self.demand);
            self.replicas[machine] += 1;
            chosen.push(machine);
        }
        if chosen.len() > 1 {
            chosen
                .sort_by_cached_key(|&machine| (Reverse(self.weight(machine, accounts)), machine));
        }
        chosen
    }

    /// The machine with the lowest cost for one more replica; between equals, the one with the highest weight.
    fn cheapest(&self, accounts: &[Account<'a>]) -> Option<usize> {
        let mut best: Option<(usize, Cost)> = None;
        for (machine, account) in accounts.iter().enumerate() {
            // The replica count alone rules most machines out.
            if best.is_some_and(|(_, lowest)| self.replicas[machine] > lowest.replicas)
                || !self.takes_one_more(machine, account)
            {
                continue;
            }
            let cost = cost(self.demand, account, self.replicas[machine]);
            let better = match best {
                None => true,
                Some((other, lowest)) if cost == lowest => {
                    self.weight(machine, accounts) > self.weight(other, accounts)
                }
                Some((_, lowest)) => cost < lowest,
            };
            if better {
                best = Some((machine, cost));
            }
        }
        best.map(|(machine, _)| machine)
    }

    /// Whether one more replica fits. Replicas chosen in this turn have no ports yet, so they are looked at here.
    fn takes_one_more(&self, machine: usize, account: &Account<'a>) -> bool {
        self.eligible[machine]
            && room(self.demand, account).is_ok()
            && (self.replicas[machine] == 0 || ports::taken(self.demand.ports()).next().is_none())
    }

    /// Rendezvous weight of service and machine.
    fn weight(&self, machine: usize, accounts: &[Account<'a>]) -> u64 {
        combine(self.hash, accounts[machine].hash)
    }

    /// Writes the places of all slots of the service, and the reasons, into the plan.
    fn record(
        &self,
        accounts: &[Account<'a>],
        kept: &BTreeMap<u32, usize>,
        placed: &BTreeMap<u32, usize>,
        plan: &mut Plan,
    ) {
        let slot = |replica| Slot { service: self.demand.key.clone(), replica };
        let others: Vec<Option<Cost>> = accounts
            .iter()
            .enumerate()
            .map(|(machine, account)| {
                self.takes_one_more(machine, account)
                    .then(|| cost(self.demand, account, self.replicas[machine]))
            })
            .collect();
        let mut known: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (&replica, &machine) in kept.iter().chain(placed) {
            let compared = known.entry(machine).or_insert_with(|| {
                reasons::compare(
                    self.demand,
                    accounts,
                    machine,
                    self.replicas[machine].saturating_sub(1),
                    &others,
                )
            });
            let keeps = kept.contains_key(&replica).then(|| reasons::KEEPS.to_owned());
            let reasons = keeps.into_iter().chain(compared.iter().cloned()).collect();
            plan.placements
                .insert(slot(replica), Placement { node: accounts[machine].id, reasons });
        }
        let mut refusals: Option<Vec<Refusal>> = None;
        for replica in
            (1..=self.demand.replicas).filter(|r| !kept.contains_key(r) && !placed.contains_key(r))
        {
            let refusals = refusals.get_or_insert_with(|| self.refusals(accounts));
            plan.unplaced.insert(slot(replica), refusals.clone());
        }
    }

    /// Why each machine cannot take one more replica.
    fn refusals(&self, accounts: &[Account<'a>]) -> Vec<Refusal> {
        let obstacle = |account| -> Option<Obstacle<'_>> {
            eligible(self.demand, account).err().or_else(|| room(self.demand, account).err())
        };
        let refuse = |account: &Account<'_>, why: Obstacle<'_>| Refusal {
            node: account.id,
            reason: why.to_string(),
        };
        accounts.iter().filter_map(|account| Some(refuse(account, obstacle(account)?))).collect()
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
        input.nodes.get(&node).is_some_and(|machine| machine.claims.contains_key(slot))
    };
    let mut moves = Vec::new();
    for Lost { slot, machine, why } in lost {
        let account = &accounts[machine];
        let to = plan.placements.get(slot).map(|placement| placement.node);
        // Nobody can act on the claim of a machine that is down, unless the slot needs a successor.
        let settled = match to {
            Some(successor) => claims(successor, slot),
            None => !plan.unplaced.contains_key(slot),
        };
        if account.machine.up || !settled {
            moves.push(Move { slot: slot.clone(), from: Some(account.id), to, why });
        }
    }
    let moved: BTreeSet<Slot> = moves.iter().map(|it| it.slot.clone()).collect();
    for (slot, placement) in &plan.placements {
        if !moved.contains(slot) && !claims(placement.node, slot) {
            let (to, why) = (Some(placement.node), "nobody claims it".to_owned());
            moves.push(Move { slot: slot.clone(), from: None, to, why });
        }
    }
    moves.sort_by(|a, b| (&a.slot, a.from).cmp(&(&b.slot, b.from)));
    moves
}
