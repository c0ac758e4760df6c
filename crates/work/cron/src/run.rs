//! Runs one claimed tick and records how it ended.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use runtime_kernel::{Context, Deadline, Error, ErrorKind, Retry, Source};
use tokio::sync::watch;

use crate::action::{Actions, Fire};
use crate::metrics::CronMetrics;
use crate::schedules::Schedules;
use crate::store::{ClaimedTick, FireResult, Tick, Verdict};

/// What a running tick needs of its scheduler.
pub(crate) struct Runner {
    pub(crate) schedules: Schedules,
    pub(crate) actions: Actions,
    pub(crate) metrics: CronMetrics,
    /// Says when to give back what runs.
    pub(crate) cut: watch::Sender<bool>,
}

impl Runner {
    pub(crate) fn tick(&self, claimed: &ClaimedTick) -> Tick {
        let clock = &*self.schedules.clock;
        let mut context = Context::new(Source::Schedule, clock);
        context.tenant = claimed.stored.context.tenant.clone().map(Arc::new);
        Tick {
            key: claimed.key.clone(),
            fire_time: claimed.fire_time,
            fired_at: claimed.fired_at,
            attempt: claimed.attempt,
            manual: claimed.manual,
            schedule: claimed.stored.schedule.clone(),
            context: context.with_deadline(Deadline::after(clock, claimed.stored.schedule.timeout)),
        }
    }

    /// Runs an action under its claim; says that one tick ended.
    pub(crate) async fn run(self: Arc<Self>, action: Arc<dyn Fire>, claimed: Box<ClaimedTick>) -> usize {
        let clock = &*self.schedules.clock;
        let tick = self.tick(&claimed);
        let mut cut = self.cut.subscribe();
        let work = AssertUnwindSafe(action.fire(&tick)).catch_unwind();
        let result = tokio::select! {
            biased;
            result = tick.context.deadline.run(clock, work) => told(result, &claimed),
            () = self.hold(&claimed) => {
                tracing::warn!(schedule = %claimed.key, fire_time = %claimed.fire_time, "a tick's claim was lost while it ran");
                self.metrics.ended(self.actions.label(&claimed.stored.schedule.action), "lost", 1);
                return 1;
            }
            () = async { drop(cut.wait_for(|cut| *cut).await) } => {
                self.finish(&claimed, Verdict::Waits(Duration::ZERO)).await;
                return 1;
            }
        };
        let verdict = judge(&result, &claimed);
        self.finish(&claimed, verdict).await;
        1
    }

