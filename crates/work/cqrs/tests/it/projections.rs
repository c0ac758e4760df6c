//! Projections on SQLite and Postgres: once per event, stopped by what they cannot take, rebuilt beside their readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use runtime_cqrs::{CqrsError, Projection, Projector};
use runtime_db::sqlx::{self, Row};
use runtime_db::{Database, DbConfig, DbError, Tx, on_connection};
use runtime_events::log::Stored;
use runtime_events::{CloudEvent, MemoryLog, Message, Publisher};
use runtime_kernel::{Context, Error, Source, SystemClock};
use runtime_migrate::{MigrateOptions, Migration, MigrationSet, Migrator};

const TOTALS: MigrationSet =
    MigrationSet { module: "test", migrations: &[Migration::new(1, "totals", TABLE, TABLE)] };
const TABLE: &str = "CREATE TABLE totals (generation BIGINT PRIMARY KEY, total BIGINT NOT NULL)";

/// Sums up numbers, times a factor that changes between rebuilds, and refuses one of them.
struct Totals {
    factor: AtomicU64,
    refuses: AtomicU64,
}

async fn execute(tx: &mut Tx, sql: &'static str, generation: u64, number: i64) -> Result<(), DbError> {
    let generation = i64::try_from(generation).unwrap();
    on_connection!(tx, conn => {
        sqlx::query(sql).bind(generation).bind(number).execute(&mut *conn).await.map(drop)?;
    })
}

#[async_trait]
impl Projection for Totals {
    fn name(&self) -> &'static str {
        "totals"
    }

    fn topic(&self) -> &'static str {
        "numbers"
    }

    async fn apply(&self, tx: &mut Tx, generation: u64, event: &Stored) -> Result<(), Error> {
        let number: u64 = event.message.event.json()?;
        if number == self.refuses.load(Ordering::Relaxed) {
            return Err(Error::invalid("refused on purpose"));
        }
        let number = i64::try_from(number * self.factor.load(Ordering::Relaxed)).unwrap();
        let sql = "INSERT INTO totals (generation, total) VALUES ($1, $2)
            ON CONFLICT (generation) DO UPDATE SET total = totals.total + excluded.total";
        Ok(execute(tx, sql, generation, number).await?)
    }

    async fn clear(&self, tx: &mut Tx, generation: u64) -> Result<(), Error> {
        Ok(execute(tx, "DELETE FROM totals WHERE generation = $1 AND $2 = 0", generation, 0).await?)
    }
}

struct Bench {
    db: Database,
    log: Arc<MemoryLog>,
    totals: Arc<Totals>,
}

impl Bench {
    async fn new(url: &str) -> Self {
        let db = Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap();
        let sets = vec![runtime_cqrs::migrations::SET, TOTALS];
        Migrator::new(db.clone(), sets, MigrateOptions::default()).unwrap().run().await.unwrap();
        let totals = Arc::new(Totals { factor: AtomicU64::new(1), refuses: AtomicU64::new(u64::MAX) });
        Self { db, log: Arc::new(MemoryLog::new(SystemClock::shared())), totals }
    }

    fn projector(&self) -> Projector {
        let (projection, log) = (Arc::clone(&self.totals), Arc::clone(&self.log));
        Projector::new(projection, log, self.db.clone()).batch(4)
    }

    async fn publish(&self, numbers: std::ops::Range<u64>) {
        let context = Context::new(Source::Internal, &SystemClock);
        for number in numbers {
            let event = CloudEvent::builder(number.to_string(), "/s", "t").json(&number).build().unwrap();
            let message = Message::new(&SystemClock, &context, "numbers", event).unwrap();
            self.log.publish(&[message]).await.unwrap();
        }
    }

    async fn total(&self, generation: u64) -> Option<i64> {
        let mut tx = self.db.begin(&Context::new(Source::Internal, &SystemClock)).await.unwrap();
        let sql = "SELECT total FROM totals WHERE generation = $1";
        let generation = i64::try_from(generation).unwrap();
        let found: Result<Option<i64>, DbError> = on_connection!(tx, conn => {
            let row = sqlx::query(sql).bind(generation).fetch_optional(&mut *conn).await.unwrap();
            row.map(|row| row.try_get::<i64, _>("total").unwrap())
        });
        found.unwrap()
    }
}

async fn each_event_counts_once_however_many_project(bench: &Bench) {
    bench.publish(0..50).await;
    let projectors = (0..3).map(|_| {
        let projector = bench.projector();
        tokio::spawn(async move { while projector.step().await.unwrap() > 0 {} })
    });
    for projector in projectors.collect::<Vec<_>>() {
        projector.await.unwrap();
    }
    let projector = bench.projector();
    while projector.step().await.unwrap() > 0 {}
    assert_eq!(bench.total(projector.live().await.unwrap()).await, Some((0..50).sum()));
    assert_eq!(projector.lag().await.unwrap(), 0);
}

async fn a_refused_event_stops_it_and_keeps_what_came_before(bench: &Bench) {
    let projector = bench.projector();
    bench.totals.refuses.store(52, Ordering::Relaxed);
    bench.publish(50..60).await;
    for _ in 0..2 {
        let error = projector.step().await.unwrap_err();
        assert!(
            matches!(&error, CqrsError::Refused { name, position: 53, .. } if name == "totals"),
            "{error}"
        );
    }
    assert_eq!(bench.total(1).await, Some((0..52).sum()));
    assert_eq!(projector.lag().await.unwrap(), 8);
    bench.totals.refuses.store(u64::MAX, Ordering::Relaxed);
    while projector.step().await.unwrap() > 0 {}
    assert_eq!(bench.total(1).await, Some((0..60).sum()));
}

async fn a_rebuild_happens_beside_the_live_one_and_then_replaces_it(bench: &Bench) {
    let projector = bench.projector();
    bench.totals.factor.store(10, Ordering::Relaxed);
    bench.totals.refuses.store(30, Ordering::Relaxed);
    assert!(projector.rebuild().await.is_err());
    assert_eq!(projector.live().await.unwrap(), 1, "a failed rebuild changes nothing for readers");
    assert_eq!(bench.total(1).await, Some((0..60).sum()));
    bench.totals.refuses.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(projector.rebuild().await.unwrap(), 2);
    assert_eq!(projector.live().await.unwrap(), 2);
    let sum: i64 = (0..60).sum();
    assert_eq!((bench.total(2).await, bench.total(1).await), (Some(sum * 10), None));
    bench.publish(60..61).await;
    assert_eq!(projector.step().await.unwrap(), 1);
    assert_eq!(bench.total(2).await, Some((sum + 60) * 10));
}

async fn all(bench: &Bench) {
    each_event_counts_once_however_many_project(bench).await;
    a_refused_event_stops_it_and_keeps_what_came_before(bench).await;
    a_rebuild_happens_beside_the_live_one_and_then_replaces_it(bench).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    all(&Bench::new(&format!("sqlite:{}", folder.path().join("cqrs.db").display())).await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projections_on_postgres() {
    let database = runtime_testkit::postgres::database().await.unwrap();
    all(&Bench::new(database.url()).await).await;
}
