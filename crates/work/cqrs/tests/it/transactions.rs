//! Commands done in a transaction: with what they write and the memory of their answer, or not at all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_cqrs::{Command, CommandBus, CommandBusBuilder, CqrsError, Repeat, Transactional};
use runtime_db::{Database, DbConfig, DbError, Tx, on_connection, sqlx};
use runtime_events::log::EventLog;
use runtime_events::{CloudEvent, Message, SqlLog};
use runtime_kernel::{Context, Deadline, Error, ErrorKind, Retry, Source, SystemClock};
use runtime_migrate::{MigrateOptions, Migration, MigrationSet, Migrator};
use serde::Serialize;
use sqlx::AssertSqlSafe;
use tokio::sync::Barrier;

const ORDERS: MigrationSet =
    MigrationSet { module: "test", migrations: &[Migration::new(1, "orders", TABLES, TABLES)] };
const TABLES: &str = "CREATE TABLE items (item TEXT PRIMARY KEY);
    CREATE TABLE orders (item TEXT NOT NULL REFERENCES items (item) DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO items VALUES ('pen')";

/// Transactions a handler did not drop when it ended.
static KEPT: Mutex<Vec<Tx>> = Mutex::new(Vec::new());

struct Bench {
    db: Database,
    log: SqlLog,
    _folder: Option<tempfile::TempDir>,
    _server: Option<runtime_testkit::postgres::TestDatabase>,
}

impl Bench {
    async fn open(url: &str) -> (Database, SqlLog) {
        let db = Database::connect(&DbConfig::at(url), SystemClock::shared()).await.unwrap();
        let sets = vec![runtime_cqrs::migrations::SET, runtime_events::migrations::SET, ORDERS];
        Migrator::new(db.clone(), sets, MigrateOptions::default()).unwrap().run().await.unwrap();
        (db.clone(), SqlLog::new(db))
    }

    async fn both() -> [Self; 2] {
        let folder = tempfile::tempdir().unwrap();
        let (db, log) = Self::open(&format!("sqlite:{}", folder.path().join("cqrs.db").display())).await;
        let sqlite = Self { db, log, _folder: Some(folder), _server: None };
        let server = runtime_testkit::postgres::database().await.unwrap();
        let (db, log) = Self::open(server.url()).await;
        [sqlite, Self { db, log, _folder: None, _server: Some(server) }]
    }

    fn bus(&self) -> CommandBusBuilder {
        CommandBus::builder().layer(Transactional::new(self.db.clone()))
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        let mut tx = self.db.begin(&context()).await.unwrap();
        let count: Result<i64, DbError> =
            on_connection!(tx, conn => sqlx::query_scalar(sql).fetch_one(&mut *conn).await.unwrap());
        count.unwrap()
    }

    /// Orders, events and answers there are.
    async fn kept(&self) -> (i64, u64, i64) {
        let events = self.log.bounds("orders").await.unwrap().newest;
        (self.count("orders").await, events, self.count("cqrs_idempotency").await)
    }
}

fn context() -> Context {
    Context::new(Source::Http, &SystemClock)
}

async fn run(tx: &mut Tx, sql: &str) -> Result<(), DbError> {
    let sql = AssertSqlSafe(sql.to_owned());
    on_connection!(tx, conn => { sqlx::query(sql).execute(&mut *conn).await.map(drop)?; })
}

/// Where an order goes wrong, the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Wrong {
    Nothing,
    RefusesAtOnce,
    RefusesHavingWritten,
    Panics,
    IsCancelled,
    IsLate,
    SwallowsAFailure,
    KeepsTheTransaction,
    AnswersWhatCannotBeWritten,
    CannotRemember,
    CannotCommit,
    LosesItsConnection,
}

#[derive(Clone, Serialize)]
struct Order(&'static str, Wrong);

impl Command for Order {
    const NAME: &'static str = "order";
    type Reply = Reply;
}

/// An answer that may refuse to be written.
#[derive(Debug, PartialEq, serde::Deserialize)]
struct Reply(u32);

impl Serialize for Reply {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == u32::MAX {
            return Err(serde::ser::Error::custom("as planned"));
        }
        serializer.serialize_newtype_struct("Reply", &self.0)
    }
}

