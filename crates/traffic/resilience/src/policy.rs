//! A checked retry policy: how often, how long between, and how long in all.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, RngExt};
use runtime_kernel::Retry;
use serde::{Deserialize, Serialize};

use crate::budget::{BudgetConfig, RetryBudget};
use crate::config::{Backoff, Jitter, PolicyError, RetryConfig};
use crate::delays::Delays;

/// How often to try, how long to wait between attempts, and how long it may take in all. Always valid.
///
/// Reads and writes as a [`RetryConfig`], so it can be stored beside the work it governs.
///
/// ```
/// use std::time::Duration;
/// use rand::{SeedableRng, rngs::StdRng};
/// use runtime_resilience::{Jitter, RetryPolicy};
///
/// # fn main() -> Result<(), runtime_resilience::PolicyError> {
/// let policy = RetryPolicy::exponential(Duration::from_millis(100), Duration::from_secs(1))?
///     .with_max_attempts(5)?
///     .with_jitter(Jitter::None)?;
/// let mut rng = StdRng::seed_from_u64(1);
/// let delays: Vec<_> = (1..=5).map(|attempt| policy.delay(attempt, &mut rng).as_millis()).collect();
/// assert_eq!(delays, [100, 200, 400, 800, 1000]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "RetryConfig", into = "RetryConfig")]
pub struct RetryPolicy {
    config: RetryConfig,
    /// Shared by clones.
    budget: Option<Arc<RetryBudget>>,
}

impl PartialEq for RetryPolicy {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::unchecked(RetryConfig::default())
    }
}

impl TryFrom<RetryConfig> for RetryPolicy {
    type Error = PolicyError;

    fn try_from(config: RetryConfig) -> Result<Self, PolicyError> {
        Self::new(config)
    }
}

impl From<RetryPolicy> for RetryConfig {
    fn from(policy: RetryPolicy) -> Self {
        policy.config
    }
}

