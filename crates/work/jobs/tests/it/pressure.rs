//! Back-pressure: what producers are told, and when they are refused.

use std::sync::Arc;
use std::time::Duration;

use runtime_jobs::{Bound, Flow, Jobs, JobsConfig, JobsError, MemoryStore, NewBatch, NewJob};
use runtime_kernel::{Classify, Context, ErrorKind, ManualClock, Retry, Source, SystemClock};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn jobs(bound: Option<Bound>) -> (Jobs, ManualClock, Context) {
    let clock = ManualClock::new();
    let mut config = JobsConfig::default();
    config.pressure.extend(bound.map(|bound| ("default".to_owned(), bound)));
    assert_eq!(config.problem(), None);
    let shared = Arc::new(clock.clone());
    let jobs = Jobs::new(MemoryStore::new(shared.clone()), config, shared);
    (jobs, clock, Context::new(Source::Internal, &SystemClock))
}

fn job() -> NewJob {
    NewJob::new("a", json!(null))
}

async fn fill(jobs: &Jobs, context: &Context, count: usize) {
    jobs.enqueue_many(context, (0..count).map(|_| job()).collect()).await.unwrap();
}

#[tokio::test]
async fn a_queue_is_measured_once_a_second_and_the_wait_grows_with_how_long_it_is_over() {
    let (jobs, clock, context) = jobs(Some(Bound::depth(3)));
    let told = async || jobs.pressure("default").await.unwrap();
    fill(&jobs, &context, 3).await;
    let now = told().await;
    assert_eq!((now.depth, now.is_high()), (3, false), "at its bound, not over it");
    fill(&jobs, &context, 5).await;
    assert_eq!(told().await, now, "as it was a moment ago");
    clock.advance(SECOND);
    let high = told().await;
    assert_eq!((high.depth, high.wait), (4, Some(SECOND)), "counted no further than it matters");
    for (passed, wait) in [(9, 9), (11, 20), (100, 30)] {
        clock.advance(SECOND * passed);
        assert_eq!(told().await.wait, Some(SECOND * wait));
    }
    assert_eq!(told().await.age, SECOND * 121);
    assert_eq!(jobs.pressure("other").await.unwrap().wait, None, "no bound, no pressure");
}

#[tokio::test]
async fn a_queue_whose_next_has_waited_too_long_is_over_its_bound() {
    let (jobs, clock, context) = jobs(Some(Bound::age(SECOND * 60)));
    fill(&jobs, &context, 1).await;
    for (passed, high) in [(60, false), (1, true)] {
        clock.advance(SECOND * passed);
        assert_eq!(jobs.pressure("default").await.unwrap().is_high(), high);
    }
}

#[tokio::test]
async fn a_full_queue_refuses_where_it_is_told_to_and_says_when_to_come_again() {
    for (bound, refuses) in
        [(None, false), (Some(Bound::depth(1)), false), (Some(Bound::depth(1).refusing()), true)]
    {
        let (jobs, clock, context) = jobs(bound);
        fill(&jobs, &context, 2).await;
        clock.advance(SECOND);
        let answers = [
            jobs.enqueue(&context, job()).await.err(),
            jobs.enqueue_flow(&context, Flow::new().job("a", &[], job())).await.err(),
            jobs.enqueue_batch(&context, NewBatch::new([job()])).await.err(),
        ];
        for answer in answers {
            let Some(error) = answer else {
                assert!(!refuses);
                continue;
            };
            assert!(
                refuses && matches!(&error, JobsError::Busy { queue, depth: 2, .. } if queue == "default")
            );
            assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, "jobs.busy"));
            assert_eq!(error.retry(), Retry::After(SECOND));
        }
        jobs.enqueue(&context, job().queue("other")).await.unwrap();
    }
}

#[test]
fn a_bound_that_bounds_nothing_is_refused_when_it_is_read() {
    for (bound, told) in
        [(Bound::default(), "a `depth` or an `age`"), (Bound::depth(1_000_001), "at most 1000000")]
    {
        let mut config = JobsConfig::default();
        config.pressure.insert("default".to_owned(), bound);
        let (key, problem) = config.problem().unwrap();
        assert!(key == "pressure" && problem.contains("`default`") && problem.contains(told), "{problem}");
    }
    let read: JobsConfig = serde_json::from_value(
        json!({ "pressure": { "mail": { "depth": 9, "age": "5m", "refuse": true } } }),
    )
    .unwrap();
    assert_eq!(read.pressure["mail"].age, Some(SECOND * 300));
}
