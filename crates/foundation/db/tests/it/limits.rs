use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime_db::{DbError, sqlx};
use runtime_kernel::{Deadline, SystemClock};

use super::support::{both, context, endless, postgres, run, sqlite};

#[tokio::test]
async fn an_endless_statement_is_stopped_by_the_database_itself() {
    for test in both(|config| config.statement_timeout = Duration::from_millis(250)).await {
        let db = &test.db;
        let sql = endless(db);
        let stopped = db.transaction(&context(), async |mut tx| run(&mut tx, sql).await).await;
        assert_eq!(stopped, Err(DbError::StatementTimeout));
        let on_pool = match db.dialect() {
            runtime_db::Dialect::Sqlite => {
                sqlx::query(sql).execute(&db.sqlite().unwrap().read).await.map(drop)
            }
            runtime_db::Dialect::Postgres => sqlx::query(sql).execute(db.postgres().unwrap()).await.map(drop),
        };
        assert_eq!(DbError::from(on_pool.unwrap_err()), DbError::StatementTimeout);
        db.ping().await.unwrap();
        assert_eq!(db.stats().failed, 2);
    }
}

#[tokio::test]
async fn a_statement_dropped_on_a_pool_is_stopped() {
    let test = sqlite(|config| config.max_connections = 1).await;
    let read = &test.db.sqlite().unwrap().read;
    let work = sqlx::query(endless(&test.db)).execute(read);
    assert!(tokio::time::timeout(Duration::from_millis(200), work).await.is_err());
    // There is one reader: an answer means it is free again.
    tokio::time::timeout(Duration::from_secs(3), test.db.ping()).await.unwrap().unwrap();

    let test = postgres(|config| config.max_connections = 1).await;
    let work = sqlx::query(endless(&test.db)).execute(test.db.postgres().unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(200), work).await.is_err());
    tokio::time::timeout(Duration::from_secs(3), test.db.ping()).await.unwrap().unwrap();
}

#[tokio::test]
async fn waiting_for_a_connection_ends() {
    for test in both(|config| {
        config.max_connections = 1;
        config.acquire_timeout = Duration::from_millis(200);
    })
    .await
    {
        let held = test.db.begin(&context()).await.unwrap();
        assert_eq!(test.db.begin(&context()).await.unwrap_err(), DbError::Exhausted);
        let hurried = context().with_deadline(Deadline::after(&SystemClock, Duration::from_millis(50)));
        assert_eq!(test.db.begin(&hurried).await.unwrap_err(), DbError::Deadline);
        held.rollback().await.unwrap();
        test.db.begin(&context()).await.unwrap();
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_slow_statement_is_logged_by_its_fingerprint_and_without_values() {
    let test = postgres(|config| config.slow_query = Duration::from_millis(50)).await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    sqlx::query("SELECT pg_sleep(0.1), $1::text, 'literal-secret'")
        .bind("bound-secret")
        .execute(test.db.postgres().unwrap())
        .await
        .unwrap();
    test.db.ping().await.unwrap();
    drop(guard);
    let lines = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(lines.contains("SELECT pg_sleep(?), ?::text, ?"), "{lines}");
    assert!(!lines.contains("secret"), "{lines}");
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert_eq!(test.db.stats().slow, 1);
}
