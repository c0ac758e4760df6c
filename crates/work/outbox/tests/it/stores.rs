//! The laws, on every store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{Clock, ManualClock};
use runtime_outbox::laws::{self, Harness};
use runtime_outbox::{Channel, InboxStore, MemoryInbox, MemoryOutbox, OutboxError, OutboxStore};

use super::common::message;

struct Manual {
    clock: ManualClock,
    outbox: Arc<dyn OutboxStore>,
    inbox: Arc<dyn InboxStore>,
    _folder: Option<tempfile::TempDir>,
}

#[async_trait]
impl Harness for Manual {
    fn outbox(&self) -> Arc<dyn OutboxStore> {
        Arc::clone(&self.outbox)
    }

    fn inbox(&self) -> Arc<dyn InboxStore> {
        Arc::clone(&self.inbox)
    }

    async fn elapse(&self, by: Duration) {
        self.clock.advance(by);
    }
}

#[tokio::test]
async fn memory_keeps_the_laws() {
    laws::all(async || {
        let clock = ManualClock::new();
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let (outbox, inbox) = (MemoryOutbox::new(shared.clone()), MemoryInbox::new(shared));
        Manual { clock, outbox: Arc::new(outbox), inbox: Arc::new(inbox), _folder: None }
    })
    .await;
}

