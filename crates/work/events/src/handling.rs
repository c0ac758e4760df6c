//! One attempt at an event, and what its failure means.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use runtime_kernel::{Deadline, Error, ErrorKind, Retry, SharedClock};
use runtime_resilience::{RetryPolicy, SharedRng};

/// How often and how long events are tried.
#[derive(Clone, Debug)]
pub(crate) struct Attempts {
    pub(crate) policy: RetryPolicy,
    pub(crate) timeout: Duration,
    pub(crate) rng: SharedRng,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { policy: RetryPolicy::default(), timeout: Duration::from_secs(30), rng: SharedRng::from_os() }
    }
}

/// What follows a failed attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Another one after a delay.
    Again(Duration, Error),
    /// None.
    Park(Error),
}

impl Attempts {
    /// An internal fault or a timeout may mend itself; otherwise the error says whether another attempt helps.
    pub(crate) fn judge(&self, error: Error, tried: u32) -> Outcome {
        let retry = match error.retry() {
            Retry::Never if matches!(error.kind(), ErrorKind::Internal | ErrorKind::Timeout) => {
                Retry::Backoff
            }
            retry => retry,
        };
        if tried >= self.policy.max_attempts() {
            return Outcome::Park(error);
        }
        match self.policy.next_delay(tried.max(1), retry, &mut self.rng.clone()) {
            Some(delay) => Outcome::Again(delay, error),
            None => Outcome::Park(error),
        }
    }
}

/// Runs one attempt: a panic is an internal fault, and so is making the future panic.
pub(crate) async fn once<W>(
    clock: &SharedClock,
    timeout: Duration,
    work: impl FnOnce() -> W,
) -> Result<(), Error>
where
    W: Future<Output = Result<(), Error>>,
{
    let work = AssertUnwindSafe(async move { work().await }).catch_unwind();
    match Deadline::after(&**clock, timeout).run(&**clock, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Error::new(ErrorKind::Internal, "events.panicked", "the handler panicked").with_source(text))
        }
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            "events.timeout",
            format!("the attempt took longer than {timeout:?}"),
        )),
    }
}
