//! Conversions to and from the types of the `backoff` crate, which is unmaintained (RUSTSEC-2025-0012).

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as Source;
use rand::Rng;
use runtime_kernel::Retry;

use crate::config::{Backoff, Jitter, PolicyError, RetryConfig};
use crate::policy::RetryPolicy;

/// A run of a policy that the `backoff` crate's functions can draw from. `reset` starts it anew.
#[derive(Debug)]
pub struct PolicyBackoff<R> {
    policy: RetryPolicy,
    rng: R,
    failed: u32,
}

impl<R: Rng> PolicyBackoff<R> {
    /// A run that has not failed yet.
    pub fn new(policy: RetryPolicy, rng: R) -> Self {
        Self { policy, rng, failed: 0 }
    }
}

impl<R: Rng> Source for PolicyBackoff<R> {
    fn reset(&mut self) {
        self.failed = 0;
    }

    fn next_backoff(&mut self) -> Option<Duration> {
        self.failed = self.failed.saturating_add(1);
        self.policy.next_delay(self.failed, Retry::Backoff, &mut self.rng)
    }
}

impl RetryPolicy {
    /// The policy that comes nearest to an [`ExponentialBackoff`]: same intervals, multiplier and total time.
    ///
    /// Its randomisation spreads to both sides of the interval and past the cap; ours stays inside. A factor of 0
    /// becomes no jitter, up to 0.5 equal jitter, more than that full jitter. It counts no attempts, so
    /// `max_attempts` must be given.
    ///
    /// # Errors
    /// [`PolicyError`] when its values make no policy.
    pub fn from_backoff<C>(
        backoff: &ExponentialBackoffOf<C>,
        max_attempts: u32,
    ) -> Result<Self, PolicyError> {
        let jitter = match backoff.randomization_factor {
            factor if factor <= 0.0 => Jitter::None,
            factor if factor <= 0.5 => Jitter::Equal,
            _ => Jitter::Full,
        };
        Self::new(RetryConfig {
            max_attempts,
            backoff: Backoff::Exponential,
            base_delay: backoff.initial_interval,
            max_delay: backoff.max_interval,
            factor: backoff.multiplier,
            jitter,
            total_timeout: backoff.max_elapsed_time,
            ..RetryConfig::default()
        })
    }

    /// The nearest [`ExponentialBackoff`]: it cannot count attempts, and its jitter is symmetric.
    ///
    /// # Errors
    /// [`PolicyError`] for a policy that is not exponential; use [`PolicyBackoff`], which carries over everything.
    pub fn to_backoff(&self) -> Result<ExponentialBackoff, PolicyError> {
        let config = self.config();
        if config.backoff != Backoff::Exponential {
            return Err(PolicyError {
                key: "backoff",
                message: "must be `exponential` to become an ExponentialBackoff",
            });
        }
        Ok(ExponentialBackoff {
            current_interval: config.base_delay,
            initial_interval: config.base_delay,
            randomization_factor: match config.jitter {
                Jitter::None => 0.0,
                Jitter::Equal => 0.5,
                Jitter::Full => 1.0,
            },
            multiplier: config.factor,
            max_interval: config.max_delay,
            max_elapsed_time: config.total_timeout,
            ..ExponentialBackoff::default()
        })
    }
}

/// The `backoff` crate's exponential back-off over any of its clocks.
pub type ExponentialBackoffOf<C> = backoff::exponential::ExponentialBackoff<C>;

/// An error with our verdict, as the `backoff` crate classes it.
pub fn to_backoff_error<E>(error: E, verdict: Retry) -> backoff::Error<E> {
    match verdict {
        Retry::Never => backoff::Error::permanent(error),
        Retry::Now => backoff::Error::retry_after(error, Duration::ZERO),
        Retry::After(wait) => backoff::Error::retry_after(error, wait),
        Retry::Backoff => backoff::Error::transient(error),
    }
}

/// An error of the `backoff` crate, with the verdict it stands for.
pub fn from_backoff_error<E>(error: backoff::Error<E>) -> (E, Retry) {
    match error {
        backoff::Error::Permanent(error) => (error, Retry::Never),
        backoff::Error::Transient { err, retry_after: None } => (err, Retry::Backoff),
        backoff::Error::Transient { err, retry_after: Some(wait) } => (err, Retry::After(wait)),
    }
}
