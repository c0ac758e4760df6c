//! What relays count, and how far they lag.

use std::time::Duration;

use crate::store::ChannelStats;

/// The metrics of relays. Counts nothing unless made from a registry (feature `metrics`).
#[derive(Clone, Debug, Default)]
pub struct OutboxMetrics {
    #[cfg(feature = "metrics")]
    families: Option<std::sync::Arc<Families>>,
}

#[cfg(feature = "metrics")]
#[derive(Debug)]
struct Families {
    published: runtime_telemetry::Family<runtime_telemetry::Counter>,
    duration: runtime_telemetry::Family<runtime_telemetry::Histogram>,
    lost: runtime_telemetry::Family<runtime_telemetry::Counter>,
    stored: runtime_telemetry::Family<runtime_telemetry::Gauge>,
    oldest: runtime_telemetry::Family<runtime_telemetry::Gauge>,
    /// Channels that have been measured, so that one that is empty now says so.
    known: std::sync::Mutex<std::collections::BTreeSet<String>>,
}

#[cfg(feature = "metrics")]
impl OutboxMetrics {
    /// Counts in a registry.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(metrics: &runtime_telemetry::Metrics) -> Result<Self, runtime_telemetry::MetricsError> {
        use runtime_telemetry::keys;
        const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0];
        let families = Families {
            published: metrics
                .counter(keys::OUTBOX_MESSAGES_TOTAL, "Tries at messages, by channel and outcome.")?,
            duration: metrics.histogram(
                keys::OUTBOX_PUBLISH_DURATION_SECONDS,
                "How long calls of sinks took.",
                &SECONDS,
            )?,
            lost: metrics.counter(keys::OUTBOX_CLAIMS_LOST_TOTAL, "Claims another relay took.")?,
            stored: metrics
                .gauge(keys::OUTBOX_STORED, "Messages that are not sent, by channel and state.")?,
            oldest: metrics.gauge(
                keys::OUTBOX_OLDEST_UNSENT_SECONDS,
                "The age of the oldest message neither sent nor parked.",
            )?,
            known: std::sync::Mutex::default(),
        };
        Ok(Self { families: Some(std::sync::Arc::new(families)) })
    }
}

impl OutboxMetrics {
    pub(crate) fn published(&self, channel: &str, outcome: &str, count: usize) {
        #[cfg(feature = "metrics")]
        if let Some(families) = self.families.as_ref().filter(|_| count > 0) {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            families.published.with(&[("channel", channel), ("outcome", outcome)]).add(count);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, channel, outcome, count);
    }

    pub(crate) fn called(&self, channel: &str, took: Duration) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            families.duration.with(&[("channel", channel)]).observe_duration(took);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, channel, took);
    }

    pub(crate) fn stale(&self, channel: &str) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            families.lost.with(&[("channel", channel)]).inc();
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, channel);
    }

    pub(crate) fn stands(&self, stats: &[ChannelStats]) {
        #[cfg(feature = "metrics")]
        if let Some(families) = &self.families {
            let mut known = families.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            known.extend(stats.iter().map(|stats| stats.channel.clone()));
            let none = ChannelStats::default();
            for channel in &*known {
                let stats = stats.iter().find(|stats| stats.channel == *channel).unwrap_or(&none);
                for (state, count) in [
                    ("ready", stats.ready),
                    ("retrying", stats.retrying),
                    ("behind", stats.behind),
                    ("parked", stats.parked),
                ] {
                    #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
                    families.stored.with(&[("channel", channel), ("state", state)]).set(count as f64);
                }
                let oldest = stats.oldest_unsent.unwrap_or_default();
                families.oldest.with(&[("channel", channel)]).set(oldest.as_secs_f64());
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (self, stats);
    }
}