/// Writes an order and publishes it, and goes wrong once.
async fn order(
    log: SqlLog,
    round: u32,
    context: Context,
    mut tx: Tx,
    Order(item, wrong): Order,
) -> Result<Reply, Error> {
    let wrong = if round == 0 { wrong } else { Wrong::Nothing };
    if wrong == Wrong::RefusesAtOnce {
        return Err(Error::invalid("as planned"));
    }
    let item = if wrong == Wrong::CannotCommit { "nothing" } else { item };
    run(&mut tx, &format!("INSERT INTO orders VALUES ('{item}')")).await?;
    let event = CloudEvent::now(&SystemClock, "/shop", "ordered").build()?;
    log.publish_in(&mut tx, &[Message::new(&SystemClock, &context, "orders", event)?]).await?;
    match wrong {
        Wrong::RefusesHavingWritten => Err(Error::invalid("as planned")),
        Wrong::Panics => panic!("as planned"),
        Wrong::IsCancelled | Wrong::IsLate => std::future::pending().await,
        Wrong::AnswersWhatCannotBeWritten => Ok(Reply(u32::MAX)),
        Wrong::SwallowsAFailure => {
            run(&mut tx, "SELECT * FROM nowhere").await.unwrap_err();
            Ok(Reply(round))
        }
        Wrong::KeepsTheTransaction => {
            KEPT.lock().unwrap().push(tx);
            Ok(Reply(round))
        }
        Wrong::CannotRemember => {
            run(&mut tx, "DELETE FROM cqrs_idempotency").await?;
            Ok(Reply(round))
        }
        Wrong::LosesItsConnection => {
            run(&mut tx, "SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
            Ok(Reply(round))
        }
        _ => Ok(Reply(round)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_and_the_answer_are_kept_together_or_not_at_all() {
    for bench in Bench::both().await {
        let mut so_far = 0;
        for wrong in [
            Wrong::Nothing,
            Wrong::RefusesAtOnce,
            Wrong::RefusesHavingWritten,
            Wrong::Panics,
            Wrong::IsCancelled,
            Wrong::IsLate,
            Wrong::SwallowsAFailure,
            Wrong::KeepsTheTransaction,
            Wrong::AnswersWhatCannotBeWritten,
            Wrong::CannotRemember,
            Wrong::CannotCommit,
            Wrong::LosesItsConnection,
        ] {
            let postgres = bench.db.dialect() == runtime_db::Dialect::Postgres;
            // SQLite undoes a failing statement alone and goes on, and it has no connection to lose.
            let foreign = [Wrong::SwallowsAFailure, Wrong::LosesItsConnection];
            if foreign.contains(&wrong) && !postgres {
                continue;
            }
            let (log, rounds) = (bench.log.clone(), Arc::new(AtomicU32::new(0)));
            let counted = Arc::clone(&rounds);
            let bus = bench.bus().handle_in(move |context, tx, command| {
                order(log.clone(), counted.fetch_add(1, Ordering::SeqCst), context, tx, command)
            });
            let bus = bus.build().unwrap();
            let key = format!("{wrong:?}");
            let mut first = context();
            if wrong == Wrong::IsLate {
                first = first.with_deadline(Deadline::after(&SystemClock, Duration::from_millis(300)));
            }
            let sending = {
                let (bus, key) = (bus.clone(), key.clone());
                tokio::spawn(async move { bus.send_once(&first, key, Order("pen", wrong)).await })
            };
            if wrong == Wrong::IsCancelled {
                runtime_testkit::until("it has begun", async || rounds.load(Ordering::SeqCst) == 1)
                    .await
                    .unwrap();
                sending.abort();
            }
            let answer = sending.await;
            KEPT.lock().unwrap().clear();
            // One that was late may not even have begun.
            rounds.fetch_max(1, Ordering::SeqCst);
            let done = i64::from(wrong == Wrong::Nothing);
            assert_eq!(matches!(answer, Ok(Ok(_))), wrong == Wrong::Nothing, "{wrong:?}: {answer:?}");
            assert_eq!(
                bench.kept().await,
                (so_far + done, u64::try_from(so_far + done).unwrap(), so_far + done),
                "{wrong:?}"
            );
            so_far += 1;
            let again = Reply(u32::from(wrong != Wrong::Nothing));
            for _ in 0..2 {
                // Done now if it was not, and answered the same for ever.
                let answer = bus.send_once(&context(), &*key, Order("pen", wrong)).await.unwrap();
                assert_eq!(answer, again, "{wrong:?}");
                assert_eq!(bench.kept().await, (so_far, u64::try_from(so_far).unwrap(), so_far), "{wrong:?}");
            }
            let reused = bus.send_once(&context(), &*key, Order("ink", wrong)).await.unwrap_err();
            assert_eq!(reused.code(), "cqrs.key_reused");
        }
        assert_eq!(bench.count("orders WHERE item <> 'pen'").await, 0);
    }
}

#[tokio::test]
async fn without_a_key_it_is_one_transaction_all_the_same() {
    for bench in Bench::both().await {
        let log = bench.log.clone();
        let bus =
            bench.bus().handle_in(move |context, tx, command| order(log.clone(), 0, context, tx, command));
        let bus = bus.build().unwrap();
        bus.send(&context(), Order("pen", Wrong::RefusesHavingWritten)).await.unwrap_err();
        assert_eq!(bench.kept().await, (0, 0, 0));
        bus.send(&context(), Order("pen", Wrong::Nothing)).await.unwrap();
        assert_eq!(bench.kept().await, (1, 1, 0));
    }
}

#[derive(Clone, Serialize)]
struct Add(i64);
impl Command for Add {
    const NAME: &'static str = "add";
    type Reply = i64;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_race_is_run_again() {
    for bench in Bench::both().await {
        let rounds = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&rounds);
        let bus = bench.bus().handle_in(move |_, mut tx, Add(n)| {
            let round = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                run(&mut tx, "INSERT INTO orders VALUES ('pen')").await?;
                if round == 0 { Err(DbError::Serialization.into()) } else { Ok(n) }
            }
        });
        let bus = bus.build().unwrap();
        assert_eq!(bus.send_once(&context(), "k", Add(7)).await.unwrap(), 7);
        assert_eq!((rounds.load(Ordering::SeqCst), bench.kept().await), (2, (1, 0, 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_serialization_failures_end_in_every_command_done_once() {
    let [_, bench] = Bench::both().await;
    run_all(&bench, "CREATE TABLE counter (n BIGINT NOT NULL)").await;
    run_all(&bench, "INSERT INTO counter VALUES (0)").await;
    let rounds = Arc::new(AtomicU32::new(0));
    let (counted, meet) = (Arc::clone(&rounds), Arc::new(Barrier::new(2)));
    let bus = bench.bus().handle_in(move |_, mut tx, Add(n)| {
        let (round, meet) = (counted.fetch_add(1, Ordering::SeqCst), Arc::clone(&meet));
        async move {
            run(&mut tx, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE").await?;
            let sql = "SELECT n FROM counter";
            let now: i64 = {
                let conn = tx.postgres().unwrap();
                sqlx::query_scalar(sql).fetch_one(&mut *conn).await.map_err(DbError::from)?
            };
            if round < 2 {
                meet.wait().await;
            }
            run(&mut tx, &format!("UPDATE counter SET n = {}", now + n)).await?;
            Ok(now + n)
        }
    });
    let bus = bus.build().unwrap();
    let (here, there) = (context(), context());
    let (one, two) = tokio::join!(bus.send(&here, Add(1)), bus.send(&there, Add(10)));
    assert_eq!(one.unwrap().max(two.unwrap()), 11);
    assert!(rounds.load(Ordering::SeqCst) > 2, "they raced");
}

async fn run_all(bench: &Bench, sql: &str) {
    bench.db.transaction(&context(), async |mut tx| run(&mut tx, sql).await).await.unwrap();
}

/// Sends a command twice under one key, the second while the first is being done.
async fn meanwhile(
    bench: &Bench,
    repeat: Repeat,
    end: Result<(), Error>,
) -> (Result<i64, Error>, Result<i64, Error>) {
    let (begun, mut has_begun) = tokio::sync::mpsc::channel(2);
    let (go, gone) = tokio::sync::watch::channel(false);
    let end = Arc::new(Mutex::new(Some(end)));
    let middleware = Transactional::new(bench.db.clone()).repeat(repeat);
    let bus = CommandBus::builder().layer(middleware).handle_in(move |_, mut tx, Add(n)| {
        let (begun, mut gone, end) = (begun.clone(), gone.clone(), end.lock().unwrap().take());
        async move {
            run(&mut tx, "INSERT INTO orders VALUES ('pen')").await?;
            begun.send(()).await.unwrap();
            gone.wait_for(|go| *go).await.unwrap();
            end.unwrap_or(Ok(())).map(|()| n)
        }
    });
    let bus = bus.build().unwrap();
    let send = || {
        let bus = bus.clone();
        tokio::spawn(async move { bus.send_once(&context(), "k", Add(1)).await })
    };
    let first = send();
    has_begun.recv().await.unwrap();
    let mut second = send();
    if bench.db.dialect() == runtime_db::Dialect::Postgres && repeat == Repeat::Refuse {
        let refused = (&mut second).await.unwrap();
        go.send(true).unwrap();
        return (first.await.unwrap(), refused);
    }
    let early = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(early.is_err(), "it waits: {early:?}");
    go.send(true).unwrap();
    (first.await.unwrap(), second.await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_waits_for_the_first_and_has_its_answer() {
    for bench in Bench::both().await {
        let (first, second) = meanwhile(&bench, Repeat::Wait, Ok(())).await;
        assert_eq!((first.unwrap(), second.unwrap()), (1, 1));
        assert_eq!(bench.kept().await, (1, 0, 1), "done once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_that_waited_for_a_failure_is_done_itself() {
    for bench in Bench::both().await {
        let (first, second) = meanwhile(&bench, Repeat::Wait, Err(Error::invalid("as planned"))).await;
        assert_eq!((first.unwrap_err().kind(), second.unwrap()), (ErrorKind::Invalid, 1));
        assert_eq!(bench.kept().await, (1, 0, 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_refused_at_once_where_that_was_declared() {
    let [_, bench] = Bench::both().await;
    let (first, second) = meanwhile(&bench, Repeat::Refuse, Ok(())).await;
    let second = second.unwrap_err();
    assert_eq!((first.unwrap(), second.kind(), second.code()), (1, ErrorKind::Conflict, "cqrs.in_flight"));
    assert_eq!(second.retry(), Retry::After(Duration::from_secs(1)));
    assert_eq!(bench.kept().await, (1, 0, 1));
}

#[test]
fn a_handler_that_takes_a_transaction_needs_a_bus_that_opens_one() {
    let bus = CommandBus::builder().handle_in(|_, tx, Add(n)| async move {
        drop(tx);
        Ok(n)
    });
    assert!(matches!(bus.build(), Err(CqrsError::NoTransaction("add"))));
}

#[tokio::test]
async fn a_plain_handler_beside_it_has_no_transaction_and_no_memory() {
    let [bench, _] = Bench::both().await;
    let bus = bench.bus().handle(|_, Add(n)| async move { Ok(n) }).build().unwrap();
    assert_eq!(bus.send(&context(), Add(1)).await.unwrap(), 1);
    assert_eq!(bus.send_once(&context(), "k", Add(1)).await.unwrap_err().code(), "cqrs.not_idempotent");
}
