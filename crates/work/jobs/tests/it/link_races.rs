//! Jobs that wait for others on a real Postgres, while several processes end, enqueue and cancel at once.
#![cfg(feature = "postgres")]

use std::sync::Arc;
use std::time::Duration;

use runtime_db::sqlx;
use runtime_jobs::store::{
    ClaimRequest, Claimed, Filter, Insert, JobStore, Origin, Receipt, Report, Verdict,
};
use runtime_jobs::{
    BatchId, Failure, Flow, Handlers, JobId, JobState, Jobs, JobsConfig, NewJob, SqlStore, Trigger, Worker,
};
use runtime_kernel::{Context, Source, SystemClock};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::races::House;

/// A store of its own connections' memory, as another process has.
fn process(house: &House) -> SqlStore {
    SqlStore::new(house.db.clone())
}

fn insert(job: NewJob) -> Insert {
    let context = Context::new(Source::Internal, &SystemClock);
    let origin = Origin::of(&context.carry(&SystemClock)).unwrap();
    Insert { id: JobId::new(&SystemClock), job, origin }
}

fn job(kind: &str) -> NewJob {
    NewJob::new(kind, json!(null))
}

async fn claim(store: &SqlStore, kind: &str, max: u32) -> Vec<Claimed> {
    let request = ClaimRequest {
        worker: "w".to_owned(),
        queues: vec!["default".to_owned()],
        kinds: vec![kind.to_owned()],
        max,
        lease: Duration::from_secs(30),
        limits: std::collections::BTreeMap::new(),
    };
    store.claim(&request).await.unwrap()
}

async fn end(store: &SqlStore, claimed: &[Claimed], verdict: Verdict) {
    let reports = claimed.iter().map(|job| Report { id: job.id, fence: job.fence, verdict: verdict.clone() });
    let receipts = store.report(reports.collect()).await.unwrap();
    assert!(receipts.iter().all(|receipt| *receipt == Receipt::Accepted));
}

fn done() -> Verdict {
    Verdict::Completed(json!(null))
}

fn dead() -> Verdict {
    Verdict::Dead(Failure::new("internal", "test.failed", "on purpose"))
}

