//! Placement: which node runs which slot, and why.
//!
//! [`plan`] is a pure function. Every node computes it from the same documents and gets the same bytes, so nobody has
//! to coordinate: maps are ordered, numbers are integers, and neither a clock nor a random number is read. Nothing
//! here knows of Automerge, of the network or of Docker.
//!
//! # The model
//! A *slot* is a place that a service asks for (`shop/web.2`). A *claim* is a node's word that it runs a slot. The
//! plan keeps the claims that still stand and places the rest:
//!
//! 1. **Claims.** In the order of the services, a slot that is claimed by a node that may run it, and where it
//!    still fits, stays there. Of several claims the running one wins, then the one with the current spec, then the
//!    older one, then rendezvous hashing decides. So a node's arrival moves nothing, its death moves only what it held, and
//!    reservations are never overcommitted. (A node that comes back with claims on slots that have found
//!    successors is a case of several claims, as is a partition that heals.)
//!    Then come the orders to move: a claim that stands gives way to the node that was told to take the slot, if that
//!    one has room beside all other claims; else the order is ignored.
//! 2. **Placement.** Service by service, each open slot goes to the node with the fewest replicas of its service,
//!    then to the best fit (to the fewest instances, if it reserves nothing), then rendezvous hashing decides. What is
//!    placed never pushes a claim out.
//!
//! **Named volumes** are on one node each, and what mounts them runs there or nowhere, for its data is nowhere else.
//! A volume that nobody holds yet goes where the first slot goes that mounts it, claims before placements, together with
//! all volumes that it is mounted with somewhere ([`PlanInput::volumes`] says what is held). That slot waits for a
//! node that may run all who share the volumes, and prefers one with room for all replicas of its service.
//!
//! **Host ports** are a node's own only where an instance of it takes them: those of services that publish on the
//! nodes that run them (`x-vc.publish: node`), and all of a process.
//!
//! **The order of the services** is: earliest asked for first, then the larger reservation, then the key. So whoever
//! asks later, or for more than before, gives way; and the services of one deployment are packed best fit decreasing.
//!
//! # Why nothing flaps
//! Nodes claim what the plan gives them one by one, each seeing the claims of the others late. So for every input
//! this must hold: *if any part of the plan is claimed, the plan for the new input puts every slot in the same place.*
//! It does, because of these rules:
//!
//! - *Feasibility counts all kept claims; the score counts only the services that come earlier in the order*, wherever
//!   they run, claimed or not. A new claim can therefore make nodes infeasible, but never changes how two nodes
//!   compare. The node that was chosen stays feasible, since the whole plan fits, so it stays the best of fewer.
//! - *The replicas of a service are placed as one set.* The k-th replica on a node costs (k, fit), and the cheapest
//!   are taken. Claiming some of them leaves the same others to be the cheapest.
//! - *Which replica goes to which node of the set* is one sorted list against another, and taking a pair out of both
//!   leaves the other pairs.
//! - *A volume's first slot decides by what is eligible and what fits*, never by how much fits; the node that it
//!   takes stays one where all replicas fit. From then on, placed or claimed, every slot that mounts it says the same.
//! - *A slot that moves keeps its reservation where it was* until its claim is withdrawn there. So no order makes room
//!   that something else could take before, and whether the new node has claimed the slot already does not matter.
//!
//! The price: a slot that is placed anew for an old service is scored without regard to the services asked for after
//! it (it only fits around them). Property tests check the statement itself, over arbitrary claims, and
//! the stronger one that follows: nodes may carry out any part of the moves, in any order, and the plan stays.
//!
//! # Papers
//! Rendezvous hashing: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998
//! ([`rendezvous`]). Best fit decreasing: Johnson, "Near-optimal bin packing algorithms", 1973. The dominant dimension
//! of a reservation: Ghodsi et al., "Dominant resource fairness", NSDI 2011.

mod claims;
mod decision;
mod feasibility;
mod input;
mod ledger;
mod order;
mod plan;
mod ports;
mod reasons;
mod rebalance;
mod rendezvous;
mod score;
mod volumes;

pub use decision::{Move, Placement, Plan, Refusal};
pub use input::{ClaimView, Node, PlanInput, ServiceDemand};
pub use plan::plan;
pub use rebalance::{Relocation, rebalance};
pub use rendezvous::rendezvous;
