//! So many of something at once: calls, megabytes, connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use runtime_kernel::{Clock, Deadline};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{LimitsError, Overloaded};

/// A weighted semaphore that is fair and whose line has an end. Shared by its clones.
///
/// Who comes first is served first, large or small, so that large demands are not starved.
///
/// ```
/// use runtime_kernel::{Deadline, SystemClock};
/// use runtime_limits::SemaphoreLimit;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), runtime_kernel::Error> {
/// let memory = SemaphoreLimit::new(64, 100)?; // 64 MiB, and 100 may wait
/// let held = memory.acquire(16, &SystemClock, Deadline::NONE).await?;
/// assert_eq!(memory.available(), 48);
/// drop(held);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SemaphoreLimit {
    permits: Arc<Semaphore>,
    size: u32,
    waiting: Arc<AtomicU32>,
    max_waiting: u32,
}

/// What was taken, given back when dropped.
#[derive(Debug)]
#[must_use = "dropped, it is given back"]
pub struct Taken(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

struct InLine<'a>(&'a AtomicU32);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl SemaphoreLimit {
    /// So many permits, and so many who may wait for some.
    ///
    /// # Errors
    /// [`LimitsError`] when there are no permits, or more than 536,870,911.
    pub fn new(permits: u32, max_waiting: u32) -> Result<Self, LimitsError> {
        if permits == 0 || u64::from(permits) > (u32::MAX >> 3).into() {
            return Err(LimitsError::new("permits", "must be 1 to 536870911"));
        }
        let size = usize::try_from(permits).unwrap_or(usize::MAX);
        Ok(Self {
            permits: Arc::new(Semaphore::new(size)),
            size: permits,
            waiting: Arc::default(),
            max_waiting,
        })
    }

    /// So many permits, if they are free now.
    ///
    /// # Errors
    /// [`Overloaded::Full`], and [`Overloaded::TooMuch`] when there are not so many at all.
    pub fn acquire_now(&self, permits: u32) -> Result<Taken, Overloaded> {
        if permits > self.size {
            return Err(Overloaded::TooMuch { asked: permits, limit: self.size });
        }
        let taken = Arc::clone(&self.permits).try_acquire_many_owned(permits);
        taken.map(Taken).map_err(|_| self.full())
    }

    /// So many permits, waiting for them until the deadline.
    ///
    /// Cancel-safe: dropped while it waits, it leaves the line and takes nothing.
    ///
    /// # Errors
    /// [`Overloaded::Full`] when as many wait as may, [`Overloaded::TooMuch`] when there are not so many permits at
    /// all, [`Overloaded::DeadlinePassed`].
    pub async fn acquire(
        &self,
        permits: u32,
        clock: &dyn Clock,
        deadline: Deadline,
    ) -> Result<Taken, Overloaded> {
        match self.acquire_now(permits) {
            Err(Overloaded::Full { .. }) => {}
            answer => return answer,
        }
        let one_more = |waiting: u32| (waiting < self.max_waiting).then_some(waiting + 1);
        let joined = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        let _line = joined.map(|_| InLine(&self.waiting)).map_err(|_| self.full())?;
        match deadline.run(clock, Arc::clone(&self.permits).acquire_many_owned(permits)).await {
            // The semaphore is never closed.
            Ok(taken) => taken.map(Taken).map_err(|_| self.full()),
            Err(_) => Err(Overloaded::DeadlinePassed),
        }
    }

    /// How many permits are free.
    pub fn available(&self) -> u32 {
        u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Acquire)
    }

    fn full(&self) -> Overloaded {
        Overloaded::Full { in_flight: self.size - self.available().min(self.size), limit: self.size }
    }
}
