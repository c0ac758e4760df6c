//! Flows and batches as handlers and producers see them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_jobs::{
    Batched, Flow, FlowError, Handlers, JobContext, JobState, Jobs, JobsConfig, JobsError, MAX_PREREQUISITES,
    MemoryStore, NewBatch, NewJob, Trigger, Worker,
};
use runtime_kernel::{Context, Error, ErrorKind, SharedClock, Source};
use runtime_testkit::PausedClock;
use serde_json::{Value, json};

struct House {
    clock: SharedClock,
    jobs: Jobs,
    context: Context,
}

impl House {
    /// Nothing is found by polling within a test's time.
    fn new() -> Self {
        let clock = PausedClock::shared();
        let mut config = JobsConfig::default();
        config.poll_interval = Duration::from_hours(1);
        let jobs = Jobs::new(MemoryStore::new(Arc::clone(&clock)), config, Arc::clone(&clock));
        Self { context: Context::new(Source::Http, &*clock), jobs, clock }
    }

    /// Runs a worker until nothing is left to do.
    async fn work_off(&self, handlers: Handlers) {
        let began = self.clock.now();
        let done = async {
            while !self.jobs.stats().await.unwrap().depths.is_empty() {
                self.clock.sleep(Duration::from_millis(100)).await;
            }
        };
        Worker::new(self.jobs.clone(), handlers).unwrap().run(done).await;
        assert!(
            self.clock.now() - began < Duration::from_mins(10),
            "something was left to be found by a poll"
        );
    }
}

fn job(kind: &str) -> NewJob {
    NewJob::new(kind, json!(null))
}

#[tokio::test(start_paused = true)]
async fn a_flow_runs_in_order_and_each_job_reads_what_it_waited_for() {
    let house = House::new();
    let flow = Flow::new()
        .job("sum", &["left", "right"], job("sum"))
        .job("left", &["root"], job("add").key("k"))
        .job("right", &["root"], job("add"))
        .job("root", &[], job("one"));
    let flow = house.jobs.enqueue_flow(&house.context, flow).await.unwrap();
    let traces: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&traces);
    let handlers = Handlers::new()
        .handle_value("one", |_, _| async { Ok(json!(1)) })
        .handle_value("add", |job: JobContext, _| async move {
            let root = job.prerequisites().await?;
            Ok(json!(root[0].parse::<u32>()? + 1))
        })
        .handle_value("sum", |job: JobContext, _| async move {
            let mut sum = 0;
            for (prior, name) in job.prerequisites().await?.iter().zip(["left", "right"]) {
                assert_eq!((prior.name.as_deref(), prior.state), (Some(name), Some(JobState::Completed)));
                sum += prior.parse::<u32>()?;
            }
            Ok(json!(sum))
        })
        .layer(move |job, next| {
            seen.lock().unwrap().push(job.context.trace.trace_id_hex());
            next.run(job)
        });
    house.work_off(handlers).await;
    let sum = house.jobs.get(&house.context, flow["sum"].id).await.unwrap();
    assert_eq!((sum.state, sum.result), (JobState::Completed, Some(json!(4))));
    let links = house.jobs.links(&house.context, flow["sum"].id).await.unwrap();
    assert_eq!(
        links.after.iter().map(|prior| prior.id).collect::<Vec<_>>(),
        [flow["left"].id, flow["right"].id]
    );
    let trace = house.context.trace.trace_id_hex();
    assert_eq!(*traces.lock().unwrap(), vec![trace; 4], "each continues the trace that enqueued the flow");
}

#[tokio::test(start_paused = true)]
async fn a_flow_cleans_up_after_a_failure_and_tells_why() {
    let house = House::new();
    let flow = Flow::new()
        .job("make", &[], job("fine"))
        .job("use", &["make"], job("fails"))
        .job("ship", &["use"], job("fine"))
        .job("clean", &["ship", "use"], job("clean").trigger(Trigger::Ended));
    let flow = house.jobs.enqueue_flow(&house.context, flow).await.unwrap();
    let handlers = Handlers::new()
        .handle_value("fine", |_, payload| async { Ok(payload) })
        .handle_value("fails", |_, _| async {
            Err(Error::new(ErrorKind::Invalid, "t.broken", "it is broken"))
        })
        .handle_value("clean", |job: JobContext, _| async move {
            let why = job.prerequisites().await?.into_iter().map(|prior| prior.failure.unwrap().code);
            Ok(json!(why.collect::<Vec<_>>()))
        });
    house.work_off(handlers).await;
    let clean = house.jobs.get(&house.context, flow["clean"].id).await.unwrap();
    assert_eq!(clean.result, Some(json!(["jobs.prerequisite_failed", "t.broken"])));
    let ship = house.jobs.get(&house.context, flow["ship"].id).await.unwrap();
    assert_eq!(ship.state, JobState::Cancelled);
    assert!(ship.reason.unwrap().message.contains(&flow["use"].id.to_string()));
}

