//! What workers count.

use std::time::Duration;

use crate::instance::ParkReason;
use crate::store::Settle;

/// The counters of a worker. Counts nothing unless made from a registry (feature `metrics`).
#[derive(Clone, Debug, Default)]
pub struct SagaMetrics {
    #[cfg(feature = "metrics")]
    families: Option<Families>,
}

#[cfg(feature = "metrics")]
#[derive(Clone, Debug)]
struct Families {
    ended: runtime_telemetry::Family<runtime_telemetry::Counter>,
    parked: runtime_telemetry::Family<runtime_telemetry::Counter>,
    duration: runtime_telemetry::Family<runtime_telemetry::Histogram>,
    lost: runtime_telemetry::Counter,
    standing: runtime_telemetry::Gauge,
}

#[cfg(feature = "metrics")]
impl SagaMetrics {
    /// Counts in a registry.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(metrics: &runtime_telemetry::Metrics) -> Result<Self, runtime_telemetry::MetricsError> {
        use runtime_telemetry::keys;
        const SECONDS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0];
        let lost = "Claims that ended because the lease was another's.";
        let families = Families {
            ended: metrics.counter(keys::SAGA_ENDED_TOTAL, "Sagas that are over, by type and outcome.")?,
            parked: metrics
                .counter(keys::SAGA_PARKED_TOTAL, "Sagas that were parked, by type and reason.")?,
            duration: metrics.histogram(
                keys::SAGA_TURN_DURATION_SECONDS,
                "How long workers had a saga in hand at a time.",
                &SECONDS,
            )?,
            lost: metrics.counter(keys::SAGA_LEASES_LOST_TOTAL, lost)?.unlabelled(),
            standing: metrics.gauge(keys::SAGA_PARKED, "Sagas that are parked.")?.unlabelled(),
        };
        Ok(Self { families: Some(families) })
    }
}

impl SagaMetrics {
    pub(crate) fn settled(&self, name: &str, settle: &Settle, took: Duration) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            families.duration.with(&[("saga", name)]).observe_duration(took);
            match settle {
                Settle::Completed(_) => {
                    families.ended.with(&[("saga", name), ("outcome", "completed")]).inc();
                }
                Settle::Compensated(_) => {
                    families.ended.with(&[("saga", name), ("outcome", "compensated")]).inc();
                }
                Settle::Park { reason, .. } => {
                    families.parked.with(&[("saga", name), ("reason", reason_of(reason))]).inc();
                }
                Settle::Wait { .. } => {}
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, name, settle, took);
    }

    pub(crate) fn lost(&self) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            families.lost.inc();
        }
        #[cfg(not(feature = "metrics"))]
        let _ = self;
    }
}

impl SagaMetrics {
    pub(crate) fn stands(&self, parked: u64) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
            families.standing.set(parked as f64);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, parked);
    }
}

#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "a label"))]
fn reason_of(reason: &ParkReason) -> &'static str {
    match reason {
        ParkReason::CompensationFailed { .. } => "compensation_failed",
        ParkReason::NonDeterminism { .. } => "non_determinism",
        ParkReason::Unregistered { .. } => "unregistered",
        ParkReason::Panicked { .. } => "panicked",
        ParkReason::TooLarge { .. } => "too_large",
        ParkReason::Unreadable { .. } => "unreadable",
        ParkReason::JournalFull { .. } => "journal_full",
    }
}
