//! What a run does, drawn from its seed before it begins.

use std::collections::BTreeSet;

use vc_engine::HISTORY;
use vc_protocol::Millis;

use crate::faults::Planned;
use crate::kind::Kind;
use crate::rng::Rng;
use crate::settings::Settings;

/// The plan of a run.
#[derive(Debug)]
pub struct Plan {
    /// Nodes at the start.
    pub nodes: u64,
    pub kinds: BTreeSet<Kind>,
    /// Milliseconds of the phase with faults.
    pub duration: Millis,
    pub events: Vec<Planned>,
    /// Changes of a document after which a new generation starts.
    pub history: u64,
    /// Whether a part of the cluster has to serve while the rest is broken.
    pub has_core: bool,
}

impl Plan {
    /// Draws the plan of a seed, without what the settings leave out. What is left is the same as without them.
    pub fn new(settings: &Settings) -> Self {
        let mut rng = Rng::new(settings.seed ^ 0x706c_616e);
        // By the number of the seed, so that a range of seeds has each size; large ones take long.
        let nodes = match settings.seed % 512 {
            77 => rng.within((31, 60)),
            n if n % 64 == 13 => rng.within((13, 24)),
            n if n % 16 == 5 => rng.within((7, 12)),
            _ => rng.within((1, 6)),
        };
        let [first, later @ ..] = Kind::groups();
        let mut weights = draw_weights(&mut rng, first);
        let history = rng.pick(&[3, 20, HISTORY]);
        let duration =
            if nodes > 12 { rng.within((10_000, 20_000)) } else { rng.within((15_000, 60_000)) };
        let most = if nodes > 12 { 15 } else { 40 };
        let mut events = draw_events(&mut rng, &weights, (5, most), duration, 0);
        let has_core = rng.permille(500);
        for group in later {
            let added = draw_weights(&mut rng, group);
            let number = events.len();
            events.extend(draw_events(&mut rng, &added, (3, most / 2), duration, number));
            weights.extend(added);
        }
        let duration = settings.duration.unwrap_or(duration);
        let is_left = |kind: &Kind| !settings.without.contains(kind);
        let is_wanted = |it: &Planned| {
            let named = settings.events.as_ref().is_none_or(|only| only.0.contains(&it.number));
            named && is_left(&it.kind) && it.at <= duration
        };
        Self {
            nodes: settings.nodes.unwrap_or(nodes),
            kinds: weights.into_iter().map(|(kind, _)| kind).filter(is_left).collect(),
            duration,
            events: events.into_iter().filter(is_wanted).collect(),
            history,
            has_core,
        }
    }
}

/// Draws which kinds of a group a run has, and the weight of each.
fn draw_weights(rng: &mut Rng, group: &[Kind]) -> Vec<(Kind, u64)> {
    let mut weights = Vec::new();
    for &kind in group {
        let permille = match kind {
            Kind::Operators => 950,
            Kind::Versions | Kind::Leave => 250,
            Kind::FailingUpdate => 150,
            _ => 400,
        };
        let (is_on, rate) = (rng.permille(permille), rng.within((1, 4)));
        if is_on {
            weights.push((kind, kind.weight() * rate));
        }
    }
    weights
}

/// Draws the events of these kinds, whose numbers begin with `first`. `count`: the fewest and the most of them.
fn draw_events(
    rng: &mut Rng,
    weights: &[(Kind, u64)],
    count: (u64, u64),
    duration: Millis,
    first: usize,
) -> Vec<Planned> {
    let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let count = if total == 0 { 0 } else { rng.within(count) };
    let events = (0..count as usize).map(|number| {
        let (at, seed, mut point) =
            (rng.within((0, duration)), rng.number(), rng.within((1, total)));
        let kind = weights.iter().find(|(_, weight)| {
            let is_it = point <= *weight;
            point = point.saturating_sub(*weight);
            is_it
        });
        let kind = kind.expect("within the total").0;
        Planned { number: first + number, at, kind, seed }
    });
    events.collect()
}
