//! Claims jobs, runs their handlers, keeps their leases and reports how they ended.

use std::collections::HashMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use runtime_kernel::{Deadline, Error, ErrorKind, Retry, Source, uuid_v7};
use runtime_resilience::{RetryPolicy, SharedRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::JobsError;
use crate::handler::{Handler, Handlers, JobContext};
use crate::job::{Failure, JobId};
use crate::metrics::JobMetrics;
use crate::queue::Jobs;
use crate::store::{ClaimRequest, Claimed, Pulse, Receipt, Report, Retention, Verdict};

/// The most reports written in one transaction.
const REPORT_BATCH: usize = 512;

/// How long a handler may take to stop once told to, at the end of a drain.
const GRACE: Duration = Duration::from_millis(250);

/// Runs jobs of the kinds it has handlers for.
///
/// A job is run at least once. A report is refused when the lease was lost meanwhile, so its record shows exactly one
/// ending; make effects outside safe to repeat with the job's id as idempotency key.
pub struct Worker {
    jobs: Jobs,
    handlers: Arc<Handlers>,
    name: String,
    policy: RetryPolicy,
    rng: SharedRng,
    metrics: JobMetrics,
    held: Arc<Mutex<HashMap<JobId, Held>>>,
}

/// A claim this worker believes to hold.
struct Held {
    fence: u64,
    cancelled: CancellationToken,
    /// Somebody asked for the cancel, so ending is not a failure.
    asked: bool,
}

impl Worker {
    /// A worker over jobs and handlers, with the limits of the jobs' configuration.
    ///
    /// # Errors
    /// [`JobsError::Invalid`] names the limit that cannot be used.
    pub fn new(jobs: Jobs, handlers: Handlers) -> Result<Self, JobsError> {
        if let Some((key, problem)) = jobs.config().problem() {
            return Err(JobsError::Invalid(format!("jobs.{key} {problem}")));
        }
        let policy = RetryPolicy::new(jobs.config().retry.clone());
        let policy = policy.map_err(|error| JobsError::Invalid(error.to_string()))?;
        let name = uuid_v7(&**jobs.clock()).to_string();
        let (handlers, rng) = (Arc::new(handlers), SharedRng::from_os());
        Ok(Self { jobs, handlers, name, policy, rng, metrics: JobMetrics::default(), held: Arc::default() })
    }

    /// Counts what it does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: JobMetrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// Spreads retries reproducibly.
    #[must_use]
    pub fn with_rng(mut self, rng: SharedRng) -> Self {
        self.rng = rng;
        self
    }

    /// The name attempts are recorded under: unique to this process.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs until `stop` is ready, then drains: claims nothing more, waits for running jobs for `drain`, gives the rest
    /// back.
    ///
    /// Survives the store's absence: it goes on trying, and reports are kept until they are taken.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let heartbeat = CancellationToken::new();
        let beating = self.beat(heartbeat.clone());
        let working = async {
            self.work(stop).await;
            heartbeat.cancel();
        };
        tokio::join!(beating, working);
    }

    async fn work(&self, stop: impl Future<Output = ()> + Send) {
        let (clock, config) = (self.jobs.clock(), self.jobs.config());
        let limit = usize::try_from(config.concurrency).unwrap_or(usize::MAX);
        let mut running: JoinSet<Report> = JoinSet::new();
        let mut reports: Vec<Report> = Vec::new();
        let mut look = true;
        tokio::pin!(stop);
        loop {
            self.flush(&mut reports).await;
            if look && running.len() < limit {
                // A full answer means that more may wait.
                look = self.claim(limit - running.len(), &mut running).await;
            }
            let idle = clock.sleep(if look && running.len() < limit {
                Duration::ZERO
            } else {
                config.poll_interval
            });
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some(done) = next(&mut running) => {
                    reports.extend(done);
                    while reports.len() < REPORT_BATCH && let Some(done) = running.try_join_next() {
                        reports.extend(done.ok());
                    }
                    look = true;
                }
                () = self.jobs.wake.notified() => look = true,
                () = idle => look = true,
            }
        }
        self.drain(running, reports).await;
    }

    /// Claims up to `free` jobs and starts them; says whether more may be waiting.
    async fn claim(&self, free: usize, running: &mut JoinSet<Report>) -> bool {
        let config = self.jobs.config();
        let request = ClaimRequest {
            worker: self.name.clone(),
            queues: config.queues.clone(),
            kinds: self.handlers.kinds(),
            max: u32::try_from(free).unwrap_or(u32::MAX),
            lease: config.lease,
        };
        let claimed = match self.jobs.store().claim(&request).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "jobs could not be claimed");
                return false;
            }
        };
        let more = claimed.len() >= free;
        for job in claimed {
            if let Some(handler) = self.handlers.get(&job.kind).cloned() {
                running.spawn(self.attempt(job, handler));
            }
        }
        more
    }

    /// One attempt, as a future that never fails and never panics.
    fn attempt(&self, job: Claimed, handler: Handler) -> impl Future<Output = Report> + Send + 'static {
        let cancelled = CancellationToken::new();
        let stopped = cancelled.clone();
        let held = Held { fence: job.fence, cancelled: cancelled.clone(), asked: false };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(job.id, held);
        let (clock, holds, metrics) =
            (Arc::clone(self.jobs.clock()), Arc::clone(&self.held), self.metrics.clone());
        let (limit, mut rng) = (job.timeout.unwrap_or(self.jobs.config().timeout), self.rng.clone());
        let policy = handler.policy.clone().unwrap_or_else(|| self.policy.clone());
        async move {
            let deadline = Deadline::after(&*clock, limit);
            let context = job.context.resume(Source::Job, &*clock).with_deadline(deadline);
            let span = tracing::info_span!(
                "job", id = %job.id, kind = %job.kind, attempt = job.attempt, trace_id = %context.trace.trace_id_hex()
            );
            let began = clock.now();
            let handed = JobContext {
                context,
                id: job.id,
                attempt: job.attempt,
                max_attempts: job.max_attempts,
                cancelled,
            };
            let work = AssertUnwindSafe(async { (handler.run)(handed, job.payload).await }).catch_unwind();
            let work = tracing::Instrument::instrument(work, span);
            let result = match deadline.run(&*clock, work).await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(panicked(&*panic)),
                Err(_) => Err(Error::new(
                    ErrorKind::Timeout,
                    "jobs.timeout",
                    format!("the attempt took longer than {limit:?}"),
                )),
            };
            let asked = {
                let holds = holds.lock().unwrap_or_else(PoisonError::into_inner);
                holds.get(&job.id).is_some_and(|held| held.asked)
            };
            let verdict = match result {
                Ok(value) => Verdict::Completed(value),
                Err(_) if asked => Verdict::Cancelled,
                // Stopped by us, not by its own failure.
                Err(_) if stopped.is_cancelled() => Verdict::Released(Duration::ZERO),
                Err(error) => judge(&error, job.attempt, job.max_attempts, &policy, &mut rng),
            };
            metrics.ended(&job.kind, &verdict, clock.now().saturating_duration_since(began));
            Report { id: job.id, fence: job.fence, verdict }
        }
    }

    /// Writes reports; those that could not be written stay.
    async fn flush(&self, reports: &mut Vec<Report>) {
        while !reports.is_empty() {
            let batch: Vec<Report> = reports.iter().take(REPORT_BATCH).cloned().collect();
            let receipts = match self.jobs.store().report(batch.clone()).await {
                Ok(receipts) => receipts,
                Err(error) => {
                    tracing::warn!(error = %Error::from(error).report(), waiting = reports.len(), "reports could not be written");
                    // The main loop comes back here; until then the heartbeat keeps the leases.
                    self.jobs.clock().sleep(Duration::from_millis(100)).await;
                    return;
                }
            };
            reports.drain(..batch.len());
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            for (report, receipt) in batch.iter().zip(receipts) {
                if held.get(&report.id).is_some_and(|held| held.fence == report.fence) {
                    held.remove(&report.id);
                }
                if receipt == Receipt::Stale {
                    self.metrics.stale();
                    tracing::warn!(job = %report.id, fence = report.fence, "a completion was refused: the lease is another's");
                }
            }
        }
    }

    /// Extends the leases until told to stop, and passes on what it learns.
    async fn beat(&self, stop: CancellationToken) {
        let (clock, config) = (self.jobs.clock(), self.jobs.config());
        let kinds = self.handlers.kinds();
        loop {
            let known: Vec<(JobId, u64)> = {
                let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                held.iter().map(|(id, held)| (*id, held.fence)).collect()
            };
            match self.jobs.store().heartbeat(&self.name, &kinds, &known, config.lease).await {
                Ok(pulse) => self.follow(&known, pulse),
                Err(error) => {
                    tracing::warn!(error = %Error::from(error).report(), "leases could not be extended");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep(config.heartbeat) => {}
            }
        }
    }

    /// Tells handlers whose claim is lost, or whose job is to be cancelled, to stop.
    fn follow(&self, known: &[(JobId, u64)], pulse: Pulse) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, fence) in known.iter().filter(|claim| !pulse.held.contains(claim)) {
            if let Some(held) = held.get(id).filter(|held| held.fence == *fence) {
                held.cancelled.cancel();
            }
        }
        for id in pulse.cancel {
            if let Some(held) = held.get_mut(&id) {
                held.asked = true;
                held.cancelled.cancel();
            }
        }
    }

    async fn drain(&self, mut running: JoinSet<Report>, mut reports: Vec<Report>) {
        let (clock, config) = (self.jobs.clock(), self.jobs.config());
        let deadline = Deadline::after(&**clock, config.drain);
        while let Ok(Some(done)) = deadline.run(&**clock, next(&mut running)).await {
            reports.extend(done);
        }
        // What is still running is told to stop, then cut, and given back without using up an attempt.
        for held in self.held.lock().unwrap_or_else(PoisonError::into_inner).values() {
            held.cancelled.cancel();
        }
        let grace = Deadline::after(&**clock, GRACE);
        while let Ok(Some(done)) = grace.run(&**clock, next(&mut running)).await {
            reports.extend(done);
        }
        running.shutdown().await;
        let finished: Vec<JobId> = reports.iter().map(|report| report.id).collect();
        {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, held) in held.iter().filter(|(id, _)| !finished.contains(id)) {
                reports.push(Report {
                    id: *id,
                    fence: held.fence,
                    verdict: Verdict::Released(Duration::ZERO),
                });
            }
        }
        for _ in 0..50 {
            if reports.is_empty() {
                return;
            }
            self.flush(&mut reports).await;
        }
        tracing::error!(
            jobs = reports.len(),
            "the store took no reports before the end; their leases will run out"
        );
    }
}

