//! A worker process: runs what it claims, writes down what it sees, until it is told to stop or is killed.

use std::sync::Arc;
use std::time::Duration;

use runtime_db::Database;
use runtime_jobs::{Handlers, JobContext, Jobs, SqlStore, Worker, keep_house};
use runtime_kernel::{Clock as _, Error, Retry, SharedClock, SystemClock};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Skewed;
use crate::error::WorkcheckError;
use crate::history::{Event, History, now};
use crate::load::{EFFECT, KINDS, Task, config, open};
use crate::settings::{Broken, WorkerSettings};
use crate::witness::Witness;

#[derive(Clone)]
struct Hands {
    history: History,
    db: Database,
    store: SqlStore,
    broken: Broken,
}

/// Works until told to stop.
///
/// # Errors
/// The database is not there, or the history cannot be written.
pub async fn work(settings: &WorkerSettings) -> Result<(), WorkcheckError> {
    let clock: SharedClock = Arc::new(Skewed { ahead: settings.ahead });
    let db = loop {
        match open(&settings.url, settings.pool, clock.clone()).await {
            Ok(db) => break db,
            // The server may be down just now.
            Err(error) => eprintln!("{error}"),
        }
        SystemClock.sleep(Duration::from_millis(100)).await;
    };
    let history = History::create(&settings.history)?;
    let store = SqlStore::new(db.clone());
    let witness = Witness::new(store.clone(), db.clone(), history.clone(), settings.broken);
    let jobs = Jobs::new(witness, config(), clock);
    let hands = Hands { history, db, store, broken: settings.broken };
    let mut handlers = Handlers::new();
    for kind in KINDS {
        let hands = hands.clone();
        handlers = handlers.handle_value(kind, move |context, payload| {
            let hands = hands.clone();
            async move { hands.run(kind, &context, payload).await }
        });
    }
    let worker = Worker::new(jobs.clone(), handlers)?;
    let mut told = signal(SignalKind::terminate())?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut house_stop = stopped.clone();
    let mut work_stop = stopped;
    let house = keep_house(&jobs, async move { drop(house_stop.wait_for(|stop| *stop).await) });
    let work = worker.run(async move { drop(work_stop.wait_for(|stop| *stop).await) });
    let listen = async move {
        told.recv().await;
        let _ = stop.send(true);
    };
    tokio::join!(house, work, listen);
    Ok(())
}

impl Hands {
    async fn run(&self, kind: &str, context: &JobContext, payload: Value) -> Result<Value, Error> {
        let task: Task = serde_json::from_value(payload).map_err(Error::internal)?;
        let times = if self.broken == Broken::Twice { 2 } else { 1 };
        for _ in 0..times {
            self.history.saw(Event::Began { job: task.job, fence: task.fence });
            SystemClock.sleep(Duration::from_millis(task.millis)).await;
            let ok = context.attempt > task.fails;
            self.history.saw(Event::Ended { job: task.job, fence: task.fence, ok });
            if !ok {
                return Err(Error::internal("fails as it was told to").with_retry(Retry::Backoff));
            }
        }
        let result = json!({ "fence": task.fence });
        if kind == EFFECT {
            let mut tx = self.db.begin(&context.context).await?;
            let called = now();
            context.complete_in(&mut tx, &self.store, &result).await?;
            tx.commit().await?;
            let (job, fence) = (task.job, task.fence);
            self.history.saw(Event::Reported { job, fence, last: true, accepted: true, called });
        }
        Ok(result)
    }
}
