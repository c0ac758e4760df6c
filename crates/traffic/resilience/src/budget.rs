//! Retry budgets: however many calls fail, only so many of them are retried.
//!
//! Backoff spreads retries and does not reduce them: a dependency that has lost capacity gets every call several times
//! for as long as it is overloaded, and stays overloaded for as long as it gets them (Bronson et al., "Metastable
//! Failures in Distributed Systems", 2021). A budget bounds the surplus.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use runtime_kernel::Retry;
use serde::{Deserialize, Serialize};

use crate::breaker::time::LastTime;
use crate::breaker::window::Mark;
use crate::config::PolicyError;

/// How many retries there may be, beside the first attempts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum BudgetConfig {
    /// A share of the calls of the last time, and a few per second in any case (Finagle's).
    Share {
        /// Retries per call: 0 to 10.
        ratio: f64,
        /// How many per second there may be in any case.
        min_per_second: u32,
        /// The time that is looked at: 1 s to 1 h.
        #[serde(with = "runtime_kernel::units::duration")]
        window: Duration,
    },
    /// A purse of tokens that retries take from and successes fill (the AWS SDKs').
    Tokens {
        /// How many it holds, and begins with.
        capacity: u32,
        /// What a retry costs.
        cost: u32,
        /// What a retry costs after the other side said it gets too much.
        throttled_cost: u32,
    },
}

impl BudgetConfig {
    /// A fifth of the calls of the last 10 s, and 10 per second in any case: Finagle's figures.
    pub const DEFAULT: Self = Self::Share { ratio: 0.2, min_per_second: 10, window: Duration::from_secs(10) };

    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let wrong = |key, message| Err(PolicyError { key, message });
        match *self {
            Self::Share { ratio, .. } if !(0.0..=10.0).contains(&ratio) => {
                wrong("budget.share.ratio", "must be 0 to 10")
            }
            Self::Share { window, .. }
                if !(Duration::from_secs(1)..=Duration::from_hours(1)).contains(&window) =>
            {
                wrong("budget.share.window", "must be 1s to 1h")
            }
            Self::Tokens { capacity: 0, .. } => wrong("budget.tokens.capacity", "must be more than 0"),
            Self::Tokens { capacity, cost, throttled_cost } if cost.max(throttled_cost) > capacity => {
                wrong("budget.tokens.cost", "must not be more than the capacity")
            }
            _ => Ok(()),
        }
    }
}

/// What is left of a budget; shared by all that retry under it.
///
/// A retry is charged before its wait, so that retries which are still waiting count.
pub struct RetryBudget {
    config: BudgetConfig,
    start: OnceLock<Instant>,
    /// Calls, and as its failures the retries among them.
    lately: LastTime,
    tokens: AtomicU32,
    spending: Mutex<()>,
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What a retry was charged, to be returned if it succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charge(u32);

impl RetryBudget {
    /// A full budget.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong.
    pub fn new(config: BudgetConfig) -> Result<Self, PolicyError> {
        config.check()?;
        let (window, tokens) = match config {
            BudgetConfig::Share { window, .. } => (window, 0),
            BudgetConfig::Tokens { capacity, .. } => (Duration::from_secs(1), capacity),
        };
        let (start, lately) = (OnceLock::new(), LastTime::new(window));
        Ok(Self { config, start, lately, tokens: AtomicU32::new(tokens), spending: Mutex::default() })
    }

    /// What it was made of.
    pub fn config(&self) -> BudgetConfig {
        self.config
    }

    /// Whether it looks at every first attempt.
    pub(crate) fn counts_calls(&self) -> bool {
        matches!(self.config, BudgetConfig::Share { .. })
    }

    /// A call is made for the first time.
    pub fn called(&self, now: Instant) {
        if self.counts_calls() {
            self.lately.record(1, self.nanos(now), Mark::default());
        }
    }

    /// Takes a retry from the budget, if there is one left.
    pub fn spend(&self, now: Instant, verdict: Retry) -> bool {
        self.charge(now, verdict).is_some()
    }

    pub(crate) fn charge(&self, now: Instant, verdict: Retry) -> Option<Charge> {
        match self.config {
            BudgetConfig::Share { ratio, min_per_second, window } => {
                // One at a time, so that the last retry is not spent twice.
                let _spending = self.spending.lock().unwrap_or_else(PoisonError::into_inner);
                let now = self.nanos(now);
                let lately = self.lately.totals(now);
                // Each retry is counted as a call as well, which the first attempts must not be.
                let (calls, retries) = (lately.calls - lately.failed.min(lately.calls), lately.failed);
                #[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
                let allowed = calls as f64 * ratio + f64::from(min_per_second) * window.as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "as above")]
                let left = (retries + 1) as f64 <= allowed;
                left.then(|| {
                    self.lately.record(1, now, Mark { failed: true, slow: false });
                    Charge(0)
                })
            }
            BudgetConfig::Tokens { cost, throttled_cost, .. } => {
                let cost = if matches!(verdict, Retry::After(_)) { throttled_cost } else { cost };
                let take = |tokens: u32| tokens.checked_sub(cost);
                self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok()?;
                Some(Charge(cost))
            }
        }
    }

    /// A call has succeeded without a retry: one token comes back.
    pub fn succeeded(&self) {
        self.give_back(None);
    }

    /// A call has succeeded: what its last retry cost comes back, or one token if it needed none.
    pub(crate) fn give_back(&self, charge: Option<Charge>) {
        let BudgetConfig::Tokens { capacity, .. } = self.config else { return };
        let back = charge.map_or(1, |charge| charge.0);
        // Mostly full already.
        if self.tokens.load(Ordering::Relaxed) < capacity {
            let fill = |tokens: u32| Some(tokens.saturating_add(back).min(capacity));
            let _ = self.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, fill);
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.start.get_or_init(|| now));
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 2)
    }
}
