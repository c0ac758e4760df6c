//! Jobs in memory: for tests and for work that may be forgotten with the process.

mod claimable;
mod count;
mod insert;
mod links;
mod unique;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{SharedClock, Timestamp};
use serde_json::Value;

use self::claimable::{Claimable, Slot};
use self::links::Ties;
use crate::error::JobsError;
use crate::job::{Attempt, AttemptOutcome, Enqueued, Failure, Job, JobId, JobState};
use crate::links::{Batch, BatchId, Links};
use crate::store::{
    AGEING, ClaimRequest, Claimed, Filter, Insert, JobStore, Load, Origin, Pause, Probe, Progress, Pulse,
    Receipt, Report, Rescued, Retention, Stats, Verdict, lost,
};

/// Jobs in memory. Gone with the process; passes the same laws as the databases until then.
#[derive(Clone)]
pub struct MemoryStore {
    clock: SharedClock,
    ageing: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<JobId, Entry>,
    unique: HashMap<String, (JobId, Option<Timestamp>)>,
    workers: HashMap<String, (Vec<String>, Timestamp)>,
    leases: u64,
    /// Theoretical arrival times, by queue, kind and key.
    tats: HashMap<Slot, i64>,
    paused: BTreeSet<Pause>,
    ties: Ties,
}

