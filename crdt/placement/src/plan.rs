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

/// Decides which machine runs which slot. Total: every input has a plan, and no input panics. Equal inputs give equal
/// plans, byte for byte. Time: services times machines, plus slots times machines for what nobody claims.
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
        for (&replica, &machine) in &placed {
            accounts[machine].take_ports(demand, replica);
        }
        turn.record(&accounts, &volumes, kept, &placed, &mut plan);
        for machine in kept.values().map(|it| it.machine).chain(placed.values().copied()) {
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
    /// The services whose place its first slot decides together with its own, since they share volumes.
    companions: Vec<&'t Demand<'a>>,
    /// How many of its replicas each machine has.
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
            replicas[place.machine] += 1;
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
            for (machine, account) in accounts.iter().enumerate() {
                turn.eligible[machine] &= turn.left_out(account).is_none();
            }
        }
        turn
    }

    /// The first of the companions that the machine may not run.
    fn left_out(&self, account: &Account<'a>) -> Option<&'a ServiceKey> {
        let out = self.companions.iter().find(|other| eligible(other, account).is_err());
        out.map(|other| other.key)
    }

    /// Chooses machines for up to `count` slots, fewer if no more fit, and sets the reservations aside. The result is
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
            // Where the volume goes all its replicas go: better a machine that has room for them.
            let all = if brings { self.cheapest(accounts, count) } else { None };
            let Some(machine) = all.or_else(|| self.cheapest(accounts, 1)) else { break };
            volumes.settle(self.demand, accounts[machine].id);
            if brings {
                for (number, eligible) in self.eligible.iter_mut().enumerate() {
                    *eligible = number == machine;
                }
            }
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

    /// The machine with the lowest cost for one more replica, of those where `count` more fit; between equals, the one
    /// with the highest weight.
    fn cheapest(&self, accounts: &[Account<'a>], count: usize) -> Option<usize> {
        let mut best: Option<(usize, Cost)> = None;
        for (machine, account) in accounts.iter().enumerate() {
            // The replica count alone rules most machines out.
            if best.is_some_and(|(_, lowest)| self.replicas[machine] > lowest.replicas)
                || !self.takes(machine, account, count)
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

    /// Whether so many more replicas fit. Replicas chosen in this turn have no ports yet, so they are looked at here.
    fn takes(&self, machine: usize, account: &Account<'a>, count: usize) -> bool {
        let alone = self.replicas[machine] == 0 && count == 1;
        let runtime = account.machine.runtime;
        self.eligible[machine]
            && room(self.demand, account).is_ok()
            && (count == 1 || account.holds(self.demand, count as u64))
            && (alone || ports::taken(self.demand.ports(), runtime).next().is_none())
    }

    /// Rendezvous weight of service and machine.
    fn weight(&self, machine: usize, accounts: &[Account<'a>]) -> u64 {
        combine(self.hash, accounts[machine].hash)
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
            .map(|(machine, account)| {
                self.takes(machine, account, 1)
                    .then(|| cost(self.demand, account, self.replicas[machine]))
            })
            .collect();
        let mut known: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let stays = kept.iter().map(|(&replica, place)| {
            let why = match place.from {
                None => reasons::KEEPS.to_owned(),
                Some(from) => format!("was told to move here from {}", accounts[from].machine.name),
            };
            (replica, place.machine, Some(why))
        });
        let comes = placed.iter().map(|(&replica, &machine)| (replica, machine, None));
        for (replica, machine, first) in stays.chain(comes) {
            let compared = known.entry(machine).or_insert_with(|| {
                if let Tie::To(volume, home) = volumes.tie(self.demand) {
                    let has = if home.held { "holds the data of" } else { "is the place of" };
                    return vec![format!("{has} volume {volume}")];
                }
                reasons::compare(
                    self.demand,
                    accounts,
                    machine,
                    self.replicas[machine].saturating_sub(1),
                    &others,
                )
            });
            let reasons = first.into_iter().chain(compared.iter().cloned()).collect();
            plan.placements
                .insert(slot(replica), Placement { node: accounts[machine].id, reasons });
        }
        let mut refusals: Option<Vec<Refusal>> = None;
        for replica in
            (1..=self.demand.replicas).filter(|r| !kept.contains_key(r) && !placed.contains_key(r))
        {
            let refusals = refusals.get_or_insert_with(|| self.refusals(accounts, volumes));
            plan.unplaced.insert(slot(replica), refusals.clone());
        }
    }

    /// Why each machine cannot take one more replica.
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
