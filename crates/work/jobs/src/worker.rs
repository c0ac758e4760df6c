//! Claims jobs, runs their handlers, keeps their leases and reports how they ended.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::{Deadline, Error, uuid_v7};
use runtime_resilience::{RetryPolicy, SharedRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::JobsError;
use crate::handler::Handlers;
use crate::local::{InHand, Local};
use crate::metrics::JobMetrics;
use crate::queue::Jobs;
use crate::store::{ClaimRequest, Receipt, Retention, Verdict};

/// The most reports written in one transaction.
const REPORT_BATCH: usize = 2048;

/// Reports are written as soon as there are so many, or when the first has waited for [`LINGER`].
const REPORT_FULL: usize = 512;
const LINGER: Duration = Duration::from_millis(2);

/// While reports come in smaller groups than this, nobody waits for company.
const CROWD: usize = 8;

/// How long a handler may take to stop once told to, at the end of a drain.
const GRACE: Duration = Duration::from_millis(250);

/// How much work is claimed ahead, as time.
const AHEAD: Duration = Duration::from_millis(100);

/// Runs jobs of the kinds it has handlers for.
///
/// A job is run at least once. A report is refused when the lease was lost meanwhile, so its record shows exactly one
/// ending; make effects outside safe to repeat with the job's id as idempotency key.
///
/// Claims and reports are batched by how fast the jobs are: quick jobs are claimed up to `prefetch` ahead, about a tenth
/// of a second's work, and reported together after at most 2 ms; a job that takes seconds is claimed when there is room to
/// run it and reported at once.
pub struct Worker {
    jobs: Jobs,
    name: String,
    local: Arc<Local>,
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
        let local = Local::new(handlers, jobs.clone(), policy, SharedRng::from_os());
        Ok(Self { jobs, name, local: Arc::new(local) })
    }

    /// Counts what it does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: JobMetrics) -> Self {
        if let Some(local) = Arc::get_mut(&mut self.local) {
            local.metrics = metrics;
        }
        self
    }

    /// Spreads retries reproducibly.
    #[must_use]
    pub fn with_rng(mut self, rng: SharedRng) -> Self {
        if let Some(local) = Arc::get_mut(&mut self.local) {
            local.rng = rng;
        }
        self
    }

    /// The name attempts are recorded under: unique to this process.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs until `stop` is ready, then drains: claims nothing more, gives back what it has not begun, waits for running
    /// jobs for `drain`, gives the rest back.
    ///
    /// Survives the store's absence: it goes on trying, and reports are kept until they are taken. When dropped, its jobs
    /// are cut and come back once their leases have run out.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let mut helpers = JoinSet::new();
        let ended = CancellationToken::new();
        helpers.spawn(beat(self.jobs.clone(), self.name.clone(), Arc::clone(&self.local), ended.clone()));
        helpers.spawn(listen(self.jobs.clone(), ended.clone()));
        let reported = CancellationToken::new();
        helpers.spawn(report(self.jobs.clone(), Arc::clone(&self.local), reported.clone()));
        let mut runners = JoinSet::new();
        self.work(stop, &mut runners).await;
        self.drain(runners).await;
        reported.cancel();
        while !self.local.is_settled() && !self.local.given_up() {
            self.local.settled.notified().await;
        }
        ended.cancel();
        while helpers.join_next().await.is_some() {}
    }

    /// Claims whenever there is room, until told to stop.
    async fn work(&self, stop: impl Future<Output = ()> + Send, runners: &mut JoinSet<()>) {
        let (clock, config) = (self.jobs.clock(), self.jobs.config());
        let concurrency = usize::try_from(config.concurrency).unwrap_or(usize::MAX);
        let limit = usize::try_from(config.prefetch).unwrap_or(usize::MAX);
        let mut request = ClaimRequest {
            worker: self.name.clone(),
            queues: config.queues.clone(),
            kinds: self.local.handlers.kinds(),
            max: 0,
            lease: config.lease,
            limits: self.local.handlers.limits().into_iter().chain(config.limits.clone()).collect(),
        };
        let (mut look, mut ahead, mut since) = (true, 0, clock.now());
        // The last claim found nothing: what there may be is not for this worker now.
        let mut in_vain = false;
        tokio::pin!(stop);
        loop {
            while runners.try_join_next().is_some() {}
            let InHand { queued, running, ended } = self.local.in_hand();
            let room = (concurrency + ahead).saturating_sub(queued + running);
            let mut wait = None;
            if look && room > 0 && queued <= ahead / 2 {
                request.max = u32::try_from(room).unwrap_or(u32::MAX);
                let until = clock.now() + config.lease;
                match self.jobs.store().claim(&request).await {
                    Ok(claimed) => {
                        // A full answer means that more may wait.
                        look = claimed.len() >= room;
                        in_vain = claimed.is_empty();
                        let now = clock.now();
                        ahead =
                            if look { work_within(ended, now.duration_since(since)).min(limit) } else { 0 };
                        since = now;
                        self.local.start(claimed, until, concurrency, runners);
                    }
                    Err(error) => {
                        tracing::warn!(error = %Error::from(error).report(), "jobs could not be claimed");
                        look = false;
                    }
                }
                // Having found nothing, it asks how long there will be nothing.
                if look || in_vain {
                    continue;
                }
            } else if !look {
                match self.jobs.store().probe(&request).await {
                    Ok(probe) if probe.due && !in_vain => {
                        look = true;
                        continue;
                    }
                    Ok(probe) => wait = probe.next,
                    Err(error) => {
                        tracing::warn!(error = %Error::from(error).report(), "the store gave no answer");
                    }
                }
            }
            let idle = clock.sleep(wait.unwrap_or(config.poll_interval).min(config.poll_interval));
            tokio::select! {
                biased;
                () = &mut stop => break,
                // A runner went home, so there is room for what is known to wait.
                Some(_) = runners.join_next(), if look => {}
                // What has ended may have let in who waited for its key.
                () = self.local.room.notified() => in_vain = false,
                () = self.jobs.wake.notified() => look = true,
                () = idle => in_vain = false,
            }
        }
    }

    async fn drain(&self, mut runners: JoinSet<()>) {
        let (clock, config) = (self.jobs.clock(), self.jobs.config());
        self.local.give_back_queued();
        let deadline = Deadline::after(&**clock, config.drain);
        while let Ok(Some(_)) = deadline.run(&**clock, runners.join_next()).await {}
        // What is still running is told to stop, then cut, and given back without using up an attempt.
        self.local.stop_all();
        let grace = Deadline::after(&**clock, GRACE);
        while let Ok(Some(_)) = grace.run(&**clock, runners.join_next()).await {}
        runners.shutdown().await;
        self.local.give_back_running();
    }
}

