//! The worker, on a store in memory and a time that passes as soon as nothing else can happen.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use runtime_jobs::{
    AttemptOutcome, Handlers, Job, JobContext, JobId, JobKind, JobState, Jobs, JobsConfig, Limit,
    MemoryStore, NewJob, Worker, keep_house,
};
use runtime_kernel::{Context, Deadline, Error, ErrorKind, Retry, SharedClock, Source};
use runtime_testkit::PausedClock;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::crash::faulty::Faulty;
use super::crash::gate::{Fault, Gate};

#[derive(Serialize, Deserialize)]
struct Double {
    n: u64,
}

impl JobKind for Double {
    const KIND: &'static str = "double";
}

/// Jobs in memory, their worker's house kept, on paused time.
struct House {
    clock: SharedClock,
    jobs: Jobs,
}

impl House {
    fn new(config: JobsConfig) -> Self {
        let clock = PausedClock::shared();
        Self { jobs: Jobs::new(MemoryStore::new(Arc::clone(&clock)), config, Arc::clone(&clock)), clock }
    }

    fn context(&self) -> Context {
        Context::new(Source::Internal, &*self.clock)
    }

    async fn enqueue(&self, job: NewJob) -> JobId {
        self.jobs.enqueue(&self.context(), job).await.unwrap().id
    }

    async fn get(&self, id: JobId) -> Job {
        self.jobs.get(&self.context(), id).await.unwrap()
    }

    /// Runs a worker until every job given has ended.
    async fn work_off(&self, handlers: Handlers, ids: &[JobId]) -> Vec<Job> {
        let worker = Worker::new(self.jobs.clone(), handlers).unwrap();
        let stop = CancellationToken::new();
        let watch = async {
            let mut ended = Vec::new();
            for id in ids {
                loop {
                    let job = self.get(*id).await;
                    if job.state.is_finished() {
                        ended.push(job);
                        break;
                    }
                    self.clock.sleep(Duration::from_millis(100)).await;
                }
            }
            stop.cancel();
            ended
        };
        let house = keep_house(&self.jobs, stop.clone().cancelled_owned());
        let ((ended, ()), ()) =
            tokio::join!(async { tokio::join!(watch, worker.run(stop.clone().cancelled_owned())) }, house);
        ended
    }

    async fn work_off_one(&self, handlers: Handlers, job: NewJob) -> Job {
        let id = self.enqueue(job).await;
        self.work_off(handlers, &[id]).await.pop().unwrap()
    }
}

fn house() -> House {
    House::new(JobsConfig::default())
}

fn a() -> NewJob {
    NewJob::new("a", json!(null))
}

fn handle<F, Fut>(handler: F) -> Handlers
where
    F: Fn(JobContext, Value) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, Error>> + Send + 'static,
{
    Handlers::new().handle_value("a", handler)
}

fn failing(error: fn() -> Error) -> Handlers {
    handle(move |_, _| async move { Err(error()) })
}

