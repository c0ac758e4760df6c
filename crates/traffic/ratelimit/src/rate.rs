//! How much is allowed, how fast, and how much at once.

use std::num::NonZeroU32;
use std::time::Duration;

use runtime_kernel::{Classify, ErrorKind};
use serde::{Deserialize, Serialize};

/// The longest time a bucket may take to fill: about nine years, so that all arithmetic stays inside 62 bits.
const LONGEST_FILL: u64 = 1 << 58;

/// A rate: a bucket of `burst` tokens that refills one token every `interval`.
///
/// Starts full. The interval is whole nanoseconds, rounded up, so that a limit is never exceeded by rounding; at
/// 10 million per second that makes it at most 1 % stricter than asked.
///
/// ```
/// use std::time::Duration;
/// use runtime_ratelimit::Rate;
///
/// # fn main() -> Result<(), runtime_ratelimit::RateError> {
/// let search = Rate::new(30, Duration::from_secs(60))?;
/// assert_eq!((search.burst(), search.interval()), (30, Duration::from_secs(2)));
/// let smooth = Rate::per_second(100)?.with_burst(10)?;
/// assert_eq!((smooth.burst(), smooth.interval()), (10, Duration::from_millis(10)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RateConfig", into = "RateConfig")]
pub struct Rate {
    interval: u64,
    burst: NonZeroU32,
    code: u16,
}

/// A rate as configuration writes it: `{ capacity = 30, window = "60s" }`, optionally with a `burst` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct RateConfig {
    /// How many tokens come back in each window.
    pub capacity: u32,
    /// The window.
    #[serde(with = "runtime_kernel::units::duration")]
    pub window: Duration,
    /// How many tokens the bucket holds. `capacity` unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Why numbers are no rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RateError {
    /// A capacity of nothing admits nothing.
    #[error("`capacity` must be more than 0")]
    NoCapacity,
    /// A bucket of nothing admits nothing.
    #[error("`burst` must be more than 0")]
    NoBurst,
    /// A window of nothing is no rate.
    #[error("`window` must be more than 0")]
    NoWindow,
    /// More than one token per nanosecond.
    #[error("more than a billion tokens per second cannot be counted")]
    TooFast,
    /// The bucket would take longer than nine years to fill.
    #[error("the bucket would take more than nine years to fill")]
    TooSlow,
}

impl Classify for RateError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn code(&self) -> &'static str {
        "ratelimit.invalid_rate"
    }
}

runtime_kernel::into_error!(RateError);

impl Rate {
    /// `capacity` tokens per `window`, all of them at once if nobody came before.
    pub fn new(capacity: u32, window: Duration) -> Result<Self, RateError> {
        let capacity = NonZeroU32::new(capacity).ok_or(RateError::NoCapacity)?;
        let window = u64::try_from(window.as_nanos()).map_err(|_| RateError::TooSlow)?;
        match window {
            0 => Err(RateError::NoWindow),
            _ if window < u64::from(capacity.get()) => Err(RateError::TooFast),
            _ => Self::checked(window.div_ceil(u64::from(capacity.get())), capacity),
        }
    }

    /// `capacity` tokens per second.
    pub fn per_second(capacity: u32) -> Result<Self, RateError> {
        Self::new(capacity, Duration::from_secs(1))
    }

    /// `capacity` tokens per minute.
    pub fn per_minute(capacity: u32) -> Result<Self, RateError> {
        Self::new(capacity, Duration::from_mins(1))
    }

    /// `capacity` tokens per hour.
    pub fn per_hour(capacity: u32) -> Result<Self, RateError> {
        Self::new(capacity, Duration::from_hours(1))
    }

    /// The same speed with room for `burst` tokens.
    pub fn with_burst(self, burst: u32) -> Result<Self, RateError> {
        Self::checked(self.interval, NonZeroU32::new(burst).ok_or(RateError::NoBurst)?)
    }

    fn checked(interval: u64, burst: NonZeroU32) -> Result<Self, RateError> {
        let fill = interval.checked_mul(u64::from(burst.get())).filter(|fill| *fill <= LONGEST_FILL);
        fill.map(|_| Self { interval, burst, code: encode(interval) }).ok_or(RateError::TooSlow)
    }

    /// How many tokens the bucket holds.
    pub fn burst(self) -> u32 {
        self.burst.get()
    }

    /// How long one token takes to come back.
    pub fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How long an empty bucket takes to fill.
    pub fn fill_time(self) -> Duration {
        Duration::from_nanos(self.tolerance())
    }

    pub(crate) fn nanos(self) -> u64 {
        self.interval
    }

    pub(crate) fn tolerance(self) -> u64 {
        // Checked when it was made.
        self.interval * u64::from(self.burst.get())
    }

    /// The interval in 16 bits, for the slot that remembers under which rate its debt was made.
    pub(crate) fn code(self) -> u16 {
        self.code
    }
}

impl TryFrom<RateConfig> for Rate {
    type Error = RateError;

    fn try_from(config: RateConfig) -> Result<Self, RateError> {
        let rate = Self::new(config.capacity, config.window)?;
        config.burst.map_or(Ok(rate), |burst| rate.with_burst(burst))
    }
}

impl From<Rate> for RateConfig {
    fn from(rate: Rate) -> Self {
        Self { capacity: rate.burst(), window: rate.fill_time(), burst: None }
    }
}

/// A 6-bit exponent (plus one, so that no code is 0) and a 10-bit mantissa, rounded down.
fn encode(interval: u64) -> u16 {
    let exponent = interval.max(1).ilog2();
    let mantissa = if exponent >= 10 { interval >> (exponent - 10) } else { interval << (10 - exponent) };
    // An interval is below 2^59, so both parts fit.
    u16::try_from(((u64::from(exponent) + 1) << 10) | (mantissa & 0x3ff)).unwrap_or(u16::MAX)
}

/// The least interval that has this code: at most 0.1 % less than the one it was made of.
pub(crate) fn decode(code: u16) -> u64 {
    let (exponent, mantissa) = (u32::from(code >> 10).saturating_sub(1), u64::from(code & 0x3ff) | 0x400);
    if exponent >= 10 { mantissa << (exponent - 10) } else { (mantissa >> (10 - exponent)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_code_is_never_zero_and_is_read_back_a_thousandth_low_at_most(interval in 1u64..LONGEST_FILL) {
            let code = encode(interval);
            let back = decode(code);
            prop_assert!(code != 0 && back <= interval && interval - back <= interval / 1024, "{interval} {back}");
        }

        #[test]
        fn rounding_never_lets_more_through(capacity in 1u32..1_000_000, window in 1_000_000u64..1 << 50) {
            let rate = Rate::new(capacity, Duration::from_nanos(window)).unwrap();
            prop_assert!(rate.nanos() * u64::from(capacity) >= window);
        }
    }

    #[test]
    fn numbers_that_are_no_rate_are_refused_by_name() {
        let minute = Duration::from_mins(1);
        for (made, expected) in [
            (Rate::new(0, minute), RateError::NoCapacity),
            (Rate::new(1, Duration::ZERO), RateError::NoWindow),
            (Rate::new(2_000, Duration::from_nanos(1_999)), RateError::TooFast),
            (Rate::new(1, Duration::MAX), RateError::TooSlow),
            (Rate::new(1, minute).and_then(|rate| rate.with_burst(0)), RateError::NoBurst),
            (Rate::new(1, minute).and_then(|rate| rate.with_burst(u32::MAX)), RateError::TooSlow),
        ] {
            assert_eq!(made, Err(expected));
        }
    }
}
