//! Races between claims, reports, cancels and housekeeping on a real Postgres, each held at its worst moment by a lock.
#![cfg(feature = "postgres")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use runtime_db::{Database, DbConfig, sqlx};
use runtime_jobs::store::{ClaimRequest, Claimed, JobStore, Receipt, Report, Verdict};
use runtime_jobs::{
    Handlers, JobId, JobState, Jobs, JobsConfig, JobsError, Limit, NewJob, SqlStore, Worker, migrations,
};
use runtime_kernel::{Context, Source, SystemClock};
use runtime_migrate::{MigrateOptions, Migrator};
use runtime_testkit::postgres::TestDatabase;
use serde_json::json;

pub(super) struct House {
    pub(super) db: Database,
    pub(super) store: SqlStore,
    pub(super) jobs: Jobs,
    _database: TestDatabase,
}

impl House {
    async fn with_connections(most: u32) -> Self {
        let database = runtime_testkit::postgres::database().await.unwrap();
        let mut config = DbConfig::at(database.url());
        config.max_connections = most;
        let db = Database::connect(&config, SystemClock::shared()).await.unwrap();
        let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap();
        migrator.run().await.unwrap();
        let store = SqlStore::new(db.clone());
        let jobs = Jobs::new(store.clone(), JobsConfig::default(), SystemClock::shared());
        Self { db, store, jobs, _database: database }
    }

    pub(super) async fn new() -> Self {
        Self::with_connections(10).await
    }

    fn context() -> Context {
        Context::new(Source::Internal, &SystemClock)
    }

    async fn enqueue(&self) -> JobId {
        let job = NewJob::new("a", json!(null)).key("k");
        self.jobs.enqueue(&Self::context(), job).await.unwrap().id
    }

    pub(super) async fn begin(&self) -> sqlx::Transaction<'static, sqlx::Postgres> {
        self.db.postgres().unwrap().begin().await.unwrap()
    }

    async fn claim(&self) -> Vec<Claimed> {
        claim(&self.store).await
    }

    async fn complete(&self, job: &Claimed) {
        let report = Report { id: job.id, fence: job.fence, verdict: Verdict::Completed(json!(null)) };
        assert_eq!(self.store.report(vec![report]).await.unwrap(), [Receipt::Accepted]);
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.db.postgres().unwrap()).await.unwrap()
    }

    /// Waits until so many statements of this database wait for a lock.
    pub(super) async fn blocked(&self, count: i64) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        runtime_testkit::until("a statement that waits for a lock", async || self.count(sql).await >= count)
            .await
            .unwrap();
    }
}

async fn claim(store: &SqlStore) -> Vec<Claimed> {
    claim_for(store, Duration::from_secs(30)).await
}

async fn claim_for(store: &SqlStore, lease: Duration) -> Vec<Claimed> {
    let request = ClaimRequest {
        worker: "w".to_owned(),
        queues: vec!["default".to_owned()],
        kinds: vec!["a".to_owned()],
        max: 10,
        lease,
        limits: BTreeMap::new(),
    };
    store.claim(&request).await.unwrap()
}

