//! Which jobs a claim takes: those that are due, by rank, as far as the limits of their keys let them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use runtime_kernel::Timestamp;

use super::{Entry, State};
use crate::job::{JobId, JobState};
use crate::store::{ClaimRequest, rank};

/// What a claim takes.
#[derive(Default)]
pub(super) struct Claimable {
    /// The jobs, in order.
    pub(super) jobs: Vec<JobId>,
    /// The theoretical arrival times of their keys thereafter.
    pub(super) tats: HashMap<Slot, i64>,
    /// When a pace lets the next one in.
    pub(super) opens: Option<i64>,
}

/// A queue, a kind and a key.
pub(super) type Slot = (String, String, String);

impl State {
    /// What a claim takes.
    pub(super) fn claimable(&self, request: &ClaimRequest, now: Timestamp, ageing: Duration) -> Claimable {
        let mut due: Vec<_> = self
            .jobs
            .values()
            .filter(|entry| entry.job.state == JobState::Available && entry.job.run_at <= now)
            .filter(|entry| {
                request.kinds.contains(&entry.job.kind)
                    && request.queues.contains(&entry.job.queue)
                    && !self.is_paused(&entry.job.queue, &entry.job.kind)
            })
            .map(|entry| (rank(entry.job.run_at.as_microsecond(), entry.job.priority, ageing), entry.job.id))
            .collect();
        due.sort_unstable();
        let slot = |entry: &Entry| {
            entry.key.as_ref().map(|key| (entry.job.queue.clone(), entry.job.kind.clone(), key.clone()))
        };
        let mut running: HashMap<_, u32> = HashMap::new();
        for slot in self.jobs.values().filter(|entry| entry.job.state == JobState::Running).filter_map(slot) {
            *running.entry(slot).or_default() += 1;
        }
        let max = usize::try_from(request.max).unwrap_or(usize::MAX);
        let (mut found, mut blocked) = (Claimable::default(), BTreeSet::new());
        for (_, id) in due {
            if found.jobs.len() >= max {
                break;
            }
            let Some(entry) = self.jobs.get(&id) else { continue };
            if let Some(slot) = slot(entry) {
                let limit = request.limit(&entry.job.kind);
                let at_once = running.entry(slot.clone()).or_default();
                let known = found.tats.get(&slot).or_else(|| self.tats.get(&slot));
                let tat = known.copied().unwrap_or(i64::MIN);
                let (pace, now) = (limit.pace(), now.as_microsecond());
                let full = limit.concurrency.is_some_and(|most| *at_once >= most);
                let early = limit.rate.is_some() && pace.opens(tat) > now;
                if blocked.contains(&slot) || full || early {
                    if early && !full {
                        found.opens = found.opens.into_iter().chain([pace.opens(tat)]).min();
                    }
                    // What comes later under this key must not overtake it.
                    blocked.insert(slot);
                    continue;
                }
                *at_once += 1;
                found.tats.insert(slot, pace.begun(tat, now));
            }
            found.jobs.push(id);
        }
        found
    }
}
