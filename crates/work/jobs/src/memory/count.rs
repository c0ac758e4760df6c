//! Counts of what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use runtime_kernel::Timestamp;

use super::{State, later};
use crate::job::JobState;
use crate::store::{Depth, Stats};

impl State {
    pub(super) fn count(&self, now: Timestamp, live: Duration) -> Stats {
        let mut depths: BTreeMap<(String, String), Depth> = BTreeMap::new();
        let mut totals = Stats::default();
        let mut waiting = BTreeSet::new();
        for entry in self.jobs.values() {
            let job = entry.present(now);
            if job.state.is_finished() {
                *totals.finished.entry(job.state.as_str().to_owned()).or_default() += 1;
                continue;
            }
            let depth = depths.entry((job.queue.clone(), job.kind.clone())).or_insert_with(|| Depth {
                queue: job.queue.clone(),
                kind: job.kind.clone(),
                states: BTreeMap::new(),
                oldest: None,
            });
            *depth.states.entry(job.state.as_str().to_owned()).or_default() += 1;
            if job.state == JobState::Available {
                depth.oldest = Some(depth.oldest.map_or(job.run_at, |oldest| oldest.min(job.run_at)));
            }
            if job.state != JobState::Running {
                waiting.insert(job.kind);
            }
        }
        let fresh = |seen: Timestamp| later(seen, live) >= now;
        let handled: BTreeSet<&String> =
            self.workers.values().filter(|(_, seen)| fresh(*seen)).flat_map(|(kinds, _)| kinds).collect();
        totals.unhandled = waiting.into_iter().filter(|kind| !handled.contains(kind)).collect();
        totals.depths = depths.into_values().collect();
        totals
    }
}
