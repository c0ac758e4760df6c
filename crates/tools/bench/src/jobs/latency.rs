//! How soon a job begins.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use runtime_jobs::{Handlers, NewJob, Worker};
use runtime_testkit::postgres::Server;
use serde_json::json;

use super::ours::{Ours, context};
use super::{SETTINGS, env};

/// Milliseconds between enqueueing and beginning that 99 of 100 jobs stay below, at a thousand single jobs a second.
pub async fn p99(rounds: usize) -> Vec<f64> {
    let count: usize = env("LATENCY_JOBS", 3_000);
    let server = Server::start_in(Path::new("/var/tmp"), &SETTINGS).await.expect("postgres is installed");
    let url = server.create_database("latency").await.expect("a database");
    let ours = Ours::open(&url).await;
    let seen: Arc<Mutex<Vec<f64>>> = Arc::default();
    let (told, zero) = (Arc::clone(&seen), Instant::now());
    let handlers = Handlers::new().handle_value("noop", move |_, payload| {
        let sent = Duration::from_micros(payload.as_u64().expect("a time"));
        told.lock().expect("no panic").push((zero.elapsed() - sent).as_secs_f64() * 1e3);
        async { Ok(serde_json::Value::Null) }
    });
    let worker = Worker::new(ours.jobs.clone(), handlers).expect("sound");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { worker.run(async { drop(stopped.await) }).await });
    let mut found = Vec::new();
    for _ in 0..rounds {
        seen.lock().expect("no panic").clear();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..count {
            tick.tick().await;
            let jobs = ours.jobs.clone();
            sending.spawn(async move {
                let now = u64::try_from(zero.elapsed().as_micros()).expect("not that long");
                jobs.enqueue(&context(), NewJob::new("noop", json!(now))).await.expect("enqueued");
            });
        }
        while sending.join_next().await.is_some() {}
        while seen.lock().expect("no panic").len() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut all = seen.lock().expect("no panic").clone();
        all.sort_by(f64::total_cmp);
        found.push(all[all.len() * 99 / 100]);
    }
    let _ = stop.send(());
    running.await.expect("ends");
    found
}
