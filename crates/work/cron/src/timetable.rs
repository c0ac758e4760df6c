//! When a schedule fires: an expression or an interval, in a zone, without the days its calendar leaves out.

use std::time::Duration;

use runtime_kernel::{Timestamp, units};

use crate::calendar::DaysOff;
use crate::expression::civil::DAY;
use crate::expression::{CronExpression, hash};
use crate::zone::Zone;

/// How many days off in a row are looked past before a schedule counts as over.
const PATIENCE: i64 = 4_000;

/// How many fire times are looked at, for one answer, that fall on days off.
const TRIES: u32 = 10_000;

/// A schedule's times, ready to be asked for.
#[derive(Clone, Debug)]
pub struct Timetable {
    pub(crate) times: Times,
    pub(crate) zone: Zone,
    pub(crate) off: DaysOff,
}

/// What repeats.
#[derive(Clone, Debug)]
pub(crate) enum Times {
    Cron(CronExpression),
    /// Every so many seconds since 1970, so that all schedulers agree without asking.
    Every(i64),
}

impl Times {
    /// Reads `@every 90s`; `None` when it is something else.
    pub(crate) fn interval(text: &str) -> Option<Result<Self, String>> {
        let rest = text.trim().strip_prefix("@every ")?;
        let duration = match units::duration::parse(rest.trim()) {
            Ok(duration) => duration,
            Err(error) => return Some(Err(error)),
        };
        let allowed = Duration::from_secs(1)..=Duration::from_hours(24 * 366);
        if !allowed.contains(&duration) || duration.subsec_nanos() != 0 {
            return Some(Err("`@every` takes whole seconds, from 1s to 366 days".to_owned()));
        }
        Some(Ok(Self::Every(i64::try_from(duration.as_secs()).unwrap_or(DAY))))
    }

    fn next(&self, after: i64, zone: &Zone) -> Option<i64> {
        match self {
            Self::Cron(expression) => expression.next_second(after, zone),
            Self::Every(every) => after.div_euclid(*every).checked_add(1)?.checked_mul(*every),
        }
    }

    fn previous(&self, before: i64, zone: &Zone) -> Option<i64> {
        match self {
            Self::Cron(expression) => expression.previous_second(before, zone),
            Self::Every(every) => (before - 1).div_euclid(*every).checked_mul(*every),
        }
    }
}

impl Timetable {
    /// The first time after `at`.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let mut from = at.as_microsecond().div_euclid(1_000_000);
        for _ in 0..TRIES {
            let found = self.times.next(from, &self.zone)?;
            let Some(day) = self.day_off(found) else { return timestamp(found) };
            let open = (day + 1..=day + PATIENCE).find(|day| !self.off.has(*day))?;
            // Never before what was found: a gap's edge may lie in the day before.
            from = found.max(self.begin(open)? - 1);
        }
        None
    }

    /// The last time before `at`.
    pub fn previous_before(&self, at: Timestamp) -> Option<Timestamp> {
        let mut until = -(-at.as_microsecond()).div_euclid(1_000_000);
        for _ in 0..TRIES {
            let found = self.times.previous(until, &self.zone)?;
            let Some(day) = self.day_off(found) else { return timestamp(found) };
            until = found.min(self.begin(day)?);
        }
        None
    }

    /// The times after `at`, in order.
    pub fn upcoming(&self, at: Timestamp) -> impl Iterator<Item = Timestamp> + '_ {
        std::iter::successors(self.next_after(at), |at| self.next_after(*at))
    }

    /// The local day of an instant, if it is left out.
    fn day_off(&self, second: i64) -> Option<i64> {
        if self.off.is_empty() {
            return None;
        }
        let day = (second + self.zone.offset(second)).div_euclid(DAY);
        self.off.has(day).then_some(day)
    }

    /// The first instant of a local day.
    fn begin(&self, day: i64) -> Option<i64> {
        self.zone.first_instant(day * DAY)
    }
}

/// How long after its fire time a tick is let wait: the same for everybody who asks, different for each schedule and
/// each time.
pub(crate) fn jitter(name: &str, fire_time: Timestamp, most: Duration) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
    let seed = hash::name(name) ^ hash::mix(fire_time.as_microsecond().unsigned_abs());
    Duration::from_millis(hash::mix(seed) % (most + 1))
}

fn timestamp(second: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(second.checked_mul(1_000_000)?).ok()
}