#[tokio::test]
async fn a_full_memory_outbox_refuses_and_keeps_nothing_of_it() {
    let outbox = MemoryOutbox::with_capacity(Arc::new(ManualClock::new()), 1);
    let both = [message("1", "k"), message("2", "k")];
    assert!(matches!(outbox.add(&Channel::default(), &both).await, Err(OutboxError::Full)));
    outbox.add(&Channel::default(), &both[..1]).await.unwrap();
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) mod sql {
    use super::*;
    use runtime_db::{Database, DbConfig};
    use runtime_kernel::SharedClock;
    use runtime_migrate::{MigrateOptions, Migrator};
    use runtime_outbox::{SqlInbox, SqlOutbox, migrations};

    pub(crate) async fn open(url: &str, clock: SharedClock) -> Database {
        let db = Database::connect(&DbConfig::at(url), clock).await.unwrap();
        let migrator = Migrator::new(db.clone(), vec![migrations::SET], MigrateOptions::default()).unwrap();
        migrator.run().await.unwrap();
        db
    }

    #[cfg(feature = "sqlite")]
    pub(crate) async fn sqlite(clock: SharedClock) -> (Database, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("outbox.db").display());
        (open(&url, clock).await, folder)
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn sqlite_keeps_the_laws() {
        laws::all(async || {
            let clock = ManualClock::new();
            let (db, folder) = sqlite(Arc::new(clock.clone())).await;
            let (outbox, inbox) = (SqlOutbox::new(db.clone()), SqlInbox::new(db));
            Manual { clock, outbox: Arc::new(outbox), inbox: Arc::new(inbox), _folder: Some(folder) }
        })
        .await;
    }

    #[cfg(feature = "postgres")]
    pub(crate) struct Postgres {
        pub(crate) db: Database,
        pub(crate) database: runtime_testkit::postgres::TestDatabase,
    }

    #[cfg(feature = "postgres")]
    impl Postgres {
        pub(crate) async fn open() -> Self {
            let database = runtime_testkit::postgres::database().await.unwrap();
            let db = open(database.url(), runtime_kernel::SystemClock::shared()).await;
            Self { db, database }
        }
    }

    #[cfg(feature = "postgres")]
    #[async_trait]
    impl Harness for Postgres {
        fn outbox(&self) -> Arc<dyn OutboxStore> {
            Arc::new(SqlOutbox::new(self.db.clone()))
        }

        fn inbox(&self) -> Arc<dyn InboxStore> {
            Arc::new(SqlInbox::new(self.db.clone()))
        }

        /// Its clock is its own, so everything it remembers moves into the past instead.
        async fn elapse(&self, by: Duration) {
            let by = i64::try_from(by.as_micros()).unwrap();
            let pool = self.db.postgres().unwrap();
            for sql in [
                "UPDATE outbox_messages SET created_at = created_at - $1, due_at = due_at - $1, sent_at = sent_at - $1",
                "UPDATE outbox_shards SET lease_until = lease_until - $1, claimed_at = claimed_at - $1",
                "UPDATE inbox_messages SET seen_at = seen_at - $1",
            ] {
                runtime_db::sqlx::query(sql).bind(by).execute(pool).await.unwrap();
            }
        }
    }

    #[cfg(feature = "postgres")]
    #[tokio::test(flavor = "multi_thread")]
    async fn postgres_keeps_the_laws() {
        laws::all(async || Postgres::open().await).await;
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn sent_messages_are_kept_for_their_time_and_unsent_ones_for_ever() {
        use runtime_outbox::OnParked;
        use runtime_outbox::store::{ClaimRequest, Settled, Verdict};

        for keep in [true, false] {
            let clock = ManualClock::new();
            let (db, _folder) = sqlite(Arc::new(clock.clone())).await;
            let outbox = SqlOutbox::new(db.clone()).with_kept_sent(keep);
            let channel = Channel::default();
            outbox.add(&channel, &[message("1", "k"), message("2", "k")]).await.unwrap();
            let request = ClaimRequest {
                channel,
                max: 1,
                lease: Duration::from_secs(1),
                max_attempts: 3,
                on_parked: OnParked::Hold,
            };
            let claim = outbox.claim(&request).await.unwrap().unwrap();
            let sent = [Settled { seq: claim.messages[0].seq, verdict: Verdict::Sent }];
            assert!(outbox.settle(&claim.lease, &sent).await.unwrap());
            clock.advance(Duration::from_mins(1));
            assert_eq!(outbox.prune(Duration::from_secs(61), 10).await.unwrap(), 0);
            assert_eq!(outbox.prune(Duration::from_secs(59), 10).await.unwrap(), u64::from(keep));
            let left: i64 = runtime_db::sqlx::query_scalar("SELECT COUNT(*) FROM outbox_messages")
                .fetch_one(&db.sqlite().unwrap().read)
                .await
                .unwrap();
            assert_eq!(left, 1);
        }
    }

    /// What a later version of the service cannot read must not keep the rest from being sent.
    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn a_row_that_does_not_read_back_is_parked_and_the_rest_flows() {
        use super::super::common::{Recorder, Running, config};

        let (db, _folder) = sqlite(runtime_kernel::SystemClock::shared()).await;
        let outbox: Arc<dyn OutboxStore> = Arc::new(SqlOutbox::new(db.clone()));
        let all = [message("1", "k"), message("2", "k"), message("3", "")];
        outbox.add(&Channel::default(), &all).await.unwrap();
        let sql = "UPDATE outbox_messages SET event = 'nonsense' WHERE seq = 1";
        runtime_db::sqlx::query(sql).execute(&db.sqlite().unwrap().write).await.unwrap();
        let sink = Arc::new(Recorder::default());
        let _relay = Running::start(&outbox, &sink, config());
        sink.until(2).await;
        let parked = outbox.parked(&Channel::default(), None, 0, 10).await.unwrap();
        assert_eq!((parked.len(), parked[0].seq, parked[0].message.is_none()), (1, 1, true));
        assert_eq!(parked[0].failure.as_ref().unwrap().code, "outbox.corrupt");
    }
}

/// A poll so rare that only the commit's own call can have woken it, and a database that has no other way to tell.
#[cfg(feature = "sqlite")]
#[tokio::test]
async fn a_commit_wakes_the_relay_of_its_process() {
    use super::common::{Recorder, Running, config, context};

    let (db, _folder) = sql::sqlite(runtime_kernel::SystemClock::shared()).await;
    let outbox = runtime_outbox::SqlOutbox::new(db.clone());
    let store: Arc<dyn OutboxStore> = Arc::new(outbox.clone());
    let mut rare = config();
    rare.poll_interval = Duration::from_mins(10);
    rare.max_poll_interval = rare.poll_interval;
    let sink = Arc::new(Recorder::default());
    let _relay = Running::start(&store, &sink, rare);
    for id in ["1", "2", "3"] {
        let mut tx = db.begin(&context()).await.unwrap();
        outbox.add_in(&mut tx, message(id, "k")).await.unwrap();
        tx.commit().await.unwrap();
        sink.until(id.parse().unwrap()).await;
    }
}
