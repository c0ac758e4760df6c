//! Nanoseconds on a monotonic count, for code that reads the time millions of times a second.

use std::time::Instant;

use crate::clock::SharedClock;

/// A monotonic count of nanoseconds since it was made, from 1.
///
/// With the feature `tsc` [`Ticks::machine`] reads the processor's own counter, which costs half of what the
/// operating system's clock does. Clones count from the same start.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use runtime_kernel::{ManualClock, Ticks};
///
/// let clock = ManualClock::new();
/// let ticks = Ticks::of(Arc::new(clock.clone()));
/// assert_eq!(ticks.now(), 1);
/// clock.advance(Duration::from_micros(3));
/// assert_eq!(ticks.now(), 3_001);
/// ```
#[derive(Clone, Debug)]
pub struct Ticks(Source);

#[derive(Clone, Debug)]
enum Source {
    #[cfg(feature = "tsc")]
    Counter {
        clock: quanta::Clock,
        start: u64,
    },
    Clock {
        clock: SharedClock,
        start: Instant,
    },
}

impl Ticks {
    /// The machine's fastest monotonic clock. Tokio's paused time does not rule it with the feature `tsc`.
    pub fn machine() -> Self {
        #[cfg(feature = "tsc")]
        {
            let clock = quanta::Clock::new();
            let start = clock.raw();
            Self(Source::Counter { clock, start })
        }
        #[cfg(not(feature = "tsc"))]
        Self::of(crate::clock::SystemClock::shared())
    }

    /// A clock's own time.
    pub fn of(clock: SharedClock) -> Self {
        let start = clock.now();
        Self(Source::Clock { clock, start })
    }

    /// Nanoseconds since the start, plus one, so that 0 always lies in the past.
    #[inline]
    pub fn now(&self) -> u64 {
        match &self.0 {
            #[cfg(feature = "tsc")]
            Source::Counter { clock, start } => clock.delta_as_nanos(*start, clock.raw()) + 1,
            Source::Clock { clock, start } => since(clock, *start),
        }
    }
}

#[inline(never)]
fn since(clock: &SharedClock, start: Instant) -> u64 {
    let since = clock.now().saturating_duration_since(start);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 3) + 1
}
