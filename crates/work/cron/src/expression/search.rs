//! Finds the matching local times next to a local time, field by field, without looking at the times between.

use super::civil::{DAY, FIRST_YEAR, LAST_YEAR, date_of, days_of, is_leap, weekday};
use super::{Fields, YEARS_FROM};

/// The lowest set bit at or above `from`.
const fn at_or_above(mask: u64, from: u32) -> Option<u32> {
    if from > 63 {
        return None;
    }
    let rest = mask & (u64::MAX << from);
    if rest == 0 { None } else { Some(rest.trailing_zeros()) }
}

/// The highest set bit at or below `to`.
const fn at_or_below(mask: u64, to: u32) -> Option<u32> {
    let rest = if to >= 63 { mask } else { mask & ((1 << (to + 1)) - 1) };
    if rest == 0 { None } else { Some(rest.ilog2()) }
}

impl Fields {
    /// The first matching local second at or after one.
    pub(crate) fn first_from(&self, local: i64) -> Option<i64> {
        let (days, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let (mut year, mut month, today) = date_of(days);
        let mut day = today;
        if year < FIRST_YEAR {
            (year, month, day) = (FIRST_YEAR, 1, 1);
        } else if self.has_month(year, month) && self.days_in(year, month) & (1 << day) != 0 {
            if let Some(time) = self.time_from(second) {
                return Some(days * DAY + time);
            }
            day += 1;
        } else {
            day += 1;
        }
        loop {
            if self.has_month(year, month)
                && let Some(day) = at_or_above(u64::from(self.days_in(year, month)), day)
            {
                return Some(days_of(year, month, day) * DAY + self.first_time());
            }
            day = 1;
            month = if let Some(month) = at_or_above(u64::from(self.months), month + 1) {
                month
            } else {
                year = self.year_from(year + 1)?;
                self.months.trailing_zeros()
            };
            if !self.has_year(year) {
                year = self.year_from(year)?;
                month = self.months.trailing_zeros();
            }
        }
    }

    /// The last matching local second at or before one.
    pub(crate) fn last_until(&self, local: i64) -> Option<i64> {
        let (days, second) = (local.div_euclid(DAY), local.rem_euclid(DAY));
        let (mut year, mut month, today) = date_of(days);
        let mut day = today;
        if year > LAST_YEAR {
            (year, month, day) = (LAST_YEAR, 12, 31);
        } else if self.has_month(year, month) && self.days_in(year, month) & (1 << day) != 0 {
            if let Some(time) = self.time_until(second) {
                return Some(days * DAY + time);
            }
            day -= 1;
        } else {
            day -= 1;
        }
        loop {
            if self.has_month(year, month)
                && let Some(day) = at_or_below(u64::from(self.days_in(year, month)), day)
            {
                return Some(days_of(year, month, day) * DAY + self.last_time());
            }
            day = 31;
            month = if let Some(month) = at_or_below(u64::from(self.months), month - 1) {
                month
            } else {
                year = self.year_until(year - 1)?;
                self.months.ilog2()
            };
            if !self.has_year(year) {
                year = self.year_until(year)?;
                month = self.months.ilog2();
            }
        }
    }

    /// The days of a month that match.
    pub(crate) fn days_in(&self, year: i32, month: u32) -> u32 {
        self.days.mask(is_leap(year), month, weekday(days_of(year, month, 1)))
    }

    fn has_month(&self, year: i32, month: u32) -> bool {
        self.months & (1 << month) != 0 && self.has_year(year)
    }

    pub(crate) fn has_year(&self, year: i32) -> bool {
        self.years.as_ref().is_none_or(|years| years.binary_search(&year).is_ok())
    }

    fn year_from(&self, year: i32) -> Option<i32> {
        let found = match &self.years {
            None => Some(year.max(FIRST_YEAR)),
            Some(years) => years.get(years.partition_point(|known| *known < year)).copied(),
        };
        found.filter(|year| *year <= LAST_YEAR)
    }

    fn year_until(&self, year: i32) -> Option<i32> {
        let found = match &self.years {
            None => Some(year.min(LAST_YEAR)),
            Some(years) => years
                .partition_point(|known| *known <= year)
                .checked_sub(1)
                .and_then(|at| years.get(at))
                .copied(),
        };
        found.filter(|year| *year >= FIRST_YEAR)
    }

    fn first_time(&self) -> i64 {
        time(self.hours.trailing_zeros(), self.minutes.trailing_zeros(), self.seconds.trailing_zeros())
    }

    fn last_time(&self) -> i64 {
        time(self.hours.ilog2(), self.minutes.ilog2(), self.seconds.ilog2())
    }

    fn time_from(&self, second_of_day: i64) -> Option<i64> {
        let (hour, minute, second) = parts(second_of_day);
        let (first_minute, first_second) = (self.minutes.trailing_zeros(), self.seconds.trailing_zeros());
        if self.hours & (1 << hour) != 0 {
            if self.minutes & (1 << minute) != 0
                && let Some(second) = at_or_above(self.seconds, second)
            {
                return Some(time(hour, minute, second));
            }
            if let Some(minute) = at_or_above(self.minutes, minute + 1) {
                return Some(time(hour, minute, first_second));
            }
        }
        at_or_above(u64::from(self.hours), hour + 1).map(|hour| time(hour, first_minute, first_second))
    }

    fn time_until(&self, second_of_day: i64) -> Option<i64> {
        let (hour, minute, second) = parts(second_of_day);
        let (last_minute, last_second) = (self.minutes.ilog2(), self.seconds.ilog2());
        if self.hours & (1 << hour) != 0 {
            if self.minutes & (1 << minute) != 0
                && let Some(second) = at_or_below(self.seconds, second)
            {
                return Some(time(hour, minute, second));
            }
            if minute > 0
                && let Some(minute) = at_or_below(self.minutes, minute - 1)
            {
                return Some(time(hour, minute, last_second));
            }
        }
        let earlier = hour.checked_sub(1)?;
        at_or_below(u64::from(self.hours), earlier).map(|hour| time(hour, last_minute, last_second))
    }

    /// Whether any day can ever match: within four hundred years the calendar has only fourteen kinds of year.
    pub(crate) fn is_possible(&self) -> bool {
        let month_begins = |leap: bool, january: u32, month: u32| {
            let days: u32 = (1..month).map(|month| super::civil::month_length(leap, month)).sum();
            (january + days) % 7
        };
        let possible = |leap: bool, january: u32| {
            (1..=12).any(|month| {
                self.months & (1 << month) != 0
                    && self.days.mask(leap, month, month_begins(leap, january, month)) != 0
            })
        };
        match &self.years {
            None => [false, true].into_iter().any(|leap| (0..7).any(|january| possible(leap, january))),
            Some(years) => {
                let kinds: Vec<bool> = (0..14).map(|kind| possible(kind >= 7, kind % 7)).collect();
                years.iter().any(|year| {
                    let kind = weekday(days_of(*year, 1, 1)) + if is_leap(*year) { 7 } else { 0 };
                    kinds.get(kind as usize).copied().unwrap_or(false)
                })
            }
        }
    }
}

const fn time(hour: u32, minute: u32, second: u32) -> i64 {
    (hour * 3600 + minute * 60 + second) as i64
}

const fn parts(second_of_day: i64) -> (u32, u32, u32) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "less than a day")]
    let second = second_of_day as u32;
    (second / 3600, second / 60 % 60, second % 60)
}

/// The years of a field, as a list in order: expressions with years are rare and name few.
pub(crate) fn years(mask: impl Fn(i32) -> bool) -> Box<[i32]> {
    (YEARS_FROM..=LAST_YEAR).filter(|year| mask(*year)).collect()
}