/// How many jobs to claim ahead, when so many ended within a time.
fn work_within(ended: usize, time: Duration) -> usize {
    let time = time.as_nanos().max(1);
    usize::try_from((ended as u128).saturating_mul(AHEAD.as_nanos()) / time).unwrap_or(usize::MAX)
}

/// Writes reports until `last`, then what is left, trying for a while.
async fn report(jobs: Jobs, local: Arc<Local>, last: CancellationToken) {
    let mut crowd = 0;
    let mut refused = 0;
    loop {
        if local.reports() == 0 {
            if last.is_cancelled() {
                return;
            }
            tokio::select! {
                () = local.reported.notified() => {}
                () = last.cancelled() => {}
            }
            continue;
        }
        if crowd >= CROWD && local.reports() < REPORT_FULL && !last.is_cancelled() {
            tokio::select! {
                () = local.full(REPORT_FULL) => {}
                () = jobs.clock().sleep(LINGER) => {}
            }
        }
        let batch = local.take_reports(REPORT_BATCH);
        crowd = batch.len();
        match jobs.store().report(batch.clone()).await {
            Ok(receipts) => {
                refused = 0;
                for (report, receipt) in batch.iter().zip(&receipts) {
                    if *receipt == Receipt::Stale {
                        local.metrics.stale();
                        let (job, fence) = (report.id, report.fence);
                        tracing::warn!(%job, fence, "a completion was refused: the lease is another's");
                    }
                }
                let again = batch
                    .iter()
                    .any(|report| matches!(report.verdict, Verdict::Retry(..) | Verdict::Released(_)));
                local.forget(&batch);
                if again {
                    jobs.wake.notify_one();
                } else {
                    local.room.notify_one();
                }
            }
            Err(error) => {
                let waiting = batch.len();
                tracing::warn!(error = %Error::from(error).report(), waiting, "reports could not be written");
                local.put_back(batch);
                refused += 1;
                if last.is_cancelled() && refused >= 50 {
                    let jobs = local.reports();
                    tracing::error!(
                        jobs,
                        "the store took no reports before the end; their leases will run out"
                    );
                    local.give_up();
                    return;
                }
                // Until then the heartbeat keeps the leases.
                jobs.clock().sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Wakes the worker when another process has enqueued something.
async fn listen(jobs: Jobs, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = jobs.store().announced() => jobs.wake.notify_one(),
        }
    }
}

/// Extends the leases until told to stop, and passes on what it learns.
async fn beat(jobs: Jobs, worker: String, local: Arc<Local>, stop: CancellationToken) {
    let (clock, config) = (jobs.clock(), jobs.config());
    let kinds = local.handlers.kinds();
    loop {
        let (known, until) = (local.leases(), clock.now() + config.lease);
        match jobs.store().heartbeat(&worker, &kinds, &known, config.lease).await {
            Ok(pulse) => local.follow(&known, &pulse, until),
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

/// How often old jobs are forgotten.
const FORGET: Duration = Duration::from_mins(1);

/// Takes back expired leases and forgets old jobs until `stop` is ready. Any number may run at once.
pub async fn keep_house(jobs: &Jobs, stop: impl Future<Output = ()> + Send) {
    const LEASES: u32 = 100;
    const JOBS: u32 = 5000;
    let (clock, config) = (jobs.clock(), jobs.config());
    let retention = Retention {
        completed: config.keep_completed,
        dead: config.keep_dead,
        cancelled: config.keep_cancelled,
    };
    let mut forget_at = clock.now();
    tokio::pin!(stop);
    loop {
        match jobs.store().rescue(LEASES).await {
            Ok(rescued) if rescued.returned + rescued.dead > 0 => {
                tracing::warn!(returned = rescued.returned, dead = rescued.dead, "leases ran out");
                jobs.wake.notify_one();
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %Error::from(error).report(), "expired leases could not be taken back");
            }
        }
        let mut pause = config.housekeeping;
        if clock.now() >= forget_at {
            match jobs.store().prune(&retention, JOBS).await {
                // There may be more.
                Ok(forgotten) if forgotten >= u64::from(JOBS) => pause = Duration::ZERO,
                Ok(_) => forget_at = clock.now() + FORGET,
                Err(error) => {
                    forget_at = clock.now() + FORGET;
                    tracing::warn!(error = %Error::from(error).report(), "old jobs could not be forgotten");
                }
            }
        }
        tokio::select! {
            () = &mut stop => return,
            () = clock.sleep(pause) => {}
        }
    }
}
