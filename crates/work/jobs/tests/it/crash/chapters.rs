//! A job's life in chapters: every step of it that is durable is in one of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime_jobs::store::{ClaimRequest, Filter, Report, Retention, Verdict};
use runtime_jobs::{Handlers, JobContext, JobState, Limit, NewJob, Worker};
use runtime_kernel::{Error, Retry};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::ties;
use super::world::{LEASE, Process, job, keyed};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Chapter {
    /// One, many at once, unique for as long as it is unfinished and for a period, with a key, for later, in a
    /// transaction of the user's.
    Enqueue,
    /// Claims, heartbeats, progress, and every way to report.
    Work,
    /// Keys: who waits is parked, promoted, cancelled.
    Keys,
    /// Cancels of what waits and what runs, dead letters and their redrive.
    Remedy,
    /// Rescue, pause, resume, drain, prune.
    House,
    /// Flows and batches: what waits is let go, cancelled, counted.
    Ties,
    /// All of it by a real worker, until its drain is over.
    Worker,
}

impl Chapter {
    /// What was there before, made without faults.
    pub(crate) async fn prepare(self, calm: &Process) {
        match self {
            Self::Enqueue | Self::Ties => {}
            Self::Work => {
                let jobs = ["complete", "retry", "dead", "snooze", "release", "progress", "tx"].map(job);
                calm.enqueue(jobs.to_vec()).await;
            }
            Self::Keys => {
                let mut jobs = vec![keyed("two"), keyed("two"), keyed("two"), keyed("two"), keyed("two")];
                jobs.extend([
                    job("complete").key("one"),
                    job("complete").key("one"),
                    job("retry").key("one"),
                ]);
                calm.enqueue(jobs).await;
            }
            Self::Remedy => {
                calm.enqueue(vec![job("dead").unique("u"), job("dead").key("one")]).await;
                calm.turn().await;
            }
            Self::House => {
                let jobs = vec![
                    job("complete"),
                    job("lost").max_attempts(1),
                    job("cancel"),
                    job("complete").key("one"),
                    job("complete").key("one"),
                    job("complete").unique("u"),
                ];
                let ids = calm.enqueue(jobs).await;
                // A process that is never heard from again.
                let request = ClaimRequest {
                    worker: "ghost".to_owned(),
                    queues: vec!["default".to_owned()],
                    kinds: vec!["a".to_owned()],
                    max: 50,
                    lease: LEASE,
                    limits: BTreeMap::new(),
                };
                assert_eq!(calm.store().claim(&request).await.unwrap().len(), 5);
                calm.cancel(ids[2]).await;
                calm.world.clock.advance(LEASE * 2);
                calm.enqueue(vec![job("complete").queue("side"), job("release").queue("side")]).await;
            }
            Self::Worker => {
                let mut jobs = ["complete", "retry", "snooze", "progress", "tx"].map(job).to_vec();
                jobs.extend([
                    job("complete").key("one"),
                    job("complete").key("one"),
                    job("complete").unique("u"),
                ]);
                calm.enqueue(jobs).await;
            }
        }
    }

    pub(crate) async fn play(self, process: &Process) {
        match self {
            Self::Enqueue => enqueue(process).await,
            Self::Work => work(process).await,
            Self::Keys => keys(process).await,
            Self::Remedy => remedy(process).await,
            Self::House => house(process).await,
            Self::Ties => ties::play(process).await,
            Self::Worker => worker(process).await,
        }
    }
}

async fn enqueue(process: &Process) {
    process.enqueue(vec![job("complete")]).await;
    process.enqueue(vec![job("complete").unique("u")]).await;
    // The same again, as who got no answer does.
    process.enqueue(vec![job("complete").unique("u")]).await;
    process.enqueue(vec![job("complete").unique("w").unique_for(Duration::from_mins(10))]).await;
    process.order().await;
    let mut many: Vec<NewJob> = (0..4).map(|_| job("complete")).collect();
    let later = process.world.now().saturating_add(Duration::from_secs(20));
    many.extend([keyed("two"), job("complete").run_at(later), job("complete").unique("v")]);
    process.enqueue(many).await;
}

async fn work(process: &Process) {
    for _ in 0..3 {
        // One at first, so that a lease of one job and a lease of many are both ended.
        let mut claimed = process.claim(1).await;
        claimed.extend(process.claim(50).await);
        let pulse = process.beat(&claimed).await;
        process.settle(claimed, &pulse).await;
        process.world.clock.advance(Duration::from_secs(12));
    }
}

