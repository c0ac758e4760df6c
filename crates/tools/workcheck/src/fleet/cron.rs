//! Schedules whose schedulers are killed and frozen, whose database is stopped, and whose ticks are counted.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use runtime_cron::store::FireResult;
use runtime_cron::{
    Actions, CronConfig, FireInTx, Fired, Misfire, Overlap, Schedule, Scheduler, Schedules, SqlStore, Tick,
};
use runtime_db::sqlx;
use runtime_db::{Database, DbError, Tx};
use runtime_kernel::{Clock as _, Context, Error, ErrorKind, SharedClock, Source, SystemClock};
use serde::{Deserialize, Serialize};

use super::check::{Ticked, judge_ticks};
use super::{Broken, FleetSettings, Outcome, QUIET, Stage};
use crate::check::{Promise, Violation};
use crate::error::WorkcheckError;
use crate::role::{Part, Process};

/// One tick each second each: by expression, by interval, one waiting for another.
const SCHEDULES: [(&str, &str, Overlap); 4] = [
    ("expression", "* * * * * *", Overlap::Allow),
    ("interval", "@every 1s", Overlap::Allow),
    ("one-by-one", "* * * * * *", Overlap::Wait { up_to: 1000 }),
    ("in-berlin", "* * * * * *", Overlap::Allow),
];

const TABLE: &str = "CREATE TABLE ticks (schedule TEXT NOT NULL, fire_time BIGINT NOT NULL)";
const EFFECT: &str = "INSERT INTO ticks (schedule, fire_time) VALUES ($1, $2)";

/// What a process is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TickPart {
    /// How it is broken.
    pub broken: Broken,
}

fn over(db: &Database, clock: SharedClock) -> Result<Schedules, WorkcheckError> {
    let mut config = CronConfig::default();
    config.poll_interval = Duration::from_millis(100);
    config.lease = Duration::from_secs(1);
    config.drain = Duration::from_secs(1);
    Ok(Schedules::new(SqlStore::new(db.clone()), config, clock)?)
}

/// Writes a row; of every seventh tick, the first attempt fails after that.
struct Effect {
    db: Database,
    broken: Broken,
}

#[async_trait]
impl FireInTx for Effect {
    async fn fire_in(&self, tx: &mut Tx, tick: &Tick) -> FireResult {
        let second = tick.fire_time.as_second();
        let write = sqlx::query(EFFECT).bind(&tick.key.name).bind(second);
        let written = match (self.broken, self.db.postgres(), tx.postgres()) {
            (Broken::Outside, Some(pool), _) => write.execute(pool).await,
            (_, _, Some(connection)) => write.execute(&mut **connection).await,
            _ => return Err(Error::internal("it is Postgres that is checked")),
        };
        written.map_err(DbError::from)?;
        // Whoever is killed here has done it and not said so.
        SystemClock.sleep(Duration::from_millis(5)).await;
        if second % 7 == 0 && tick.attempt == 1 {
            return Err(Error::new(ErrorKind::Unavailable, "check.failed", "on purpose"));
        }
        Ok(Fired::Done)
    }
}

pub(crate) async fn run_ticks(
    part: &TickPart,
    process: Process,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), WorkcheckError> {
    let schedules = over(&process.db, process.clock)?;
    let effect = Effect { db: process.db, broken: part.broken };
    Scheduler::new(schedules, Actions::new().on_in_tx("effect", effect)).run(stop).await;
    Ok(())
}

/// Runs a whole check.
///
/// # Errors
/// What kept it from being made; what it found is its outcome.
pub async fn ticks(settings: &FleetSettings) -> Result<Outcome, WorkcheckError> {
    let mut stage = Stage::set(settings, "ticks", runtime_cron::migrations::SET).await?;
    let pool = stage.db.postgres().ok_or(DbError::Closed)?.clone();
    sqlx::query(TABLE).execute(&pool).await?;
    let schedules = over(&stage.db, SystemClock::shared())?;
    let context = Context::new(Source::Internal, &SystemClock);
    for (name, when, overlap) in SCHEDULES {
        let mut schedule = Schedule::new(name, when, "effect").overlap(overlap);
        schedule.misfire = Misfire::All { up_to: 1000 };
        (schedule.attempts, schedule.retry_delay) = (100, Duration::ZERO);
        if name == "in-berlin" {
            schedule = schedule.zone("Europe/Berlin");
        }
        schedules.put(&context, schedule).await?;
    }
    let from = SystemClock.utc().as_second();
    stage.populate(settings.processes, &Part::Ticks(TickPart { broken: settings.broken }))?;
    while stage.gone() < settings.duration {
        stage.strike(settings.faults).await?;
        if settings.faults && stage.rng.below(8) == 0 {
            stage.server.stop_immediate().await?;
            SystemClock.sleep(Duration::from_millis(stage.rng.below(1500))).await;
            stage.server.restart().await?;
        }
    }
    let to = SystemClock.utc().as_second();
    let mut open = SCHEDULES.len();
    while open > 0 && stage.gone() < settings.duration + QUIET {
        SystemClock.sleep(Duration::from_millis(100)).await;
        open = 0;
        for (name, ..) in SCHEDULES {
            let through = schedules.history(&context, name, 1000).await?.into_iter();
            let mut through = through.filter(|tick| tick.fire_time.as_second() <= to).peekable();
            let reached = through.peek().is_some_and(|last| last.fire_time.as_second() == to);
            open += usize::from(!reached || through.any(|tick| !tick.state.is_finished()));
        }
    }
    let mut outcome = Outcome { instances: SCHEDULES.len(), took: stage.gone(), ..Outcome::default() };
    (outcome.killed, outcome.frozen) = (stage.herd.killed, stage.herd.frozen);
    let stuck = stage.herd.stop().await?;
    let rows: Vec<(String, i64)> =
        sqlx::query_as("SELECT schedule, fire_time FROM ticks ORDER BY 1, 2").fetch_all(&pool).await?;
    outcome.effects = rows.len();
    let mut seconds: BTreeMap<String, Vec<i64>> =
        SCHEDULES.iter().map(|(name, ..)| ((*name).to_owned(), Vec::new())).collect();
    for (name, second) in rows {
        seconds.entry(name).or_default().push(second);
    }
    outcome.violations = judge_ticks(&Ticked { from: from + 2, to, seconds });
    outcome.violations.extend(stuck.into_iter().map(|who| Violation::new(Promise::WorkersStop, who)));
    Ok(outcome)
}
