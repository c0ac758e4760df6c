//! `kill -9` and broken databases under load: no acknowledged job is lost, no stale completion is accepted.
//!
//! A dozen rounds in the ordinary suite; `cargo xtask soak jobs` sets `RUNTIME_SOAK_ROUNDS` for more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime_testkit::postgres;
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use super::hook::Hook;
use super::house::{House, SHORT_LEASE, client};

/// Sends jobs without pause and remembers those the server acknowledged.
struct Load {
    acknowledged: Arc<Mutex<Vec<(u64, String)>>>,
    count: watch::Receiver<usize>,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// `url` may change while the load runs: a restarted server listens elsewhere.
    fn start(url: &watch::Receiver<String>, key: &str, hook: &Hook) -> Self {
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (counted, count) = watch::channel(0);
        let counted = Arc::new(counted);
        let stop = Arc::new(AtomicBool::new(false));
        let client = client();
        let tasks = (0..4u64)
            .map(|lane| {
                let (url, key, target) = (url.clone(), key.to_owned(), hook.url().to_owned());
                let (acknowledged, counted, stop) =
                    (Arc::clone(&acknowledged), Arc::clone(&counted), Arc::clone(&stop));
                let client = client.clone();
                tokio::spawn(async move {
                    let mut n = lane;
                    while !stop.load(Ordering::Relaxed) {
                        let job = json!({
                            "kind": "http.request",
                            "payload": { "method": "POST", "url": target, "body": { "n": n } },
                        });
                        let at = format!("{}/v1/jobs", url.borrow().as_str());
                        let sent = client.post(at).bearer_auth(&key).json(&job).send().await;
                        let accepted = match sent {
                            Ok(response) if response.status() == 202 => response.json::<Value>().await.ok(),
                            _ => None,
                        };
                        if let Some(job) = accepted {
                            acknowledged.lock().await.push((n, job["id"].as_str().unwrap().to_owned()));
                            counted.send_modify(|count| *count += 1);
                        } else {
                            tokio::task::yield_now().await;
                        }
                        n += 4;
                    }
                })
            })
            .collect();
        Self { acknowledged, count, stop, tasks }
    }

    async fn wait_for_more(&mut self, more: usize) {
        let goal = *self.count.borrow() + more;
        let wait = self.count.wait_for(|count| *count >= goal);
        tokio::time::timeout(Duration::from_mins(1), wait).await.expect("jobs are still accepted").unwrap();
    }

    async fn finish(self) -> Vec<(u64, String)> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().await)
    }
}

/// Every acknowledged job ended, reached its target, and was completed exactly once, by its last attempt.
async fn check(house: &House, hook: &Hook, acknowledged: &[(u64, String)]) {
    for (_, id) in acknowledged {
        house.finished(id).await;
    }
    let arrived = hook.by_number();
    for (n, id) in acknowledged {
        let job = house.job(id).await;
        assert_eq!(job["state"], "completed", "job {id} of {n}: {job:#}");
        assert!(arrived.contains_key(n), "job {id} says completed and its call never arrived");
        let attempts = job["attempts"].as_array().unwrap();
        let completed = attempts.iter().filter(|attempt| attempt["outcome"] == "completed").count();
        assert_eq!(completed, 1, "{job:#}");
        assert_eq!(attempts.last().unwrap()["outcome"], "completed", "{job:#}");
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt["number"].as_u64().unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "attempts are counted once each: {job:#}");
    }
}

fn rounds() -> u32 {
    std::env::var("RUNTIME_SOAK_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(12)
}

/// A cheap, reproducible spread of kill moments.
fn moment(round: u32) -> usize {
    usize::try_from(round.wrapping_mul(2_654_435_761) >> 26).unwrap() + 5
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_embedded_server_loses_no_acknowledged_job() {
    let hook = Hook::start().await;
    let mut house = House::start(SHORT_LEASE).await;
    let url = house.watch_url();
    let mut load = Load::start(&url, house.key(), &hook);
    for round in 0..rounds() {
        load.wait_for_more(moment(round)).await;
        house.kill9().await;
        house.restart().await;
    }
    let acknowledged = load.finish().await;
    check(&house, &hook, &acknowledged).await;
    println!("{} jobs acknowledged over {} kills, none lost", acknowledged.len(), rounds());
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_workers_and_postgres_loses_no_acknowledged_job() {
    let hook = Hook::start().await;
    let mut postgres = postgres::Server::start().await.unwrap();
    let database = postgres.create_database("soak").await.unwrap();
    let settings = |mode| House::settings(SHORT_LEASE, mode, &database);
    let api = House::start(&settings("api")).await;
    let mut worker = House::start(&settings("worker")).await;
    let mut load = Load::start(&api.watch_url(), api.key(), &hook);
    for round in 0..rounds() {
        load.wait_for_more(moment(round)).await;
        if round % 3 == 2 {
            postgres.stop_immediate().await.unwrap();
            postgres.restart().await.unwrap();
        } else {
            worker.kill9().await;
            worker.restart().await;
        }
    }
    let acknowledged = load.finish().await;
    check(&api, &hook, &acknowledged).await;
    println!("{} jobs acknowledged over {} blows, none lost", acknowledged.len(), rounds());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_slept_past_its_lease_has_its_completion_refused() {
    let hook = Hook::start().await;
    let database = postgres::database().await.unwrap();
    let settings = |mode| House::settings(SHORT_LEASE, mode, database.url());
    let api = House::start(&settings("api")).await;
    let first = House::start(&settings("worker")).await;
    hook.gate(false);
    let id = api.enqueue(&hook, 1).await;
    hook.wait_for(1).await;
    first.sigstop();

    // Past the lease somebody else takes the job over and completes it.
    let second = House::start(&settings("worker")).await;
    hook.wait_for(2).await;
    hook.gate(true);
    let done = api.finished(&id).await;
    assert_eq!(done["state"], "completed", "{done:#}");
    let winner = done["attempts"].as_array().unwrap().last().unwrap()["worker"].clone();

    // The first wakes up with an answer in hand; its completion must be refused, and counted.
    first.sigcont();
    first.wait_for_metric("jobs_stale_completions_total", 1.0).await;
    let after = api.job(&id).await;
    assert_eq!(after["attempts"].as_array().unwrap().last().unwrap()["worker"], winner, "{after:#}");
    assert_eq!(after["attempts"], done["attempts"], "the record did not change: {after:#}");
    drop(second);
}
