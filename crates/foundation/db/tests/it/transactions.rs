use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use runtime_db::{DbError, sqlx};
use runtime_kernel::{Deadline, Error, ErrorKind, SystemClock};
use sqlx::Executor;
use tokio::sync::Barrier;

use super::support::{both, context, endless, ids, postgres, run, sqlite};

#[tokio::test]
async fn work_is_kept_only_when_it_says_ok() {
    let ctx = context();
    for test in both(|_| {}).await {
        let db = &test.db;
        db.transaction(&ctx, async |mut tx| run(&mut tx, "INSERT INTO t VALUES (1, 'kept')").await)
            .await
            .unwrap();
        let refused: Result<(), Error> = db
            .transaction(&ctx, async |mut tx| {
                run(&mut tx, "INSERT INTO t VALUES (2, 'refused')").await?;
                Err(Error::invalid("no"))
            })
            .await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        let panicked =
            std::panic::AssertUnwindSafe(db.transaction(&ctx, async |mut tx| -> Result<(), DbError> {
                run(&mut tx, "INSERT INTO t VALUES (3, 'panicked')").await?;
                panic!("as planned")
            }));
        assert!(panicked.catch_unwind().await.is_err());
        {
            let mut tx = db.begin(&ctx).await.unwrap();
            run(&mut tx, "INSERT INTO t VALUES (4, 'dropped')").await.unwrap();
        }
        // The connection is usable at once: the same statement does not collide.
        for id in 2..=4 {
            let sql = format!("INSERT INTO t VALUES ({id}, 'again {id}')");
            db.transaction(&ctx, async |mut tx| run(&mut tx, &sql).await).await.unwrap();
        }
        assert_eq!(ids(db).await, [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn a_cancelled_transaction_is_undone_and_its_statement_stopped() {
    let ctx = context();
    for test in both(|_| {}).await {
        let db = &test.db;
        let sql = endless(db);
        let work = db.transaction(&ctx, async |mut tx| {
            run(&mut tx, "INSERT INTO t VALUES (1, 'cancelled')").await?;
            run(&mut tx, sql).await
        });
        assert!(tokio::time::timeout(Duration::from_millis(300), work).await.is_err());
        // SQLite has one writer: this waits until the endless statement has been stopped.
        let next =
            db.transaction(&ctx, async |mut tx| run(&mut tx, "INSERT INTO t VALUES (2, 'next')").await);
        tokio::time::timeout(Duration::from_secs(3), next).await.unwrap().unwrap();
        assert_eq!(ids(db).await, [2]);
        if let Some(pool) = db.postgres() {
            let active = "SELECT count(*) FROM pg_stat_activity, pg_sleep(0.1)
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
            let mut running = 1;
            for _ in 0..40 {
                running = sqlx::query_scalar::<_, i64>(active).fetch_one(pool).await.unwrap();
                if running == 0 {
                    break;
                }
            }
            assert_eq!(running, 0, "the server still works for nobody");
        }
    }
}

#[tokio::test]
async fn a_deadline_ends_the_transaction_as_a_timeout() {
    let ctx = context();
    for test in both(|_| {}).await {
        let sql = endless(&test.db);
        let late = context().with_deadline(Deadline::after(&SystemClock, Duration::from_millis(300)));
        let stopped = test.db.transaction(&late, async |mut tx| run(&mut tx, sql).await).await.unwrap_err();
        assert!(matches!(stopped, DbError::Deadline | DbError::StatementTimeout), "{stopped:?}");
        let expired = test.db.begin(&late).await.unwrap_err();
        assert_eq!(expired, DbError::Deadline);
        let next = test.db.transaction(&ctx, async |mut tx| run(&mut tx, "SELECT 1").await);
        tokio::time::timeout(Duration::from_secs(3), next).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_part_can_fail_alone() {
    let ctx = context();
    for test in both(|_| {}).await {
        let db = &test.db;
        db.transaction(&ctx, async |mut tx| {
            run(&mut tx, "INSERT INTO t VALUES (1, 'a')").await?;
            let mut part = tx.savepoint().await?;
            run(&mut part, "INSERT INTO t VALUES (2, 'b')").await?;
            let mut inner = part.savepoint().await?;
            run(&mut inner, "INSERT INTO t VALUES (3, 'c')").await?;
            inner.release().await?;
            let refused = run(&mut part, "INSERT INTO t VALUES (4, 'a')").await;
            assert!(matches!(refused, Err(DbError::Unique { .. })), "{refused:?}");
            drop(part);
            let mut part = tx.savepoint().await?;
            run(&mut part, "INSERT INTO t VALUES (5, 'e')").await?;
            part.release().await
        })
        .await
        .unwrap();
        assert_eq!(ids(db).await, [1, 5]);
    }
}

#[tokio::test]
async fn a_lent_transaction_comes_back_as_it_was_left() {
    let ctx = context();
    for test in both(|_| {}).await {
        let (db, told) = (&test.db, Arc::new(AtomicUsize::new(0)));
        let tell = |tx: &mut runtime_db::Tx| {
            let told = Arc::clone(&told);
            tx.on_commit(move || {
                told.fetch_add(1, Ordering::Relaxed);
            });
        };
        db.transaction(&ctx, async |mut tx| {
            tell(&mut tx);
            let lent = tx.lend_to(|mut tx| {
                tell(&mut tx);
                async move { run(&mut tx, "INSERT INTO t VALUES (1, 'lent')").await }
            });
            lent.await?;
            run(&mut tx, "INSERT INTO t VALUES (2, 'back')").await
        })
        .await
        .unwrap();
        assert_eq!((ids(db).await, told.load(Ordering::Relaxed)), (vec![1, 2], 2));
        let kept: Result<(), DbError> = db
            .transaction(&ctx, async |mut tx| {
                run(&mut tx, "INSERT INTO t VALUES (3, 'kept')").await?;
                let mut keeper = None;
                let lent = tx.lend_to(|tx| {
                    keeper = Some(tx);
                    async { Ok::<_, DbError>(()) }
                });
                assert_eq!(lent.await, Err(DbError::Aborted));
                Ok(())
            })
            .await;
        assert_eq!(kept, Err(DbError::Aborted), "what is kept is not committed");
        let mut tx = db.begin(&ctx).await.unwrap();
        let cancelled = tx.lend_to(|mut tx| async move {
            run(&mut tx, "INSERT INTO t VALUES (4, 'cancelled')").await?;
            std::future::pending::<Result<(), DbError>>().await
        });
        assert!(tokio::time::timeout(Duration::from_millis(200), cancelled).await.is_err());
        assert_eq!(tx.commit().await, Err(DbError::Closed));
        assert_eq!(ids(db).await, [1, 2]);
    }
}

#[tokio::test]
async fn a_cancelled_part_is_undone_while_its_transaction_goes_on() {
    let ctx = context();
    for test in both(|_| {}).await {
        let db = &test.db;
        db.transaction(&ctx, async |mut tx| {
            run(&mut tx, "INSERT INTO t VALUES (1, 'a')").await?;
            let part = async {
                let mut part = tx.savepoint().await?;
                run(&mut part, "INSERT INTO t VALUES (2, 'b')").await?;
                std::future::pending::<Result<(), DbError>>().await
            };
            assert!(tokio::time::timeout(Duration::from_millis(200), part).await.is_err());
            run(&mut tx, "INSERT INTO t VALUES (3, 'c')").await
        })
        .await
        .unwrap();
        assert_eq!(ids(db).await, [1, 3]);
    }
}

#[tokio::test]
async fn postgres_never_pretends_to_commit_after_a_swallowed_failure() {
    let ctx = context();
    let test = postgres(|_| {}).await;
    let db = &test.db;
    db.transaction(&ctx, async |mut tx| run(&mut tx, "CREATE TABLE t (id INT PRIMARY KEY, name TEXT)").await)
        .await
        .unwrap();
    for seen in [true, false] {
        let swallowed = db
            .transaction(&ctx, async |mut tx| {
                run(&mut tx, "INSERT INTO t VALUES (1, 'a')").await?;
                let conn = tx.postgres().unwrap();
                let failed = if seen {
                    sqlx::query("SELECT 1/0").execute(&mut *conn).await
                } else {
                    let raw: &mut sqlx::PgConnection = conn;
                    raw.execute("SELECT 1/0").await
                };
                assert!(failed.is_err());
                Ok::<_, DbError>(())
            })
            .await;
        assert_eq!(swallowed, Err(DbError::Aborted), "seen: {seen}");
        assert_eq!(ids(db).await, [0i64; 0]);
    }
}

#[tokio::test]
async fn sqlite_runs_nothing_outside_the_transaction_it_ended() {
    let ctx = context();
    let test = sqlite(|config| config.statement_timeout = Duration::from_millis(200)).await;
    let db = &test.db;
    db.transaction(&ctx, async |mut tx| run(&mut tx, "CREATE TABLE t (id INTEGER PRIMARY KEY)").await)
        .await
        .unwrap();
    let result = db
        .transaction(&ctx, async |mut tx| {
            run(&mut tx, "INSERT INTO t VALUES (1)").await?;
            let endless = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 9 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
            assert_eq!(run(&mut tx, endless).await, Err(DbError::StatementTimeout));
            assert_eq!(run(&mut tx, "INSERT INTO t VALUES (2)").await, Err(DbError::Aborted));
            Ok::<_, DbError>(())
        })
        .await;
    assert_eq!(result, Err(DbError::Aborted));
    assert_eq!(ids(db).await, [0i64; 0]);
    db.transaction(&ctx, async |mut tx| run(&mut tx, "INSERT INTO t VALUES (3)").await).await.unwrap();
    assert_eq!(ids(db).await, [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_resolved_by_running_again() {
    let ctx = context();
    let test = postgres(|_| {}).await;
    let db = &test.db;
    db.transaction(&ctx, async |mut tx| {
        run(&mut tx, "CREATE TABLE t (id INT PRIMARY KEY, name TEXT)").await?;
        run(&mut tx, "INSERT INTO t VALUES (1, ''), (2, '')").await
    })
    .await
    .unwrap();
    let (barrier, rounds) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let tasks = [(1, 2), (2, 1)].map(|(first, second)| {
        let (db, barrier, rounds) = (db.clone(), Arc::clone(&barrier), Arc::clone(&rounds));
        // Spawned: the future is `Send`.
        tokio::spawn(async move {
            let ctx = context();
            let met = std::sync::atomic::AtomicBool::new(false);
            db.transaction(&ctx, async |mut tx| {
                rounds.fetch_add(1, Ordering::SeqCst);
                run(&mut tx, &format!("UPDATE t SET name = name || 'x' WHERE id = {first}")).await?;
                if !met.swap(true, Ordering::SeqCst) {
                    barrier.wait().await;
                }
                run(&mut tx, &format!("UPDATE t SET name = name || 'x' WHERE id = {second}")).await
            })
            .await
        })
    });
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(rounds.load(Ordering::SeqCst), 3);
    let names: Vec<String> =
        sqlx::query_scalar("SELECT name FROM t").fetch_all(db.postgres().unwrap()).await.unwrap();
    assert_eq!(names, ["xx", "xx"]);
}

#[tokio::test]
async fn a_race_that_is_always_lost_ends() {
    let ctx = context();
    let test = sqlite(|config| config.retries = 3).await;
    let rounds = AtomicUsize::new(0);
    let lost: Result<(), DbError> = test
        .db
        .transaction(&ctx, async |_| {
            rounds.fetch_add(1, Ordering::SeqCst);
            Err(DbError::Serialization)
        })
        .await;
    assert_eq!((lost, rounds.into_inner()), (Err(DbError::Serialization), 4));
}

#[tokio::test]
async fn who_waits_for_a_commit_is_told_of_it_and_of_nothing_else() {
    let ctx = context();
    for test in both(|_| {}).await {
        let (db, told) = (&test.db, Arc::new(AtomicUsize::new(0)));
        let tell = |n: usize| {
            let told = Arc::clone(&told);
            move || {
                told.fetch_add(n, Ordering::SeqCst);
            }
        };
        let mut tx = db.begin(&ctx).await.unwrap();
        tx.on_commit(tell(1));
        assert_eq!(told.load(Ordering::SeqCst), 0);
        tx.commit().await.unwrap();
        for end in ["rolled back", "dropped"] {
            let mut tx = db.begin(&ctx).await.unwrap();
            tx.on_commit(tell(10));
            if end == "rolled back" {
                tx.rollback().await.unwrap();
            }
        }
        let within = async |mut tx: runtime_db::Tx| {
            tx.on_commit(tell(100));
            Ok::<_, DbError>(())
        };
        db.transaction(&ctx, within).await.unwrap();
        let aborted = async |mut tx: runtime_db::Tx| {
            tx.on_commit(tell(1000));
            let _ = run(&mut tx, "INSERT INTO nowhere VALUES (1)").await;
            Err::<(), _>(DbError::Aborted)
        };
        assert!(db.transaction(&ctx, aborted).await.is_err());
        assert_eq!(told.load(Ordering::SeqCst), 101);
    }
}