#[tokio::test(start_paused = true)]
async fn a_typed_handler_gets_its_payload_and_its_result_is_kept() {
    let handlers = Handlers::new().handle(|_, job: Double| async move { Ok(job.n * 2) });
    let done = house().work_off_one(handlers, NewJob::new("double", json!({ "n": 21 }))).await;
    assert_eq!((done.state, done.result), (JobState::Completed, Some(json!(42))));
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_does_not_parse_is_dead_at_once_with_the_reason() {
    let handlers = Handlers::new().handle(|_, job: Double| async move { Ok(job.n) });
    let dead = house().work_off_one(handlers, NewJob::new("double", json!({ "m": 1 }))).await;
    assert_eq!((dead.state, dead.attempts.len()), (JobState::Dead, 1));
    let error = dead.attempts[0].error.clone().unwrap();
    assert_eq!(error.code, "jobs.payload_unreadable");
    assert!(error.message.contains("missing field `n`"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn the_error_decides_whether_a_job_is_tried_again() {
    for (error, attempts, code) in [
        ((|| Error::new(ErrorKind::Invalid, "t.invalid", "never works")) as fn() -> Error, 1, "t.invalid"),
        (|| Error::new(ErrorKind::Unavailable, "t.away", "may work later"), 3, "t.away"),
        (|| Error::internal("a bug, mended by the next deploy"), 3, "internal"),
        (|| panic!("a handler that panics"), 3, "jobs.panicked"),
    ] {
        let dead = house().work_off_one(failing(error), a().max_attempts(3)).await;
        assert_eq!((dead.state, dead.attempts.len()), (JobState::Dead, attempts), "{dead:?}");
        assert!(dead.attempts.iter().all(|attempt| attempt.error.as_ref().unwrap().code == code), "{dead:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_at_least_as_long_as_the_error_asks() {
    let asks = || {
        Error::new(ErrorKind::RateLimited, "t", "slow down").with_retry(Retry::After(Duration::from_mins(10)))
    };
    let dead = house().work_off_one(failing(asks), a().max_attempts(2)).await;
    let waited = dead.attempts[1].started_at.duration_since(dead.attempts[0].finished_at.unwrap());
    assert!((600..660).contains(&waited.as_secs()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_cut_and_tried_again() {
    let job = a().timeout(Duration::from_secs(3)).max_attempts(2);
    let dead = house().work_off_one(handle(|_, _| std::future::pending()), job).await;
    assert_eq!((dead.state, dead.attempts.len()), (JobState::Dead, 2));
    for attempt in &dead.attempts {
        let took = attempt.finished_at.unwrap().duration_since(attempt.started_at);
        assert_eq!(attempt.error.as_ref().unwrap().code, "jobs.timeout");
        assert_eq!(took.as_secs(), 3, "{took:?}");
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("what the handler held panics");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_when_it_is_cut_short_has_failed_and_holds_nobody_up() {
    let handler = |_, _| async {
        let _held = PanicsWhenDropped;
        std::future::pending().await
    };
    let dead =
        house().work_off_one(handle(handler), a().timeout(Duration::from_secs(3)).max_attempts(2)).await;
    assert_eq!((dead.state, dead.attempts.len()), (JobState::Dead, 2));
    let code = |attempt: &runtime_jobs::Attempt| attempt.error.as_ref().unwrap().code.clone();
    assert!(dead.attempts.iter().all(|attempt| code(attempt) == "jobs.panicked"), "{dead:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_outlasts_its_lease_keeps_it_by_heartbeats() {
    let house = house();
    let (clock, lease) = (Arc::clone(&house.clock), house.jobs.config().lease);
    let handlers = handle(move |_, _| {
        let clock = Arc::clone(&clock);
        async move {
            clock.sleep(lease * 5).await;
            Ok(json!("slow and steady"))
        }
    });
    let done = house.work_off_one(handlers, a()).await;
    assert_eq!((done.state, done.attempts.len()), (JobState::Completed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_job_waits_for_its_time_and_the_urgent_come_first() {
    let mut config = JobsConfig::default();
    config.concurrency = 1;
    let house = House::new(config);
    let order = Arc::new(Mutex::new(Vec::new()));
    let later = house.clock.utc().checked_add(Duration::from_mins(5)).unwrap();
    let ids = [
        house.enqueue(NewJob::new("a", json!("later")).run_at(later).priority(-9)).await,
        house.enqueue(NewJob::new("a", json!("usual"))).await,
        house.enqueue(NewJob::new("a", json!("urgent")).priority(-1)).await,
    ];
    let seen = Arc::clone(&order);
    let handlers = handle(move |_, payload| {
        seen.lock().unwrap().push(payload);
        async { Ok(json!(null)) }
    });
    let ended = house.work_off(handlers, &ids).await;
    assert_eq!(*order.lock().unwrap(), [json!("urgent"), json!("usual"), json!("later")]);
    assert!(ended[0].attempts[0].started_at >= later);
}

#[tokio::test(start_paused = true)]
async fn never_more_run_at_once_than_configured() {
    let mut config = JobsConfig::default();
    config.concurrency = 3;
    let house = House::new(config);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(house.enqueue(a()).await);
    }
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (clock, highest) = (Arc::clone(&house.clock), Arc::clone(&most));
    let handlers = handle(move |_, _| {
        let (clock, now, highest) = (Arc::clone(&clock), Arc::clone(&now), Arc::clone(&highest));
        async move {
            highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            clock.sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(json!(null))
        }
    });
    let ended = house.work_off(handlers, &ids).await;
    assert!(ended.iter().all(|job| job.state == JobState::Completed));
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_finds_nothing_asks_when_there_will_be_something() {
    let mut config = JobsConfig::default();
    config.poll_interval = Duration::from_hours(1);
    let house = House::new(config);
    let soon = house.clock.utc().saturating_add(Duration::from_secs(5));
    let job = house.work_off_one(handle(|_, _| async { Ok(Value::Null) }), a().run_at(soon)).await;
    let late = job.finished_at.unwrap().duration_since(soon);
    assert!(late < Duration::from_mins(1), "{late:?} late");
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_no_reason_to_ask_the_store() {
    let asked = Arc::new(AtomicUsize::new(0));
    let clock = PausedClock::shared();
    let store = Arc::new(MemoryStore::new(Arc::clone(&clock)));
    let store = Faulty(store, Arc::new(Gate::new(Fault::Kill)), Arc::clone(&asked));
    let mut config = JobsConfig::default();
    config.poll_interval = Duration::from_hours(1);
    let house = House { jobs: Jobs::new(store, config, Arc::clone(&clock)), clock };
    let worker = Worker::new(house.jobs.clone(), handle(|_, _| async { Ok(Value::Null) })).unwrap();
    let stop = CancellationToken::new();
    let feed = async {
        for _ in 0..20 {
            let lot = (0..100).map(|_| a()).collect();
            let lot = house.jobs.enqueue_many(&house.context(), lot).await.unwrap();
            for job in lot {
                while !house.get(job.id).await.state.is_finished() {
                    house.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
        stop.cancel();
    };
    tokio::join!(feed, worker.run(stop.clone().cancelled_owned()));
    // Once or twice for each lot, when all of it is claimed.
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 60, "asked {asked} times for 20 lots");
}

#[tokio::test(start_paused = true)]
async fn a_cancel_from_elsewhere_reaches_the_running_handler() {
    let house = house();
    let (jobs, asker) = (house.jobs.clone(), house.context());
    let handlers = handle(move |job, _| {
        let (jobs, asker) = (jobs.clone(), asker.clone());
        async move {
            jobs.cancel(&asker, job.id).await?;
            job.cancelled.cancelled().await;
            Err(Error::new(ErrorKind::Cancelled, "t", "stopped as asked"))
        }
    });
    let ended = house.work_off_one(handlers, a()).await;
    assert_eq!(
        (ended.state, ended.attempts.len(), ended.attempts[0].outcome),
        (JobState::Cancelled, 1, Some(AttemptOutcome::Cancelled))
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_what_does_not_finish_and_costs_no_attempt() {
    let (house, began) = (house(), Arc::new(AtomicUsize::new(0)));
    let stop = CancellationToken::new();
    let (count, stopper) = (Arc::clone(&began), stop.clone());
    let handlers = handle(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
        stopper.cancel();
        std::future::pending()
    });
    let id = house.enqueue(a()).await;
    let before = house.clock.now();
    Worker::new(house.jobs.clone(), handlers).unwrap().run(stop.cancelled_owned()).await;
    let (job, took) = (house.get(id).await, house.clock.now() - before);
    assert_eq!(began.load(Ordering::Relaxed), 1);
    assert_eq!((job.state, job.attempt), (JobState::Available, 0));
    assert_eq!(job.attempts[0].outcome, Some(AttemptOutcome::Released));
    assert!(took >= house.jobs.config().drain && took < house.jobs.config().drain * 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_stops_when_told_to_at_the_end_of_a_drain_has_not_failed() {
    let house = house();
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    let handlers = handle(move |job, _| {
        stopper.cancel();
        async move {
            job.cancelled.cancelled().await;
            Err(Error::new(ErrorKind::Invalid, "t", "half done"))
        }
    });
    let id = house.enqueue(a()).await;
    Worker::new(house.jobs.clone(), handlers).unwrap().run(stop.cancelled_owned()).await;
    let job = house.get(id).await;
    assert_eq!(
        (job.state, job.attempt, job.attempts[0].outcome),
        (JobState::Available, 0, Some(AttemptOutcome::Released))
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_finishes_in_time() {
    let house = house();
    let stop = CancellationToken::new();
    let (clock, stopper) = (Arc::clone(&house.clock), stop.clone());
    let handlers = handle(move |_, _| {
        stopper.cancel();
        let clock = Arc::clone(&clock);
        async move {
            clock.sleep(Duration::from_secs(5)).await;
            Ok(json!("in time"))
        }
    });
    let (first, second) = (house.enqueue(a()).await, house.enqueue(a().queue("another")).await);
    Worker::new(house.jobs.clone(), handlers).unwrap().run(stop.cancelled_owned()).await;
    assert_eq!(house.get(first).await.state, JobState::Completed);
    assert_eq!(house.get(second).await.state, JobState::Available, "of a queue it does not serve");
}

#[tokio::test(start_paused = true)]
async fn a_kind_nobody_handles_stays_queued_and_is_reported() {
    let house = house();
    let nobody = house.enqueue(NewJob::new("nobody", json!(null))).await;
    let done = house.work_off_one(handle(|_, _| async { Ok(json!(null)) }), a()).await;
    assert_eq!(done.state, JobState::Completed);
    assert_eq!(house.get(nobody).await.state, JobState::Available);
    assert_eq!(house.jobs.stats().await.unwrap().unhandled, ["nobody"]);
}

#[tokio::test(start_paused = true)]
async fn a_job_keeps_the_trace_and_not_the_deadline_of_the_request_that_enqueued_it() {
    let house = house();
    let request = house.context().with_deadline(Deadline::after(&*house.clock, Duration::from_secs(1)));
    let id = house.jobs.enqueue(&request, a().timeout(Duration::from_mins(2))).await.unwrap().id;
    house.clock.sleep(Duration::from_mins(1)).await;
    let clock = Arc::clone(&house.clock);
    let handlers = handle(move |job, _| {
        let left = job.context.deadline.remaining(&*clock).map(|left| left.as_secs());
        let trace = job.context.trace.trace_id_hex();
        async move { Ok(json!({ "left": left, "trace": trace })) }
    });
    let done = house.work_off(handlers, &[id]).await.pop().unwrap();
    assert_eq!(done.result, Some(json!({ "left": 120, "trace": request.trace.trace_id_hex() })));
}

#[tokio::test(start_paused = true)]
async fn a_snoozed_job_waits_without_using_up_attempts() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let handlers = handle(move |context, _| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        async move { if n < 5 { Err(context.snooze(Duration::from_mins(1))) } else { Ok(json!(context.attempt)) } }
    });
    let done = house().work_off_one(handlers, a().max_attempts(1)).await;
    assert_eq!((done.state, done.result), (JobState::Completed, Some(json!(1))));
    assert!(done.attempts[..5].iter().all(|attempt| attempt.outcome == Some(AttemptOutcome::Released)));
    let took = done.finished_at.unwrap().duration_since(done.created_at);
    assert!(took.as_secs() >= 300, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_later_attempt_goes_on_from_the_checkpoint() {
    let handlers = handle(|context, _| async move {
        let from: u32 = context.last_checkpoint().await.unwrap().unwrap_or_default();
        for row in from..10 {
            context.checkpoint(&(row + 1)).await.unwrap();
            context.progress(&json!({ "rows": row + 1 })).await.unwrap();
            if row % 4 == 3 {
                return Err(Error::new(ErrorKind::Unavailable, "t.away", "may work later"));
            }
        }
        Ok(json!({ "began_at": from }))
    });
    let house = house();
    let done = house.work_off_one(handlers, a()).await;
    assert_eq!((done.attempts.len(), done.result), (3, Some(json!({ "began_at": 8 }))));
    let kept = house.jobs.progress(&house.context(), done.id).await.unwrap();
    assert_eq!(kept.progress, Some(json!({ "rows": 10 })));
}

#[tokio::test(start_paused = true)]
async fn a_later_attempt_is_a_trace_of_its_own() {
    let traces: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&traces);
    let handlers = handle(move |context, _| {
        seen.lock().unwrap().push(context.context.trace.trace_id_hex());
        async move { Err(Error::new(ErrorKind::Unavailable, "t.away", "may work later")) }
    });
    let dead = house().work_off_one(handlers, a().max_attempts(3)).await;
    let traces = traces.lock().unwrap();
    assert!(dead.context.traceparent.contains(&traces[0]), "the first continues what enqueued it");
    assert!(traces[1] != traces[0] && traces[2] != traces[1]);
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_key_run_under_the_limit_of_their_kind() {
    for (limit, most) in [(None, 1), (Some(Limit::concurrency(3)), 3)] {
        let (at_once, highest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (running, seen) = (Arc::clone(&at_once), Arc::clone(&highest));
        let house = house();
        let clock = Arc::clone(&house.clock);
        let mut handlers = handle(move |_, _| {
            let (running, seen, clock) = (Arc::clone(&running), Arc::clone(&seen), Arc::clone(&clock));
            async move {
                seen.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                clock.sleep(Duration::from_secs(1)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(json!(null))
            }
        });
        if let Some(limit) = limit {
            handlers = handlers.limit("a", limit);
        }
        let mut ids = Vec::new();
        for _ in 0..9 {
            ids.push(house.enqueue(a().key("one")).await);
        }
        house.work_off(handlers, &ids).await;
        assert_eq!(highest.load(Ordering::SeqCst), most);
    }
}

#[cfg(feature = "seal")]
#[tokio::test(start_paused = true)]
async fn a_sealed_payload_is_read_by_its_handler_and_by_nobody_else() {
    use runtime_jobs::Keyring;

    let mut house = house();
    house.jobs = house.jobs.clone().sealed_with(Keyring::new("2026", &[7; 32]));
    let handlers = Handlers::new().handle(|_, job: Double| async move { Ok(job.n * 2) });
    let done = house.work_off_one(handlers, NewJob::new("double", json!({ "n": 21 }))).await;
    assert_eq!((done.state, done.result), (JobState::Completed, Some(json!(42))));
    let stored = done.payload.to_string();
    assert!(stored.contains("$sealed") && !stored.contains("21}"), "{stored}");
}
