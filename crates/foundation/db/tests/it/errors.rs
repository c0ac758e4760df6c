use runtime_db::DbError;
use runtime_kernel::{Classify, Error, ErrorKind};

use super::support::{both, context, run};

#[tokio::test]
async fn refusals_are_classified_and_repeat_no_values() {
    for test in both(|_| {}).await {
        let db = &test.db;
        db.transaction(&context(), async |mut tx| {
            run(
                &mut tx,
                "CREATE TABLE child (t INTEGER NOT NULL REFERENCES t (id), n INTEGER CHECK (n > 0))",
            )
            .await?;
            run(&mut tx, "INSERT INTO t VALUES (1, 's3cret')").await
        })
        .await
        .unwrap();
        for (sql, code, kind) in [
            ("INSERT INTO t VALUES (2, 's3cret')", "db.unique", ErrorKind::Conflict),
            ("INSERT INTO child VALUES (77031, 1)", "db.foreign_key", ErrorKind::Conflict),
            ("INSERT INTO child VALUES (1, -77031)", "db.check", ErrorKind::Invalid),
            ("INSERT INTO child VALUES (NULL, 1)", "db.check", ErrorKind::Invalid),
            ("SELECT * FROM nowhere", "db.error", ErrorKind::Internal),
        ] {
            let error = db.transaction(&context(), async |mut tx| run(&mut tx, sql).await).await.unwrap_err();
            assert_eq!((error.code(), error.kind()), (code, kind), "{sql}: {error:?}");
            let shown = format!("{error} {error:?} {}", Error::of(error.clone()).report());
            assert!(!shown.contains("s3cret") && !shown.contains("77031"), "{shown}");
        }
    }
}

#[tokio::test]
async fn a_value_postgres_cannot_read_is_not_quoted() {
    let test = super::support::postgres(|_| {}).await;
    let error = db_error(&test.db, "SELECT 'hunter2'::int").await;
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

async fn db_error(db: &runtime_db::Database, sql: &str) -> DbError {
    db.transaction(&context(), async |mut tx| run(&mut tx, sql).await).await.unwrap_err()
}
