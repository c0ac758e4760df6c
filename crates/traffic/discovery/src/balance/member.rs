//! What is known of one endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::outlier::OutlierConfig;
use super::strategy::Strategy;
use crate::endpoint::Endpoint;

/// How fast a peak of latency is forgotten: by a factor of e in this time.
const DECAY: f64 = 10e9;

/// What is taken for the latency of an endpoint that has not been called: few calls go there until it has answered.
const UNKNOWN: f64 = 30e6;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    learnt: Arc<Learnt>,
}

/// What calls have taught of a host and port, whatever weight and attributes the source gives them.
#[derive(Debug, Default)]
struct Learnt {
    pending: AtomicU32,
    /// The peak of the latency, decayed, in nanoseconds; the bits of a float. 0 until known.
    latency: AtomicU64,
    /// When that was written.
    stamp: AtomicU64,
    failures: AtomicU32,
    ejections: AtomicU32,
    ejected_until: AtomicU64,
    throttled_until: AtomicU64,
}

/// The endpoints of a service.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) all: Vec<Arc<Member>>,
    /// In which order round robin goes, as indices.
    pub(super) round: Vec<usize>,
    /// Whether somebody has told them.
    pub(super) told: bool,
}

impl Member {
    /// The endpoint with what `before` has learnt of it.
    fn of(endpoint: &Endpoint, before: &Members) -> Arc<Self> {
        match before.all.iter().find(|member| member.is(endpoint)) {
            Some(known) if known.endpoint == *endpoint => Arc::clone(known),
            known => {
                let learnt = known.map(|known| Arc::clone(&known.learnt)).unwrap_or_default();
                Arc::new(Self { endpoint: endpoint.clone(), learnt })
            }
        }
    }

    pub(super) fn is(&self, endpoint: &Endpoint) -> bool {
        self.endpoint.host == endpoint.host && self.endpoint.port == endpoint.port
    }

    pub(super) fn begin(&self) {
        self.learnt.pending.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.learnt.pending.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn is_in(&self, now: u64) -> bool {
        !self.is_ejected(now) && !self.is_throttled(now)
    }

    pub(super) fn is_ejected(&self, now: u64) -> bool {
        self.learnt.ejected_until.load(Ordering::Relaxed) > now
    }

    pub(super) fn is_throttled(&self, now: u64) -> bool {
        self.learnt.throttled_until.load(Ordering::Relaxed) > now
    }

    pub(super) fn throttled_until(&self) -> u64 {
        self.learnt.throttled_until.load(Ordering::Relaxed)
    }

    /// Peak EWMA (Finagle's): a peak counts at once, and is forgotten slowly. Per unit of weight, and by how many wait
    /// there already.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are far below 2^52")]
    pub(super) fn load(&self, now: u64) -> f64 {
        let latency = f64::from_bits(self.learnt.latency.load(Ordering::Relaxed));
        let age = now.saturating_sub(self.learnt.stamp.load(Ordering::Relaxed)) as f64;
        let latency = if latency == 0.0 { UNKNOWN } else { latency * (-age / DECAY).exp() };
        (latency + 1.0) * f64::from(self.learnt.pending.load(Ordering::Relaxed) + 1)
            / f64::from(self.endpoint.weight)
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are far below 2^52")]
    pub(super) fn succeeded(&self, took: u64, now: u64) {
        let (took, before) = (took as f64, f64::from_bits(self.learnt.latency.load(Ordering::Relaxed)));
        let age = now.saturating_sub(self.learnt.stamp.swap(now, Ordering::Relaxed)) as f64;
        let kept = (-age / DECAY).exp();
        let latency = if took >= before { took } else { before * kept + took * (1.0 - kept) };
        self.learnt.latency.store(latency.to_bits(), Ordering::Relaxed);
        if self.learnt.failures.swap(0, Ordering::Relaxed) == 0 {
            // Good for a while: what it did long ago is forgotten, one ejection at a time.
            let since = now.saturating_sub(self.learnt.ejected_until.load(Ordering::Relaxed));
            if since > 300_000_000_000 {
                let one_less = |ejections: u32| ejections.checked_sub(1);
                let _ = self.learnt.ejections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are far below 2^52")]
    pub(super) fn given_up(&self, took: u64, now: u64) {
        let (took, before) = (took as f64, f64::from_bits(self.learnt.latency.load(Ordering::Relaxed)));
        let age = now.saturating_sub(self.learnt.stamp.load(Ordering::Relaxed)) as f64;
        // More than what is left of the peak: one that always takes as long must not look faster each time.
        if took > before * (-age / DECAY).exp() {
            self.learnt.stamp.store(now, Ordering::Relaxed);
            self.learnt.latency.store(took.to_bits(), Ordering::Relaxed);
        }
    }

    /// Whether it has failed too often in a row by now.
    pub(super) fn failed(&self, config: &OutlierConfig, now: u64) -> bool {
        let failures = self.learnt.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        config.consecutive_failures > 0 && failures >= config.consecutive_failures && !self.is_ejected(now)
    }

    /// Leaves it alone for a while, longer each time.
    pub(super) fn eject(&self, config: &OutlierConfig, now: u64) {
        self.learnt.failures.store(0, Ordering::Relaxed);
        let times = self.learnt.ejections.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let time = config.base_ejection.saturating_mul(times).min(config.max_ejection);
        self.learnt.ejected_until.store(now.saturating_add(nanos(time)), Ordering::Relaxed);
    }

    pub(super) fn throttled(&self, config: &OutlierConfig, asked: Option<Duration>, now: u64) {
        let time = asked.unwrap_or(Duration::from_secs(1)).min(config.max_throttle);
        self.learnt.throttled_until.fetch_max(now.saturating_add(nanos(time)), Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Members {
    /// These endpoints; those that were there before with what is known of them.
    pub(super) fn of(endpoints: &[Endpoint], before: &Self, strategy: Strategy) -> Self {
        let all: Vec<_> = endpoints.iter().map(|endpoint| Member::of(endpoint, before)).collect();
        let round = if strategy == Strategy::RoundRobin { round(&all) } else { Vec::new() };
        Self { all, round, told: true }
    }
}

/// Smooth weighted round robin (nginx's): each gets its share, spread out, not in blocks. At most 10,000 turns; of
/// larger sums of weights only the proportions count.
fn round(all: &[Arc<Member>]) -> Vec<usize> {
    let divisor = all.iter().map(|member| member.endpoint.weight).fold(0, gcd).max(1);
    let total: u64 = all.iter().map(|member| u64::from(member.endpoint.weight / divisor)).sum();
    let shrink = total.div_ceil(10_000).max(1);
    let weights: Vec<i64> = all
        .iter()
        .map(|member| i64::try_from(u64::from(member.endpoint.weight / divisor) / shrink).unwrap_or(1).max(1))
        .collect();
    let total: i64 = weights.iter().sum();
    let mut current = vec![0i64; weights.len()];
    let mut round = Vec::new();
    for _ in 0..total {
        for (current, weight) in current.iter_mut().zip(&weights) {
            *current += weight;
        }
        let best =
            current.iter().enumerate().max_by_key(|(index, current)| (**current, std::cmp::Reverse(*index)));
        let Some(best) = best.map(|(index, _)| index) else { break };
        if let Some(current) = current.get_mut(best) {
            *current -= total;
        }
        round.push(best);
    }
    round
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
