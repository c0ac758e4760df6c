//! What an operator writes to describe a breaker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::PolicyError;

/// When a breaker opens, for how long, and how it finds out that it may close.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Which calls are looked at: `{ calls = 100 }`, the last so many, or `{ time = "10s" }`, those of the last time.
    /// Default the last 100.
    pub window: Window,
    /// The share of failed calls in the window that opens it: above 0, up to 1. Default 0.5.
    pub failure_rate: f64,
    /// The share of slow calls in the window that opens it: above 0, up to 1. Default 1.
    pub slow_call_rate: f64,
    /// How long a call may take before it is slow. None by default: no call is.
    #[serde(with = "runtime_kernel::units::duration_option", skip_serializing_if = "Option::is_none")]
    pub slow_call: Option<Duration>,
    /// No rate counts before the window holds so many calls; [`u32::MAX`]: no rate ever counts. Default 20.
    pub minimum_calls: u32,
    /// Opens after so many failures in a row, whatever the rates. None by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<u32>,
    /// How long it stays open the first time. Default 10 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub open_for: Duration,
    /// What `open_for` is multiplied by each time it opens again without having closed: 1 to 10. Default 2.
    pub open_growth: f64,
    /// The longest it stays open. Default 2 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_open: Duration,
    /// How much longer it may stay open, at random, so that not everybody probes at once: 0 to 1. Default 0.1.
    pub open_jitter: f64,
    /// How many calls pass while it is half-open, and decide: 1 to 1000. Default 3.
    pub half_open_calls: u32,
    /// When the half-open calls have not decided by then, so many others are let through. Default 30 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub half_open_timeout: Duration,
}

/// Which calls a breaker looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Window {
    /// The last so many: 1 to 65,000.
    Calls(u32),
    /// Those of the last time, in tenths of it: 10 ms to 1 day.
    Time(#[serde(with = "runtime_kernel::units::duration")] Duration),
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            window: Window::Calls(100),
            failure_rate: 0.5,
            slow_call_rate: 1.0,
            slow_call: None,
            minimum_calls: 20,
            consecutive_failures: None,
            open_for: Duration::from_secs(10),
            open_growth: 2.0,
            max_open: Duration::from_mins(2),
            open_jitter: 0.1,
            half_open_calls: 3,
            half_open_timeout: Duration::from_secs(30),
        }
    }
}

impl BreakerConfig {
    /// Opens after so many failures in a row, and at no rate.
    pub fn consecutive(failures: u32) -> Self {
        Self {
            consecutive_failures: Some(failures),
            minimum_calls: u32::MAX,
            window: Window::Calls(1),
            ..Self::default()
        }
    }

    /// Says what is wrong, if anything.
    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        const DAY: Duration = Duration::from_hours(24);
        let wrong = |key, message| Err(PolicyError { key, message });
        let share = |rate: f64| rate > 0.0 && rate <= 1.0;
        let window = match self.window {
            Window::Calls(calls) => (1..=65_000).contains(&calls),
            Window::Time(time) => (Duration::from_millis(10)..=DAY).contains(&time),
        };
        if !window {
            return wrong("window", "must be `calls` from 1 to 65000 or `time` from 10ms to 1d");
        }
        if !share(self.failure_rate) {
            return wrong("failure_rate", "must be more than 0 and at most 1");
        }
        if !share(self.slow_call_rate) {
            return wrong("slow_call_rate", "must be more than 0 and at most 1");
        }
        if self.slow_call.is_some_and(|slow| slow.is_zero()) {
            return wrong("slow_call", "must not be 0: leave it out for no limit");
        }
        if self.minimum_calls == 0 {
            return wrong("minimum_calls", "must be more than 0");
        }
        if self.consecutive_failures == Some(0) {
            return wrong("consecutive_failures", "must not be 0: leave it out for no limit");
        }
        if self.open_for.is_zero() {
            return wrong("open_for", "must be more than 0");
        }
        if self.max_open < self.open_for || self.max_open > DAY {
            return wrong("max_open", "must be between `open_for` and 1d");
        }
        if !(1.0..=10.0).contains(&self.open_growth) {
            return wrong("open_growth", "must be 1 to 10");
        }
        if !(0.0..=1.0).contains(&self.open_jitter) {
            return wrong("open_jitter", "must be 0 to 1");
        }
        if !(1..=1000).contains(&self.half_open_calls) {
            return wrong("half_open_calls", "must be 1 to 1000");
        }
        if self.half_open_timeout.is_zero() || self.half_open_timeout > DAY {
            return wrong("half_open_timeout", "must be more than 0 and at most 1d");
        }
        Ok(())
    }

    /// The smaller of the two: a window of 10 calls never holds 20.
    pub(crate) fn needed(&self) -> u64 {
        match self.window {
            _ if self.minimum_calls == u32::MAX => u64::MAX,
            Window::Calls(calls) => u64::from(self.minimum_calls.min(calls)),
            Window::Time(_) => u64::from(self.minimum_calls),
        }
    }
}
