//! What breakers do, as metrics: read when somebody asks, so that calls pay nothing for it.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use runtime_telemetry::{Counter, Family, Gauge, Metrics, MetricsError, keys};

use crate::breaker::{BreakerState, CircuitBreaker, Transition};
use crate::named::Pipelines;

#[derive(Debug)]
pub(crate) struct BreakerMetrics {
    state: Family<Gauge>,
    ratio: Family<Gauge>,
    rejected: Family<Counter>,
    transitions: Family<Counter>,
    /// The pipelines, once they are there, and how many refusals of each breaker have been counted.
    pub(crate) pipelines: OnceLock<std::sync::Arc<Pipelines>>,
    counted: Mutex<HashMap<String, u64>>,
}

impl BreakerMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Result<Self, MetricsError> {
        Ok(Self {
            state: metrics.gauge(keys::CIRCUIT_BREAKER_STATE, "1 for the state a circuit breaker is in.")?,
            ratio: metrics.gauge(
                keys::CIRCUIT_BREAKER_FAILURE_RATIO,
                "The share of failed calls in a circuit breaker's window.",
            )?,
            rejected: metrics
                .counter(keys::CIRCUIT_BREAKER_REJECTED_TOTAL, "Calls a circuit breaker refused.")?,
            transitions: metrics
                .counter(keys::CIRCUIT_BREAKER_TRANSITIONS_TOTAL, "Changes of a circuit breaker's state.")?,
            pipelines: OnceLock::new(),
            counted: Mutex::default(),
        })
    }

    pub(crate) fn turned(&self, transition: &Transition) {
        let labels = [("breaker", &*transition.breaker), ("to", transition.to.as_str())];
        self.transitions.with(&labels).inc();
    }

    /// Brings every gauge up to date.
    pub(crate) fn refresh(&self) {
        for breaker in self.pipelines.get().into_iter().flat_map(|pipelines| pipelines.breakers()) {
            self.look_at(breaker);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of calls are far below 2^52")]
    fn look_at(&self, breaker: &CircuitBreaker) {
        let (name, seen) = (breaker.name(), breaker.snapshot());
        for state in BreakerState::ALL {
            let is = if state == seen.state { 1.0 } else { 0.0 };
            self.state.with(&[("breaker", name), ("state", state.as_str())]).set(is);
        }
        let ratio = if seen.calls == 0 { 0.0 } else { seen.failed as f64 / seen.calls as f64 };
        self.ratio.with(&[("breaker", name)]).set(ratio);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let before = counted.insert(name.to_owned(), seen.rejected).unwrap_or(0);
        self.rejected.with(&[("breaker", name)]).add(seen.rejected.saturating_sub(before));
    }
}