/// The next finished attempt; never ready while none runs. The inner `None` is a task that was cut.
async fn next(running: &mut JoinSet<Report>) -> Option<Option<Report>> {
    running.join_next().await.map(Result::ok)
}

/// An internal fault is tried again, since the next deploy may mend it; otherwise the error itself decides.
fn judge(error: &Error, attempt: u32, max: u32, policy: &RetryPolicy, rng: &mut SharedRng) -> Verdict {
    let failure = Failure::from(error);
    let retry = match error.retry() {
        Retry::Never if error.kind() == ErrorKind::Internal || error.kind() == ErrorKind::Timeout => {
            Retry::Backoff
        }
        retry => retry,
    };
    if attempt >= max {
        return Verdict::Dead(failure);
    }
    let delay = policy.next_delay(attempt.min(policy.max_attempts().saturating_sub(1)).max(1), retry, rng);
    delay.map_or(Verdict::Dead(failure.clone()), |delay| Verdict::Retry(delay, failure))
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::new(ErrorKind::Internal, "jobs.panicked", "the handler panicked").with_source(text)
}

/// Takes back expired leases and forgets old jobs until `stop` is ready. Any number may run at once.
pub async fn keep_house(jobs: &Jobs, stop: impl Future<Output = ()> + Send) {
    const BATCH: u32 = 1000;
    let config = jobs.config();
    let retention = Retention {
        completed: config.keep_completed,
        dead: config.keep_dead,
        cancelled: config.keep_cancelled,
    };
    tokio::pin!(stop);
    loop {
        match jobs.store().rescue(BATCH).await {
            Ok(rescued) if rescued.returned + rescued.dead > 0 => {
                tracing::warn!(returned = rescued.returned, dead = rescued.dead, "leases ran out");
                jobs.wake.notify_one();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "expired leases could not be taken back");
            }
        }
        if let Err(error) = jobs.store().prune(&retention, BATCH).await {
            tracing::warn!(error = %Error::from(error).report(), "old jobs could not be forgotten");
        }
        tokio::select! {
            () = &mut stop => return,
            () = jobs.clock().sleep(config.housekeeping) => {}
        }
    }
}
