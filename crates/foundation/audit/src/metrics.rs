//! What is counted.

use runtime_telemetry::{Counter, Family, Metrics, MetricsError, keys};

use crate::Severity;

/// The counters, which count for nobody until a registry is given.
#[derive(Clone, Debug)]
pub(crate) struct AuditMetrics {
    written: Family<Counter>,
    dropped: Counter,
}

impl AuditMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        let written = metrics.counter(keys::AUDIT_EVENTS_TOTAL, "Audit events written.")?;
        let dropped = metrics.counter(keys::AUDIT_DROPPED_TOTAL, "Audit events that were not written.")?;
        Ok(Self { written, dropped: dropped.unlabelled() })
    }

    pub(crate) fn written(&self, severity: Severity) {
        self.written.with(&[("severity", severity.as_str())]).inc();
    }

    pub(crate) fn dropped(&self, count: u64) {
        self.dropped.add(count);
    }
}
