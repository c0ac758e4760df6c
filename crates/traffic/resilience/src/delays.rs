//! The delays of one run of a policy, one after the other.

use std::time::Duration;

use rand::Rng;

use crate::policy::RetryPolicy;

/// The delays of one run, in order; ends after `max_attempts - 1` of them. Made by [`RetryPolicy::delays`].
#[derive(Debug)]
pub struct Delays<'a, R> {
    policy: &'a RetryPolicy,
    rng: R,
    failed: u32,
    before: Duration,
}

impl<'a, R: Rng> Delays<'a, R> {
    pub(crate) fn new(policy: &'a RetryPolicy, rng: R) -> Self {
        Self { policy, rng, failed: 0, before: policy.config().base_delay }
    }
}

impl<R: Rng> Delays<'_, R> {
    /// The next delay, grown from `base`.
    pub(crate) fn next_from(&mut self, base: Duration) -> Option<Duration> {
        self.failed += 1;
        if self.failed >= self.policy.max_attempts() {
            self.failed = self.policy.max_attempts();
            return None;
        }
        self.before = self.policy.next_delay_of(base, self.failed, self.before, &mut self.rng);
        Some(self.before)
    }
}

impl<R: Rng> Iterator for Delays<'_, R> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.next_from(self.policy.config().base_delay)
    }
}
