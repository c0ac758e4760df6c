//! How a limit is found from what calls took.

mod aimd;
pub(crate) mod baseline;
mod gradient2;
mod vegas;

use std::fmt;
use std::time::Duration;

pub use aimd::Aimd;
pub use gradient2::Gradient2;
pub use vegas::Vegas;

/// What the calls of a window were like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What they took on average.
    pub latency: Duration,
    /// The most that were under way at once.
    pub in_flight: u32,
    /// Whether one of them was dropped for overload.
    pub dropped: bool,
}

/// Finds a limit. Told one sample after another, it says how many calls may be under way.
pub trait Algorithm: fmt::Debug + Send + 'static {
    /// The limit now.
    fn limit(&self) -> u32;

    /// The limit after a window.
    fn update(&mut self, sample: &Sample) -> u32;

    /// The limit when a window does not end: as many calls are under way as may be, others are turned away, and in the
    /// time of fifty windows too few have ended to fill one. What those were like, if there were any, is looked at in
    /// advance: they count in the window as well.
    ///
    /// An algorithm that lowers its limit to measure takes it back here; calls that hang would keep everybody out. By
    /// default nothing changes.
    fn give_up(&mut self, _: Option<&Sample>) -> u32 {
        self.limit()
    }
}

/// A limit that stays as it is.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(u32);

impl Fixed {
    /// So many calls.
    pub fn new(limit: u32) -> Self {
        Self(limit)
    }
}

impl Algorithm for Fixed {
    fn limit(&self) -> u32 {
        self.0
    }

    fn update(&mut self, _: &Sample) -> u32 {
        self.0
    }
}

/// A limit as a whole number inside its bounds.
fn bounded(limit: f64, bounds: &std::ops::RangeInclusive<u32>) -> f64 {
    limit.clamp(f64::from(*bounds.start()), f64::from(*bounds.end()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits lie between 1 and a million"
)]
fn whole(limit: f64) -> u32 {
    limit as u32
}