    /// Extends the claim for as long as it holds.
    async fn hold(&self, claimed: &ClaimedTick) {
        let (clock, lease) = (&self.schedules.clock, self.schedules.config.lease);
        let mut heard = clock.now();
        loop {
            clock.sleep(lease / 3).await;
            match self.schedules.store.extend(claimed, lease).await {
                Ok(true) => heard = clock.now(),
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(schedule = %claimed.key, error = %Error::from(error).report(), "a claim could not be extended");
                    if clock.now().saturating_duration_since(heard) > lease {
                        return;
                    }
                }
            }
        }
    }

    /// A tick whose action nobody registered.
    pub(crate) async fn unknown(&self, claimed: &ClaimedTick) {
        let action = &claimed.stored.schedule.action;
        tracing::error!(schedule = %claimed.key, action, "no such action is registered");
        self.finish(claimed, Verdict::Failed(format!("no action `{action}` is registered"))).await;
    }

    async fn finish(&self, claimed: &ClaimedTick, verdict: Verdict) {
        for pause in [100, 300, 1000, 0] {
            match self.schedules.store.finish(claimed, verdict.clone()).await {
                Ok(true) => return self.count(claimed, &verdict),
                Ok(false) => {
                    tracing::warn!(schedule = %claimed.key, fire_time = %claimed.fire_time, "a report was refused: the claim is another's");
                    return self.metrics.ended(
                        self.actions.label(&claimed.stored.schedule.action),
                        "lost",
                        1,
                    );
                }
                Err(error) => {
                    tracing::warn!(schedule = %claimed.key, error = %Error::from(error).report(), "a tick's end could not be recorded");
                }
            }
            self.schedules.clock.sleep(Duration::from_millis(pause)).await;
        }
        tracing::error!(schedule = %claimed.key, fire_time = %claimed.fire_time, "a tick's end is not recorded; its lease will run out");
    }

    pub(crate) fn count(&self, claimed: &ClaimedTick, verdict: &Verdict) {
        let (key, fire_time) = (&claimed.key, claimed.fire_time);
        let outcome = match verdict {
            Verdict::Done => "done",
            Verdict::Skipped(_) => "skipped",
            Verdict::Retry(_, error) => {
                tracing::warn!(schedule = %key, %fire_time, attempt = claimed.attempt, %error, "a tick failed and is tried again");
                "retry"
            }
            Verdict::Failed(error) => {
                tracing::error!(schedule = %key, %fire_time, attempt = claimed.attempt, %error, "a tick has failed");
                "failed"
            }
            Verdict::Waits(_) => return,
        };
        self.metrics.ended(self.actions.label(&claimed.stored.schedule.action), outcome, 1);
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod in_tx {
    use super::{AssertUnwindSafe, Deadline, Duration, Error, ErrorKind, FutureExt, Runner, judge, panicked};
    use crate::action::{Action, FireInTx};
    use crate::error::CronError;
    use crate::sql::{FiredInTx, SqlStore};
    use crate::store::{Claim, Fired, Ready, Verdict};

    impl Runner {
        /// Fires ticks of one schedule, one after the other, each in a transaction with its effect. Says how many.
        pub(crate) async fn run_group(&self, group: Vec<Ready>) -> usize {
            let mut fired = 0;
            for ready in group {
                let Some(Action::InTx(action)) = self.actions.get(&ready.action) else { continue };
                let Some(store) = self.schedules.store.sql() else {
                    fired += self.refuse_in_tx(&ready).await;
                    continue;
                };
                match Box::pin(self.fire_in_tx(store, &**action, &ready)).await {
                    Ok(true) => fired += 1,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(schedule = %ready.key, error = %Error::from(error).report(), "a tick could not be fired; it waits");
                        self.schedules.clock.sleep(Duration::from_secs(1)).await;
                        break;
                    }
                }
            }
            fired
        }

        async fn refuse_in_tx(&self, ready: &Ready) -> usize {
            let (store, lease) = (&self.schedules.store, self.schedules.config.lease);
            let claim = store.claim(&ready.key, ready.fire_time, lease).await;
            let Ok(Some(claimed)) = claim.map(|claim| self.took(ready, claim)) else { return 0 };
            let why = "an action in the tick's transaction needs schedules in a database";
            self.finish(&claimed, Verdict::Failed(why.to_owned())).await;
            1
        }

        /// Says whether the tick ended, or an attempt at it did.
        async fn fire_in_tx(
            &self,
            store: &SqlStore,
            action: &dyn FireInTx,
            ready: &Ready,
        ) -> Result<bool, CronError> {
            let (clock, lease) = (&*self.schedules.clock, self.schedules.config.lease);
            let began = std::sync::Mutex::new(None);
            let fire = store.fire_in(action, &ready.key, ready.fire_time, lease, |claimed| {
                if let Ok(mut began) = began.lock() {
                    *began = Some(claimed.clone());
                }
                self.tick(claimed)
            });
            // Bounded like any claim: a transaction that hangs is undone, and its tick fails.
            let fired = Deadline::after(clock, lease)
                .run(clock, AssertUnwindSafe(Box::pin(fire)).catch_unwind())
                .await;
            let claimed = began.lock().map(|began| began.clone()).unwrap_or_default();
            let error = match (fired, &claimed) {
                (Ok(Ok(Ok(FiredInTx::Unclaimed(claim)))), _) => {
                    let ended = matches!(claim, Claim::Skipped | Claim::Lost);
                    self.took(ready, claim);
                    return Ok(ended);
                }
                (Ok(Ok(Ok(FiredInTx::Fired(fired)))), claimed) => {
                    if let Some(claimed) = claimed.as_ref().filter(|_| fired != Fired::NotYet) {
                        self.metrics.began(claimed);
                        self.count(claimed, &Verdict::of(&fired));
                    }
                    return Ok(fired != Fired::NotYet);
                }
                (Ok(Ok(Err(CronError::Action(error)))), _) => error,
                (Ok(Ok(Err(error))), _) => return Err(error),
                (Ok(Err(panic)), _) => panicked(&*panic),
                (Err(_), Some(_)) => timed_out(lease),
                // The store, not the action, kept us waiting.
                (Err(error), None) => return Err(CronError::Action(error)),
            };
            let failed: Result<Fired, Error> = Err(error);
            let recorded =
                store.failed_in_tx(&ready.key, ready.fire_time, |claimed| judge(&failed, claimed)).await?;
            if let (Some(verdict), Some(claimed)) = (recorded, claimed) {
                self.metrics.began(&claimed);
                self.count(&claimed, &verdict);
            }
            Ok(true)
        }
    }

    fn timed_out(limit: Duration) -> Error {
        Error::new(ErrorKind::Timeout, "cron.timeout", format!("the transaction took longer than {limit:?}"))
    }
}

type Panic = Box<dyn std::any::Any + Send>;

fn told(result: Result<Result<FireResult, Panic>, Error>, claimed: &ClaimedTick) -> FireResult {
    match result {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(panicked(&*panic)),
        Err(_) => {
            let limit = claimed.stored.schedule.timeout;
            Err(Error::new(
                ErrorKind::Timeout,
                "cron.timeout",
                format!("the attempt took longer than {limit:?}"),
            ))
        }
    }
}

/// An internal fault is tried again, since the next deploy may mend it; otherwise the error itself decides.
fn judge(result: &FireResult, claimed: &ClaimedTick) -> Verdict {
    let error = match result {
        Ok(fired) => return Verdict::of(fired),
        Err(error) => error,
    };
    let schedule = &claimed.stored.schedule;
    let hopeless =
        error.retry() == Retry::Never && !matches!(error.kind(), ErrorKind::Internal | ErrorKind::Timeout);
    if hopeless || claimed.attempt >= schedule.attempts {
        return Verdict::Failed(error.report());
    }
    let delay = match error.retry() {
        Retry::After(delay) => delay.max(schedule.delay_after(claimed.attempt)).min(Duration::from_hours(1)),
        _ => schedule.delay_after(claimed.attempt),
    };
    Verdict::Retry(delay, error.report())
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    Error::new(ErrorKind::Internal, "cron.panicked", "the action panicked").with_source(text)
}
