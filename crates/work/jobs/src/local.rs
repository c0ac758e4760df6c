//! What a worker process holds: jobs it has claimed and not begun, those that run, and reports not written yet.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime_resilience::{RetryPolicy, SharedRng};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attempt::{attempt, judge};
use crate::handler::Handlers;
use crate::job::JobId;
use crate::metrics::JobMetrics;
use crate::queue::Jobs;
use crate::store::{Claimed, Pulse, Report, Verdict};

/// How many jobs a runner finishes before it lets others run on its thread.
const TURN: usize = 64;

/// The local side of a worker; shared by its runners, its reporter and its heart.
pub(crate) struct Local {
    pub(crate) handlers: Handlers,
    pub(crate) metrics: JobMetrics,
    pub(crate) rng: SharedRng,
    jobs: Jobs,
    policy: RetryPolicy,
    state: Mutex<State>,
    reports: Mutex<Vec<Report>>,
    /// The first report of a batch has come.
    pub(crate) reported: Notify,
    /// The queue runs low.
    pub(crate) room: Notify,
    /// Everything claimed has been reported.
    pub(crate) settled: Notify,
    full: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Claimed>,
    /// By job and lease: an attempt that has lost its lease may go on while the next one runs in the same process.
    running: HashMap<(JobId, u64), CancellationToken>,
    runners: usize,
    /// Ended since last asked.
    ended: usize,
    /// Jobs of each lease that are not reported yet.
    leases: BTreeMap<u64, usize>,
    /// Leases known to be lost.
    lost: HashSet<u64>,
    /// Until when each lease holds at least, by this process's clock: a process that was stopped for longer begins nothing
    /// more under it.
    until: HashMap<u64, Instant>,
    /// Jobs somebody wants cancelled.
    asked: HashSet<JobId>,
    /// How far the queue may run down before more is fetched.
    low: usize,
    given_up: bool,
}

/// How much is in hand.
pub(crate) struct InHand {
    pub(crate) queued: usize,
    pub(crate) running: usize,
    /// How many ended since this was last asked.
    pub(crate) ended: usize,
}

