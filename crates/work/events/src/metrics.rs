//! What consumers count.

use std::time::Duration;

use crate::log::Verdict;

/// The counters of consumers. Counts nothing unless made from a registry (feature `metrics`).
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    #[cfg(feature = "metrics")]
    families: Option<Families>,
}

#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
struct Families {
    handled: runtime_telemetry::Family<runtime_telemetry::Counter>,
    duration: runtime_telemetry::Family<runtime_telemetry::Histogram>,
    stale: runtime_telemetry::Family<runtime_telemetry::Counter>,
}

#[cfg(feature = "metrics")]
impl EventMetrics {
    /// Counts in a registry.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(metrics: &runtime_telemetry::Metrics) -> Result<Self, runtime_telemetry::MetricsError> {
        const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0];
        let families = Families {
            handled: metrics.counter(
                "runtime_events_handled_total",
                "Attempts at events, by subscription and outcome.",
            )?,
            duration: metrics.histogram(
                "runtime_events_handle_duration_seconds",
                "How long attempts at events took.",
                &SECONDS,
            )?,
            stale: metrics.counter(
                "runtime_events_stale_settlements_total",
                "Settlements refused because the claim was another's.",
            )?,
        };
        Ok(Self { families: Some(families) })
    }
}

impl EventMetrics {
    pub(crate) fn handled(&self, subscription: &str, verdict: &Verdict, took: Duration) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            let outcome = match verdict {
                Verdict::Done => "done",
                Verdict::Retry(..) => "retry",
                Verdict::Park(_) => "parked",
                Verdict::Behind => "behind",
            };
            families.handled.with(&[("subscription", subscription), ("outcome", outcome)]).inc();
            families.duration.with(&[("subscription", subscription)]).observe_duration(took);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, subscription, verdict, took);
    }

    pub(crate) fn stale(&self, subscription: &str) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            families.stale.with(&[("subscription", subscription)]).inc();
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, subscription);
    }
}
