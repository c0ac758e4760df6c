//! A short line in front of a limit, that does not become a long one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::concurrency::Permit;
use crate::criticality::Criticality;
use crate::error::LimitsError;

/// How many calls may wait for a place, and for how long: controlled delay with adaptive order (Nichols and Jacobson,
/// "Controlling Queue Delay", 2012; Maurer, "Fail at Scale", ACM Queue 2015).
///
/// While the line runs empty now and then, calls wait up to `interval` and are served in the order they came: that
/// carries bursts. Once it has not been empty for `interval`, the line stands, and waiting longer helps nobody: from
/// then on nobody waits longer than `target`, and who came last is served first, for its caller is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct QueueConfig {
    /// How many may wait: 1 to 1,000,000. Beyond that the oldest of what matters less makes room, or the newcomer is
    /// turned away. Default 256.
    pub size: u32,
    /// How long a call may wait in a line that stands: more than 0. Default 5 ms.
    #[serde(with = "runtime_kernel::units::duration")]
    pub target: Duration,
    /// How long a call may wait otherwise, and how long a line must have been there to stand: no less than `target`.
    /// Default 100 ms.
    #[serde(with = "runtime_kernel::units::duration")]
    pub interval: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { size: 256, target: Duration::from_millis(5), interval: Duration::from_millis(100) }
    }
}

impl QueueConfig {
    /// Room for so many.
    pub fn of(size: u32) -> Self {
        Self { size, ..Self::default() }
    }

    pub(crate) fn check(self) -> Result<(), LimitsError> {
        let wrong = |key: &'static str, message: &'static str| Err(LimitsError::new(key, message));
        if !(1..=1_000_000).contains(&self.size) {
            return wrong("queue.size", "must be 1 to 1000000");
        }
        if self.target.is_zero() {
            return wrong("queue.target", "must be more than 0");
        }
        if self.interval < self.target || self.interval > Duration::from_mins(1) {
            return wrong("queue.interval", "must be between `queue.target` and 1m");
        }
        Ok(())
    }
}

/// What one who waits is told: a place, or nothing when the sender is dropped.
pub(crate) type Waiting = oneshot::Receiver<Permit>;

#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Queue {
    config: QueueConfig,
    /// How many wait; read without the lock by those who leave.
    waiting: AtomicUsize,
    lanes: Mutex<Lanes>,
}

#[derive(Debug, Default)]
struct Lanes {
    /// Who waits, by criticality, the lowest first; in a lane the oldest in front.
    waiting: [VecDeque<Waiter>; 4],
    /// When the line was last seen empty.
    empty: u64,
}

#[derive(Debug)]
struct Waiter {
    tell: oneshot::Sender<Permit>,
    came: u64,
}

impl Queue {
    pub(crate) fn new(config: QueueConfig) -> Self {
        Self { config, waiting: AtomicUsize::new(0), lanes: Mutex::default() }
    }

    /// How many wait. Ordered after what the caller did before: who frees a place and sees nobody was seen by
    /// whoever comes to wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// A place in the line and how long it may be held, or nothing when the line is full of what matters as much.
    pub(crate) fn join(&self, criticality: Criticality, now: u64) -> Option<(Waiting, Duration)> {
        let mut lanes = self.lock();
        if lanes.len() >= self.size() {
            lanes.forget_who_left();
        }
        if lanes.len() >= self.size() && !lanes.make_room(criticality) {
            self.counted(&lanes);
            return None;
        }
        if lanes.len() == 0 {
            lanes.empty = now;
        }
        let patience = if self.stands(&lanes, now) { self.config.target } else { self.config.interval };
        let (tell, told) = oneshot::channel();
        if let Some(lane) = lanes.waiting.get_mut(criticality as usize) {
            lane.push_back(Waiter { tell, came: now });
        }
        self.counted(&lanes);
        Some((told, patience))
    }

    /// Gives places to those who wait for as long as there are any. `place` makes one for a criticality.
    pub(crate) fn serve(&self, now: u64, place: impl Fn(Criticality) -> Option<Permit>) {
        // Let go after the lock is: a place that is freed serves whoever waits.
        let mut spare = None;
        let mut lanes = self.lock();
        while spare.is_none()
            && let Some(criticality) = lanes.highest()
            && let Some(permit) = place(criticality)
        {
            let stands = self.stands(&lanes, now);
            let patience = nanos(if stands { self.config.target } else { self.config.interval });
            spare = Some(permit);
            while let Some(permit) = spare.take() {
                let Some(waiter) = lanes.next(criticality, stands) else {
                    spare = Some(permit);
                    break;
                };
                // Who waited too long is told so by being dropped.
                let in_time = now.saturating_sub(waiter.came) <= patience;
                spare = if in_time { waiter.tell.send(permit).err() } else { Some(permit) };
            }
        }
        if lanes.len() == 0 {
            lanes.empty = now;
        }
        self.counted(&lanes);
        drop(lanes);
    }

    /// Forgets those who no longer wait.
    pub(crate) fn tidy(&self) {
        let mut lanes = self.lock();
        lanes.forget_who_left();
        self.counted(&lanes);
    }

    fn stands(&self, lanes: &Lanes, now: u64) -> bool {
        lanes.len() > 0 && now.saturating_sub(lanes.empty) > nanos(self.config.interval)
    }

    fn size(&self) -> usize {
        usize::try_from(self.config.size).unwrap_or(usize::MAX)
    }

    fn counted(&self, lanes: &Lanes) {
        self.waiting.store(lanes.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    fn highest(&mut self) -> Option<Criticality> {
        let lanes = Criticality::ALL.into_iter().zip(&self.waiting);
        lanes.rev().find(|(_, lane)| !lane.is_empty()).map(|(criticality, _)| criticality)
    }

    fn next(&mut self, criticality: Criticality, last_first: bool) -> Option<Waiter> {
        let lane = self.waiting.get_mut(criticality as usize)?;
        if last_first { lane.pop_back() } else { lane.pop_front() }
    }

    /// The oldest of what matters less than a newcomer gives up its place.
    fn make_room(&mut self, newcomer: Criticality) -> bool {
        let lower = self.waiting.iter_mut().take(newcomer as usize);
        lower.into_iter().find_map(VecDeque::pop_front).is_some()
    }

    fn forget_who_left(&mut self) {
        for lane in &mut self.waiting {
            lane.retain(|waiter| !waiter.tell.is_closed());
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
