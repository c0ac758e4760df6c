//! Layers: what is run around every attempt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_jobs::{
    Handlers, Job, JobContext, JobState, Jobs, JobsConfig, MemoryStore, NewJob, Next, Worker,
};
use runtime_kernel::{Context, Error, ErrorKind, Source};
use runtime_testkit::PausedClock;
use serde_json::{Value, json};

type Told = Arc<Mutex<Vec<String>>>;

/// Works off one job of kind `a`.
async fn ended(handlers: Handlers, job: NewJob) -> Job {
    let clock = PausedClock::shared();
    let jobs = Jobs::new(MemoryStore::new(Arc::clone(&clock)), JobsConfig::default(), Arc::clone(&clock));
    let context = Context::new(Source::Internal, &*clock);
    let id = jobs.enqueue(&context, job).await.unwrap().id;
    let worker = Worker::new(jobs.clone(), handlers).unwrap();
    let done = async {
        while !jobs.get(&context, id).await.unwrap().state.is_finished() {
            clock.sleep(Duration::from_millis(100)).await;
        }
    };
    worker.run(done).await;
    jobs.get(&context, id).await.unwrap()
}

fn a() -> NewJob {
    NewJob::new("a", json!("payload"))
}

fn telling(told: &Told) -> Handlers {
    let told = Arc::clone(told);
    Handlers::new().handle_value("a", move |_, payload| {
        told.lock().unwrap().push("handler".to_owned());
        async move { Ok(payload) }
    })
}

fn around(
    told: &Told,
    name: &'static str,
) -> impl Fn(JobContext, Next) -> std::pin::Pin<Box<dyn Future<Output = Result<Value, Error>> + Send>> + use<>
{
    let told = Arc::clone(told);
    move |job, next| {
        let told = Arc::clone(&told);
        Box::pin(async move {
            told.lock().unwrap().push(format!("{name} {} {} {}", job.kind, job.queue, job.attempt));
            let result = next.run(job).await;
            told.lock().unwrap().push(format!("{name} after {}", result.is_ok()));
            result
        })
    }
}

#[tokio::test(start_paused = true)]
async fn layers_run_from_the_outermost_in_and_merged_handlers_keep_theirs_inside() {
    let told = Told::default();
    let inner = telling(&told).layer(around(&told, "third"));
    let mut handlers = Handlers::new().layer(around(&told, "first")).layer(around(&told, "second"));
    handlers.merge(inner.layer(around(&told, "fourth")));
    let done = ended(handlers, a()).await;
    assert_eq!((done.state, done.result), (JobState::Completed, Some(json!("payload"))));
    let told = told.lock().unwrap();
    let begun = ["first", "second", "third", "fourth"].map(|name| format!("{name} a default 1"));
    let over = ["fourth", "third", "second", "first"].map(|name| format!("{name} after true"));
    assert_eq!(told[..4], begun);
    assert_eq!(told[4], "handler");
    assert_eq!(told[5..], over);
}

#[tokio::test(start_paused = true)]
async fn a_layer_holds_for_handlers_added_before_and_after_it() {
    for before in [true, false] {
        let told = Told::default();
        let layer = around(&told, "only");
        let handle = |_, payload: Value| async move { Ok(payload) };
        let handlers = if before {
            Handlers::new().handle_value("a", handle).layer(layer)
        } else {
            Handlers::new().layer(layer).handle_value("a", handle)
        };
        ended(handlers, a()).await;
        assert_eq!(*told.lock().unwrap(), ["only a default 1", "only after true"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_refuses_without_the_handler_being_called() {
    let told = Told::default();
    let handlers = telling(&told)
        .layer(|_, _| async { Err(Error::new(ErrorKind::Forbidden, "t.refused", "not in this region")) });
    let dead = ended(handlers, a()).await;
    assert_eq!(dead.state, JobState::Dead);
    assert_eq!(dead.attempts[0].error.as_ref().unwrap().code, "t.refused");
    assert!(told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_layer_changes_the_context_and_the_outcome() {
    let handlers = Handlers::new()
        .handle_value("a", |job: JobContext, _| async move {
            Err(Error::new(ErrorKind::NotFound, "t.gone", job.max_attempts.to_string()))
        })
        .layer(|mut job, next| async move {
            job.max_attempts = 99;
            match next.run(job).await {
                // Gone already is as good as done.
                Err(error) if error.code() == "t.gone" => Ok(json!(error.to_string())),
                other => other,
            }
        });
    let done = ended(handlers, a()).await;
    assert_eq!(done.state, JobState::Completed);
    assert!(done.result.unwrap().as_str().unwrap().contains("99"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_layer_is_the_handlers_and_its_time_is_the_attempts() {
    let panics = Handlers::new()
        .handle_value("a", |_, payload| async { Ok(payload) })
        .layer(|_, _| async { panic!("in a layer") });
    let hangs =
        Handlers::new().handle_value("a", |_, payload| async { Ok(payload) }).layer(|job, next| async move {
            std::future::pending::<()>().await;
            next.run(job).await
        });
    for (handlers, code) in [(panics, "jobs.panicked"), (hangs, "jobs.timeout")] {
        let dead = ended(handlers, a().max_attempts(1)).await;
        assert_eq!(dead.state, JobState::Dead);
        assert_eq!(dead.attempts[0].error.as_ref().unwrap().code, code);
    }
}
