//! Drives one claim: runs the code until it ends or waits, then settles; undoes what is to be undone.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use runtime_kernel::{Sleep, Timestamp};
use serde_json::Value;

use crate::definition::{Definition, Ended};
use crate::history::Op;
use crate::instance::{Failure, ParkReason};
use crate::journal::What;
use crate::run::{Run, said};
use crate::saga::Saga;
use crate::state::{Compensation, Fault, Stopping};
use crate::store::Settle;

/// How long a replay may take to come by a compensation that is owed, once nothing of it is under way. Code that awaits
/// nothing but its saga needs no time at all.
const GRACE: Duration = Duration::from_secs(5);

/// What polling the code has come to.
enum Turn {
    Ended(Ended),
    Panicked(String),
    /// It waits, for a time or for something to come, and nothing of it is under way.
    Idle(Option<Timestamp>),
    Fault(Fault),
}

/// Runs a claim to the point where it is to be settled.
pub(crate) async fn drive(run: &Arc<Run>, definition: &Definition, input: Value) -> Result<Settle, Fault> {
    let turn = forward(run, definition, input).await;
    let (decided, stopping) = {
        let mut state = run.lock();
        state.closed = true;
        (state.history.decided.clone(), state.stopping.clone())
    };
    let failure = match (turn, decided) {
        (Turn::Fault(fault), _) => return Err(fault),
        (Turn::Panicked(message), failure) => {
            return Ok(Settle::Park { reason: ParkReason::Panicked { message }, failure });
        }
        (Turn::Ended(Ended::Unreadable(reason)), failure) => return Ok(Settle::Park { reason, failure }),
        // The code was run again only to learn how to undo.
        (_, Some(failure)) => failure,
        (Turn::Idle(until), None) => match stopping.as_ref().map(|why| (why.failure(), why)) {
            None => return Ok(waits(run, until)),
            Some((None, _)) => return Ok(wait(run, Some(run.now()), None)),
            Some((Some(failure), _)) => decide(run, failure).await?,
        },
        (Turn::Ended(Ended::Returned(returned)), None) => {
            check_all_came(run)?;
            match returned {
                Ok(output) => {
                    run.fits("", &output).map_err(Fault::Park)?;
                    return Ok(Settle::Completed(output));
                }
                Err(error) => decide(run, Failure::from(&error)).await?,
            }
        }
    };
    undo(run, failure).await
}

/// Polls the code until it ends, or waits with nothing of it under way.
async fn forward(run: &Arc<Run>, definition: &Definition, input: Value) -> Turn {
    let code = AssertUnwindSafe(async { (definition.code)(Saga::root(Arc::clone(run)), input).await });
    let mut code = code.catch_unwind().boxed();
    let woken = Arc::new(Woken::default());
    let clock = &run.shared.clock;
    let left = run.deadline.map(|deadline| deadline.duration_since(run.now()));
    let mut deadline = left.map(|left| clock.sleep(left));
    let mut grace: Option<Sleep> = None;
    let mut look = Box::pin(run.look.notified());
    poll_fn(|cx| {
        loop {
            // Registers for the next look before looking.
            let looked = look.as_mut().poll(cx).is_ready();
            if looked {
                look.set(run.look.notified());
            }
            if let Some(sleep) = deadline.as_mut()
                && sleep.as_mut().poll(cx).is_ready()
            {
                deadline = None;
                run.stop(Stopping::TimedOut);
            }
            woken.listen(cx.waker());
            let waker = Waker::from(Arc::clone(&woken));
            let polled = code.as_mut().poll(&mut TaskContext::from_waker(&waker));
            if let Some(fault) = run.lock().fault.take() {
                return Poll::Ready(Turn::Fault(fault));
            }
            match polled {
                Poll::Ready(Ok(ended)) => return Poll::Ready(Turn::Ended(ended)),
                Poll::Ready(Err(panic)) => return Poll::Ready(Turn::Panicked(said(&*panic))),
                Poll::Pending => {}
            }
            if run.lock().is_idle() && !woken.is_woken() {
                if owed(run).is_none() {
                    return Poll::Ready(Turn::Idle(run.lock().next_wait()));
                }
                let sleep = grace.get_or_insert_with(|| clock.sleep(GRACE));
                if Pin::new(sleep).poll(cx).is_ready() {
                    return Poll::Ready(Turn::Idle(run.lock().next_wait()));
                }
            }
            if !looked {
                return Poll::Pending;
            }
        }
    })
    .await
}

