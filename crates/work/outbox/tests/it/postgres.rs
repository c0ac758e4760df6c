//! On a real Postgres: races, late commits, killed relays, wake-ups.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_db::{Database, sqlx};
use runtime_events::{EventsError, Message, Publisher, Receipt};
use runtime_kernel::{Error, SystemClock};
use runtime_outbox::laws::Harness;
use runtime_outbox::{Channel, OutboxStore, SqlInbox, SqlOutbox};

use super::common::{Mood, Recorder, Running, config, context, message};
use super::stores::sql::{Postgres, open};

fn store(outbox: &SqlOutbox) -> Arc<dyn OutboxStore> {
    Arc::new(outbox.clone())
}

/// A poll so rare that only being told helps.
fn deaf() -> runtime_outbox::OutboxConfig {
    let mut config = config();
    config.poll_interval = Duration::from_mins(10);
    config.max_poll_interval = config.poll_interval;
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_race_lose_nothing_and_keep_keys_in_order() {
    let postgres = Postgres::open().await;
    let other = open(postgres.database.url(), SystemClock::shared()).await;
    let (here, there) = (SqlOutbox::new(postgres.db.clone()), SqlOutbox::new(other));
    let sink = Arc::new(Recorder::default());
    let mut small = config();
    small.batch = 5;
    let _relays = [
        Running::start(&store(&here), &sink, small.clone()),
        Running::start(&store(&here), &sink, small.clone()),
        Running::start(&store(&there), &sink, small),
    ];
    // Each key's writer follows its own commits; among the keys, transactions overlap as they like.
    let writers = (0..8).map(|key| {
        let (outbox, db) = (here.clone(), postgres.db.clone());
        tokio::spawn(async move {
            for n in 0..40 {
                let mut tx = db.begin(&context()).await.unwrap();
                outbox.add_in(&mut tx, message(&format!("{key}-{n:02}"), &key.to_string())).await.unwrap();
                outbox.add_in(&mut tx, message(&format!("{key}-{n:02}-b"), &key.to_string())).await.unwrap();
                if n % 5 == 4 {
                    tx.rollback().await.unwrap();
                } else {
                    tx.commit().await.unwrap();
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    sink.until(8 * 32 * 2).await;
    for (key, ids) in sink.by_key() {
        assert!(ids.is_sorted() && ids.len() == 64, "{key}: {ids:?}");
    }
    assert_eq!(sink.ids().len(), 8 * 64, "without failures nothing is sent twice");
    let here = store(&here);
    runtime_testkit::until("no lag", async || here.stats().await.unwrap().is_empty()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_commits_late_is_sent_when_it_commits() {
    let postgres = Postgres::open().await;
    let outbox = SqlOutbox::new(postgres.db.clone());
    let sink = Arc::new(Recorder::default());
    let _relay = Running::start(&store(&outbox), &sink, deaf());
    let mut late = postgres.db.begin(&context()).await.unwrap();
    outbox.add_in(&mut late, message("late", "k")).await.unwrap();
    let mut quick = postgres.db.begin(&context()).await.unwrap();
    outbox.add_in(&mut quick, message("quick", "k")).await.unwrap();
    quick.commit().await.unwrap();
    sink.until(1).await;
    assert_eq!(sink.ids(), ["quick"], "its number is the higher one");
    late.commit().await.unwrap();
    sink.until(2).await;
    assert_eq!(sink.ids(), ["quick", "late"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_of_another_process_is_told_of_a_commit() {
    let postgres = Postgres::open().await;
    let other = open(postgres.database.url(), SystemClock::shared()).await;
    let sink = Arc::new(Recorder::default());
    let _relay = Running::start(&store(&SqlOutbox::new(other.clone())), &sink, deaf());
    let listening =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND datname = current_database()";
    runtime_testkit::until("the listener", async || {
        let count: i64 =
            sqlx::query_scalar(listening).fetch_one(postgres.db.postgres().unwrap()).await.unwrap();
        count > 0
    })
    .await
    .unwrap();
    let outbox = SqlOutbox::new(postgres.db.clone());
    let mut tx = postgres.db.begin(&context()).await.unwrap();
    outbox.add_in(&mut tx, message("1", "k")).await.unwrap();
    tx.commit().await.unwrap();
    sink.until(1).await;
}

/// A consumer whose effect and whose memory of the message are one transaction.
#[derive(Debug)]
struct Consumer {
    db: Database,
    inbox: SqlInbox,
}

impl Consumer {
    async fn new(db: &Database) -> Self {
        let sql = "CREATE TABLE effects (id TEXT NOT NULL)";
        sqlx::query(sql).execute(db.postgres().unwrap()).await.unwrap();
        Self { db: db.clone(), inbox: SqlInbox::new(db.clone()) }
    }

    async fn effects(&self) -> Vec<String> {
        let sql = "SELECT id FROM effects ORDER BY ctid";
        sqlx::query_scalar(sql).fetch_all(self.db.postgres().unwrap()).await.unwrap()
    }

    async fn handle(&self, message: &Message) -> Result<bool, Error> {
        let context = message.context.resume(runtime_kernel::Source::Event, &SystemClock);
        let handle = async |mut tx: runtime_db::Tx| {
            if !self.inbox.event_once_in(&mut tx, &context, "billing", &message.event).await?.is_fresh() {
                return Ok(false);
            }
            let conn = tx.postgres().unwrap();
            let insert = sqlx::query("INSERT INTO effects (id) VALUES ($1)").bind(message.event.id());
            insert.execute(&mut *conn).await.map_err(runtime_db::DbError::from)?;
            Ok::<_, Error>(true)
        };
        self.db.transaction(&context, handle).await
    }
}

/// Hands everything to a consumer and remembers it besides.
struct ToConsumer {
    consumer: Arc<Consumer>,
    recorder: Arc<Recorder>,
}

#[async_trait]
impl Publisher for ToConsumer {
    async fn publish(&self, messages: &[Message]) -> Result<Vec<Receipt>, EventsError> {
        for message in messages {
            self.consumer.handle(message).await.map_err(|error| EventsError::Broker(Box::new(error)))?;
        }
        self.recorder.publish(messages).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_killed_between_publishing_and_marking_repeats_itself_and_the_inbox_absorbs_it() {
    let postgres = Postgres::open().await;
    let outbox = store(&SqlOutbox::new(postgres.db.clone()));
    let consumer = Arc::new(Consumer::new(&postgres.db).await);
    let recorder = Arc::new(Recorder::default());
    let sink = || Arc::new(ToConsumer { consumer: Arc::clone(&consumer), recorder: Arc::clone(&recorder) });
    let all = ["1", "2", "3", "4"].map(|id| message(id, "k"));
    outbox.add(&Channel::default(), &all).await.unwrap();
    recorder.set(Mood::Hangs);
    let doomed = Running::with(&outbox, sink(), config(), SystemClock::shared());
    recorder.called.notified().await;
    doomed.kill().await;
    assert_eq!(consumer.effects().await, ["1", "2", "3", "4"], "published");
    assert_eq!(outbox.stats().await.unwrap()[0].unsent(), 4, "and not marked");
    recorder.set(Mood::Well);
    postgres.elapse(Duration::from_secs(31)).await;
    let _heir = Running::with(&outbox, sink(), config(), SystemClock::shared());
    runtime_testkit::until("all sent", async || outbox.stats().await.unwrap().is_empty()).await.unwrap();
    assert_eq!(recorder.ids().len(), 8, "each was delivered twice");
    assert_eq!(consumer.effects().await, ["1", "2", "3", "4"], "and took effect once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_fails_is_not_remembered_and_one_that_races_happens_once() {
    let postgres = Postgres::open().await;
    let consumer = Arc::new(Consumer::new(&postgres.db).await);
    let one = message("1", "k");
    let mut undone = postgres.db.begin(&context()).await.unwrap();
    let inbox = &consumer.inbox;
    assert!(inbox.event_once_in(&mut undone, &context(), "billing", &one.event).await.unwrap().is_fresh());
    undone.rollback().await.unwrap();
    let racing = (0..8).map(|_| {
        let (consumer, one) = (Arc::clone(&consumer), one.clone());
        tokio::spawn(async move { consumer.handle(&one).await.unwrap() })
    });
    let mut fresh = 0;
    for task in racing.collect::<Vec<_>>() {
        fresh += u32::from(task.await.unwrap());
    }
    assert_eq!((fresh, consumer.effects().await.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_too_poison_is_parked_while_others_flow() {
    let postgres = Postgres::open().await;
    let outbox = store(&SqlOutbox::new(postgres.db.clone()));
    let sink = Arc::new(Recorder::default());
    sink.refuse("bad", true);
    let _relays = [Running::start(&outbox, &sink, config()), Running::start(&outbox, &sink, config())];
    let mut all: Vec<_> = (0..50).map(|n| message(&format!("{n:02}"), &format!("k{}", n % 5))).collect();
    all.insert(0, message("bad", "k0"));
    outbox.add(&Channel::default(), &all).await.unwrap();
    sink.until(50).await;
    for (key, ids) in sink.by_key() {
        assert!(ids.is_sorted(), "{key}: {ids:?}");
    }
    let parked = outbox.parked(&Channel::default(), None, 0, 10).await.unwrap();
    assert_eq!((parked.len(), parked[0].attempts), (1, 3));
    assert_eq!(parked[0].message.as_ref().unwrap().event.id(), "bad");
    let keys: HashSet<_> = sink.by_key().into_keys().collect();
    assert_eq!(keys.len(), 5);
}
