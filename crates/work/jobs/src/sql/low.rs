//! From which rank on a lane may have jobs, so that a claim need not wade through what was done before.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::row::Row;

/// How far behind the clock a mark stays: what was enqueued earlier and is committed later than that is seen by the next
/// whole look.
const MARGIN: i64 = 200_000;

/// At most this part of the time is spent on looking through all from the beginning, up to the longest interval.
const SHARE: u32 = 20;
const RAREST: Duration = Duration::from_secs(30);

/// For how long at least what arrives keeps a mark down: it is told before it is committed.
const REMEMBERED: Duration = Duration::from_secs(2);

/// From which rank on each lane may have jobs; from which time on jobs may wait for theirs, in one lane.
///
/// Rows a claim has taken stay in Postgres's index for as long as any transaction might still see them. Without a mark, a
/// transaction held open for minutes makes every claim wade through all that was done meanwhile.
#[derive(Debug, Default)]
pub(super) struct LowWater(Mutex<Marks>);

#[derive(Debug, Default)]
struct Marks {
    by_lane: HashMap<i64, Lane>,
    turned_at: Option<Instant>,
}

#[derive(Debug)]
struct Lane {
    mark: i64,
    /// The lowest rank that has arrived since the last turn, and between the two before.
    arrived: [i64; 2],
    /// When it is to be looked through from its beginning; at once until it has been.
    whole_at: Option<Instant>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { mark: i64::MIN, arrived: [i64::MAX; 2], whole_at: None }
    }
}

impl LowWater {
    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything.
    #[cfg(feature = "testkit")]
    pub(super) fn forget(&self) {
        *self.lock() = Marks::default();
    }

    /// A job below the marks may come: what is told of it may not be committed yet.
    pub(super) fn arrived(&self, lane: i64, rank: i64) {
        let mut marks = self.lock();
        let lane = marks.by_lane.entry(lane).or_default();
        lane.mark = lane.mark.min(rank.saturating_sub(MARGIN));
        let [fresh, _] = &mut lane.arrived;
        *fresh = rank.min(*fresh);
    }

    /// The marks, or none when a whole look at one of them is due.
    pub(super) fn marks(&self, lanes: &[i64], now: Instant) -> Option<Vec<i64>> {
        let mut marks = self.lock();
        if marks.turned_at.is_none_or(|at| at + REMEMBERED <= now) {
            marks.turned_at = Some(now);
            for lane in marks.by_lane.values_mut() {
                let [fresh, _] = lane.arrived;
                lane.arrived = [i64::MAX, fresh];
            }
        }
        let found = lanes.iter().map(|lane| {
            let lane = marks.by_lane.get(lane)?;
            (lane.whole_at? > now).then_some(lane.mark)
        });
        found.collect()
    }

    pub(super) fn looked_whole(&self, lanes: &[i64], now: Instant, took: Duration) {
        let (mut marks, at) = (self.lock(), now + (took * SHARE).min(RAREST));
        for lane in lanes {
            marks.by_lane.entry(*lane).or_default().whole_at = Some(at);
        }
    }

    /// What was highest in each lane is taken, and so is all below it, but for what is not committed yet and what has
    /// arrived lately.
    pub(super) fn taken(&self, highest: impl IntoIterator<Item = (i64, i64)>, now: i64) {
        let mut marks = self.lock();
        for (lane, rank) in highest {
            let lane = marks.by_lane.entry(lane).or_default();
            let [fresh, older] = lane.arrived;
            lane.mark = rank.min(now.min(fresh).min(older).saturating_sub(MARGIN));
        }
    }
}

/// The highest rank in each lane.
pub(super) fn highest(rows: &[Row]) -> HashMap<i64, i64> {
    let mut highest: HashMap<i64, i64> = HashMap::new();
    for row in rows {
        let mark = highest.entry(row.lane()).or_insert(i64::MIN);
        *mark = (*mark).max(row.rank);
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_while_a_claim_is_under_way_is_not_hidden_by_its_end() {
        let (low, start) =
            (LowWater::default(), runtime_kernel::Clock::now(&runtime_kernel::ManualClock::new()));
        let body = r#"{"shapes":[{"priority":0,"attempt":0,"max_attempts":1,"allowance":1,"claims":0,"queue":"q",
            "kind":"a","tenant":"","context":"{}"}],"base":0,"rows":[["00000000-0000-0000-0000-000000000001",0,0,0,0,"{}"]]}"#;
        let row = crate::sql::body::unpack(body).unwrap().remove(0);
        let (lane, second) = (row.lane(), 1_000_000);
        let take = |rank: i64| low.taken(highest(&[Row { rank, ..row.clone() }]), 100 * second);
        let mark = |at: u64| {
            low.looked_whole(&[lane], start + Duration::from_secs(at), Duration::from_millis(1));
            low.marks(&[lane], start + Duration::from_secs(at)).unwrap()[0]
        };
        take(50 * second);
        assert_eq!(mark(0), 50 * second, "all below was taken");
        low.arrived(lane, 10 * second);
        take(60 * second);
        assert_eq!(mark(1), 10 * second - MARGIN, "told, and perhaps not committed yet");
        take(70 * second);
        assert_eq!(mark(3), 10 * second - MARGIN);
        take(80 * second);
        assert_eq!(mark(6), 10 * second - MARGIN);
        take(90 * second);
        assert_eq!(mark(9), 90 * second, "committed long ago");
    }
}
