//! Attempts that outlive their lease, and jobs that wait for others to end, in one worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use runtime_jobs::{Handlers, JobState, Jobs, JobsConfig, MemoryStore, NewJob, Worker};
use runtime_kernel::{Context, ManualClock, Source, SystemClock};
use runtime_testkit::PausedClock;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[tokio::test(start_paused = true)]
async fn an_attempt_that_lost_its_lease_does_not_take_the_next_ones_place() {
    // The store's time is moved by hand, so that a lease runs out while its worker goes on.
    let (store_clock, clock) = (ManualClock::new(), PausedClock::shared());
    let config = JobsConfig::default();
    let past = config.lease + Duration::from_secs(1);
    let jobs = Jobs::new(MemoryStore::new(Arc::new(store_clock.clone())), config, clock);
    let context = Context::new(Source::Internal, &SystemClock);
    let id = jobs.enqueue(&context, NewJob::new("a", json!(null))).await.unwrap().id;
    let (began, second, stop) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()), CancellationToken::new());
    let (keeper, stopper) = (jobs.clone(), stop.clone());
    let handlers = Handlers::new().handle_value("a", move |_, _| {
        let (began, second, stop) =
            (began.fetch_add(1, Ordering::SeqCst), Arc::clone(&second), stopper.clone());
        let (store, clock) = (Arc::clone(keeper.store()), store_clock.clone());
        async move {
            if began == 0 {
                clock.advance(past);
                store.rescue(10).await.unwrap();
                second.notified().await;
                // The zombie ends first; its successor never does, and the worker is told to stop.
                stop.cancel();
                return Ok(json!("too late"));
            }
            second.notify_one();
            std::future::pending().await
        }
    });
    let worker = Worker::new(jobs.clone(), handlers).unwrap();
    let run = tokio::time::timeout(Duration::from_mins(10), worker.run(stop.cancelled_owned())).await;
    assert!(run.is_ok(), "the worker waits for a job it has forgotten");
    let job = jobs.get(&context, id).await.unwrap();
    assert_eq!((job.state, job.attempt), (JobState::Available, 1), "the second attempt was given back");
}

#[tokio::test(start_paused = true)]
async fn the_next_of_a_key_does_not_wait_for_a_poll() {
    let clock = PausedClock::shared();
    let mut config = JobsConfig::default();
    config.poll_interval = Duration::from_hours(1);
    let jobs = Jobs::new(MemoryStore::new(Arc::clone(&clock)), config, Arc::clone(&clock));
    let context = Context::new(Source::Internal, &*clock);
    for _ in 0..5 {
        jobs.enqueue(&context, NewJob::new("a", json!(null)).key("one")).await.unwrap();
    }
    let (stop, left) = (CancellationToken::new(), Arc::new(AtomicUsize::new(5)));
    let (stopper, time) = (stop.clone(), Arc::clone(&clock));
    let handlers = Handlers::new().handle_value("a", move |_, _| {
        let (stopper, left, time) = (stopper.clone(), Arc::clone(&left), Arc::clone(&time));
        async move {
            time.sleep(Duration::from_secs(1)).await;
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                stopper.cancel();
            }
            Ok(json!(null))
        }
    });
    let before = clock.now();
    Worker::new(jobs, handlers).unwrap().run(stop.cancelled_owned()).await;
    let took = clock.now() - before;
    assert!(took < Duration::from_mins(1), "{took:?}");
}
