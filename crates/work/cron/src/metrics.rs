//! What schedulers count.

use runtime_kernel::Timestamp;

use crate::store::ClaimedTick;
use crate::timetable::jitter;

/// The counters of a scheduler. Counts nothing unless made from a registry (feature `metrics`).
#[derive(Clone, Debug, Default)]
pub struct CronMetrics {
    #[cfg(feature = "metrics")]
    families: Option<Families>,
}

#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
struct Families {
    ticks: runtime_telemetry::Family<runtime_telemetry::Counter>,
    lateness: runtime_telemetry::Family<runtime_telemetry::Histogram>,
    leader: runtime_telemetry::Gauge,
}

#[cfg(feature = "metrics")]
impl CronMetrics {
    /// Counts in a registry.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(metrics: &runtime_telemetry::Metrics) -> Result<Self, runtime_telemetry::MetricsError> {
        use runtime_telemetry::keys;
        const SECONDS: [f64; 11] = [0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0];
        let families = Families {
            ticks: metrics.counter(keys::CRON_TICKS_TOTAL, "Ticks that ended, by action and outcome.")?,
            lateness: metrics.histogram(
                keys::CRON_TICK_LATENESS_SECONDS,
                "How late first attempts began.",
                &SECONDS,
            )?,
            leader: metrics
                .gauge(keys::CRON_LEADER, "1 where this process fires the schedules.")?
                .unlabelled(),
        };
        Ok(Self { families: Some(families) })
    }
}

impl CronMetrics {
    pub(crate) fn ended(&self, action: &str, outcome: &str, count: u32) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            let labels = [("action", action), ("outcome", outcome)];
            families.ticks.with(&labels).add(u64::from(count));
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, action, outcome, count);
    }

    pub(crate) fn began(&self, claimed: &ClaimedTick) {
        if claimed.attempt > 1 || claimed.manual {
            return;
        }
        let meant = jitter(&claimed.key.to_string(), claimed.fire_time, claimed.stored.schedule.jitter);
        let late = since(claimed.fired_at, claimed.fire_time).saturating_sub(meant);
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            let action = [("action", claimed.stored.schedule.action.as_str())];
            families.lateness.with(&action).observe_duration(late);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, late);
    }

    pub(crate) fn leads(&self, leads: bool) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            families.leader.set(if leads { 1.0 } else { 0.0 });
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, leads);
    }
}

fn since(later: Timestamp, earlier: Timestamp) -> std::time::Duration {
    let micros = later.as_microsecond().saturating_sub(earlier.as_microsecond());
    std::time::Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
