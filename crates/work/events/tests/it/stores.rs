//! The laws of logs and brokers, on every log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_events::laws::{self, Broker, Capabilities, Consuming, Harness};
use runtime_events::{Consumer, EventLog, EventsConfig, Handler, MemoryLog, Publisher, SubscriptionSpec};
use runtime_kernel::{ManualClock, SystemClock};

struct InMemory {
    clock: ManualClock,
    log: Arc<dyn EventLog>,
}

#[async_trait]
impl Harness for InMemory {
    fn log(&self) -> Arc<dyn EventLog> {
        Arc::clone(&self.log)
    }

    async fn elapse(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[tokio::test]
async fn memory_keeps_the_laws_of_logs() {
    laws::log(async || {
        let clock = ManualClock::new();
        InMemory { log: Arc::new(MemoryLog::new(Arc::new(clock.clone()))), clock }
    })
    .await;
}

/// A log as a broker, with consumers of this crate.
struct Logged(Arc<dyn EventLog>);

#[async_trait]
impl Broker for Logged {
    fn publisher(&self) -> Arc<dyn Publisher> {
        Arc::new(Arc::clone(&self.0))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ordered: true, dedup: true }
    }

    async fn consume(&self, topic: &str, group: &str, handler: Handler) -> Consuming {
        let mut config = EventsConfig::default();
        config.lease = Duration::from_millis(1500);
        config.poll_interval = Duration::from_millis(20);
        config.retry.base_delay = Duration::from_millis(5);
        config.retry.max_delay = Duration::from_millis(20);
        config.retry.max_attempts = 3;
        config.drain = Duration::from_millis(100);
        let spec = SubscriptionSpec::new(format!("{topic}.{group}"), topic).unwrap();
        self.0.subscribe(&spec).await.unwrap();
        let consumer = Consumer::new(Arc::clone(&self.0), spec, config, SystemClock::shared()).unwrap();
        Consuming::spawn(|stop| async move { consumer.run(stop.cancelled_owned(), handler).await.unwrap() })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_laws_of_brokers() {
    laws::broker(&Logged(Arc::new(MemoryLog::new(SystemClock::shared())))).await;
}

#[tokio::test]
async fn a_full_memory_log_refuses_until_some_are_pruned() {
    use runtime_events::{CloudEvent, EventsError, Message};
    use runtime_kernel::{Context, Source};

    let clock = ManualClock::new();
    let log = MemoryLog::with_capacity(Arc::new(clock.clone()), 1);
    let context = Context::new(Source::Internal, &clock);
    let message = |id: &str| {
        let event = CloudEvent::builder(id, "/s", "t").build().unwrap();
        Message::new(&clock, &context, "topic", event).unwrap()
    };
    log.publish(&[message("1")]).await.unwrap();
    assert!(matches!(log.publish(&[message("2")]).await, Err(EventsError::Full(_))));
    clock.advance(Duration::from_secs(2));
    assert_eq!(log.prune(Duration::from_secs(1), 10).await.unwrap(), 1);
    log.publish(&[message("2")]).await.unwrap();
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod sql {
    use super::*;
    use futures_util::FutureExt;
    use runtime_db::{Database, DbConfig};
    use runtime_events::{CloudEvent, Message, SqlLog, migrations};
    use runtime_kernel::{Context, SharedClock, Source};
    use runtime_migrate::{MigrateOptions, Migrator};

    pub(super) async fn open(url: &str, clock: SharedClock) -> Database {
        let db = Database::connect(&DbConfig::at(url), clock).await.unwrap();
        let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap();
        migrator.run().await.unwrap();
        db
    }

    fn message(id: &str, key: &str) -> Message {
        let event = CloudEvent::builder(id, "/s", "t").key(key).build().unwrap();
        Message::new(&SystemClock, &context(), "topic", event).unwrap()
    }

    fn context() -> Context {
        Context::new(Source::Internal, &SystemClock)
    }

    async fn ids(log: &SqlLog, after: u64) -> Vec<String> {
        let read = log.read("topic", after, 10_000).await.unwrap();
        read.iter().map(|stored| stored.message.event.id().to_owned()).collect()
    }

    /// Events exist when, and only when, their transaction commits.
    async fn publishes_in_transactions(db: Database) {
        let log = SqlLog::new(db.clone());
        for (id, commit) in [("undone", false), ("kept", true)] {
            let mut tx = db.begin(&context()).await.unwrap();
            log.publish_in(&mut tx, &[message(id, "k")]).await.unwrap();
            if commit {
                tx.commit().await.unwrap();
            } else {
                tx.rollback().await.unwrap();
            }
        }
        assert_eq!(ids(&log, 0).await, ["kept"]);
    }

    /// The bell rings when the transaction has been committed: not before, and not for one that is undone.
    async fn rings_at_the_commit(db: Database) {
        let log = SqlLog::new(db.clone());
        for commit in [false, true] {
            let mut rung = std::pin::pin!(log.rung().notified());
            let mut tx = db.begin(&context()).await.unwrap();
            log.publish_in(&mut tx, &[message("1", "k")]).await.unwrap();
            assert!(rung.as_mut().now_or_never().is_none(), "nothing is there to be found yet");
            if commit {
                tx.commit().await.unwrap();
            } else {
                tx.rollback().await.unwrap();
            }
            assert_eq!(rung.now_or_never().is_some(), commit);
        }
        let rung = log.rung().notified();
        log.publish(&[message("1", "k")]).await.unwrap();
        assert!(rung.now_or_never().is_none(), "a duplicate is no news");
        let rung = log.rung().notified();
        log.publish(&[message("2", "k")]).await.unwrap();
        assert!(rung.now_or_never().is_some());
    }

    #[cfg(feature = "sqlite")]
    mod sqlite {
        use super::*;

        struct Sqlite {
            clock: ManualClock,
            log: Arc<dyn EventLog>,
            _folder: tempfile::TempDir,
        }

        #[async_trait]
        impl Harness for Sqlite {
            fn log(&self) -> Arc<dyn EventLog> {
                Arc::clone(&self.log)
            }

            async fn elapse(&self, by: Duration) {
                self.clock.advance(by);
            }
        }

        fn url(folder: &tempfile::TempDir) -> String {
            format!("sqlite:{}", folder.path().join("events.db").display())
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn sqlite_keeps_the_laws_of_logs() {
            laws::log(async || {
                let (clock, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
                let db = open(&url(&folder), Arc::new(clock.clone())).await;
                Sqlite { clock, log: Arc::new(SqlLog::new(db)), _folder: folder }
            })
            .await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn sqlite_keeps_the_laws_of_brokers() {
            let folder = tempfile::tempdir().unwrap();
            let db = open(&url(&folder), SystemClock::shared()).await;
            laws::broker(&Logged(Arc::new(SqlLog::new(db)))).await;
        }

        #[tokio::test]
        async fn sqlite_rings_at_the_commit() {
            let folder = tempfile::tempdir().unwrap();
            rings_at_the_commit(open(&url(&folder), SystemClock::shared()).await).await;
        }

        #[tokio::test]
        async fn sqlite_publishes_in_transactions() {
            let folder = tempfile::tempdir().unwrap();
            publishes_in_transactions(open(&url(&folder), SystemClock::shared()).await).await;
        }
    }

    #[cfg(feature = "postgres")]
    mod postgres {
        use super::*;
        use std::collections::HashSet;

        struct Postgres {
            db: Database,
            log: Arc<dyn EventLog>,
            _database: runtime_testkit::postgres::TestDatabase,
        }

        #[async_trait]
        impl Harness for Postgres {
            fn log(&self) -> Arc<dyn EventLog> {
                Arc::clone(&self.log)
            }

            /// Its clock is its own, so everything it remembers moves into the past instead.
            async fn elapse(&self, by: Duration) {
                let by = i64::try_from(by.as_micros()).unwrap();
                let pool = self.db.postgres().unwrap();
                for sql in [
                    "UPDATE event_data SET published_at = published_at - $1",
                    "UPDATE event_cursors SET lease_until = lease_until - $1, claimed_at = claimed_at - $1",
                    "UPDATE event_retries SET due_at = due_at - $1",
                ] {
                    runtime_db::sqlx::query(sql).bind(by).execute(pool).await.unwrap();
                }
            }
        }

        async fn fresh() -> (Database, runtime_testkit::postgres::TestDatabase) {
            let database = runtime_testkit::postgres::database().await.unwrap();
            (open(database.url(), SystemClock::shared()).await, database)
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn postgres_keeps_the_laws_of_logs() {
            laws::log(async || {
                let (db, database) = fresh().await;
                Postgres { log: Arc::new(SqlLog::new(db.clone())), db, _database: database }
            })
            .await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgres_keeps_the_laws_of_brokers() {
            let (db, _database) = fresh().await;
            laws::broker(&Logged(Arc::new(SqlLog::new(db)))).await;
        }

        #[tokio::test]
        async fn postgres_publishes_in_transactions() {
            let (db, _database) = fresh().await;
            publishes_in_transactions(db).await;
        }

        #[tokio::test]
        async fn postgres_rings_at_the_commit() {
            let (db, _database) = fresh().await;
            rings_at_the_commit(db).await;
        }

        /// Consumers that poll once an hour: what another process publishes reaches each of them all the same, also after
        /// their listening connection was cut.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_commit_wakes_every_consumer_of_another_process() {
            let (db, database) = fresh().await;
            let there = SqlLog::new(
                Database::connect(&DbConfig::at(database.url()), SystemClock::shared()).await.unwrap(),
            );
            let here: Arc<dyn EventLog> = Arc::new(SqlLog::new(db.clone()));
            let (tell, mut told) = tokio::sync::mpsc::channel(16);
            let consuming = ["a", "b"].map(|name| {
                let mut config = EventsConfig::default();
                config.poll_interval = Duration::from_hours(1);
                let spec = SubscriptionSpec::new(name, "topic").unwrap();
                let consumer = Consumer::new(Arc::clone(&here), spec, config, SystemClock::shared()).unwrap();
                let tell = tell.clone();
                let handler = Handler::new(move |incoming: runtime_events::Incoming| {
                    let tell = tell.clone();
                    async move {
                        tell.send(incoming.event.id().to_owned())
                            .await
                            .map_err(runtime_kernel::Error::internal)
                    }
                });
                Consuming::spawn(|stop| async move {
                    consumer.run(stop.cancelled_owned(), handler).await.unwrap();
                })
            });
            let pool = db.postgres().unwrap();
            let listening =
                "FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %'";
            let count = format!("SELECT count(*) {listening}");
            for round in 0..3 {
                runtime_testkit::until("somebody listens", async || {
                    let count = runtime_db::sqlx::AssertSqlSafe(count.clone());
                    runtime_db::sqlx::query_scalar::<_, i64>(count).fetch_one(pool).await.unwrap() == 1
                })
                .await
                .unwrap();
                let id = round.to_string();
                there.publish(&[message(&id, "k")]).await.unwrap();
                for _ in 0..2 {
                    assert_eq!(told.recv().await.unwrap(), id);
                }
                if round == 1 {
                    let cut = format!("SELECT pg_terminate_backend(pid) {listening}");
                    let cut = runtime_db::sqlx::AssertSqlSafe(cut);
                    runtime_db::sqlx::query(cut).execute(pool).await.unwrap();
                }
            }
            for consuming in consuming {
                consuming.stop().await;
            }
        }

        /// The trap of sequences: the row with the lower number is committed after the higher one was read.
        #[tokio::test]
        async fn an_event_whose_transaction_commits_late_is_not_skipped() {
            let (db, _database) = fresh().await;
            let log = SqlLog::new(db.clone());
            let mut slow = db.begin(&context()).await.unwrap();
            log.publish_in(&mut slow, &[message("late", "a")]).await.unwrap();
            let mut undone = db.begin(&context()).await.unwrap();
            log.publish_in(&mut undone, &[message("never", "b")]).await.unwrap();
            log.publish(&[message("early", "b")]).await.unwrap();
            assert_eq!(ids(&log, 0).await, ["early"], "and nobody waits for the open ones");
            undone.rollback().await.unwrap();
            slow.commit().await.unwrap();
            assert_eq!(ids(&log, 1).await, ["late"]);
            let read = log.read("topic", 0, 10).await.unwrap();
            assert_eq!(read.iter().map(|it| it.position).collect::<Vec<_>>(), [1, 2], "without gaps");
        }

        /// Writers that commit and roll back in every order, beside a reader that follows: it sees each event once, the
        /// events of a key in the order their transactions followed each other.
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn a_reader_beside_racing_writers_misses_nothing() {
            let (db, _database) = fresh().await;
            let log = SqlLog::new(db.clone());
            let writers: Vec<_> = (0..6)
                .map(|writer| {
                    let (db, log) = (db.clone(), log.clone());
                    tokio::spawn(async move {
                        let mut kept = 0;
                        for n in 0..40 {
                            let mut tx = db.begin(&context()).await.unwrap();
                            let id = format!("{writer}-{n:03}");
                            log.publish_in(&mut tx, &[message(&id, &writer.to_string())]).await.unwrap();
                            for _ in 0..(writer * 7 + n) % 5 {
                                tokio::task::yield_now().await;
                            }
                            if (writer + n) % 4 == 0 {
                                tx.rollback().await.unwrap();
                            } else {
                                tx.commit().await.unwrap();
                                kept += 1;
                            }
                        }
                        kept
                    })
                })
                .collect();
            let (mut seen, mut after) = (Vec::new(), 0);
            let mut finished = false;
            loop {
                let read = log.read("topic", after, 7).await.unwrap();
                for stored in &read {
                    assert_eq!(stored.position, after + 1, "without gaps");
                    after = stored.position;
                    seen.push(stored.message.event.id().to_owned());
                }
                if read.is_empty() && finished {
                    break;
                }
                finished = writers.iter().all(tokio::task::JoinHandle::is_finished);
            }
            let mut kept = 0;
            for writer in writers {
                kept += writer.await.unwrap();
            }
            assert_eq!(seen.len(), kept);
            assert_eq!(seen.iter().collect::<HashSet<_>>().len(), kept);
            for writer in 0..6 {
                let mine: Vec<_> = seen.iter().filter(|id| id.starts_with(&format!("{writer}-"))).collect();
                assert!(mine.is_sorted());
            }
        }
    }
}
