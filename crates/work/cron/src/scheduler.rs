//! Leads, moves due schedules on, and starts their ticks.

#[cfg(any(feature = "sqlite", feature = "postgres"))]
use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use runtime_kernel::{Deadline, Error, uuid_v7};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::action::{Action, Actions};
use crate::catch_up::catch_up;
use crate::error::CronError;
use crate::metrics::CronMetrics;
use crate::run::Runner;
use crate::schedules::Schedules;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
use crate::store::Key;
use crate::store::{Claim, Ready, Stored};

/// The most schedules, and ticks, looked at in one turn.
const BATCH: u32 = 500;

/// How long a cut tick may take to be given back.
const GRACE: Duration = Duration::from_secs(1);

/// Fires schedules. Any number may run on one store: one leads, and each fire time has one tick.
///
/// A tick is a row under its schedule and fire time, added in the same transaction that moves the schedule on, so two
/// leaders that both believe to lead still add it once; and a tick is claimed under that row, so it is run by one at a
/// time.
///
/// | the action | then the tick |
/// |---|---|
/// | succeeds | is `done` |
/// | fails, and may be tried again | waits `retry_delay`, doubling, and is tried again up to `attempts` times |
/// | fails for good, or for the last time | is `failed`: kept in the history, tried no more |
/// | is not registered here | as if it had failed for good |
/// | takes longer than `timeout` | as if it had failed |
/// | is cut because the scheduler stops | is given back, the attempt not counted |
/// | dies with its scheduler | is tried again once the lease has run out, if attempts are left; else `failed` |
pub struct Scheduler {
    runner: Arc<Runner>,
    name: String,
    /// Schedules whose ticks are being fired in transactions.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    busy: Arc<Mutex<HashSet<Key>>>,
}

/// What a turn came to.
struct Turn {
    /// Ticks that ended within it; those that run say so themselves.
    fired: usize,
    /// How long until the next turn.
    wait: Duration,
}

impl Scheduler {
    /// A scheduler of these schedules with these actions.
    pub fn new(schedules: Schedules, actions: Actions) -> Self {
        let name = uuid_v7(&*schedules.clock).to_string();
        let runner =
            Runner { schedules, actions, metrics: CronMetrics::default(), cut: watch::channel(false).0 };
        Self {
            runner: Arc::new(runner),
            name,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            busy: Arc::default(),
        }
    }

    /// Counts what it does.
    #[must_use]
    pub fn with_metrics(self, metrics: CronMetrics) -> Self {
        let Runner { schedules, actions, .. } = &*self.runner;
        let runner = Runner {
            schedules: schedules.clone(),
            actions: actions.clone(),
            metrics,
            cut: watch::channel(false).0,
        };
        Self { runner: Arc::new(runner), ..self }
    }

