//! A retry storm: a service that has lost capacity for ten seconds, and what its callers make of it.
//!
//! Capacity 1,000 per second, load 700 per second, a dip to 250 per second for 10 s, callers wait 1 s and try 4 times.
//! Without a budget, and with a server that works on what nobody waits for any more, the surplus of retries keeps the
//! service overloaded for ever after the dip. Simulated in ticks of a millisecond, with the real policies.
#![allow(clippy::cast_precision_loss, reason = "small counts")]

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};
use runtime_kernel::{Clock, ManualClock, Retry};
use runtime_resilience::{BudgetConfig, RetryPolicy};

struct Storm {
    policy: RetryPolicy,
    /// Whether the server drops, when it takes up a request, what nobody waits for any more.
    drops_expired: bool,
}

#[derive(Clone, Copy)]
struct Request {
    attempt: u32,
    asked: u64,
}

const PATIENCE: u64 = 1_000;
const DIP: std::ops::Range<u64> = 20_000..30_000;

impl Storm {
    /// Answered requests in each second.
    fn run(&self, seconds: u64) -> Vec<u32> {
        let (clock, mut rng) = (ManualClock::new(), StdRng::seed_from_u64(7));
        let mut queue: VecDeque<Request> = VecDeque::new();
        let mut later: BTreeMap<u64, Vec<Request>> = BTreeMap::new();
        let mut patience: VecDeque<(u64, Request)> = VecDeque::new();
        let mut answered = vec![0; usize::try_from(seconds).unwrap()];
        let mut done = std::collections::HashSet::new();
        let (mut credit, mut id) = (0.0, 0.0);
        for now in 0..seconds * 1_000 {
            clock.advance(Duration::from_millis(1));
            id += 0.7;
            let mut arriving = later.remove(&now).unwrap_or_default();
            while id >= 1.0 {
                id -= 1.0;
                if let Some(budget) = self.policy.budget() {
                    budget.called(clock.now());
                }
                arriving.push(Request { attempt: 1, asked: 0 });
            }
            for (nth, request) in arriving.into_iter().enumerate() {
                let request = Request { asked: now * 1_000 + nth as u64, ..request };
                queue.push_back(request);
                patience.push_back((now + PATIENCE, request));
            }
            credit += if DIP.contains(&now) { 0.25 } else { 1.0 };
            while credit >= 1.0 {
                let Some(request) = queue.pop_front() else {
                    credit = 1.0;
                    break;
                };
                let in_time = now < request.asked / 1_000 + PATIENCE;
                if self.drops_expired && !in_time {
                    // Looked at, and dropped: that costs next to nothing.
                    continue;
                }
                credit -= 1.0;
                if in_time {
                    done.insert(request.asked);
                    answered[usize::try_from(now / 1_000).unwrap()] += 1;
                }
            }
            while patience.front().is_some_and(|(until, _)| *until <= now) {
                let (_, request) = patience.pop_front().unwrap();
                if done.remove(&request.asked) {
                    continue;
                }
                let wait = self.policy.next_delay(request.attempt, Retry::Backoff, &mut rng);
                let Some(wait) = wait else { continue };
                if self.policy.budget().is_none_or(|budget| budget.spend(clock.now(), Retry::Backoff)) {
                    let at = now + 1 + u64::try_from(wait.as_millis()).unwrap();
                    later.entry(at).or_default().push(Request { attempt: request.attempt + 1, asked: 0 });
                }
            }
        }
        answered
    }
}

fn policy(budget: Option<BudgetConfig>) -> RetryPolicy {
    RetryPolicy::default().with_max_attempts(4).unwrap().with_budget(budget).unwrap()
}

fn mean(answered: &[u32]) -> f64 {
    f64::from(answered.iter().sum::<u32>()) / answered.len() as f64
}

#[test]
fn with_our_default_policy_the_service_is_back_within_ten_seconds_of_the_dip() {
    let answered =
        Storm { policy: policy(RetryPolicy::default().config().budget), drops_expired: true }.run(90);
    assert!(mean(&answered[5..20]) > 699.0, "before: {answered:?}");
    let back = (30..90).find(|second| answered[*second..].iter().all(|n| f64::from(*n) >= 0.95 * 700.0));
    assert!(back.is_some_and(|second| second <= 40), "{back:?} {answered:?}");
}

#[test]
fn without_budget_and_deadlines_it_never_comes_back() {
    let answered = Storm { policy: policy(None), drops_expired: false }.run(300);
    assert!(mean(&answered[5..20]) > 699.0, "before: {answered:?}");
    assert!(mean(&answered[60..]) < 0.05 * 700.0, "jitter alone does not help: {answered:?}");
}

#[test]
fn either_alone_brings_it_back_later() {
    for (budget, drops_expired) in [(Some(BudgetConfig::DEFAULT), false), (None, true)] {
        let answered = Storm { policy: policy(budget), drops_expired }.run(120);
        assert!(mean(&answered[100..]) > 0.95 * 700.0, "{budget:?} {drops_expired} {answered:?}");
    }
}
