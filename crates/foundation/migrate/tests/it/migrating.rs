use std::sync::Arc;

use runtime_db::{DbError, Dialect};
use runtime_migrate::{MigrateError, MigrateOptions, Migration, Migrator, State, Unknown};
use tokio::sync::Barrier;

use super::support::{apply, both, connect, migrator, number, set, step, tables};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_racing_processes_apply_everything_once() {
    for test in both().await {
        let barrier = Arc::new(Barrier::new(8));
        let mut tasks = Vec::new();
        for _ in 0..8 {
            // Pools of its own, as another process has.
            let (db, barrier) = (connect(&test.url).await, Arc::clone(&barrier));
            let steps = vec![
                step(1, "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);"),
                step(2, "INSERT INTO t SELECT max(id) + 1 FROM t"),
                step(3, "INSERT INTO t SELECT max(id) + 1 FROM t; INSERT INTO t SELECT max(id) + 1 FROM t"),
                Migration::new(
                    4,
                    "index",
                    "CREATE INDEX i ON t (id)",
                    "CREATE INDEX CONCURRENTLY i ON t (id)",
                )
                .outside_transaction(),
            ];
            tasks.push(tokio::spawn(async move {
                barrier.wait().await;
                apply(&db, vec![set("a", steps)]).await
            }));
        }
        let mut applied = 0;
        for task in tasks {
            applied += task.await.unwrap().unwrap();
        }
        assert_eq!(applied, 4, "{}", test.db.dialect());
        assert_eq!(number(&test.db, "SELECT count(*) FROM t").await.unwrap(), 4);
        assert_eq!(number(&test.db, "SELECT count(*) FROM _runtime_migrations").await.unwrap(), 4);
    }
}

#[tokio::test]
async fn a_failed_migration_leaves_nothing_half_done_and_names_itself() {
    for test in both().await {
        let broken = step(
            2,
            "CREATE TABLE half (id INTEGER); INSERT INTO nowhere VALUES (1); CREATE TABLE b (id INTEGER)",
        );
        let steps =
            vec![step(1, "CREATE TABLE a (id INTEGER)"), broken, step(3, "CREATE TABLE c (id INTEGER)")];
        let error = apply(&test.db, vec![set("m", steps)]).await.unwrap_err();
        assert!(
            matches!(error, MigrateError::Failed { version: 2, error: DbError::Other { .. }, .. }),
            "{error:?}"
        );
        assert!(error.to_string().starts_with("migration m/2 `step` failed: "), "{error}");
        // `a` and the table of migrations.
        assert_eq!(tables(&test.db).await, 2);
        let mended = vec![
            step(1, "CREATE TABLE a (id INTEGER)"),
            step(2, "CREATE TABLE half (id INTEGER)"),
            step(3, "CREATE TABLE c (id INTEGER)"),
        ];
        assert_eq!(apply(&test.db, vec![set("m", mended)]).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_dry_run_shows_the_sql_and_changes_nothing() {
    for test in both().await {
        let steps = vec![Migration::new(
            1,
            "create",
            "CREATE TABLE lite (id INTEGER)",
            "CREATE TABLE pg (id INTEGER)",
        )];
        let migrator = migrator(&test.db, vec![set("m", steps)]);
        let planned = migrator.dry_run().await.unwrap();
        let expected = match test.db.dialect() {
            Dialect::Sqlite => "CREATE TABLE lite (id INTEGER)",
            Dialect::Postgres => "CREATE TABLE pg (id INTEGER)",
        };
        assert_eq!((planned.len(), planned[0].sql), (1, expected));
        assert_eq!(migrator.status().await.unwrap()[0].state, State::Pending);
        assert_eq!(migrator.check().await, Err(MigrateError::Pending(1)));
        assert_eq!(tables(&test.db).await, 0);
        migrator.run().await.unwrap();
        migrator.check().await.unwrap();
        assert_eq!(tables(&test.db).await, 2);
    }
}

#[tokio::test]
async fn an_edited_migration_is_refused_before_anything_is_applied() {
    for test in both().await {
        apply(&test.db, vec![set("m", vec![step(1, "CREATE TABLE a (id INTEGER)")])]).await.unwrap();
        let edited =
            vec![step(1, "CREATE TABLE a (id INTEGER, b TEXT)"), step(2, "CREATE TABLE c (id INTEGER)")];
        let migrator = migrator(&test.db, vec![set("m", edited)]);
        let error = migrator.run().await.unwrap_err();
        assert!(matches!(&error, MigrateError::Changed { version: 1, .. }), "{error:?}");
        assert_eq!(migrator.status().await.unwrap()[0].state, State::Changed);
        assert_eq!(tables(&test.db).await, 2);
        // A checkout with other line ends is no edit.
        let same = vec![step(1, "\r\nCREATE TABLE a (id INTEGER)  \r\n")];
        assert_eq!(apply(&test.db, vec![set("m", same)]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn order_and_unknown_migrations_follow_the_policy() {
    for test in both().await {
        let (one, two, three) = (step(1, "SELECT 1"), step(2, "SELECT 2"), step(3, "SELECT 3"));
        assert_eq!(apply(&test.db, vec![set("m", vec![one, three])]).await.unwrap(), 2);
        let late = set("m", vec![one, two, three]);
        let error = apply(&test.db, vec![late]).await.unwrap_err();
        assert!(matches!(error, MigrateError::OutOfOrder { version: 2, after: 3, .. }), "{error:?}");
        let mut options = MigrateOptions::default();
        options.out_of_order = true;
        let lenient = Migrator::new(test.db.clone(), vec![late], options).unwrap();
        assert_eq!(lenient.status().await.unwrap()[1].state, State::OutOfOrder);
        assert_eq!(lenient.run().await.unwrap().len(), 1);

        // An older program meets the newer schema.
        let old = set("m", vec![one]);
        assert_eq!(apply(&test.db, vec![old]).await.unwrap(), 0);
        options.unknown = Unknown::Refuse;
        let strict = Migrator::new(test.db.clone(), vec![old], options).unwrap();
        assert!(matches!(strict.run().await, Err(MigrateError::Unknown { version: 2, .. })));
        // Another program's module in the same database is nobody's business.
        let other = Migrator::new(test.db.clone(), vec![set("other", vec![one])], options).unwrap();
        assert_eq!(other.run().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn sets_without_a_visible_order_are_refused() {
    let [test, _] = both().await;
    for sets in [
        vec![set("m", vec![step(2, ""), step(1, "")])],
        vec![set("m", vec![step(1, ""), step(1, "")])],
        vec![set("m", vec![step(0, "")])],
        vec![set("m", vec![step(1, "")]), set("m", vec![step(2, "")])],
    ] {
        let refused = Migrator::new(test.db.clone(), sets, MigrateOptions::default());
        assert!(matches!(refused, Err(MigrateError::Set { .. })));
    }
}
