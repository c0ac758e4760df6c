//! Endpoints that fail are left alone for a while, but never all of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::member::Members;
use crate::error::DiscoveryError;

/// When an endpoint is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutlierConfig {
    /// After how many failures in a row an endpoint is ejected; 0 never does. Default 5.
    pub consecutive_failures: u32,
    /// For how long, times how often it has been. Default 30 s.
    #[serde(with = "runtime_kernel::units::duration")]
    pub base_ejection: Duration,
    /// For how long at most. Default 5 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_ejection: Duration,
    /// How many of the endpoints may be ejected at the same time, in per cent: 0 to 100; one may in any case, if there
    /// is another. Default 50.
    pub max_ejected_percent: u32,
    /// The longest an endpoint that asked to be left alone (429 and `Retry-After`) is. Default 1 min.
    #[serde(with = "runtime_kernel::units::duration")]
    pub max_throttle: Duration,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_mins(5),
            max_ejected_percent: 50,
            max_throttle: Duration::from_mins(1),
        }
    }
}

impl OutlierConfig {
    pub(crate) fn check(&self) -> Result<(), DiscoveryError> {
        let wrong = |key: &str, message: &str| {
            Err(DiscoveryError::Config { key: format!("outliers.{key}"), message: message.to_owned() })
        };
        if self.base_ejection.is_zero() {
            return wrong("base_ejection", "must be more than 0");
        }
        if self.max_ejection < self.base_ejection {
            return wrong("max_ejection", "must not be less than `base_ejection`");
        }
        if self.max_ejected_percent > 100 {
            return wrong("max_ejected_percent", "must be at most 100");
        }
        Ok(())
    }
}

/// Whether one more endpoint may be ejected.
pub(super) fn may_go(config: &OutlierConfig, members: &Members, now: u64) -> bool {
    let count = members.all.len();
    let percent = usize::try_from(config.max_ejected_percent).unwrap_or(100);
    let most = (count.saturating_mul(percent) / 100).max(1).min(count.saturating_sub(1));
    members.all.iter().filter(|member| member.is_ejected(now)).count() < most
}