fn ids(claimed: &[Claimed]) -> Vec<JobId> {
    claimed.iter().map(|job| job.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_does_not_overtake_one_of_its_key_that_another_claim_is_taking() {
    let house = House::new().await;
    let (first, second) = (house.enqueue().await, house.enqueue().await);
    let mut other = house.begin().await;
    sqlx::query("SELECT 1 FROM runtime_jobs_ready WHERE id = $1 FOR UPDATE")
        .bind(first.as_uuid())
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(ids(&house.claim().await), []);
    // The other claim comes to nothing: both are claimed in their order.
    other.rollback().await.unwrap();
    let claimed = house.claim().await;
    assert_eq!(ids(&claimed), [first]);
    house.complete(&claimed[0]).await;
    assert_eq!(ids(&house.claim().await), [second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_job_does_not_overtake_one_that_was_parked_since() {
    let house = House::new().await;
    let context = House::context();
    house.enqueue().await;
    let running = house.claim().await;
    // Written first, committed last: what comes after it is parked and promoted before it can be seen.
    let mut late = house.db.begin(&context).await.unwrap();
    let job = NewJob::new("a", json!(null)).key("k");
    let first = house.jobs.enqueue_in(&mut late, &house.store, &context, job).await.unwrap().id;
    let second = house.enqueue().await;
    assert_eq!(ids(&house.claim().await), []);
    house.complete(&running[0]).await;
    late.commit().await.unwrap();
    let mut other = house.begin().await;
    // As when all places are taken again: the first is parked behind the second, which has been promoted.
    sqlx::query("INSERT INTO runtime_jobs_keyed SELECT * FROM runtime_jobs_ready WHERE id = $1")
        .bind(first.as_uuid())
        .execute(&mut *other)
        .await
        .unwrap();
    sqlx::query("DELETE FROM runtime_jobs_ready WHERE id = $1")
        .bind(first.as_uuid())
        .execute(&mut *other)
        .await
        .unwrap();
    sqlx::query("UPDATE runtime_jobs_slots SET parked = 1").execute(&mut *other).await.unwrap();
    other.commit().await.unwrap();
    let claimed = house.claim().await;
    assert_eq!(ids(&claimed), [first]);
    house.complete(&claimed[0]).await;
    assert_eq!(ids(&house.claim().await), [second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_the_first_of_a_key_lets_in_who_waits_for_it() {
    let house = Arc::new(House::new().await);
    let (first, second) = (house.enqueue().await, house.enqueue().await);
    // Keeps the cancel from committing: it writes the same row.
    let mut other = house.begin().await;
    let columns = "run_at, created_at, priority, attempt, max_attempts, allowance, claims, queue, kind, tenant, context, payload";
    let sql = format!(
        "INSERT INTO runtime_jobs_finished (id, state, finished_at, {columns}) SELECT id, 0, 0, {columns}
         FROM runtime_jobs_ready WHERE id = $1"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql)).bind(first.as_uuid()).execute(&mut *other).await.unwrap();
    let cancel = tokio::spawn({
        let house = Arc::clone(&house);
        async move { house.store.cancel(first, None).await }
    });
    house.blocked(1).await;
    let claims = tokio::spawn({
        let store = house.store.clone();
        async move { claim(&store).await }
    });
    // It waits for the cancel, or else has put the second behind a job that is going away.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    other.rollback().await.unwrap();
    assert_eq!(cancel.await.unwrap().unwrap(), JobState::Cancelled);
    let mut claimed = claims.await.unwrap();
    claimed.extend(house.claim().await);
    assert_eq!(ids(&claimed), [second]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_forgotten_while_a_claim_waits_for_it_is_made_again() {
    let house = House::new().await;
    house.enqueue().await;
    let claimed = house.claim().await;
    house.complete(&claimed[0]).await;
    let mut housekeeping = house.begin().await;
    sqlx::query("SELECT 1 FROM runtime_jobs_slots FOR UPDATE").execute(&mut *housekeeping).await.unwrap();
    house.enqueue().await;
    let claims = tokio::spawn({
        let store = house.store.clone();
        async move { claim(&store).await }
    });
    house.blocked(1).await;
    sqlx::query("DELETE FROM runtime_jobs_slots").execute(&mut *housekeeping).await.unwrap();
    housekeeping.commit().await.unwrap();
    assert_eq!(claims.await.unwrap().len(), 1);
    assert_eq!(house.count("SELECT sum(running)::bigint FROM runtime_jobs_slots").await, 1);
    house.enqueue().await;
    assert_eq!(ids(&house.claim().await), [], "one of the key runs already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_comes_while_its_job_ends_is_told_so_and_leaves_nothing() {
    let house = Arc::new(House::new().await);
    let id = house.enqueue().await;
    let fence = house.claim().await[0].fence;
    let mut ending = house.db.begin(&House::context()).await.unwrap();
    house.store.complete_in(&mut ending, id, fence, json!(null)).await.unwrap();
    let cancel = tokio::spawn({
        let house = Arc::clone(&house);
        async move { house.store.cancel(id, None).await }
    });
    house.blocked(1).await;
    ending.commit().await.unwrap();
    let told = cancel.await.unwrap();
    assert!(matches!(told, Err(JobsError::WrongState { .. })), "{told:?}");
    assert_eq!(house.count("SELECT count(*) FROM runtime_jobs_cancels").await, 0);
}

/// Else a job could be told that its lease is over, and what it says of that be taken for its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_held_up_by_one_lease_does_not_bring_back_another_that_has_run_out() {
    let house = House::new().await;
    house.enqueue().await;
    let first = house.claim().await;
    house.jobs.enqueue(&House::context(), NewJob::new("a", json!(null))).await.unwrap();
    let second = claim_for(&house.store, Duration::from_millis(500)).await;
    // The plans of a busy server, not those of an empty table.
    sqlx::query("ANALYZE runtime_jobs_leases").execute(house.db.postgres().unwrap()).await.unwrap();
    let mut held_up = house.begin().await;
    let lock = "SELECT id FROM runtime_jobs_leases WHERE id = $1 FOR UPDATE";
    sqlx::query(lock).bind(first[0].fence.cast_signed()).execute(&mut *held_up).await.unwrap();
    let (store, held) = (house.store.clone(), [first[0].fence, second[0].fence]);
    let beat = async move { store.heartbeat("w", &["a".to_owned()], &held, Duration::from_mins(1)).await };
    let beat = tokio::spawn(beat);
    house.blocked(1).await;
    let over = "SELECT count(*) FROM runtime_jobs_leases WHERE until < extract(epoch FROM clock_timestamp()) * 1000000";
    runtime_testkit::until("the second lease to be over", async || house.count(over).await == 1)
        .await
        .unwrap();
    let keep =
        async |job: &Claimed| house.store.keep_progress(job.id, job.fence, Some(&json!(1)), None).await;
    assert!(matches!(keep(&second[0]).await, Err(JobsError::LeaseLost(id)) if id == second[0].id));
    held_up.rollback().await.unwrap();
    assert_eq!(beat.await.unwrap().unwrap().held, [first[0].fence]);
    assert!(matches!(keep(&second[0]).await, Err(JobsError::LeaseLost(_))), "it stays over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pace_is_measured_from_when_its_slot_was_had() {
    const EVERY: Duration = Duration::from_hours(1);
    let house = House::new().await;
    house.enqueue().await;
    let first = house.claim().await.remove(0);
    house.complete(&first).await;
    house.enqueue().await;
    let slot =
        "INSERT INTO runtime_jobs_slots (lane, limit_key, running, promoted, parked, tat, pace, tolerance)
        SELECT lane, limit_key, 0, 0, 0, 0, 0, 0 FROM runtime_jobs_ready ON CONFLICT DO NOTHING";
    sqlx::query(slot).execute(house.db.postgres().unwrap()).await.unwrap();
    let mut held_up = house.begin().await;
    sqlx::query("SELECT tat FROM runtime_jobs_slots FOR UPDATE").execute(&mut *held_up).await.unwrap();
    let store = house.store.clone();
    let request = ClaimRequest {
        worker: "w".to_owned(),
        queues: vec!["default".to_owned()],
        kinds: vec!["a".to_owned()],
        max: 10,
        lease: Duration::from_secs(30),
        limits: BTreeMap::from([("a".to_owned(), Limit::rate(1, EVERY))]),
    };
    let claim = tokio::spawn(async move { store.claim(&request).await });
    house.blocked(1).await;
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let had_at = house.count(now).await;
    held_up.commit().await.unwrap();
    assert_eq!(claim.await.unwrap().unwrap().len(), 1);
    let full_again = house.count("SELECT max(tat) FROM runtime_jobs_slots").await;
    let from = full_again - i64::try_from(EVERY.as_micros()).unwrap();
    assert!(from >= had_at, "begun {} us before it was let in", had_at - from);
}

/// A report that waited for it would be given up after the statement's time.
#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_in_an_open_transaction_does_not_hold_up_the_end_of_who_has_the_key() {
    let house = House::new().await;
    let context = House::context();
    let job = || NewJob::new("a", json!(null)).unique("u");
    house.jobs.enqueue(&context, job()).await.unwrap();
    let first = house.claim().await.remove(0);
    let mut tx = house.db.begin(&context).await.unwrap();
    let second = house.jobs.enqueue_in(&mut tx, &house.store, &context, job()).await.unwrap();
    assert!(second.duplicate && second.id == first.id);
    house.complete(&first).await;
    tx.commit().await.unwrap();
    assert!(!house.jobs.enqueue(&context, job()).await.unwrap().duplicate, "the key is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_pool_is_a_single_connection_works() {
    let house = House::with_connections(1).await;
    let (done, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let handlers = Handlers::new().handle_value("a", move |_, payload| {
        let _ = done.send(());
        async move { Ok(payload) }
    });
    let worker = Worker::new(house.jobs.clone(), handlers).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(async move { worker.run(async { drop(stopped.await) }).await });
    for _ in 0..3 {
        house.enqueue().await;
        let heard = tokio::time::timeout(Duration::from_secs(20), ended.recv()).await;
        assert_eq!(heard, Ok(Some(())));
    }
    stop.send(()).unwrap();
    running.await.unwrap();
}
