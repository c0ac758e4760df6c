//! What is counted and measured of events.

use std::time::Duration;

use runtime_kernel::Timestamp;

use crate::log::{Lag, Verdict};
use crate::publisher::Receipt;

/// The metrics of the log and its consumers. Counts nothing unless made from a registry (feature `metrics`).
#[derive(Clone, Debug, Default)]
pub struct EventMetrics {
    #[cfg(feature = "metrics")]
    families: Option<std::sync::Arc<Families>>,
}

#[cfg(feature = "metrics")]
#[derive(Debug)]
struct Families {
    published: runtime_telemetry::Family<runtime_telemetry::Counter>,
    handled: runtime_telemetry::Family<runtime_telemetry::Counter>,
    duration: runtime_telemetry::Family<runtime_telemetry::Histogram>,
    stale: runtime_telemetry::Family<runtime_telemetry::Counter>,
    stored: runtime_telemetry::Family<runtime_telemetry::Gauge>,
    oldest: runtime_telemetry::Family<runtime_telemetry::Gauge>,
    /// Subscriptions that have been measured, so that one that is gone does not look stuck.
    known: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

#[cfg(feature = "metrics")]
impl EventMetrics {
    /// Counts in a registry.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(metrics: &runtime_telemetry::Metrics) -> Result<Self, runtime_telemetry::MetricsError> {
        use runtime_telemetry::keys;
        const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0];
        let families = Families {
            published: metrics
                .counter(keys::EVENTS_PUBLISHED_TOTAL, "Events published to the log, by outcome.")?,
            handled: metrics
                .counter(keys::EVENTS_HANDLED_TOTAL, "Attempts at events, by subscription and outcome.")?,
            duration: metrics.histogram(
                keys::EVENTS_HANDLE_DURATION_SECONDS,
                "How long attempts at events took.",
                &SECONDS,
            )?,
            stale: metrics.counter(
                keys::EVENTS_STALE_SETTLEMENTS_TOTAL,
                "Settlements refused because the claim was another's.",
            )?,
            stored: metrics.gauge(
                keys::EVENTS_STORED,
                "Events subscriptions have not done with, by subscription and state.",
            )?,
            oldest: metrics.gauge(
                keys::EVENTS_OLDEST_UNREAD_SECONDS,
                "The age of the oldest event a subscription has not read.",
            )?,
            known: std::sync::Mutex::default(),
        };
        Ok(Self { families: Some(std::sync::Arc::new(families)) })
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

    /// Counts what became of events that were published.
    pub fn published(&self, receipts: &[Receipt]) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            let new = receipts.iter().filter(|receipt| **receipt == Receipt::New).count();
            for (outcome, count) in [("new", new), ("duplicate", receipts.len().saturating_sub(new))] {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                families.published.with(&[("outcome", outcome)]).add(count);
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, receipts);
    }

    /// Shows how subscriptions stand; those it was told of before and that are gone have nothing.
    pub fn stands(&self, lags: &[Lag], now: Timestamp) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            let mut known = families.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.extend(lags.iter().map(|lag| lag.subscription.clone()));
            for subscription in &*known {
                let lag = lags.iter().find(|lag| lag.subscription == *subscription);
                let counts = lag.map_or([0; 3], |lag| [lag.unread, lag.retrying, lag.parked]);
                for (state, count) in ["unread", "retrying", "parked"].into_iter().zip(counts) {
                    let labels = [("subscription", subscription.as_str()), ("state", state)];
                    #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
                    families.stored.with(&labels).set(count as f64);
                }
                let oldest = lag.and_then(|lag| lag.oldest_unread);
                let age = oldest.map(|at| now.duration_since(at)).unwrap_or_default();
                families.oldest.with(&[("subscription", subscription)]).set(age.as_secs_f64());
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, lags, now);
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
