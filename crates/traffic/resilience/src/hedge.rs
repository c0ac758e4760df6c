//! Hedging: when the answer is late, ask a second time, and take the first that comes.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use runtime_kernel::{Clock, Deadline, Retry};
use serde::{Deserialize, Serialize};

use crate::budget::RetryBudget;
use crate::config::PolicyError;

/// When to ask again, and how often (Dean and Barroso, "The Tail at Scale", CACM 2013).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct HedgeConfig {
    /// How long to wait for an answer before asking once more: about the 95th percentile. Default 100 ms.
    #[serde(with = "runtime_kernel::units::duration")]
    pub delay: Duration,
    /// How many times to ask in all: 2 to 10. Default 2.
    pub max_attempts: u32,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self { delay: Duration::from_millis(100), max_attempts: 2 }
    }
}

impl HedgeConfig {
    /// Asks a second time after this delay.
    pub fn after(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    pub(crate) fn check(self) -> Result<(), PolicyError> {
        if !(2..=10).contains(&self.max_attempts) {
            return Err(PolicyError { key: "max_attempts", message: "must be 2 to 10" });
        }
        Ok(())
    }
}

/// Asks once, again each time the answer is late, and takes the first success; the others are dropped.
///
/// An attempt that fails ends nothing as long as another is under way; if none is, the next is made at once. Each attempt
/// but the first is taken from the budget, if there is one; when it is spent, nothing more is asked. Telling the budget of
/// calls and successes is the caller's part ([`RetryBudget::called`], [`RetryBudget::succeeded`]). Only what may be done
/// twice may be hedged.
///
/// Cancel-safe: dropped, all attempts are dropped.
///
/// # Errors
/// The error of the last attempt that failed; nothing was under way any more.
pub async fn hedge<T, E, W: Future<Output = Result<T, E>>>(
    config: HedgeConfig,
    clock: &dyn Clock,
    deadline: Deadline,
    budget: Option<&RetryBudget>,
    attempt: impl FnMut(u32) -> W,
) -> Result<T, E> {
    hedge_while(|_| true, config, clock, deadline, budget, attempt).await
}

/// As [`hedge`]; after an error that will not pass, nothing more is asked.
pub(crate) async fn hedge_while<T, E, W: Future<Output = Result<T, E>>>(
    may_pass: impl Fn(&E) -> bool,
    config: HedgeConfig,
    clock: &dyn Clock,
    deadline: Deadline,
    budget: Option<&RetryBudget>,
    mut attempt: impl FnMut(u32) -> W,
) -> Result<T, E> {
    let mut original = std::pin::pin!(attempt(1));
    let mut others: Vec<Pin<Box<W>>> = Vec::new();
    // An answer that is there at once needs neither a timer nor a list.
    let mut early = match poll_fn(|cx| Poll::Ready(original.as_mut().poll(cx))).await {
        Poll::Ready(Ok(value)) => return Ok(value),
        Poll::Ready(failed) => Some(failed),
        Poll::Pending => None,
    };
    let mut original = early.is_none().then_some(original);
    let mut made = 1;
    loop {
        let in_time = deadline.remaining(clock).is_none_or(|left| left > config.delay);
        let more = made < config.max_attempts && in_time;
        let mut late = (more && early.is_none()).then(|| clock.sleep(config.delay));
        let first = match early.take() {
            Some(failed) => Some(failed),
            None => {
                poll_fn(|cx| match first(&mut original, &mut others, cx) {
                    Poll::Ready(done) => Poll::Ready(Some(done)),
                    Poll::Pending => match &mut late {
                        Some(late) => late.as_mut().poll(cx).map(|()| None),
                        None => Poll::Pending,
                    },
                })
                .await
            }
        };
        match first {
            Some(Ok(value)) => return Ok(value),
            Some(Err(_)) if original.is_some() || !others.is_empty() => continue,
            Some(Err(error)) if !more || !may_pass(&error) || !allowed(budget, clock) => return Err(error),
            None if !allowed(budget, clock) => {
                made = config.max_attempts;
                continue;
            }
            _ => {}
        }
        made += 1;
        others.push(Box::pin(attempt(made)));
    }
}

fn allowed(budget: Option<&RetryBudget>, clock: &dyn Clock) -> bool {
    budget.is_none_or(|budget| budget.spend(clock.now(), Retry::Backoff))
}

/// The first of them that is done, taken out.
fn first<W: Future>(
    original: &mut Option<Pin<&mut W>>,
    others: &mut Vec<Pin<Box<W>>>,
    cx: &mut Poller<'_>,
) -> Poll<W::Output> {
    if let Some(attempt) = original
        && let Poll::Ready(output) = attempt.as_mut().poll(cx)
    {
        *original = None;
        return Poll::Ready(output);
    }
    let done = others.iter_mut().enumerate().find_map(|(index, attempt)| match attempt.as_mut().poll(cx) {
        Poll::Ready(output) => Some((index, output)),
        Poll::Pending => None,
    });
    done.map_or(Poll::Pending, |(index, output)| {
        drop(others.swap_remove(index));
        Poll::Ready(output)
    })
}
