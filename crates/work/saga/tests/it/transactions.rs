//! Sagas begun in a transaction of the caller's, and the bell between processes.

use std::time::Duration;

use runtime_db::Database;
use runtime_kernel::SystemClock;
use runtime_saga::{
    Definition, Definitions, NewSaga, Saga, SagaConfig, SagaError, Sagas, SignalRequest, SqlSagas, Status,
};
use serde_json::json;

use super::world::{Running, context, over, rests};

/// A handle as a process would have one. It never polls: what it does not hear of, it does not find.
fn deaf_but_for_the_bell(db: Database) -> (Sagas, SqlSagas) {
    let code = Definition::new("s", 1, |saga: Saga, add: u32| async move {
        let got: u32 = saga.signal("n").await;
        Ok(got + add)
    });
    let mut config = SagaConfig::default();
    config.poll_interval = Duration::from_hours(1);
    let store = SqlSagas::new(db);
    let known = Definitions::new().with(code).unwrap();
    let sagas = Sagas::new(std::sync::Arc::new(store.clone()), known, config, SystemClock::shared());
    (sagas, store)
}

async fn exists_when_the_transaction_commits(db: Database) {
    let (sagas, store) = deaf_but_for_the_bell(db.clone());
    let new = || NewSaga::new("s", 1).unwrap().key("k");
    let _worker = Running::start(&sagas);
    let mut tx = db.begin(&context()).await.unwrap();
    let undone = sagas.start_in(&mut tx, &store, &context(), new()).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(matches!(sagas.get(&context(), undone).await, Err(SagaError::NotFound(_))));

    let mut tx = db.begin(&context()).await.unwrap();
    let id = sagas.start_in(&mut tx, &store, &context(), new()).await.unwrap();
    assert_eq!(sagas.start_in(&mut tx, &store, &context(), new()).await.unwrap(), id, "the key is taken");
    let unknown = sagas.start_in(&mut tx, &store, &context(), NewSaga::new("t", 1).unwrap()).await;
    assert!(matches!(unknown, Err(SagaError::UnknownType(_))), "{unknown:?}");
    tx.commit().await.unwrap();
    // The commit woke the worker, which does not poll.
    rests(&sagas, id).await;
    let signal = SignalRequest { name: "n".to_owned(), payload: json!(2), id: None };
    sagas.signal(&context(), id, signal).await.unwrap();
    assert_eq!(over(&sagas, id).await.output, Some(json!(3)));
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite_a_saga_exists_when_the_callers_transaction_commits() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("saga.db").display());
    exists_when_the_transaction_commits(super::stores::open(&url, SystemClock::shared()).await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_saga_exists_when_the_callers_transaction_commits() {
    let database = runtime_testkit::postgres::database().await.unwrap();
    exists_when_the_transaction_commits(super::stores::open(database.url(), SystemClock::shared()).await)
        .await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_what_one_process_does_wakes_the_workers_of_another() {
    let database = runtime_testkit::postgres::database().await.unwrap();
    let open = async || super::stores::open(database.url(), SystemClock::shared()).await;
    let (there, _) = deaf_but_for_the_bell(open().await);
    let (here, store) = deaf_but_for_the_bell(open().await);
    let _worker = Running::start(&there);
    // The first look comes with having subscribed; from here on only the bell tells.
    let first = here.start(&context(), NewSaga::new("s", 1).unwrap()).await.unwrap();
    rests(&there, first).await;
    let second = here.start(&context(), NewSaga::new("s", 2).unwrap()).await.unwrap();
    rests(&there, second).await;
    let db = open().await;
    let mut tx = db.begin(&context()).await.unwrap();
    let third = here.start_in(&mut tx, &store, &context(), NewSaga::new("s", 3).unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    rests(&there, third).await;
    for (id, sum) in [(first, 11), (second, 12), (third, 13)] {
        let signal = SignalRequest { name: "n".to_owned(), payload: json!(10), id: None };
        here.signal(&context(), id, signal).await.unwrap();
        let ended = over(&here, id).await;
        assert_eq!((ended.status, ended.output), (Status::Completed, Some(json!(sum))));
    }
}