#[tokio::test(start_paused = true)]
async fn a_loader_adds_to_its_batch_and_the_callback_sees_the_counts() {
    let house = House::new();
    let batch = NewBatch::new([job("load")])
        .on_success(job("done"))
        .on_failure(job("warn"))
        .on_end(job("done").queue("default"));
    let Batched { id, callbacks, .. } = house.jobs.enqueue_batch(&house.context, batch).await.unwrap();
    let handlers = Handlers::new()
        .handle_value("load", |job: JobContext, _| async move {
            for _ in 0..3 {
                job.add_to_batch((0..10).map(|n| NewJob::new("part", json!(n))).collect()).await?;
            }
            Ok(json!(null))
        })
        .handle_value("part", |_, payload: Value| async { Ok(payload) })
        .handle_value("warn", |_, payload| async { Ok(payload) })
        .handle_value("done", |job: JobContext, _| async move {
            let batch = job.batch().await?.ok_or_else(|| Error::internal("a callback has a batch"))?;
            let refused = job.add_to_batch(vec![NewJob::new("part", json!(0))]).await;
            assert!(matches!(refused, Err(JobsError::Invalid(_))), "a callback is no member");
            Ok(json!([batch.total, batch.completed, batch.open]))
        });
    house.work_off(handlers).await;
    for (callback, state) in
        callbacks.iter().zip([JobState::Completed, JobState::Cancelled, JobState::Completed])
    {
        let job = house.jobs.get(&house.context, callback.id).await.unwrap();
        assert_eq!(job.state, state);
        assert_eq!(job.result, (state == JobState::Completed).then(|| json!([31, 31, 0])));
    }
    assert_eq!(house.jobs.batch(&house.context, id).await.unwrap().completed, 31);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_tied_together_is_refused_before_anything_is_stored() {
    let house = House::new();
    let (jobs, context) = (&house.jobs, &house.context);
    let circle = Flow::new().job("a", &["b"], job("a")).job("b", &["a"], job("a"));
    let refused = jobs.enqueue_flow(context, circle).await.unwrap_err();
    assert!(
        matches!(&refused, JobsError::Flow(FlowError::Cycle(names)) if names == &["a", "b", "a"]),
        "{refused:?}"
    );
    let too_large = Flow::new().job("a", &[], NewJob::new("a", json!("x".repeat(2 << 20))));
    assert!(matches!(jobs.enqueue_flow(context, too_large).await, Err(JobsError::TooLarge { .. })));
    let first = jobs.enqueue(context, job("a")).await.unwrap().id;
    let many = jobs.enqueue_many(context, (0..=MAX_PREREQUISITES).map(|_| job("a")).collect()).await.unwrap();
    let batch = jobs.enqueue_batch(context, NewBatch::default()).await.unwrap().id;
    for (job, told) in [
        (job("a").after(many.iter().map(|done| done.id)), "at most 1000"),
        (job("a").after([first]).after_batch(batch), "not for both"),
        (job("a").in_batch(batch).after_batch(batch), "the batch it waits for"),
    ] {
        let refused = jobs.enqueue(context, job).await.unwrap_err();
        assert!(matches!(&refused, JobsError::Invalid(message) if message.contains(told)), "{refused:?}");
    }
    assert_eq!(jobs.stats().await.unwrap().depths[0].states["available"], MAX_PREREQUISITES as u64 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_whole_batch_is_cancelled_however_many_it_has() {
    let house = House::new();
    let batch = NewBatch::new((0..1200).map(|_| job("a"))).on_end(job("a"));
    let batch = house.jobs.enqueue_batch(&house.context, batch).await.unwrap();
    assert_eq!(house.jobs.cancel_batch(&house.context, batch.id).await.unwrap(), 1200);
    let stands = house.jobs.batch(&house.context, batch.id).await.unwrap();
    assert_eq!((stands.cancelled, stands.open, stands.closed), (1200, 0, true));
    let end = house.jobs.get(&house.context, batch.callbacks[0].id).await.unwrap();
    assert_eq!(end.state, JobState::Available);
}
