//! The right to begin a call, and the word that it went well, beside the semaphores others limit calls with.

use std::sync::Arc;
use std::time::Duration;

use runtime_limits::{ConcurrencyConfig, ConcurrencyLimit, Criticality, QueueConfig};
use tokio::sync::Semaphore;

use crate::measure::{interleave, nanos_on};
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(60);

/// One and two threads over one limit of a thousand calls.
pub fn rows() -> Vec<Row> {
    [1, 2].into_iter().flat_map(on).collect()
}

fn on(threads: usize) -> Vec<Row> {
    let adaptive = |queue| {
        let mut config = ConcurrencyConfig::default();
        (config.initial, config.queue) = (1_000, queue);
        ConcurrencyLimit::new(config).expect("sound")
    };
    let (plain, queued) = (adaptive(None), adaptive(Some(QueueConfig::default())));
    let fixed = ConcurrencyLimit::new(ConcurrencyConfig::fixed(1_000)).expect("sound");
    let semaphore = Arc::new(Semaphore::new(1_000));
    let pass = |limit: &ConcurrencyLimit| {
        if let Ok(permit) = limit.acquire(Criticality::Critical) {
            permit.succeeded();
        }
    };
    let [plain, queued, fixed, theirs] = interleave([
        &mut || nanos_on(threads, WINDOW, |_| pass(&plain)),
        &mut || nanos_on(threads, WINDOW, |_| pass(&queued)),
        &mut || nanos_on(threads, WINDOW, |_| pass(&fixed)),
        &mut || nanos_on(threads, WINDOW, |_| drop(Arc::clone(&semaphore).try_acquire_owned())),
    ]);
    let peer = ("tokio Semaphore, owned permit, which learns nothing", theirs.as_slice());
    let row = |name: &str, ours: &[f64]| {
        let name = format!("{name}, {threads} thread{}", if threads == 1 { "" } else { "s" });
        Row::of("limits", &name, "ns", Better::Less, ours, peer)
    };
    vec![row("gradient2", &plain), row("gradient2 with a line", &queued), row("fixed", &fixed)]
}