impl RetryPolicy {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`PolicyError`] names the key that is wrong and what it must be.
    pub fn new(config: RetryConfig) -> Result<Self, PolicyError> {
        config.check()?;
        Ok(Self::unchecked(config))
    }

    fn unchecked(config: RetryConfig) -> Self {
        let budget = config.budget.and_then(|budget| RetryBudget::new(budget).ok()).map(Arc::new);
        Self { config, budget }
    }

    /// One attempt, no retry.
    pub fn none() -> Self {
        Self::unchecked(RetryConfig { max_attempts: 1, budget: None, ..RetryConfig::default() })
    }

    /// The same delay every time, fully jittered; three attempts unless told.
    pub fn constant(delay: Duration) -> Result<Self, PolicyError> {
        Self::of(Backoff::Constant, delay, delay)
    }

    /// A delay that grows by `base` each time up to `max`, fully jittered; three attempts unless told.
    pub fn linear(base: Duration, max: Duration) -> Result<Self, PolicyError> {
        Self::of(Backoff::Linear, base, max)
    }

    /// A delay that doubles each time up to `max`, fully jittered; three attempts unless told.
    pub fn exponential(base: Duration, max: Duration) -> Result<Self, PolicyError> {
        Self::of(Backoff::Exponential, base, max)
    }

    /// A random delay between `base` and three times the one before, up to `max`; three attempts unless told.
    pub fn decorrelated(base: Duration, max: Duration) -> Result<Self, PolicyError> {
        Self::of(Backoff::Decorrelated, base, max)
    }

    fn of(backoff: Backoff, base_delay: Duration, max_delay: Duration) -> Result<Self, PolicyError> {
        Self::new(RetryConfig { backoff, base_delay, max_delay, ..RetryConfig::default() })
    }

    /// Sets how often to try at most, the first attempt included (1 to 1000).
    pub fn with_max_attempts(mut self, attempts: u32) -> Result<Self, PolicyError> {
        self.config.max_attempts = attempts;
        Self::new(self.config)
    }

    /// Sets what exponential backoff multiplies by (1 to 100).
    pub fn with_factor(mut self, factor: f64) -> Result<Self, PolicyError> {
        self.config.factor = factor;
        Self::new(self.config)
    }

    /// Sets how the delay is spread.
    pub fn with_jitter(mut self, jitter: Jitter) -> Result<Self, PolicyError> {
        self.config.jitter = jitter;
        Self::new(self.config)
    }

    /// Sets the longest `Retry-After` that is waited for in full.
    pub fn with_max_retry_after(mut self, longest: Duration) -> Result<Self, PolicyError> {
        self.config.max_retry_after = longest;
        Self::new(self.config)
    }

    /// Sets how long one attempt may take.
    pub fn with_attempt_timeout(mut self, timeout: Duration) -> Result<Self, PolicyError> {
        self.config.attempt_timeout = Some(timeout);
        Self::new(self.config)
    }

    /// Sets how long all attempts and waits together may take.
    pub fn with_total_timeout(mut self, timeout: Duration) -> Result<Self, PolicyError> {
        self.config.total_timeout = Some(timeout);
        Self::new(self.config)
    }

    /// Sets how many retries there may be beside the calls; `None` for any number. The budget begins anew.
    pub fn with_budget(mut self, budget: Option<BudgetConfig>) -> Result<Self, PolicyError> {
        self.config.budget = budget;
        Self::new(self.config)
    }

    /// Shares a budget with others: one per dependency rather than one per policy.
    #[must_use]
    pub fn sharing(mut self, budget: Arc<RetryBudget>) -> Self {
        self.config.budget = Some(budget.config());
        self.budget = Some(budget);
        self
    }

    /// The budget, shared by the policy's clones.
    pub fn budget(&self) -> Option<&Arc<RetryBudget>> {
        self.budget.as_ref()
    }

    /// What the policy was made of.
    pub fn config(&self) -> &RetryConfig {
        &self.config
    }

    /// How often to try at most, the first attempt included.
    pub fn max_attempts(&self) -> u32 {
        self.config.max_attempts
    }

    /// How long one attempt may take.
    pub fn attempt_timeout(&self) -> Option<Duration> {
        self.config.attempt_timeout
    }

    /// How long everything together may take.
    pub fn total_timeout(&self) -> Option<Duration> {
        self.config.total_timeout
    }

    /// How long to wait after failed attempt number `attempt` (from 1; 0 counts as 1), never more than `max_delay`.
    ///
    /// Stateless, so that a stored retry can be computed from its attempt count alone; it does not look at
    /// `max_attempts`. Decorrelated backoff, which depends on the delay before, walks its chain anew from the first
    /// retry (at most 64 steps: by then it has long forgotten where it began).
    pub fn delay(&self, attempt: u32, rng: &mut (impl Rng + ?Sized)) -> Duration {
        self.delay_from(self.config.base_delay, attempt, rng)
    }

    /// The delay that `base` grows to.
    fn delay_from(&self, base: Duration, attempt: u32, rng: &mut (impl Rng + ?Sized)) -> Duration {
        let attempt = attempt.max(1);
        if self.config.backoff == Backoff::Decorrelated {
            return (0..attempt.min(64)).fold(base, |before, _| self.decorrelated_after(base, before, rng));
        }
        let full = self.unjittered(base, attempt);
        match self.config.jitter {
            Jitter::None => full,
            Jitter::Equal => {
                let half = full / 2;
                between(half, full, rng)
            }
            Jitter::Full => between(Duration::ZERO, full, rng),
        }
    }

    /// Whether and after what delay to try again once attempt number `attempt` (from 1) failed with this verdict:
    /// `None` when the attempts are used up or the verdict is [`Retry::Never`].
    ///
    /// [`Retry::Now`] waits nothing, [`Retry::Backoff`] the policy's own delay, and [`Retry::After`] what was asked
    /// but no less than the policy's delay, grown from `throttle_base_delay`, and no more than `max_retry_after` or that
    /// delay and `retry_after_slack` (or the delay, if that is longer).
    pub fn next_delay(
        &self,
        attempt: u32,
        verdict: Retry,
        rng: &mut (impl Rng + ?Sized),
    ) -> Option<Duration> {
        if attempt >= self.config.max_attempts {
            return None;
        }
        match verdict {
            Retry::Never => None,
            Retry::Now => Some(Duration::ZERO),
            Retry::Backoff => Some(self.delay(attempt, rng)),
            Retry::After(asked) => {
                let own = self.delay_from(self.base(verdict), attempt, rng);
                Some(self.pushed_back(asked, own))
            }
        }
    }

    /// The delays of one run, in order; ends after `max_attempts - 1` of them.
    pub fn delays<R: Rng>(&self, rng: R) -> Delays<'_, R> {
        Delays::new(self, rng)
    }

    /// What delays grow from after this verdict.
    pub(crate) fn base(&self, verdict: Retry) -> Duration {
        let throttled = matches!(verdict, Retry::After(_));
        self.config.throttle_base_delay.filter(|_| throttled).unwrap_or(self.config.base_delay)
    }

    /// What the other side asked for, within its bounds, and no less than our own delay.
    pub(crate) fn pushed_back(&self, asked: Duration, own: Duration) -> Duration {
        let slack = self.config.retry_after_slack.map_or(Duration::MAX, |slack| own.saturating_add(slack));
        asked.min(self.config.max_retry_after).min(slack).max(own)
    }

    /// The same times and bounds, and one attempt.
    #[must_use]
    pub fn once(&self) -> Self {
        Self::unchecked(RetryConfig { max_attempts: 1, budget: None, ..self.config.clone() })
    }

    pub(crate) fn next_delay_of(
        &self,
        base: Duration,
        attempt: u32,
        before: Duration,
        rng: &mut (impl Rng + ?Sized),
    ) -> Duration {
        match self.config.backoff {
            Backoff::Decorrelated => self.decorrelated_after(base, before.max(base), rng),
            _ => self.delay_from(base, attempt, rng),
        }
    }

    fn decorrelated_after(
        &self,
        base: Duration,
        before: Duration,
        rng: &mut (impl Rng + ?Sized),
    ) -> Duration {
        let cap = self.config.max_delay;
        // The cap bounds the range, not the draw, so that delays do not pile up on the cap itself.
        between(base, before.saturating_mul(3).clamp(base, cap), rng)
    }

    fn unjittered(&self, base: Duration, attempt: u32) -> Duration {
        let cap = self.config.max_delay;
        match self.config.backoff {
            Backoff::Constant | Backoff::Decorrelated => base,
            Backoff::Linear => base.saturating_mul(attempt).min(cap),
            Backoff::Exponential => {
                let exponent = i32::try_from(attempt - 1).unwrap_or(i32::MAX);
                let seconds = base.as_secs_f64() * self.config.factor.powi(exponent);
                // Infinity and what overflows a Duration is beyond the cap; 0 times infinity is still 0.
                if seconds.is_nan() {
                    Duration::ZERO
                } else {
                    Duration::try_from_secs_f64(seconds).unwrap_or(cap).min(cap)
                }
            }
        }
    }
}

/// A uniform draw, both ends included. Policies hold no delay beyond 366 days, far inside 64 bits of nanoseconds.
fn between(low: Duration, high: Duration, rng: &mut (impl Rng + ?Sized)) -> Duration {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let (low, high) = (nanos(low), nanos(high));
    Duration::from_nanos(if low >= high { low } else { rng.random_range(low..=high) })
}
