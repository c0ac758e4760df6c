use std::time::Duration;

use futures_util::TryStreamExt;
use runtime_db::{Database, DbConfig, DbError, sqlx};
use runtime_kernel::{Classify, ErrorKind, SystemClock};
use runtime_testkit::proxy::FaultProxy;

use super::support::{both, context, ids, run, sqlite};

#[tokio::test]
async fn a_memory_database_is_one_for_readers_and_writer_and_apart_from_others() {
    let config = DbConfig::at("sqlite::memory:");
    let (a, b) = (super::support::connect(&config).await, super::support::connect(&config).await);
    a.transaction(&context(), async |mut tx| {
        run(&mut tx, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await?;
        run(&mut tx, "INSERT INTO t VALUES (7)").await
    })
    .await
    .unwrap();
    assert_eq!(ids(&a).await, [7]);
    let other = sqlx::query("SELECT * FROM t").fetch_all(&b.sqlite().unwrap().read).await;
    assert!(other.is_err());
}

#[tokio::test]
async fn the_file_is_durable_checked_and_logged_ahead() {
    let test = sqlite(|_| {}).await;
    let pools = test.db.sqlite().unwrap();
    for (pragma, expected) in [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")] {
        let sql = sqlx::AssertSqlSafe(format!("SELECT CAST({pragma} AS TEXT) FROM pragma_{pragma}"));
        let found: String = sqlx::query_scalar(sql).fetch_one(&pools.write).await.unwrap();
        assert_eq!(found, expected, "{pragma}");
    }
    let written = sqlx::query("CREATE TABLE x (id INTEGER)").execute(&pools.read).await;
    assert!(written.is_err(), "readers cannot write");
}

#[tokio::test]
async fn a_stream_taken_in_part_leaves_the_connection_usable() {
    for test in both(|config| config.max_connections = 1).await {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) SELECT i FROM n";
        for _ in 0..3 {
            match test.db.dialect() {
                runtime_db::Dialect::Sqlite => {
                    let mut rows = sqlx::query(sql).fetch(&test.db.sqlite().unwrap().read);
                    rows.try_next().await.unwrap().unwrap();
                }
                runtime_db::Dialect::Postgres => {
                    let mut rows = sqlx::query(sql).fetch(test.db.postgres().unwrap());
                    rows.try_next().await.unwrap().unwrap();
                }
            }
            test.db.ping().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_closed_database_says_so() {
    for test in both(|_| {}).await {
        test.db.close().await;
        test.db.close().await;
        assert_eq!(test.db.begin(&context()).await.unwrap_err(), DbError::Closed);
    }
}

#[tokio::test]
async fn urls_that_cannot_be_used_are_refused_in_words() {
    for (url, kind, words) in [
        ("", ErrorKind::Invalid, "db.url is not set"),
        ("mysql://x", ErrorKind::Invalid, "must begin with"),
        ("sqlite:", ErrorKind::Invalid, "expected `sqlite:path"),
        ("sqlite:a.db?mode=ro", ErrorKind::Invalid, "without parameters"),
        ("postgres://user:hunter2@host:notaport/x", ErrorKind::Invalid, "not a valid Postgres URL"),
        ("postgres://user:hunter2@127.0.0.1:1/x", ErrorKind::Unavailable, "cannot be reached"),
        ("sqlite:/proc/none/x.db", ErrorKind::Unavailable, "cannot be"),
    ] {
        let mut config = DbConfig::at(url);
        config.acquire_timeout = std::time::Duration::from_secs(1);
        let error = Database::connect(&config, SystemClock::shared()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(error.to_string().contains(words), "{url}: {error}");
        assert!(!format!("{error:?} {config:?}").contains("hunter2"), "{url}");
    }
}

/// A database of Postgres with one connection, which a proxy slows down; and another way to it.
async fn slowed() -> (Database, Database, FaultProxy, runtime_testkit::postgres::TestDatabase) {
    let server = runtime_testkit::postgres::database().await.unwrap();
    let url = server.url();
    let (before, rest) = url.split_once('@').unwrap_or(("postgres://", url));
    let (host, name) = rest.split_once('/').unwrap();
    let proxy = FaultProxy::start(host).await.unwrap();
    let mut config = super::support::quick(&format!("{before}@{}/{name}", proxy.address()));
    config.max_connections = 1;
    let db = super::support::connect(&config).await;
    let direct = super::support::connect(&super::support::quick(url)).await;
    sqlx::query("CREATE TABLE kept (id BIGINT)").execute(db.postgres().unwrap()).await.unwrap();
    proxy.delay(Duration::from_millis(6));
    (db, direct, proxy, server)
}

async fn kept(db: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(db.postgres().unwrap()).await.unwrap()
}

/// A `BEGIN` that is dropped before its answer has come leaves no transaction open behind it: what is written next by
/// itself on the same connection stays.
#[tokio::test]
async fn a_beginning_that_was_abandoned_takes_nothing_along() {
    let (db, direct, _proxy, _server) = slowed().await;
    for step in 0..30 {
        let begun = tokio::time::timeout(Duration::from_millis(3 * step), db.begin(&context())).await;
        if let Ok(tx) = begun {
            drop(tx.unwrap());
        }
        sqlx::query("INSERT INTO kept VALUES (1)").execute(db.postgres().unwrap()).await.unwrap();
        assert_eq!(kept(&direct).await, i64::try_from(step).unwrap() + 1, "dropped after {} ms", 3 * step);
    }
}

/// A part whose beginning is dropped before its answer has come ends the transaction as well, and a commit says so.
#[tokio::test]
async fn a_part_that_was_abandoned_as_it_began_leaves_a_whole_transaction_or_none() {
    let (db, direct, _proxy, _server) = slowed().await;
    let (mut before, mut undone) = (0, 0);
    for step in 0..12 {
        let mut tx = db.begin(&context()).await.unwrap();
        run(&mut tx, "INSERT INTO kept VALUES (1)").await.unwrap();
        drop(tokio::time::timeout(Duration::from_millis(3 * step), tx.savepoint()).await);
        let second = run(&mut tx, "INSERT INTO kept VALUES (2)").await;
        let committed = tx.commit().await;
        let after = kept(&direct).await;
        let expected = before + if committed.is_ok() { 2 } else { 0 };
        assert_eq!(after, expected, "after {} ms: {second:?}, {committed:?}", 3 * step);
        undone += i64::from(committed.is_err());
        before = after;
    }
    assert!(undone > 0 && before > 0, "both were seen: {undone} undone, {before} kept");
}
