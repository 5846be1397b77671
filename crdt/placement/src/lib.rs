//! Placement: decides which node runs which slot, with the reasons.
//!
//! [`plan()`] is a pure function. Every node computes it from the same documents and gets the same bytes, so no
//! coordination is needed: maps are ordered, numbers are integers, and neither a clock nor a random number is read.
//! Nothing here depends on Automerge, the network or Docker.
//!
//! # The model
//! A *slot* (`shop/web.2`) is one of the replicas that a service asks for. A *claim* is a node's statement that it runs a
//! slot. The plan keeps the claims that are still valid and places the other slots:
//!
//! 1. **Claims.** In the order of the services, a slot stays on the node that claims it, if that node may run it and the
//!    slot still fits there. Of several claims the running one wins, then the one with the current spec, then the older
//!    one, then rendezvous hashing decides. So a node's arrival moves nothing, its death moves only what it held, and
//!    reservations are never overcommitted. (A node that comes back with claims on slots that have been replaced is a
//!    case of several claims, as is a partition that heals.)
//!    Then the move orders are applied: a kept claim gives way to the target node of an order, if the slot fits there
//!    beside all other claims; otherwise the order is ignored.
//! 2. **Placement.** Service by service, each open slot goes to the node with the fewest replicas of its service,
//!    then to the best fit, then rendezvous hashing decides. A placement never displaces a claim.
//!
//! **Best fit** leaves the least of CPU and memory free, so that there is room for large services elsewhere. It would also heap
//! services that are too small to matter for that on one node. Slots that reserve at most a 32nd of the largest node
//! are therefore spread evenly, until they hold a 16th of each node; those that reserve nothing go to the node with the fewest
//! instances. A service may ask for best fit (`x-vc.placement: pack`) or for the least loaded node (`spread`).
//!
//! **Named volumes** are on one node each, and services that mount them run only there. A volume without data goes where
//! the first slot goes that mounts it, claims before placements, together with all volumes of its group (the volumes
//! that services mount together; [`PlanInput::volumes`] says which have data). That slot waits for a node that may run
//! all services of the group, and prefers one with room for all replicas of its service.
//!
//! Since rules 5 such a volume may have copies on other nodes. Its *home* ([`homes()`]) is where it was written last, while that
//! node is up and may run the services; else a node with its newest snapshot. [`copies_wanted()`] says which nodes are to have copies.
//! Where no service writes a volume, any node with a copy runs what mounts it ([`readable()`]).
//! A volume reserves the room that it says (`x-vc.size`) on each of them ([`Node::volume_room`]).
//!
//! **Faults.** A node that cannot start anything, or not this service, keeps the slots that it runs and gets no others, and what it
//! claims and does not run goes elsewhere. If every node that may run a service could not start it, that is ignored: the service
//! itself is at fault, and its slots must not travel round the cluster. Since rules 3.
//!
//! **Nodes that are down** keep the slots of services that ask for it (`x-vc.lost_after`, `replace`): such a slot has no node, and
//! its only refusal is that of the node that it waits for. For how long a node has been silent is part of the input. Which of
//! several running claims is kept is the service's choice too (`reconcile`). Since rules 4.
//!
//! **Host ports** are reserved only where an instance binds them: those of services that publish on the nodes that run
//! them (`x-vc.publish: node`), and all ports of the process runtime.
//!
//! **Resources that are counted** ([`ServiceDemand::needs`]) are whatever nodes say they have: GPUs, licences. They are part of
//! feasibility, and have no part in the score. Since rules 7.
//!
//! **A limit of replicas per node** (`max_replicas_per_node`) is a resource of the service's own, of which every node has as much. Since
//! rules 7; before, a service with one keeps what it has.
//!
//! **The order of the services** is: earliest deployment first, then the larger reservation, then the key. So a later
//! or grown service gives way, and the services of one deployment are packed best fit decreasing.
//!
//! # Why placement is stable
//! Nodes claim their slots one by one, each seeing the claims of the others late. So for every input this must hold: *if
//! any part of the plan is claimed, the plan for the new input puts every slot on the same node.* These rules ensure it:
//!
//! - *Feasibility counts all kept claims; the score counts only the services that come earlier in the order*, wherever
//!   they run, claimed or not. A new claim can therefore make nodes infeasible, but never changes how two nodes
//!   compare. The chosen node stays feasible, since the whole plan fits, so it stays the best of fewer.
//! - *The replicas of a service are placed as one set.* The k-th replica on a node costs (k, fit), and the cheapest
//!   are taken. Claiming some of them leaves the same others as the cheapest.
//! - *Which replica goes to which node of the set* is one sorted list against another, and taking a pair out of both
//!   leaves the other pairs.
//! - *A volume's first slot decides by what is eligible and what fits*, never by how well it fits; its node stays one
//!   where all replicas fit. From then on, placed or claimed, every slot that mounts the volume gets the same node.
//! - *A slot that moves keeps its reservation on the source* until its claim is withdrawn there. So no order makes room
//!   that another slot could take early, and whether the target has claimed the slot already does not matter.
//!
//! The price: a slot of an old service that is placed again is scored without regard to later services (it only fits
//! around them). Property tests check the statement over arbitrary claims, and the stronger one that follows: nodes may
//! carry out any part of the moves, in any order, and the plan stays the same.
//!
//! # Papers
//! Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998
//! ([`rendezvous()`]). Best fit decreasing: Johnson, "Near-optimal bin packing algorithms", 1973. The dominant dimension
//! of a reservation: Ghodsi et al., "Dominant resource fairness", NSDI 2011.

mod allocation;
mod claims;
mod copies;
mod decision;
mod feasibility;
mod homes;
mod input;
mod order;
mod plan;
mod ports;
mod ranking;
mod reasons;
mod rebalance;
mod rendezvous;
mod rules;
mod scheduler;
mod score;
mod slots;
mod volumes;

pub use copies::{LOST_AFTER, WantedCopies, copies_wanted, lost_after, readable};
pub use decision::{Move, Placement, Plan, Refusal, Relocation};
pub use feasibility::may_run;
pub use homes::{Copies, CopyView, Orders, homes, volume_spec};
pub use input::{ClaimView, Node, PlanInput, ServiceDemand};
pub use plan::plan;
pub use rebalance::rebalance;
pub use rendezvous::rendezvous;
pub use rules::{Fit, RULES, Rules};
pub use slots::node_slot;
