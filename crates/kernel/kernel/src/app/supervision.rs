//! The `supervision` section: how often and how fast a failed service is started again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Invalid, Section};

/// When a failed service is restarted, and when it is given up.
///
/// The n-th restart within the window waits `delay * 2^(n-1)`, at most `delay_max`, of which a random half is cut
/// off so that processes that failed together do not come back together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SupervisionConfig {
    /// How many restarts are tried within the window; one more failure gives the service up. Default 5.
    pub restarts: u32,
    /// How long a failure counts. Default 60 s.
    #[serde(with = "crate::units::duration")]
    pub window: Duration,
    /// The wait before the first restart. Default 200 ms.
    #[serde(with = "crate::units::duration")]
    pub delay: Duration,
    /// The longest wait. Default 10 s.
    #[serde(with = "crate::units::duration")]
    pub delay_max: Duration,
}

impl Default for SupervisionConfig {
    fn default() -> Self {
        Self {
            restarts: 5,
            window: Duration::from_mins(1),
            delay: Duration::from_millis(200),
            delay_max: Duration::from_secs(10),
        }
    }
}

impl SupervisionConfig {
    /// The wait before the restart that follows `failures` failures within the window.
    pub(super) fn wait(&self, failures: usize, random: u32) -> Duration {
        let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
        let full = self.delay.saturating_mul(1 << doublings).min(self.delay_max);
        full.mul_f64(1.0 - f64::from(random) / f64::from(u32::MAX) / 2.0)
    }
}

impl Section for SupervisionConfig {
    const PATH: &'static str = "supervision";

    fn validate(&self) -> Result<(), Invalid> {
        let longest = Duration::from_hours(24);
        if self.restarts > 1000 {
            return Err(Invalid::new("restarts", "must be at most 1000"));
        }
        if self.window.is_zero() || self.window > longest {
            return Err(Invalid::new("window", "must be more than 0s and at most 24h"));
        }
        if self.delay > self.delay_max || self.delay_max > longest {
            return Err(Invalid::new("delay", "must be at most `delay_max`, and that at most 24h"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_stays_between_half_and_all_of_the_capped_exponential(failures in 1usize..100, random: u32) {
            let config = SupervisionConfig::default();
            let doublings = u32::try_from(failures - 1).unwrap().min(31);
            let full = config.delay.saturating_mul(2u32.saturating_pow(doublings)).min(config.delay_max);
            let wait = config.wait(failures, random);
            prop_assert!(wait <= full && wait + Duration::from_nanos(1) >= full / 2, "{wait:?} of {full:?}");
        }
    }
}
