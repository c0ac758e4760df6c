//! Where time comes from: the system, or a test's hand.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::timestamp::Timestamp;

/// A wait that ends when the clock says so. Dropping it cancels the wait.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The one source of time. Logic never calls `Instant::now` itself.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// A monotonic reading, for durations and deadlines.
    fn now(&self) -> Instant;
    /// Wall-clock time in UTC, for what is stored and shown. May step backwards.
    fn utc(&self) -> Timestamp;
    /// Waits for a duration of this clock.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// A clock shared by everything in a process.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock, read through tokio so that `tokio::time::pause` rules it in tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock, ready to share.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn utc(&self) -> Timestamp {
        std::time::SystemTime::now().into()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that moves only when told, for tests.
///
/// ```
/// use std::time::Duration;
/// use runtime_kernel::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let start = clock.now();
/// clock.advance(Duration::from_secs(5));
/// assert_eq!(clock.now() - start, Duration::from_secs(5));
/// ```
#[derive(Clone)]
pub struct ManualClock {
    start: Instant,
    epoch: Timestamp,
    state: Arc<Mutex<ManualState>>,
}

#[derive(Default)]
struct ManualState {
    elapsed: Duration,
    next: u64,
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("utc", &self.utc()).finish_non_exhaustive()
    }
}

impl ManualClock {
    /// A clock that stands at 2026-01-01T00:00:00Z.
    pub fn new() -> Self {
        Self::at(Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// A clock that stands at `epoch`.
    #[expect(clippy::disallowed_methods, reason = "an origin: `Instant` has no other constructor")]
    pub fn at(epoch: Timestamp) -> Self {
        Self { start: Instant::now(), epoch, state: Arc::default() }
    }

    /// Moves time forward and wakes, in order, every sleeper whose time has come.
    pub fn advance(&self, by: Duration) {
        let due = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.elapsed = state.elapsed.saturating_add(by);
            let now = state.elapsed;
            let later = state.sleepers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut state.sleepers, later)
        };
        for sleeper in due.into_values() {
            // A dropped receiver is a cancelled sleep.
            let _ = sleeper.send(());
        }
    }

    /// How many sleeps are waiting, cancelled ones included until their time comes.
    pub fn sleepers(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).sleepers.len()
    }

    fn elapsed(&self) -> Duration {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).elapsed
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn utc(&self) -> Timestamp {
        self.epoch.saturating_add(self.elapsed())
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        if duration.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (state.elapsed.saturating_add(duration), state.next);
        state.next += 1;
        state.sleepers.insert(key, wake);
        Box::pin(async move {
            let _ = woken.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sleeper_wakes_exactly_when_its_time_has_come() {
        let clock = ManualClock::new();
        let mut sleep = tokio::spawn(clock.sleep(Duration::from_secs(2)));
        clock.advance(Duration::from_millis(1_999));
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_millis(1));
        (&mut sleep).await.unwrap();
        assert_eq!(clock.sleepers(), 0);
    }

    #[test]
    fn both_readings_move_together() {
        let clock = ManualClock::new();
        let (now, utc) = (clock.now(), clock.utc());
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now() - now, Duration::from_secs(90));
        assert_eq!(clock.utc().duration_since(utc).as_secs(), 90);
    }
}
