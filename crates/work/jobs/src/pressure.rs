//! Back-pressure: whether a queue holds more than it should, asked for cheaply by those who fill it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use runtime_kernel::units;
use serde::{Deserialize, Serialize};

use crate::error::JobsError;
use crate::job::NewJob;
use crate::queue::Jobs;
use crate::store::Load;

/// How long an answer is good for: a queue costs a process at most one statement in this time, however many ask.
const FRESH: Duration = Duration::from_secs(1);

/// The longest wait that is recommended.
const LONGEST: Duration = Duration::from_secs(30);

/// How much a queue should hold at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Bound {
    /// Jobs that could run and wait for a worker or for their key; any number when absent. At most 1,000,000, because they
    /// are counted.
    pub depth: Option<u64>,
    /// How long the next in line has waited for a worker; any time when absent.
    #[serde(with = "units::duration_option")]
    pub age: Option<Duration>,
    /// Refuses jobs while the queue is over, with [`JobsError::Busy`]. Off unless told.
    pub refuse: bool,
}

impl Bound {
    /// At most so many jobs.
    #[must_use]
    pub fn depth(count: u64) -> Self {
        Self { depth: Some(count), ..Self::default() }
    }

    /// None that has waited for longer.
    #[must_use]
    pub fn age(age: Duration) -> Self {
        Self { age: Some(age), ..Self::default() }
    }

    /// And jobs are refused above it.
    #[must_use]
    pub fn refusing(self) -> Self {
        Self { refuse: true, ..self }
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.depth.is_none() && self.age.is_none() {
            return Some("must have a `depth` or an `age`");
        }
        self.depth.is_some_and(|depth| depth > 1_000_000).then_some("must have a `depth` of at most 1000000")
    }

    fn is_over(&self, load: &Load) -> bool {
        self.depth.is_some_and(|most| load.depth > most) || self.age.is_some_and(|most| load.age > most)
    }
}

/// How a queue stands against its [`Bound`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// Jobs that could run and wait; counted no further than one above the bound.
    pub depth: u64,
    /// How long the next in line has waited; the longest of the queue's kinds.
    pub age: Duration,
    /// How long to wait before enqueueing more: as long as the queue has been over its bound already, 1 s to 30 s. `None`
    /// when it is not over.
    pub wait: Option<Duration>,
}

impl Pressure {
    /// Whether the queue is over its bound.
    pub fn is_high(&self) -> bool {
        self.wait.is_some()
    }
}

/// What is known of a queue.
#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    over_since: Option<Instant>,
    last: Pressure,
}

/// What is known of each queue; one asks, the others wait for the answer.
#[derive(Debug, Default)]
pub(crate) struct Gauges(Mutex<HashMap<String, Arc<tokio::sync::Mutex<Known>>>>);

impl Gauges {
    fn of(&self, queue: &str) -> Arc<tokio::sync::Mutex<Known>> {
        let mut gauges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = gauges.get(queue) {
            return Arc::clone(known);
        }
        Arc::clone(gauges.entry(queue.to_owned()).or_default())
    }
}

impl Jobs {
    /// Whether a queue is over the bound the section's `pressure` sets for it; never, for a queue without one. Asks the
    /// store at most once a second, and costs nothing in between.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn pressure(&self, queue: &str) -> Result<Pressure, JobsError> {
        let Some(bound) = self.config().pressure.get(queue) else { return Ok(Pressure::default()) };
        let gauge = self.gauges().of(queue);
        let mut known = gauge.lock().await;
        let now = self.clock().now();
        if known.asked.is_some_and(|asked| now.saturating_duration_since(asked) < FRESH) {
            return Ok(known.last);
        }
        // A store that fails is not asked again at once either.
        known.asked = Some(now);
        let load = self.store().load(queue, bound.depth.unwrap_or(0)).await?;
        known.over_since = bound.is_over(&load).then(|| known.over_since.unwrap_or(now));
        let wait = known.over_since.map(|since| now.saturating_duration_since(since).clamp(FRESH, LONGEST));
        known.last = Pressure { depth: load.depth, age: load.age, wait };
        Ok(known.last)
    }

    /// Refuses jobs for queues that are over a bound that refuses. A store that does not answer refuses nothing: it will
    /// say so itself.
    pub(crate) async fn mind_pressure(
        &self,
        jobs: impl Iterator<Item = &NewJob> + Send,
    ) -> Result<(), JobsError> {
        let bounds = &self.config().pressure;
        if !bounds.values().any(|bound| bound.refuse) {
            return Ok(());
        }
        let mut queues: Vec<String> = jobs.map(|job| job.queue.clone()).collect();
        queues.sort_unstable();
        queues.dedup();
        for queue in queues {
            if !bounds.get(&queue).is_some_and(|bound| bound.refuse) {
                continue;
            }
            let pressure = self.pressure(&queue).await.unwrap_or_default();
            if let Some(wait) = pressure.wait {
                return Err(JobsError::Busy { queue, depth: pressure.depth, age: pressure.age, wait });
            }
        }
        Ok(())
    }
}
