//! What is counted and measured of workflows.

use crate::event::Event;
use crate::instance::Instance;
use crate::store::Standing;

/// The metrics of workflows.
#[derive(Clone, Debug)]
pub struct WorkflowMetrics {
    events: runtime_telemetry::Family<runtime_telemetry::Counter>,
    tasks: runtime_telemetry::Family<runtime_telemetry::Gauge>,
    parked: runtime_telemetry::Gauge,
}

impl WorkflowMetrics {
    /// Counts in a registry.
    ///
    /// # Errors
    /// A metric of the same name and another shape exists.
    pub fn new(metrics: &runtime_telemetry::Metrics) -> Result<Self, runtime_telemetry::MetricsError> {
        use runtime_telemetry::keys;
        Ok(Self {
            events: metrics.counter(
                keys::WORKFLOW_EVENTS_TOTAL,
                "What happened to instances, by definition and event.",
            )?,
            tasks: metrics.gauge(keys::WORKFLOW_TASKS, "Tasks that are open, and those overdue.")?,
            parked: metrics
                .gauge(keys::WORKFLOW_PARKED, "Instances with a step that cannot go on by itself.")?
                .unlabelled(),
        })
    }

    /// Counts what a change brought; a hook of [`Workflows`](crate::Workflows).
    pub fn happened(&self, instance: &Instance, events: &[Event]) {
        for event in events {
            let what = serde_json::to_value(&event.what).unwrap_or_default();
            let name = what.get("event").and_then(serde_json::Value::as_str).unwrap_or("unknown");
            self.events.with(&[("definition", instance.definition.as_str()), ("event", name)]).inc();
        }
    }

    /// Shows how much waits for people.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
    pub fn stands(&self, standing: &Standing) {
        self.tasks.with(&[("state", "open")]).set(standing.open as f64);
        self.tasks.with(&[("state", "overdue")]).set(standing.overdue as f64);
        self.parked.set(standing.parked as f64);
    }
}