impl Local {
    pub(crate) fn new(handlers: Handlers, jobs: Jobs, policy: RetryPolicy, rng: SharedRng) -> Self {
        Self {
            handlers,
            metrics: JobMetrics::default(),
            rng,
            jobs,
            policy,
            state: Mutex::default(),
            reports: Mutex::default(),
            reported: Notify::new(),
            room: Notify::new(),
            settled: Notify::new(),
            full: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn in_hand(&self) -> InHand {
        let mut state = self.lock();
        let ended = std::mem::take(&mut state.ended);
        InHand { queued: state.queue.len(), running: state.running.len(), ended }
    }

    /// Takes claimed jobs in and sees to it that there are runners for them.
    pub(crate) fn start(
        self: &Arc<Self>,
        claimed: Vec<Claimed>,
        until: Instant,
        concurrency: usize,
        runners: &mut JoinSet<()>,
    ) {
        let mut state = self.lock();
        for job in claimed {
            *state.leases.entry(job.fence).or_default() += 1;
            state.until.insert(job.fence, until);
            state.queue.push_back(job);
        }
        state.low = state.queue.len() / 2;
        while state.runners < concurrency.min(state.running.len() + state.queue.len()) {
            state.runners += 1;
            runners.spawn(run(Arc::clone(self)));
        }
    }

    /// The next job and its token; none when the runner should go home.
    fn next(&self) -> Option<(Claimed, CancellationToken)> {
        let mut late = Vec::new();
        let next = self.next_or_late(&mut late);
        if !late.is_empty() {
            self.add_reports(late);
        }
        next
    }

    /// The same; jobs whose lease may have run out are not begun, but given back, in case it has not.
    fn next_or_late(&self, late: &mut Vec<Report>) -> Option<(Claimed, CancellationToken)> {
        let mut state = self.lock();
        while let Some(job) = state.queue.pop_front() {
            if state.queue.len() == state.low {
                self.room.notify_one();
            }
            if state.lost.contains(&job.fence) {
                // Somebody else's by now.
                state.leave(&job);
                continue;
            }
            if state.until.get(&job.fence).is_some_and(|until| *until <= self.jobs.clock().now()) {
                late.push(given_back(job.id, job.fence));
                continue;
            }
            let cancelled = CancellationToken::new();
            if state.asked.contains(&job.id) {
                cancelled.cancel();
            }
            state.running.insert((job.id, job.fence), cancelled.clone());
            return Some((job, cancelled));
        }
        state.runners -= 1;
        None
    }

    fn end(&self, id: JobId, fence: u64, verdict: Verdict) {
        {
            let mut state = self.lock();
            state.running.remove(&(id, fence));
            state.ended += 1;
        }
        self.add_reports([Report { id, fence, verdict }]);
    }

    /// A job whose handler completed it: nothing is left to report.
    fn ended_by_itself(&self, job: &Claimed) {
        let mut state = self.lock();
        state.running.remove(&(job.id, job.fence));
        state.ended += 1;
        state.asked.remove(&job.id);
        state.leave_lease(job.fence);
        if state.leases.is_empty() {
            self.settled.notify_one();
        }
        drop(state);
        // Its end may have let in who waited for its key, as a report's may.
        self.room.notify_one();
    }

    fn add_reports(&self, more: impl IntoIterator<Item = Report>) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let before = reports.len();
        reports.extend(more);
        let after = reports.len();
        drop(reports);
        if before == 0 && after > 0 {
            self.reported.notify_one();
        }
        // Told at each power of two above the usual mark as well: cheap, and never missed.
        if after >= 512 && (before < 512 || after.is_power_of_two()) {
            self.full.notify_one();
        }
    }

    /// How many reports wait.
    pub(crate) fn reports(&self) -> usize {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until so many reports wait.
    pub(crate) async fn full(&self, count: usize) {
        while self.reports() < count {
            self.full.notified().await;
        }
    }

    pub(crate) fn take_reports(&self, max: usize) -> Vec<Report> {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if reports.len() <= max {
            return std::mem::take(&mut *reports);
        }
        let rest = reports.split_off(max);
        std::mem::replace(&mut *reports, rest)
    }

    pub(crate) fn put_back(&self, batch: Vec<Report>) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.splice(0..0, batch);
    }

    /// Reports that were written: their leases need no heartbeat for them any more.
    pub(crate) fn forget(&self, batch: &[Report]) {
        let mut state = self.lock();
        for report in batch {
            state.asked.remove(&report.id);
            state.leave_lease(report.fence);
        }
        if state.leases.is_empty() {
            self.settled.notify_one();
        }
    }

    /// Whether nothing claimed is left unreported.
    pub(crate) fn is_settled(&self) -> bool {
        self.lock().leases.is_empty()
    }

    /// The store takes no reports: nothing more is to be waited for.
    pub(crate) fn give_up(&self) {
        self.lock().given_up = true;
        self.settled.notify_one();
    }

    pub(crate) fn given_up(&self) -> bool {
        self.lock().given_up
    }

    /// The leases held.
    pub(crate) fn leases(&self) -> Vec<u64> {
        self.lock().leases.keys().copied().collect()
    }

    /// Tells handlers whose lease is lost, or whose job is to be cancelled, to stop.
    pub(crate) fn follow(&self, known: &[u64], pulse: &Pulse, until: Instant) {
        let mut state = self.lock();
        for fence in &pulse.held {
            if let Some(known) = state.until.get_mut(fence) {
                *known = until;
            }
        }
        for fence in known.iter().filter(|fence| !pulse.held.contains(fence)) {
            if state.leases.contains_key(fence) {
                state.lost.insert(*fence);
            }
        }
        let state = &mut *state;
        for id in &pulse.cancel {
            // One that has been reported meanwhile may be claimed again some day.
            if state.running.keys().any(|(running, _)| running == id)
                || state.queue.iter().any(|job| job.id == *id)
            {
                state.asked.insert(*id);
            }
        }
        for ((id, fence), cancelled) in &state.running {
            if state.lost.contains(fence) || state.asked.contains(id) {
                cancelled.cancel();
            }
        }
    }

    /// Reports jobs not begun as given back.
    pub(crate) fn give_back_queued(&self) {
        let queue = std::mem::take(&mut self.lock().queue);
        self.add_reports(queue.into_iter().map(|job| given_back(job.id, job.fence)));
    }

    pub(crate) fn stop_all(&self) {
        for cancelled in self.lock().running.values() {
            cancelled.cancel();
        }
    }

    /// Reports jobs that were cut as given back.
    pub(crate) fn give_back_running(&self) {
        let running = std::mem::take(&mut self.lock().running);
        self.add_reports(running.into_keys().map(|(id, fence)| given_back(id, fence)));
    }
}

impl State {
    fn leave(&mut self, job: &Claimed) {
        self.leave_lease(job.fence);
    }

