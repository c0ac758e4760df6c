//! A thousand sagas, a thousand workflows and schedules by the second, on two processes that are killed again and again.

pub mod check;
mod cron;
mod saga;
mod settings;
mod workflow;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use runtime_db::Database;
use runtime_kernel::{Clock as _, SystemClock};
use runtime_migrate::{MigrateOptions, MigrationSet, Migrator};
use runtime_testkit::postgres::Server;
use serde::{Deserialize, Serialize};

pub(crate) use cron::run_ticks;
pub use cron::{TickPart, ticks};
pub(crate) use saga::run_sagas;
pub use saga::{SagaPart, sagas};
pub use settings::{Broken, FleetSettings};
pub(crate) use workflow::run_workflows;
pub use workflow::{WorkflowPart, workflows};

use crate::check::Violation;
use crate::error::WorkcheckError;
use crate::herd::Herd;
use crate::history::now;
use crate::load::open;
use crate::rng::Rng;
use crate::role::{Part, Role};

/// How long everything may take to end once the faults are over.
const QUIET: Duration = Duration::from_mins(2);

/// Something a process saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A decision was taken, or had been already.
    Decided {
        /// About which entity.
        number: usize,
        /// Whose.
        who: String,
    },
}

/// What a check found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Outcome {
    /// Instances that were started.
    pub instances: usize,
    /// How they ended, by name.
    pub ended: std::collections::BTreeMap<String, usize>,
    /// Effects of steps, or events of workflows, that were kept.
    pub effects: usize,
    /// Calls of steps with a key that had been used, or decisions that were taken already and asked for again.
    pub repeated: usize,
    /// Processes killed.
    pub killed: usize,
    /// Processes frozen.
    pub frozen: usize,
    /// From the first start to the last end.
    pub took: Duration,
    /// Promises broken.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { instances, ended, effects, repeated, killed, frozen, took, violations } = self;
        writeln!(f, "{instances} instances in {took:.1?}: {ended:?}")?;
        writeln!(f, "{effects} effects, {repeated} repetitions absorbed; {killed} killed, {frozen} frozen")?;
        write!(f, "{} violations", violations.len())?;
        violations.iter().take(50).try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// A database, and processes over it.
struct Stage {
    server: Server,
    url: String,
    db: Database,
    herd: Herd,
    rng: Rng,
    folder: std::path::PathBuf,
    began: Instant,
}

impl Stage {
    async fn set(settings: &FleetSettings, name: &str, set: MigrationSet) -> Result<Self, WorkcheckError> {
        let folder = settings.folder.join(format!("{name}-{}-seed-{}", now(), settings.seed));
        std::fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let server = Server::start().await?;
        let url = server.create_database("work").await?;
        let db = open(&url, 8, SystemClock::shared()).await?;
        Migrator::new(db.clone(), vec![set], MigrateOptions::default())?.run().await?;
        let herd = Herd::new(settings.program.clone(), folder.clone());
        let (rng, began) = (Rng::new(settings.seed, 0), SystemClock.now());
        Ok(Self { server, url, db, herd, rng, folder, began })
    }

    fn populate(&mut self, processes: u32, part: &Part) -> Result<(), WorkcheckError> {
        for (_, ahead) in (0..processes).zip([0, 3600, -3600].into_iter().cycle()) {
            self.herd.add(Role { url: self.url.clone(), ahead, part: part.clone() })?;
        }
        Ok(())
    }

    /// One is killed, or now and then only frozen beyond its leases.
    async fn strike(&mut self, faults: bool) -> Result<(), WorkcheckError> {
        let wait = Duration::from_millis(300 + self.rng.below(700));
        SystemClock.sleep(wait).await;
        match self.rng.below(4) {
            _ if !faults => Ok(()),
            0 => self.herd.freeze(&mut self.rng, Duration::from_secs(2)).await,
            _ => self.herd.kill(&mut self.rng).await,
        }
    }

    /// Strikes for as long as something goes on. Who is frozen then is let go on first.
    async fn strike_during<T>(
        &mut self,
        faults: bool,
        work: impl Future<Output = Result<T, WorkcheckError>>,
    ) -> Result<T, WorkcheckError> {
        let over = AtomicBool::new(false);
        let working = async {
            let done = work.await;
            over.store(true, Ordering::Release);
            done
        };
        let striking = async {
            while !over.load(Ordering::Acquire) {
                self.strike(faults).await?;
            }
            Ok::<_, WorkcheckError>(())
        };
        let (done, struck) = tokio::join!(working, striking);
        struck?;
        done
    }

    fn gone(&self) -> Duration {
        SystemClock.now().saturating_duration_since(self.began)
    }
}