    /// The name it leads under: unique to this scheduler.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fires until `stop` is ready, then waits up to `drain` for what runs, gives the rest back and lets another lead.
    ///
    /// Survives the store's absence: it goes on trying, and fire times that pass meanwhile are misfires.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        let (schedules, config) = (&self.runner.schedules, &self.runner.schedules.config);
        let (mut running, mut looked_up) = (JoinSet::new(), false);
        tokio::pin!(stop);
        loop {
            if !looked_up {
                // The configuration may be another than the one they were kept under.
                let looking = schedules.look_up_calendars().await;
                looked_up = looking.is_ok();
                if let Err(error) = looking {
                    tracing::warn!(error = %Error::from(error).report(), "calendars cannot be looked up");
                }
            }
            let wait = match self.turn(&mut running).await {
                Ok(turn) => turn.wait,
                Err(error) => {
                    tracing::warn!(error = %Error::from(error).report(), "schedules cannot be looked at");
                    config.poll_interval
                }
            };
            let mut sleep = schedules.clock.sleep(wait);
            let stopped = loop {
                tokio::select! {
                    biased;
                    () = &mut stop => break true,
                    () = schedules.wake.notified() => break false,
                    // What ended may let others begin; what only looked lets nobody.
                    Some(done) = running.join_next() => if done.unwrap_or(1) > 0 { break false },
                    () = &mut sleep => break false,
                }
            };
            if stopped {
                break;
            }
        }
        self.drain(running).await;
    }

    /// Does at once everything there is to do, waits until it is done and says how many ticks were begun: what a cron
    /// job of the operating system or a test would call.
    ///
    /// # Errors
    /// What the store brings.
    pub async fn run_due(&self) -> Result<usize, CronError> {
        let (mut running, mut begun) = (JoinSet::new(), 0);
        loop {
            let mut fired = self.turn(&mut running).await?.fired;
            while let Some(done) = running.join_next().await {
                fired += done.unwrap_or(1);
            }
            if fired == 0 {
                return Ok(begun);
            }
            begun += fired;
        }
    }

    async fn drain(&self, mut running: JoinSet<usize>) {
        let (clock, config) = (&self.runner.schedules.clock, &self.runner.schedules.config);
        let waited = Deadline::after(&**clock, config.drain);
        let _ = waited.run(&**clock, async { while running.join_next().await.is_some() {} }).await;
        let _ = self.runner.cut.send(true);
        let grace = Deadline::after(&**clock, GRACE);
        let _ = grace.run(&**clock, async { while running.join_next().await.is_some() {} }).await;
        running.shutdown().await;
        if let Err(error) = self.runner.schedules.store.resign(&self.name).await {
            tracing::debug!(error = %Error::from(error).report(), "the lease is left to run out");
        }
        self.runner.metrics.leads(false);
    }

    async fn turn(&self, running: &mut JoinSet<usize>) -> Result<Turn, CronError> {
        let Runner { schedules, metrics, .. } = &*self.runner;
        let config = &schedules.config;
        let idle = Turn { fired: 0, wait: config.poll_interval };
        let leader = schedules.store.lead(&self.name, config.lease).await?;
        metrics.leads(leader.is_some());
        let Some(leader) = leader else { return Ok(idle) };
        let mut look = schedules.store.look(BATCH).await?;
        if !look.due.is_empty() {
            for seen in &look.due {
                self.advance(leader, seen, look.now).await?;
            }
            look = schedules.store.look(BATCH).await?;
        }
        let room = |running: &JoinSet<usize>| running.len() < config.concurrency as usize;
        let mut fired = 0;
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        let mut groups = std::collections::BTreeMap::<Key, Vec<Ready>>::new();
        for ready in look.ready {
            if !room(running) {
                break;
            }
            match self.runner.actions.get(&ready.action) {
                #[cfg(any(feature = "sqlite", feature = "postgres"))]
                Some(Action::InTx(_)) => groups.entry(ready.key.clone()).or_default().push(ready),
                Some(Action::Plain(action)) => {
                    let action = Arc::clone(action);
                    if let Some(claimed) = self.runner.claim(&ready).await? {
                        running.spawn(Arc::clone(&self.runner).run(action, claimed));
                    }
                }
                None => {
                    if let Some(claimed) = self.runner.claim(&ready).await? {
                        fired += 1;
                        self.runner.unknown(&claimed).await;
                    }
                }
            }
        }
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        self.spawn_groups(groups, running);
        let wait = match look.wait {
            // More than one look takes in.
            _ if look.due.len() >= BATCH as usize => Duration::ZERO,
            wait => wait.unwrap_or(config.poll_interval),
        };
        Ok(Turn { fired, wait: wait.min(config.poll_interval) })
    }

    /// Of one schedule one after the other, of different ones side by side.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    fn spawn_groups(
        &self,
        groups: std::collections::BTreeMap<Key, Vec<Ready>>,
        running: &mut JoinSet<usize>,
    ) {
        let most = self.runner.schedules.config.concurrency as usize;
        for (key, group) in groups {
            let busy = || self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            if running.len() >= most || !busy().insert(key.clone()) {
                continue;
            }
            let (runner, busy) = (Arc::clone(&self.runner), Arc::clone(&self.busy));
            running.spawn(async move {
                let fired = Box::pin(runner.run_group(group)).await;
                busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
                fired
            });
        }
    }

    async fn advance(
        &self,
        leader: u64,
        seen: &Stored,
        now: runtime_kernel::Timestamp,
    ) -> Result<(), CronError> {
        let Runner { schedules, metrics, actions, .. } = &*self.runner;
        let timetable = match seen.schedule.timetable(&seen.key.tenant) {
            Ok(timetable) => timetable,
            Err(error) => {
                // Kept by another release, or its zone is gone from the database. The others go on.
                tracing::error!(schedule = %seen.key, %error, "a schedule cannot be read and does not fire");
                return Ok(());
            }
        };
        let Some(due) = seen.next else { return Ok(()) };
        let plan = catch_up(&seen.schedule, &timetable, due, now);
        if schedules.store.advance(leader, seen, &plan).await? && plan.missed > 0 {
            tracing::warn!(schedule = %seen.key, missed = plan.missed, "fire times were missed and are left out");
            metrics.ended(actions.label(&seen.schedule.action), "missed", plan.missed);
        }
        Ok(())
    }
}

impl Runner {
    /// Claims a tick, unless its time has not come or another has it.
    async fn claim(&self, ready: &Ready) -> Result<Option<Box<crate::store::ClaimedTick>>, CronError> {
        let lease = self.schedules.config.lease;
        let claim = self.schedules.store.claim(&ready.key, ready.fire_time, lease).await?;
        Ok(self.took(ready, claim))
    }

    /// Counts what became of a claim.
    pub(crate) fn took(&self, ready: &Ready, claim: Claim) -> Option<Box<crate::store::ClaimedTick>> {
        let action = self.actions.label(&ready.action);
        match claim {
            Claim::Claimed(claimed) => {
                self.metrics.began(&claimed);
                return Some(claimed);
            }
            Claim::Skipped => self.metrics.ended(action, "skipped", 1),
            Claim::Lost => {
                tracing::error!(schedule = %ready.key, fire_time = %ready.fire_time, "a tick was lost with its scheduler");
                self.metrics.ended(action, "lost", 1);
            }
            Claim::Waits | Claim::Taken => {}
        }
        None
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("name", &self.name).finish_non_exhaustive()
    }
}