async fn keys(process: &Process) {
    let claimed = process.claim(50).await;
    let waiting = Filter { state: Some(JobState::Available), limit: 50, ..Filter::default() };
    // The youngest of those that wait is parked.
    if let Some(parked) = process.forgive("list", process.store().list(&waiting).await) {
        for job in parked.iter().take(1) {
            process.cancel(job.id).await;
        }
    }
    let pulse = process.beat(&claimed).await;
    process.settle(claimed, &pulse).await;
    let ids = process.enqueue(vec![keyed("two")]).await;
    for id in ids {
        process.cancel(id).await;
    }
    process.turn().await;
    process.turn().await;
}

async fn remedy(process: &Process) {
    let dead = Filter { state: Some(JobState::Dead), limit: 50, ..Filter::default() };
    process.forgive("redrive", process.store().redrive(None, &dead).await);
    let ids =
        process.enqueue(vec![job("cancel"), job("complete").key("one"), job("cancel").unique("x")]).await;
    if let Some(waiting) = ids.get(2) {
        process.cancel(*waiting).await;
    }
    let claimed = process.claim(50).await;
    if let Some(running) = ids.first() {
        process.cancel(*running).await;
    }
    let pulse = process.beat(&claimed).await;
    process.settle(claimed, &pulse).await;
    process.turn().await;
}

async fn house(process: &Process) {
    process.forgive("rescue", process.store().rescue(100).await);
    let paused = process.forgive("pause", process.jobs.pause("side", None).await);
    let claimed = process.claim(50).await;
    if paused.is_some() {
        assert!(
            claimed.iter().all(|job| *job.queue != *"side"),
            "{}: claimed while paused",
            process.world.at
        );
    }
    // A drain: everything is given back as it was.
    let back = |job: &runtime_jobs::store::Claimed| Report {
        id: job.id,
        fence: job.fence,
        verdict: Verdict::Released(Duration::ZERO),
    };
    for job in &claimed {
        process.world.begin(job.id);
    }
    process.report(claimed.iter().map(back).collect()).await;
    process.forgive("resume", process.jobs.resume("side", None).await);
    process.turn().await;
    process.world.clock.advance(Duration::from_secs(1));
    let now = Some(Duration::ZERO);
    let retention = Retention { completed: None, dead: None, cancelled: now };
    process.world.forget_cancelled();
    process.forgive("prune", process.store().prune(&retention, 100).await);
}

async fn worker(process: &Process) {
    let (limit, done) = (Limit::concurrency(2), Arc::new(Notify::new()));
    let mut handlers = Handlers::new();
    for kind in ["a", "b"] {
        let process = process.clone();
        handlers = handlers.handle_value(kind, move |context, payload| {
            let process = process.clone();
            async move { handle(&process, &context, &payload).await }
        });
    }
    let worker = Worker::new(process.jobs.clone(), handlers.limit("b", limit)).unwrap();
    let stop = Arc::clone(&done);
    let run = worker.run(async move { stop.notified().await });
    let watch = async {
        let open = |job: &runtime_jobs::Job| !job.state.is_finished();
        let idle = runtime_testkit::until("everything to be done", async || {
            process.world.clock.advance(Duration::from_millis(500));
            let jobs = process.store().list(&Filter { limit: 100, ..Filter::default() }).await;
            // What is not done when the worker stands still is done by others.
            process.excuse.has_struck() || jobs.is_ok_and(|jobs| !jobs.iter().any(open))
        });
        idle.await.unwrap();
        done.notify_one();
    };
    tokio::join!(run, watch);
}

async fn handle(process: &Process, context: &JobContext, payload: &Value) -> Result<Value, Error> {
    let again = process.world.begin(context.id) > 1;
    match payload["do"].as_str().unwrap() {
        "retry" if !again => return Err(Error::internal("on purpose").with_retry(Retry::Now)),
        "snooze" if !again => return Err(context.snooze(Duration::from_secs(1))),
        "progress" => {
            let before: Option<u32> = context.last_checkpoint().await?;
            context.progress(&"half").await?;
            context.checkpoint(&before.map_or(1, |before| before + 1)).await?;
        }
        "tx" => {
            if let Some((db, store)) = &process.sql {
                let mut tx = db.begin(&context.context).await?;
                super::world::write(&mut tx, "INSERT INTO effects (job) VALUES ($1)", context.id.as_uuid())
                    .await?;
                context.complete_in(&mut tx, store, &"kept").await?;
                tx.commit().await?;
            }
        }
        _ => {}
    }
    Ok(json!("done"))
}
