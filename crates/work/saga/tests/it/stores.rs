//! The laws, on every store.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use runtime_kernel::{ManualClock, SharedClock};
use runtime_saga::MemorySagas;
use runtime_saga::laws::{self, Harness};
use runtime_saga::store::SagaStore;

/// A store, what moves its time, and what keeps it.
pub struct Kept {
    store: Arc<dyn SagaStore>,
    pub clock: SharedClock,
    manual: Option<ManualClock>,
    #[cfg(feature = "postgres")]
    db: Option<(runtime_db::Database, runtime_testkit::postgres::TestDatabase)>,
    _folder: Option<tempfile::TempDir>,
}

#[async_trait]
impl Harness for Kept {
    fn store(&self) -> Arc<dyn SagaStore> {
        Arc::clone(&self.store)
    }

    /// Postgres has a clock of its own, so everything it remembers moves into the past instead.
    async fn elapse(&self, by: Duration) {
        if let Some(clock) = &self.manual {
            clock.advance(by);
        }
        #[cfg(feature = "postgres")]
        if let Some((db, _)) = &self.db {
            let by = i64::try_from(by.as_micros()).unwrap();
            let sql = "UPDATE saga_instances SET due_at = due_at - $1, ended_at = ended_at - $1";
            runtime_db::sqlx::query(sql).bind(by).execute(db.postgres().unwrap()).await.unwrap();
        }
    }
}

pub fn memory() -> Kept {
    let manual = ManualClock::new();
    let clock: SharedClock = Arc::new(manual.clone());
    Kept {
        store: Arc::new(MemorySagas::new(Arc::clone(&clock))),
        clock,
        manual: Some(manual),
        #[cfg(feature = "postgres")]
        db: None,
        _folder: None,
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub async fn open(url: &str, clock: SharedClock) -> runtime_db::Database {
    use runtime_migrate::{MigrateOptions, Migrator};

    let db = runtime_db::Database::connect(&runtime_db::DbConfig::at(url), clock).await.unwrap();
    let set = vec![runtime_saga::migrations::SET];
    Migrator::new(db.clone(), set, MigrateOptions::default()).unwrap().run().await.unwrap();
    db
}

#[cfg(feature = "sqlite")]
pub async fn sqlite() -> Kept {
    let (manual, folder) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let clock: SharedClock = Arc::new(manual.clone());
    let db = open(&format!("sqlite:{}", folder.path().join("saga.db").display()), Arc::clone(&clock)).await;
    Kept {
        store: Arc::new(runtime_saga::SqlSagas::new(db)),
        clock,
        manual: Some(manual),
        #[cfg(feature = "postgres")]
        db: None,
        _folder: Some(folder),
    }
}

#[cfg(feature = "postgres")]
pub async fn postgres() -> Kept {
    let database = runtime_testkit::postgres::database().await.unwrap();
    let clock = runtime_kernel::SystemClock::shared();
    let db = open(database.url(), Arc::clone(&clock)).await;
    let store = Arc::new(runtime_saga::SqlSagas::new(db.clone()));
    Kept { store, clock, manual: None, db: Some((db, database)), _folder: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_keeps_the_laws() {
    laws::all(async || memory()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_laws() {
    laws::all(sqlite).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_laws() {
    laws::all(postgres).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sagas_on_two_handles_of_one_postgres_each_do_each_step_once() {
    use super::world::{Outside, Running, context, over, sagas};
    use futures_util::StreamExt;
    use runtime_saga::{Definition, NewSaga, Saga, Status};

    const SAGAS: usize = 1000;
    let database = runtime_testkit::postgres::database().await.unwrap();
    let outside = Outside::default();
    let mut handles = Vec::new();
    for _ in 0..2 {
        let clock = runtime_kernel::SystemClock::shared();
        let db = open(database.url(), Arc::clone(&clock)).await;
        let store: Arc<dyn SagaStore> = Arc::new(runtime_saga::SqlSagas::new(db));
        let outside = outside.clone();
        let code = Definition::new("many", 1, move |saga: Saga, number: usize| {
            let outside = outside.clone();
            async move {
                let mut sum = 0;
                for step in 0..3_usize {
                    let outside = outside.clone();
                    sum += saga
                        .step("add", move |key| {
                            outside.call(&key, &format!("{number}.{step}"));
                            async move { Ok(step) }
                        })
                        .await?;
                }
                Ok(sum + number)
            }
        });
        handles.push(sagas(&store, &clock, vec![code]));
    }
    let workers: Vec<_> = handles.iter().map(Running::start).collect();
    let start = async |number: usize| {
        let new = NewSaga::new("many", number).unwrap();
        (number, handles[number % 2].start(&context(), new).await.unwrap())
    };
    let started: Vec<_> =
        futures_util::stream::iter(0..SAGAS).map(start).buffer_unordered(16).collect().await;
    for (number, id) in started {
        let done = over(&handles[0], id).await;
        assert_eq!((done.status, done.output), (Status::Completed, Some((number + 3).into())));
    }
    let applied = outside.applied();
    assert_eq!((applied.len(), applied.values().max()), (3 * SAGAS, Some(&1)));
    assert_eq!(outside.calls().len(), 3 * SAGAS, "no step was called twice");
    drop(workers);
}
