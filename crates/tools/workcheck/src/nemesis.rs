//! The faults: what is done to the server and the workers, as a seed says.

use std::path::PathBuf;
use std::time::Duration;

use runtime_db::sqlx::{self, Connection as _, PgConnection};
use runtime_kernel::{Clock as _, SystemClock};
use runtime_testkit::binary::{Running, Spawn};
use runtime_testkit::postgres::Server;

use crate::error::WorkcheckError;
use crate::rng::Rng;
use crate::settings::{Settings, WorkerSettings};

/// The server and the workers, to be mistreated.
pub(crate) struct Victims {
    pub(crate) server: Server,
    pub(crate) url: String,
    pub(crate) workers: Vec<Running>,
    pub(crate) faults: usize,
    settings: Settings,
    rng: Rng,
    spawned: u32,
}

impl Victims {
    pub(crate) fn new(server: Server, url: String, settings: &Settings) -> Self {
        let rng = Rng::new(settings.seed, 0);
        Self { server, url, workers: Vec::new(), faults: 0, settings: settings.clone(), rng, spawned: 0 }
    }

    /// Starts a worker: some with one connection, some with a clock an hour off.
    pub(crate) fn spawn(&mut self) -> Result<Running, WorkcheckError> {
        self.spawned += 1;
        let history: PathBuf = self.settings.folder.join(format!("worker-{}.jsonl", self.spawned));
        let pools = [8, 1, 2, 8];
        let pool = pools.get(self.spawned as usize % 4).copied().unwrap_or(8);
        let ahead = [0, 3600, -3600].get(self.spawned as usize % 3).copied().unwrap_or_default();
        let broken = self.settings.broken;
        let worker = WorkerSettings { url: self.url.clone(), history, pool, ahead, broken };
        Ok(Spawn::new(&self.settings.program, &self.settings.folder).args(worker.args()).start()?)
    }

    /// One fault, and what undoes it.
    pub(crate) async fn strike(&mut self) -> Result<(), WorkcheckError> {
        let wait = Duration::from_millis(200 + self.rng.below(900));
        SystemClock.sleep(wait).await;
        self.faults += 1;
        let victim = self.rng.index(self.workers.len());
        match self.rng.below(20) {
            0..5 => self.replace(victim).await?,
            5..10 => {
                // Beyond its lease, mostly.
                let long = Duration::from_millis(1000 + self.rng.below(2500));
                if let Some(worker) = self.workers.get(victim) {
                    worker.sigstop()?;
                    SystemClock.sleep(long).await;
                    worker.sigcont()?;
                }
            }
            10..12 => {
                self.server.stop_immediate().await?;
                SystemClock.sleep(Duration::from_millis(self.rng.below(1500))).await;
                self.server.restart().await?;
            }
            12..16 => {
                for _ in 0..10 {
                    self.terminate("random() < 0.3").await;
                    SystemClock.sleep(Duration::from_millis(100)).await;
                }
            }
            _ => self.terminate("query ILIKE 'LISTEN%'").await,
        }
        Ok(())
    }

    async fn replace(&mut self, victim: usize) -> Result<(), WorkcheckError> {
        let fresh = self.spawn()?;
        if let Some(worker) = self.workers.get_mut(victim) {
            let mut old = std::mem::replace(worker, fresh);
            old.kill9().await?;
        }
        Ok(())
    }

    /// Ends connections; that the server is away is as good.
    async fn terminate(&self, which: &str) {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = 'work' AND pid <> pg_backend_pid() AND {which}"
        );
        if let Ok(mut conn) = PgConnection::connect(&self.url).await {
            let _ = sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut conn).await;
            let _ = conn.close().await;
        }
    }
}
