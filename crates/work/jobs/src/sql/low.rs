//! From which rank on a lane may have jobs, so that a claim need not wade through what was done before.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::row::Row;

/// How far behind the clock a mark stays: what was enqueued earlier and is committed later than that is seen by the next
/// whole look.
const MARGIN: i64 = 200_000;

/// How often a lane is looked through from its beginning at least.
const WHOLE: Duration = Duration::from_secs(1);

/// And at most this part of the time is spent on it, up to the longest interval.
const SHARE: u32 = 20;
const RAREST: Duration = Duration::from_secs(30);

/// From which rank on each lane may have jobs.
///
/// Rows a claim has taken stay in Postgres's index for as long as any transaction might still see them. Without a mark, a
/// transaction held open for minutes makes every claim wade through all that was done meanwhile.
#[derive(Debug, Default)]
pub(super) struct LowWater(Mutex<Marks>);

#[derive(Debug, Default)]
struct Marks {
    by_lane: HashMap<i64, i64>,
    whole_at: Option<Instant>,
}

impl LowWater {
    fn lock(&self) -> MutexGuard<'_, Marks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job below the marks may have come.
    pub(super) fn arrived(&self, lane: i64, rank: i64) {
        let mut marks = self.lock();
        if let Some(mark) = marks.by_lane.get_mut(&lane) {
            *mark = (*mark).min(rank.saturating_sub(MARGIN));
        }
    }

    /// The marks, or none when a whole look is due.
    pub(super) fn marks(&self, lanes: &[i64], now: Instant) -> Option<Vec<i64>> {
        let marks = self.lock();
        if marks.whole_at.is_none_or(|at| at <= now) {
            return None;
        }
        Some(lanes.iter().map(|lane| marks.by_lane.get(lane).copied().unwrap_or(i64::MIN)).collect())
    }

    pub(super) fn looked_whole(&self, now: Instant, took: Duration) {
        self.lock().whole_at = Some(now + (took * SHARE).clamp(WHOLE, RAREST));
    }

    /// Everything below has been taken, but for what is not committed yet.
    pub(super) fn taken(&self, rows: &[Row], now: i64) {
        let mut highest: HashMap<i64, i64> = HashMap::new();
        for row in rows {
            let mark = highest.entry(row.lane()).or_insert(i64::MIN);
            *mark = (*mark).max(row.rank);
        }
        let mut marks = self.lock();
        for (lane, rank) in highest {
            marks.by_lane.insert(lane, rank.min(now - MARGIN));
        }
    }
}
