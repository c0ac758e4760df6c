//! Nanoseconds since a limiter was made.

use std::time::Instant;

use runtime_kernel::SharedClock;

/// Where a limiter reads the time.
#[derive(Clone, Debug)]
pub(crate) struct Ticks {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    /// The processor's own counter, which costs half of what the operating system's clock does.
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
    /// The fastest monotonic clock of the machine.
    pub(crate) fn machine() -> Self {
        #[cfg(feature = "tsc")]
        {
            let clock = quanta::Clock::new();
            let start = clock.raw();
            Self { source: Source::Counter { clock, start } }
        }
        #[cfg(not(feature = "tsc"))]
        Self::of(runtime_kernel::SystemClock::shared())
    }

    pub(crate) fn of(clock: SharedClock) -> Self {
        let start = clock.now();
        Self { source: Source::Clock { clock, start } }
    }

    /// Nanoseconds since the start, from 1, so that an unused word always lies in the past.
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        match &self.source {
            #[cfg(feature = "tsc")]
            Source::Counter { clock, start } => clock.delta_as_nanos(*start, clock.raw()) + 1,
            Source::Clock { clock, start } => {
                let since = clock.now().saturating_duration_since(*start);
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX >> 3) + 1
            }
        }
    }
}
