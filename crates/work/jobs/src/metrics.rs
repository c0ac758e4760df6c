//! What workers count.

use std::time::Duration;

use crate::store::Verdict;

/// The counters of a worker. Counts nothing unless made from a registry (feature `metrics`).
#[derive(Clone, Debug, Default)]
pub struct JobMetrics {
    #[cfg(feature = "metrics")]
    families: Option<Families>,
}

#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
struct Families {
    attempts: runtime_telemetry::Family<runtime_telemetry::Counter>,
    duration: runtime_telemetry::Family<runtime_telemetry::Histogram>,
    stale: runtime_telemetry::Counter,
}

#[cfg(feature = "metrics")]
impl JobMetrics {
    /// Counts in a registry.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(metrics: &runtime_telemetry::Metrics) -> Result<Self, runtime_telemetry::MetricsError> {
        use runtime_telemetry::keys;
        const SECONDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
        let stale = "Completions refused because the lease was another's.";
        let families = Families {
            attempts: metrics
                .counter(keys::JOBS_ATTEMPTS_TOTAL, "Attempts that ended, by kind and outcome.")?,
            duration: metrics.histogram(
                keys::JOBS_RUN_DURATION_SECONDS,
                "How long attempts ran.",
                &SECONDS,
            )?,
            stale: metrics.counter(keys::JOBS_STALE_COMPLETIONS_TOTAL, stale)?.unlabelled(),
        };
        Ok(Self { families: Some(families) })
    }
}

impl JobMetrics {
    pub(crate) fn ended(&self, kind: &str, verdict: &Verdict, took: Duration) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            let outcome = match verdict {
                Verdict::Completed(_) => "done",
                Verdict::Retry(..) => "retry",
                Verdict::Dead(_) => "dead",
                Verdict::Cancelled => "cancelled",
                Verdict::Released(_) => "released",
            };
            families.attempts.with(&[("kind", kind), ("outcome", outcome)]).inc();
            families.duration.with(&[("kind", kind)]).observe_duration(took);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, kind, verdict, took);
    }

    #[cfg_attr(
        not(feature = "metrics"),
        expect(clippy::unused_self, reason = "counts nothing without the feature")
    )]
    pub(crate) fn stale(&self) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            families.stale.inc();
        }
    }
}
