//! The atomics, or loom's in their place when it explores every order of events.

#[cfg(not(runtime_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(runtime_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(runtime_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(runtime_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// Waits a moment for another thread: first on the spot, then by letting it run.
pub(crate) fn pause(tries: &mut u32) {
    *tries += 1;
    #[cfg(runtime_loom)]
    loom::thread::yield_now();
    #[cfg(not(runtime_loom))]
    if *tries < 64 {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