    fn leave_lease(&mut self, fence: u64) {
        if let Some(open) = self.leases.get_mut(&fence) {
            *open -= 1;
            if *open == 0 {
                self.leases.remove(&fence);
                self.lost.remove(&fence);
                self.until.remove(&fence);
            }
        }
    }
}

fn given_back(id: JobId, fence: u64) -> Report {
    Report { id, fence, verdict: Verdict::Released(Duration::ZERO) }
}

/// Runs jobs one after another until there are none.
async fn run(local: Arc<Local>) {
    let mut rng = local.rng.clone();
    let mut turn = 0;
    while let Some((mut job, cancelled)) = local.next() {
        match one(&local, &mut job, cancelled, &mut rng).await {
            Some(verdict) => local.end(job.id, job.fence, verdict),
            None => local.ended_by_itself(&job),
        }
        turn += 1;
        if turn % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// How a job ended; `None` when its handler has said so in a transaction of its own.
async fn one(
    local: &Local,
    job: &mut Claimed,
    cancelled: CancellationToken,
    rng: &mut SharedRng,
) -> Option<Verdict> {
    if cancelled.is_cancelled() {
        // A drain, or a lost lease, stops a job before it has begun; only who asked has it cancelled.
        let asked = local.lock().asked.contains(&job.id);
        return Some(if asked { Verdict::Cancelled } else { Verdict::Released(Duration::ZERO) });
    }
    let Some(handler) = local.handlers.get(&job.kind) else {
        // Claimed for a kind this worker does not handle: not its to judge.
        return Some(Verdict::Released(Duration::ZERO));
    };
    let clock = &**local.jobs.clock();
    let began = clock.now();
    let limit = job.timeout.unwrap_or(local.jobs.config().timeout);
    let settled = Arc::new(AtomicBool::new(false));
    let result = attempt(job, handler, limit, cancelled.clone(), &local.jobs, Arc::clone(&settled)).await;
    let settled = settled.load(Ordering::Acquire);
    let verdict = match result {
        Ok(value) => Verdict::Completed(value),
        Err(error) if settled => {
            tracing::warn!(job = %job.id, error = %error.report(), "the job had been completed before its handler failed");
            Verdict::Completed(serde_json::Value::Null)
        }
        Err(_) if local.lock().asked.contains(&job.id) => Verdict::Cancelled,
        // Stopped by us, not by its own failure.
        Err(_) if cancelled.is_cancelled() => Verdict::Released(Duration::ZERO),
        Err(error) => {
            let policy = handler.policy.as_ref().unwrap_or(&local.policy);
            judge(&error, job.attempt, job.max_attempts, policy, rng)
        }
    };
    local.metrics.ended(&job.kind, &verdict, clock.now().saturating_duration_since(began));
    (!settled).then_some(verdict)
}

#[cfg(test)]
mod tests {
    use runtime_kernel::{Clock as _, SystemClock};
    use runtime_resilience::RetryConfig;

    use super::*;
    use crate::{JobsConfig, MemoryStore};

    fn local() -> Local {
        let jobs =
            Jobs::new(MemoryStore::new(SystemClock::shared()), JobsConfig::default(), SystemClock::shared());
        let handlers = Handlers::new().handle_value("a", |_, payload| async { Ok(payload) });
        Local::new(handlers, jobs, RetryPolicy::new(RetryConfig::default()).unwrap(), SharedRng::from_os())
    }

    fn claimed() -> Claimed {
        Claimed {
            id: JobId::new(&SystemClock),
            fence: 1,
            kind: "a".into(),
            queue: "default".into(),
            payload: "null".into(),
            context: "{}".into(),
            attempt: 1,
            max_attempts: 1,
            timeout: None,
        }
    }

    /// Else it would stay open under a lease that is renewed for as long as another of its jobs runs.
    #[tokio::test]
    async fn a_job_whose_lease_may_be_over_is_not_begun_but_given_back() {
        let (local, job) = (Arc::new(local()), claimed());
        let id = job.id;
        local.start(vec![job], SystemClock.now(), 0, &mut JoinSet::new());
        local.lock().runners += 1;
        assert!(local.next().is_none());
        let back = local.take_reports(10);
        assert_eq!(back, [Report { id, fence: 1, verdict: Verdict::Released(Duration::ZERO) }]);
        assert_eq!(local.leases(), [1], "until it is known what the store says of it");
        local.forget(&back);
        assert!(local.leases().is_empty());
    }

    #[tokio::test]
    async fn a_job_stopped_before_it_begins_is_given_back_unless_somebody_asked() {
        let (local, mut job, mut rng) = (local(), claimed(), SharedRng::from_os());
        let stopped = CancellationToken::new();
        stopped.cancel();
        let verdict = one(&local, &mut job, stopped.clone(), &mut rng).await;
        assert_eq!(verdict, Some(Verdict::Released(Duration::ZERO)));
        local.lock().asked.insert(job.id);
        assert_eq!(one(&local, &mut job, stopped, &mut rng).await, Some(Verdict::Cancelled));
    }
}