/// Wakes the driver, and remembers that it did.
#[derive(Default)]
struct Woken {
    woken: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Woken {
    fn listen(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        self.woken.store(false, Ordering::Release);
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Acquire)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

/// To be claimed again when something it waits for has come.
fn waits(run: &Run, until: Option<Timestamp>) -> Settle {
    let until = match (until, run.deadline) {
        (Some(until), Some(deadline)) => Some(until.min(deadline)),
        (until, deadline) => until.or(deadline),
    };
    wait(run, until, None)
}

fn wait(run: &Run, until: Option<Timestamp>, failure: Option<Failure>) -> Settle {
    Settle::Wait { until, failure, pokes: run.lock().pokes }
}

/// From here on steps are undone.
async fn decide(run: &Run, failure: Failure) -> Result<Failure, Fault> {
    run.try_write("", What::Compensating { failure: failure.clone() }).await?;
    Ok(failure)
}

/// What the journal has and the code did not come to: it is not the code that wrote the journal.
fn check_all_came(run: &Run) -> Result<(), Fault> {
    let state = run.lock();
    let missed = state.history.ops.iter().filter(|(position, _)| !state.visited.contains(*position));
    let Some((position, recorded)) = missed.min_by_key(|(position, _)| position.as_str()) else {
        return Ok(());
    };
    let (recorded, found) = (recorded.op.describe(&recorded.name), "the end".to_owned());
    Err(Fault::Park(Box::new(ParkReason::NonDeterminism { position: position.clone(), recorded, found })))
}

/// A compensation the journal says is owed, and the code has not told of.
fn owed(run: &Run) -> Option<(String, String)> {
    let state = run.lock();
    state.history.decided.as_ref()?;
    let told = |position: &str, name: &str| {
        state.compensations.values().any(|known| known.position == position && known.name == name)
    };
    let settled = |position: &str| state.history.undo.get(position).is_some_and(|undo| undo.done);
    let mut owed = state.history.owed.values();
    owed.find(|(position, name)| !settled(position) && !told(position, name)).cloned()
}

/// Undoes, in reverse order of completion, what has not been undone yet.
async fn undo(run: &Run, failure: Failure) -> Result<Settle, Fault> {
    if let Some((position, name)) = owed(run) {
        let recorded = format!("{} undone by `{name}`", Op::Step.describe(&step_at(run, &position)));
        let found = "no such compensation".to_owned();
        let reason = ParkReason::NonDeterminism { position, recorded, found };
        return Ok(Settle::Park { reason, failure: Some(failure) });
    }
    let compensations = std::mem::take(&mut run.lock().compensations);
    for compensation in compensations.into_values().rev() {
        if let Some(settle) = undo_one(run, compensation, &failure).await? {
            return Ok(settle);
        }
    }
    Ok(Settle::Compensated(failure))
}

fn step_at(run: &Run, position: &str) -> String {
    run.lock().history.ops.get(position).map(|step| step.name.clone()).unwrap_or_default()
}

/// `None` when it is undone; otherwise how the claim ends.
async fn undo_one(
    run: &Run,
    mut compensation: Compensation,
    failure: &Failure,
) -> Result<Option<Settle>, Fault> {
    let known = run.lock().history.undo.get(&compensation.position).cloned().unwrap_or_default();
    if known.done {
        return Ok(None);
    }
    let (mut attempt, mut wait_until) = (known.attempts, known.retry_at);
    let policy = compensation.policy.clone();
    let policy = policy.as_ref().unwrap_or(&run.shared.compensation_retry);
    loop {
        let draining = matches!(run.lock().stopping, Some(Stopping::Draining));
        if draining || wait_until.is_some_and(|at| at > run.now()) {
            let until = wait_until.unwrap_or_else(|| run.now());
            return Ok(Some(wait(run, Some(until), Some(failure.clone()))));
        }
        attempt += 1;
        let key = run.key(&compensation.position, true, attempt);
        let (position, name) = (compensation.position.clone(), compensation.name.clone());
        let done = run.attempt(key, compensation.timeout, &mut compensation.run).await;
        let Err(error) = done else {
            run.try_write(&position, What::Compensated { name }).await?;
            return Ok(None);
        };
        let delay = policy.next_delay(attempt, error.retry(), &mut run.shared.rng.clone());
        let retry_at = delay.map(|delay| run.now().saturating_add(delay));
        let (last, failed) = (Failure::from(&error), name.clone());
        tracing::debug!(saga = %run.id, compensation = %name, attempt, error = %last.report, "a compensation failed");
        let what = What::CompensationFailed { name: failed, attempt, failure: last.clone(), retry_at };
        run.try_write(&position, what).await?;
        if retry_at.is_none() {
            let reason = ParkReason::CompensationFailed { position, name, failure: last };
            return Ok(Some(Settle::Park { reason, failure: Some(failure.clone()) }));
        }
        wait_until = retry_at;
    }
}