async fn state(store: &SqlStore, id: JobId) -> JobState {
    store.get(id, None).await.unwrap().unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_end_the_last_two_at_once_release_who_waits_once() {
    let house = House::new().await;
    let (one, two) = (process(&house), process(&house));
    for round in 0..12 {
        let firsts = [insert(job("a")), insert(job("a"))];
        let waiter = insert(job("b").after(firsts.iter().map(|first| first.id)));
        house.store.insert(firsts.into_iter().chain([waiter.clone()]).collect()).await.unwrap();
        let (left, right) = (claim(&one, "a", 1).await, claim(&two, "a", 1).await);
        // Both have come as far as the count they share before either may change it.
        let mut held = house.begin().await;
        sqlx::query("SELECT 1 FROM runtime_jobs_groups FOR UPDATE").execute(&mut *held).await.unwrap();
        let verdict = |n| if (round >> n) % 2 == 0 { done() } else { dead() };
        let ends = [(one.clone(), left, verdict(0)), (two.clone(), right, verdict(1))].map(
            |(store, claimed, verdict)| tokio::spawn(async move { end(&store, &claimed, verdict).await }),
        );
        house.blocked(2).await;
        held.commit().await.unwrap();
        for end in ends {
            end.await.unwrap();
        }
        if round % 4 == 0 {
            assert_eq!(claim(&one, "b", 9).await.iter().map(|job| job.id).collect::<Vec<_>>(), [waiter.id]);
            assert!(claim(&two, "b", 9).await.is_empty(), "once");
        } else {
            assert_eq!(state(&one, waiter.id).await, JobState::Cancelled);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_end_is_missed_by_who_is_enqueued_to_wait_for_it_meanwhile() {
    let house = Arc::new(House::new().await);
    let (one, two, three) = (process(&house), process(&house), process(&house));
    for round in 0..40 {
        let firsts = [insert(job("a")), insert(job("a")), insert(job("a"))];
        let ids = firsts.each_ref().map(|first| first.id);
        house.store.insert(firsts.to_vec()).await.unwrap();
        // One runs by then, one is being claimed and ended, one is being cancelled.
        let running = claim(&one, "a", 1).await;
        let waiter = insert(job("b").after(ids).trigger(Trigger::Ended));
        let enqueue = tokio::spawn({
            let (store, waiter) = (three.clone(), waiter.clone());
            async move { store.insert(vec![waiter]).await.map(|_| ()) }
        });
        let ending = tokio::spawn({
            let store = one.clone();
            async move { end(&store, &running, done()).await }
        });
        let cancelling = tokio::spawn({
            let store = house.store.clone();
            async move { store.cancel(ids[2], None).await.map(|_| ()) }
        });
        let claiming = tokio::spawn({
            let store = two.clone();
            async move {
                let claimed = claim(&store, "a", 9).await;
                end(&store, &claimed, if round % 2 == 0 { done() } else { dead() }).await;
            }
        });
        enqueue.await.unwrap().unwrap();
        ending.await.unwrap();
        claiming.await.unwrap();
        // It may have ended before somebody wanted it cancelled.
        let _ = cancelling.await.unwrap();
        // What was locked by the others was left to the next claim.
        let rest = claim(&two, "a", 9).await;
        end(&two, &rest, done()).await;
        assert_eq!(
            claim(&one, "b", 9).await.iter().map(|job| job.id).collect::<Vec<_>>(),
            [waiter.id],
            "{round}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_ended_by_many_processes_is_counted_exactly_and_calls_back_once() {
    const MEMBERS: usize = 2000;
    let house = House::new().await;
    let batch = BatchId::new(&SystemClock);
    let members = (0..MEMBERS).map(|_| insert(job("a").in_batch(batch)));
    let callbacks = [Trigger::Eventually, Trigger::Ended, Trigger::Failed]
        .map(|trigger| insert(job("b").after_batch(batch).trigger(trigger)));
    let jobs = members.chain(callbacks).collect();
    let origin = insert(job("a")).origin;
    house.store.insert_batch(batch, origin, jobs).await.unwrap();
    let work = |verdict: fn(usize) -> Verdict| {
        let workers = (0..4).map(|_| {
            let store = process(&house);
            tokio::spawn(async move {
                loop {
                    let claimed = claim(&store, "a", 64).await;
                    if claimed.is_empty() {
                        break;
                    }
                    for (n, some) in claimed.chunks(20).enumerate() {
                        end(&store, some, verdict(n)).await;
                    }
                }
            })
        });
        workers.collect::<Vec<_>>()
    };
    for worker in work(|n| if n == 1 { dead() } else { done() }) {
        worker.await.unwrap();
    }
    let stands = house.store.batch(batch, None).await.unwrap().unwrap();
    assert_eq!((stands.open, stands.completed + stands.dead), (0, MEMBERS as u64));
    let filter = Filter { batch: Some(batch), limit: 10_000, ..Filter::default() };
    assert_eq!(claim(&house.store, "b", 9).await.len(), 2, "the first failure, and the end");
    // Redriven while others look, they are counted back.
    assert_eq!(house.store.redrive(None, &filter).await.unwrap(), stands.dead);
    for worker in work(|_| done()) {
        worker.await.unwrap();
    }
    let stands = house.store.batch(batch, None).await.unwrap().unwrap();
    assert_eq!((stands.open, stands.completed, stands.dead), (0, MEMBERS as u64, 0));
    assert_eq!(claim(&house.store, "b", 9).await.len(), 1, "and success at last");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_lets_go_another_runs_without_polling() {
    let house = House::new().await;
    let mut config = JobsConfig::default();
    config.poll_interval = Duration::from_hours(1);
    let (stop, context) = (CancellationToken::new(), Context::new(Source::Internal, &SystemClock));
    let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let mut workers = Vec::new();
    for kind in ["a", "b"] {
        let jobs = Jobs::new(process(&house), config.clone(), SystemClock::shared());
        let done = done.clone();
        let handlers = Handlers::new().handle_value(kind, move |job, payload| {
            let _ = done.send(job.kind.to_string());
            async move { Ok(payload) }
        });
        let (worker, stop) = (Worker::new(jobs, handlers).unwrap(), stop.clone());
        workers.push(tokio::spawn(async move { worker.run(stop.cancelled_owned()).await }));
    }
    for _ in 0..5 {
        let flow = ["1", "2", "3", "4"].into_iter().zip(["a", "b", "a", "b"]);
        let flow = flow.fold((Flow::new(), None), |(flow, last), (name, kind)| {
            (flow.job(name, last.as_slice(), job(kind)), Some(name))
        });
        house.jobs.enqueue_flow(&context, flow.0).await.unwrap();
        for kind in ["a", "b", "a", "b"] {
            let heard = tokio::time::timeout(Duration::from_secs(20), ended.recv()).await;
            assert_eq!(heard.unwrap().as_deref(), Some(kind));
        }
    }
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_for_nothing_touch_none_of_the_tables_of_those_that_do() {
    let house = House::new().await;
    let mut other = house.begin().await;
    let all =
        "LOCK TABLE runtime_jobs_awaiting, runtime_jobs_groups, runtime_jobs_members, runtime_jobs_waits";
    sqlx::query(all).execute(&mut *other).await.unwrap();
    let work = async {
        house.store.insert(vec![insert(job("a"))]).await.unwrap();
        house.store.insert((0..20).map(|_| insert(job("a").key("k").unique("u"))).collect()).await.unwrap();
        house.store.insert((0..20).map(|_| insert(job("a"))).collect()).await.unwrap();
        let claimed = claim(&house.store, "a", 20).await;
        let (left, right) = claimed.split_at(10);
        end(&house.store, left, done()).await;
        end(&house.store, right, Verdict::Retry(Duration::ZERO, Failure::new("internal", "t", "again")))
            .await;
        end(&house.store, &claim(&house.store, "a", 20).await, dead()).await;
        house.store.rescue(10).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .expect("it waits for a table it has no use for");
    other.rollback().await.unwrap();
}

/// Locks rows as somebody does who has not committed yet.
async fn hold(house: &House, sql: &'static str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut tx = house.begin().await;
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    tx
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_somebody_is_just_claiming_is_cancelled_with_its_batch() {
    let house = House::new().await;
    let batch = BatchId::new(&SystemClock);
    let member = insert(job("a").in_batch(batch));
    let (id, origin) = (member.id, member.origin.clone());
    house.store.insert_batch(batch, origin, vec![member]).await.unwrap();
    let claiming = hold(&house, "SELECT id FROM runtime_jobs_ready FOR UPDATE").await;
    // Reached once all tables of those that wait have been looked through.
    let looking = hold(&house, "LOCK TABLE runtime_jobs_leases IN ACCESS EXCLUSIVE MODE").await;
    let jobs = house.jobs.clone();
    let context = Context::new(Source::Internal, &SystemClock);
    let cancel = tokio::spawn(async move { jobs.cancel_batch(&context, batch).await });
    house.blocked(1).await;
    claiming.rollback().await.unwrap();
    looking.rollback().await.unwrap();
    assert_eq!(cancel.await.unwrap().unwrap(), 1);
    assert_eq!(house.store.get(id, None).await.unwrap().unwrap().state, JobState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_just_being_waited_for_is_restored_with_what_it_waited_for() {
    let house = House::new().await;
    let first = insert(job("a"));
    let second = insert(job("b").after([first.id]));
    let (dead_one, waiter) = (first.id, second.id);
    house.store.insert(vec![first, second]).await.unwrap();
    end(&house.store, &claim(&house.store, "a", 1).await, dead()).await;
    let state = async |id| house.store.get(id, None).await.unwrap().unwrap().state;
    assert_eq!(state(waiter).await, JobState::Cancelled);
    let context = Context::new(Source::Internal, &SystemClock);
    let mut enqueueing = house.db.begin(&context).await.unwrap();
    let third = insert(job("b").after([waiter]));
    let last = third.id;
    house.store.insert_in(&mut enqueueing, &[third]).await.unwrap();
    let store = house.store.clone();
    let redriven = tokio::spawn(async move {
        store.redrive(Some(dead_one), &Filter { limit: 1, ..Filter::default() }).await
    });
    house.blocked(1).await;
    enqueueing.commit().await.unwrap();
    assert_eq!(redriven.await.unwrap().unwrap(), 1);
    assert_eq!((state(waiter).await, state(last).await), (JobState::Waiting, JobState::Waiting));
    for kind in ["a", "b", "b"] {
        end(&house.store, &claim(&house.store, kind, 1).await, done()).await;
    }
    assert_eq!(state(last).await, JobState::Completed);
}