struct Entry {
    job: Job,
    tenant: String,
    unique: Option<String>,
    /// It has its unique key only until it begins.
    unique_until_started: bool,
    key: Option<String>,
    allowance: u32,
    payload: String,
    context: String,
    /// The lease it was last claimed under.
    fence: u64,
    lease_until: Timestamp,
    progress: Progress,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, ageing: AGEING, state: Arc::default() }
    }

    /// How much longer a job may have waited and still be overtaken by one that is one level more urgent.
    #[must_use]
    pub fn with_ageing(mut self, ageing: Duration) -> Self {
        self.ageing = ageing;
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Timestamp {
        // Microseconds, as the databases keep them.
        Timestamp::from_microsecond(self.clock.utc().as_microsecond()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl Entry {
    fn present(&self, now: Timestamp) -> Job {
        let mut job = self.job.clone();
        if job.state == JobState::Available && job.run_at > now {
            job.state = JobState::Scheduled;
        }
        job
    }

    /// Whether a claim is in force.
    fn holds(&self, fence: u64, now: Timestamp) -> bool {
        self.job.state == JobState::Running && self.fence == fence && self.lease_until >= now
    }

    fn end_attempt(&mut self, now: Timestamp, outcome: AttemptOutcome, error: Option<Failure>) {
        if let Some(attempt) = self.job.attempts.last_mut() {
            attempt.finished_at = Some(now);
            attempt.outcome = Some(outcome);
            attempt.error = error;
        }
    }

    fn wait(&mut self, at: Timestamp) {
        self.job.state = JobState::Available;
        self.job.run_at = at;
    }

    fn finish(&mut self, now: Timestamp, state: JobState) {
        self.job.state = state;
        self.job.finished_at = Some(now);
        self.job.cancel_requested = false;
    }
}

impl State {
    fn is_paused(&self, queue: &str, kind: &str) -> bool {
        self.paused
            .iter()
            .any(|pause| pause.queue == queue && pause.kind.as_ref().is_none_or(|paused| paused == kind))
    }

    /// Takes back the jobs of a lease that ran out.
    fn rescue(&mut self, jobs: Vec<JobId>, now: Timestamp, rescued: &mut Rescued) {
        let mut ended = Vec::new();
        for id in jobs {
            let Some(entry) = self.jobs.get_mut(&id) else { continue };
            entry.end_attempt(now, AttemptOutcome::Lost, Some(lost()));
            if entry.job.cancel_requested {
                entry.finish(now, JobState::Cancelled);
                rescued.dead += 1;
            } else if entry.job.attempt >= entry.job.max_attempts {
                entry.finish(now, JobState::Dead);
                rescued.dead += 1;
            } else {
                let at = entry.job.run_at;
                entry.wait(at);
                rescued.returned += 1;
            }
            ended.extend(self.free_if_finished(id));
        }
        self.tell_waiters(ended, now);
    }

    fn matching<'a>(&'a self, filter: &'a Filter, now: Timestamp) -> impl Iterator<Item = (JobId, Job)> + 'a {
        self.jobs.iter().rev().filter_map(move |(id, entry)| {
            let job = entry.present(now);
            let fits = filter.tenant.as_ref().is_none_or(|tenant| *tenant == entry.tenant)
                && filter.state.is_none_or(|state| state == job.state)
                && filter.kind.as_ref().is_none_or(|kind| *kind == job.kind)
                && filter.queue.as_ref().is_none_or(|queue| *queue == job.queue)
                && filter.batch.is_none_or(|batch| self.ties.counted.contains(&(*id, batch.as_uuid())))
                && filter.before.is_none_or(|before| *id < before);
            fits.then_some((*id, job))
        })
    }
}

#[async_trait]
impl JobStore for MemoryStore {
    async fn insert(&self, jobs: Vec<Insert>) -> Result<Vec<Enqueued>, JobsError> {
        self.lock().insert(&jobs, None, self.now())
    }

    async fn insert_batch(
        &self,
        batch: BatchId,
        origin: Origin,
        jobs: Vec<Insert>,
    ) -> Result<Vec<Enqueued>, JobsError> {
        self.lock().insert(&jobs, Some((batch, origin)), self.now())
    }

    async fn batch(&self, id: BatchId, tenant: Option<&str>) -> Result<Option<Batch>, JobsError> {
        Ok(self.lock().batch(id, tenant))
    }

    async fn cancel_batch(&self, id: BatchId, tenant: Option<&str>, max: u32) -> Result<u64, JobsError> {
        self.lock().cancel_batch(id, tenant, max, self.now())
    }

    async fn links(&self, id: JobId) -> Result<Links, JobsError> {
        Ok(self.lock().links(id))
    }

    async fn load(&self, queue: &str, most: u64) -> Result<Load, JobsError> {
        Ok(self.lock().load(queue, most, self.now(), self.ageing))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claimed>, JobsError> {
        let now = self.now();
        let mut state = self.lock();
        let Claimable { jobs: due, tats, .. } = state.claimable(request, now, self.ageing);
        state.tats.extend(tats);
        if due.is_empty() {
            return Ok(Vec::new());
        }
        state.leases += 1;
        let fence = state.leases;
        let mut claimed = Vec::with_capacity(due.len());
        for id in due {
            let Some(entry) = state.jobs.get_mut(&id) else { continue };
            if std::mem::take(&mut entry.unique_until_started) {
                state.free(id);
            }
            let Some(entry) = state.jobs.get_mut(&id) else { continue };
            entry.fence = fence;
            entry.lease_until = later(now, request.lease);
            entry.job.state = JobState::Running;
            entry.job.attempt += 1;
            entry.job.attempts.push(Attempt {
                number: entry.job.attempts.len() as u64 + 1,
                worker: request.worker.clone(),
                started_at: now,
                finished_at: None,
                outcome: None,
                error: None,
            });
            let job = &entry.job;
            claimed.push(Claimed {
                id,
                fence,
                kind: job.kind.as_str().into(),
                queue: job.queue.as_str().into(),
                payload: entry.payload.as_str().into(),
                context: entry.context.as_str().into(),
                attempt: job.attempt,
                max_attempts: job.max_attempts,
                timeout: job.timeout,
            });
        }
        Ok(claimed)
    }

    async fn probe(&self, request: &ClaimRequest) -> Result<Probe, JobsError> {
        let now = self.now();
        let state = self.lock();
        let later = state.jobs.values().map(|entry| &entry.job);
        let later = later.filter(|job| job.state == JobState::Available && job.run_at > now);
        let later = later.map(|job| job.run_at.as_microsecond()).min();
        let found = state.claimable(request, now, self.ageing);
        let next = later.into_iter().chain(found.opens).min();
        let wait = next.map(|at| Duration::from_micros(at.abs_diff(now.as_microsecond())));
        let probe = Probe { due: !found.jobs.is_empty(), next: wait };
        Ok(probe)
    }

    async fn heartbeat(
        &self,
        worker: &str,
        kinds: &[String],
        held: &[u64],
        lease: Duration,
    ) -> Result<Pulse, JobsError> {
        let now = self.now();
        let mut state = self.lock();
        state.workers.insert(worker.to_owned(), (kinds.to_vec(), now));
        let mut pulse = Pulse::default();
        for entry in state.jobs.values_mut() {
            let fence = entry.fence;
            if !held.contains(&fence) || !entry.holds(fence, now) {
                continue;
            }
            entry.lease_until = later(now, lease);
            if !pulse.held.contains(&fence) {
                pulse.held.push(fence);
            }
            if entry.job.cancel_requested {
                pulse.cancel.push(entry.job.id);
            }
        }
        Ok(pulse)
    }

    async fn report(&self, reports: Vec<Report>) -> Result<Vec<Receipt>, JobsError> {
        let now = self.now();
        let mut state = self.lock();
        let mut receipts = Vec::with_capacity(reports.len());
        let mut ended = Vec::new();
        for Report { id, fence, verdict } in reports {
            let Some(entry) = state.jobs.get_mut(&id).filter(|entry| entry.holds(fence, now)) else {
                receipts.push(Receipt::Stale);
                continue;
            };
            match verdict {
                Verdict::Completed(result) => {
                    entry.job.result = Some(result);
                    entry.end_attempt(now, AttemptOutcome::Completed, None);
                    entry.finish(now, JobState::Completed);
                }
                Verdict::Dead(failure) => {
                    entry.end_attempt(now, AttemptOutcome::Failed, Some(failure));
                    entry.finish(now, JobState::Dead);
                }
                Verdict::Cancelled => {
                    entry.end_attempt(now, AttemptOutcome::Cancelled, None);
                    entry.finish(now, JobState::Cancelled);
                }
                Verdict::Retry(delay, failure) => {
                    entry.end_attempt(now, AttemptOutcome::Failed, Some(failure));
                    if entry.job.cancel_requested {
                        entry.finish(now, JobState::Cancelled);
                    } else {
                        entry.wait(later(now, delay));
                    }
                }
                Verdict::Released(delay) => {
                    entry.end_attempt(now, AttemptOutcome::Released, None);
                    if entry.job.cancel_requested {
                        entry.finish(now, JobState::Cancelled);
                    } else {
                        entry.job.attempt -= 1;
                        // Given back at once, it keeps its place in the line.
                        let at = if delay.is_zero() { entry.job.run_at } else { later(now, delay) };
                        entry.wait(at);
                    }
                }
            }
            ended.extend(state.free_if_finished(id));
            receipts.push(Receipt::Accepted);
        }
        state.tell_waiters(ended, now);
        Ok(receipts)
    }

    async fn keep_progress(
        &self,
        id: JobId,
        fence: u64,
        progress: Option<&Value>,
        checkpoint: Option<&Value>,
    ) -> Result<(), JobsError> {
        let now = self.now();
        let mut state = self.lock();
        let held = |entry: &&mut Entry| entry.holds(fence, now);
        let entry = state.jobs.get_mut(&id).filter(held).ok_or(JobsError::LeaseLost(id))?;
        entry.progress.progress = progress.cloned().or(entry.progress.progress.take());
        entry.progress.checkpoint = checkpoint.cloned().or(entry.progress.checkpoint.take());
        Ok(())
    }

    async fn progress(&self, id: JobId) -> Result<Progress, JobsError> {
        Ok(self.lock().jobs.get(&id).map(|entry| entry.progress.clone()).unwrap_or_default())
    }

    async fn rescue(&self, max: u32) -> Result<Rescued, JobsError> {
        let now = self.now();
        let mut state = self.lock();
        let mut rescued = Rescued::default();
        let expired = |entry: &&Entry| entry.job.state == JobState::Running && entry.lease_until < now;
        let mut leases: Vec<_> =
            state.jobs.values().filter(expired).map(|entry| (entry.lease_until, entry.fence)).collect();
        leases.sort_unstable();
        leases.dedup();
        leases.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        for (_, fence) in leases {
            let taken = |entry: &&Entry| entry.fence == fence;
            let jobs = state.jobs.values().filter(expired).filter(taken).map(|entry| entry.job.id).collect();
            state.rescue(jobs, now, &mut rescued);
        }
        Ok(rescued)
    }

    async fn cancel(&self, id: JobId, tenant: Option<&str>) -> Result<JobState, JobsError> {
        let now = self.now();
        let mut state = self.lock();
        let visible = |entry: &&mut Entry| tenant.is_none_or(|tenant| tenant == entry.tenant);
        let entry = state.jobs.get_mut(&id).filter(visible).ok_or(JobsError::NotFound(id))?;
        let mut ended = false;
        match entry.job.state {
            JobState::Running => entry.job.cancel_requested = true,
            JobState::Waiting | JobState::Available | JobState::Scheduled => {
                entry.finish(now, JobState::Cancelled);
                ended = true;
            }
            JobState::Cancelled => {}
            finished => {
                return Err(JobsError::WrongState { id, state: finished.as_str(), action: "cancelled" });
            }
        }
        let present = entry.job.state;
        state.free_if_finished(id);
        if ended {
            state.tell_waiters(vec![(id, present)], now);
        }
        Ok(present)
    }

    async fn redrive(&self, id: Option<JobId>, filter: &Filter) -> Result<u64, JobsError> {
        let now = self.now();
        let mut state = self.lock();
        let filter = Filter { state: Some(JobState::Dead), ..filter.clone() };
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let mut chosen: Vec<JobId> = state
            .matching(&filter, now)
            .map(|(found, _)| found)
            .filter(|found| id.is_none_or(|id| id == *found))
            .take(limit)
            .collect();
        chosen.retain(|id| state.take_again(*id, now));
        for id in &chosen {
            if let Some(entry) = state.jobs.get_mut(id) {
                entry.job.max_attempts = entry.job.attempt.saturating_add(entry.allowance);
                entry.job.finished_at = None;
                entry.wait(now);
            }
        }
        state.reopen(&chosen, now);
        Ok(chosen.len() as u64)
    }

    async fn get(&self, id: JobId, tenant: Option<&str>) -> Result<Option<Job>, JobsError> {
        let now = self.now();
        let state = self.lock();
        let entry = state.jobs.get(&id).filter(|entry| tenant.is_none_or(|tenant| tenant == entry.tenant));
        Ok(entry.map(|entry| entry.present(now)))
    }

    async fn list(&self, filter: &Filter) -> Result<Vec<Job>, JobsError> {
        let limit = usize::try_from(filter.limit).unwrap_or(usize::MAX);
        let state = self.lock();
        let jobs = state.matching(filter, self.now()).take(limit);
        Ok(jobs.map(|(_, job)| Job { attempts: Vec::new(), ..job }).collect())
    }

    async fn prune(&self, retention: &Retention, max: u32) -> Result<u64, JobsError> {
        let now = self.now();
        let mut state = self.lock();
        let keep = |state: JobState| match state {
            JobState::Completed => retention.completed,
            JobState::Dead => retention.dead,
            JobState::Cancelled => retention.cancelled,
            _ => None,
        };
        let mut old: Vec<_> = state
            .jobs
            .values()
            .filter(|entry| {
                let until =
                    entry.job.finished_at.zip(keep(entry.job.state)).map(|(at, keep)| later(at, keep));
                until.is_some_and(|until| until < now) && !state.is_awaited(entry.job.id)
            })
            .map(|entry| (entry.job.state, entry.job.finished_at, entry.job.id))
            .collect();
        old.sort_unstable();
        old.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        for phase in [JobState::Completed, JobState::Dead, JobState::Cancelled] {
            let of = old.iter().filter(|(state, _, _)| *state == phase);
            let gone = of.map(|(state, _, id)| (*id, *state)).collect();
            state.forget_links(&gone, now);
            for id in gone.keys() {
                state.jobs.remove(id);
            }
        }
        state.forget_batches(retention, now);
        state.unique.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        Ok(old.len() as u64)
    }

    async fn set_paused(&self, queue: &str, kind: Option<&str>, paused: bool) -> Result<(), JobsError> {
        let pause = Pause { queue: queue.to_owned(), kind: kind.map(ToOwned::to_owned) };
        let mut state = self.lock();
        if paused {
            state.paused.insert(pause);
        } else {
            state.paused.remove(&pause);
        }
        Ok(())
    }

    async fn paused(&self) -> Result<Vec<Pause>, JobsError> {
        Ok(self.lock().paused.iter().cloned().collect())
    }

    async fn stats(&self, live: Duration) -> Result<Stats, JobsError> {
        Ok(self.lock().count(self.now(), live))
    }
}
