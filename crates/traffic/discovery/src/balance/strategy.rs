//! How an endpoint is chosen.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::member::{Member, Members};
use super::mixed;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Strategy {
    /// Of two drawn at random the one with the lower load, by its peak latency and how many calls wait there
    /// (Mitzenmacher, "The Power of Two Choices", 2001; Finagle's peak EWMA).
    #[default]
    PeakEwma,
    /// One after the other, by weight.
    RoundRobin,
    /// Always the same for a key, whoever else comes and goes (Thaler and Ravishankar, 1998; weighted). Without a key,
    /// at random by weight.
    Rendezvous,
}

pub(super) fn choose(
    strategy: Strategy,
    members: &Members,
    now: u64,
    key: Option<&[u8]>,
    draw: &dyn Fn() -> u64,
    fits: &dyn Fn(&Member) -> bool,
) -> Option<Arc<Member>> {
    match strategy {
        Strategy::PeakEwma => two_choices(members, now, mixed(draw()), fits),
        Strategy::RoundRobin => round_robin(members, draw, fits),
        Strategy::Rendezvous => rendezvous(members, key.map_or_else(|| mixed(draw()), hashed), fits),
    }
}

fn two_choices(
    members: &Members,
    now: u64,
    drawn: u64,
    fits: &dyn Fn(&Member) -> bool,
) -> Option<Arc<Member>> {
    let count = members.all.len();
    let first = members.all.get(below(drawn, count))?;
    // The other half of the draw, over those that are left, so that the two are never the same.
    let step = 1 + below(drawn.rotate_left(32), count.saturating_sub(1).max(1));
    let second = members.all.get((below(drawn, count) + step) % count)?;
    let chosen = match (fits(first), fits(second)) {
        (true, true) if second.load(now) < first.load(now) => second,
        (true, _) => first,
        (false, true) => second,
        (false, false) => {
            // Neither may be called: the best of all that may.
            let fitting = members.all.iter().filter(|member| fits(member));
            fitting.min_by(|a, b| a.load(now).total_cmp(&b.load(now)))?
        }
    };
    Some(Arc::clone(chosen))
}

/// The turn of one that may not be called is over: were its calls its successor's, that one would have two shares.
fn round_robin(
    members: &Members,
    draw: &dyn Fn() -> u64,
    fits: &dyn Fn(&Member) -> bool,
) -> Option<Arc<Member>> {
    let turns = u64::try_from(members.round.len()).ok().filter(|turns| *turns > 0)?;
    let next = |_| members.all.get(*members.round.get(usize::try_from(draw() % turns).ok()?)?);
    let found = (0..turns).filter_map(next).find(|member| fits(member));
    // Others draw as well: it may be that we saw only some of the turns.
    found.or_else(|| members.all.iter().find(|member| fits(member))).cloned()
}

fn rendezvous(members: &Members, seed: u64, fits: &dyn Fn(&Member) -> bool) -> Option<Arc<Member>> {
    let fitting = members.all.iter().filter(|member| fits(member));
    let best = fitting.max_by(|a, b| score(a, seed).total_cmp(&score(b, seed)))?;
    Some(Arc::clone(best))
}

/// `-w / ln(h)`: each endpoint wins as large a share of the keys as its weight is of all.
#[expect(clippy::cast_precision_loss, reason = "53 bits")]
fn score(member: &Member, seed: u64) -> f64 {
    let endpoint = &member.endpoint;
    let own = hashed(endpoint.host.as_bytes()) ^ mixed(u64::from(endpoint.port));
    let unit = ((mixed(seed ^ own) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(endpoint.weight) / unit.ln()
}

/// FNV-1a, finished by a mix: the same on every machine and in every version, so that replicas agree.
fn hashed(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// A number below `count`, evenly (Lemire, 2019).
fn below(drawn: u64, count: usize) -> usize {
    let high = drawn & 0xffff_ffff;
    usize::try_from((high * u64::try_from(count).unwrap_or(1)) >> 32).unwrap_or(0)
}
